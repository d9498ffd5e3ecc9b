"""Whether a store is still the one whose checksums were compared when an audit began."""

from __future__ import annotations

import os
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

    @classmethod
    def of(cls, found: os.stat_result) -> _Identity:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def is_same_file(self, other: _Identity) -> bool:
        return (self.device, self.inode) == (other.device, other.inode)


class StoreWatch:
    """Looks whether the files of a store changed since it was made; make it before they are verified.

    A file that was written to is compared with its checksums again: samples that a capture appends lie
    behind those audited and change nothing. The feature-major copies that the audit has opened are watched as
    well, but for their removal: those who hold one keep it. Not seen: a file changed and changed back within
    one stage, and writes that put the old time of modification back. Files that are cut short while a stage
    reads them are seen by :class:`qixai_fast._file_maps.FileMap`, too.

    Parameters
    ----------
    store : ActivationStore
    """

    def __init__(self, store: ActivationStore) -> None:
        self._store = store
        self._seen = {path: _identity(path) for path in store.files}
        self._copies: dict[Path, _Identity] = {}

    def check(self) -> None:
        """Look again.

        Raises
        ------
        StoreError
            Naming the file and what is wrong with it.
        """
        now = {path: _identity(path) for path in self._seen}
        opened = {path: _Identity.of(found) for path, found in self._store.copies.items()}
        copies = {path: found for path in opened if (found := _copy_of(path, opened[path])) is not None}
        before = {**self._seen, **{path: self._copies.get(path, opened[path]) for path in copies}}
        if {**now, **copies} == before:
            return
        problems = self._store.verify()
        if problems:
            changed = {**now, **copies}
            name = next(path for path in changed if changed[path] != before[path])
            raise StoreError(
                f"the store changed while the audit ran: {name} was {_change(before[name], changed[name])}; "
                f"the stage at work was not kept. {problems[0]}"
            )
        self._seen, self._copies = now, copies


def _identity(path: Path) -> _Identity:
    try:
        return _Identity.of(path.stat())
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be found any more while the audit runs ({error.strerror}); put it back and "
            f"make the same call again"
        ) from None


def _copy_of(path: Path, opened: _Identity) -> _Identity | None:
    """What a copy is now; None where its file is another one: that which was opened is as it was."""
    try:
        found = _Identity.of(path.stat())
    except OSError:
        return None
    return found if found.is_same_file(opened) else None


def _change(before: _Identity, after: _Identity) -> str:
    if not before.is_same_file(after):
        return "replaced"
    return "cut short" if after.size < before.size else "written to"
