"""Whether a store is still the one whose checksums were compared when an audit began."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import StoreError
from ..store import ActivationStore


class _Identity(NamedTuple):
    """What tells cheaply that a file was written to, cut, or replaced."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class StoreWatch:
    """Looks whether the files of a store changed since it was made; make it before they are verified.

    A file that was written to is compared with its checksums again: samples that a capture appends lie
    behind those audited and change nothing. Not seen: a file changed and changed back within one stage,
    and writes that put the old time of modification back. A mapped file that is cut short while a stage
    reads it ends the process by SIGBUS, which no Python code can turn into words; :meth:`check` before a
    stage sees it while nothing is read, and the next call after such an end names the file.

    Parameters
    ----------
    store : ActivationStore
    """

    def __init__(self, store: ActivationStore) -> None:
        self._store = store
        self._seen = {path: _identity(path) for path in store.files}

    def check(self) -> None:
        """Look again.

        Raises
        ------
        StoreError
            Naming the file and what is wrong with it.
        """
        now = {path: _identity(path) for path in self._seen}
        if now == self._seen:
            return
        problems = self._store.verify()
        if problems:
            name = next(path for path in now if now[path] != self._seen[path])
            raise StoreError(
                f"the store changed while the audit ran: {name} was {_change(self._seen[name], now[name])}; "
                f"the stage at work was not kept. {problems[0]}"
            )
        self._seen = now


def _identity(path: Path) -> _Identity:
    try:
        found = path.stat()
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be found any more while the audit runs ({error.strerror}); put it back and "
            f"make the same call again"
        ) from None
    return _Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _change(before: _Identity, after: _Identity) -> str:
    if (before.device, before.inode) != (after.device, after.inode):
        return "replaced"
    return "cut short" if after.size < before.size else "written to"
