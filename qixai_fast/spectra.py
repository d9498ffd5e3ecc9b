"""The spectrum of a layer: principal components and singular values, streamed, with error bounds."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ._dask_arrays import dask_inputs
from ._device import backends_for, to_numpy
from ._memory import parse_memory
from ._open import opened
from ._random import as_generator
from ._threads import resolve_n_jobs, single_threaded_blas
from ._validate import Array, Float64, Matrix, check_choice, check_int
from .affine import affine_rows, output_array
from .decomposition import METHODS, Decomposition, Problem, decompose, result_dtype
from .rounding import relative_bound

if TYPE_CHECKING:
    from ._gpu.moments import DeviceMatrix
    from ._gpu.spectra import DevicePasses


@dataclass(frozen=True, eq=False)
class PCAResult:
    """Principal components of a layer.

    Arrays are NumPy arrays, or torch tensors on the input's device where the input was one.

    Attributes
    ----------
    components : array of shape (n_components, n_features)
        Orthonormal rows, largest variance first; float32 for half- and single-precision input. The entry of
        largest absolute value of every row is positive.
    singular_values : array of shape (n_components,), float64
        Of the centred data.
    explained_variance : array of shape (n_components,), float64
        ``singular_values ** 2 / (n_samples - 1)``.
    explained_variance_ratio : array of shape (n_components,), float64
        Share of ``total_variance``; zeros where that is zero.
    mean : array of shape (n_features,), float64
        In float64 for any input: at a mean of 1,000 standard deviations, float32 would move the scores.
    total_variance : float
        Variance of all features together.
    error_bound : array of shape (n_components,), float64
        The relative error of each singular value is at most this: rounding, which grows as
        ``(singular_values[0] / singular_values[i]) ** 2``, and what further passes would improve. Infinite
        where the true value may be zero.
    n_passes : int
        Reads of the data.
    """

    components: Any
    singular_values: Any
    explained_variance: Any
    explained_variance_ratio: Any
    mean: Any
    total_variance: float
    error_bound: Any
    n_passes: int

    def transform(
        self,
        X: Any,
        *,
        out: Any = None,
        n_jobs: int | None = None,
        device: Any = None,
        max_memory: int | float | str | None = None,
    ) -> Any:
        """Scores of samples on the components, read in blocks of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        out : ndarray or memmap of shape (n_samples, n_components), optional
            Takes the scores; floating point, written in blocks.
        n_jobs : int, optional
        device : None, "cpu", "cuda" or "cuda:1"
            As in :func:`pca`.
        max_memory : int or str, optional
            Budget for this call's own memory.

        Returns
        -------
        array of shape (n_samples, n_components)
            ``out`` where given; otherwise where ``X`` lived, float32 for half- and single-precision ``X``.

        Raises
        ------
        TypeError, ValueError
            For other than a real matrix with the same features, non-finite values, and an unfit ``out``.
        MemoryBudgetError
            Where the budget is too small.

        Examples
        --------
        >>> import numpy as np
        >>> import qixai_fast as qf
        >>> X = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
        >>> qf.pca(X, 1).transform(X).round(6).ravel() + 0
        array([-1.,  0.,  1.])
        """
        matrix, passes = _opened(X, device, min_samples=1)
        components = to_numpy(self.components, "components").astype(np.float64)
        k, d = components.shape
        if matrix.n_features != d:
            raise ValueError(f"X: wanted {d} features as in the fitted data, got {matrix.n_features}")
        target = output_array(out, (matrix.n_samples, k), result_dtype(matrix))
        mean, work = to_numpy(self.mean, "mean"), f"scores on {k} components"
        threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
        if passes is not None:
            passes.write_images(components.T, mean, target, budget, work)
        else:
            weights = components.T
            affine_rows(matrix, weights, target, before=mean, n_jobs=threads, budget=budget, work=work)
        return target if out is not None else matrix.home.bring(target)


def _flip_signs(found: Decomposition) -> Float64:
    """The sign of every component that makes its entry of largest absolute value positive."""
    largest = np.argmax(np.abs(found.right), axis=0)
    return np.where(found.right[largest, np.arange(found.right.shape[1])] < 0, -1.0, 1.0)


def _checked_components(n_components: Any, matrix: Matrix) -> int:
    most = min(matrix.n_samples, matrix.n_features)
    why = f"{matrix.name} is {matrix.n_samples} samples by {matrix.n_features} features"
    return check_int(n_components, "n_components", low=1, high=most, why=why)


def _checked_tol(tol: Any) -> float | None:
    if tol is None:
        return None
    if isinstance(tol, bool) or not isinstance(tol, (int, float, np.integer, np.floating)):
        raise TypeError(f"tol: wanted a number or None, got {type(tol).__name__}")
    if not 0 < tol < np.inf:
        raise ValueError(f"tol: wanted a finite relative error above 0, got {tol}")
    return float(tol)


def _warn_above_tol(bound: Float64, rounding: Float64, tol: float, n_passes: int) -> None:
    """Say which components stay above ``tol``, and why."""
    above = np.flatnonzero(bound > tol)
    if len(above) == 0:
        return
    first = int(above[0])
    names = f"component {first + 1}" if len(above) == 1 else f"{len(above)} components from {first + 1} on"
    if np.all(rounding[above] > tol):
        why = "their singular values are too small beside the first for float64 to resolve"
    else:
        why = (
            f"{n_passes} passes did not settle them: their singular values lie too close to those that follow"
        )
    warnings.warn(f"pca: tol={tol:g} is not reached for {names}: {why}", UserWarning, stacklevel=4)


@dask_inputs("X", access=lambda given, shape: "stream" if shape[1] <= shape[0] else "rows")
def pca(
    X: Any,
    n_components: int,
    *,
    method: str = "auto",
    tol: float | None = None,
    random_state: Any = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> PCAResult:
    """Principal components of data that need not fit in memory, with a bound on every singular value.

    Moments are taken about a value near the data and in float64, so that means far larger than the
    spread do no harm: singular values are within 1e-6 at a mean of 1,000 standard deviations, for those
    above a thousandth of the first.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        At least 2 samples. NumPy array, memmap, store layer or torch tensor.
    n_components : int
        At most ``min(n_samples, n_features)``.
    method : {"auto", "covariance", "krylov"}
        ``"covariance"``: all products of pairs of features in one read (of pairs of samples in two reads,
        where there are fewer of those). ``"krylov"``: block Krylov, 3 or 4 reads, for data wide on both
        sides. ``"auto"`` takes the first up to 1,024 features or samples, and beyond that where many
        components are asked for.
    tol : float, optional
        Relative error wanted of every singular value. Krylov passes are added until ``error_bound`` is
        below it; a warning says why where it cannot be.
    random_state : None, int, Generator or RandomState
        Start of the Krylov iteration; the other way uses no randomness.
    n_jobs : int, optional
        Threads; results have the same bits for any number.
    device : None, "cpu", "cuda" or "cuda:1"
        None: the GPU that ``X`` lives on, else the CPU. A GPU streams what is not in its memory, multiplies
        in float64, and leaves the small eigenproblems to the host.
    max_memory : int or str, optional
        Budget for this call's own memory, the result aside; of a GPU's memory, too.

    Returns
    -------
    PCAResult

    Raises
    ------
    TypeError, ValueError
        For other than a finite real matrix of at least 2 samples, and options out of range.
    MemoryBudgetError
        Where the budget is too small.

    Notes
    -----
    Block Krylov: Musco and Musco, "Randomized Block Krylov Methods for Stronger and Faster Approximate
    Singular Value Decomposition" (2015), algorithm 2. The bounds: :mod:`qixai_fast.krylov` and
    :mod:`qixai_fast.decomposition`.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> X = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])
    >>> result = qf.pca(X, 2)
    >>> result.explained_variance.round(6) + 0, result.total_variance
    (array([5., 0.]), 5.0)
    >>> bool(result.error_bound[0] < 1e-12)
    True
    """
    matrix, passes = _opened(X, device, min_samples=2)
    k = _checked_components(n_components, matrix)
    check_choice(method, "method", METHODS)
    tolerance = _checked_tol(tol)
    problem = Problem(
        matrix,
        k,
        n_oversamples=10,
        center=True,
        want_left=False,
        method=method,
        random=as_generator(random_state),
        n_jobs=resolve_n_jobs(n_jobs),
        budget=parse_memory(max_memory),
        tol=tolerance,
        device=passes,
    )
    found = _decomposed(problem)
    squares = found.sigma**2
    bound = relative_bound(squares, found.rounding, found.truncation)
    if tolerance is not None:
        rounding = relative_bound(squares, found.rounding, np.zeros(k))
        _warn_above_tol(bound, rounding, tolerance, found.n_passes)
    bring = matrix.home.bring
    total = found.sum_of_squares
    return PCAResult(
        components=bring(_oriented(found, _flip_signs(found), problem.out_dtype)),
        singular_values=bring(found.sigma),
        explained_variance=bring(squares / (matrix.n_samples - 1)),
        explained_variance_ratio=bring(squares / total if total > 0 else np.zeros(k)),
        mean=bring(found.mean),
        total_variance=total / (matrix.n_samples - 1),
        error_bound=bring(bound),
        n_passes=found.n_passes,
    )


def _opened(X: Any, device: Any, *, min_samples: int) -> tuple[Matrix, DevicePasses | None]:
    """A checked input, and what reads it where that is a GPU."""
    matrix = opened(X, "X", backends_for(device, X), min_samples=min_samples)
    if not matrix.on_device:
        return matrix, None
    from ._gpu.spectra import DevicePasses

    return matrix, DevicePasses(cast("DeviceMatrix", matrix))


def _decomposed(problem: Problem) -> Decomposition:
    """Decompose on one thread of BLAS, and on the problem's device."""
    with single_threaded_blas(), problem.device.current() if problem.device else nullcontext():
        return decompose(problem)


def _oriented(found: Decomposition, signs: Float64, dtype: np.dtype[Any]) -> Array:
    """Right singular vectors as rows, in C order."""
    rows: Array = np.empty(found.right.shape[::-1], dtype)
    np.multiply(found.right.T, signs[:, None], out=rows, casting="same_kind")
    return rows


@dask_inputs("X", access=lambda given, shape: "stream" if shape[1] <= shape[0] else "rows")
def randomized_svd(
    X: Any,
    n_components: int,
    *,
    n_oversamples: int = 10,
    n_iter: int | str = "auto",
    center: bool = False,
    flip_sign: bool = True,
    random_state: Any = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> tuple[Any, Any, Any]:
    """Leading singular values and vectors of data that need not fit in memory.

    Up to 1,024 features (or samples, where there are fewer of those) the decomposition is exact and not
    random: two reads. Wider data go through block Krylov, and one more read gives ``U``.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
    n_components : int
        At most ``min(n_samples, n_features)``.
    n_oversamples : int
        Random vectors beyond ``n_components``; their number in all is rounded up to a multiple of 32.
    n_iter : int or "auto"
        Power iterations: Krylov reads the data ``n_iter + 3`` times, and its basis keeps the vectors of
        all iterations, not of the last only. ``"auto"`` stops after the third or fourth block of vectors.
    center : bool
        Take the mean of every feature out first.
    flip_sign : bool
        Make the entry of largest absolute value of every row of ``Vt`` positive, as scikit-learn's
        ``svd_flip(u_based_decision=False)``.
    random_state : None, int, Generator or RandomState
    n_jobs : int, optional
        Threads; results have the same bits for any number.
    device : None, "cpu", "cuda" or "cuda:1"
        None: the GPU that ``X`` lives on, else the CPU. A GPU streams what is not in its memory, multiplies
        in float64, and leaves the small eigenproblems to the host.
    max_memory : int or str, optional
        Budget for this call's own memory, the result aside; of a GPU's memory, too.

    Returns
    -------
    U : array of shape (n_samples, n_components)
        Orthonormal columns, as are the rows of ``Vt``; both float32 for half- and single-precision input.
    S : array of shape (n_components,), float64
        Singular values, largest first.
    Vt : array of shape (n_components, n_features)

    Raises
    ------
    TypeError, ValueError
        For other than a finite real matrix, and options out of range.
    MemoryBudgetError
        Where the budget is too small.

    Notes
    -----
    Musco and Musco, "Randomized Block Krylov Methods for Stronger and Faster Approximate Singular Value
    Decomposition" (2015), algorithm 2. Halko, Martinsson and Tropp (2011) is the method without the Krylov
    basis, which needs more reads for the same error.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> U, S, Vt = qf.randomized_svd(np.diag([1.0, 3.0, 2.0]), 2, random_state=0)
    >>> S.round(12), Vt.round(12) + 0
    (array([3., 2.]), array([[0., 1., 0.],
           [0., 0., 1.]]))
    """
    matrix, passes = _opened(X, device, min_samples=1)
    k = _checked_components(n_components, matrix)
    check_choice(center, "center", (False, True))
    check_choice(flip_sign, "flip_sign", (False, True))
    n_passes = (
        None if isinstance(n_iter, str) and n_iter == "auto" else check_int(n_iter, "n_iter", low=0) + 2
    )
    problem = Problem(
        matrix,
        k,
        n_oversamples=check_int(n_oversamples, "n_oversamples", low=0),
        center=bool(center),
        want_left=True,
        method="auto",
        random=as_generator(random_state),
        n_jobs=resolve_n_jobs(n_jobs),
        budget=parse_memory(max_memory),
        n_passes=n_passes,
        device=passes,
    )
    found = _decomposed(problem)
    assert found.left is not None
    left, signs = found.left, np.ones(k)
    if flip_sign:
        signs = _flip_signs(found)
        left *= signs.astype(left.dtype)
    bring = matrix.home.bring
    return bring(left), bring(found.sigma), bring(_oriented(found, signs, problem.out_dtype))
