"""Bins of the maps that are compared, once for all pairs of layers: a byte a value, in a file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from .._memory import release_pages
from .._validate import Array
from ..bins import Codes, code_dtype
from ..code_files import disk_error
from ..digitizing import digitize
from .files import json_bytes, write_atomic

# Columns that are binned together: what they take in memory stays small beside an engine's.
_COLUMNS = 16
_HASHED_BYTES = 2**24


class LayerCodes:
    """Files of codes, one a layer, made when they are first asked for.

    Parameters
    ----------
    folder : Path or None
        Where files are kept for a resumed audit; None for a temporary folder of this process.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._open: dict[str, tuple[str, Codes]] = {}

    def of(
        self,
        name: str,
        key: str,
        columns: Callable[[], Array],
        maps: npt.NDArray[np.int64],
        *,
        n_bins: int,
        strategy: str,
        **options: Any,
    ) -> Codes:
        """Codes of some maps, (n_maps, n_samples): bin of every value, as :func:`qixai_fast.digitize` has it.

        Parameters
        ----------
        name : str
            Stem of the file.
        key : str
            What the codes depend on: a file with another is made again.
        columns : callable
            Gives the layer, (n_samples, d), best with columns in one piece.
        maps : ndarray of int
        n_bins, strategy, **options
            As :func:`qixai_fast.digitize` takes them.
        """
        held = self._open.get(name)
        if held is not None and held[0] == key:
            return held[1]
        folder = self._place()
        data, note = folder / f"{name}.codes.npy", folder / f"{name}.codes.note"
        if not _is_whole(data, note, key):
            note.unlink(missing_ok=True)
            checksum = _write(data, columns(), maps, n_bins, strategy, options)
            write_atomic(note, json_bytes({"key": key, "codes": checksum}))
        codes: Codes = np.load(data, mmap_mode="r", allow_pickle=False)
        self._open[name] = key, codes
        return codes

    def tidy(self) -> None:
        """Let go of the pages of all files."""
        for _, codes in self._open.values():
            release_pages(codes)

    def remove(self) -> None:
        """Delete all files: results no longer need them."""
        self._open.clear()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
        if self._folder is not None:
            for path in [*self._folder.glob("*.codes.*"), *self._folder.glob(".*.codes.*")]:
                path.unlink(missing_ok=True)

    def _place(self) -> Path:
        if self._folder is not None:
            return self._folder
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="qixai-codes-")
        return Path(self._temporary.name)


def _write(
    path: Path,
    layer: Array,
    maps: npt.NDArray[np.int64],
    n_bins: int,
    strategy: str,
    options: dict[str, Any],
) -> str:
    """Write a file of codes under another name until it is whole; return its checksum.

    Written, not mapped, so that a full disk is an error and not a signal.
    """
    shape, dtype = (len(maps), len(layer)), code_dtype(n_bins)
    state = xxhash.xxh3_64()
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(maps), _COLUMNS):
                some = maps[start : start + _COLUMNS]
                block = np.stack([layer[:, column] for column in some.tolist()]).T
                release_pages(layer)
                codes = digitize(block, n_bins=n_bins, strategy=strategy, **options).codes
                state.update(codes.data)
                file.write(codes.data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        size = shape[0] * shape[1] * dtype.itemsize
        raise disk_error(error, str(path), size, "free space there, or compare fewer maps") from error
    return state.hexdigest()


def _is_whole(data: Path, note: Path, key: str) -> bool:
    """Whether a file holds what its note says, under this key."""
    try:
        found = json.loads(note.read_bytes())
        if found["key"] != key:
            return False
        codes = np.load(data, mmap_mode="r", allow_pickle=False)
        state = xxhash.xxh3_64()
        rows = max(1, _HASHED_BYTES // max(1, codes.shape[1] * codes.itemsize))
        for start in range(0, len(codes), rows):
            part = codes[start : start + rows]
            state.update(np.ascontiguousarray(part).data)
            release_pages(part)
        return bool(found["codes"] == state.hexdigest())
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return False
