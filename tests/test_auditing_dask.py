"""Audits on a real Dask cluster: the same bits, whatever happens to its workers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_data import contents, make_store, plan, simplify
from dask_cluster import DaskCluster, Hungry, Rows, dask_cluster, no_second_try

from qixai_fast import _cluster, _origins
from qixai_fast._trees import combine_tree
from qixai_fast.auditing.dask import connected, on_workers
from qixai_fast.auditing.run import audit
from qixai_fast.errors import ClusterError, StoreError
from qixai_fast.store import LayerSpec, create_store, open_store

pytest.importorskip("distributed")

QUICK = {"test_samples": 100, "null_samples": 60, "n_permutations": 99}


@pytest.fixture(autouse=True)
def _simple(monkeypatch: pytest.MonkeyPatch) -> None:
    simplify(monkeypatch.setattr)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dask")
    make_store(folder / "store")
    return folder


@pytest.fixture(scope="module")
def local(place: Path) -> dict[str, bytes]:
    """What an audit without a cluster leaves."""
    with pytest.MonkeyPatch.context() as patch:
        simplify(patch.setattr)
        audit(place / "store", place / "local", plan=plan(**QUICK), progress=False)
    return contents(place / "local")


@pytest.fixture(scope="module")
def four(place: Path) -> Iterator[DaskCluster]:
    with dask_cluster(place / "cluster", 4) as cluster:
        yield cluster


def run(place: Path, out: str, client: Any, **changes: Any) -> dict[str, bytes]:
    shutil.rmtree(place / out, ignore_errors=True)
    audit(place / "store", place / out, plan=plan(**QUICK, **changes), client=client, progress=False)
    return contents(place / out)


def during(action: Callable[[], None], wanted: Callable[[], bool]) -> threading.Thread:
    """Do something as soon as a condition holds."""

    def watch() -> None:
        while not wanted():
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def stages(place: Path, out: str) -> int:
    # Products that several stages share are kept beside them.
    kept = (place / out / ".stages").glob("*_*.json")
    return sum(not path.name.startswith("moments") for path in kept)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 13, 64, 100])
@pytest.mark.parametrize("size", [1, 2, 8])
def test_aligned_subtrees_combine_as_the_whole_tree(n: int, size: int) -> None:
    def combine(a: str, b: str) -> str:
        return f"({a} {b})"

    leaves = [str(i) for i in range(n)]
    if not leaves:
        with pytest.raises(ValueError, match="at least one"):
            combine_tree(leaves, combine)
        return
    level = [combine_tree(leaves[i : i + size], combine) for i in range(0, n, size)]
    while len(level) > 1:
        level = [combine_tree(level[i : i + 4], combine) for i in range(0, len(level), 4)]
    assert level[0] == combine_tree(leaves, combine)


def test_views_of_files_travel_as_their_place(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(200_000.0).reshape(500, 400))
    whole = np.load(tmp_path / "x.npy", mmap_mode="r")
    for view in (whole, whole[3:77], whole[:, 5:9], whole[10:20, 1:300:7], whole.T, whole[7]):
        sent = _origins.dump(view)
        assert len(sent) < 1000
        found = _origins.read(sent)
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, view)
    made = _origins.derived(np.add, whole, 1.0)
    assert len(_origins.dump([made, made])) < 2000
    np.testing.assert_array_equal(_origins.read(_origins.dump(made)), made)
    # Others are sent themselves.
    plain = np.arange(1000.0)
    np.testing.assert_array_equal(_origins.read(_origins.dump(plain)), plain)
    assert len(_origins.dump(np.array(whole))) > 1_000_000
    os.truncate(tmp_path / "x.npy", 1000)
    with pytest.raises(StoreError, match=r"x\.npy.*only 1000 bytes"):
        _origins.read(sent)
    _origins.forget()


def test_the_same_bits_for_any_number_of_workers(place: Path, local: dict[str, bytes]) -> None:
    with dask_cluster(place / "growing", 1) as cluster, cluster.client(1) as client:
        for workers in (1, 2):
            while len(cluster.workers) < workers:
                cluster.add_worker()
            client.wait_for_workers(workers, timeout=60)
            assert run(place, f"out{workers}", client) == local


def test_the_same_bits_on_four_workers_and_for_other_data(place: Path, four: DaskCluster) -> None:
    """Leaves enough for subtrees, float16 and float64, a dead map, more features than another layer."""
    rng = np.random.default_rng(3)
    n = 9000
    layers = {
        "wide": rng.standard_normal((n, 70)).astype(np.float16),
        "deep": rng.standard_normal((n, 30)) * 1e-3 + 5,
        "relu": np.maximum(rng.standard_normal((n, 12)), 0).astype(np.float32),
    }
    layers["relu"][:, 4] = 0
    specs = {name: LayerSpec(data.shape[1:], str(data.dtype)) for name, data in layers.items()}
    with create_store(place / "larger", layers=specs, labels=True) as writer:
        writer.append(layers, labels=np.arange(n) % 4)
    chosen = plan(n_permutations=59, test_samples=500, null_samples=300, max_maps=24)
    audit(place / "larger", place / "here", plan=chosen, progress=False)
    with four.client(4) as client:
        with on_workers(client, open_store(place / "larger")) as cluster:
            audit(place / "larger", place / "there", plan=chosen, progress=False)
            assert cluster.n_tasks > 100
        assert contents(place / "there") == contents(place / "here")
        # Without a folder, codes lie where workers need not see them; nothing else changes.
        found = audit(place / "larger", plan=chosen, client=client, progress=False)
        with np.load(place / "here" / "mutual_info_00_wide_01_deep.npz") as file:
            np.testing.assert_array_equal(
                found.arrays["mutual_info_00_wide_01_deep"]["values"], file["values"]
            )


def test_data_is_not_sent(place: Path, four: DaskCluster) -> None:
    """All that leaves this process for the workers is smaller than one layer."""
    rng = np.random.default_rng(5)
    data = rng.standard_normal((60_000, 40)).astype(np.float32)
    with create_store(place / "big", layers={"a": LayerSpec((40,), "float32")}) as writer:
        writer.append({"a": data})
    sent: list[int] = []
    original = _origins.dump

    def counted(value: Any) -> bytes:
        found = original(value)
        sent.append(len(found))
        return found

    with four.client(4) as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_origins, "dump", counted)
        chosen = plan(n_permutations=29, test_samples=500, null_samples=300)
        audit(place / "big", place / "bigout", plan=chosen, client=client, progress=False)
    assert len(sent) > 20
    assert sum(sent) < data.nbytes / 4


def test_a_worker_killed_in_mid_run(place: Path, local: dict[str, bytes]) -> None:
    with dask_cluster(place / "killed", 2) as cluster, cluster.client(2) as client:
        victim = cluster.workers[0]
        thread = during(victim.kill, lambda: stages(place, "survived") >= 3)
        assert run(place, "survived", client) == local
        thread.join(timeout=10)
        assert victim.wait(timeout=10) == -signal.SIGKILL


def test_a_slow_worker_holds_nobody_up_for_good(
    place: Path, local: dict[str, bytes], four: DaskCluster
) -> None:
    slow = four.workers[0]

    def stop() -> None:
        os.kill(slow.pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(slow.pid, signal.SIGCONT)

    with four.client(4) as client:
        thread = during(stop, lambda: stages(place, "slow") >= 1)
        assert run(place, "slow", client) == local
        thread.join(timeout=10)


def test_no_scheduler_any_more(place: Path, local: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear error; finished stages are kept, and an audit without a cluster goes on from there."""
    monkeypatch.setattr(_cluster, "_PATIENCE_SECONDS", 3.0)
    shutil.rmtree(place / "cut", ignore_errors=True)
    with dask_cluster(place / "gone", 2) as cluster:
        client = cluster.client(2)
        during(cluster.scheduler.kill, lambda: stages(place, "cut") >= 2)
        with pytest.raises(ClusterError, match=re.escape(cluster.address)):
            run(place, "cut", client)
        client.close(timeout=1)
    kept = stages(place, "cut")
    assert kept >= 2
    report = audit(place / "store", place / "cut", plan=plan(**QUICK), progress=False)
    assert sum(stage["reused"] for stage in report.timings["stages"].values()) == kept
    assert contents(place / "cut") == local


def test_all_workers_gone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cluster, "_PATIENCE_SECONDS", 2.0)
    with dask_cluster(place / "empty", 1) as cluster, cluster.client(1) as client:
        during(cluster.workers[0].kill, lambda: stages(place, "alone") >= 1)
        with pytest.raises(ClusterError, match="has no workers"):
            run(place, "alone", client)


def test_a_worker_out_of_memory(place: Path, local: dict[str, bytes]) -> None:
    """The nanny ends it, again and again: one error says so, and the cluster is still of use."""
    with dask_cluster(place / "small", 0) as cluster:
        cluster.add_worker("--memory-limit", "400MB", nanny=True)
        with cluster.client(1) as client:
            client.run_on_scheduler(no_second_try)
            found = "memory was too small.*memory-limit"
            with _cluster.on_cluster(client), pytest.raises(ClusterError, match=found):
                list(_cluster.mapped(Hungry(), [1], 1))
            client.wait_for_workers(1, timeout=60)
            assert run(place, "recovered", client) == local


def test_a_worker_that_does_not_see_the_store(place: Path, tmp_path: Path, four: DaskCluster) -> None:
    with four.client(4) as client:
        moved = tmp_path / "moved"
        shutil.copytree(place / "store", moved)
        other = open_store(moved)
        # Seen at the start: a store that is not there, and one with other samples.
        shutil.move(moved, tmp_path / "away")
        with pytest.raises(
            StoreError, match=rf"{re.escape(str(moved))}: the worker at tcp://.* cannot read it"
        ):
            audit(other, plan=plan(**QUICK), client=client, progress=False)
        # Seen in mid-run: a file that is not there for a worker.
        shutil.move(tmp_path / "away", moved)
        view = other["conv"]
        shutil.move(moved, tmp_path / "away")
        found = r"the worker at tcp://.*same path"
        with _cluster.on_cluster(client), pytest.raises(StoreError, match=found):
            list(_cluster.mapped(Rows(view), range(3), 1))


def test_bad_values_are_named_as_without_a_cluster(place: Path, four: DaskCluster) -> None:
    data = np.ones((5000, 8))
    data[:, 0] = np.arange(5000)
    data[4321, 5] = data[77, 3] = np.nan
    with create_store(place / "bad", layers={"a": LayerSpec((8,), "float64")}) as writer:
        writer.append({"a": data})
    with four.client(4) as client:
        for chosen in (None, client):
            with pytest.raises(ValueError, match="nan at row 77, column 3"):
                audit(place / "bad", plan=plan(**QUICK), client=chosen, progress=False)


def test_what_is_no_client(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"client: wanted a distributed\.Client.*got str"):
        audit(place / "store", client="tcp://localhost:8786", progress=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"qixai-fast\[dask\]"):
        audit(place / "store", client=object(), progress=False)


def test_no_scheduler_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qixai_fast.auditing.dask._CONNECT_SECONDS", 1.0)
    with (
        pytest.raises(ClusterError, match="no Dask scheduler answers at tcp://127"),
        connected("tcp://127.0.0.1:1"),
    ):
        pass
    with pytest.raises(ValueError, match="tcp://HOST:PORT"), connected("nonsense://x"):
        pass


def test_the_command(place: Path, four: DaskCluster) -> None:
    """``qixai-fast audit --scheduler``, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "qixai_fast",
        "audit",
        str(place / "store"),
        "--out",
        str(place / "typed"),
    ]
    options = ["--scheduler", four.address, "--n-permutations", "29", "--layers", "noise", "--quiet"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert (place / "typed" / "report.html").exists()
