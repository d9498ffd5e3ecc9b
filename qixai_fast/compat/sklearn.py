"""scikit-learn's names, signatures and values, computed by the kernels of this package.

Change the import, and nothing else::

    from qixai_fast.compat.sklearn import mutual_info_regression

Values agree with scikit-learn's to 1e-10 or better, its scaling, clipping and seeded noise included;
``randomized_svd`` comes nearer to the truth. Errors and warnings are of its classes once it is imported.
scikit-learn itself need not be installed.
"""

from __future__ import annotations

from typing import Any

from .._validate import Float64
from . import _labels
from ._arguments import check_string
from ._linear_algebra import cosine_similarity, randomized_svd

__all__ = [
    "adjusted_mutual_info_score",
    "cosine_similarity",
    "mutual_info_classif",
    "mutual_info_regression",
    "mutual_info_score",
    "normalized_mutual_info_score",
    "randomized_svd",
]


def mutual_info_score(labels_true: Any, labels_pred: Any, *, contingency: Any = None) -> float:
    """Mutual information of two labellings of the same samples.

    Parameters
    ----------
    labels_true, labels_pred : array_like, shape (n_samples,)
        Labels of any kind that can be sorted: integers, strings, booleans, objects. Floats with a fraction
        are each a label of their own, with a UserWarning.
    contingency : array_like or sparse matrix, shape (n_classes_true, n_classes_pred), optional
        Counts of the pairs of labels; then the labels are ignored. Fractions are cut off.

    Returns
    -------
    float
        In nats, at least 0.

    Raises
    ------
    ValueError
        For other than one dimension, lengths that differ, no samples, NaN or infinite labels, and a
        contingency table that is not one of counts.
    TypeError
        For labels that cannot be sorted, and for bytes.

    References
    ----------
    Vinh, Epps and Bailey, "Information theoretic measures for clusterings comparison", JMLR 11, 2837 (2010),
    section 2.2.

    Examples
    --------
    >>> from qixai_fast.compat.sklearn import mutual_info_score
    >>> round(mutual_info_score([0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 1, 1]), 4)
    0.0566
    """
    if contingency is not None:
        return _labels.information(_labels.read_contingency("mutual_info_score", contingency))
    x, y = _labels.read_labels("mutual_info_score", labels_true, labels_pred, none=True)
    if len(x) == 0:
        raise ValueError("labels_true: wanted at least 1 sample, got none")
    return _labels.information(_labels.count(_labels.encode(x), _labels.encode(y)))


def normalized_mutual_info_score(
    labels_true: Any, labels_pred: Any, *, average_method: str = "arithmetic"
) -> float:
    """Mutual information of two labellings over a mean of their entropies.

    Parameters
    ----------
    labels_true, labels_pred : array_like, shape (n_samples,)
        As :func:`mutual_info_score` takes them.
    average_method : {"arithmetic", "max", "min", "geometric"}, default "arithmetic"
        The mean.

    Returns
    -------
    float
        From 0 to 1, but for rounding; 1 for labellings that agree up to names, and where neither splits the
        samples.

    Raises
    ------
    ValueError, TypeError
        As :func:`mutual_info_score`, but no samples are a perfect match; and for another mean.

    References
    ----------
    Vinh, Epps and Bailey, JMLR 11, 2837 (2010), table 2.

    Examples
    --------
    >>> from qixai_fast.compat.sklearn import normalized_mutual_info_score
    >>> normalized_mutual_info_score(["a", "a", "b", "b"], [1, 1, 0, 0])
    1.0
    """
    function = "normalized_mutual_info_score"
    check_string(function, "average_method", average_method, _labels.AVERAGE_METHODS)
    x, y = _labels.read_labels(function, labels_true, labels_pred)
    if len(x) == 0:
        return 1.0
    return _labels.normalized(_labels.count(_labels.encode(x), _labels.encode(y)), average_method)


def adjusted_mutual_info_score(
    labels_true: Any, labels_pred: Any, *, average_method: str = "arithmetic"
) -> float:
    """Mutual information of two labellings beyond chance, over a mean of their entropies beyond chance.

    Chance is the exact mean over all permutations of one labelling.

    Parameters
    ----------
    labels_true, labels_pred : array_like, shape (n_samples,)
        As :func:`mutual_info_score` takes them.
    average_method : {"arithmetic", "max", "min", "geometric"}, default "arithmetic"
        The mean.

    Returns
    -------
    float
        At most 1: exactly 1 for labellings that agree up to names. About 0, also below, for random ones.

    Raises
    ------
    ValueError, TypeError
        As :func:`normalized_mutual_info_score`.

    Notes
    -----
    Where one labelling gives every sample a label of its own, the value is its own mean, and the result is 0
    (1 with ``average_method="min"``, as 0 / 0 counts as a match); scikit-learn's depends on rounding there.

    References
    ----------
    Vinh, Epps and Bailey, JMLR 11, 2837 (2010), equations (24a) and following.

    Examples
    --------
    >>> from qixai_fast.compat.sklearn import adjusted_mutual_info_score
    >>> adjusted_mutual_info_score([0, 0, 1, 1], [1, 1, 0, 0])
    1.0
    """
    function = "adjusted_mutual_info_score"
    check_string(function, "average_method", average_method, _labels.AVERAGE_METHODS)
    x, y = _labels.read_labels(function, labels_true, labels_pred)
    if len(x) == 0:
        return 1.0
    return _labels.adjusted(_labels.count(_labels.encode(x), _labels.encode(y)), average_method)


def mutual_info_regression(
    X: Any,
    y: Any,
    *,
    discrete_features: Any = "auto",
    n_neighbors: int = 3,
    copy: bool = True,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> Float64:
    """Mutual information of each feature with a continuous target.

    The estimators are KSG-1 for continuous features and Ross's for discrete ones. Fit to be the
    ``score_func`` of scikit-learn's ``SelectKBest`` and its relatives.

    Parameters
    ----------
    X : array_like or sparse matrix, shape (n_samples, n_features)
        Finite numbers. A sparse matrix has discrete features only.
    y : array_like, shape (n_samples,)
        The target; finite numbers.
    discrete_features : "auto", bool, or array_like, default "auto"
        Which features are discrete: all, none, a mask of shape (n_features,), or their places. "auto": those
        of sparse matrices.
    n_neighbors : int, default 3
        Neighbours of the estimators.
    copy : bool, default True
        Taken for the signature's sake; X is never overwritten.
    random_state : int, RandomState or None, default None
        Seed of the noise, 1e-10 of each continuous column's scale, that parts equal values. None draws from
        NumPy's global generator.
    n_jobs : int, optional
        Threads over features; None is 1 outside of a joblib context, -1 all cores. The result does not depend
        on it.

    Returns
    -------
    (n_features,) float64
        In nats; estimates below 0 are 0.

    Raises
    ------
    ValueError
        For wrong shapes and lengths, NaN or infinite values, parameters out of range, as many neighbours as
        samples, and continuous features in a sparse matrix.
    IndexError
        For discrete features that X does not have.

    References
    ----------
    Kraskov, Stögbauer and Grassberger, Phys. Rev. E 69, 066138 (2004), equation (8).

    Ross, PLoS ONE 9, e87357 (2014), equation (2).

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast.compat.sklearn import mutual_info_regression
    >>> X = np.random.RandomState(0).standard_normal((500, 2))
    >>> values = mutual_info_regression(X, X[:, 0] ** 2, random_state=0)
    >>> bool(values[0] > 2 > 0.1 > values[1])
    True
    """
    from ._features import estimate

    return estimate(
        "mutual_info_regression",
        X,
        y,
        discrete_target=False,
        discrete_features=discrete_features,
        n_neighbors=n_neighbors,
        copy=copy,
        random_state=random_state,
        n_jobs=n_jobs,
    )


def mutual_info_classif(
    X: Any,
    y: Any,
    *,
    discrete_features: Any = "auto",
    n_neighbors: int = 3,
    copy: bool = True,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> Float64:
    """Mutual information of each feature with class labels.

    The estimators are Ross's for continuous features and the plug-in for discrete ones. Fit to be the
    ``score_func`` of scikit-learn's ``SelectKBest`` and its relatives.

    Parameters
    ----------
    X, discrete_features, n_neighbors, copy, random_state, n_jobs
        As in :func:`mutual_info_regression`.
    y : array_like, shape (n_samples,)
        Class labels: strings or integers. Samples alone in their class are left out of Ross's estimator.

    Returns
    -------
    (n_features,) float64
        In nats; estimates below 0 are 0.

    Raises
    ------
    ValueError, IndexError
        As :func:`mutual_info_regression`; and for a target of floats with a fraction, or classes of one
        sample each.
    TypeError
        For labels that cannot be sorted, and for bytes.

    Notes
    -----
    Classes of at most 2 k + 1 samples measure distances as scikit-learn does there, by the expanded square,
    which loses half of the digits: values that nearly tie may count either way.

    References
    ----------
    Ross, PLoS ONE 9, e87357 (2014), equation (2).

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast.compat.sklearn import mutual_info_classif
    >>> y = np.repeat(["cat", "dog"], 200)
    >>> X = np.random.RandomState(0).standard_normal((400, 2)) + 3 * (y == "dog")[:, None] * [1, 0]
    >>> values = mutual_info_classif(X, y, random_state=0)
    >>> bool(values[0] > 0.4 > 0.1 > values[1])
    True
    """
    from ._features import estimate

    return estimate(
        "mutual_info_classif",
        X,
        y,
        discrete_target=True,
        discrete_features=discrete_features,
        n_neighbors=n_neighbors,
        copy=copy,
        random_state=random_state,
        n_jobs=n_jobs,
    )
