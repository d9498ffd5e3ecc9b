"""scikit-learn's ``PCA`` and ``TruncatedSVD`` on data that need not fit in memory.

Change the import, and nothing else::

    from qixai_fast.estimators import PCA

Both are subclasses of scikit-learn's own, so that all that knows those knows these. Memory-mapped files,
store layers and tensors are read in blocks of rows, and ``partial_fit`` is exact: it adds up moments, and
the answer is that of ``fit`` on all the chunks at once, in any order. Importing this module imports
scikit-learn; no other public module does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    from sklearn.decomposition import PCA as TheirPCA
    from sklearn.decomposition import TruncatedSVD as TheirTruncatedSVD

    from ._streamed_estimator import NARROW, SPECTRUM, StreamedEstimator
except ImportError as error:
    raise ImportError(
        "qixai_fast.estimators needs scikit-learn 1.6 or later: pip install 'qixai-fast[sklearn]'"
    ) from error

from . import spectra
from ._device import resolve_device
from ._memory import parse_memory, require_budget
from ._threads import resolve_n_jobs
from ._validate import Array, Float64, Matrix
from .compat._arguments import is_sparse, refuse
from .errors import MemoryBudgetError
from .running_moments import LEAST_SQUARES, UNDERFLOW, total_variance

__all__ = ["PCA", "TruncatedSVD"]


class PCA(StreamedEstimator, TheirPCA):  # type: ignore[misc]
    """Principal components, as ``sklearn.decomposition.PCA``, in one read.

    Singular values are within 1e-6 at means far larger than spreads, too, where float32 covariances fail.
    ``transform`` goes in blocks of rows. ``fit`` of up to 1,024 features holds their products, so that
    ``partial_fit`` can go on. Sparse matrices are left to scikit-learn's own code.

    Parameters
    ----------
    n_components : int, float or None
        How many; None for ``min(n_samples, n_features)``. A float within (0, 1): the fewest that explain
        more than that share of the variance. "mle" is not supported.
    copy : bool
        Taken for the signature's sake; ``X`` is never overwritten.
    whiten : bool
        Scale scores to a variance of 1.
    svd_solver : {"auto", "full", "covariance_eigh", "arpack", "randomized"}
        Up to 1,024 features all are the same, and exact: products of all pairs of features. Beyond, "full"
        and "covariance_eigh" are exact, by features or samples, and the others leave the way to
        :func:`qixai_fast.pca`: block Krylov for data wide on both sides.
    tol : float
        Relative error wanted of every singular value, for block Krylov; 0 for what usual passes give.
    iterated_power, n_oversamples, power_iteration_normalizer
        Taken for the signature's sake, and for sparse matrices.
    random_state : None, int or RandomState
        Start of the Krylov iteration.
    n_jobs : int, optional
        Threads; None for all cores. Results have the same bits for any number.
    device : {None, "cpu"}
    max_memory : int or str, optional
        Budget of each call's own memory, moments that ``partial_fit`` holds included.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Largest variance first; float32 for half- and single-precision input. The entry of largest
        absolute value of every row is positive.
    explained_variance_, explained_variance_ratio_, singular_values_ : ndarray of shape (n_components,)
        float64.
    mean_ : ndarray of shape (n_features,)
        float64.
    noise_variance_ : float
        Mean variance of the components that are left out.
    n_components_, n_samples_, n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Where ``X`` had names.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast.estimators import PCA
    >>> X = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [4.0, 8.0]])
    >>> PCA(1).fit_transform(X).round(3).ravel()
    array([-3.354, -1.118,  1.118,  3.354])
    >>> chunks = PCA(1).partial_fit(X[:1]).partial_fit(X[1:])
    >>> chunks.explained_variance_.round(6)
    array([8.333333])
    """

    def __init__(
        self,
        n_components: Any = None,
        *,
        copy: bool = True,
        whiten: bool = False,
        svd_solver: str = "auto",
        tol: float = 0.0,
        iterated_power: Any = "auto",
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
        n_jobs: int | None = None,
        device: Any = None,
        max_memory: Any = None,
    ) -> None:
        super().__init__(
            n_components,
            copy=copy,
            whiten=whiten,
            svd_solver=svd_solver,
            tol=tol,
            iterated_power=iterated_power,
            n_oversamples=n_oversamples,
            power_iteration_normalizer=power_iteration_normalizer,
            random_state=random_state,
        )
        self.n_jobs = n_jobs
        self.device = device
        self.max_memory = max_memory

    def fit(self, X: Any, y: Any = None) -> PCA:
        """Find the components of some samples.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            At least 2 samples. NumPy array, memmap, store layer, torch tensor, data frame.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            For other than a finite real matrix, and parameters out of range.
        MemoryBudgetError
            Where ``max_memory`` is too small.
        """
        self._validate_params()
        resolve_device(self.device)
        self._forget("_moments", *SPECTRUM)
        if is_sparse(X):
            if isinstance(self.n_components, float):
                raise TypeError(
                    "X: sparse input is not supported where n_components is a share of the variance"
                )
            TheirPCA.fit(self, X)
            return self
        matrix = self._read(X, reset=True, min_samples=2)
        k = self._wanted(matrix.n_samples, matrix.n_features)
        if matrix.n_features <= NARROW:
            self._fit_narrow(matrix, k, center=True, tol=self.tol or None)
            return self
        exact = isinstance(self.n_components, float) or self.svd_solver in ("full", "covariance_eigh")
        found = spectra.pca(
            matrix.data,
            k,
            method="covariance" if exact else "auto",
            tol=self.tol or None,
            random_state=self.random_state,
            n_jobs=self.n_jobs,
            max_memory=self.max_memory,
        )
        self.mean_ = found.mean
        self.n_samples_ = matrix.n_samples
        self._keep(found.components, found.explained_variance, found.total_variance)
        return self

    def _wanted(self, n: int, d: int) -> int:
        """Components to compute for data of this shape."""
        most, wanted = min(n, d), self.n_components
        if wanted is None or isinstance(wanted, float):
            return most
        if isinstance(wanted, str):
            refuse("PCA", "n_components", "an int, a float within (0, 1) or None", wanted)
        if not 1 <= wanted <= most:
            raise ValueError(
                f"n_components={wanted} must be between 1 and min(n_samples, n_features)={most}: "
                f"X is {n} samples by {d} features"
            )
        return int(wanted)

    def _wanted_of_moments(self) -> tuple[Float64, int]:
        moments = self._moments
        if moments.n < 2:
            raise ValueError("PCA: wanted at least 2 samples in all, partial_fit has seen 1 sample")
        return moments.scatter, self._wanted(moments.n, len(moments.mean))

    def _take(self, squares: Float64, components: Float64) -> None:
        moments = self._moments
        self.mean_ = moments.mean
        total = float(np.trace(moments.scatter)) / (moments.n - 1)
        self._keep(components.astype(self._dtype), squares / (moments.n - 1), total)

    def _keep(self, components: Array, variances: Float64, total: float) -> None:
        """Set the fitted attributes, from the components that may be wanted."""
        ratios = variances / total if total > 0 else np.zeros(len(variances))
        k = len(variances)
        if isinstance(self.n_components, float):
            k = min(k, 1 + int(np.searchsorted(np.cumsum(ratios), self.n_components, side="right")))
        most = min(self.n_samples_, components.shape[1])
        rest = total - float(variances[:k].sum())
        self.noise_variance_ = max(rest, 0.0) / (most - k) if k < most else 0.0
        self.n_components_ = k
        self.explained_variance_ = variances[:k].copy()
        self.explained_variance_ratio_ = ratios[:k].copy()
        self.singular_values_ = np.sqrt(self.explained_variance_ * (self.n_samples_ - 1))
        self.components_ = components[:k].copy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse &= not isinstance(self.n_components, float)
        return tags

    def _weights(self) -> tuple[Float64, Float64 | None]:
        weights = self.components_.T.astype(np.float64)
        if self.whiten:
            scale = np.sqrt(self.explained_variance_)
            weights /= np.maximum(scale, np.finfo(scale.dtype).eps)
        return weights, self.mean_

    def _weights_back(self) -> tuple[Float64, Float64 | None]:
        weights = self.components_.astype(np.float64)
        if self.whiten:
            weights *= np.sqrt(self.explained_variance_)[:, None]
        return weights, self.mean_


class TruncatedSVD(StreamedEstimator, TheirTruncatedSVD):  # type: ignore[misc]
    """Singular vectors of data as they are, not centred, as ``sklearn.decomposition.TruncatedSVD``.

    Up to 1,024 features: from the products of all pairs of features, in one read; singular values within
    1e-6 for those above a thousandth of the first, in float64 far nearer. Wider data:
    :func:`qixai_fast.randomized_svd`, which holds a left singular vector for every component meanwhile.
    Sparse matrices are left to scikit-learn's own code.

    Parameters
    ----------
    n_components : int
    algorithm : {"randomized", "arpack"}
        Taken for the signature's sake, and for sparse matrices.
    n_iter, n_oversamples : int
        Of :func:`qixai_fast.randomized_svd`, for wide data.
    power_iteration_normalizer, tol
        Taken for the signature's sake, and for sparse matrices.
    random_state : None, int or RandomState
    n_jobs : int, optional
        Threads; None for all cores. Results have the same bits for any number.
    device : {None, "cpu"}
    max_memory : int or str, optional
        Budget of each call's own memory, moments that ``partial_fit`` holds included.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        float32 for half- and single-precision input. The entry of largest absolute value of every row is
        positive.
    explained_variance_, explained_variance_ratio_ : ndarray of shape (n_components,)
        Of the scores, about their means; and their share of the variance of all features.
    singular_values_ : ndarray of shape (n_components,)
    n_samples_, n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Where ``X`` had names.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast.estimators import TruncatedSVD
    >>> svd = TruncatedSVD(1).fit(np.diag([1.0, 3.0, 2.0]))
    >>> svd.singular_values_.round(6), svd.components_.round(6)
    (array([3.]), array([[0., 1., 0.]]))
    """

    def __init__(
        self,
        n_components: int = 2,
        *,
        algorithm: str = "randomized",
        n_iter: int = 5,
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
        tol: float = 0.0,
        n_jobs: int | None = None,
        device: Any = None,
        max_memory: Any = None,
    ) -> None:
        super().__init__(
            n_components,
            algorithm=algorithm,
            n_iter=n_iter,
            n_oversamples=n_oversamples,
            power_iteration_normalizer=power_iteration_normalizer,
            random_state=random_state,
            tol=tol,
        )
        self.n_jobs = n_jobs
        self.device = device
        self.max_memory = max_memory

    def fit(self, X: Any, y: Any = None) -> TruncatedSVD:
        """Find the leading singular vectors of some samples.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            NumPy array, memmap, store layer, torch tensor, data frame.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            For other than a finite real matrix, and parameters out of range.
        MemoryBudgetError
            Where ``max_memory`` is too small.
        """
        self._validate_params()
        self._forget("_moments", *SPECTRUM)
        resolve_device(self.device)
        if is_sparse(X):
            TheirTruncatedSVD.fit_transform(self, X)
            return self
        matrix = self._read(X, reset=True, min_features=self.n_components)
        if matrix.n_features <= NARROW:
            k = min(self.n_components, matrix.n_samples)
            self._fit_narrow(matrix, k, center=False, tol=None)
        else:
            self._fit_wide(matrix)
        return self

    def _fit_wide(self, matrix: Matrix) -> None:
        self.n_samples_ = matrix.n_samples
        k = min(self.n_components, matrix.n_samples)
        held = 8 * matrix.n_samples * k
        budget = parse_memory(self.max_memory)
        try:
            left, sigma, components = spectra.randomized_svd(
                matrix.data,
                k,
                n_oversamples=self.n_oversamples,
                n_iter=self.n_iter,
                random_state=self.random_state,
                n_jobs=self.n_jobs,
                max_memory=None if budget is None else max(1, budget - held),
            )
        except MemoryBudgetError as error:
            require_budget(
                budget, error.required + held, f"{k} singular vectors of {matrix.n_samples} samples"
            )
            raise
        variances = np.array([sigma[i] ** 2 * np.var(left[:, i], dtype=np.float64) for i in range(k)])
        total = total_variance(matrix, resolve_n_jobs(self.n_jobs), parse_memory(self.max_memory))
        self._keep(components, sigma, variances, total)

    def _wanted_of_moments(self) -> tuple[Float64, int]:
        d = len(self._moments.mean)
        if self.n_components > d:
            raise ValueError(f"n_components({self.n_components}) must be <= n_features({d}).")
        return self._moments.about_zero(), min(self.n_components, self._moments.n)

    def _take(self, squares: Float64, components: Float64) -> None:
        scatter, n = self._moments.scatter, self._moments.n
        if squares[0] < LEAST_SQUARES and np.any(self._moments.mean):
            raise ValueError(UNDERFLOW)
        variances = np.einsum("ij,ij->i", components @ scatter, components) / n
        total = float(np.trace(scatter)) / n
        self._keep(components.astype(self._dtype), np.sqrt(squares), np.maximum(variances, 0.0), total)

    def _keep(self, components: Array, sigma: Float64, variances: Float64, total: float) -> None:
        self.explained_variance_ = variances
        self.explained_variance_ratio_ = variances / total if total > 0 else np.zeros(len(variances))
        self.singular_values_ = sigma
        self.components_ = components
