"""Where products are float32: their errors, the bounds on them, and when float64 takes over."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qixai_fast.kernels.moments_cpu import add_upper, copy_rotated, copy_shifted

import qixai_fast as qf
from qixai_fast import _blas, feature_products, wide_spectrum
from qixai_fast._threads import single_threaded_blas
from qixai_fast._validate import as_matrix
from qixai_fast.rounding import relative_bound
from qixai_fast.shifted_rows import PRODUCT_ROWS
from qixai_fast.statistics import ShiftedMoments, cross_moments, finalize_moments, moment_bounds


def layer(kind, n, d, rng):
    """Activations with a slowly decaying spectrum, of the kinds that round in their own ways."""
    signal = (rng.standard_normal((n, 64)) * np.arange(1, 65) ** -1.0) @ rng.standard_normal((64, d))
    X = signal + 0.3 * rng.standard_normal((n, d))
    return {
        "Gaussian": lambda: X,
        "white": lambda: rng.standard_normal((n, d)),
        "rectified": lambda: np.maximum(X - 1.5, 0),
        "binary": lambda: (X > 0) * 0.1,
        "rare": lambda: (rng.random((n, d)) < 0.003) * 0.3,
        "one switch": lambda: (rng.random((n, 1)) < 0.3) * 0.1 + 0.01 * rng.standard_normal((n, d)),
        "outliers": lambda: X * np.where(rng.random((n, 1)) < 0.002, 30, 1),
        "scales": lambda: X * rng.lognormal(0, 1, d),
        "levels": lambda: np.clip(np.round(X * 30 + 100), 0, 255),
        "repeated": lambda: np.tile(np.maximum(X[:1024], 0), (n // 1024 + 1, 1))[:n],
        "sorted": lambda: np.maximum(X - 1, 0)[np.argsort(X[:, 0])],
    }[kind]().astype(np.float32)


KINDS = (
    "Gaussian",
    "white",
    "rectified",
    "binary",
    "rare",
    "one switch",
    "outliers",
    "scales",
    "levels",
    "repeated",
    "sorted",
)


def singular_values(X):
    """Of the centred data, in float64 from extended precision means."""
    exact = X.astype(np.float64)
    exact -= X.astype(np.longdouble).mean(axis=0).astype(np.float64)
    exact -= exact.mean(axis=0)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(exact.T @ exact)[::-1], 0))


def moments_error(X):
    """Frobenius norm of the error of float32 products, beside what random rounding should leave."""
    single = cross_moments([as_matrix(X)], single=True)
    assert single.single
    exact = cross_moments([as_matrix(X)])
    about_shift = X.astype(np.float64) - single.shift
    expected = 0.0
    for first in range(0, len(X), PRODUCT_ROWS):
        rows = about_shift[first : first + PRODUCT_ROWS]
        expected += np.sum((rows.T @ rows) ** 2)
    expected = 2.0**-24 / 3 * np.sqrt(PRODUCT_ROWS * expected)
    return np.linalg.norm(single.scatter - exact.scatter), expected


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_is_as_random_as_the_bound_takes_it_to_be(kind):
    """Without the turns of rows, rectified and binary layers are 10 times above."""
    X = layer(kind, 8192, 128, np.random.default_rng(0))
    error, expected = moments_error(X)
    assert 0 < error < expected


def test_products_that_are_not_turned_would_break_the_bound(monkeypatch):
    """The test above can fail: with plain copies it does."""
    from qixai_fast.kernels import moments_cpu

    def plain(rows, shift, key, out, column, total, squares):
        wide = np.zeros((len(rows), len(shift)))
        copy_shifted(rows, shift, wide, 0, total, squares)
        out[: len(rows), column : column + len(shift)] = wide

    monkeypatch.setattr(moments_cpu, "copy_rotated", plain)
    error, expected = moments_error(layer("rectified", 8192, 128, np.random.default_rng(0)))
    assert error > 3 * expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4096, 128), (17000, 96)])
def test_the_bound_of_float32_products_holds(kind, shape, monkeypatch):
    monkeypatch.setattr(feature_products, "single_may_do", lambda *_: True)
    monkeypatch.setattr(feature_products, "PROMISE", 1.0)
    X = layer(kind, *shape, np.random.default_rng(1))
    with single_threaded_blas():
        pairs = feature_products.feature_pairs(as_matrix(X), 20, center=True, tol=None, n_jobs=2)
    assert pairs.n_passes == 1
    truth = singular_values(X)[:20]
    error = np.abs(np.sqrt(pairs.values) - truth) / truth
    bound = relative_bound(pairs.values, pairs.errors, np.zeros(20))
    assert error.max() > 1e-12
    assert np.all(error <= bound)
    assert bound[0] < 2e-5


@pytest.mark.parametrize("method", ["covariance", "krylov"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("ratio", [0, 1, 10, 30, 100, 1000])
def test_means_up_to_a_thousand_standard_deviations(method, dtype, ratio):
    """1e-6 for values above a thousandth of the first, of the data as they are stored."""
    rng = np.random.default_rng(2)
    X = (rng.standard_normal((6000, 40)) * np.geomspace(1, 1e-3, 40)) @ rng.standard_normal((40, 120))
    X = (X + ratio * X.std()).astype(dtype)
    truth = singular_values(X)
    k = min(20, int(np.count_nonzero(truth >= 1e-3 * truth[0])))
    result = qf.pca(X, k, method=method, random_state=0, tol=1e-6 if method == "krylov" else None)
    error = np.abs(result.singular_values - truth[:k]) / truth[:k]
    assert error.max() < 1e-6
    assert np.all(error <= result.error_bound + 1e-14)


def used_precisions(monkeypatch):
    seen = []
    original = feature_products.cross_moments

    def spy(matrices, *, single, n_jobs):
        seen.append(single)
        return original(matrices, single=single, n_jobs=n_jobs)

    monkeypatch.setattr(feature_products, "cross_moments", spy)
    return seen


def test_the_spectrum_decides_which_precision(monkeypatch):
    seen = used_precisions(monkeypatch)
    rng = np.random.default_rng(3)
    flat = rng.standard_normal((30000, 128)).astype(np.float32)
    steep = (flat * np.geomspace(1, 1e-4, 128)).astype(np.float32)
    result = qf.pca(flat, 10)
    assert (seen, result.n_passes) == ([True], 1)
    assert 1e-9 < result.error_bound.max() <= 1e-6
    truth = singular_values(flat)[:10]
    assert np.abs(result.singular_values / truth - 1).max() < 1e-8
    seen.clear()
    for X, options in [(steep, {}), (flat, {"tol": 1e-9}), (flat.astype(np.float64), {}), (flat[:1000], {})]:
        assert qf.pca(X, 10, **options).error_bound.max() < 1e-8
    assert seen == [False] * 4


def test_a_wrong_guess_costs_a_pass_and_no_digits(monkeypatch):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((30000, 128))
    X[500:9000, 0] *= 300  # between the places that are looked at
    X = X.astype(np.float32)
    seen = used_precisions(monkeypatch)
    result = qf.pca(X, 10)
    assert (seen, result.n_passes) == ([True, False], 2)
    truth = singular_values(X)[:10]
    error = np.abs(result.singular_values / truth - 1)
    assert error.max() < 1e-9
    assert np.all(error <= result.error_bound + 1e-15)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.sampled_from([600, 3000, 9000]),
    st.integers(40, 200),
    st.integers(1, 20),
    st.sampled_from([0, 30, 1000]),
    st.sampled_from([None, 1e-3, 1e-6]),
    st.integers(0, 2**32 - 1),
)
@pytest.mark.filterwarnings("ignore:pca. tol")
def test_krylov_bounds_hold_in_float32(kind, n, d, k, ratio, tol, seed):
    rng = np.random.default_rng(seed)
    X = layer(kind, n, d, rng)
    X = (X * rng.uniform(0.8, 1) ** np.arange(d) + ratio * X.std()).astype(np.float32)
    truth = singular_values(X)[:k]
    result = qf.pca(X, k, method="krylov", random_state=seed % 1000, tol=tol)
    known = truth > 1e-6 * truth[0]
    error = np.abs(result.singular_values - truth)[known] / truth[known]
    assert np.all(error <= result.error_bound[known] + 1e-14)


def test_float64_passes_finish_what_float32_has_begun():
    rng = np.random.default_rng(5)
    X = (rng.standard_normal((5000, 30)) * np.geomspace(1, 1e-3, 30)) @ rng.standard_normal((30, 200))
    X = (X + 1e-5 * rng.standard_normal(X.shape)).astype(np.float32)
    truth = singular_values(X)[:30]
    result = qf.pca(X, 30, method="krylov", random_state=0)
    assert 3 < result.n_passes <= 6
    assert result.error_bound.max() < 1e-6
    error = np.abs(result.singular_values / truth - 1)
    assert np.all(error <= result.error_bound)
    assert qf.pca(X, 3, method="krylov", random_state=0).n_passes <= 4


def test_what_a_sample_lacks_is_found():
    """Ten rows out of 40,000 hold a direction that no other row has a part of."""
    rng = np.random.default_rng(6)
    X = rng.standard_normal((40000, 150)).astype(np.float32)
    X[:, 100:] = 0
    X[20500:20510, 100:] = 400
    truth = singular_values(X)
    result = qf.pca(X, 3, method="krylov", random_state=0, tol=1e-5)
    assert wide_spectrum._sample_rows(as_matrix(X), 32) > 0
    np.testing.assert_allclose(result.singular_values, truth[:3], rtol=1e-5)


def test_partials_of_float32_products_merge_in_any_order():
    X = layer("Gaussian", 40000, 96, np.random.default_rng(7))
    matrix = as_matrix(X)
    statistic = ShiftedMoments(X[:100].mean(axis=0).astype(np.float64), single=True)
    starts = range(0, len(X), 2048)
    results = []
    for order in (list(starts), list(starts)[::-1], list(np.random.default_rng(0).permutation(starts))):
        parts = [statistic.chunk_of([matrix], int(at), min(int(at) + 2048, len(X))) for at in order]
        total = parts[0]
        for part in parts[1:]:
            total = statistic.combine(total, part)
        results.append(finalize_moments(total, statistic.shift, [96], single=True).scatter)
    for other in results[1:]:
        assert np.abs(other - results[0]).max() <= 1e-12 * np.abs(results[0]).max()


def test_diagonals_of_float32_products_are_float64():
    X = layer("rectified", 20000, 100, np.random.default_rng(8))
    single = cross_moments([as_matrix(X)], single=True)
    exact = cross_moments([as_matrix(X)])
    np.testing.assert_allclose(np.diag(single.scatter), np.diag(exact.scatter), rtol=1e-12)
    np.testing.assert_allclose(single.mean, exact.mean, rtol=1e-12)
    np.testing.assert_array_equal(single.scatter, single.scatter.T)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("method", ["covariance", "krylov"])
@pytest.mark.parametrize("tol", [None, 1e-9])
def test_values_whose_squares_leave_float32(scale, method, tol):
    X = np.random.default_rng(9).standard_normal((30000, 100)) * 0.7 ** np.arange(100)
    X = X.astype(np.float32)
    truth = singular_values(X)[:4] * scale
    result = qf.pca(X * np.float32(scale), 4, method=method, random_state=0, tol=tol)
    np.testing.assert_allclose(result.singular_values, truth, rtol=2e-7)
    assert np.all(result.error_bound <= 1e-6)


def test_the_first_value_that_is_not_finite_is_named():
    X = np.random.default_rng(10).standard_normal((30000, 128)).astype(np.float32)
    X[700, 5], X[680, 127] = np.nan, np.inf
    for method in ("covariance", "krylov"):
        with pytest.raises(ValueError, match="X: inf at row 680, column 127"):
            qf.pca(X, 3, method=method, random_state=0)


BITS = """
import numpy as np
import qixai_fast as qf
X = np.random.default_rng(0).normal(3, 1, size=(30000, 128)).astype(np.float32)
for n_jobs in (1, 2, 4):
    for method in ("covariance", "krylov"):
        result = qf.pca(X, 7, method=method, random_state=0, n_jobs=n_jobs)
        print(method, hash(result.components.tobytes() + result.singular_values.tobytes()))
"""


def test_any_number_of_threads_gives_the_same_bits():
    outputs = set()
    for threads in ("1", "4"):
        environment = {**os.environ, "NUMBA_NUM_THREADS": threads, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            [sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True
        )
        outputs.update(done.stdout.splitlines())
    assert len(outputs) == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 64])
def test_copies_and_their_sums(dtype, rows):
    rng = np.random.default_rng(rows)
    X = rng.normal(5, 1, (rows, 19)).astype(dtype)
    shift = rng.normal(5, 0.1, 19)
    expected = X.astype(np.float64) - shift
    plain, turned = np.zeros((rows, 30)), np.zeros((rows, 30), np.float32)
    for copy, out in ((copy_shifted, (plain,)), (copy_rotated, (turned,))):
        total, squares = np.zeros(19), np.zeros(19)
        key = (7,) if copy is copy_rotated else ()
        copy(X, shift, *key, *out, 4, total, squares)
        np.testing.assert_allclose(total, expected.sum(axis=0), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(squares, (expected**2).sum(axis=0), rtol=1e-13)
        assert not out[0][:, :4].any()
        assert not out[0][:, 23:].any()
    np.testing.assert_array_equal(plain[:, 4:23], expected)
    inner = turned[:, 4:23].astype(np.float64)
    np.testing.assert_allclose(inner.T @ inner, expected.T @ expected, atol=3e-6 * rows)
    if rows > 1:
        assert np.abs(inner[:2] - expected[:2]).max() > 1e-3


def test_upper_triangles_are_added_and_mirrored():
    rng = np.random.default_rng(11)
    part, whole = rng.random((70, 70)).astype(np.float32), rng.random((70, 70))
    expected = np.triu(whole + part)
    add_upper(part, whole)
    np.testing.assert_array_equal(np.triu(whole), expected)
    for width in (1, 70, 256, 600):
        square = rng.random((width, width))
        upper = np.triu(square)
        _blas.mirror_upper(square)
        np.testing.assert_array_equal(square, upper + np.triu(upper, 1).T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("published", [True, False])
def test_half_products_by_address_and_by_wrapper(dtype, published, monkeypatch):
    if not published:
        monkeypatch.setattr(_blas, "_published", lambda letter: None)
    _blas._syrk.cache_clear()
    rng = np.random.default_rng(12)
    rows = rng.standard_normal((50, 13)).astype(dtype)
    exact = rows.T.astype(np.float64) @ rows
    products = np.full((13, 13), np.nan, dtype)
    _blas.add_products(rows, products, keep=False)
    np.testing.assert_allclose(np.triu(products), np.triu(exact), rtol=1e-4, atol=1e-5)
    assert np.isnan(products[np.tril_indices(13, -1)]).all()
    _blas.add_products(rows, products, keep=True)
    np.testing.assert_allclose(np.triu(products), 2 * np.triu(exact), rtol=1e-4, atol=1e-5)
    for bad in (rows.T, rows[:, ::2]):
        with pytest.raises(ValueError, match="C order"):
            _blas.add_products(bad, products, keep=False)
    with pytest.raises(ValueError, match="wanted shape"):
        _blas.add_products(rows[:, :5].copy(), products, keep=False)
    _blas._syrk.cache_clear()


def test_parts_of_moments_are_whole_leaves():
    matrix = as_matrix(np.zeros((70001, 300), np.float32))
    bounds = moment_bounds([matrix])
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 70001
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(bounds))
    assert len({stop - start for start, stop in bounds[:-1]}) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["covariance", "krylov"])
@pytest.mark.parametrize("scale", [1e-18, 1e-15, 1e15, 2e17, 1e18, 3e18, 1e19, 1e21])
def test_scales_at_the_ends_of_float32(scale, method):
    """No warning on the way, and the same spectrum."""
    X = layer("Gaussian", 3000, 129, np.random.default_rng(13)) * np.float32(scale)
    result = qf.pca(X, 5, method=method, random_state=0, tol=1e-7)
    truth = np.linalg.svd(X.astype(float) - X.astype(float).mean(axis=0), compute_uv=False)[:5]
    error = np.abs(result.singular_values - truth) / truth
    assert np.all(error <= result.error_bound + 1e-14)
    assert result.error_bound.max() < 1e-6
