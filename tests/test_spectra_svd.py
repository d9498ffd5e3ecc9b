"""randomized_svd: factors, orthogonality, signs, iterations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import positive_largest_entries, spectrum
from test_spectra import with_spectrum

import qixai_fast as qf
from qixai_fast import decomposition


@pytest.fixture(params=["direct", "krylov"])
def way(request, monkeypatch):
    """Both ways on small data: the choice is by width."""
    if request.param == "krylov":
        monkeypatch.setattr(decomposition, "_DIRECT_WIDTHS", 0)
    return request.param


@pytest.mark.parametrize("shape", [(3000, 50), (50, 2300), (200, 180)])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_factors_equal_the_definition(way, shape, center, dtype):
    X = with_spectrum(*shape, 0.7 ** np.arange(45), offset=0.2, dtype=dtype)
    U, S, Vt = qf.randomized_svd(X, 8, center=center, random_state=0)
    values, rows = spectrum(X, center)
    single = dtype == np.float32
    assert U.dtype == Vt.dtype == dtype
    assert S.dtype == np.float64
    np.testing.assert_allclose(S, values[:8], rtol=1e-11)
    tight = 2e-6 if single else 1e-12
    np.testing.assert_allclose(U.T.astype(float) @ U, np.eye(8), atol=tight)
    np.testing.assert_allclose(Vt.astype(float) @ Vt.T, np.eye(8), atol=tight)
    np.testing.assert_allclose(Vt, positive_largest_entries(rows[:8]), atol=1e-5 if single else 1e-9)
    A = X - X.astype(float).mean(axis=0) * center
    np.testing.assert_allclose(A @ Vt.T.astype(float), U * S, atol=1e-5 * S[0] if single else 1e-11 * S[0])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 6), st.booleans(), st.integers(0, 2**32 - 1))
def test_any_rank_gives_orthonormal_factors(n, d, rank, center, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d))
    k = min(n, d)
    U, S, Vt = qf.randomized_svd(X, k, center=center)
    np.testing.assert_allclose(U.T @ U, np.eye(k), atol=1e-11)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(k), atol=1e-11)
    A = X - X.mean(axis=0) * center
    np.testing.assert_allclose((U * S) @ Vt, A, atol=1e-7 * max(1.0, np.abs(A).max()))
    assert np.all(S >= 0)


def test_small_singular_values_are_not_squared_away():
    """U and S come from X V itself: a millionth of the first value keeps its digits."""
    X = with_spectrum(500, 40, np.geomspace(1, 1e-6, 13))
    U, S, _ = qf.randomized_svd(X, 13)
    values, _ = spectrum(X, False)
    np.testing.assert_allclose(S, values[:13], rtol=1e-7)
    np.testing.assert_allclose(U.T @ U, np.eye(13), atol=1e-13)


def test_zero_matrix(way):
    U, S, Vt = qf.randomized_svd(np.zeros((30, 20)), 4, random_state=0)
    np.testing.assert_array_equal(S, np.zeros(4))
    np.testing.assert_allclose(U.T @ U, np.eye(4), atol=1e-13)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(4), atol=1e-13)


def test_signs_as_scikit_learn_by_rows_of_vt():
    extmath = pytest.importorskip("sklearn.utils.extmath")
    X = np.random.default_rng(0).normal(size=(60, 20))
    U, S, Vt = qf.randomized_svd(X, 20)
    flipped = extmath.svd_flip(U.copy(), Vt.copy(), u_based_decision=False)
    np.testing.assert_array_equal(flipped[0], U)
    np.testing.assert_array_equal(flipped[1], Vt)
    U2, S2, Vt2 = qf.randomized_svd(X, 20, flip_sign=False)
    np.testing.assert_array_equal(S2, S)
    np.testing.assert_allclose((U2 * S2) @ Vt2, X, atol=1e-12)
    np.testing.assert_array_equal(np.abs(Vt2), np.abs(Vt))


def test_benign_data_agree_with_scikit_learn(way):
    extmath = pytest.importorskip("sklearn.utils.extmath")
    X = with_spectrum(900, 120, 0.6 ** np.arange(40))
    _, S, Vt = qf.randomized_svd(X, 5, random_state=0)
    _, theirs, rows = extmath.randomized_svd(X, 5, n_iter=10, random_state=0)
    np.testing.assert_allclose(S, theirs, rtol=1e-9)
    np.testing.assert_allclose(Vt, positive_largest_entries(rows), atol=1e-7)


def test_more_iterations_and_vectors_err_less(monkeypatch):
    monkeypatch.setattr(decomposition, "_DIRECT_WIDTHS", 0)
    X = np.random.default_rng(0).normal(size=(500, 400))
    values, _ = spectrum(X, False)

    def error(**options):
        _, S, _ = qf.randomized_svd(X, 4, random_state=0, **options)
        assert np.all(values[:4] * (1 + 1e-12) >= S)
        return (1 - S / values[:4]).max()

    by_iterations = [error(n_iter=i) for i in (0, 2, 8)]
    assert by_iterations[0] > 2 * by_iterations[1] > 8 * by_iterations[2]
    assert error(n_iter=2, n_oversamples=100) < by_iterations[1] / 2


@pytest.mark.parametrize("n_iter", [0, 3])
def test_iterations_beat_power_iterations_of_the_same_number(monkeypatch, n_iter):
    extmath = pytest.importorskip("sklearn.utils.extmath")
    monkeypatch.setattr(decomposition, "_DIRECT_WIDTHS", 0)
    X = np.random.default_rng(1).normal(size=(600, 300)) * (1 / np.arange(1, 301.0)) ** 0.5
    values, _ = spectrum(X, False)
    _, ours, _ = qf.randomized_svd(X, 22, n_iter=n_iter, random_state=0)
    _, theirs, _ = extmath.randomized_svd(X, 22, n_oversamples=10, n_iter=n_iter, random_state=0)
    assert np.abs(ours - values[:22]).max() < np.abs(theirs - values[:22]).max()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n_components": 4}, ValueError, "n_components: wanted 1 to 3"),
        ({"n_iter": -1}, ValueError, "n_iter"),
        ({"n_iter": "many"}, TypeError, "n_iter"),
        ({"n_oversamples": -1}, ValueError, "n_oversamples"),
        ({"n_oversamples": 2.5}, TypeError, "n_oversamples"),
        ({"random_state": "x"}, TypeError, "random_state"),
        ({"max_memory": "lots"}, ValueError, "max_memory"),
    ],
)
def test_bad_options_are_named(options, error, words):
    with pytest.raises(error, match=words):
        qf.randomized_svd(np.ones((5, 3)), **{"n_components": 1, **options})


def test_one_sample_and_one_feature():
    U, S, Vt = qf.randomized_svd([[3.0, -4.0]], 1)
    assert S[0] == pytest.approx(5)
    np.testing.assert_allclose(Vt, [[-0.6, 0.8]])
    np.testing.assert_allclose(U, [[-1.0]])
    U, S, Vt = qf.randomized_svd([[3.0], [-4.0]], 1)
    np.testing.assert_allclose(U, [[0.6], [-0.8]])
    np.testing.assert_allclose(Vt, [[1.0]])
