"""RSA: the definition, ties, drawn pairs, samples without a direction."""

import numpy as np
import pytest
import reference

import qixai_fast as qf

METRICS = ("correlation", "cosine", "euclidean", "sqeuclidean")
METHODS = ("spearman", "pearson")


def related(n, d_x, d_y, seed=0):
    """Two layers that share a few directions."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d_x))
    Y = X @ rng.standard_normal((d_x, d_y)) / np.sqrt(d_x) + 2 * rng.standard_normal((n, d_y))
    return X, Y


def rotation(d, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "d_x", "d_y"), [(12, 5, 3), (5, 9, 2), (4, 2, 2)])
def test_rsa_agrees_with_the_definition(metric, method, n, d_x, d_y):
    X, Y = related(n, d_x, d_y, seed=4)
    if metric == "correlation" and d_y == 2:
        Y = np.column_stack([Y, Y[:, 0] ** 2])
        X = np.column_stack([X, X[:, 0] ** 2])
    expected = reference.rsa(X, Y, metric, method)
    assert qf.rsa(X, Y, metric=metric, method=method) == pytest.approx(expected, abs=1e-9)
    assert qf.rsa(X, 5 * X, metric=metric, method=method) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metric", METRICS)
def test_rsa_of_many_tiles(metric, method):
    from scipy.spatial.distance import pdist
    from scipy.stats import pearsonr, spearmanr

    X, Y = related(1100, 4, 3)
    compare = spearmanr if method == "spearman" else pearsonr
    expected = compare(pdist(X, metric), pdist(Y, metric))[0]
    assert qf.rsa(X, Y, metric=metric, method=method) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_rsa_of_turned_layers_far_from_zero(metric):
    X, Y = related(300, 6, 5)
    base = qf.rsa(X, Y, metric=metric, method="pearson")
    turned = -2 * X @ rotation(6) + 1e6
    assert qf.rsa(turned, Y, metric=metric, method="pearson") == pytest.approx(base, abs=1e-9)
    for method in METHODS:
        assert qf.rsa(X, turned, metric=metric, method=method) == pytest.approx(1, abs=1e-6)
        assert qf.rsa(X * 1e200, Y / 1e200, metric=metric, method=method) == pytest.approx(
            qf.rsa(X, Y, metric=metric, method=method), abs=1e-7
        )


def test_equal_distances_share_their_rank():
    """Corners of a square: four sides and two diagonals."""
    square = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    angle = 0.3
    turned = square @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]] + 100
    assert qf.rsa(square, turned, metric="euclidean") == pytest.approx(1, abs=1e-12)
    line = np.array([[0.0], [1], [2], [3]])
    expected = reference.rsa(square, line, "euclidean", "spearman")
    assert qf.rsa(turned, line, metric="euclidean") == pytest.approx(expected, abs=1e-12)
    copies = np.repeat(related(6, 7, 7)[0], 3, axis=0)
    assert qf.rsa(copies, copies[:, ::-1]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_rsa_of_drawn_pairs(method):
    X, Y = related(400, 6, 5)
    options = {"metric": "euclidean", "method": method}
    exact = qf.rsa(X, Y, **options)
    drawn = [qf.rsa(X, Y, n_pairs=5000, random_state=seed, **options) for seed in range(20)]
    assert np.std(drawn) > 0
    assert np.mean(drawn) == pytest.approx(exact, abs=4 * np.std(drawn) / np.sqrt(20))
    assert np.std(drawn) < 2 / np.sqrt(5000)
    assert qf.rsa(X, Y, n_pairs=5000, random_state=3, **options) == drawn[3]
    assert qf.rsa(X, Y, n_pairs=10**6, **options) == exact


@pytest.mark.parametrize("n_pairs", [None, 100])
def test_samples_without_a_direction_are_counted(n_pairs):
    X, Y = related(40, 5, 4)
    X[[3, 30]] = 2.5
    options = {"n_pairs": n_pairs, "random_state": 0}
    with pytest.warns(UserWarning, match=r"X has 2 constant sample\(s\), the first at row 3") as caught:
        assert -1 < qf.rsa(X, Y, **options) < 1
    assert len(caught) == 1
    assert caught[0].filename == __file__
    Y[7] = 0
    with pytest.warns(UserWarning, match=r"Y has 1 zero sample\(s\), the first at row 7"):
        qf.rsa(X, Y, metric="cosine", **options)


@pytest.mark.parametrize("method", METHODS)
def test_layers_whose_distances_are_all_equal(method):
    with pytest.warns(UserWarning, match="X: all distances are equal; the correlation is set to 0"):
        assert qf.rsa(np.eye(7), related(7, 3, 3)[0], metric="euclidean", method=method) == 0
    with pytest.warns(UserWarning, match="Y: all distances are equal"):
        assert qf.rsa(related(7, 3, 3)[0], np.ones((7, 2)), metric="sqeuclidean", method=method) == 0


def test_too_many_pairs_to_rank():
    wide = np.broadcast_to(np.float32(1), (100_000, 2))
    with pytest.raises(ValueError, match="4999950000 pairs of samples are too many to rank"):
        qf.rsa(wide, wide)
