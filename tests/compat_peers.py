"""The drop-ins of qixai_fast.compat.sklearn beside the functions that they replace."""

import warnings

import numpy as np
import pytest

from qixai_fast.compat import sklearn as ours

pytest.importorskip("sklearn")
import sklearn.feature_selection
import sklearn.metrics
from threadpoolctl import ThreadpoolController

SCORES = ("mutual_info_score", "normalized_mutual_info_score", "adjusted_mutual_info_score")
FEATURES = ("mutual_info_regression", "mutual_info_classif")
MEANS = ("arithmetic", "max", "min", "geometric")
# Its threads wait for one another longer than they work on so little.
_THREADS = ThreadpoolController()


def theirs(name):
    """scikit-learn's function."""
    return getattr(sklearn.feature_selection if name in FEATURES else sklearn.metrics, name)


def same(name, *arguments, tolerance=1e-12, **options):
    """Our value, once it is equal to theirs."""
    value = getattr(ours, name)(*arguments, **options)
    with _THREADS.limit(limits=1):
        expected = theirs(name)(*arguments, **options)
    np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)
    return value


def both_refuse(name, arguments, options, error, message):
    """Ours refuses with a message, and theirs with an error of the same kind."""
    with pytest.raises(error, match=message):
        getattr(ours, name)(*arguments, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error):
            theirs(name)(*arguments, **options)
