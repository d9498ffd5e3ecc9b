"""One writer at a time."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from ..errors import StoreError
from .npy import open_inside

LOCK = "writer.lock"


class WriterLock:
    """An advisory lock on a store, held until :meth:`release` or the end of the process.

    Raises
    ------
    StoreError
        Where another writer holds it.
    """

    def __init__(self, directory: Path) -> None:
        import fcntl  # a store can be read where this module does not exist

        self._file = open_inside(directory, LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        _held.add(self)

    @property
    def released(self) -> bool:
        return self._file.closed

    def release(self) -> None:
        """Let the next writer in."""
        self._file.close()


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _forget_in_child() -> None:
    """A forked child (a data loader's worker) must not keep the store locked when its parent dies."""
    for lock in list(_held):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
