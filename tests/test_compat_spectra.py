"""randomized_svd and cosine_similarity by scikit-learn's conventions, beside its own and beside LAPACK."""

import inspect
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from qixai_fast.compat import sklearn as ours

extmath = pytest.importorskip("sklearn.utils.extmath")
pairwise = pytest.importorskip("sklearn.metrics.pairwise")

THEIRS = {"randomized_svd": extmath.randomized_svd, "cosine_similarity": pairwise.cosine_similarity}
FORMATS = ("csr", "csc", "coo")


def low_rank(n, d, sigma, seed=0):
    """A matrix with the given singular values."""
    rng = np.random.default_rng(seed)
    k = len(sigma)
    left = np.linalg.qr(rng.standard_normal((n, k)))[0]
    return left * sigma @ np.linalg.qr(rng.standard_normal((d, k)))[0].T


def refused_by_both(name, arguments, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(ours, name)(*arguments, **options)
    with pytest.raises((ValueError, TypeError)):
        THEIRS[name](*arguments, **options)


@pytest.mark.parametrize("name", THEIRS)
def test_signature_is_theirs(name):
    def parameters(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(getattr(ours, name)) == parameters(THEIRS[name])
    assert pickle.loads(pickle.dumps(getattr(ours, name))) is getattr(ours, name)


@pytest.mark.parametrize("shape", [(400, 60), (60, 400), (50, 50), (1300, 1100), (1100, 1300)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_triplets_are_those_of_lapack(shape, dtype):
    X = low_rank(*shape, np.logspace(0, -2, 40)).astype(dtype)
    U, s, Vh = ours.randomized_svd(X, 6, random_state=0)
    assert U.dtype == s.dtype == Vh.dtype == dtype
    assert (U.shape, s.shape, Vh.shape) == ((shape[0], 6), (6,), (6, shape[1]))
    left, sigma, right = np.linalg.svd(X.astype(np.float64), full_matrices=False)
    left, right = extmath.svd_flip(left[:, :6], right[:6])
    tolerance = 1e-9 if dtype is np.float64 else 1e-5
    np.testing.assert_allclose(s, sigma[:6], rtol=tolerance / 5)
    np.testing.assert_allclose(U, left, atol=tolerance)
    np.testing.assert_allclose(Vh, right, atol=tolerance)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 45),
    st.booleans(),
    st.sampled_from(["auto", "QR", "LU"]),
    st.sampled_from(["auto", True, False]),
    st.sampled_from(["auto", 4]),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_shapes_signs_and_order_are_theirs(n, d, k, flip, normalizer, transpose, n_iter, seed):
    # Singular values far apart, so that vectors are sure; as many as a few samples and features allow.
    X = low_rank(n, d, 0.3 ** np.arange(min(n, d, 9)), seed)
    options = {
        "flip_sign": flip,
        "power_iteration_normalizer": normalizer,
        "transpose": transpose,
        "n_iter": n_iter,
        "random_state": seed,
    }
    U, s, Vh = ours.randomized_svd(X, k, **options)
    Ut, st_, Vht = extmath.randomized_svd(X, k, **options)
    assert (U.shape, s.shape, Vh.shape) == (Ut.shape, st_.shape, Vht.shape)
    np.testing.assert_allclose(s, st_, atol=1e-10)
    np.testing.assert_allclose(U * s @ Vh, Ut * st_ @ Vht, atol=1e-10)
    np.testing.assert_allclose(U.T @ U, np.eye(len(s)), atol=1e-9)
    np.testing.assert_allclose(Vh @ Vh.T, np.eye(len(s)), atol=1e-9)
    if flip:
        sure = s > 1e-8
        assert np.all(U.T[sure, np.argmax(np.abs(U), axis=0)[sure]] > 0)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("normalizer", ["auto", "none"])
def test_prescribed_iterations_are_theirs_from_the_same_numbers(fmt, normalizer):
    X = scipy.sparse.random_array((300, 200), density=0.1, format=fmt, rng=np.random.default_rng(0))
    options = {"n_iter": 1, "power_iteration_normalizer": normalizer}
    for matrix in (X, X.toarray()):
        found = ours.randomized_svd(matrix, 5, random_state=np.random.RandomState(3), **options)
        expected = extmath.randomized_svd(matrix, 5, random_state=np.random.RandomState(3), **options)
        for mine, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, other, atol=1e-9)
    # One iteration on a flat spectrum is far from the truth: this is what was prescribed, not the exact way.
    exact = np.linalg.svd(X.toarray(), compute_uv=False)[:5]
    assert np.max(np.abs(found[1] - exact)) > 1e-3


def test_iterations_that_cost_more_than_exact_products_give_way():
    X = np.random.default_rng(0).standard_normal((2000, 100))
    exact = np.linalg.svd(X, compute_uv=False)[:5]
    assert np.max(np.abs(extmath.randomized_svd(X, 5, n_iter=4, random_state=0)[1] - exact)) > 1e-2
    np.testing.assert_allclose(ours.randomized_svd(X, 5, n_iter=4, random_state=0)[1], exact, rtol=1e-12)
    np.testing.assert_allclose(ours.randomized_svd(X, 5)[1], exact, rtol=1e-12)


@pytest.mark.parametrize("decades", [3, 6, 9])
def test_small_singular_values_keep_their_digits(decades):
    sigma = np.logspace(0, -decades, 30)
    X = low_rank(600, 200, sigma)
    found = ours.randomized_svd(X, 30, random_state=0)[1]
    np.testing.assert_allclose(found, sigma, rtol=1e-14 * 10**decades)


@pytest.mark.parametrize("scale", [1e-200, 1e-155, 1e155, 1e200])
def test_squares_out_of_range(scale):
    X = low_rank(60, 20, np.arange(10, 0, -1.0)) * scale
    np.testing.assert_allclose(ours.randomized_svd(X, 3, random_state=0)[1] / scale, [10, 9, 8], rtol=1e-9)


def test_zeros_lists_integers_objects_and_half_precision():
    U, s, Vh = ours.randomized_svd(np.zeros((6, 4)), 2, random_state=0)
    assert s.tolist() == [0, 0]
    np.testing.assert_allclose(U.T @ U, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(Vh @ Vh.T, np.eye(2), atol=1e-12)
    for matrix in ([[0, 3], [2, 0]], np.array([[0, 3], [2, 0]], dtype=object), np.float16([[0, 3], [2, 0]])):
        U, s, Vh = ours.randomized_svd(matrix, 2, random_state=0)
        np.testing.assert_allclose(s, [3, 2], rtol=1e-6)
        np.testing.assert_allclose(U * s @ Vh, np.array(matrix, dtype=float), atol=1e-6)
    assert (
        ours.randomized_svd(np.eye(3, dtype=np.float16), 1, n_iter=0, random_state=0)[0].dtype == np.float32
    )


def test_files_are_not_written_to(tmp_path):
    X = low_rank(3000, 50, np.arange(9, 0, -1.0)).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for options in ({}, {"n_iter": 0}, {"power_iteration_normalizer": "QR"}):
        for mine, other in zip(
            ours.randomized_svd(mapped, 3, random_state=0, **options),
            ours.randomized_svd(X, 3, random_state=0, **options),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, other)


BITS = """
import numpy as np
from qixai_fast.compat.sklearn import cosine_similarity, randomized_svd
X = np.random.default_rng(0).standard_normal((6000, 90)).astype(np.float32)
parts = [cosine_similarity(X[:500])]
for options in ({}, {"n_iter": 0}, {"power_iteration_normalizer": "LU"}):
    parts += randomized_svd(X, 4, random_state=0, **options)
print(hash(b"".join(part.tobytes() for part in parts)))
"""


def test_any_number_of_threads_gives_the_same_bits():
    hashes = set()
    for threads in ("1", "4"):
        environment = os.environ | {
            "NUMBA_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "PYTHONHASHSEED": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True
        )
        hashes.add(done.stdout)
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components"),
        ({"n_components": 2.5}, "n_components"),
        ({"n_oversamples": -1}, "n_oversamples"),
        ({"n_iter": -1}, "n_iter"),
        ({"n_iter": "many"}, "n_iter"),
        ({"power_iteration_normalizer": "SVD"}, "power_iteration_normalizer"),
        ({"transpose": "yes"}, "transpose"),
        ({"flip_sign": "yes"}, "flip_sign"),
        ({"random_state": "seed"}, "random_state"),
        ({"svd_lapack_driver": "geev"}, "svd_lapack_driver"),
        ({"M": "matrix"}, "M"),
        ({"M": np.ones(4)}, "2D array"),
        ({"M": np.ones((0, 4))}, "0 sample"),
        ({"M": np.ones((4, 0))}, "0 feature"),
        ({"M": np.ones((4, 4)) * 1j}, "Complex"),
        ({"M": [["a", "b"], ["c", "d"]]}, "M: cannot be converted"),
        ({"M": np.diag([1, np.nan, 2])}, r"M contains NaN, first at \(1, 1\)"),
        ({"M": np.diag([1, np.inf, 2]), "n_iter": 1}, r"M contains infinity .*, first at \(1, 1\)"),
        ({"M": scipy.sparse.csr_array(np.diag([1, np.nan]))}, "M contains NaN"),
    ],
)
def test_bad_input_of_randomized_svd(options, message):
    options = {"M": np.eye(5), "n_components": 2} | options
    refused_by_both("randomized_svd", (), options, message)


def matrices(n, d, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.5)
    X[rng.random(n) < 0.2] = 0
    return X


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 12),
    st.sampled_from(["dense", *FORMATS]),
    st.sampled_from(["dense", *FORMATS, None, "same"]),
    st.booleans(),
    st.sampled_from([np.float32, np.float64, np.int64]),
    st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None)
def test_cosine_is_theirs(n_x, n_y, d, fmt_x, fmt_y, dense_output, dtype, seed):
    def made(n, fmt, seed):
        X = (3 * matrices(n, d, seed)).astype(dtype)
        return X if fmt == "dense" else scipy.sparse.csr_array(X).asformat(fmt)

    X = made(n_x, fmt_x, seed)
    Y = None if fmt_y is None else X if fmt_y == "same" else made(n_y, fmt_y, seed + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ours.cosine_similarity(X, Y, dense_output=dense_output)
    expected = pairwise.cosine_similarity(X, Y, dense_output=dense_output)
    assert scipy.sparse.issparse(found) == scipy.sparse.issparse(expected)
    if scipy.sparse.issparse(found):
        # A sparse array, as what went in; scikit-learn 1.9 turns it into a sparse matrix.
        assert isinstance(found, scipy.sparse.sparray)
        found, expected = found.toarray(), expected.toarray()
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-6 if dtype is np.float32 else 1e-13)


def test_cosine_of_mixed_and_half_precision_is_double():
    X = matrices(9, 5, 0)
    for first, second in (
        (X.astype(np.float16), None),
        (X.astype(np.float32), X),
        (X.astype(np.float32), X.astype(np.float16)),
    ):
        found = ours.cosine_similarity(first, second)
        assert found.dtype == np.float64
        np.testing.assert_allclose(
            found,
            pairwise.cosine_similarity(
                first.astype(np.float64), None if second is None else second.astype(np.float64)
            ),
            atol=1e-13,
        )


def test_cosine_result_is_the_callers_to_write():
    X = matrices(9, 5, 0)
    kept = X.copy()
    result = ours.cosine_similarity(X, X)
    result *= -1
    np.testing.assert_array_equal(X, kept)
    sparse = scipy.sparse.csr_array(X)
    ours.cosine_similarity(sparse)
    np.testing.assert_array_equal(sparse.toarray(), kept)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("X",), {}, "X"),
        ((np.eye(3), "Y"), {}, "Y"),
        ((np.eye(3),), {"dense_output": "yes"}, "dense_output"),
        ((np.eye(3), np.eye(4)), {}, "Incompatible dimension"),
        ((np.ones(3),), {}, "2D array"),
        ((np.ones((0, 3)),), {}, "0 sample"),
        ((np.eye(3) * 1j,), {}, "Complex"),
        ((np.diag([1, np.nan]),), {}, "X: nan at row 1, column 1"),
        ((np.eye(2), np.diag([1, np.inf])), {}, "Y: inf at row 1, column 1"),
        ((scipy.sparse.csr_array(np.diag([1, np.nan])),), {}, "X contains NaN"),
        ((scipy.sparse.csr_array(np.eye(2)), np.diag([1, np.nan])), {}, "Y contains NaN"),
    ],
)
def test_bad_input_of_cosine(arguments, options, message):
    refused_by_both("cosine_similarity", arguments, options, message)
