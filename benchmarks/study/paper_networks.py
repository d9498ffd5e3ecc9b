"""The networks of part 1: trained, never trained, and trained on random labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.study import fashion

KINDS = {  # what a network has seen, and how fashion.train is asked for it
    "trained": {},
    "untrained": {"epochs": 0},
    "random labels": {"label_noise": 1.0},
}
PAIRS = (("conv1", "conv2"), ("conv1", "dense"), ("conv2", "dense"))


@dataclass(frozen=True)
class Sizes:
    """How much is computed; the defaults are those of the committed numbers."""

    seeds: tuple[int, ...] = (0, 1, 2)
    training: tuple = ()  # more arguments of fashion.train
    widths: tuple[int, ...] = (256,)  # of the dense layer, beside that of the paper's network
    untrained_widths: tuple[int, ...] = (16, 1024)  # more of them, as they cost no training
    n_bootstrap: int = 400
    n_pairs: int = 2000  # images for nearest neighbours, and as many others to test on
    n_shuffles: int = 39
    n_maxima: int = 19
    n_tests: int = 999
    n_rounds: int = 199
    n_top: int = 20
    n_attributed: int = 120
    n_orders: int = 10


QUICK = Sizes(
    seeds=(0, 1),
    training=(("n_train", 500), ("epochs", 1)),
    widths=(),
    untrained_widths=(16,),
    n_bootstrap=20,
    n_pairs=100,
    n_shuffles=2,
    n_maxima=2,
    n_tests=39,
    n_rounds=39,
    n_top=3,
    n_attributed=8,
    n_orders=2,
)


@dataclass(frozen=True)
class Network:
    """A network and what its layers put out for the test images.

    Attributes
    ----------
    trained : fashion.Trained
    store : qixai_fast.ActivationStore
        Maps averaged over positions.
    maps : dict of str to ndarray
        The same as arrays, (n images, n maps).
    """

    trained: fashion.Trained
    store: object
    maps: dict[str, np.ndarray]


def network(seed, kind, options, sizes, **changes):
    """One network with its store."""
    asked = dict(sizes.training) | KINDS[kind] | changes
    trained = fashion.train(seed, options, **asked)
    store = fashion.record(trained, fashion.load(options).test, options, "test")
    return Network(trained, store, {name: np.array(store[name]) for name in fashion.LAYERS})


def networks(options, sizes):
    """All seeds of all kinds."""
    return {kind: [network(seed, kind, options, sizes) for seed in sizes.seeds] for kind in KINDS}
