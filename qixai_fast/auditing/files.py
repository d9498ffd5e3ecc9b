"""An audit on disk: finished stages kept under keys, and the report put in place when all is done.

A stage is an ``.npz`` and a ``.json`` in ``out/.stages``; the ``.json`` is written last and holds the
digests of the ``.npz`` and of itself, so a stage is either whole or absent whatever happened to its files.
The files a user reads are put in place at the end; until then those of an earlier audit stay as they were.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from .._validate import Array
from ..errors import StoreError
from ..store.locking import lock

Stage = tuple[dict[str, Any], dict[str, Array]]

_FOLDER = ".stages"
_MARKER = "audit.json"
_PUBLISHED = "published.json"
_OURS = ("results.json", "report.html", "timings.json", "plan.toml", "figures")


def digest(data: bytes) -> str:
    """A short digest of bytes; it guards against accidents, not against attackers."""
    return str(xxhash.xxh3_128_hexdigest(data))


def json_bytes(value: Any) -> bytes:
    """Strict JSON, the same bytes for the same value. NaN and infinity are a ValueError."""
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    """An ``.npz`` file; NumPy gives its members a fixed date, so the bytes depend on the arrays alone."""
    buffer = BytesIO()
    contiguous: dict[str, Any] = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    np.savez(buffer, **contiguous)
    return buffer.getvalue()


def _note(key: str, arrays: str, result: Any) -> dict[str, Any]:
    """What a stage's ``.json`` holds: its key, the digest of its arrays, its result, and its own digest."""
    note = {"key": key, "arrays": arrays, "result": result}
    return {**note, "digest": digest(json_bytes(note))}


def write_atomic(path: Path, data: bytes, *, by_way_of: Path | None = None) -> None:
    """Write a file so that it is whole or absent, also when the process is killed.

    ``by_way_of`` is a directory of the same file system for the unfinished file; else it stands beside.
    """
    temporary = (by_way_of or path.parent) / f".{path.name}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from None


class AuditFiles:
    """The output directory of an audit.

    Parameters
    ----------
    out : Path
        Made, where it is missing, once the audit holds it (:meth:`locked`).

    Raises
    ------
    ValueError
        Where ``out`` is a file, a store of activations, or holds files of the same names that no audit wrote.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._stages = out / _FOLDER
        self._fresh = out / _FOLDER / "new"
        self._kept: dict[str, str] = {}  # digest of each stage's arrays, as read or written
        if out.exists() and not out.is_dir():
            raise ValueError(f"out: {out} is a file; wanted a directory")
        if (out / "manifest.json").exists():
            raise ValueError(f"out: {out} is a store of activations; choose another directory")
        if out.is_dir() and not (self._stages / _MARKER).exists():
            foreign = [name for name in _OURS if (out / name).exists()]
            foreign += sorted(path.name for path in out.glob("*.npz"))
            if foreign:
                raise ValueError(
                    f"out: {out} holds {', '.join(foreign[:5])} that no audit wrote; choose another directory"
                )

    @property
    def stages(self) -> Path:
        """Where finished stages are kept, and what they share."""
        return self._stages

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make and hold the directory: two audits in one place would take each other's files away.

        Raises
        ------
        ValueError
            Where another audit is at work in it. The lock ends with the process, however that ends.
        """
        self._stages.mkdir(parents=True, exist_ok=True)
        with open(self._stages / "lock", "ab") as file:
            try:
                lock(file, wait=False)
            except BlockingIOError:
                raise ValueError(f"out: another audit is writing to {self.out}") from None
            write_atomic(self._stages / _MARKER, json_bytes({"format": "qixai-fast audit", "version": 1}))
            for unfinished in self._stages.glob(".*.tmp"):
                unfinished.unlink()
            yield

    def read(self, name: str, key: str) -> Stage | None:
        """A finished stage; None where it is absent, damaged or from another key."""
        try:
            written = (self._stages / f"{name}.json").read_bytes()
            note = json.loads(written)
            data = (self._stages / f"{name}.npz").read_bytes()
            if note["key"] != key or written != json_bytes(_note(key, digest(data), note["result"])):
                return None
            self._kept[name] = note["arrays"]
            with np.load(BytesIO(data), allow_pickle=False) as file:
                return note["result"], {member: file[member] for member in file.files}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, key: str, stage: Stage) -> None:
        """Keep a finished stage."""
        result, arrays = stage
        data = npz_bytes(arrays)
        self._kept[name] = digest(data)
        (self._stages / f"{name}.json").unlink(missing_ok=True)
        write_atomic(self._stages / f"{name}.npz", data)
        write_atomic(self._stages / f"{name}.json", json_bytes(_note(key, self._kept[name], result)))

    def fresh_folder(self) -> Path:
        """An empty directory of ours: what is written there goes to ``out`` with :meth:`publish`."""
        if self._fresh.exists():
            for path in sorted(self._fresh.rglob("*"), reverse=True):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
        self._fresh.mkdir(exist_ok=True)
        return self._fresh

    def publish(self, stages: list[str], names: list[str], results: bytes) -> None:
        """Put stages' arrays, the files of :meth:`fresh_folder` and ``results.json`` in place.

        ``stages`` are kept for a next run, others are dropped; ``names`` have arrays for readers.
        ``results.json`` goes first where it would no longer fit the arrays, and comes last. Files that an
        earlier audit put here and this one has no more are removed, and nothing else is.

        Raises
        ------
        StoreError
            Where a stage's arrays are no longer those that were kept.
        OSError
            Naming the file that cannot be read or written; the same audit made again goes on from there.
        """
        target = self.out / "results.json"
        if target.exists() and target.read_bytes() != results:
            target.unlink()
        made = sorted(path for path in self._fresh.rglob("*") if path.is_file())
        listed = [f"{name}.npz" for name in names]
        listed += [path.relative_to(self._fresh).as_posix() for path in made]
        listed.append("results.json")
        before = self._published()
        write_atomic(self._stages / _PUBLISHED, json_bytes(sorted({*before, *listed})))
        for name in names:
            write_atomic(self.out / f"{name}.npz", self._arrays_of(name), by_way_of=self._stages)
        for path in made:
            place = self.out / path.relative_to(self._fresh)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
        write_atomic(target, results, by_way_of=self._stages)
        for name in set(before) - set(listed):
            (self.out / name).unlink(missing_ok=True)
        for path in self._stages.glob("*.json"):
            if path.name not in (_MARKER, _PUBLISHED) and path.stem not in stages:
                path.unlink()
                path.with_suffix(".npz").unlink(missing_ok=True)
        write_atomic(self._stages / _PUBLISHED, json_bytes(listed))

    def _arrays_of(self, name: str) -> bytes:
        """The kept ``.npz`` of a stage, checked."""
        path = self._stages / f"{name}.npz"
        data = path.read_bytes()
        if digest(data) != self._kept[name]:
            raise StoreError(
                f"{path}: was changed while the audit ran; make the same call again, which computes it anew"
            )
        return data

    def _published(self) -> list[str]:
        """What an earlier audit put in place; names that lead out of the directory are not believed."""
        try:
            listed = json.loads((self._stages / _PUBLISHED).read_bytes())
        except (OSError, ValueError):
            return []
        if not isinstance(listed, list):
            return []
        inside = [name for name in listed if isinstance(name, str) and ".." not in Path(name).parts]
        return [name for name in inside if not Path(name).is_absolute()]
