"""Locks on files, which end with their holder whatever ends it, and one writer at a time."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import IO, Any

from ..errors import StoreError
from .npy import open_inside

LOCK = "writer.lock"
_held: weakref.WeakSet[IO[Any]] = weakref.WeakSet()


def lock(file: IO[Any], *, wait: bool) -> None:
    """Lock an open file for this process, until :func:`unlock` or its end; forked children do not hold it.

    Does nothing where the system has no such locks (Windows).

    Raises
    ------
    BlockingIOError
        Where another holds it, unless ``wait``.
    """
    try:
        import fcntl  # files can be read where this module does not exist
    except ImportError:
        return
    _held.add(file)  # before the lock is there, so that no fork comes in between
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock(file: IO[Any]) -> None:
    """Let go of a lock and close its file."""
    file.close()
    _held.discard(file)


def _forget_in_child() -> None:
    """A forked child (a data loader's worker) must not keep files locked when its parent lets go or dies."""
    for file in list(_held):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


class WriterLock:
    """An advisory lock on a store, held until :meth:`release` or the end of the process.

    Raises
    ------
    StoreError
        Where another writer holds it.
    """

    def __init__(self, directory: Path) -> None:
        self._file = open_inside(directory, LOCK, os.O_RDWR | os.O_CREAT)
        try:
            lock(self._file, wait=False)
        except BlockingIOError:
            holder = self._file.read(64).decode("ascii", "replace").strip() or "unknown"
            self._file.close()
            raise StoreError(
                f"{directory / LOCK}: another writer (process {holder}) is adding to this store; wait until "
                f"it ends, or choose another directory"
            ) from None
        self._file.truncate(0)
        self._file.seek(0)
        self._file.write(f"{os.getpid()}\n".encode("ascii"))

    @property
    def released(self) -> bool:
        return self._file.closed

    def release(self) -> None:
        """Let the next writer in."""
        unlock(self._file)
