"""The estimators beside scikit-learn's, and beside themselves: whole, in chunks, from files, with bounds."""

import os
import pickle
import subprocess
import sys
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
import scipy.sparse
import sklearn
import sklearn.decomposition
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from qixai_fast import MemoryBudgetError, pca
from qixai_fast.estimators import PCA, TruncatedSVD

BOTH = (PCA, TruncatedSVD)


def layer(n=300, d=24, seed=0, mean=3.0, dtype=np.float64):
    """Samples with a decaying spectrum about a mean."""
    rng = np.random.default_rng(seed)
    scales = 0.8 ** np.arange(d)
    mixed = rng.standard_normal((n, d)) * scales @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    return (mixed + mean).astype(dtype)


def theirs(estimator):
    """scikit-learn's estimator with the same parameters, exact."""
    kind = getattr(sklearn.decomposition, type(estimator).__name__)
    names = kind().get_params()
    parameters = {key: value for key, value in estimator.get_params().items() if key in names}
    exact = {"svd_solver": "full"} if kind is sklearn.decomposition.PCA else {"algorithm": "arpack"}
    return kind(**parameters | exact)


def same_fit(ours, other, *, tolerance, names=None):
    for name in names or (
        "components_",
        "explained_variance_",
        "explained_variance_ratio_",
        "singular_values_",
    ):
        expected = getattr(other, name)
        np.testing.assert_allclose(
            getattr(ours, name),
            expected,
            rtol=tolerance,
            atol=tolerance * np.abs(expected).max(),
            err_msg=name,
        )


@pytest.mark.parametrize(
    "estimator",
    [
        PCA(),
        PCA(0.9),
        PCA(1, whiten=True, svd_solver="randomized"),
        TruncatedSVD(),
        TruncatedSVD(1, algorithm="arpack"),
    ],
    ids=str,
)
def test_estimator_checks_of_scikit_learn(estimator):
    done = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = [(found["check_name"], found["exception"]) for found in done if found["status"] == "failed"]
    assert failed == []
    # The array API needs an environment variable; data frames need pandas or polars.
    skipped = {found["check_name"] for found in done if found["status"] == "skipped"}
    assert all("array_api" in name or "dataframe" in name for name in skipped), skipped
    assert sum(found["status"] == "passed" for found in done) > 40


@pytest.mark.parametrize("n_components", [1, 5, 0.7, None])
@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("shape", [(300, 24), (20, 24), (24, 24)])
def test_pca_is_theirs(n_components, whiten, shape):
    X, new = layer(*shape), layer(10, shape[1], seed=1)
    ours = PCA(n_components, whiten=whiten)
    other = theirs(ours).fit(X)
    scores = ours.fit_transform(X)
    # The last component of n <= d centred samples has no variance, hence no direction and no scale.
    sure = slice(0, other.n_components_ - (n_components is None and shape[0] <= shape[1]))
    np.testing.assert_allclose(ours.components_[sure], other.components_[sure], atol=1e-9)
    np.testing.assert_allclose(ours.explained_variance_, other.explained_variance_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.mean_, other.mean_, rtol=1e-13)
    np.testing.assert_allclose(scores[:, sure], other.transform(X)[:, sure], atol=1e-8)
    np.testing.assert_allclose(ours.transform(new)[:, sure], other.transform(new)[:, sure], atol=1e-7)
    np.testing.assert_allclose(
        ours.inverse_transform(scores), other.inverse_transform(other.transform(X)), atol=1e-8
    )
    assert ours.n_components_ == other.n_components_
    assert ours.noise_variance_ == pytest.approx(other.noise_variance_, rel=1e-9, abs=1e-12)
    assert (ours.n_samples_, ours.n_features_in_) == shape
    names = ours.get_feature_names_out()
    assert list(names) == list(other.get_feature_names_out())


def test_covariance_precision_and_score_are_theirs():
    X = layer()
    ours = PCA(4).fit(X)
    other = theirs(ours).fit(X)
    np.testing.assert_allclose(ours.get_covariance(), other.get_covariance(), atol=1e-12)
    np.testing.assert_allclose(ours.get_precision(), other.get_precision(), rtol=1e-8, atol=1e-8)
    assert ours.score(X) == pytest.approx(other.score(X), rel=1e-10)


@pytest.mark.parametrize("n_components", [1, 5, 23])
@pytest.mark.parametrize("n", [300, 24])
def test_truncated_svd_is_theirs(n_components, n):
    X = layer(n)
    ours = TruncatedSVD(n_components)
    scores = ours.fit_transform(X)
    other = theirs(ours)
    np.testing.assert_allclose(scores, other.fit_transform(X), atol=1e-7)
    same_fit(ours, other, tolerance=1e-7)
    np.testing.assert_allclose(ours.inverse_transform(scores), other.inverse_transform(scores), atol=1e-10)


def test_wide_data_go_the_other_way():
    rng = np.random.default_rng(0)
    X = 1 + rng.standard_normal((60, 8)) * [9, 7, 5, 4, 3, 2, 1.5, 1] @ rng.standard_normal((8, 1100))
    X += 0.01 * rng.standard_normal(X.shape)
    for ours in (PCA(6), PCA(6, svd_solver="full"), PCA(0.95), TruncatedSVD(6)):
        ours.fit(X)
        same_fit(ours, theirs(ours).fit(X), tolerance=1e-9)
        with pytest.raises(ValueError, match="keeps no moments"):
            ours.partial_fit(X)


@given(
    st.sampled_from(BOTH),
    st.lists(st.integers(0, 200), min_size=1, max_size=6),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 1e3, -1e6]),
)
@settings(max_examples=25, deadline=None)
def test_chunks_in_any_order_give_one_answer(kind, cuts, seed, mean):
    rng = np.random.default_rng(seed)
    X = layer(200, 8, seed=seed % 1000, mean=0.0) + mean * np.linspace(0, 1, 200)[:, None]
    edges = sorted({0, 200, *cuts})
    chunks = [X[start:stop] for start, stop in pairwise(edges)]
    whole = kind(3).fit(X)
    for order in (range(len(chunks)), rng.permutation(len(chunks))):
        ours = kind(3)
        for i in order:
            ours.partial_fit(chunks[i])
        assert ours.n_samples_ == 200
        np.testing.assert_allclose(ours.singular_values_[0], whole.singular_values_[0], rtol=1e-12)
        total = np.sum(whole.explained_variance_)
        np.testing.assert_allclose(
            ours.explained_variance_, whole.explained_variance_, rtol=1e-12, atol=1e-12 * total
        )


def test_chunks_whose_first_is_far_from_the_others():
    X = layer(400, 6, mean=0.0)
    X[:3] = 1e7
    ours = PCA(2)
    for start, stop in ((0, 1), (1, 3), (3, 4), (4, 400)):
        ours.partial_fit(X[start:stop])
    centred = X - X.mean(axis=0)
    np.testing.assert_allclose(
        ours.singular_values_[0], np.linalg.svd(centred, compute_uv=False)[0], rtol=1e-12
    )
    rest = PCA(2)
    for start in range(3, 400, 50):
        rest.partial_fit(X[start : start + 50])
    same_fit(rest, PCA(2).fit(X[3:]), tolerance=1e-12)


def test_one_sample_at_a_time_about_a_far_mean():
    X = 1e8 + layer(300, 4, mean=0.0)
    ours = PCA(4)
    for row in X:
        ours.partial_fit(row[None])
    np.testing.assert_allclose(
        ours.singular_values_, np.linalg.svd(X - X[0] - (X - X[0]).mean(axis=0), compute_uv=False), rtol=1e-12
    )


def test_single_precision_chunks_are_added_in_double_precision():
    X = layer(600, 8, mean=300.0, dtype=np.float32)
    forward, backward = PCA(3), PCA(3)
    for start in range(0, 600, 100):
        forward.partial_fit(X[start : start + 100])
        backward.partial_fit(X[500 - start : 600 - start])
    np.testing.assert_allclose(forward.explained_variance_, backward.explained_variance_, rtol=1e-12)
    exact = np.linalg.svd(X.astype(np.float64) - X.mean(axis=0, dtype=np.float64), compute_uv=False)[:3]
    np.testing.assert_allclose(forward.singular_values_, exact, rtol=1e-9)
    assert forward.components_.dtype == np.float32
    assert forward.partial_fit(X[:5].astype(np.float64)).components_.dtype == np.float64


@pytest.mark.parametrize("kind", BOTH)
def test_partial_fit_goes_on_after_fit_and_fit_starts_anew(kind):
    X = layer(200, 8)
    same_fit(kind(3).fit(X[:120]).partial_fit(X[120:]), kind(3).fit(X), tolerance=1e-12)
    again = kind(3).partial_fit(X[:50])
    assert again.components_.shape == (3, 8)
    assert again.fit(X).n_samples_ == 200
    same_fit(again, kind(3).fit(X), tolerance=0)
    grown = kind(3).partial_fit(X[:100])
    first = grown.singular_values_.copy()
    assert np.all(grown.partial_fit(X[100:]).singular_values_ > first)


def test_partial_fit_needs_samples_enough_only_when_asked():
    X = layer(6, 5)
    ours = PCA(4).partial_fit(X[:1])
    with pytest.raises(ValueError, match="2 samples"):
        ours.transform(X)
    assert not hasattr(ours, "components_")
    ours.partial_fit(X[1:3])
    with pytest.raises(ValueError, match=r"between 1 and min\(n_samples, n_features\)=3"):
        ours.transform(X)
    ours.partial_fit(X[3:])
    same_fit(ours, PCA(4).fit(X), tolerance=1e-12)


def test_pickles_and_clones_go_on():
    X = layer(100, 6)
    half = PCA(2).partial_fit(X[:50])
    copied = pickle.loads(pickle.dumps(half))
    same_fit(copied.partial_fit(X[50:]), PCA(2).fit(X), tolerance=1e-12)
    assert not hasattr(clone(copied), "n_samples_")
    assert clone(PCA(2, max_memory="1GB", n_jobs=2)).get_params()["max_memory"] == "1GB"


@pytest.mark.parametrize("kind", BOTH)
def test_files_tensors_and_half_precision(kind, tmp_path):
    torch = pytest.importorskip("torch")
    X = layer(500, 12, dtype=np.float32)
    whole = kind(4).fit(X)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    from_file = kind(4).fit(mapped)
    np.testing.assert_array_equal(from_file.components_, whole.components_)
    out = np.lib.format.open_memmap(tmp_path / "s.npy", "w+", dtype=np.float32, shape=(500, 4))
    assert from_file.transform(mapped, out=out) is out
    np.testing.assert_array_equal(out, whole.transform(X))
    back = np.lib.format.open_memmap(tmp_path / "b.npy", "w+", dtype=np.float32, shape=X.shape)
    assert from_file.inverse_transform(out, out=back) is back
    np.testing.assert_array_equal(back, whole.inverse_transform(whole.transform(X)))
    np.testing.assert_array_equal(kind(4).fit(np.asfortranarray(X)).components_, whole.components_)
    np.testing.assert_array_equal(kind(4).fit(X[::-1][::-1]).components_, whole.components_)

    tensor = torch.from_numpy(X)
    scores = whole.transform(tensor)
    assert isinstance(scores, torch.Tensor)
    np.testing.assert_array_equal(scores.numpy(), out)
    assert isinstance(whole.inverse_transform(scores), torch.Tensor)
    rounded = tensor.to(torch.bfloat16)
    np.testing.assert_array_equal(
        kind(4).fit(rounded).components_, kind(4).fit(rounded.to(torch.float32).numpy()).components_
    )
    half = X.astype(np.float16)
    same_fit(kind(4).fit(half), kind(4).fit(half.astype(np.float64)), tolerance=1e-6)
    assert kind(4).fit_transform(half).dtype == np.float32
    whole_numbers = np.round(X * 100).astype(np.int16)
    same_fit(kind(4).fit(whole_numbers), kind(4).fit(whole_numbers.astype(float)), tolerance=1e-12)


@pytest.mark.parametrize("kind", BOTH)
def test_same_bits_for_any_number_of_threads(kind):
    X = layer(9000, 40, dtype=np.float32)
    fits = [kind(5, n_jobs=n_jobs).fit(X) for n_jobs in (1, 2, 4)]
    for other in fits[1:]:
        same_fit(other, fits[0], tolerance=0)
        np.testing.assert_array_equal(other.transform(X), fits[0].transform(X))
        np.testing.assert_array_equal(other.inverse_transform(X[:, :5]), fits[0].inverse_transform(X[:, :5]))


def peak(call):
    """Most memory that a call has held beyond its start."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("d", [64, 500, 1100])
def test_memory_is_kept(kind, d, tmp_path):
    np.save(tmp_path / "x.npy", layer(3000, d, dtype=np.float32))
    X = np.load(tmp_path / "x.npy", mmap_mode="r")
    scores = np.empty((len(X), 3), np.float32)
    back = np.empty(X.shape, np.float32)
    calls = {
        "fit": lambda ours: ours.fit(X),
        "partial_fit": lambda ours: clone(ours).partial_fit(X[:1500]).partial_fit(X[1500:]).components_,
        "transform": lambda ours: ours.transform(X, out=scores),
        "inverse_transform": lambda ours: ours.inverse_transform(scores, out=back),
    }
    fitted = kind(3, n_jobs=2).fit(X)
    for name, call in calls.items():
        with pytest.raises(MemoryBudgetError) as error:
            call(clone(fitted).set_params(max_memory=1) if "fit" in name else fitted.set_params(max_memory=1))
        enough = error.value.required
        ours = fitted.set_params(max_memory=enough)
        if "fit" in name:
            ours = clone(ours)
        used = peak(lambda call=call, ours=ours: call(ours))
        assert used <= enough, name


def test_pipelines_and_names():
    X = layer(50, 4)
    pipeline = make_pipeline(StandardScaler(), PCA(2)).set_output(transform="default").fit(X)
    np.testing.assert_allclose(
        pipeline.transform(X),
        make_pipeline(StandardScaler(), sklearn.decomposition.PCA(2)).fit(X).transform(X),
        atol=1e-10,
    )
    assert isinstance(pipeline[-1], sklearn.decomposition.PCA)


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(layer(30, 3), columns=["a", "b", "c"])
    ours = PCA(2).set_output(transform="pandas").fit(frame)
    assert list(ours.feature_names_in_) == ["a", "b", "c"]
    assert list(ours.transform(frame).columns) == ["pca0", "pca1"]
    with pytest.raises(ValueError, match="feature names"):
        ours.transform(frame[["b", "a", "c"]])


def test_sparse_matrices_are_left_to_scikit_learn():
    X = scipy.sparse.random_array((80, 20), density=0.3, format="csr", rng=np.random.default_rng(0))
    for ours in (PCA(3, svd_solver="covariance_eigh"), TruncatedSVD(3, algorithm="arpack")):
        fitted = ours.fit(X)
        dense = clone(ours).fit(X.toarray())
        same_fit(fitted, dense, tolerance=1e-7)
        np.testing.assert_allclose(fitted.transform(X), dense.transform(X.toarray()), atol=1e-9)
        out = np.empty((80, 3))
        assert fitted.transform(X, out=out) is out
        np.testing.assert_allclose(fitted.fit_transform(X), out, atol=1e-9)
        with pytest.raises(TypeError, match="no sparse"):
            clone(ours).partial_fit(X)


def test_degenerate_data():
    constant = PCA(2).fit(np.full((5, 3), 7.25))
    assert constant.explained_variance_.tolist() == constant.explained_variance_ratio_.tolist() == [0, 0]
    assert constant.noise_variance_ == 0
    np.testing.assert_array_equal(constant.transform(np.full((2, 3), 7.25)), np.zeros((2, 2)))
    assert np.isfinite(PCA(2, whiten=True).fit_transform(np.full((5, 3), 7.25))).all()
    zero = TruncatedSVD(2).fit(np.zeros((5, 3)))
    assert zero.singular_values_.tolist() == zero.explained_variance_ratio_.tolist() == [0, 0]
    one = TruncatedSVD(1).fit([[3.0, 4.0]])
    assert one.singular_values_ == pytest.approx([5.0])
    assert TruncatedSVD(3).fit(np.eye(2, 5)).components_.shape == (2, 5)


def test_far_mean_in_single_precision():
    rng = np.random.default_rng(0)
    X = (1000 + rng.standard_normal((4000, 10)) * np.arange(10, 0, -1)).astype(np.float32)
    exact = X.astype(np.float64)
    sigma = np.linalg.svd(exact - exact.mean(axis=0), compute_uv=False)
    ours = PCA(10).fit(X)
    np.testing.assert_allclose(ours.singular_values_, sigma, rtol=1e-9)
    np.testing.assert_allclose(ours.fit_transform(X).std(axis=0, dtype=float) * 4000**0.5, sigma, rtol=1e-6)
    np.testing.assert_allclose(ours.singular_values_, pca(X, 10).singular_values, rtol=1e-6)


@pytest.mark.parametrize("kind", BOTH)
def test_fit_of_single_precision_keeps_the_promise_and_goes_on(kind):
    rng = np.random.default_rng(0)
    scales = np.concatenate([np.logspace(0, -2, 20), np.full(108, 1e-3)])
    X = (100 * (kind is PCA) + rng.standard_normal((6000, 128)) * scales).astype(np.float32)
    exact = X.astype(np.float64) - (X.mean(axis=0, dtype=np.float64) if kind is PCA else 0)
    sigma = np.linalg.svd(exact, compute_uv=False)[:10]
    ours = kind(10).fit(X)
    np.testing.assert_allclose(ours.singular_values_, sigma, rtol=1e-6)
    same_fit(kind(10).fit(X[:4000]).partial_fit(X[4000:]), ours, tolerance=1e-5)
    in_chunks = kind(10).partial_fit(X[:4000]).partial_fit(X[4000:])
    np.testing.assert_allclose(in_chunks.singular_values_, sigma, rtol=1e-10)


def bad_value(row, column):
    X = layer(30, 5)
    X[row, column] = np.nan
    return X


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda X: PCA("mle").fit(X), ValueError, "n_components.*Got 'mle'"),
        (lambda X: PCA(0).fit(X), ValueError, "n_components=0"),
        (lambda X: PCA(6).fit(X), ValueError, r"min\(n_samples, n_features\)=5"),
        (lambda X: PCA(1.5).fit(X), ValueError, "n_components"),
        (lambda X: PCA(svd_solver="fast").fit(X), ValueError, "svd_solver"),
        (lambda X: PCA(max_memory="much").fit(X), ValueError, "max_memory"),
        (lambda X: PCA(device="cuda").fit(X), ValueError, "device"),
        (lambda X: PCA(2).fit(X[:1]), ValueError, "1 sample"),
        (lambda X: PCA(2).fit(X[0]), ValueError, "1D array"),
        (lambda X: PCA(2).fit(X[:0]), ValueError, "0 sample"),
        (lambda X: PCA(2).fit(X + 1j), ValueError, "Complex"),
        (lambda X: PCA(2).fit(bad_value(7, 3)), ValueError, "nan at row 7, column 3"),
        (lambda X: PCA(2).partial_fit(bad_value(7, 3)), ValueError, "nan at row 7, column 3"),
        (lambda X: PCA(2).fit(X).transform(bad_value(7, 3)), ValueError, "nan at row 7, column 3"),
        (lambda X: PCA(2).fit(X).inverse_transform(X), ValueError, "2 components, got 5"),
        (lambda X: PCA(2).fit(X).transform(X[:, :4]), ValueError, "4 features"),
        (lambda X: PCA(2).partial_fit(X).partial_fit(X[:, :4]), ValueError, "4 features"),
        (lambda X: PCA(2).transform(X), ValueError, "not fitted"),
        (lambda X: PCA(2).fit(X).transform(X, out=np.empty((30, 3))), ValueError, "out: .*(30, 2)"),
        (lambda X: PCA(2).fit(X).transform(X, out=[]), TypeError, "out: "),
        (lambda X: TruncatedSVD(6).fit(X), ValueError, "minimum of 6"),
        (lambda X: TruncatedSVD(0).fit(X), ValueError, "n_components"),
        (lambda X: TruncatedSVD(2).partial_fit(1e200 * X), ValueError, "overflow"),
        (lambda X: PCA(2).fit(1e-200 * X), ValueError, "underflow"),
        (lambda X: TruncatedSVD(2).fit(np.full((4, 3), 1e-200)), ValueError, "underflow"),
        (lambda X: PCA(2).fit(np.ma.masked_greater(X, 3)), ValueError, "masked"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(layer(30, 5))


def test_a_bad_chunk_leaves_the_others():
    X = layer(30, 5)
    ours = PCA(2).partial_fit(X)
    before = ours.explained_variance_.copy()
    with pytest.raises(ValueError, match="row 3"):
        ours.partial_fit(bad_value(3, 0))
    assert ours.n_samples_ == 30
    np.testing.assert_array_equal(ours.explained_variance_, before)


def test_without_scikit_learn_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import qixai_fast\n"
        "try:\n    import qixai_fast.estimators\n"
        "except ImportError as error:\n    assert 'qixai-fast[sklearn]' in str(error), error\n"
        "else:\n    raise SystemExit('imported')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


THEIR_TESTS = """
import os, sys, pytest, sklearn.decomposition as theirs
from pathlib import Path
import qixai_fast.estimators as ours
theirs.PCA, theirs.TruncatedSVD = ours.PCA, ours.TruncatedSVD
folder = Path(theirs.__file__).parent / "tests"
options = ["-q", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:randomly", "--rootdir", str(folder)]
modules = [str(folder / name) for name in ("test_pca.py", "test_truncated_svd.py")]
sys.exit(pytest.main([*options, "-k", sys.argv[1], *modules]))
"""
# What differs: no "mle", at least one component, no limits of ARPACK, and no record of the solver chosen.
DIFFERENT = "mle or pca_dim or pca_score3 or svd_solver_auto or pca_validation or n_components_none"
# Sparse PCA is their own code.
SLOW = "pca_sparse or sparse_pca"


def test_their_own_tests_pass_on_ours():
    done = subprocess.run(
        [sys.executable, "-c", THEIR_TESTS, f"not ({DIFFERENT} or {SLOW})"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "file or directory not found" in done.stderr + done.stdout:
        pytest.skip("this scikit-learn was installed without its tests")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    passed = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed > 150
