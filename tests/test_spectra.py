"""pca against the definition: values, vectors, bounds, edges."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import positive_largest_entries, spectrum

import qixai_fast as qf
from qixai_fast import wide_spectrum
from qixai_fast.krylov import truncation_bound


def with_spectrum(n, d, sigma, *, offset=0.0, dtype=np.float64, seed=0):
    """Data whose centred singular values are ``sigma`` times sqrt(n), about, with equal means ``offset``."""
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(n, len(sigma)))
    left, _ = np.linalg.qr(left - left.mean(axis=0))
    right, _ = np.linalg.qr(rng.normal(size=(d, len(sigma))))
    return ((left * (sigma * np.sqrt(n))) @ right.T + offset).astype(dtype)


def relative_error(result, X):
    values, _ = spectrum(X, center=True)
    k = len(result.singular_values)
    return np.abs(result.singular_values - values[:k]) / values[:k]


# The three ways, with more than one block of rows or columns each.
WAYS = {
    "features": ((17000, 64), "auto"),
    "samples": ((90, 2500), "auto"),
    "krylov": ((2200, 200), "krylov"),
    "krylov wide": ((150, 700), "krylov"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_values_vectors_and_variances_equal_the_definition(way, dtype):
    (n, d), method = WAYS[way]
    X = with_spectrum(n, d, 0.8 ** np.arange(40), offset=3.0, dtype=dtype)
    result = qf.pca(X, 12, method=method, random_state=0)
    values, rows = spectrum(X, center=True)
    np.testing.assert_allclose(result.singular_values, values[:12], rtol=1e-9)
    np.testing.assert_allclose(result.explained_variance, values[:12] ** 2 / (n - 1), rtol=1e-9)
    np.testing.assert_allclose(result.total_variance, np.sum(values**2) / (n - 1), rtol=1e-9)
    np.testing.assert_allclose(
        result.explained_variance_ratio, values[:12] ** 2 / np.sum(values**2), rtol=1e-9
    )
    np.testing.assert_allclose(result.mean, X.astype(np.longdouble).mean(axis=0).astype(float), rtol=1e-12)
    out = np.float64 if dtype == np.float64 else np.float32
    assert result.components.dtype == out
    assert result.singular_values.dtype == result.error_bound.dtype == result.mean.dtype == np.float64
    expected = positive_largest_entries(rows[:12])
    np.testing.assert_allclose(result.components, expected, atol=1e-6 if out == np.float32 else 1e-7)


def test_the_way_is_chosen_by_the_narrower_side():
    rng = np.random.default_rng(0)
    for shape, k, n_passes in [
        ((1500, 1024), 2, 1),
        ((1024, 1500), 2, 2),
        ((1100, 1060), 2, 4),
        ((1100, 1060), 30, 1),
    ]:
        assert qf.pca(rng.normal(size=shape), k, random_state=0).n_passes == n_passes


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 60),
    st.integers(1, 60),
    st.sampled_from(["auto", "covariance", "krylov"]),
    st.floats(-1e6, 1e6),
    st.integers(0, 2**32 - 1),
)
def test_any_small_matrix(n, d, method, offset, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * rng.choice([1e-3, 1.0, 50.0], size=d) + offset
    k = int(rng.integers(1, min(n, d) + 1))
    result = qf.pca(X, k, method=method, random_state=seed)
    values, _ = spectrum(X, center=True)
    rounding = 1e-7 * max(values[0], 1e-9 * abs(offset))
    np.testing.assert_allclose(result.singular_values, values[:k], rtol=1e-7, atol=rounding)
    np.testing.assert_allclose(result.components @ result.components.T, np.eye(k), atol=1e-12)
    assert np.all(np.diff(result.singular_values) <= 0)
    assert 0 <= result.explained_variance_ratio.sum() <= 1 + 1e-9
    known = np.isfinite(result.error_bound)
    error = np.abs(result.singular_values - values[:k])[known]
    assert np.all(error <= result.error_bound[known] * values[:k][known] + 1e-15 * values[0])


@pytest.mark.parametrize("n", range(30, 132, 17))
def test_too_few_rows_for_a_sample(n):
    """Krylov begins with random vectors where a sample would have no rows to take."""
    X = np.random.default_rng(n).normal(size=(n, 1))
    result = qf.pca(X, 1, method="krylov", random_state=0)
    np.testing.assert_allclose(result.singular_values, np.linalg.norm(X - X.mean()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("offset", [0, 30, 1000])
def test_means_far_larger_than_the_spread(way, offset):
    """1e-6 at mean/std 1000 in float32, down to a thousandth of the first singular value."""
    (n, d), method = WAYS[way]
    X = with_spectrum(n, d, np.geomspace(1, 1e-3, 20), dtype=np.float64)
    X = (X + offset * X.std()).astype(np.float32)
    values, _ = spectrum(X, center=True)
    k = int(np.count_nonzero(values[:20] >= 1e-3 * values[0]))
    assert k >= 15
    result = qf.pca(X, k, method=method, random_state=0, tol=1e-6)
    error = relative_error(result, X)
    assert error.max() < 1e-6
    assert np.all(error <= result.error_bound)


@pytest.mark.filterwarnings("ignore:pca. tol")
@pytest.mark.parametrize("way", WAYS)
def test_the_bound_grows_as_the_square_and_holds(way):
    (n, d), method = WAYS[way]
    X = with_spectrum(n, d, np.geomspace(1, 1e-6, 13))
    result = qf.pca(X, 13, method=method, random_state=1, tol=1e-3)
    error = relative_error(result, X)
    assert np.all(error <= result.error_bound)
    growth = result.error_bound[6] / result.error_bound[0]
    ratio = (result.singular_values[0] / result.singular_values[6]) ** 2
    assert growth == pytest.approx(ratio, rel=0.2)
    # A bound that any error would satisfy says nothing.
    assert result.error_bound[6] < 1e-6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decay", ["noise", "slow", "power", "fast"])
def test_bounds_of_unfinished_krylov_hold(decay, seed):
    rng = np.random.default_rng(seed)
    d = 400
    shape = {"noise": np.ones(d), "slow": np.linspace(1, 0, d), "power": 1 / np.arange(1, d + 1.0)}
    sigma = shape.get(decay, 0.8 ** np.arange(d))
    X = rng.normal(size=(700, d)) * sigma
    result = qf.pca(X, 15, method="krylov", random_state=seed)
    error = relative_error(result, X)
    assert np.all(error <= result.error_bound)
    assert np.all(result.error_bound < 1)
    assert result.n_passes in (3, 4)


def test_truncation_bound_of_a_spectrum_that_is_known():
    values = np.array([4.0, 3.0, 1.0])
    # With no residuals the values are eigenvalues; with nothing outside they cannot be exceeded.
    np.testing.assert_array_equal(truncation_bound(values, np.zeros(3), 10.0, 2.0, 2), [0, 0])
    np.testing.assert_array_equal(truncation_bound(values, np.ones(3), 8.0, 0.0, 2), [0, 0])
    # diag(4, 3, 1) coupled by 0.1 to a fourth direction of value 0.5.
    matrix = np.diag([4.0, 3.0, 1.0, 0.5])
    matrix[3, :3] = matrix[:3, 3] = 0.1
    true = np.linalg.eigvalsh(matrix)[::-1]
    bound = truncation_bound(values, np.full(3, 0.1), np.trace(matrix), 0.5, 2)
    assert np.all(true[:2] - values[:2] <= bound)
    assert np.all(bound < 0.05)


def test_tol_adds_passes_until_the_bound_holds():
    X = np.random.default_rng(0).normal(size=(900, 600)).astype(np.float32)
    loose = qf.pca(X, 5, method="krylov", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tight = qf.pca(X, 5, method="krylov", random_state=0, tol=1e-6)
    assert loose.n_passes == 4
    assert loose.error_bound.max() > 1e-3
    assert 8 < tight.n_passes <= 40
    assert tight.error_bound.max() <= 1e-6
    assert relative_error(tight, X).max() <= 1e-6


def test_tol_that_cannot_be_met_is_explained(monkeypatch):
    X = with_spectrum(500, 60, np.geomspace(1, 1e-7, 10))
    for method in ("covariance", "krylov"):
        with pytest.warns(UserWarning, match="too small beside the first for float64"):
            result = qf.pca(X, 10, method=method, random_state=0, tol=1e-6)
        assert result.error_bound[-1] > 1e-6
        assert result.error_bound[0] <= 1e-6
        assert result.n_passes <= 6
    monkeypatch.setattr(wide_spectrum, "MAX_PASSES", 5)
    noise = np.random.default_rng(0).normal(size=(500, 400))
    with pytest.warns(UserWarning, match="5 passes did not settle"):
        result = qf.pca(noise, 3, method="krylov", random_state=0, tol=1e-6)
    assert result.n_passes == 5


def test_orthogonal_and_rank_one_matrices():
    columns = np.linalg.qr(np.c_[np.ones(64), np.random.default_rng(0).normal(size=(64, 5))])[0][:, 1:]
    result = qf.pca(columns * 3.0, 5)
    np.testing.assert_allclose(result.singular_values, 3.0, rtol=1e-14)
    np.testing.assert_allclose(result.explained_variance_ratio, 0.2, rtol=1e-13)
    x, y = np.arange(5.0), np.array([3.0, -4.0, 0.0])
    for method in ("covariance", "krylov"):
        result = qf.pca(np.outer(x, y), 3, method=method, random_state=0)
        # sqrt(sum (x - 2)^2) * |y| = sqrt(10) * 5, along y / 5, which leads with -4.
        assert result.singular_values[0] == pytest.approx(5 * np.sqrt(10), rel=1e-14)
        np.testing.assert_allclose(result.components[0], [-0.6, 0.8, 0.0], atol=1e-14)
        assert result.explained_variance_ratio[0] == pytest.approx(1.0, rel=1e-14)
        assert np.all(result.singular_values[1:] < 1e-6)
        assert np.all(np.isinf(result.error_bound[1:]) | (result.error_bound[1:] > 0.1))


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (40, 40)])
@pytest.mark.parametrize("method", ["covariance", "krylov"])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_no_variance_at_all(shape, method, value):
    result = qf.pca(np.full(shape, value), 8, method=method, random_state=0)
    for values in (result.singular_values, result.explained_variance_ratio, result.error_bound):
        np.testing.assert_array_equal(values, np.zeros(8))
    assert result.total_variance == 0
    np.testing.assert_array_equal(result.mean, np.full(shape[1], value))
    np.testing.assert_allclose(result.components @ result.components.T, np.eye(8), atol=1e-12)


@pytest.mark.parametrize("shape", [(300, 20), (12, 300), (60, 50)])
@pytest.mark.parametrize("method", ["covariance", "krylov"])
def test_low_rank_and_constant_features(shape, method):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(shape[0], 3)) @ rng.normal(size=(3, shape[1]))
    X[:, 4] = 7.25
    result = qf.pca(X, 10, method=method, random_state=0)
    assert relative_error(result, X)[:3].max() < 1e-12
    assert result.singular_values[3:].max() < 1e-6 * result.singular_values[0]
    assert result.error_bound[3:].min() > 0.1
    np.testing.assert_allclose(result.components @ result.components.T, np.eye(10), atol=1e-12)
    np.testing.assert_allclose(result.components[:3, 4], 0, atol=1e-12)
    assert result.explained_variance_ratio.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_the_order_of_samples_changes_nothing(way):
    (n, d), method = WAYS[way]
    X = with_spectrum(n, d, 0.7 ** np.arange(15), offset=5)
    first = qf.pca(X, 6, method=method, random_state=0)
    order = np.random.default_rng(1).permutation(n)
    second = qf.pca(X[order], 6, method=method, random_state=0)
    np.testing.assert_allclose(first.singular_values, second.singular_values, rtol=1e-12)
    np.testing.assert_allclose(first.components, second.components, atol=1e-9)


def test_scale_and_shift():
    X = with_spectrum(400, 12, 0.7 ** np.arange(12))
    first, second = qf.pca(X, 12), qf.pca(-4 * X + 100, 12)
    np.testing.assert_allclose(second.singular_values, 4 * first.singular_values, rtol=1e-9)
    np.testing.assert_allclose(second.explained_variance_ratio, first.explained_variance_ratio, rtol=1e-9)


def test_integers_booleans_and_layouts():
    rng = np.random.default_rng(5)
    X = rng.integers(0, 200, size=(300, 9)).astype(np.uint8)
    expected = qf.pca(X.astype(np.float64), 4)
    for given_as in (X, np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2], X.tolist(), X.astype(np.int64)):
        result = qf.pca(given_as, 4)
        np.testing.assert_allclose(result.singular_values, expected.singular_values, rtol=1e-12)
        assert result.components.dtype == np.float64
    assert qf.pca(X > 100, 2).total_variance == pytest.approx((X > 100).var(axis=0, ddof=1).sum())


@pytest.mark.parametrize(
    ("X", "options", "error", "words"),
    [
        (np.ones((1, 4)), {}, ValueError, "X: wanted at least 2"),
        (np.ones((0, 4)), {}, ValueError, "X: wanted at least 2"),
        (np.ones((4, 0)), {}, ValueError, "X: wanted at least 1 feature"),
        (np.ones(4), {}, ValueError, "wanted shape"),
        (np.ones((4, 2), complex), {}, TypeError, "complex"),
        (
            np.ones((4, 2)),
            {"n_components": 3},
            ValueError,
            r"n_components: wanted 1 to 2 \(X is 4 samples by 2",
        ),
        (np.ones((4, 9)), {"n_components": 5}, ValueError, "n_components: wanted 1 to 4"),
        (np.ones((4, 2)), {"n_components": 0}, ValueError, "n_components"),
        (np.ones((4, 2)), {"n_components": 1.5}, TypeError, "n_components"),
        (np.ones((4, 2)), {"method": "svd"}, ValueError, "method: wanted one of"),
        (np.ones((4, 2)), {"tol": 0}, ValueError, "tol"),
        (np.ones((4, 2)), {"tol": "small"}, TypeError, "tol"),
        (np.ones((4, 2)), {"tol": np.nan}, ValueError, "tol"),
        (np.ones((4, 2)), {"random_state": -1}, ValueError, "random_state"),
        (np.ones((4, 2)), {"n_jobs": 0}, ValueError, "n_jobs"),
        (np.ones((4, 2)), {"device": "abacus"}, ValueError, "device"),
        (np.array([[1e200], [-1e200]]), {}, ValueError, "X: the squares of the values overflow"),
    ],
)
def test_bad_input_is_named(X, options, error, words):
    with pytest.raises(error, match=words):
        qf.pca(X, **{"n_components": 1, **options})


@pytest.mark.parametrize("way", WAYS)
def test_the_first_value_that_is_not_finite_is_named(way):
    (n, d), method = WAYS[way]
    X = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    X[80, 3], X[70, d - 1] = np.inf, np.nan
    with pytest.raises(ValueError, match=rf"X: nan at row 70, column {d - 1}"):
        qf.pca(X, 2, method=method, random_state=0)


def test_benign_data_agree_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.decomposition")
    X = with_spectrum(800, 30, 0.8 ** np.arange(30))
    theirs = sklearn.PCA(8, svd_solver="full").fit(X)
    ours = qf.pca(X, 8)
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(ours.explained_variance_ratio, theirs.explained_variance_ratio_, rtol=1e-10)
    np.testing.assert_allclose(ours.components, positive_largest_entries(theirs.components_), atol=1e-8)
