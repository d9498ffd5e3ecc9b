"""Input as a clumsy user gives it: refused in words, or computed right; never an internal error."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import qixai_fast as qf
from qixai_fast.cli import app

X = np.random.default_rng(0).standard_normal((40, 5))
Y = X[:, :4] + np.random.default_rng(1).standard_normal((40, 4))

OF_MATRIX = {
    "randomized_svd": lambda x: qf.randomized_svd(x, 2, random_state=0)[1],
    "pca": lambda x: qf.pca(x, 2, random_state=0).singular_values,
    "cosine_similarity": lambda x: qf.cosine_similarity(x, axis=0),
    "cosine_top_k": lambda x: qf.cosine_top_k(x, k=2)[0],
    "linear_cka": lambda x: qf.linear_cka(x, Y),
    "cca": lambda x: qf.cca(x, Y).correlations,
    "svcca": lambda x: qf.svcca(x, Y).correlations,
    "procrustes": lambda x: qf.procrustes(x, Y),
    "rsa": lambda x: qf.rsa(x, Y),
    "effective_rank": lambda x: qf.effective_rank(x),
    "schmidt_spectrum": lambda x: qf.schmidt_spectrum(x, Y),
    "pairwise_binned": lambda x: qf.pairwise_mutual_info_binned(x),
    "pairwise_ksg": lambda x: qf.pairwise_mutual_info_ksg(x),
    "mixed": lambda x: qf.mutual_info_mixed(x, np.arange(40) % 3),
    "riemann_accumulate": lambda x: qf.riemann_accumulate(x, np.full(40, 0.025)),
}
of_matrix = pytest.mark.parametrize("call", OF_MATRIX.values(), ids=OF_MATRIX.keys())


@of_matrix
def test_masked_values_are_not_read(call):
    masked = np.ma.masked_array(X, mask=np.zeros(X.shape, dtype=bool))
    np.testing.assert_array_equal(call(masked), call(X))
    masked[3, 2] = np.ma.masked
    with pytest.raises(ValueError, match="masked"):
        call(masked)


@of_matrix
def test_tensors_without_a_numpy_form_are_named(call):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compressed, nested = tensor.to_sparse_csr(), torch.nested.nested_tensor(list(tensor))
    tried = {
        "sparse": compressed,
        "nested": nested,
        "meta": tensor.to("meta"),
        "float8": tensor.to(torch.float8_e4m3fn),
    }
    for word, bad in tried.items():
        with pytest.raises(TypeError, match=f"^(X|x|gradients): .*{word}"):
            call(bad)


@of_matrix
@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize(
    "as_it_came",
    [
        lambda x: x.astype(">f8"),
        np.asfortranarray,
        lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
        lambda x: x.tolist(),
        np.matrix,
    ],
    ids=["foreign bytes", "columns first", "backwards", "lists", "matrix"],
)
def test_layout_does_not_matter(call, as_it_came):
    np.testing.assert_allclose(call(as_it_came(X)), call(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [np.array([2]), np.array([]), [2], 2.0, "2", True, None])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("n_components", lambda v: qf.pca(X, v)),
        ("k", lambda v: qf.cosine_top_k(X, k=v)),
        ("n_bins", lambda v: qf.pairwise_mutual_info_binned(X, n_bins=v)),
        ("n_neighbors", lambda v: qf.pairwise_mutual_info_ksg(X, n_neighbors=v)),
    ],
)
def test_counts_are_integers(name, call, value):
    with pytest.raises(TypeError, match=f"^{name}: wanted an integer, got {type(value).__name__}"):
        call(value)


@pytest.mark.parametrize("value", [np.array([1, 2]), np.array([]), [1], {}, "yes", 7])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("center", lambda v: qf.randomized_svd(X, 2, center=v)),
        ("flip_sign", lambda v: qf.randomized_svd(X, 2, flip_sign=v)),
        ("axis", lambda v: qf.cosine_similarity(X, axis=v)),
        ("debiased", lambda v: qf.linear_cka(X, Y, debiased=v)),
        ("strategy", lambda v: qf.pairwise_mutual_info_binned(X, strategy=v)),
        ("algorithm", lambda v: qf.mutual_info_ksg(X, Y, algorithm=v)),
        ("return_local", lambda v: qf.mutual_info_ksg(X, Y, return_local=v)),
        ("zero_samples", lambda v: qf.purity(X, zero_samples=v)),
    ],
)
def test_choices_are_listed(name, call, value):
    with pytest.raises(ValueError, match=f"^{name}: wanted one of"):
        call(value)


@pytest.mark.parametrize("seed", [np.array([1]), np.array([]), [1], 1.0, "1", True, object()])
def test_seeds(seed):
    for call in (qf.pca, qf.randomized_svd):
        with pytest.raises(TypeError, match=r"^random_state: wanted None"):
            call(X, 2, random_state=seed)
    with pytest.raises(TypeError, match=r"^random_state: wanted None"):
        qf.mutual_info_ksg(X, Y, random_state=seed)


def test_groups_that_cannot_be_grouped():
    with pytest.raises(TypeError, match=r"^groups: wanted values that can be sorted"):
        qf.mutual_info_test(X, n_permutations=9, groups=[None] * 40)
    with pytest.raises(ValueError, match=r"^groups: nan at row 0"):
        qf.mutual_info_test(X, n_permutations=9, groups=np.full(40, np.nan))


@pytest.mark.parametrize("shape", [(40, 5), (5, 40), (300, 1200)], ids=["tall", "wide", "krylov"])
def test_squares_that_underflow_are_not_taken_for_zeros(shape):
    small = 1e-170 * np.random.default_rng(0).standard_normal(shape)
    method = "krylov" if shape[1] > 1000 else "auto"
    with pytest.raises(ValueError, match=r"^X: the squares of the values underflow float64"):
        qf.pca(small, 2, method=method)
    with pytest.raises(ValueError, match=r"^X: the squares of the values underflow float64"):
        qf.randomized_svd(small, 2)
    # Rows that repeat have no spread, however small: that is an answer.
    assert not qf.pca(np.repeat(small[:1], 4, axis=0), 2).singular_values.any()
    assert not qf.randomized_svd(np.zeros(shape), 2)[1].any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(60, 10), (50, 600), (300, 1200)], ids=["tall", "wide", "krylov"])
def test_error_bounds_next_to_overflow(shape):
    values = np.random.default_rng(0).standard_normal(shape)
    method = "krylov" if shape[1] > 1000 else "auto"
    plain = qf.pca(values, 3, method=method, random_state=0)
    vast = qf.pca(values * 2.0**498, 3, method=method, random_state=0)
    np.testing.assert_allclose(vast.singular_values, plain.singular_values * 2.0**498, rtol=1e-12)
    np.testing.assert_allclose(vast.error_bound, plain.error_bound, rtol=1e-6, atol=1e-15)
    for scale in (1e154, 1e200):
        with pytest.raises(ValueError, match=r"^X: the squares of the values overflow"):
            qf.pca(values * scale, 3, method=method)


def test_weighted_sums_that_overflow():
    with pytest.raises(ValueError, match=r"^gradients: their weighted sum overflows"):
        qf.riemann_accumulate(np.ones((40, 5)), np.full(40, 1e308))


def test_sparse_inputs_have_no_path():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^inputs: sparse and nested tensors are not supported"):
        qf.integrated_gradients(lambda z: z.sum(1), torch.ones(3, 4).to_sparse())


def test_a_file_is_no_store(tmp_path):
    file = tmp_path / "activations.npy"
    np.save(file, X)
    with pytest.raises(qf.StoreError, match=r"is a file; a store is a directory"):
        qf.open_store(file)


USERS_MODULE = """
import torch

def network():
    return torch.nn.Sequential(torch.nn.Linear(3, 2))

def batches():
    return [torch.ones(4, 5)]

def broken():
    raise RuntimeError("says no")
"""


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            "theirs:broken",
            r"^error: --model: 'theirs:broken' failed: RuntimeError: says no \(.*theirs.py, line 11",
        ),
        ("unfinished:network", r"^error: --model: importing 'unfinished' failed: SyntaxError"),
        ("theirs:network", r"^error: mat1 and mat2 shapes .* \(QIXAI_FAST_TRACEBACK=1 shows where\)"),
    ],
)
def test_failures_of_the_users_code_take_one_line(tmp_path, monkeypatch, model, words):
    pytest.importorskip("torch")
    (tmp_path / "theirs.py").write_text(USERS_MODULE)
    (tmp_path / "unfinished.py").write_text("x = (")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = ["--model", model, "--inputs", "theirs:batches", "--layers", "*", "--quiet"]
    done = CliRunner().invoke(app, ["capture", "store", *options])
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    assert done.exit_code == 1
    assert re.search(words, done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_first_cpu_by_its_number():
    assert qf.purity(X, device="cpu:0") == qf.purity(X)


def _store(path: Path, name: str, scale: float = 1.0) -> Path:
    layers = {name: scale * np.maximum(X, 0), "other": np.maximum(Y, 0)}
    specs = {key: qf.LayerSpec(shape=value.shape[1:], dtype="float64") for key, value in layers.items()}
    with qf.create_store(path, specs) as writer:
        writer.append(layers)
    return path


@pytest.mark.filterwarnings("error")
def test_audit_draws_layer_names_as_they_are(tmp_path):
    # matplotlib would read the first as a formula, and lacks signs for the second.
    for place, name in enumerate(("$\\no_such_sign$", "日本語 <b>")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            report = qf.audit(
                _store(tmp_path / str(place), name), tmp_path / f"report{place}", progress=False
            )
        assert report.results["layers"][0]["name"] == name


@pytest.mark.filterwarnings("error")
def test_audit_names_the_layer_that_overflows(tmp_path):
    store = _store(tmp_path / "store", "vast", 1e200)
    with pytest.raises(ValueError, match=r"^layer 'vast': the squares of map 0 overflow"):
        qf.audit(store, progress=False)


def test_layer_names_that_no_file_can_hold(tmp_path):
    with pytest.raises(ValueError, match=r"^layers: .* is not valid Unicode"):
        qf.create_store(tmp_path / "store", {"\ud800": qf.LayerSpec(shape=(2,))})
