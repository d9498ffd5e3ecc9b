"""An audit on hosts of their own: each process with a network address of its own, on one file system."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from audit_data import contents, make_store
from dask_cluster import DaskCluster
from dask_hosts import Host, NoHosts, separate_hosts

pytest.importorskip("distributed")
PATIENCE = 120.0


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    """For the caller, the scheduler, and two workers."""
    try:
        with separate_hosts(4) as found:
            yield found
    except NoHosts as reason:
        pytest.skip(f"no hosts of their own: {reason}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosts")
    make_store(folder / "store")
    return folder


def command(place: Path, out: str, host: Host | None, *options: str) -> subprocess.Popen[str]:
    """``qixai-fast audit`` of the store, on a host."""
    prefix = () if host is None else host.prefix
    shutil.rmtree(place / out, ignore_errors=True)
    told = ["--n-permutations", "199", "--layers", "conv", "--layers", "dense", *options]
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "qixai_fast", "audit", str(place / "store"), "--out", out, *told],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> None:
    """Wait for a command that has to succeed."""
    try:
        _, error = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, error


@pytest.fixture(scope="module")
def local(place: Path) -> dict[str, bytes]:
    finished(command(place, "local", None))
    return contents(place / "local")


@pytest.fixture
def cluster(place: Path, hosts: list[Host]) -> Iterator[DaskCluster]:
    """Scheduler and two workers, which serve their work on addresses of their own."""
    cluster = DaskCluster(place, hosts[1])
    try:
        for host in hosts[2:]:
            cluster.add_worker(host=host)
        yield cluster
    finally:
        cluster.close()


def test_the_same_bits_from_hosts_of_their_own(
    place: Path, hosts: list[Host], cluster: DaskCluster, local: dict[str, bytes]
) -> None:
    assert cluster.address.startswith(f"tcp://{hosts[1].address}:")
    finished(command(place, "apart", hosts[0], "--scheduler", cluster.address))
    assert contents(place / "apart") == local
    logs = [(place / f"worker-{number}.log").read_text() for number in range(2)]
    for host, log in zip(hosts[2:], logs, strict=True):
        assert f"Start worker at:      tcp://{host.address}:" in log


def test_a_host_whose_cable_is_pulled(
    place: Path, hosts: list[Host], cluster: DaskCluster, local: dict[str, bytes]
) -> None:
    """Its worker neither answers nor closes its connection; the other one does its work as well."""
    audit = command(place, "pulled", hosts[0], "--scheduler", cluster.address)
    deadline = time.monotonic() + PATIENCE
    while audit.poll() is None and time.monotonic() < deadline:
        if len(list((place / "pulled" / ".stages").glob("*_*.json"))) >= 2:
            break
        time.sleep(0.01)
    hosts[3].unplug()
    assert audit.poll() is None
    finished(audit)
    assert contents(place / "pulled") == local
    log = (place / "scheduler.log").read_text()
    assert f"tcp://{hosts[3].address}" in "".join(line for line in log.splitlines() if "heartbeat" in line)
