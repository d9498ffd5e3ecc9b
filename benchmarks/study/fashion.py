"""The paper's network and its data: Fashion-MNIST, a folder of images, or digits with ``--quick``.

What public accounts of the paper (arXiv 2410.16537) say: a convolutional network that tells parasitized
from uninfected cells, whose layers Conv1, Conv2 and Dense are averaged over positions and then analysed; a
map 22 of Conv1 and a map 46 of Conv2 exist. What is our reading, as they do not say it: 32 and 64 maps,
3 x 3 kernels without padding, ReLU and 2 x 2 max-pooling after both, 64 dense units, no batch
normalisation, Glorot-uniform weights and Adam at 1e-3, as in a first network written in Keras.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import nn

import qixai_fast as qf
from benchmarks.study.images import fashion_mnist, image_folder, quick_digits

LAYERS = ("conv1", "conv2", "dense")
DENSE = 64
BATCH = 64
N_TRAIN = 20_000  # about what the malaria set has for training
EPOCHS = 5  # under a minute on one core, with that many


@dataclass(frozen=True)
class Split:
    """Images and their classes.

    Attributes
    ----------
    images : Tensor, shape (n, channels, height, width)
        float32 in [0, 1].
    labels : Tensor of int64, shape (n,)
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self):
        return len(self.labels)

    def batches(self, size=256):
        """Pairs of images and classes, as :func:`qixai_fast.capture` takes them."""
        return list(zip(self.images.split(size), self.labels.split(size), strict=True))

    def part(self, places):
        """The images at some places."""
        places = torch.as_tensor(np.asarray(places))
        return Split(self.images[places], self.labels[places])


@dataclass(frozen=True)
class Data:
    """What networks learn from and are tested on.

    Attributes
    ----------
    name : str
        Of the data, for text.
    train, test : Split
    classes : tuple of str
        Names, in the order of the labels.
    key : str
        Digest of everything above: networks of other data have other names in the work folder.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Trained:
    """A network, and how well it does.

    Attributes
    ----------
    model : Module
        In evaluation mode, without gradients of weights: conv1, pool1, conv2, pool2, flatten, dense, classes.
    accuracy : float
        Share of the test images that it classifies correctly.
    name : str
        Under which it is kept; begins the names of stores made from it.
    """

    model: nn.Module
    accuracy: float
    name: str


@lru_cache(maxsize=2)
def load(options):
    """The data that options ask for, split; the same on every call.

    Fashion-MNIST has a test set of its own. Of a folder of images and of the digits a fifth of every class is
    held out, the same one whatever the seed of a network.
    """
    if options.images:
        name, raw = "images of your own", image_folder(options.images)
    elif options.quick:
        name, raw = "handwritten digits", quick_digits()
    else:
        name, raw = "Fashion-MNIST", fashion_mnist()
    digest = sha256()
    for images, labels in (raw.train, raw.test):
        digest.update(np.ascontiguousarray(images))
        digest.update(np.ascontiguousarray(labels, np.int64))
    train, test = (
        Split(torch.from_numpy(images).float() / 255, torch.from_numpy(labels.astype(np.int64)))
        for images, labels in (raw.train, raw.test)
    )
    return Data(name, train, test, raw.classes, digest.hexdigest()[:8])


def make_cnn(shape, n_classes, *, seed, dense=DENSE):
    """The network before training: the same weights for the same seed.

    Parameters
    ----------
    shape : (int, int, int)
        Of an image: channels, height, width.
    n_classes : int
    seed : int
    dense : int
        Units of the dense layer.
    """
    channels, height, width = shape
    # Each convolution takes a border of one away, each pooling halves.
    height, width = (((side - 2) // 2 - 2) // 2 for side in (height, width))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            OrderedDict(
                conv1=nn.Sequential(nn.Conv2d(channels, 32, 3), nn.ReLU()),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU()),
                pool2=nn.MaxPool2d(2),
                flatten=nn.Flatten(),
                dense=nn.Sequential(nn.Linear(64 * height * width, dense), nn.ReLU()),
                classes=nn.Linear(dense, n_classes),
            )
        )
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    return model


def train(
    seed,
    options,
    *,
    dtype=torch.float32,
    n_train=None,
    label_noise=0.0,
    imbalance=None,
    dense=DENSE,
    epochs=None,
):
    """A network trained on one thread, or read from the work folder where it was trained before.

    Parameters
    ----------
    seed : int
        Of weights, order of images, and the choice of images and labels below.
    options : Options
    dtype : torch.dtype
        In which the network computes once it is trained; training is in float32.
    n_train : int, optional
        Images to train on, the same share of every class. By default 20,000, or as many as there are.
    label_noise : float
        Share of these whose class is drawn anew, all classes alike; 1 leaves nothing to learn but by heart.
    imbalance : float, optional
        How many times rarer the last class is than the first; those between follow a geometric series.
    dense : int
        Units of the dense layer.
    epochs : int, optional
        0 leaves the network as it was before training.
    """
    data = load(options)
    epochs = EPOCHS if epochs is None else epochs
    n_train = min(N_TRAIN if n_train is None else n_train, len(data.train))
    name = f"cnn-{data.key}-seed{seed}-n{n_train}-noise{label_noise:g}-rare{imbalance or 1:g}-dense{dense}"
    name += f"-epochs{epochs}"
    model = make_cnn(tuple(data.train.images.shape[1:]), len(data.classes), seed=seed, dense=dense)
    path = options.work / f"{name}.pt"
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
    elif epochs:
        places, labels = choose(data, seed, n_train, label_noise, imbalance)
        fit(model, data.train.images[places], labels, seed, epochs)
        _keep(path, lambda file: torch.save(model.state_dict(), file))
    model = model.to(dtype).eval().requires_grad_(False)
    name = f"{name}-{str(dtype).removeprefix('torch.')}"
    known = options.work / f"{name}.accuracy"
    if not known.is_file():
        share = accuracy(model, data.test)
        _keep(known, lambda file: file.write_text(repr(share)))
    return Trained(model, float(known.read_text()), name)


def _keep(path, write):
    """Write a file under another name first: what was killed, or goes on beside, is never read half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    write(fresh)
    fresh.replace(path)


def choose(data, seed, n_train, label_noise=0.0, imbalance=None):
    """Places of the images to train on, and the labels that they get."""
    rng = np.random.default_rng([seed, 8])
    labels = data.train.labels.numpy()
    n_classes = len(data.classes)
    rarity = (imbalance or 1) ** (-np.arange(n_classes) / (n_classes - 1))
    places = []
    for label, rare in enumerate(rarity):
        members = rng.permutation(np.flatnonzero(labels == label))
        places.append(members[: max(1, round(len(members) * n_train / len(labels) * rare))])
    places = np.sort(np.concatenate(places))
    given = labels[places].copy()
    noisy = rng.permutation(len(places))[: round(label_noise * len(places))]
    given[noisy] = rng.integers(0, n_classes, len(noisy))
    return torch.from_numpy(places), torch.from_numpy(given)


def fit(model, images, labels, seed, epochs):
    """Train a network in place, on one thread."""
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with _one_thread():
        for _ in range(epochs):
            for chosen in torch.randperm(len(images), generator=order).split(BATCH):
                loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()


@contextmanager
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def outputs(model, images, size=512):
    """Logits in float32, batch by batch."""
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        return torch.cat([model(batch.to(dtype)).float() for batch in images.split(size)])


def accuracy(model, split):
    """Share of images that are classified correctly."""
    return float((outputs(model, split.images).argmax(1) == split.labels).double().mean())


def record(trained, split, options, tag, *, layers=LAYERS, reduce="gap", dtype="float32"):
    """A store of what layers put out for a split, which ``tag`` names; read where it was recorded before."""
    path = Path(options.work) / f"{trained.name}-{tag}-{reduce}-{dtype}"
    if (path / "manifest.json").is_file():
        store = qf.open_store(path)
        if store.n_samples == len(split):
            return store
    compute = next(trained.model.parameters()).dtype
    return qf.capture(
        trained.model,
        ((images.to(compute), labels) for images, labels in split.batches()),
        list(layers),
        path,
        labels=1,
        reduce=reduce,
        dtype=dtype,
        progress=False,
    )
