"""Under which conditions the survival study measures, and the networks and activations of each."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from benchmarks.study import fashion
from benchmarks.study.fashion import LAYERS, Split, Trained

SEEDS = (0, 1, 2)
SIGMA = 0.25  # of the noise that a network is trained on; pixels are in [0, 1]
RARITY = 100.0
EPOCHS = 2  # 21 networks are trained


@dataclass(frozen=True)
class Sizes:
    """How much is audited.

    Attributes
    ----------
    images, subsample : int
        Audited images, and those of a subsample of them.
    replicates : int
        Subsamples.
    attributed : int
        Images with attributions.
    fewer : tuple of int
        Numbers of images of which many samples are drawn, the first as many as are audited.
    maps : int or None
        Maps of a layer that are looked at, from the first on; None for all.
    """

    images: int
    subsample: int
    replicates: int
    attributed: int
    fewer: tuple[int, ...]
    maps: int | None = None


def sizes(options):
    """A tenth of the images makes a subsample; the quick ones only show that everything runs."""
    if options.quick:
        return Sizes(150, 30, 3, 4, (150, 15, 8), maps=8)
    images = min(2000, len(fashion.load(options).test) // 2)
    return Sizes(images, images // 10, 39, 64, (images, images // 10, images // 100))


@dataclass(frozen=True)
class Condition:
    """What is not as in the clean case.

    Attributes
    ----------
    title : str
        In tables.
    training : dict
        Arguments of :func:`trained`. Where there are any, all seeds are trained so.
    sigma : float
        Noise on the audited images.
    stored : torch.dtype or None
        What activations are rounded to.
    computed : torch.dtype
        What the network computes in.
    places : str
        Which images are audited: the clean ones, others ("second"), or the same number with rare classes.
    """

    title: str
    training: dict[str, Any] = field(default_factory=dict)
    sigma: float = 0.0
    stored: torch.dtype | None = None
    computed: torch.dtype = torch.float32
    places: str = "clean"

    @property
    def seeds(self):
        return SEEDS if self.training else SEEDS[:1]

    @property
    def paired(self):
        """Whether the images are those of the clean case."""
        return self.places == "clean"

    @property
    def attributed(self):
        """Whether attributions can differ, and have clean ones of the same image to be held against."""
        return self.paired and self.stored is None


CLEAN = Condition("clean")
NUISANCES = (
    Condition("other images", places="second"),
    *(Condition(f"input noise {sigma:g}", sigma=sigma) for sigma in (0.1, 0.25, 0.5)),
    Condition("stored as float16", stored=torch.float16),
    Condition("stored as bfloat16", stored=torch.bfloat16),
    Condition("computed in bfloat16", computed=torch.bfloat16),
    Condition("audited classes 1:100", places="rare"),
)
RETRAINED = (
    Condition(f"trained on input noise {SIGMA:g}", training={"sigma": SIGMA}),
    *(
        Condition(f"trained on {share:.0%} random labels", training={"label_noise": share})
        for share in (0.1, 0.2, 0.4)
    ),
    Condition("trained on classes 1:100", training={"imbalance": RARITY}),
    Condition("trained on 10x fewer images", training={"fewer": 10}),
)
QUICK = (NUISANCES[0], NUISANCES[2], NUISANCES[5], NUISANCES[7], RETRAINED[0])


def conditions(options):
    return QUICK if options.quick else NUISANCES + RETRAINED


@lru_cache(maxsize=4)
def trained(seed, options, computed=torch.float32, sigma=0.0, label_noise=0.0, imbalance=None, fewer=1):
    """A network of the condition, from the work folder where it is there.

    Fewer images, and rare classes, come with as many more epochs, so that every network has taken about
    the same number of steps: what differs is what it saw, not how long.
    """
    data = fashion.load(options)
    n_train = min(fashion.N_TRAIN, len(data.train))
    epochs = EPOCHS
    if sigma:
        return _trained_on_noise(seed, options, n_train, epochs, sigma)
    if imbalance:
        seen = len(fashion.choose(data, seed, n_train, imbalance=imbalance)[0])
        epochs = round(epochs * n_train / seen)
    return fashion.train(
        seed,
        options,
        dtype=computed,
        n_train=n_train // fewer,
        label_noise=label_noise,
        imbalance=imbalance,
        epochs=epochs * fewer,
    )


def _trained_on_noise(seed, options, n_train, epochs, sigma):
    """Every image has its own noise, the same in each epoch; images and their order as without noise."""
    data = fashion.load(options)
    name = f"cnn-{data.key}-seed{seed}-n{n_train}-input{sigma:g}-epochs{epochs}"
    path = options.work / f"{name}.pt"
    model = fashion.make_cnn(tuple(data.train.images.shape[1:]), len(data.classes), seed=seed)
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        places, labels = fashion.choose(data, seed, n_train)
        fashion.fit(model, with_noise(data.train.images[places], sigma, seed), labels, seed, epochs)
        options.work.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        torch.save(model.state_dict(), fresh)
        fresh.replace(path)
    model = model.eval().requires_grad_(False)
    return Trained(model, fashion.accuracy(model, data.test), f"{name}-float32")


def with_noise(images, sigma, seed):
    """Gaussian noise added, and nothing clipped."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return images + sigma * torch.randn(images.shape, generator=generator)


def audited(condition, options):
    """The images of a condition, in a random order, and without noise yet."""
    test = fashion.load(options).test
    n = sizes(options).images
    rng = np.random.default_rng(4)
    order = rng.permutation(len(test))
    if condition.places == "rare":
        return test.part(_rare(test.labels.numpy()[order], order, n))
    return test.part(order[n : 2 * n] if condition.places == "second" else order[:n])


def _rare(labels, order, n):
    """n places, of classes whose numbers fall in a geometric series to a hundredth."""
    n_classes = labels.max() + 1
    share = RARITY ** (-np.arange(n_classes) / (n_classes - 1))
    counts = np.maximum(1, np.round(n * share / share.sum()).astype(int))
    places = [order[labels == label][:count] for label, count in enumerate(counts)]
    return np.random.default_rng(5).permutation(np.concatenate(places))


def activations(condition, seed, options):
    """The network of a condition, the images that it sees, and what its layers make of them."""
    network = trained(seed, options, condition.computed, **condition.training)
    split = audited(condition, options)
    if condition.sigma:
        split = Split(with_noise(split.images, condition.sigma, 0), split.labels)
    tag = f"survival-{condition.places}-{condition.sigma:g}"
    return network, split, _layers(fashion.record(network, split, options, tag), condition, options)


def of_all_test_images(options):
    """What the layers of the first network make of every test image."""
    network = trained(SEEDS[0], options)
    return _layers(fashion.record(network, fashion.load(options).test, options, "test"), CLEAN, options)


def _layers(store, condition, options):
    """Arrays by layer, rounded where the condition says so.

    What lies on the lattice of bfloat16 goes on as a tensor of that type, so that KSG knows of it.
    """
    layers = {name: np.array(store[name][:, : sizes(options).maps]) for name in LAYERS}
    if condition.stored == torch.float16:
        return {name: X.astype(np.float16) for name, X in layers.items()}
    tensors = {name: torch.from_numpy(X) for name, X in layers.items()}
    if condition.stored == torch.bfloat16:
        return {name: X.to(torch.bfloat16) for name, X in tensors.items()}
    if condition.computed == torch.bfloat16:
        return {
            name: X.to(torch.bfloat16) if torch.equal(X.to(torch.bfloat16).float(), X) else layers[name]
            for name, X in tensors.items()
        }
    return layers
