"""The shared ground: budgets, threads, seeds, input checks, and the package's outer face."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import qixai_fast as qf
from qixai_fast._device import home_of, resolve_device, to_numpy
from qixai_fast._memory import parse_memory, release_pages, workers_within
from qixai_fast._random import as_generator
from qixai_fast._threads import ordered_map, resolve_n_jobs, single_threaded_blas
from qixai_fast._validate import as_matrix, as_vector, check_finite


@pytest.mark.parametrize(
    ("text", "size"),
    [(1000, 1000), ("1kB", 1000), ("1 KiB", 1024), ("2GB", 2 * 10**9), ("0.5M", 500_000), (np.int64(7), 7)],
)
def test_memory_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("bad", ["2 gigs", "", "-1GB", 0, -5, float("nan"), float("inf"), "0"])
def test_bad_memory_sizes(bad):
    with pytest.raises(ValueError, match="max_memory"):
        parse_memory(bad)


@pytest.mark.parametrize("bad", [True, [1], b"1"])
def test_memory_of_the_wrong_type(bad):
    with pytest.raises(TypeError, match="max_memory"):
        parse_memory(bad)


def test_budget_names_what_would_do():
    assert workers_within(None, 8, fixed=10, per_worker=10, work="it") == 8
    assert workers_within(45, 8, fixed=10, per_worker=10, work="it") == 3
    with pytest.raises(qf.MemoryBudgetError, match="max_memory=20 would do") as caught:
        workers_within(19, 8, fixed=10, per_worker=10, work="it")
    assert workers_within(caught.value.required, 8, fixed=10, per_worker=10, work="it") == 1


def _resident_pages(path):
    with open("/proc/self/smaps") as smaps:
        text = smaps.read()
    size = 0
    for part in text.split(str(path))[1:]:
        size += int(part.split("Rss:")[1].split()[0])
    return size


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_released_pages_leave_memory_and_can_be_read_again(tmp_path):
    path = tmp_path / "big.npy"
    np.save(path, np.arange(2**20, dtype=np.float64).reshape(-1, 64))
    mapped = np.load(path, mmap_mode="r")
    total = float(mapped.sum())
    assert _resident_pages(path) > 7000
    release_pages(mapped)
    assert _resident_pages(path) < 100
    assert float(mapped.sum()) == total
    matrix = as_matrix(mapped)
    for start in range(0, len(mapped), 4096):
        matrix.block(start, start + 4096)
    assert _resident_pages(path) < 2000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("order", ["C", "F"])
def test_pages_of_some_columns_are_released(tmp_path, order):
    """Of some rows of a file by columns they are not: those rows are all over it."""
    path = tmp_path / "wide.npy"
    np.save(path, np.arange(2**20, dtype=np.float64).reshape((-1, 64), order=order))
    mapped = np.load(path, mmap_mode="r")
    for part in (mapped[:, 8:56], mapped[:, ::2], mapped[:, :32]):
        total = float(part.sum())
        assert _resident_pages(path) > 3000
        release_pages(part)
        assert _resident_pages(path) < 2500  # what is mapped beside them, a large page at each end
        assert float(part.sum()) == total
    some = mapped[:, :32]
    release_pages(mapped)
    for start in range(0, len(some), 512):
        as_matrix(some).block(start, start + 512)
    assert _resident_pages(path) < 2000 or order == "F"


def test_release_pages_leaves_writable_maps_and_memory_alone(tmp_path):
    path = tmp_path / "w.npy"
    np.save(path, np.zeros(5000))
    mapped = np.load(path, mmap_mode="r+")
    mapped[:] = 3.0
    release_pages(mapped)
    release_pages(np.ones(3))
    release_pages(np.ones((4, 4))[:, ::2])
    assert np.all(mapped == 3.0)


def test_n_jobs(monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    assert (resolve_n_jobs(None), resolve_n_jobs(2), resolve_n_jobs(-1), resolve_n_jobs(-9)) == (3, 2, 3, 1)
    with pytest.raises(ValueError, match="n_jobs: 0"):
        resolve_n_jobs(0)
    for bad in (1.5, True, "2"):
        with pytest.raises(TypeError, match="n_jobs"):
            resolve_n_jobs(bad)


@pytest.mark.parametrize("n_jobs", [1, 2, 5])
def test_ordered_map_keeps_order_and_the_first_error(n_jobs):
    assert list(ordered_map(lambda i: i * i, range(50), n_jobs)) == [i * i for i in range(50)]

    def fail_late(i):
        if i in (7, 30):
            raise RuntimeError(f"item {i}")
        return i

    with pytest.raises(RuntimeError, match="item 7"):
        list(ordered_map(fail_late, range(50), n_jobs))


def test_ordered_map_bounds_what_is_in_flight():
    started = []
    results = ordered_map(lambda i: started.append(i) or i, range(100), 4)
    assert next(results) == 0
    assert len(started) <= 5
    results.close()


def test_blas_limit_is_shared_and_lifted():
    before = [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]
    with single_threaded_blas():
        # The main thread has held the limit once; it must not keep others from setting it.
        assert all(entry["num_threads"] == 1 for entry in threadpool_info() if entry["user_api"] == "blas")
    inside = threading.Event()
    leave = threading.Event()

    def other():
        with single_threaded_blas():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with single_threaded_blas():
        pass
    during = [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]
    leave.set()
    thread.join()
    after = [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]
    assert set(during) == {1}
    assert after == before


def test_random_state_as_in_scikit_learn():
    assert as_generator(3).random() == as_generator(np.int64(3)).random()
    assert as_generator(np.random.RandomState(0)).random() == as_generator(np.random.RandomState(0)).random()
    generator = np.random.default_rng(1)
    assert as_generator(generator) is generator
    assert as_generator(None).random() != as_generator(None).random()
    with pytest.raises(TypeError, match="random_state"):
        as_generator("seed")
    with pytest.raises(ValueError, match="random_state"):
        as_generator(-1)


def test_non_finite_values_are_named_by_row_and_column():
    X = np.zeros((5, 4), dtype=np.float32)
    check_finite(X, "X")
    check_finite(np.full((3, 3), np.finfo(np.float64).max), "X")
    X[3, 2] = np.nan
    X[4, 0] = np.inf
    with pytest.raises(ValueError, match=r"X: nan at row 13, column 2"):
        check_finite(X, "X", first_row=10)
    with pytest.raises(ValueError, match=r"x: inf at row 1;"):
        as_vector([0.0, np.inf], "x")


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (np.zeros(3), ValueError, r"got \(3,\); reshape"),
        (np.zeros((2, 3, 4)), ValueError, r"\(2, 3, 4\).*reduction"),
        (np.zeros((0, 3)), ValueError, "at least 1 sample"),
        (np.zeros((3, 0)), ValueError, "at least 1 feature"),
        (np.zeros((2, 2), dtype=complex), TypeError, "complex128"),
        (np.array([["a", "b"]]), TypeError, "<U1"),
        (np.zeros((2, 2), dtype=object), TypeError, "object"),
        ([[1, 2], [3]], ValueError, "X: cannot be read"),
        (None, TypeError, "X: dtype object"),
    ],
)
def test_bad_matrices(bad, error, words):
    with pytest.raises(error, match=words):
        as_matrix(bad)


def test_matrices_of_every_origin():
    torch = pytest.importorskip("torch")
    values = np.arange(12.0).reshape(4, 3)
    for X in (
        values,
        values.tolist(),
        values.astype(np.float16),
        values.astype(int),
        np.asfortranarray(values),
        torch.tensor(values, requires_grad=True),
        torch.tensor(values, dtype=torch.bfloat16),
    ):
        block = as_matrix(X).block(1, 3)
        assert block.dtype == np.float64
        assert block.flags.c_contiguous
        np.testing.assert_array_equal(block, values[1:3])
    home = home_of(torch.zeros(2))
    assert isinstance(home.bring(np.ones(2)), torch.Tensor)
    with pytest.raises(TypeError, match="sparse"):
        to_numpy(torch.zeros(2, 2).to_sparse(), "X")


def test_devices():
    assert resolve_device(None) == resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="device: 'cuda:1' cannot be used: "):
        resolve_device("cuda:1")
    with pytest.raises(ValueError, match="'tpu' is not a device"):
        resolve_device("tpu")


def test_importing_the_package_imports_no_heavy_library():
    heavy = {"numpy", "numba", "torch", "sklearn", "dask", "scipy", "matplotlib"}
    code = f"import sys, qixai_fast; print(sorted({heavy} & sys.modules.keys()))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_module_replaces_a_public_function():
    """Importing pkg.audit would replace the function pkg.audit: import everything, then look."""
    for module in pkgutil.walk_packages(qf.__path__, "qixai_fast."):
        importlib.import_module(module.name)
    for name in qf.__all__:
        value = getattr(qf, name)
        assert not inspect.ismodule(value), name
        assert callable(value), name
        assert value.__doc__, name
    assert set(qf.__all__) <= set(dir(qf))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qf.nothing
