"""A real Dask cluster for tests: scheduler and workers as processes of their own, which tests may kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from dask_hosts import Host

PATIENCE = 60.0


class DaskCluster:
    """Processes of ``dask scheduler`` and ``dask worker``, each worker of one thread.

    Parameters
    ----------
    folder : Path
        For scratch files and logs.
    host : Host, optional
        Where the scheduler runs; this machine otherwise.
    """

    def __init__(self, folder: Path, host: Host | None = None) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        self._file = folder / "scheduler.json"
        self._file.unlink(missing_ok=True)
        scheduler = ["scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(self._file)]
        self.scheduler = self._start(*scheduler, log="scheduler", host=host)
        deadline = time.monotonic() + PATIENCE
        while not self._file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.address = str(json.loads(self._file.read_text())["address"])

    def _start(self, *arguments: str, log: str, host: Host | None) -> subprocess.Popen[bytes]:
        prefix, address = ((), "127.0.0.1") if host is None else (host.prefix, host.address)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).resolve().parents[:2])),
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s",
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s" if host is None else "4s",
            "DASK_TEMPORARY_DIRECTORY": str(self.folder),
        }
        command = f"distributed.cli.dask_{arguments[0]}"
        with open(self.folder / f"{log}.log", "wb") as output:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", command, *arguments[1:], "--host", address],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def add_worker(
        self, *options: str, nanny: bool = False, host: Host | None = None
    ) -> subprocess.Popen[bytes]:
        """One more worker; with a nanny it is started again when it dies."""
        name = f"worker-{len(self.workers)}"
        arguments = ["--nthreads", "1", "--no-dashboard", "--name", name]
        arguments += ["--nanny" if nanny else "--no-nanny", "--local-directory", str(self.folder / name)]
        worker = self._start("worker", self.address, *arguments, *options, log=name, host=host)
        self.workers.append(worker)
        return worker

    def client(self, n_workers: int) -> Any:
        """A client that sees so many workers."""
        from distributed import Client

        client = Client(self.address, timeout=PATIENCE)
        client.wait_for_workers(n_workers, timeout=PATIENCE)
        return client

    def close(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Hungry:
    """A task that needs more memory than its worker has."""

    def __call__(self, item: int) -> int:
        held = [np.ones(2**20)]
        while len(held) < 1000:
            held.append(np.ones(2**22))
            time.sleep(0.01)
        return item


class Rows:
    """A task that sums a row."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __call__(self, row: int) -> float:
        return float(self.data[row].sum())


def no_second_try(dask_scheduler: Any) -> None:
    """On a scheduler: a task that took a worker with it is not given to another."""
    dask_scheduler.allowed_failures = 0


@contextlib.contextmanager
def dask_cluster(folder: Path, n_workers: int) -> Iterator[DaskCluster]:
    """A cluster of so many workers, started together."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = DaskCluster(folder)
    try:
        for _ in range(n_workers):
            cluster.add_worker()
        yield cluster
    finally:
        cluster.close()
