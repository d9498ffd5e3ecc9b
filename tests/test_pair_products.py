"""Products in tiles: of pairs of columns, and of rows with weights; and the way without wide registers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qixai_fast.kernels.products_cpu import add_panels, pack

import qixai_fast as qf
from qixai_fast import affine, pair_products
from qixai_fast._validate import as_matrix
from qixai_fast.pair_products import PairProducts, has_wide_registers, scratch_bytes
from qixai_fast.shifted_rows import aligned_zeros
from qixai_fast.statistics import cross_moments

DTYPES = [np.float32, np.float64]


def layer(rng, n, d):
    return (rng.standard_normal((n, 20)) @ rng.standard_normal((20, d)) + rng.standard_normal((n, d))).astype(
        np.float32
    )


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(m=st.integers(1, 40), d=st.integers(1, 140), spare=st.integers(0, 3), seed=st.integers(0, 2**32 - 1))
def test_tiles_of_any_shape(dtype, m, d, spare, seed):
    """Small integers, whose products are exact: what is there is added to, and nothing is read beyond."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-9, 10, (m, d)).astype(dtype)
    width = 128 // rows.itemsize
    panels = np.full((-(-d // width), m + spare, width), np.nan, dtype)
    pack(rows, panels)
    products = rng.integers(-9, 10, (d, d)).astype(float)
    expected = np.triu(products + rows.T.astype(float) @ rows)
    add_panels(panels, m, products)
    np.testing.assert_array_equal(np.triu(products), expected)
    assert np.isnan(panels[:, m:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_keep_the_precision_of_the_rows(dtype):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((512, 100)).astype(dtype)
    width = 128 // rows.itemsize
    panels = np.zeros((-(-100 // width), 512, width), dtype)
    products = np.zeros((100, 100))
    pack(rows, panels)
    add_panels(panels, 512, products)
    error = np.abs(np.triu(products - rows.T.astype(np.longdouble) @ rows)).max()
    unit = np.finfo(dtype).eps / 2
    assert unit < error < 512**1.5 * unit


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_column(dtype, bad):
    rows = np.ones((5, 70), dtype)
    rows[3, 66] = bad
    panels, products = np.zeros((5, 5, 128 // rows.itemsize), dtype), np.zeros((70, 70))
    pack(rows, panels)
    add_panels(panels, 5, products)
    finite = np.isfinite(np.triu(products))
    assert not finite[:67, 66].any()
    assert np.delete(np.delete(finite, 66, 0), 66, 1).all()


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_both_ways_give_the_products(wide, dtype, monkeypatch):
    monkeypatch.setattr(pair_products, "has_wide_registers", lambda: wide)
    rng = np.random.default_rng(1)
    pairs, products = PairProducts(64, 77, np.dtype(dtype)), aligned_zeros((77, 77), float)
    expected = np.zeros((77, 77))
    for m in (64, 1, 30):
        rows = rng.integers(-9, 10, (m, 77)).astype(dtype)
        pairs.add(rows, products)
        expected += rows.T.astype(float) @ rows
    np.testing.assert_array_equal(np.triu(products), np.triu(expected))
    held = getattr(pairs, "_scratch", np.zeros(0))
    assert held.nbytes <= scratch_bytes(64, 77)


@pytest.mark.parametrize("single", [True, False])
def test_moments_are_the_same_either_way(single, monkeypatch):
    X = layer(np.random.default_rng(2), 5000, 130) + np.float32(100)
    found = {}
    for wide in (True, False):
        monkeypatch.setattr(pair_products, "has_wide_registers", lambda wide=wide: wide)
        found[wide] = cross_moments([as_matrix(X[:, :37]), as_matrix(X[:, 37:])], single=single)
    exact = X.astype(float) - X.astype(float).mean(axis=0)
    exact = exact.T @ exact
    unit = 2.0**-24 if single else 2.0**-53
    for moments in found.values():
        assert moments.single == single
        assert np.abs(moments.scatter - exact).max() < 100 * unit * exact.max()
        np.testing.assert_array_equal(moments.scatter, moments.scatter.T)


@pytest.mark.parametrize("wide", [True, False])
def test_bounds_hold_either_way(wide, monkeypatch):
    monkeypatch.setattr(pair_products, "has_wide_registers", lambda: wide)
    X = layer(np.random.default_rng(3), 6000, 128)
    result = qf.pca(X, 10)
    exact = X.astype(float) - X.astype(float).mean(axis=0)
    truth = np.linalg.svd(exact, compute_uv=False)[:10]
    error = np.abs(result.singular_values - truth) / truth
    assert 1e-12 < error.max() < 1e-6
    assert np.all(error <= result.error_bound)


@pytest.mark.filterwarnings("error")
def test_float32_that_overflows_is_read_again():
    X = layer(np.random.default_rng(4), 2000, 100) * np.float32(1e19)
    moments = cross_moments([as_matrix(X)], single=True)
    assert not moments.single
    assert np.isfinite(moments.scatter).all()


def test_without_features_of_the_processor_blas_does_the_work(monkeypatch):
    """Where numba does not tell what it compiles for, or is told to compile for less."""
    from numba.core.registry import cpu_target

    class Codegen:
        def __init__(self, features):
            self.features = features

        def magic_tuple(self):
            return "triple", "name", self.features

    for codegen, expected in (
        (object(), False),
        (Codegen("+avx2,-avx512f"), False),
        (Codegen("+avx512f"), True),
    ):
        monkeypatch.setattr(cpu_target.target_context, "codegen", lambda codegen=codegen: codegen)
        has_wide_registers.cache_clear()
        assert has_wide_registers() is expected
    has_wide_registers.cache_clear()


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 30),
    d=st.integers(1, 70),
    k=st.integers(1, 60),
    dtype=st.sampled_from(DTYPES),
    wide=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_mapped(m, d, k, dtype, wide, seed):
    """Small integers, whose products are exact."""
    rng = np.random.default_rng(seed)
    rows, weights = rng.integers(-9, 10, (m, d)).astype(dtype), rng.integers(-9, 10, (d, k)).astype(float)
    before = rng.integers(-9, 10, d).astype(float)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(affine, "has_wide_registers", lambda: wide)
        shifted, plain = affine.RowMap(weights, before), affine.RowMap(weights)
    X = as_matrix(rows)
    first = m // 3
    np.testing.assert_array_equal(shifted.apply(X, first, m), (rows[first:] - before) @ weights)
    np.testing.assert_array_equal(plain.apply(X, 0, m), rows @ weights)


def test_mapped_rows_do_not_depend_on_their_block():
    rng = np.random.default_rng(5)
    X, weights = rng.standard_normal((100, 37)).astype(np.float32), rng.standard_normal((37, 20))
    row_map = affine.RowMap(weights, rng.standard_normal(37))
    whole = row_map.apply(as_matrix(X), 0, 100)
    if has_wide_registers():
        np.testing.assert_array_equal(row_map.apply(as_matrix(X), 33, 70), whole[33:70])
    np.testing.assert_allclose(row_map.apply(as_matrix(X), 33, 70), whole[33:70], atol=1e-13)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(wide, bad, monkeypatch):
    monkeypatch.setattr(affine, "has_wide_registers", lambda: wide)
    X = np.ones((50, 9), np.float16)
    X[41, 3] = bad
    weights = np.zeros((9, 2))
    with pytest.raises(ValueError, match="row 41, column 3"):
        affine.RowMap(weights).apply(as_matrix(X), 8, 50)
    with pytest.raises(ValueError, match="row 41, column 3"):
        qf.pca(np.arange(90.0).reshape(10, 9) ** 2, 2).transform(X)
