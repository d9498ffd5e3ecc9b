"""Part 1: which claims of the QIXAI paper survive a null model?"""

from __future__ import annotations

from benchmarks.study import (
    fashion,
    paper_attribution,
    paper_audit,
    paper_cosine,
    paper_entangled,
    paper_variance,
)
from benchmarks.study.paper_figures import draw
from benchmarks.study.paper_networks import QUICK, Sizes, networks
from benchmarks.study.paper_text import lines

__all__ = ["draw", "lines", "measure"]


def measure(options):
    """All four instruments on trained networks and on those that have learned nothing."""
    sizes = QUICK if options.quick else Sizes()
    data = fashion.load(options)
    nets = networks(options, sizes)
    return {
        "data": {
            "name": data.name,
            "classes": list(data.classes),
            "shape": list(data.train.images.shape[1:]),
            "n_train": min(dict(sizes.training).get("n_train", fashion.N_TRAIN), len(data.train)),
            "n_test": len(data.test),
            "epochs": dict(sizes.training).get("epochs", fashion.EPOCHS),
            "seeds": list(sizes.seeds),
        },
        "accuracy": {kind: [net.trained.accuracy for net in members] for kind, members in nets.items()},
        "variance": paper_variance.measure(nets, options, sizes),
        "cosine": paper_cosine.measure(nets, sizes),
        "entangled": paper_entangled.measure(nets, options, sizes)
        | {"audit": paper_audit.measure(nets, sizes)},
        "attribution": paper_attribution.measure(nets, options, sizes),
    }
