"""Canonical correlations: which directions of two layers carry the same signal, whatever their scale."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._device import resolve_device
from ._memory import parse_memory
from ._threads import resolve_n_jobs, single_threaded_blas
from ._validate import Float64, Matrix, as_matrix, check_same_samples
from ._whitening import Keep, above_tolerance, overlap_of_grams, overlap_of_moments, share_of_variance

# From moments, a direction's eigenvalue has rounding errors of about 1e-16 of the largest, so that at
# this share of the largest singular value canonical correlations are still right to about 1e-6.
_TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class CCAResult:
    """Canonical correlations of two layers.

    Attributes
    ----------
    correlations : array of shape (min(rank_x, rank_y),), float64
        Largest first, between 0 and 1; a torch tensor on the device of ``X`` where that was one.
    mean_correlation : float
        Their mean; 0 where there are none.
    r2 : float
        Mean of their squares: the share of the variance of one layer's directions (of the layer with fewer of
        them, each counted alike) that a linear map of the other explains.
    r2_by_chance : float
        Mean of ``r2`` over all pairings of the samples, exact: max(rank_x, rank_y) / (n_samples - 1).
    rank_x, rank_y : int
        Directions of each layer that were kept.
    """

    correlations: Any
    mean_correlation: float
    r2: float
    r2_by_chance: float
    rank_x: int
    rank_y: int


def cca(
    X: Any,
    Y: Any,
    *,
    tol: float = _TOLERANCE,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> CCAResult:
    r"""Canonical correlation analysis of two layers.

    The same for layers that are invertible linear maps of each other, offsets included. So it counts a
    direction that carries a millionth of a layer's variance as much as the first one: :func:`svcca` leaves
    weak directions out, and :func:`qixai_fast.linear_cka` weighs directions by their variance.

    Parameters
    ----------
    X : array-like of shape (n_samples, d_x)
        Activations of one layer; any input that the package takes, read block by block.
    Y : array-like of shape (n_samples, d_y)
        Activations of another for the same samples.
    tol : float
        No ridge is added. With features scaled to unit variance, directions whose singular value is at
        most ``tol`` times the layer's largest are dropped: linearly dependent features and rounding of
        the data, which would correlate at random. Between 1e-6, the smallest that float64 moments
        resolve, and 1. Features in half precision whose means are far larger than their spread may need a
        larger one.
    n_jobs : int, optional
        Threads; None for all cores. The result has the same bits for any number.
    device : {None, "cpu"}
    max_memory : int or str, optional
        Budget for this call's own allocations.

    Returns
    -------
    CCAResult

    Raises
    ------
    ValueError
        For different numbers of samples, fewer than 2, ``tol`` out of range, and NaN or infinite values.
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small.

    Warns
    -----
    UserWarning
        Where ``rank_x + rank_y >= n_samples``: ``rank_x + rank_y - n_samples + 1`` correlations are 1
        whatever the layers, as two subspaces of so few dimensions must meet. And where a layer is
        constant: it has no directions, and all summaries are 0.

    Notes
    -----
    With :math:`Q_x, Q_y` orthonormal bases of the kept column spaces of the centred layers, the
    correlations are the singular values of :math:`Q_y^T Q_x` (Hotelling 1936; Björck and Golub 1973).
    ``r2`` is :math:`R^2_{CCA} = \lVert Q_y^T Q_x\rVert_F^2 / p` and ``mean_correlation``
    :math:`\bar\rho_{CCA} = \lVert Q_y^T Q_x\rVert_* / p` of Kornblith, Norouzi, Lee and Hinton 2019
    (arXiv 1905.00414, table 1), with :math:`p = \min(\mathrm{rank}_x, \mathrm{rank}_y)`; they take the
    number of features, which is the same for layers of full rank, and would keep identical layers with a
    dead feature from 1. Over all pairings of the samples :math:`Q_y Q_y^T` has mean
    :math:`\mathrm{rank}_y / (n - 1)` times the centring matrix, hence ``r2_by_chance``.

    One read of each layer where ``n_samples >= d_x + d_y`` (float64 layers are read once more, for extreme
    values); otherwise the (n, n) Gram matrices, which are smaller, are formed in three reads and more.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1000, 3))
    >>> result = qf.cca(X, np.column_stack([X[:, 0] - 2 * X[:, 1], rng.normal(size=1000)]))
    >>> result.correlations.round(2), result.rank_x, result.rank_y
    (array([1.  , 0.04]), 3, 2)
    """
    share = _fraction(tol, "tol", low=1e-6, below=1.0)
    return _analyse(
        X,
        Y,
        keep=above_tolerance(share),
        standardise=True,
        n_jobs=n_jobs,
        device=device,
        max_memory=max_memory,
    )


def svcca(
    X: Any,
    Y: Any,
    *,
    variance_kept: float = 0.99,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> CCAResult:
    r"""Singular vector canonical correlation analysis: CCA of the strongest directions of two layers.

    The same for layers that are rotations of each other, up to one scale and an offset. Right where
    :func:`cca` has too few samples for all features, as long as few directions carry the variance.

    Parameters
    ----------
    X, Y : array-like of shape (n_samples, d)
        As in :func:`cca`.
    variance_kept : float
        Each layer is reduced to as few of its principal components as explain this share of its variance;
        above 0, at most 1. Directions below 1e-5 of the largest are dropped in any case, as in :func:`cca`.
    n_jobs, device, max_memory
        As in :func:`cca`.

    Returns
    -------
    CCAResult
        ``rank_x`` and ``rank_y`` are the numbers of components kept.

    Raises
    ------
    ValueError, TypeError, MemoryBudgetError
        As :func:`cca`.

    Warns
    -----
    UserWarning
        As :func:`cca`.

    Notes
    -----
    Raghu, Gilmer, Yosinski and Sohl-Dickstein 2017 (arXiv 1706.05806, section 2), with the summaries of
    Kornblith et al. 2019, table 1: ``mean_correlation`` is the authors' SVCCA similarity.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.normal(size=(50, 2))
    >>> X = signal @ rng.normal(size=(2, 100)) + 1e-3 * rng.normal(size=(50, 100))
    >>> result = qf.svcca(X, 3 * X[:, ::-1])
    >>> result.correlations.round(6), result.rank_x
    (array([1., 1.]), 2)
    """
    share = _fraction(variance_kept, "variance_kept", low=0.0, below=math.inf)
    if not 0 < share <= 1:
        raise ValueError(f"variance_kept: wanted a share above 0 and at most 1, got {share:g}")
    return _analyse(
        X,
        Y,
        keep=share_of_variance(share, _TOLERANCE),
        standardise=False,
        n_jobs=n_jobs,
        device=device,
        max_memory=max_memory,
    )


def _fraction(value: Any, name: str, *, low: float, below: float) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: wanted a number, got {type(value).__name__}")
    number = float(value)
    if not low <= number < below:
        raise ValueError(f"{name}: wanted at least {low:g} and less than {below:g}, got {number:g}")
    return number


def _analyse(
    X: Any,
    Y: Any,
    *,
    keep: Keep,
    standardise: bool,
    n_jobs: int | None,
    device: Any,
    max_memory: int | float | str | None,
) -> CCAResult:
    resolve_device(device)
    first, second = as_matrix(X, "X", min_samples=2), as_matrix(Y, "Y", min_samples=2)
    check_same_samples(first, second)
    n = first.n_samples
    route: Callable[..., Float64] = (
        overlap_of_grams if n < first.n_features + second.n_features else overlap_of_moments
    )
    overlap = route(
        first,
        second,
        keep,
        standardise=standardise,
        n_jobs=resolve_n_jobs(n_jobs),
        budget=parse_memory(max_memory),
    )
    rank_x, rank_y = overlap.shape
    correlations = np.zeros(0)
    if overlap.size:
        with single_threaded_blas():
            values = np.linalg.svd(overlap, compute_uv=False)
        correlations = np.clip(values.astype(np.float64, copy=False), 0.0, 1.0)
    _warn(first, second, rank_x, rank_y)
    some = len(correlations) > 0
    return CCAResult(
        first.home.bring(correlations),
        float(correlations.mean()) if some else 0.0,
        float((correlations**2).mean()) if some else 0.0,
        max(rank_x, rank_y) / (n - 1) if some else 0.0,
        rank_x,
        rank_y,
    )


def _warn(X: Matrix, Y: Matrix, rank_x: int, rank_y: int) -> None:
    """Warn the caller of a public function of numbers that mean nothing."""
    constant = [matrix.name for matrix, rank in ((X, rank_x), (Y, rank_y)) if rank == 0]
    if constant:
        text = f"{' and '.join(constant)}: every feature is constant; there is nothing to correlate, set to 0"
        warnings.warn(text, UserWarning, stacklevel=4)
        return
    n = X.n_samples
    met = min(rank_x + rank_y - (n - 1), rank_x, rank_y)
    if met > 0:
        warnings.warn(
            f"X and Y: {met} of {min(rank_x, rank_y)} canonical correlations are 1 by construction, whatever "
            f"the layers: {rank_x} and {rank_y} directions of {n} samples; wanted more than "
            f"{rank_x + rank_y} samples, fewer directions (svcca with a lower variance_kept), or "
            "linear_cka(debiased=True)",
            UserWarning,
            stacklevel=4,
        )
