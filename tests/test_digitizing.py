"""Public codes: membership, the zero bin, files, budgets."""

import errno
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from qixai_fast import (
    MemoryBudgetError,
    code_files,
    digitize,
    mutual_info_binned,
    mutual_info_discrete,
    pairwise_mutual_info_binned,
)

STRATEGIES = ("uniform", "quantile")


def relu(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X = np.maximum(rng.standard_normal((n, d)) + rng.standard_normal((n, 1)), 0)
    X[:, 0] = 0.0
    return X


def with_zero_bin(x, n_bins, strategy):
    """The definition: the others' bins, one further on, and 0 for zeros."""
    codes = np.zeros(len(x), dtype=int)
    if np.any(x != 0):
        codes[x != 0] = 1 + (
            reference.bin_codes(x[x != 0], n_bins - 1, strategy) if n_bins > 2 else np.zeros((x != 0).sum())
        )
    return codes


values = st.lists(
    st.one_of(st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324, 2.0]), st.floats(-1e3, 1e3)),
    min_size=1,
    max_size=50,
)


@settings(max_examples=80, deadline=None)
@given(values, st.integers(2, 20), st.sampled_from(STRATEGIES), st.booleans())
def test_codes_by_definition(x, n_bins, strategy, zero_bin):
    X = np.column_stack([x, np.zeros(len(x)), np.full(len(x), 7.0)])
    found = digitize(X, n_bins=n_bins, strategy=strategy, zero_bin=zero_bin)
    define = with_zero_bin if zero_bin else reference.bin_codes
    for column, codes in zip(X.T, found.codes, strict=True):
        assert np.array_equal(codes, define(column, n_bins, strategy))
    assert found.codes.dtype == np.uint8
    assert found.edges.shape == (3, n_bins + 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64, bool])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n_bins", [5, 16, 300])
def test_dtypes_give_the_codes_of_float64(dtype, strategy, n_bins):
    X = (np.random.default_rng(1).standard_normal((700, 21)) * 20).astype(dtype)
    found = digitize(X, n_bins=n_bins, strategy=strategy)
    wide = digitize(X.astype(np.float64), n_bins=n_bins, strategy=strategy)
    assert np.array_equal(found.codes, wide.codes)
    assert np.array_equal(found.edges, wide.edges)
    for column, codes in zip(X.T[:3], found.codes, strict=False):
        assert np.array_equal(codes, reference.bin_codes(column, n_bins, strategy))


@pytest.mark.parametrize("offset", [1e3, 1e9, 1e15, -1e16])
@pytest.mark.parametrize("n_bins", [7, 16, 4096])
def test_bins_a_few_roundings_wide(offset, n_bins):
    """Far from zero edges round together: codes are still those of numpy.digitize."""
    x = offset + np.random.default_rng(0).integers(0, 5000, 3000) * np.spacing(abs(offset))
    assert np.array_equal(digitize(x[:, None], n_bins=n_bins).codes[0], reference.bin_codes(x, n_bins))


def test_edges_behind_a_relu_ascend_and_zero_is_alone():
    X = relu(500, 4)
    for strategy in STRATEGIES:
        found = digitize(X, n_bins=8, strategy=strategy, zero_bin=True)
        assert np.array_equal(found.codes == 0, X.T == 0)
        assert np.all(np.diff(found.edges[1:], axis=1) > 0)
        assert np.all(found.edges[0] == 0)
    tiny = np.array([[0.0], [-0.0], [5e-324], [-5e-324], [1.0]])
    assert np.array_equal(
        digitize(tiny, n_bins=3, zero_bin=True).codes[0] == 0, [True, True, False, False, False]
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_estimators_take_the_zero_bin(strategy):
    X = relu(400, 4)
    codes = [with_zero_bin(column, 6, strategy) for column in X.T]
    options = {"n_bins": 6, "strategy": strategy, "zero_bin": True}
    values = pairwise_mutual_info_binned(X, **options)
    for i in range(4):
        for j in range(4):
            expected = mutual_info_discrete(codes[i], codes[j])
            assert values[i, j] == pytest.approx(expected, abs=1e-12)
            assert mutual_info_binned(X[:, i], X[:, j], **options) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_bins", [16, 300])
def test_out_takes_paths_arrays_and_memmaps(tmp_path, n_bins):
    X = relu(300, 5)
    expected = digitize(X, n_bins=n_bins)
    dtype = expected.codes.dtype
    path = tmp_path / "codes.npy"
    path.write_text("old")
    budget = 600_000 if n_bins == 16 else 800_000
    for out in (path, str(path)):
        found = digitize(X, n_bins=n_bins, out=out, n_jobs=2, max_memory=budget)
        assert isinstance(found.codes, np.memmap)
        assert np.array_equal(found.codes, expected.codes)
        assert np.array_equal(np.load(path), expected.codes)
        assert os.listdir(tmp_path) == ["codes.npy"]
    for out in (
        np.empty((5, 300), dtype),
        np.empty((300, 5), dtype).T,
        np.memmap(tmp_path / "raw", dtype, "w+", shape=(5, 300)),
    ):
        found = digitize(X, n_bins=n_bins, out=out)
        assert found.codes is out
        assert np.array_equal(out, expected.codes)


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        (5, TypeError, "out: wanted a path or a NumPy array, got int"),
        (np.empty((4, 3), np.uint8), ValueError, r"out: wanted shape \(3, 4\)"),
        (np.empty((3, 4), np.uint16), ValueError, "and dtype uint8, got"),
        ("", ValueError, "out: wanted a path of a file, got the directory '.'"),
        ("no/such/folder/x.npy", OSError, "no/such/folder/x.npy: .* could not be written"),
    ],
)
def test_bad_out_is_named(out, error, words):
    with pytest.raises(error, match=words):
        digitize(np.zeros((4, 3)), out=out)


def test_bad_options_are_named():
    X = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="out: shares memory with X"):
        digitize(X, out=X.T)
    read_only = np.empty((4, 4), np.uint8)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="out: is read-only"):
        digitize(X, out=read_only)
    for call in (digitize, pairwise_mutual_info_binned):
        with pytest.raises(TypeError, match="zero_bin: wanted True or False, got str"):
            call(X, zero_bin="yes")
        with pytest.raises(ValueError, match="X: nan at row 2, column 1"):
            call(np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 0.0), zero_bin=True)


def test_a_failed_file_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "codes.npy"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(code_files.os, "pwrite", full)
    with pytest.raises(
        OSError, match=r"codes.npy: 1.0 kB of codes could not be written \(No space"
    ) as caught:
        digitize(relu(200, 5), out=path)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["codes.npy"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_feature_major_files(tmp_path, strategy):
    X = relu(500, 11).astype(np.float32)
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert mapped.flags.f_contiguous
    found, expected = (digitize(array, strategy=strategy) for array in (mapped, X))
    assert np.array_equal(found.codes, expected.codes)
    assert np.array_equal(found.edges, expected.edges)


def test_torch_in_torch_out():
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(relu(50, 3)).to(torch.bfloat16)
    found = digitize(X)
    assert found.codes.dtype == torch.uint8
    assert found.edges.dtype == torch.float64
    assert np.array_equal(found.codes.numpy(), digitize(X.float().numpy()).codes)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("to_file", [False, True])
def test_budget_and_threads(tmp_path, strategy, to_file):
    X = relu(30_000, 16).astype(np.float32)
    expected = digitize(X, strategy=strategy)
    out = tmp_path / "codes.npy" if to_file else None

    def call(max_memory, n_jobs=2):
        return digitize(X, strategy=strategy, out=out, max_memory=max_memory, n_jobs=n_jobs)

    with pytest.raises(MemoryBudgetError, match=r"max_memory=[0-9]+ would do") as caught:
        call(1000)
    least = caught.value.required
    for factor in (1.0, 1.5, 4.0):
        tracemalloc.start()
        found = call(int(factor * least))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        result = found.edges.nbytes + (0 if to_file else found.codes.nbytes)
        assert peak <= factor * least + result
        assert np.array_equal(found.codes, expected.codes)
    assert np.array_equal(call(8 * least, n_jobs=4).codes, expected.codes)


_INTERRUPTED = """
import os, signal, sys, tempfile
import numpy as np
import qixai_fast as qf
from qixai_fast import code_files
X = np.random.default_rng(0).standard_normal((50_000, 40))
plain, left = code_files.CodeFile.read, [5]
def read(self, *arguments):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.{signal})
    return plain(self, *arguments)
code_files.CodeFile.read = read
assert tempfile.gettempdir() == sys.argv[1]
qf.pairwise_mutual_info_binned(X, n_jobs=1, max_memory=1_900_000)
"""


@pytest.mark.parametrize("signal", ["SIGINT", "SIGKILL"])
def test_no_file_of_codes_outlives_its_process(tmp_path, signal):
    script = _INTERRUPTED.format(signal=signal)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert ("KeyboardInterrupt" in done.stderr) == (signal == "SIGINT"), done.stderr
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(code_files.os, "pwrite", full)
    X = np.random.default_rng(0).standard_normal((50_000, 40))
    words = r"2.0 MB of codes could not be written \(No space .* set TMPDIR .* or raise max_memory"
    with pytest.raises(OSError, match=words):
        pairwise_mutual_info_binned(X, max_memory=1_900_000)
