"""Binned mutual information: values, invariances, kinds of input."""

import numpy as np
import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qixai_fast import mutual_info_binned, pairwise_mutual_info_binned
from qixai_fast._validate import as_matrix
from qixai_fast.bins import Bins, encode, quantile_bins, uniform_bins

STRATEGIES = ("uniform", "quantile")
CORRECTIONS = (None, "miller-madow", "panzeri-treves", "grassberger")


def relu_like(n, d, seed=0):
    """Correlated columns with atoms at zero, a constant one, and few-valued ones."""
    rng = np.random.default_rng(seed)
    X = np.maximum(rng.standard_normal((n, d)) + rng.standard_normal((n, 1)), 0.0)
    X[:, 1] = 3.0
    X[:, 2] = rng.integers(0, 3, n)
    return X


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("bias_correction", CORRECTIONS)
@pytest.mark.parametrize(("n", "n_bins"), [(1, 4), (2, 2), (37, 5), (500, 16), (300, 300)])
def test_agrees_with_the_reference(strategy, bias_correction, n, n_bins):
    X = relu_like(n, 4, seed=n)
    options = {"n_bins": n_bins, "strategy": strategy, "bias_correction": bias_correction}
    values = pairwise_mutual_info_binned(X, **options)
    for i in range(4):
        for j in range(4):
            expected = reference.mutual_info_binned(X[:, i], X[:, j], **options)
            assert values[i, j] == pytest.approx(expected, abs=1e-12)
            assert mutual_info_binned(X[:, i], X[:, j], **options) == pytest.approx(values[i, j], abs=1e-12)
    assert np.array_equal(values, values.T)
    assert np.all(values[1] == 0.0)


def codes_of(X, n_bins, strategy):
    matrix = as_matrix(X)
    if strategy == "uniform":
        bins = uniform_bins(matrix, n_bins, rows=7, n_jobs=1)
    else:
        bins = quantile_bins(matrix, n_bins, columns=2, rows=7, n_jobs=1)
    return encode(matrix, bins, rows=11, n_jobs=1)


def test_rows_need_not_be_contiguous():
    X = np.random.default_rng(0).standard_normal((100, 64))[:, ::2]
    matrix = as_matrix(X)
    bins = uniform_bins(matrix, 16, rows=7, n_jobs=1)
    codes = np.empty((32, 100), np.uint8)
    bins.encode(X, codes)
    assert np.array_equal(codes, encode(matrix, bins, rows=11, n_jobs=1))


finite = st.floats(-1e300, 1e300, allow_subnormal=True)
lattice = st.integers(-4, 4).map(float)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(finite, lattice), min_size=1, max_size=40)
    | st.lists(lattice, min_size=1, max_size=40)
    | st.lists(st.floats(1.0, 1.0 + 1e-14), min_size=1, max_size=40),
    n_bins=st.integers(2, 20),
    strategy=st.sampled_from(STRATEGIES),
)
def test_codes_are_those_of_numpy_digitize(values, n_bins, strategy):
    # A constant neighbour: numpy.linspace rounds other columns differently beside one.
    X = np.column_stack([values, np.full(len(values), 2.5)])
    codes = codes_of(X, n_bins, strategy)
    assert codes.dtype == np.uint8
    for column, code in zip(X.T, codes, strict=True):
        assert np.array_equal(code, reference.bin_codes(column, n_bins, strategy))


def test_values_on_an_edge_belong_to_the_right_bin():
    edges = np.linspace(-1.0, 2.0, 31)
    values = np.concatenate([edges, np.nextafter(edges, -9), np.nextafter(edges, 9)])
    values = np.clip(values, -1.0, 2.0)[:, None]
    assert np.array_equal(codes_of(values, 30, "uniform")[0], reference.bin_codes(values[:, 0], 30))
    # Edges that are searched, and not computed, say the same.
    searched = Bins(edges[None], np.zeros(1))
    assert np.array_equal(
        encode(as_matrix(values), searched, rows=9, n_jobs=1)[0], codes_of(values, 30, "uniform")[0]
    )


def test_more_than_256_bins_take_two_bytes():
    x = np.arange(1000.0)
    assert codes_of(x[:, None], 300, "uniform").dtype == np.uint16
    assert mutual_info_binned(x, x, n_bins=1000) == pytest.approx(np.log(1000), abs=1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_bivariate_gaussian(strategy, rho):
    rng = np.random.default_rng(3)
    x = rng.standard_normal(400_000)
    y = rho * x + np.sqrt(1 - rho**2) * rng.standard_normal(400_000)
    value = mutual_info_binned(x, y, n_bins=48, strategy=strategy, bias_correction="miller-madow")
    # Bins lose a little information; sampling moves the value by about 1e-3.
    assert value == pytest.approx(-0.5 * np.log(1 - rho**2), rel=0.02, abs=0.001)


def test_the_diagonal_is_the_entropy():
    X = np.repeat(np.arange(8.0), 5)[:, None]
    assert pairwise_mutual_info_binned(X, n_bins=8)[0, 0] == pytest.approx(np.log(8), abs=1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_order_scale_and_shift_do_not_matter(strategy):
    X = relu_like(400, 6)
    values = pairwise_mutual_info_binned(X, n_bins=9, strategy=strategy)
    order = np.random.default_rng(0).permutation(400)
    assert np.array_equal(pairwise_mutual_info_binned(X[order], n_bins=9, strategy=strategy), values)
    # Powers of two and whole numbers keep every float64 operation exact.
    scaled = np.round(X * 64) * 8 + 1024
    plain = pairwise_mutual_info_binned(np.round(X * 64) / 64, n_bins=9, strategy=strategy)
    assert np.array_equal(pairwise_mutual_info_binned(scaled, n_bins=9, strategy=strategy), plain)
    # Mirrored, a bin holds its other edge, which no value of a continuous column touches.
    continuous = np.random.default_rng(2).standard_normal((200, 2))
    mirrored = pairwise_mutual_info_binned(continuous * [1.0, -1.0], n_bins=9, strategy=strategy)
    expected = pairwise_mutual_info_binned(continuous, n_bins=9, strategy=strategy)
    np.testing.assert_allclose(mirrored, expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=60), st.integers(2, 7)
)
def test_quantile_bins_see_only_the_order(points, n_bins):
    x, y = np.array(points, dtype=np.float64).T
    # numpy.quantile may miss a sample by a rounding: then the edge lies on it, or beside it, by its size.
    position = np.linspace(0, 1, n_bins + 1) * (len(x) - 1)
    assume(np.all((position == np.round(position)) | (abs(position - np.round(position)) > 1e-9)))
    options = {"n_bins": n_bins, "strategy": "quantile"}
    value = mutual_info_binned(x, y, **options)
    assert mutual_info_binned(x**3, np.exp(y), **options) == pytest.approx(value, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(finite, lattice), min_size=1, max_size=50),
    st.integers(2, 8),
    st.sampled_from(STRATEGIES),
)
def test_bounds_and_symmetry(points, n_bins, strategy):
    x, y = np.array(points).T
    options = {"n_bins": n_bins, "strategy": strategy}
    value = mutual_info_binned(x, y, **options)
    entropies = [mutual_info_binned(v, v, **options) for v in (x, y)]
    assert -1e-12 <= value <= min(entropies) + 1e-12
    assert mutual_info_binned(y, x, **options) == pytest.approx(value, abs=1e-12)


def test_two_sides_and_chosen_pairs():
    X, Y = relu_like(300, 5), relu_like(300, 7, seed=1)
    values = pairwise_mutual_info_binned(X, Y)
    assert values.shape == (5, 7)
    both = pairwise_mutual_info_binned(np.hstack([X, Y]))
    np.testing.assert_allclose(values, both[:5, 5:], atol=1e-12)
    pairs = [(4, 6), (0, 0), (4, 1), (4, 2), (4, 3), (4, 6), (3, 0)]
    chosen = pairwise_mutual_info_binned(X, Y, pairs=pairs)
    assert np.array_equal(chosen, [values[i, j] for i, j in pairs])
    own = pairwise_mutual_info_binned(X, pairs=[(3, 0), (2, 2)])
    np.testing.assert_allclose(own, [both[3, 0], both[2, 2]], atol=1e-12)


@pytest.mark.parametrize("normalize", ["sqrt", "min", "max", "arithmetic", "joint"])
def test_normalised_by_its_definition(normalize):
    X = relu_like(300, 4)
    plain = pairwise_mutual_info_binned(X, n_bins=6)
    h = np.diag(plain)
    a, b = h[:, None], h[None, :]
    denominator = {
        "sqrt": np.sqrt(a * b),
        "min": np.minimum(a, b),
        "max": np.maximum(a, b),
        "arithmetic": (a + b) / 2,
        "joint": a + b - plain,
    }[normalize]
    expected = np.divide(plain, denominator, out=np.zeros((4, 4)), where=denominator > 0)
    values = pairwise_mutual_info_binned(X, n_bins=6, normalize=normalize)
    np.testing.assert_allclose(values, expected, atol=1e-12)
    for bias_correction in (*CORRECTIONS, "permutation-mean"):
        corrected = pairwise_mutual_info_binned(
            X, n_bins=6, normalize=normalize, bias_correction=bias_correction
        )
        assert np.diag(corrected)[[0, 2, 3]] == pytest.approx(1.0, abs=1e-12)
        assert corrected[1, 1] == 0.0


def test_kinds_of_input(tmp_path):
    X = relu_like(200, 4).astype(np.float16)
    expected = pairwise_mutual_info_binned(X.astype(np.float64))
    wide = np.zeros((200, 8), dtype=np.float16)
    wide[:, ::2] = X
    np.save(tmp_path / "x.npy", X)
    for same in (
        X,
        wide[:, ::2],
        np.asfortranarray(X),
        X.tolist(),
        np.load(tmp_path / "x.npy", mmap_mode="r"),
    ):
        values = pairwise_mutual_info_binned(same)
        assert values.dtype == np.float64
        assert np.array_equal(values, expected)
    counts = np.random.default_rng(0).integers(0, 9, (50, 3), dtype=np.uint8)
    assert np.array_equal(
        pairwise_mutual_info_binned(counts), pairwise_mutual_info_binned(counts.astype(np.float64))
    )
    assert isinstance(mutual_info_binned(X[:, 0], X[:, [2]]), float)


def test_torch_comes_back_as_torch():
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(relu_like(100, 3)).to(torch.bfloat16)
    values = pairwise_mutual_info_binned(X)
    assert values.dtype == torch.float64
    assert np.array_equal(values.numpy(), pairwise_mutual_info_binned(X.to(torch.float64).numpy()))
    assert isinstance(mutual_info_binned(X[:, 0], X[:, 2]), float)


@pytest.mark.parametrize("n_jobs", [1, 2, 4])
@pytest.mark.parametrize("bias_correction", [*CORRECTIONS, "permutation-mean"])
def test_threads_do_not_change_a_bit(n_jobs, bias_correction):
    X = relu_like(9000, 20)
    options = {"n_bins": 64, "bias_correction": bias_correction}
    pairs = np.random.default_rng(0).integers(0, 20, (60, 2))
    one = pairwise_mutual_info_binned(X, n_jobs=1, pairs=pairs, **options)
    assert np.array_equal(pairwise_mutual_info_binned(X, n_jobs=n_jobs, pairs=pairs, **options), one)


X3 = np.zeros((4, 3))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((np.zeros(3),), {}, ValueError, r"X: wanted shape \(n_samples, n_features\), got \(3,\)"),
        ((np.zeros((0, 2)),), {}, ValueError, r"X: wanted at least 1 sample"),
        ((np.zeros((2, 0)),), {}, ValueError, r"X: wanted at least 1 feature"),
        ((X3, np.zeros((5, 3))), {}, ValueError, "X and Y: .* got 4 and 5"),
        ((X3 * 1j,), {}, TypeError, "X: dtype complex128"),
        ((X3,), {"n_bins": 1}, ValueError, "n_bins: wanted 2 to 4096, got 1"),
        ((X3,), {"n_bins": 2.5}, TypeError, "n_bins: wanted an integer"),
        (
            (X3,),
            {"strategy": "kmeans"},
            ValueError,
            "strategy: wanted one of 'uniform', 'quantile', got 'kmeans'",
        ),
        ((X3,), {"bias_correction": "best"}, ValueError, "bias_correction: .* got 'best'"),
        ((X3,), {"normalize": "mean"}, ValueError, "normalize: .* got 'mean'"),
        (
            (X3,),
            {"pairs": [(0, 3)]},
            ValueError,
            "pairs: row 0 asks for column 3 of X, which has columns 0 to 2",
        ),
        ((X3, X3), {"pairs": [(0, 0), (0, -1)]}, ValueError, "pairs: row 1 asks for column -1 of Y"),
        ((X3,), {"pairs": [0, 1]}, ValueError, r"pairs: wanted shape \(n_pairs, 2\)"),
        ((X3,), {"pairs": np.zeros((0, 2), int)}, ValueError, "at least one pair"),
        ((X3,), {"pairs": [(0.0, 1.0)]}, TypeError, "pairs: wanted integer column numbers"),
        ((X3,), {"device": "cuda"}, ValueError, "device: 'cuda' cannot be used"),
        ((X3,), {"n_jobs": 0}, ValueError, "n_jobs"),
        ((np.array([[-1e308], [1e308]]),), {}, ValueError, "column 0 spans -1e.308 to 1e.308, too wide"),
    ],
)
def test_bad_input_is_named(arguments, options, error, words):
    with pytest.raises(error, match=words):
        pairwise_mutual_info_binned(*arguments, **options)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_bad_value_is_named(strategy, bad):
    X = relu_like(100, 5)
    X[41, 3] = bad
    with pytest.raises(ValueError, match=f"X: {bad} at row 41, column 3"):
        pairwise_mutual_info_binned(X, strategy=strategy)


def test_one_variable_is_checked():
    with pytest.raises(ValueError, match=r"x: wanted shape \(n_samples,\), got \(3, 2\)"):
        mutual_info_binned(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(ValueError, match=r"x and y: .* got 3 and 4"):
        mutual_info_binned(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="y: wanted at least 1 sample"):
        mutual_info_binned(np.zeros(3), [])
