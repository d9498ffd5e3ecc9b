"""An audit whose work is done by the workers of a Dask cluster.

The same stages run in the same order under the same keys, in the calling process; below them, leaves of rows
and blocks of pairs go to the workers (:mod:`qixai_fast._cluster`). Serial kernels run inside tasks, each
worker opens the store by its path, and the bits are those of an audit on one machine of their processor.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import __version__
from .._cluster import Cluster, on_cluster
from ..errors import ClusterError, StoreError
from ..store import ActivationStore, open_store
from .runner import _LIBRARIES, _processor, _version

_INSTALL = "pip install 'qixai-fast[dask]'"
_CONNECT_SECONDS = 15.0


@contextmanager
def connected(address: str | None, file: Path | None = None) -> Iterator[Any]:
    """A client of the scheduler at an address, or named in a scheduler file; None where neither is given.

    Raises
    ------
    ImportError
        Without distributed, naming the extra.
    ClusterError
        Where no scheduler answers.
    ValueError
        For an address that is none.
    """
    if address is None and file is None:
        yield None
        return
    distributed = _distributed()
    place = address or f"the address in {file}"
    try:
        client = distributed.Client(
            address, scheduler_file=None if file is None else str(file), timeout=_CONNECT_SECONDS
        )
    except (OSError, TimeoutError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ClusterError(f"no Dask scheduler answers at {place} ({reason})") from None
    except ValueError as error:
        raise ValueError(f"--scheduler: wanted tcp://HOST:PORT, got {place} ({error})") from None
    with client:
        yield client


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise ImportError(f"an audit on a cluster needs Dask's distributed: {_INSTALL}") from error
    return distributed


@contextmanager
def on_workers(client: Any, store: ActivationStore) -> Iterator[Cluster]:
    """Let all that is cut run on a client's workers, which must see the store.

    Raises
    ------
    ImportError
        Without distributed, naming the extra.
    TypeError
        For anything but a ``distributed.Client`` that is not asynchronous.
    ClusterError
        For a cluster without workers.
    StoreError
        Where a worker does not see the store, or sees another one: it and the worker are named.
    """
    distributed = _distributed()
    if not isinstance(client, distributed.Client) or client.asynchronous:
        kind = type(client).__name__
        raise TypeError(f"client: wanted a distributed.Client that is not asynchronous, got {kind}")
    try:
        client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
    except TimeoutError:
        raise ClusterError(f"client: {client.scheduler.address} has no workers; start some first") from None
    with on_cluster(client) as cluster:
        _check_workers(cluster, store)
        yield cluster


def _check_workers(cluster: Cluster, store: ActivationStore) -> None:
    """Raise where a worker does not see the store; warn of those whose last bits may differ."""
    here = facts()
    for worker, found in cluster.everywhere(look_at, store.location, store.checksum).items():
        if isinstance(found, Exception):
            raise ClusterError(f"the worker at {worker} cannot take part: {type(found).__name__}: {found}")
        problem, there = found
        if problem:
            raise StoreError(
                f"{store.location}: the worker at {worker} {problem}; every worker has to see the store "
                "under the same path, on a file system that all share, or under its URL"
            )
        other = [name for name, value in here.items() if there.get(name) != value]
        if other:
            warnings.warn(
                f"the worker at {worker} has another {', '.join(other)} than we have here: bits may differ",
                UserWarning,
                stacklevel=4,
            )


def facts() -> dict[str, str]:
    """What the last bits of results depend on in this process."""
    versions = {name: _version(name) for name in _LIBRARIES if name != "torch"}
    return {"qixai-fast": __version__, "processor": " ".join(_processor()), **versions}


def look_at(path: str, checksum: str) -> tuple[str, dict[str, str]]:
    """On a worker: what is wrong with the store as it is seen there, and the worker's :func:`facts`."""
    try:
        store = open_store(path)
        if path == str(store.path):
            for name in store:
                store[name]
    except (OSError, StoreError, ImportError) as error:
        return f"cannot read it ({error})", facts()
    if store.checksum != checksum:
        return "sees other samples there", facts()
    return "", facts()
