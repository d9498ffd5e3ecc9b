"""Singular vectors and cosine similarities under scikit-learn's names; the work is imported when called."""

from __future__ import annotations

from typing import Any

from .._validate import Array


def randomized_svd(
    M: Any,
    n_components: int,
    *,
    n_oversamples: int = 10,
    n_iter: int | str = "auto",
    power_iteration_normalizer: str = "auto",
    transpose: bool | str = "auto",
    flip_sign: bool = True,
    random_state: Any = None,
    svd_lapack_driver: str = "gesdd",
) -> tuple[Array, Array, Array]:
    """Leading singular values and vectors.

    Left alone, it is :func:`qixai_fast.randomized_svd`: exact up to 1,024 rows or columns, block Krylov
    beyond. A number of iterations, or a normaliser, prescribes Halko's algorithm, as scikit-learn has it,
    from the same random numbers; where exact products cost less than those iterations, they are taken.

    Parameters
    ----------
    M : array_like or sparse matrix, shape (n_samples, n_features)
        Finite real numbers. Sparse matrices are always decomposed by Halko's algorithm.
    n_components : int
        How many; at most ``min(n_samples, n_features)`` are returned.
    n_oversamples : int, default 10
        Random vectors beyond ``n_components``.
    n_iter : int or "auto", default "auto"
        Power iterations.
    power_iteration_normalizer : {"auto", "QR", "LU", "none"}, default "auto"
        What keeps the vectors apart between iterations.
    transpose : bool or "auto", default "auto"
        Whether iterations start from the other side; exact ways ignore it.
    flip_sign : bool, default True
        Make the entry of largest absolute value of every left singular vector positive.
    random_state : int, RandomState or None, default None
        Seed of the random vectors.
    svd_lapack_driver : {"gesdd", "gesvd"}, default "gesdd"
        For the small matrix that iterations end with.

    Returns
    -------
    u : (n_samples, n_components) ndarray
    s : (n_components,) ndarray
        Largest first.
    vh : (n_components, n_features) ndarray
        All of float32 for half- and single-precision ``M``, float64 otherwise.

    Raises
    ------
    ValueError, TypeError
        For other than a finite real matrix, and parameters of the wrong type or out of range.

    Notes
    -----
    Singular values below 1e-5 of the first, in double precision, are computed by iterations, which resolve
    them: products of all pairs of columns do not.

    References
    ----------
    Halko, Martinsson and Tropp, SIAM Review 53, 217 (2011), algorithms 4.4 and 5.1.

    Musco and Musco, "Randomized Block Krylov Methods for Stronger and Faster Approximate Singular Value
    Decomposition" (2015), algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast.compat.sklearn import randomized_svd
    >>> U, s, Vh = randomized_svd(np.diag([1.0, 3.0, 2.0]), 2, random_state=0)
    >>> s.round(12), Vh.round(12) + 0
    (array([3., 2.]), array([[0., 1., 0.],
           [0., 0., 1.]]))
    """
    from ._spectra import decompose

    return decompose(
        M,
        n_components,
        n_oversamples,
        n_iter,
        power_iteration_normalizer,
        transpose,
        flip_sign,
        random_state,
        svd_lapack_driver,
    )


def cosine_similarity(X: Any, Y: Any = None, dense_output: bool = True) -> Any:
    """Cosine of the angle between every sample of one matrix and every sample of another.

    :func:`qixai_fast.cosine_similarity` for dense matrices, and products of scaled rows for sparse ones.

    Parameters
    ----------
    X : array_like or sparse matrix, shape (n_samples_X, n_features)
        Finite real numbers.
    Y : array_like or sparse matrix, shape (n_samples_Y, n_features), optional
        None compares ``X`` with itself.
    dense_output : bool, default True
        False: a sparse result where both are sparse, an array or a matrix as they are.

    Returns
    -------
    (n_samples_X, n_samples_Y) ndarray or sparse matrix
        float32 where both are float32, float64 otherwise. A zero sample has a similarity of 0 with all.

    Raises
    ------
    ValueError, TypeError
        For other than finite real matrices with the same features.

    Examples
    --------
    >>> from qixai_fast.compat.sklearn import cosine_similarity
    >>> cosine_similarity([[0, 0], [1, 1]], [[1, 0], [2, 2]]).round(3)
    array([[0.   , 0.   ],
           [0.707, 1.   ]])
    """
    from ._cosine import similarities

    return similarities(X, Y, dense_output)
