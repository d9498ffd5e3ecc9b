"""QIXAI, fast: what the layers of a neural network have learned, on activations too big for memory.

Functions of whole layers take dask arrays of known chunks, too: see :mod:`qixai_fast._dask_arrays`.
Public names are imported on first use, so that ``import qixai_fast`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from . import _forks

__version__ = "0.1.0"

_HOME = {
    "StoreError": "errors",
    "MemoryBudgetError": "errors",
    "MutualInfoTest": "mutual_info.significance",
    "conditional_mutual_info_ksg": "mutual_info.conditional",
    "Digitized": "digitizing",
    "digitize": "digitizing",
    "mutual_info_binned": "mutual_info.binned",
    "mutual_info_discrete": "mutual_info.discrete",
    "mutual_info_ksg": "mutual_info.ksg",
    "mutual_info_mixed": "mutual_info.mixed",
    "mutual_info_test": "mutual_info.significance",
    "pairwise_mutual_info_binned": "mutual_info.binned",
    "pairwise_mutual_info_ksg": "mutual_info.ksg",
    "PCAResult": "spectra",
    "pca": "spectra",
    "randomized_svd": "spectra",
    "cosine_similarity": "similarity",
    "cosine_top_k": "similarity",
    "linear_cka": "alignment",
    "linear_cka_test": "alignment",
    "LinearCKATest": "alignment",
    "CCAResult": "canonical",
    "cca": "canonical",
    "svcca": "canonical",
    "procrustes": "rotations",
    "rsa": "dissimilarity",
    "von_neumann_entropy": "quantum",
    "purity": "quantum",
    "coherence": "quantum",
    "effective_rank": "quantum",
    "quantum_mutual_information": "quantum_mutual",
    "schmidt_spectrum": "quantum",
    "entanglement_entropy": "quantum",
    "ActivationStore": "store",
    "LayerSpec": "store",
    "StoreWriter": "store",
    "create_store": "store",
    "open_store": "store",
    "capture": "capturing",
    "Attribution": "attribution",
    "integrated_gradients": "gradients",
    "layer_conductance": "conductance",
    "riemann_accumulate": "riemann",
    "plot_feature_attribution": "plots.features",
    "plot_image_attribution": "plots.images",
    "plot_token_attribution": "plots.tokens",
    "AuditPlan": "auditing.plan",
    "AuditReport": "auditing.results",
    "audit": "auditing.run",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qixai_fast' has no attribute {name!r}")
    with _forks.importing:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
