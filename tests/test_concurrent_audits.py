"""Several processes on one store: audits at once, an audit while a capture appends, copies by columns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import audit_data
import numpy as np
import pytest
from audit_data import N, activations, contents

import qixai_fast as qf
from qixai_fast.auditing.run import audit
from qixai_fast.store.locking import lock, unlock

fcntl = pytest.importorskip("fcntl")

_HERE = Path(__file__).parent
_BEGIN = """
import os, sys, time
from pathlib import Path
import numpy as np
import audit_data
import qixai_fast as qf
"""
# Waits until all processes of a test are ready, so that what follows happens at one moment.
_TOGETHER = """
def together(folder, count):
    (Path(folder) / str(os.getpid())).touch()
    while len(list(Path(folder).iterdir())) < count: time.sleep(0.001)
"""
_AUDIT = """
audit_data.simplify_for_good()
def run(store, out):
    return qf.audit(store, out, plan=audit_data.plan(n_permutations=29, n_jobs=2), progress=False)
"""


@pytest.fixture
def store(tmp_path):
    audit_data.make_store(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def rooms(tmp_path):
    (tmp_path / "ready").mkdir()
    return tmp_path


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::UserWarning", "-c", _BEGIN + _TOGETHER + code, *map(str, arguments)],
        cwd=_HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(child):
    """What a child printed; it must end well, and soon."""
    try:
        out, err = child.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        child.kill()
        pytest.fail(f"hangs: {child.communicate()}")
    assert child.returncode == 0, err
    return out


@contextmanager
def ended(*children):
    """No child outlives its test."""
    try:
        yield
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.communicate()


def test_two_audits_of_one_store(store, rooms):
    """At one moment, and both want the same copies by columns."""
    code = _AUDIT + (
        "store, out, ready = sys.argv[1:]\n"
        "opened = qf.open_store(store)\n"
        "together(ready, 2)\n"
        "copies = [np.array(opened.columns(name)) for name in opened]\n"
        "assert all(np.array_equal(copy, opened[name]) for copy, name in zip(copies, opened))\n"
        "run(opened, out)\n"
    )
    children = [start(code, store, rooms / name, rooms / "ready") for name in ("one", "two")]
    with ended(*children):
        for child in children:
            finish(child)
    one, two = contents(rooms / "one"), contents(rooms / "two")
    assert one == two
    assert {"results.json", "report.html"} < set(one)
    opened = qf.open_store(store)
    assert opened.verify() == []
    copies = sorted(path.name.split(".")[0] for path in (store / "columns").iterdir())
    assert copies == sorted(opened)


def test_two_audits_into_one_directory(store, rooms):
    """The second has one clear error, the first goes on; after a kill of the holder the way is free."""
    code = _AUDIT + (
        "from qixai_fast.auditing import runner\n"
        "inner = runner.StageRunner.run\n"
        "def stopping(self, *arguments):\n"
        "    if len(self.names) == 2:\n"
        "        print('inside', flush=True); sys.stdin.readline()\n"
        "    return inner(self, *arguments)\n"
        "runner.StageRunner.run = stopping\n"
        "run(*sys.argv[1:])\n"
    )
    second = _AUDIT + "run(*sys.argv[1:])\n"
    first = start(code, store, rooms / "out")
    with ended(first):
        assert first.stdout.readline() == "inside\n"
        began = time.monotonic()
        with pytest.raises(ValueError, match=r"out: another audit is writing to .*out"):
            audit(store, rooms / "out", progress=False)
        assert time.monotonic() - began < 10
        first.stdin.write("\n")
        first.stdin.flush()
        finish(first)
    held = start(code, store, rooms / "killed")
    with ended(held):
        assert held.stdout.readline() == "inside\n"
        held.send_signal(signal.SIGKILL)
        held.communicate()
    again = start(second, store, rooms / "killed")
    with ended(again):
        finish(again)
    assert contents(rooms / "killed") == contents(rooms / "out")
    timings = json.loads((rooms / "killed" / "timings.json").read_text())
    assert sum(stage["reused"] for stage in timings["stages"].values()) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_holds_no_lock_of_its_parent(tmp_path):
    """Killed parents leave workers behind for a while; their copies of open files must lock nothing."""
    for how in ("let go", "closed"):
        with open(tmp_path / "lock", "ab") as file, open(tmp_path / "lock", "ab") as other:
            lock(file, wait=False)
            with pytest.raises(BlockingIOError):
                lock(other, wait=False)
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            try:
                with pytest.raises(BlockingIOError):  # the child has not taken it from its parent
                    lock(other, wait=False)
                time.sleep(0.1)
                unlock(file) if how == "let go" else file.close()
                lock(other, wait=False)
            finally:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _grown(path, n_samples):
    """The first samples of a capture, as a store of its own."""
    layers, labels = activations()
    specs = {name: qf.LayerSpec(shape=values.shape[1:], dtype="float32") for name, values in layers.items()}
    options = {"labels": True, "metadata": {"class_names": audit_data.CLASSES}, "chunk_bytes": 24 * 80}
    with qf.create_store(path, specs, resume=True, **options) as writer:
        rows = slice(writer.n_samples, n_samples)
        writer.append({name: values[rows] for name, values in layers.items()}, labels=labels[rows])
    return qf.open_store(path)


def test_an_audit_while_a_capture_appends(rooms):
    """It sees the samples complete at its start, and gives what an audit of a store of these alone does."""
    code = (
        "import test_concurrent_audits as here\n"
        "for n in range(120, audit_data.N + 1, 2):\n"
        "    here._grown(sys.argv[1], n)\n"  # opens and closes: manifest, headers and journal all change
        "    if n == 130: print('growing', flush=True)\n"
        "    time.sleep(0.005)\n"
        "print('done')\n"
    )
    _grown(rooms / "store", 120)
    writer = start(code, rooms / "store")
    seen = []
    with ended(writer), pytest.MonkeyPatch.context() as patched:
        audit_data.simplify(patched.setattr)
        assert writer.stdout.readline() == "growing\n"
        while writer.poll() is None and len(seen) < 2:
            opened = qf.open_store(rooms / "store")
            n = opened.n_samples
            report = audit(opened, plan=audit_data.plan(n_permutations=29), progress=False)
            for name in opened:
                np.testing.assert_array_equal(opened.columns(name), activations()[0][name][:n])
            seen.append((n, report))
        assert finish(writer) == "done\n"
        assert seen[0][0] < N
        for n, report in (seen[0], seen[-1]):
            assert report.results["store"]["n_samples"] == n
            few = _grown(rooms / f"alone{n}", n)
            alone = audit(few, plan=audit_data.plan(n_permutations=29), progress=False)
            assert numbers(report) == numbers(alone)
            for name, arrays in alone.arrays.items():
                for field, values in arrays.items():
                    np.testing.assert_array_equal(report.arrays[name][field], values)
    whole = qf.open_store(rooms / "store")
    assert whole.n_samples == N
    assert whole.verify() == []
    assert all(np.array_equal(whole[name], values) for name, values in activations()[0].items())


def numbers(report):
    """Results, but for the checksum of a store cut into other chunks."""
    return {**report.results, "store": {**report.results["store"], "checksum": None}}


def test_copies_by_columns_while_samples_are_added(rooms):
    """Processes that see different numbers of samples remove each other's copies, and all get their own."""
    code = (
        "opened, ready = [qf.open_store(path) for path in sys.argv[1:3]], sys.argv[3]\n"
        "together(ready, 3)\n"
        "for turn in range(15):\n"
        "    import test_concurrent_audits as here\n"
        "    name = list(opened[0])[turn % 3]\n"
        "    copy = opened[0].columns(name)\n"
        "    assert len(copy) == opened[0].n_samples, len(copy)\n"
        "    assert np.array_equal(copy, opened[0][name])\n"
        "    assert opened[0].verify() == []\n"
    )
    opened = []
    for n in (100, 150, N):
        _grown(rooms / "store", n)
        opened.append(start(code, rooms / "store", rooms / "store", rooms / "ready"))
        if n < N:
            # The next samples come when this process has opened the store.
            while len(list((rooms / "ready").iterdir())) < len(opened):
                assert opened[-1].poll() is None, opened[-1].communicate()
                time.sleep(0.01)
    with ended(*opened):
        for child in opened:
            finish(child)
    assert not [path for path in (rooms / "store" / "columns").iterdir() if path.suffix == ".tmp"]
    assert qf.open_store(rooms / "store").verify() == []
