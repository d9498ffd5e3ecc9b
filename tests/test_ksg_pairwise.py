"""KSG of many pairs: the same as pair by pair, for any threads and any budget."""

import tracemalloc

import numpy as np
import pytest

import qixai_fast as qf


def layer(n=300, d=6, seed=0):
    """Plain, rectified, half precision, quantised and constant columns that depend on each other."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) + rng.standard_normal((n, 1))
    X[:, 1] = np.maximum(X[:, 1], 0)
    X[:, 2] = X[:, 2].astype(np.float16)
    X[:, 3] = np.round(X[:, 3] * 8) / 8
    X[:, 4] = 1.5
    return X


@pytest.mark.parametrize(
    "options", [{}, {"algorithm": 2, "n_neighbors": 5}, {"scale": None, "atoms": "none"}]
)
def test_entries_equal_the_two_column_call(options):
    X, Y = layer(), layer(seed=1)[:, :4]
    both = qf.pairwise_mutual_info_ksg(X, Y, random_state=3, **options)
    own = qf.pairwise_mutual_info_ksg(X, random_state=3, **options)
    assert both.shape == (6, 4)
    assert own.shape == (6, 6)
    assert both.dtype == own.dtype == np.float64
    for i in range(6):
        for j in range(6):
            assert own[i, j] == qf.mutual_info_ksg(X[:, i], X[:, j], random_state=3, **options)
            if j < 4:
                assert both[i, j] == qf.mutual_info_ksg(X[:, i], Y[:, j], random_state=3, **options)
    np.testing.assert_array_equal(own, own.T)
    np.testing.assert_array_equal(own[4], 0)


def test_chosen_pairs():
    X, Y = layer(), layer(seed=1)
    pairs = np.array([(5, 0), (0, 0), (2, 3), (2, 3), (3, 2)])
    rows, columns = pairs.T
    for other in (None, Y):
        full = qf.pairwise_mutual_info_ksg(X, other)
        np.testing.assert_array_equal(qf.pairwise_mutual_info_ksg(X, other, pairs=pairs), full[rows, columns])


def test_threads_and_budgets_give_the_same_bits():
    n, d = 2000, 70
    X = layer(n, d)
    pairs = np.stack([np.arange(d), (7 * np.arange(d)) % d], axis=1)
    full = qf.pairwise_mutual_info_ksg(X[:, :12], n_jobs=1)
    cross = qf.pairwise_mutual_info_ksg(X[:, :5], X[:, 5:16], n_jobs=1)
    some = qf.pairwise_mutual_info_ksg(X, pairs=pairs, n_jobs=1)
    with pytest.raises(qf.MemoryBudgetError) as caught:
        qf.pairwise_mutual_info_ksg(X, max_memory=n)
    least = caught.value.required
    for n_jobs in (2, 4):
        np.testing.assert_array_equal(qf.pairwise_mutual_info_ksg(X[:, :12], n_jobs=n_jobs), full)
    for budget in (least, least + 8 * 28 * n):
        for n_jobs in (1, 2):
            limits = {"max_memory": budget, "n_jobs": n_jobs}
            np.testing.assert_array_equal(qf.pairwise_mutual_info_ksg(X[:, :12], **limits), full)
            np.testing.assert_array_equal(qf.pairwise_mutual_info_ksg(X[:, :5], X[:, 5:16], **limits), cross)
        np.testing.assert_array_equal(qf.pairwise_mutual_info_ksg(X, pairs=pairs, max_memory=budget), some)


def test_budget_is_kept(tmp_path):
    n, d = 30_000, 24
    path = tmp_path / "X.npy"
    np.save(path, layer(n, d).astype(np.float32))
    X = np.load(path, mmap_mode="r")
    pairs = [(i, i + 12) for i in range(0, 12, 4)]
    expected = qf.pairwise_mutual_info_ksg(X, pairs=pairs)
    for budget, n_jobs in ((25_000_000, 1), (25_000_000, 2)):
        tracemalloc.start()
        values = qf.pairwise_mutual_info_ksg(X, pairs=pairs, max_memory=budget, n_jobs=n_jobs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(values, expected)
        assert peak < budget


def test_results_live_where_x_did():
    torch = pytest.importorskip("torch")
    X = layer(100)
    values = qf.pairwise_mutual_info_ksg(torch.tensor(X), X)
    assert values.dtype == torch.float64
    np.testing.assert_array_equal(values.numpy(), qf.pairwise_mutual_info_ksg(np.asfortranarray(X), X))


def test_bad_input():
    X = layer(50)
    bad = X.copy()
    bad[30, 2] = np.nan
    with pytest.raises(ValueError, match="X: nan at row 30, column 2"):
        qf.pairwise_mutual_info_ksg(bad)
    with pytest.raises(ValueError, match="Y: nan at row 30, column 2"):
        qf.pairwise_mutual_info_ksg(X, bad)
    with pytest.raises(ValueError, match="X: wanted shape"):
        qf.pairwise_mutual_info_ksg(X[:, 0])
    with pytest.raises(ValueError, match=r"X and Y: .* got 50 and 49"):
        qf.pairwise_mutual_info_ksg(X, X[1:])
    with pytest.raises(ValueError, match="n_neighbors: wanted 1 to 49"):
        qf.pairwise_mutual_info_ksg(X, n_neighbors=50)
    with pytest.raises(ValueError, match="pairs: row 1 asks for column 6 of X"):
        qf.pairwise_mutual_info_ksg(X, pairs=[(0, 1), (2, 6)])
    with pytest.raises(TypeError, match="pairs: wanted integer"):
        qf.pairwise_mutual_info_ksg(X, pairs=[(0.5, 1)])
