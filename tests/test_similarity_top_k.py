"""The k most similar vectors: those of the full matrix, ties, and vectors themselves left out."""

import numpy as np
import pytest
import reference

import qixai_fast as qf

TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_top_k_is_the_top_of_the_full_matrix(dtype, k):
    rng = np.random.default_rng(9)
    X, Y = rng.standard_normal((1030, 8)).astype(dtype), rng.standard_normal((2060, 8)).astype(dtype)
    similarities, indices = qf.cosine_top_k(X, Y, k=k)
    full = qf.cosine_similarity(X, Y)
    assert similarities.dtype == dtype
    assert indices.dtype == np.int64
    np.testing.assert_allclose(similarities, -np.sort(-full, axis=1)[:, :k], atol=TOLERANCE[dtype] * 2)
    np.testing.assert_allclose(
        np.take_along_axis(full, indices, axis=1), similarities, atol=TOLERANCE[dtype] * 2
    )
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["rising", "falling", "shuffled"])
@pytest.mark.parametrize("n", [63, 64, 65, 200, 1100])
def test_top_k_wherever_the_best_stand(dtype, order, n):
    """Vectors at known angles: every place of a word of 64, and the rest beyond whole words."""
    angles = np.linspace(0.01, 1.5, n)
    place = {"rising": np.arange(n)[::-1], "falling": np.arange(n)}.get(order)
    place = np.random.default_rng(n).permutation(n) if place is None else place
    Y = np.stack([np.cos(angles[place]), np.sin(angles[place])], axis=1).astype(dtype)
    similarities, indices = qf.cosine_top_k(np.array([[1.0, 0.0]], dtype), Y, k=7)
    assert place[indices[0]].tolist() == list(range(7))
    np.testing.assert_allclose(similarities[0], np.cos(angles[:7]), atol=TOLERANCE[dtype])


@pytest.mark.parametrize("skip_self", [False, True])
def test_top_k_agrees_with_the_reference(skip_self):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((25, 4))
    Y = X if skip_self else rng.standard_normal((30, 4))
    expected = reference.cosine_top_k(X, Y, 6, skip_self=skip_self)
    _, indices = qf.cosine_top_k(X, None if skip_self else Y, k=6)
    assert indices.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [3, 33, 100])
def test_ties_go_to_the_lowest_index(dtype, d):
    X = np.random.default_rng(10).standard_normal((301, d)).astype(dtype)
    copies = np.concatenate([X * 2.0**i for i in range(7)])
    _, indices = qf.cosine_top_k(X, copies, k=7)
    assert np.array_equal(indices, np.arange(301)[:, None] + 301 * np.arange(7))
    _, indices = qf.cosine_top_k(X, copies, k=3)
    assert np.array_equal(indices, np.arange(301)[:, None] + 301 * np.arange(3))


@pytest.mark.parametrize("k", [1, 10, 300])
def test_scores_that_creep_up_do_not_let_errors_add_up(k):
    """Each is better than the one before by less than what counts as a tie."""
    cosines = np.linspace(0.5, 0.5009, 1001)
    Y = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)
    similarities, indices = qf.cosine_top_k(np.array([[1.0, 0.0]], np.float32), Y, k=k)
    best = cosines[::-1][:k]
    np.testing.assert_allclose(similarities[0], best, rtol=0, atol=4e-6)
    np.testing.assert_allclose(cosines[indices[0]], best, rtol=0, atol=4e-6)
    assert len(set(indices[0])) == k


def test_a_vector_is_not_its_own_neighbour():
    X = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    similarities, indices = qf.cosine_top_k(X, k=2)
    assert indices.tolist() == [[2, 1], [0, 2], [0, 1]]
    np.testing.assert_allclose(similarities, [[1, 0], [0, 0], [1, 0]], atol=1e-15)
    assert qf.cosine_top_k(X, X, k=1)[1].tolist() == [[0], [1], [0]]
    assert qf.cosine_top_k(X.T, k=2, axis=0)[1].tolist() == indices.tolist()


@pytest.mark.parametrize(
    ("k", "error"), [(0, ValueError), (3, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_bad_k(k, error):
    with pytest.raises(error, match="k: wanted"):
        qf.cosine_top_k(np.eye(3), k=k)


def test_top_k_of_a_single_vector():
    with pytest.raises(ValueError, match="at least two rows to compare"):
        qf.cosine_top_k([[1.0, 2.0]], k=1)
    with pytest.raises(ValueError, match="at least two columns to compare"):
        qf.cosine_top_k([[1.0], [2.0]], k=1, axis=0)
