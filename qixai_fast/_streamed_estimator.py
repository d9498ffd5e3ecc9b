"""What the estimators share: input as scikit-learn takes it, exact ``partial_fit``, rows mapped in blocks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ._device import home_of, is_torch, resolve_device, to_numpy
from ._memory import parse_memory, require_budget, workers_within
from ._threads import resolve_n_jobs, single_threaded_blas
from ._validate import Array, Float64, Matrix, as_matrix
from .affine import affine_rows, output_array
from .compat._arguments import is_sparse
from .decomposition import result_dtype
from .feature_products import feature_pairs
from .running_moments import RunningMoments, check_underflow, leading_components, oriented_rows
from .statistics import cross_moments, cross_moments_memory

# What the spectrum of the moments sets, and what is computed again after more chunks.
SPECTRUM = (
    "components_",
    "explained_variance_",
    "explained_variance_ratio_",
    "singular_values_",
    "noise_variance_",
    "n_components_",
)
# Up to here, fit takes the products of all pairs of features, whatever the number of components.
NARROW = 1024


def _spectrum_memory(d: int) -> int:
    """Bytes for the products of ``d`` features and their eigenvectors, all of them at most."""
    return 8 * 8 * d * d + 2**16


class StreamedEstimator(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What both estimators share: reading, adding up moments, and mapping rows.

    After ``partial_fit``, the spectrum is computed when it is first asked for.
    """

    n_components: Any
    n_jobs: Any
    device: Any
    max_memory: Any
    components_: Array
    _moments: RunningMoments
    _dtype: np.dtype[Any]

    # ``out`` is an argument for the caller himself, not for pipelines to route.
    __metadata_request__transform: ClassVar = {"out": "$UNUSED$"}
    __metadata_request__inverse_transform: ClassVar = {"out": "$UNUSED$"}

    def __getattr__(self, name: str) -> Any:
        if name in SPECTRUM and "_moments" in self.__dict__:
            try:
                self._settle()
            except ValueError as error:
                raise AttributeError(str(error)) from error
            if name in self.__dict__:
                return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def partial_fit(self, X: Any, y: Any = None) -> Any:
        """Add a chunk of samples to those seen so far.

        Exact, up to rounding: neither the order of chunks nor their sizes change the answer. Holds the
        (n_features, n_features) products of pairs of features; the spectrum is computed when it is asked for.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Any number of samples, one at least; not sparse.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            For other than a finite real matrix with the features of the first chunk, and after ``fit`` of
            sparse data or of more than 1,024 features, which keeps nothing to add to.
        MemoryBudgetError
            Where ``max_memory`` is too small.
        """
        first = "_moments" not in self.__dict__
        if first and "components_" in self.__dict__:
            raise ValueError(
                "partial_fit: fit has been called on sparse data, or on more than "
                f"{NARROW} features, and keeps no moments to add to; "
                "clone the estimator and give partial_fit all the chunks"
            )
        self._validate_params()
        resolve_device(self.device)
        if is_sparse(X):
            raise TypeError("X: partial_fit takes no sparse matrices; call .toarray() on the chunk first")
        matrix = self._read(X, reset=first)
        d = matrix.n_features
        # The first chunk reserves what later ones will find held.
        held = 8 * d * d
        budget = parse_memory(self.max_memory)
        reading = held + sum(cross_moments_memory([matrix]))
        require_budget(
            budget, max(reading, _spectrum_memory(d)), f"moments of {d} features and their spectrum"
        )
        chunk = cross_moments(
            [matrix], n_jobs=self.n_jobs, max_memory=None if budget is None else budget - held
        )
        check_underflow(chunk, matrix)
        dtype = result_dtype(matrix)
        self._dtype = dtype if first else np.promote_types(self._dtype, dtype)
        self._moments = RunningMoments.of(chunk) if first else self._moments.with_chunk(chunk)
        self._forget(*SPECTRUM)
        self.n_samples_ = self._moments.n
        return self

    def _fit_narrow(self, matrix: Matrix, k: int, *, center: bool, tol: float | None) -> None:
        """Fit by moments, which are kept so that partial_fit can go on."""
        fixed, per_worker = cross_moments_memory([matrix])
        d = matrix.n_features
        workers = workers_within(
            parse_memory(self.max_memory),
            resolve_n_jobs(self.n_jobs),
            fixed=max(fixed, _spectrum_memory(d)),
            per_worker=per_worker,
            work=f"a spectrum of {d} features",
        )
        with single_threaded_blas():
            pairs = feature_pairs(matrix, k, center=center, tol=tol, n_jobs=workers)
        check_underflow(pairs.moments, matrix)
        self._moments = RunningMoments.of(pairs.moments)
        self._dtype = result_dtype(matrix)
        self.n_samples_ = matrix.n_samples
        self._take(pairs.values, oriented_rows(pairs.vectors))

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Fit, and return the scores of the same samples: one more read.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        array of shape (n_samples, n_components)
        """
        return self.fit(X).transform(X)

    def transform(self, X: Any, *, out: Any = None) -> Any:
        """Scores of samples on the components, read in blocks of rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        out : ndarray or memmap of shape (n_samples, n_components), optional
            Takes the scores; floating point, written in blocks.

        Returns
        -------
        array of shape (n_samples, n_components)
            ``out`` where given; otherwise where ``X`` lived, float32 for half- and single-precision ``X``.

        Raises
        ------
        TypeError, ValueError
            For other than a finite real matrix with the fitted features, and an unfit ``out``.
        MemoryBudgetError
            Where ``max_memory`` is too small.
        """
        check_is_fitted(self)
        self._settle()
        if is_sparse(X):
            scores = super().transform(X)
            if out is None:
                return scores
            output_array(out, scores.shape, scores.dtype)[...] = scores
            return out
        weights, mean = self._weights()
        return self._mapped(self._read(X, reset=False), weights, out, before=mean, after=None)

    def inverse_transform(self, X: Any, *, out: Any = None) -> Any:
        """Samples from their scores, in blocks of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
        out : ndarray or memmap of shape (n_samples, n_features), optional
            Takes the samples; floating point, written in blocks.

        Returns
        -------
        array of shape (n_samples, n_features)
            ``out`` where given; otherwise where ``X`` lived, float32 for half- and single-precision ``X``.

        Raises
        ------
        TypeError, ValueError
            For other than a finite real matrix of scores, and an unfit ``out``.
        MemoryBudgetError
            Where ``max_memory`` is too small.
        """
        check_is_fitted(self)
        self._settle()
        matrix = as_matrix(X)
        weights, mean = self._weights_back()
        if matrix.n_features != len(weights):
            raise ValueError(
                f"X: wanted scores on {len(weights)} components, got {matrix.n_features} columns"
            )
        return self._mapped(matrix, weights, out, before=None, after=mean)

    def _weights(self) -> tuple[Float64, Float64 | None]:
        """What rows, less a mean, are multiplied by for their scores."""
        return self.components_.T.astype(np.float64), None

    def _weights_back(self) -> tuple[Float64, Float64 | None]:
        """What scores are multiplied by for their rows, and the mean to add."""
        return self.components_.astype(np.float64), None

    def _read(self, X: Any, *, reset: bool, min_samples: int = 1, min_features: int = 1) -> Matrix:
        """Check an input as scikit-learn does, but for its values, which are checked as they are read."""
        array = validate_data(
            self,
            to_numpy(X, "X") if is_torch(X) or isinstance(X, np.ndarray) else X,
            reset=reset,
            ensure_all_finite=False,
            ensure_min_samples=min_samples,
            ensure_min_features=min_features,
        )
        return Matrix("X", as_matrix(array).data, home_of(X))

    def _mapped(
        self, matrix: Matrix, weights: Float64, out: Any, *, before: Float64 | None, after: Float64 | None
    ) -> Any:
        resolve_device(self.device)
        target = output_array(out, (matrix.n_samples, weights.shape[1]), result_dtype(matrix))
        affine_rows(
            matrix,
            weights,
            target,
            before=before,
            after=after,
            n_jobs=resolve_n_jobs(self.n_jobs),
            budget=parse_memory(self.max_memory),
            work=f"mapping {weights.shape[0]} columns to {weights.shape[1]}",
        )
        return target if out is not None else matrix.home.bring(target)

    def _forget(self, *names: str) -> None:
        for name in names:
            self.__dict__.pop(name, None)

    def _settle(self) -> None:
        """Compute the spectrum of the moments, where that has not been done."""
        if "_moments" in self.__dict__ and "components_" not in self.__dict__:
            self._validate_params()
            d = len(self._moments.mean)
            require_budget(parse_memory(self.max_memory), _spectrum_memory(d), f"a spectrum of {d} features")
            with single_threaded_blas():
                values, components = leading_components(*self._wanted_of_moments())
            self._take(values, components)

    def _wanted_of_moments(self) -> tuple[Float64, int]:
        """The products that the spectrum is of, and how many components are wanted."""
        raise NotImplementedError

    def _take(self, squares: Float64, components: Float64) -> None:
        """Set the fitted attributes from eigenpairs of the moments held."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags
