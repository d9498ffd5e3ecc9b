"""Begin a store, or take up one that a capture left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._validate import check_choice, check_int
from ..errors import StoreError
from .format import MANIFEST, LayerSpec, Manifest, plain_json, read_manifest, safe_file_names, write_manifest
from .journal import JOURNAL, Journal, first_line, read_journal
from .locking import LOCK, WriterLock
from .npy import open_inside, sync_directory, write_all
from .reader import check_files
from .writer import StoreWriter, trim

CHUNK_BYTES = 32 * 2**20
_TEXT_ID_BYTES = 64  # what one text id is counted as, where chunks are cut


def create_store(
    path: str | os.PathLike[str],
    layers: Mapping[str, LayerSpec],
    *,
    metadata: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    labels: bool = False,
    sample_ids: bool | str | None = None,
    resume: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
) -> StoreWriter:
    """Create an activation store, or go on with one.

    Parameters
    ----------
    path : str or PathLike
        Directory of the store; new or empty, unless ``resume``.
    layers : mapping of str to LayerSpec
        Every layer, in capture order. Names may be any text; files get safe names.
    metadata : dict, optional
        Plain JSON kept with the store: model name, ``class_names``. On resuming, it takes the
        place of what was kept.
    fingerprint : dict, optional
        Plain JSON that a resumed capture must repeat: digest of the model's state and the like.
    labels : bool, default False
        Whether every sample brings a class label (integer, stored as int64).
    sample_ids : {None, False, True, "int64", "str"}, optional
        Whether every sample brings its own name, and of which kind; True is ``"int64"``.
    resume : bool, default False
        Go on after the complete samples of a store that is there. What was not committed is cut
        off. A store that differs in layers, dtypes, reductions or fingerprint is refused.
    chunk_bytes : int, default 32 MiB
        Bytes gathered before a commit, over all layers; a resumed store keeps its own.

    Returns
    -------
    StoreWriter

    Raises
    ------
    StoreError
        Where the directory holds other things or a store (and not ``resume``), where the store
        differs from what is asked for, is damaged, or has another writer.
    ValueError, TypeError
        For specifications that cannot be stored.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from qixai_fast.store import LayerSpec, create_store, open_store
    >>> folder = tempfile.TemporaryDirectory()
    >>> layers = {"conv1": LayerSpec((2,), dtype="float16", reduction="gap")}
    >>> with create_store(folder.name, layers, labels=True) as writer:
    ...     writer.append({"conv1": [[1.0, 2.0], [3.0, 4.0]]}, labels=[0, 1])
    >>> with create_store(folder.name, layers, labels=True, resume=True) as writer:
    ...     print(writer.n_samples)
    ...     writer.append({"conv1": [[5.0, 6.0]]}, labels=[0])
    2
    >>> store = open_store(folder.name)
    >>> store["conv1"][:, 0].tolist(), store.labels.tolist()
    ([1.0, 3.0, 5.0], [0, 1, 0])
    >>> folder.cleanup()
    """
    if isinstance(path, str) and "://" in path:
        raise ValueError(f"path: wanted a local folder, got {path!r}; copy the finished store there")
    wanted = _plan(layers, metadata, fingerprint, labels, sample_ids, chunk_bytes)
    directory = Path(path).absolute()
    if directory.exists() and not directory.is_dir():
        raise StoreError(f"{directory}: is a file, not a directory; choose another path")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / MANIFEST).exists():
            _refuse_foreign(directory)
        lock = WriterLock(directory)
        try:
            if (directory / MANIFEST).exists():
                return _take_up(directory, wanted, lock, resume)
            return _begin(directory, wanted, lock)
        except BaseException:
            lock.release()
            raise
    except OSError as error:
        raise StoreError(
            f"{directory}: the store cannot be written there ({error.strerror}); check free space "
            f"and permissions"
        ) from error


def _plan(
    layers: Mapping[str, LayerSpec],
    metadata: Mapping[str, Any] | None,
    fingerprint: Mapping[str, Any] | None,
    labels: bool,
    sample_ids: bool | str | None,
    chunk_bytes: int,
) -> Manifest:
    """The manifest of a new store, from checked arguments."""
    if not isinstance(layers, Mapping) or not layers:
        raise ValueError("layers: wanted a dict of at least one layer name to LayerSpec")
    specs = {}
    for name, spec in layers.items():
        if not isinstance(name, str) or not isinstance(spec, LayerSpec):
            raise TypeError(
                f"layers: wanted str names and LayerSpec values, got {name!r}: {type(spec).__name__}"
            )
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"layers: {name!r} is not valid Unicode text; give the layer another name"
            ) from None
        specs[name] = spec.checked(name)
    check_choice(labels, "labels", (True, False))
    check_choice(sample_ids, "sample_ids", (None, False, True, "int64", "str"))
    kind = "int64" if sample_ids is True else (sample_ids or None)
    plan = Manifest(
        specs,
        safe_file_names(specs),
        bool(labels),
        kind,
        1,
        0,
        plain_json(metadata, "metadata"),
        plain_json(fingerprint, "fingerprint"),
    )
    sample = sum(_TEXT_ID_BYTES if array.is_text else array.row_bytes for array in plan.arrays())
    rows = max(1, check_int(chunk_bytes, "chunk_bytes", low=1) // sample)
    return plan.with_chunk_rows(rows)


def _refuse_foreign(directory: Path) -> None:
    """Refuse a directory that holds other things than a store that was killed while being created."""
    entries = {entry.name for entry in directory.iterdir()} - {"lost+found"}
    if not entries:
        return
    journal = directory / JOURNAL
    unfinished = (
        LOCK in entries
        and all(name in (LOCK, JOURNAL, f"{MANIFEST}.tmp") or name.endswith(".npy") for name in entries)
        and all(_is_empty(directory / name) for name in entries if name.endswith(".npy"))
        and (not journal.exists() or journal.read_bytes().count(b"\n") <= 1)
    )
    if not unfinished:
        raise StoreError(
            f"{directory}: has files but no {MANIFEST}, so it is not an activation store; choose a "
            f"new directory"
        )


def _is_empty(path: Path) -> bool:
    """Whether an array's file has nothing behind its header."""
    with path.open("rb") as file:
        head = file.read(10)
    return path.stat().st_size <= len(head) + int.from_bytes(head[8:], "little")


def _begin(directory: Path, manifest: Manifest, lock: WriterLock) -> StoreWriter:
    """Write the files of an empty store; the manifest last, which makes it one."""
    for array in manifest.arrays():
        with open_inside(directory, array.file, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as file:
            write_all(file, 0, array.header(0))
            os.fsync(file.fileno())
    line = first_line(manifest)
    with open_inside(directory, JOURNAL, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as file:
        write_all(file, 0, line)
        os.fsync(file.fileno())
    write_manifest(directory, manifest)
    sync_directory(directory)
    return StoreWriter(directory, manifest, Journal((), len(line)), lock)


def _take_up(directory: Path, wanted: Manifest, lock: WriterLock, resume: bool) -> StoreWriter:
    """Cut off what was not committed, and go on."""
    found = read_manifest(directory)
    journal = read_journal(directory, found)
    if not resume:
        raise StoreError(
            f"{directory}: already holds a store of {journal.n_samples} samples; resume it with resume=True, "
            f"choose another directory, or delete it"
        )
    differences = _differences(found, wanted)
    if differences:
        raise StoreError(
            f"{directory}: was captured differently: {'; '.join(differences[:5])}"
            f"{f'; and {len(differences) - 5} more' if len(differences) > 5 else ''}. Resume with what the "
            f"store has, or capture into a new directory"
        )
    check_files(directory, found, journal)
    manifest = found.with_samples(journal.n_samples).with_metadata(wanted.metadata)
    arrays = manifest.arrays()
    trim(directory, arrays, [journal.rows(array) for array in arrays], journal.n_bytes)
    write_manifest(directory, manifest)
    return StoreWriter(directory, manifest, journal, lock)


def _differences(found: Manifest, wanted: Manifest) -> list[str]:
    """Where a store differs from what a resumed capture would write."""
    differences = []
    if list(found.layers) != list(wanted.layers):
        differences.append(f"layers: the store has {list(found.layers)}, this capture {list(wanted.layers)}")
    for name in found.layers.keys() & wanted.layers.keys():
        for field in ("shape", "dtype", "source_dtype", "reduction"):
            has, comes = getattr(found.layers[name], field), getattr(wanted.layers[name], field)
            if has != comes:
                differences.append(
                    f"layer {name!r}: {field} is {has!r} in the store, {comes!r} in this capture"
                )
    for field in ("labels", "sample_ids"):
        has, comes = getattr(found, field), getattr(wanted, field)
        if has != comes:
            differences.append(f"{field}: {has!r} in the store, {comes!r} in this capture")
    return differences + _json_differences("fingerprint", found.fingerprint, wanted.fingerprint)


def _json_differences(where: str, has: Any, comes: Any) -> list[str]:
    if isinstance(has, dict) and isinstance(comes, dict):
        keys = [*has, *(key for key in comes if key not in has)]

        return [
            difference
            for key in keys
            for difference in _json_differences(f"{where}.{key}", has.get(key), comes.get(key))
        ]
    if has == comes:
        return []
    return [f"{where} is {_short(has)} in the store, {_short(comes)} in this capture"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
