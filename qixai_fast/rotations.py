"""Orthogonal Procrustes distance: what is left between two layers once one is turned onto the other."""

from __future__ import annotations

import warnings
from typing import Any

from ._centred import Grams, cross_singular_values, layer_grams, layer_norms, prefers_grams
from ._device import resolve_device
from ._layer_products import LayerProducts, layer_moments
from ._memory import parse_memory
from ._threads import resolve_n_jobs
from ._validate import as_matrix, check_same_samples


def procrustes(
    X: Any,
    Y: Any,
    *,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> float:
    r"""Orthogonal Procrustes distance of two layers, squared: a distance, not a similarity.

    0 where the layers are the same up to an orthogonal transform, one scale and an offset; 2 where no
    feature of one is correlated with any of the other. ``1 - procrustes(X, Y) / 2`` is the similarity of
    it that runs from 0 to 1, and the arc cosine of that an angle, which is a metric (Williams, Kunz,
    Kornblith and Linderman 2021, arXiv 2110.14739).

    Parameters
    ----------
    X : array-like of shape (n_samples, d_x)
        Activations of one layer; any input that the package takes, read block by block.
    Y : array-like of shape (n_samples, d_y)
        Activations of another for the same samples. Where the numbers of features differ, the narrower layer
        counts as padded with zeros.
    n_jobs : int, optional
        Threads; None for all cores. The result has the same bits for any number.
    device : {None, "cpu"}
    max_memory : int or str, optional
        Budget for this call's own allocations.

    Returns
    -------
    float
        Between 0 and 2. For independent layers well below 2, unless there are many more samples than
        features.

    Raises
    ------
    ValueError
        For different numbers of samples, fewer than 2, and NaN or infinite values.
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small.

    Warns
    -----
    UserWarning
        Where a layer is constant: its distance from anything is set to 2.

    Notes
    -----
    :math:`\min_Q \lVert A - B Q\rVert_F^2 = \lVert A\rVert_F^2 + \lVert B\rVert_F^2
    - 2 \lVert A^T B\rVert_*` over orthogonal :math:`Q` (Schönemann 1966), of layers with centred columns
    and unit Frobenius norm (Ding, Denain and Steinhardt 2021, arXiv 2108.01661, section 3).
    :math:`\lVert\cdot\rVert_*` is the sum of singular values, those of
    :func:`qixai_fast.schmidt_spectrum`. SciPy's ``procrustes`` also scales the one layer to fit; its
    disparity is :math:`1 - (1 - d / 2)^2`.

    One read of each layer where ``n_samples >= d_x + d_y``, right to 1e-12; otherwise from (n, n) Gram
    matrices in two reads and more, right to about 1e-7 for layers whose singular values reach that far down.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> qf.procrustes(x, 3 * x[:, ::-1] + 7), round(qf.procrustes(x, x[:, :1]), 6)
    (0.0, 0.585786)
    """
    resolve_device(device)
    first, second = as_matrix(X, "X", min_samples=2), as_matrix(Y, "Y", min_samples=2)
    check_same_samples(first, second)
    threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
    parts: LayerProducts | Grams
    if prefers_grams(first, second):
        # Two eigenproblems with their work space, and the product of the roots, on top of the matrices.
        parts = layer_grams(first, second, n_jobs=threads, budget=budget, squares=5)
    else:
        parts = layer_moments(first, second, n_jobs=threads, budget=budget, across_only=True)
    norms = layer_norms(parts)
    constant = [m.name for m, norm in zip((first, second), norms, strict=True) if norm == 0]
    if constant:
        text = f"{' and '.join(constant)}: every feature is constant; the distance is set to 2"
        warnings.warn(text, UserWarning, stacklevel=2)
        return 2.0
    values, bound = cross_singular_values(parts)
    return min(2.0, max(0.0, 2.0 - 2.0 * float(values.sum()) / bound))
