"""Entropy and purity of a layer's samples as unit-norm states, from one read of the layer."""

from __future__ import annotations

import numpy as np

from .._entropies import entropy
from .._memory import parse_memory, workers_within
from .._states import EXACT_SIDE, Ensemble, states_of
from .._threads import resolve_n_jobs, single_threaded_blas
from .._validate import Matrix
from ..quantum import purity, von_neumann_entropy


def entropy_and_purity(
    matrix: Matrix, *, zero_samples: str, n_jobs: int | None = None, max_memory: int | str | None = None
) -> tuple[float, float]:
    """What :func:`qixai_fast.von_neumann_entropy` and :func:`qixai_fast.purity` give, to the bit.

    Both follow from one density matrix. Where that would be too large, each goes its own way.
    """
    ensemble = Ensemble(tuple(states_of([matrix], zero_samples)))
    if ensemble.side > EXACT_SIDE:
        data = matrix.data
        return (
            float(von_neumann_entropy(data, zero_samples=zero_samples, n_jobs=n_jobs, max_memory=max_memory)),
            float(purity(data, zero_samples=zero_samples, n_jobs=n_jobs, max_memory=max_memory)),
        )
    fixed, each = ensemble.matrix_memory()
    workers = workers_within(
        parse_memory(max_memory),
        resolve_n_jobs(n_jobs),
        fixed=fixed + 3 * ensemble.n_samples,
        per_worker=each,
        work=f"a density matrix of {ensemble.side} by {ensemble.side}",
    )
    state = ensemble.matrix(workers)
    mixedness = min(1.0, float(np.einsum("ij,ij->", state, state)))
    with single_threaded_blas():
        eigenvalues = np.linalg.eigvalsh(state)
    return entropy(eigenvalues.astype(np.float64, copy=False), 1.0), mixedness
