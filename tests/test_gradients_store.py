"""Attributions that go to a store: the same as in memory, in little memory, and resumable after any end."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from attributed_networks import cnn, normal, seeded

import qixai_fast as qf
from qixai_fast.attribution import Attribution
from qixai_fast.store import LayerSpec, create_store

torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of torch change with its threads, and other tests leave this process with one or with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


N, STEPS = 90, 6
BUDGET = "17.7MB"  # room for a few samples in a pass: many chunks


class Small(nn.Module):
    """Two inputs; writes the rows of every forward pass to a file, which outlives a kill."""

    def __init__(self, log=None):
        super().__init__()
        self.first = nn.Linear(700, 20)
        self.second = nn.Linear(20, 4)
        self.log = log

    def forward(self, x, gain):
        if self.log is not None:
            with open(self.log, "a", encoding="ascii") as file:
                file.write(f"{len(x)}\n")
            time.sleep(0.004)
        return self.second(torch.tanh(self.first(x))) * gain


def small(log=None):
    model = seeded(Small)
    model.log = log
    return model


def arguments():
    return {
        "inputs": (normal(N, 700, dtype=torch.float32), normal(N, 1, seed=1, dtype=torch.float32)),
        "target": torch.arange(N) % 4,
        "n_steps": STEPS,
        "max_memory": BUDGET,
    }


def content(path):
    return {file.name: file.read_bytes() for file in Path(path).glob("*.npy")}


def rows_run(log):
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def same(result, expected, exact=True):
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-6, "atol": 1e-7}
    for ours, theirs in zip(result.values, expected.values, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **tolerance)
    torch.testing.assert_close(result.delta, expected.delta, rtol=0, atol=0 if exact else 1e-5)
    assert result.n_steps.tolist() == expected.n_steps.tolist()
    assert result.n_gradients.tolist() == expected.n_gradients.tolist()
    assert (result.converged is None) == (expected.converged is None)
    if expected.converged is not None:
        assert result.converged.tolist() == expected.converged.tolist()


# The same as in memory


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tol": 1e-2},
        {"baselines": [None, 0.5, torch.rand(1, 1, 12, 12)]},
        {"layer": "0"},
        {"layer": "9", "tol": 0.1, "target": [0, 1, 2, 3, 4] * 8},
        {"target": lambda y: y[:, 1] - y[:, 0], "method": "gausslegendre", "multiply_by_inputs": False},
    ],
    ids=["plain", "tol", "baselines", "layer", "layer-tol", "callable"],
)
def test_same_bits_as_in_memory(tmp_path, options):
    model, x = seeded(cnn), normal(40, 1, 12, 12, dtype=torch.float32)
    call = {"target": torch.arange(40) % 5, "n_steps": 5} | options
    expected = qf.integrated_gradients(model, x, **call)
    for _ in range(2):  # the second call reads
        result = qf.integrated_gradients(model, x, **call, out=tmp_path / "s")
        assert isinstance(result, Attribution)
        assert isinstance(result.values, torch.Tensor)
        assert result.values.shape == expected.values.shape
        same(result, expected)
    assert qf.open_store(tmp_path / "s").verify() == []


def test_chunks_of_a_small_budget(tmp_path):
    result = qf.integrated_gradients(small(), **arguments(), out=tmp_path / "s")
    same(result, qf.integrated_gradients(small(), **arguments() | {"max_memory": None}), exact=False)
    journal = (tmp_path / "s" / "journal.jsonl").read_text().splitlines()
    assert len(journal) > 8, "many chunks"
    store = qf.open_store(tmp_path / "s")
    assert list(store) == ["values_0", "values_1", "delta", "n_steps", "n_gradients"]
    assert store["delta"].shape == (N, 1)
    assert store.metadata["n_steps"] == STEPS
    assert store.metadata["method"] == "riemann_middle"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_and_samples_of_one_number(tmp_path, dtype):
    x = normal(7, dtype=dtype)
    result = qf.integrated_gradients(lambda x: x * x, x, out=tmp_path / "s", n_steps=3)
    expected = qf.integrated_gradients(lambda x: x * x, x, n_steps=3)
    assert result.values.shape == (7,)
    assert torch.equal(result.values, expected.values)
    assert qf.open_store(tmp_path / "s").info["values"].source_dtype == str(dtype).removeprefix("torch.")


def test_one_sample_and_a_tuple_of_one(tmp_path):
    x = normal(1, 3)
    result = qf.integrated_gradients(lambda x: x.prod(1), (x,), out=str(tmp_path / "s"))
    assert isinstance(result.values, tuple)
    assert torch.equal(result.values[0], qf.integrated_gradients(lambda x: x.prod(1), x).values)


def test_arguments_that_look_like_rows_of_a_chunk(tmp_path):
    """Constants of 40 rows are no samples, although the last chunk has 40."""
    torch.manual_seed(0)
    embedding, head = nn.Embedding(50, 2000), nn.Linear(2000, 40)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = embedding, head

        def forward(self, ids, constants, gain):
            return (self.head(self.embedding(ids)) @ constants).squeeze(1) * gain

    ids, gain = torch.arange(200) % 50, normal(200, dtype=torch.float32)
    call = {"layer": "embedding", "n_steps": 2, "additional_forward_args": (normal(40, 1).float(), gain)}
    expected = qf.integrated_gradients(Model(), ids, **call)
    for i, budget in enumerate(("20MB", "30MB")):
        result = qf.integrated_gradients(Model(), ids, **call, out=tmp_path / str(i), max_memory=budget)
        torch.testing.assert_close(result.values, expected.values, rtol=1e-5, atol=1e-6)


def test_the_result_is_mapped_and_the_files_are_safe_from_it(tmp_path):
    call = {"inputs": normal(5, 3), "out": tmp_path / "s"}
    first = qf.integrated_gradients(lambda x: x.sum(1), **call)
    kept = first.values.clone()
    first.values.zero_()
    assert torch.equal(qf.integrated_gradients(lambda x: x.sum(1), **call).values, kept)


def test_gradients_that_are_not_finite_are_kept_and_warned_of(tmp_path):
    call = {"inputs": torch.ones(3, 2), "method": "riemann_left", "out": tmp_path / "s"}
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=r"not finite on the path of 3 sample"):
            assert not qf.integrated_gradients(_root, **call).delta.isfinite().any()


def _root(x):
    return x.sqrt().sum(1)


# Going on


def test_a_finished_store_runs_nothing(tmp_path):
    log = tmp_path / "rows"
    first = qf.integrated_gradients(small(log), **arguments(), out=tmp_path / "s")
    before = rows_run(log)
    again = qf.integrated_gradients(small(log), **arguments(), out=tmp_path / "s")
    assert rows_run(log) == before > 0
    same(again, first)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
import qixai_fast as qf
from test_gradients_store import arguments, small
torch.set_num_threads(1)
qf.integrated_gradients(small(Path(sys.argv[2])), **arguments(), out=sys.argv[3])
"""


def child(folder):
    command = [
        sys.executable,
        "-c",
        CHILD,
        str(Path(__file__).parent),
        str(folder / "rows"),
        str(folder / "s"),
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for_rows(folder, process, count):
    deadline = time.monotonic() + 60
    while rows_run(folder / "rows") < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(("sign", "seed"), [("SIGKILL", 0), ("SIGKILL", 1), ("SIGINT", 2)])
def test_killed_at_a_random_moment(tmp_path, sign, seed):
    whole = qf.integrated_gradients(small(), **arguments(), out=tmp_path / "whole")
    process = child(tmp_path)
    wait_for_rows(tmp_path, process, random.Random(seed).randrange(1, N * STEPS))
    process.send_signal(getattr(signal, sign))
    process.communicate()
    assert process.returncode != 0
    begun = (tmp_path / "s" / "manifest.json").exists()
    kept = qf.open_store(tmp_path / "s").n_samples if begun else 0
    assert kept < N
    log = tmp_path / "after"
    result = qf.integrated_gradients(small(log), **arguments(), out=tmp_path / "s")
    assert rows_run(log) == (N - kept) * (STEPS + 2) + 2, "what was committed is not computed again"
    same(result, whole)
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    assert qf.open_store(tmp_path / "s").verify() == []


def test_kills_one_after_the_other(tmp_path):
    whole = qf.integrated_gradients(small(), **arguments(), out=tmp_path / "whole")
    moments = random.Random(7)
    done = [0]
    for _ in range(2):
        process = child(tmp_path)
        before = rows_run(tmp_path / "rows")
        wait_for_rows(tmp_path, process, before + moments.randrange(2, N * STEPS // 4))
        process.kill()
        process.communicate()
        done.append(qf.open_store(tmp_path / "s").n_samples)
    assert done == sorted(done)
    assert 0 < done[-1] < N
    same(qf.integrated_gradients(small(), **arguments(), out=tmp_path / "s"), whole)
    assert content(tmp_path / "s") == content(tmp_path / "whole")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_keeps_what_was_made(tmp_path, error):
    class Failing(Small):
        calls = 0

        def forward(self, x, gain):
            self.calls += 1
            if self.calls == 40:
                raise error
            return super().forward(x, gain)

    Failing.__qualname__ = Small.__qualname__
    model = Failing()
    model.load_state_dict(small().state_dict())
    with pytest.raises(error):
        qf.integrated_gradients(model, **arguments(), out=tmp_path / "s")
    kept = qf.open_store(tmp_path / "s").n_samples
    assert 0 < kept < N
    log = tmp_path / "rows"
    result = qf.integrated_gradients(small(log), **arguments(), out=tmp_path / "s")
    assert rows_run(log) == (N - kept) * (STEPS + 2) + 2
    same(result, qf.integrated_gradients(small(), **arguments(), out=tmp_path / "whole"))


CALLS = []


def test_another_budget_may_go_on(tmp_path):
    def stopping(x):
        CALLS.append(len(x))
        if len(CALLS) == 30:
            raise ZeroDivisionError
        return (x * x).sum(1)

    CALLS.clear()
    call = {"inputs": normal(60, 700, dtype=torch.float32), "n_steps": 3, "out": tmp_path / "s"}
    with pytest.raises(ZeroDivisionError):
        qf.integrated_gradients(stopping, **call, max_memory=BUDGET)
    assert 0 < qf.open_store(tmp_path / "s").n_samples < 60
    result = qf.integrated_gradients(stopping, **call, max_memory="60MB")
    assert CALLS[-1] > CALLS[0] * 2, "larger batches"
    torch.testing.assert_close(result.values, call["inputs"] ** 2, rtol=1e-5, atol=1e-6)


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": normal(5, 3, seed=9)}, "inputs is"),
        ({"inputs": normal(6, 3)}, "inputs is"),
        ({"model": nn.Linear(3, 2)}, "model is"),
        ({"target": 1}, "target is 0 in the store, 1 now"),
        ({"baselines": 0.5}, "baselines is None in the store, '0.5' now"),
        ({"baselines": torch.ones(1, 3)}, "baselines is None in the store"),
        ({"n_steps": 5}, "n_steps is 4 in the store, 5 now"),
        ({"method": "simpson"}, "method is 'riemann_middle' in the store, 'simpson' now"),
        ({"multiply_by_inputs": False}, "multiply_by_inputs is True in the store, False now"),
        ({"tol": 0.1}, "tol is None in the store, 0.1 now; atol is None"),
        ({"layer": "0"}, "layer is None in the store, '0' now"),
    ],
)
def test_other_attributions_are_refused(tmp_path, change, message):
    model = nn.Sequential(seeded(lambda: nn.Linear(3, 2)))
    call = {"model": model, "inputs": normal(5, 3, dtype=torch.float64), "target": 0, "n_steps": 4}
    model.double()
    qf.integrated_gradients(**call, out=tmp_path / "s")
    before = content(tmp_path / "s")
    changed = call | change
    changed["model"] = changed["model"].double()
    with pytest.raises(qf.StoreError, match=f"made differently: .*{re.escape(message)}"):
        qf.integrated_gradients(**changed, out=tmp_path / "s")
    assert content(tmp_path / "s") == before


def test_functions_are_told_apart_by_what_they_close_over(tmp_path):
    def scaled(weight):
        return lambda x: x @ weight

    x = normal(4, 3)
    for i in range(2):
        qf.integrated_gradients(scaled(normal(3)), x, out=tmp_path / "s")
        with pytest.raises(qf.StoreError, match="model is"):
            qf.integrated_gradients(scaled(normal(3, seed=1 + i)), x, out=tmp_path / "s")


def test_foreign_directories(tmp_path):
    call = {"model": lambda x: x.sum(1), "inputs": normal(4, 3)}
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "thesis.txt").write_text("mine")
    with pytest.raises(qf.StoreError, match=r"files but no manifest\.json"):
        qf.integrated_gradients(**call, out=tmp_path / "files")
    assert (tmp_path / "files" / "thesis.txt").read_text() == "mine"
    with create_store(tmp_path / "activations", {"values": LayerSpec((3,))}) as writer:
        writer.append({"values": np.ones((4, 3))})
    with pytest.raises(qf.StoreError, match="holds no attributions"):
        qf.integrated_gradients(**call, out=tmp_path / "activations")
    with pytest.raises(qf.StoreError, match="is a file"):
        qf.integrated_gradients(**call, out=tmp_path / "files" / "thesis.txt")
    with pytest.raises(TypeError, match="out: wanted the path of a directory, got int"):
        qf.integrated_gradients(**call, out=3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": torch.tensor([[1.0, float("nan"), 2.0]])}, ValueError, "inputs: nan at row 0, column 1"),
        ({"target": [0, 1, 0, 2]}, ValueError, "target: wanted 0 to 1 .* got 2 for sample 3"),
        ({"layer": "9"}, ValueError, "layer: '9' is no module"),
        ({"layer": "0", "inputs": [1.0]}, TypeError, "inputs: wanted a torch tensor, got list"),
        ({"layer": "0", "target": [0, 1, 0, 2]}, ValueError, "target: wanted 0 to 1 .* got 2 for sample 3"),
        ({"layer": "0", "target": [0, 1]}, ValueError, "target: wanted one index a sample"),
    ],
)
def test_bad_arguments_leave_no_store(tmp_path, change, error, message):
    call = {"model": nn.Sequential(nn.Linear(3, 2)), "inputs": torch.ones(4, 3), "target": 0} | change
    with pytest.raises(error, match=message):
        qf.integrated_gradients(**call, out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


_FULL = """
import resource, signal, sys, torch, qixai_fast as qf
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
x = torch.ones(3000, 1000)
if sys.argv[2] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
qf.integrated_gradients(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Identity()), x, target=3, n_steps=1,
                        out=sys.argv[1])
"""


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_full_disk_then_more_room(tmp_path):
    command = [sys.executable, "-c", _FULL, str(tmp_path / "s")]
    failed = subprocess.run([*command, "full"], capture_output=True, text=True, check=False)
    last = failed.stderr.strip().splitlines()[-1]
    assert re.search(r"StoreError: .*values\.npy: chunk \d .*could not be written \(File too large\)", last)
    assert "make the same call again" in last
    kept = qf.open_store(tmp_path / "s").n_samples
    assert 0 < kept < 3000
    subprocess.run([*command, "room"], check=True)
    store = qf.open_store(tmp_path / "s")
    assert (store["values"][:, 3] == 1).all()
    assert store["values"].sum() == store.n_samples == 3000


# Memory


_PEAK = """
import sys, warnings
import numpy as np, torch, qixai_fast as qf
from torch import nn

warnings.simplefilter("ignore")  # a tensor over a read-only memmap
shape, folder, option = (1500, 3, 64, 64), sys.argv[1], sys.argv[2]
mapped = np.memmap(folder + "/x", np.float32, "w+", shape=shape)
for first in range(0, len(mapped), 100):
    mapped[first : first + 100] = np.random.default_rng(first).random((100, *shape[1:]), np.float32)
mapped.flush()
del mapped
x = torch.from_numpy(np.memmap(folder + "/x", np.float32, "r", shape=shape))
model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 5)).eval()
options = {"plain": {}, "layer": {"layer": "0"}, "baselines": {"baselines": [0, 0.5, 1]}}
call = {"target": 1, "n_steps": 2, **options[option]}

def high_water():
    with open("/proc/self/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0]) * 1024

qf.integrated_gradients(model, x[:3].clone(), **call, out=folder + "/warm")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = high_water()
result = qf.integrated_gradients(model, x, **call, out=folder + "/s", max_memory=int(sys.argv[3]))
print(high_water() - before, x.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("option", ["plain", "layer", "baselines"])
def test_budget_is_kept_with_inputs_and_results_larger_than_it(tmp_path, option):
    """Measured as the high-water mark of a process of its own, with the pages of mapped files."""
    budget = 25_000_000
    command = [sys.executable, "-c", _PEAK, str(tmp_path), option, str(budget)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, size = map(int, run.stdout.split())
    assert size > 2.9 * budget
    assert peak <= budget


def test_too_small_a_budget_and_the_one_offered(tmp_path):
    call = {
        "model": nn.Linear(300, 3),
        "inputs": normal(50, 300, dtype=torch.float32),
        "target": 1,
        "n_steps": 2,
    }
    for options in ({}, {"tol": 0.1}, {"baselines": [0.0, 1.0, 2.0]}):
        with pytest.raises(qf.MemoryBudgetError, match="on their way to the store need") as caught:
            qf.integrated_gradients(**call, **options, out=tmp_path / str(options), max_memory="1MB")
        assert not (tmp_path / str(options)).exists()
        needed = caught.value.required
        result = qf.integrated_gradients(**call, **options, out=tmp_path / str(options), max_memory=needed)
        torch.testing.assert_close(
            result.values, qf.integrated_gradients(**call, **options).values, rtol=1e-5, atol=1e-6
        )
