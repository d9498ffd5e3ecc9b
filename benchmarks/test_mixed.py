"""What features tell of classes: Ross's estimator, beside scikit-learn and NPEET."""

import numpy as np
import pytest

import qixai_fast as qf
from benchmarks.peers import optional

feature_selection = optional("sklearn.feature_selection")
npeet = optional("npeet.entropy_estimators")


def by_npeet(x, labels):
    """NPEET; its estimator weighs entropies within classes."""
    np.random.seed(0)  # noqa: NPY002
    return float(npeet.micd(x[:, None], labels[:, None], k=3, base=np.e))


@pytest.mark.parametrize("kind", ["Gaussian", "after ReLU"])
def test_features_and_classes(race, size, rng, kind):
    labels = rng.integers(0, 10, size(10_000, 400))
    X = rng.standard_normal((len(labels), size(32, 4))) + labels[:, None] / 3
    if kind == "after ReLU":
        X = np.maximum(X - 1.5, 0)
    few = X[:, :2]
    results = race(
        f"mutual_info_mixed, {kind}: {X.shape[1]} features, 10 classes, N={len(X):,}, k=3",
        lambda: qf.mutual_info_mixed(X, labels, n_jobs=1),
        {
            "scikit-learn mutual_info_classif": feature_selection
            and (
                lambda: feature_selection.mutual_info_classif(
                    few, labels, n_neighbors=3, random_state=0, n_jobs=1
                ),
                few.shape[1],
            ),
            "NPEET micd": npeet and (lambda: [by_npeet(few[:, 0], labels)], 1),
        },
        unit="feature",
        units=X.shape[1],
        rounds=3,
    )
    ours = results.pop("ours")
    if kind == "Gaussian":  # on the zeros of a ReLU they are wrong, and so is a comparison
        for theirs in results.values():
            np.testing.assert_allclose(ours[: len(theirs)], theirs, atol=0.05)
