"""Mutual information with labels: Ross's estimator, atoms and lattices in it, whole layers."""

import tracemalloc

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

import qixai_fast as qf


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 60),
    st.integers(1, 8),
    st.sampled_from([1, 4, 100, 10**6]),
)
def test_equals_brute_force(seed, n, n_labels, levels):
    rng = np.random.default_rng(seed)
    x = 0.1 * rng.integers(-levels, levels + 1, n)
    labels = rng.integers(0, n_labels, n)
    k = int(rng.integers(1, n))
    value = qf.mutual_info_mixed(x, labels, n_neighbors=k, atoms="none")
    expected = 0.0 if x.min() == x.max() else reference.mutual_info_mixed(x, labels, k)
    assert value == pytest.approx(expected, abs=1e-12)


def mixture_truth(means, weights):
    """I(X; label) of a mixture of unit Gaussians, by quadrature."""

    def term(x):
        parts = [weight * norm.pdf(x, mean) for weight, mean in zip(weights, means, strict=True)]
        total = sum(parts)
        return sum(
            part * np.log(part / (weight * total))
            for part, weight in zip(parts, weights, strict=True)
            if part > 0
        )

    return quad(term, min(means) - 9, max(means) + 9, limit=200)[0]


@pytest.mark.parametrize(("means", "weights"), [((0, 1), (0.5, 0.5)), ((-2, 0, 3), (0.2, 0.5, 0.3))])
def test_gaussian_mixture(means, weights):
    values = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        labels = rng.choice(len(means), 5000, p=weights)
        values.append(qf.mutual_info_mixed(rng.standard_normal(5000) + np.take(means, labels), labels))
    assert np.mean(values) == pytest.approx(mixture_truth(means, weights), abs=0.02)


def test_independent_labels_are_zero():
    values = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x, labels = rng.standard_normal(4000), rng.integers(0, 5, 4000)
        values += [qf.mutual_info_mixed(x, labels), qf.mutual_info_mixed(np.maximum(x, 0), labels)]
    assert abs(np.mean(values)) < 0.01


def test_rectified_mixture():
    # By the chain rule: which samples are zero, then the values of those that are not.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 20_000)
    x = np.maximum(rng.standard_normal(20_000) + labels, 0)
    zero = norm.cdf([0.0, -1.0])

    def term(v):
        parts = norm.pdf(v, [0, 1])
        return sum(part / 2 * np.log(2 * part / parts.sum()) for part in parts)

    truth = quad(term, 0, 10)[0] + sum(z / 2 * np.log(2 * z / zero.sum()) for z in zero)
    assert qf.mutual_info_mixed(x, labels) == pytest.approx(truth, abs=0.015)
    zeros = np.where(x == 0, 1, 0)
    assert qf.mutual_info_mixed(x, labels) == pytest.approx(
        reference.mutual_info_plugin(reference.joint_counts(zeros, labels, (2, 2)))
        + np.mean(x > 0) * qf.mutual_info_mixed(x[x > 0], labels[x > 0]),
        abs=1e-12,
    )


def test_half_precision_is_near_float64():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 6000)
    x = rng.standard_normal(6000) + labels
    assert qf.mutual_info_mixed(x.astype(np.float16), labels) == pytest.approx(
        qf.mutual_info_mixed(x, labels), abs=0.01
    )


def test_scale_shift_order_and_names_of_labels():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 500)
    x = rng.standard_normal(500) + labels
    value = qf.mutual_info_mixed(x, labels)
    assert qf.mutual_info_mixed(1e9 * x, labels) == pytest.approx(value, abs=1e-12)
    order = rng.permutation(500)
    assert qf.mutual_info_mixed(x[order], labels[order]) == pytest.approx(value, abs=1e-12)
    for names in (np.array(["cat", "dog", "eel"]), np.array([0.5, -2.0, 7.0]), np.array([True, False, None])):
        if names.dtype == object:
            with pytest.raises(TypeError, match="labels: wanted values that can be sorted"):
                qf.mutual_info_mixed(x, names[labels])
        else:
            assert qf.mutual_info_mixed(x, names[labels]) == pytest.approx(value, abs=1e-12)


def test_rare_labels_and_constants():
    rng = np.random.default_rng(3)
    x = rng.standard_normal(200)
    assert qf.mutual_info_mixed(x, np.arange(200)) == 0.0
    assert qf.mutual_info_mixed(x, np.zeros(200)) == 0.0
    for atoms in ("auto", "none"):
        constant = qf.mutual_info_mixed(np.ones(200), np.arange(200) % 4, atoms=atoms)
        assert constant == pytest.approx(0, abs=0.02)
    assert qf.mutual_info_mixed(np.ones(200), np.arange(200) % 4) == 0.0


def test_a_layer_is_its_columns(tmp_path):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 4, 400)
    X = rng.standard_normal((400, 11)) + labels[:, None]
    X[:, 1] = np.maximum(X[:, 1], 0)
    X[:, 2] = 3.0
    expected = np.array([qf.mutual_info_mixed(column, labels) for column in X.T])
    path = tmp_path / "X.npy"
    np.save(path, np.asfortranarray(X))
    for layer in (X, np.load(path, mmap_mode="r")):
        for n_jobs in (1, 2, 4):
            np.testing.assert_array_equal(qf.mutual_info_mixed(layer, labels, n_jobs=n_jobs), expected)
    values = qf.mutual_info_mixed(torch.tensor(X), torch.tensor(labels))
    assert values.dtype == torch.float64
    np.testing.assert_array_equal(values.numpy(), expected)
    assert isinstance(qf.mutual_info_mixed(torch.tensor(X[:, 0]), labels), float)
    assert qf.mutual_info_mixed(X[:, :1], labels).shape == (1,)


def test_budget_is_kept():
    rng = np.random.default_rng(5)
    X, labels = rng.standard_normal((40_000, 40)).astype(np.float16), rng.integers(0, 4, 40_000)
    expected = qf.mutual_info_mixed(X, labels)
    with pytest.raises(qf.MemoryBudgetError) as caught:
        qf.mutual_info_mixed(X, labels, max_memory="1MB")
    tracemalloc.start()
    values = qf.mutual_info_mixed(X, labels, max_memory=caught.value.required)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(values, expected)
    assert peak < caught.value.required


@pytest.mark.parametrize(
    ("x", "labels", "options", "error", "words"),
    [
        (
            np.arange(4.0),
            np.zeros(5),
            {},
            ValueError,
            "labels: wanted one for each of the 4 samples of x, got 5",
        ),
        (np.arange(4.0), np.zeros((4, 2)), {}, ValueError, r"labels: wanted shape \(n_samples,\)"),
        (np.arange(4.0), np.array([0, 1, np.nan, 1]), {}, ValueError, "labels: nan at row 2"),
        (np.array([[0, 1], [1, np.nan]]), [0, 1], {}, ValueError, "x: nan at row 1, column 1"),
        (np.zeros(1), [0], {}, ValueError, "x: wanted at least 2 sample"),
        (np.arange(4.0), np.zeros(4), {"n_neighbors": 4}, ValueError, "n_neighbors: wanted 1 to 3"),
        (np.arange(4.0), np.zeros(4), {"atoms": "all"}, ValueError, "atoms: wanted one of"),
    ],
)
def test_bad_input(x, labels, options, error, words):
    with pytest.raises(error, match=words):
        qf.mutual_info_mixed(x, labels, **options)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (np.array([1, 2j, 1, 2]), TypeError, "labels: dtype complex128 is not supported; wanted classes"),
        (np.array(["2024-01-01"] * 4, dtype="M8[D]"), TypeError, "labels: dtype datetime64"),
        (np.arange(4).astype("m8[s]"), TypeError, "labels: dtype timedelta64"),
        (np.zeros(4, dtype="i4,i4"), TypeError, "labels: dtype"),
        (np.array([1, np.nan, 2, 1], dtype=object), ValueError, "labels: nan at row 1"),
        (
            np.array(["a", "b", np.nan, "a"], dtype=object),
            TypeError,
            "labels: wanted values that can be sorted",
        ),
        (np.array([1.0, np.inf, 2.0, 1.0]), ValueError, "labels: inf at row 1"),
    ],
)
def test_labels_that_are_no_classes(labels, error, words):
    with pytest.raises(error, match=words):
        qf.mutual_info_mixed(np.arange(4.0), labels)
