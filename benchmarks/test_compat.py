"""The drop-ins beside the functions of scikit-learn that they replace."""

import numpy as np
import pytest

from qixai_fast.compat import sklearn as ours

metrics = pytest.importorskip("sklearn.metrics")
feature_selection = pytest.importorskip("sklearn.feature_selection")


def _race(race, row, name, *arguments, least=None, **options):
    module = feature_selection if hasattr(feature_selection, name) else metrics
    results = race(
        f"`{name}`, {row}",
        lambda: getattr(ours, name)(*arguments, **options),
        {"scikit-learn": lambda: getattr(module, name)(*arguments, **options)},
        least=least and {"scikit-learn": least},
        rounds=3,
    )
    np.testing.assert_allclose(results["ours"], results["scikit-learn"], rtol=1e-9, atol=1e-10)


@pytest.fixture
def layer(size, rng):
    """16 features, of which a target depends on the first."""
    X = rng.standard_normal((size(10_000, 300), 16))
    return X, X[:, 0] + rng.standard_normal(len(X))


def test_regression(race, layer):
    X, y = layer
    row = f"{len(X):,} samples, {X.shape[1]} continuous features"
    _race(race, row, "mutual_info_regression", X, y, least=10, random_state=0)


def test_regression_of_discrete_features(race, layer):
    X, y = layer
    row = f"{len(X):,} samples, {X.shape[1]} features of 8 or so levels"
    _race(
        race, row, "mutual_info_regression", np.round(X), y, least=10, discrete_features=True, random_state=0
    )


def test_classif(race, layer):
    X, y = layer
    row = f"{len(X):,} samples, {X.shape[1]} continuous features, 3 classes"
    _race(race, row, "mutual_info_classif", X, np.digitize(y, [0, 1]), least=10, random_state=0)


def test_classif_of_discrete_features(race, layer):
    X, y = layer
    row = f"{len(X):,} samples, {X.shape[1]} features of 8 or so levels, 3 classes"
    labels = np.digitize(y, [0, 1])
    _race(race, row, "mutual_info_classif", np.round(X), labels, discrete_features=True)


@pytest.mark.parametrize("levels", [16, 100])
@pytest.mark.parametrize(
    "name", ["mutual_info_score", "normalized_mutual_info_score", "adjusted_mutual_info_score"]
)
def test_scores(race, size, rng, name, levels):
    labels = rng.integers(0, levels, (2, size(10_000, 300)))
    _race(race, f"{labels.shape[1]:,} integer labels of {levels} levels", name, *labels, least=10)


def test_score_of_strings(race, size, rng):
    labels = np.array([f"class {i}" for i in range(16)])[rng.integers(0, 16, (2, size(10_000, 300)))]
    _race(race, f"{labels.shape[1]:,} strings of 16 levels", "mutual_info_score", *labels)
