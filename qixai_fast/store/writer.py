"""Write a store: buffered chunks, each committed whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from .._device import to_numpy
from .._threads import ordered_map
from ..errors import StoreError
from .batch import Batch, checked_batch
from .format import MANIFEST, Manifest, write_manifest
from .journal import JOURNAL, Chunk, Journal, cut_back_hint
from .locking import WriterLock
from .npy import GrowingArray, bytes_of, open_inside, write_all
from .reader import read_rows, read_sample_ids

_SYNC_THREADS = 4


class _Position(NamedTuple):
    """How far the store is complete; replaced in one step, so that an interrupt sees all of it or none."""

    committed: int
    text_start: int  # bytes of sample id text before the chunk in the buffers
    journal_bytes: int


class StoreWriter:
    """Adds samples to a store; made by :func:`create_store`, used as a context manager.

    Batches of any size are gathered into chunks. A chunk is committed whole: data, then the
    ``.npy`` headers, then one line in the journal. Leaving the block commits what is gathered,
    also when an exception leaves it. One thread at a time may use a writer.
    """

    def __init__(self, path: Path, manifest: Manifest, journal: Journal, lock: WriterLock) -> None:
        self.path = path
        self._manifest = manifest
        self._lock = lock
        self._arrays = manifest.arrays()
        rows = manifest.chunk_rows
        before = journal.n_samples // rows
        text_start = journal.chunks[before - 1].text_stop if before else 0
        self._at = _Position(journal.n_samples, text_start, journal.n_bytes)
        self._n_samples = journal.n_samples
        self._broken = False
        self._fixed = [array for array in self._arrays if not array.is_text]
        self._buffers = [np.empty((rows, *array.row_shape), array.dtype) for array in self._fixed]
        self._text: list[bytes] = []
        self._refill(journal)
        self._found = journal

    def _refill(self, journal: Journal) -> None:
        """Take a partial last chunk back into the buffers: it is committed again, longer."""
        start, stop = self._base, self._at.committed
        if start == stop:
            return
        contents = []
        for array, buffer in zip(self._fixed, self._buffers, strict=True):
            buffer[: stop - start] = read_rows(self.path, array, start, stop)
            contents.append(bytes_of(buffer[: stop - start]))
        if self._manifest.sample_ids == "str":
            ids = read_sample_ids(self.path, self._manifest, journal, start, stop)
            self._text = [word.encode("utf-8") for word in ids.tolist()]
            contents.append(memoryview(b"".join(self._text)))
        for array, content, checksum in zip(
            self._arrays, contents, journal.chunks[-1].checksums, strict=True
        ):
            if xxhash.xxh3_64_hexdigest(content) != checksum:
                raise StoreError(
                    f"{self.path / array.file}: chunk {len(journal.chunks) - 1} (samples {start} to "
                    f"{stop - 1}) differs from its checksum; {cut_back_hint(self.path, start)}"
                )

    @property
    def n_samples(self) -> int:
        """Samples in the store: right after opening the complete ones, then those appended as well."""
        return self._n_samples

    @property
    def _base(self) -> int:
        """First sample of the chunk in the buffers."""
        return self._at.committed - self._at.committed % self._manifest.chunk_rows

    def append(self, arrays: Mapping[str, npt.ArrayLike], labels: Any = None, sample_ids: Any = None) -> None:
        """Add a batch of samples.

        Parameters
        ----------
        arrays : mapping of str to array of shape (b, ...)
            One array (NumPy, torch, anything array-like) for every layer of the store, with the
            same number of samples ``b``; converted to the layer's dtype.
        labels : array of int, shape (b,), optional
            Class labels; wanted exactly where the store was created with ``labels=True``.
        sample_ids : array of int or str, shape (b,), optional
            The samples' own names; wanted exactly where the store was created with them.

        Raises
        ------
        ValueError, TypeError
            Naming the layer or argument, before anything is added. Only a float too large for the
            layer's dtype is found later: samples well before it in the batch are then added.
        StoreError
            Where the disk is full or fails; the committed samples stay usable.
        """
        if self._lock.released:
            raise ValueError("append: the writer is closed; open the store again with resume=True")
        if self._broken:
            raise StoreError(f"{self.path}: an earlier write failed; free space, then resume")
        batch = checked_batch(self._manifest, arrays, labels, sample_ids)
        done = 0
        while done < batch.n_samples:
            filled = self._n_samples - self._base
            take = min(self._manifest.chunk_rows - filled, batch.n_samples - done)
            self._gather(batch, done, filled, take)
            self._n_samples += take
            done += take
            if filled + take == self._manifest.chunk_rows:
                self._commit()

    def _gather(self, batch: Batch, done: int, filled: int, take: int) -> None:
        """Copy samples into the buffers, behind those that count; counting them is the caller's last step."""
        if self._manifest.sample_ids == "str":
            words = batch.words[done : done + take]
            self._text[filled:] = words
            end = int(self._buffers[-1][filled - 1]) if filled else self._at.text_start
            self._buffers[-1][filled : filled + take] = end + np.cumsum([len(word) for word in words])
        for array, buffer, values in zip(self._fixed, self._buffers, batch.values, strict=False):
            try:
                with np.errstate(over="raise"):
                    np.copyto(buffer[filled : filled + take], values[done : done + take], casting="same_kind")
            except FloatingPointError:
                raise ValueError(
                    f"{array.title}: a value is too large for {array.dtype}; store a wider dtype"
                ) from None

    def _commit(self) -> None:
        """Commit the samples in the buffers. Done again after an interrupt, it writes the same bytes."""
        if self._n_samples == self._at.committed:
            return
        base, stop = self._base, self._n_samples
        text = b"".join(self._text[: stop - base])
        contents = [bytes_of(buffer[: stop - base]) for buffer in self._buffers]
        text_done = self._at.text_start
        if self._manifest.sample_ids == "str":
            contents.append(memoryview(text))
            if self._at.committed > base:
                text_done = int(self._buffers[-1][self._at.committed - base - 1])
        text_stop = self._at.text_start + len(text)
        index = base // self._manifest.chunk_rows

        def write(place: int) -> str:
            array, content = self._arrays[place], contents[place]
            first = text_done - self._at.text_start if array.is_text else self._at.committed - base
            start, end = (text_done, text_stop) if array.is_text else (self._at.committed, stop)
            with _file_named(self.path, array.file) as file:
                write_all(file, array.offset(start), content[first * array.row_bytes :])
                write_all(file, 0, array.header(end))
                os.fsync(file.fileno())
            return xxhash.xxh3_64_hexdigest(content)

        try:
            checksums = tuple(
                ordered_map(write, range(len(self._arrays)), min(_SYNC_THREADS, len(self._arrays)))
            )
            line = Chunk(index, stop, text_stop, checksums).line()
            with _file_named(self.path, JOURNAL) as file:
                write_all(file, self._at.journal_bytes, line)
                os.fsync(file.fileno())
        except OSError as error:
            self._broken = True
            rows = [text_done if array.is_text else self._at.committed for array in self._arrays]
            with suppress(OSError, StoreError):
                trim(self.path, self._arrays, rows, self._at.journal_bytes)
            raise StoreError(
                f"{error.filename}: chunk {index} (samples {base} to {stop - 1}) could not be written "
                f"({error.strerror}); the first {self._at.committed} samples are complete and stay usable: "
                f"free space there, then make the same call again (a capture: with resume=True)"
            ) from error
        full = stop - base == self._manifest.chunk_rows
        self._at = _Position(
            stop, text_stop if full else self._at.text_start, self._at.journal_bytes + len(line)
        )

    def check_samples(self, start: int, *, labels: Any = None, sample_ids: Any = None) -> None:
        """Compare samples that a resumed capture meets again with those in the store.

        Parameters
        ----------
        start : int
            Place of the first of them in the store.
        labels, sample_ids : array, shape (b,), optional
            As in :meth:`append`; only what lies before ``n_samples`` is compared.

        Raises
        ------
        StoreError
            Naming the first sample that differs.
        """
        for name, given in (("label", labels), ("sample id", sample_ids)):
            if given is None or start >= self._found.n_samples:
                continue
            there = self._kept(name, start, min(start + len(given), self._found.n_samples))
            if there is None:
                continue
            here = to_numpy(given, f"{name}s")[: len(there)]
            if (here.dtype.kind == "U") != (there.dtype.kind == "U"):
                here, there = here.astype(np.str_), there.astype(np.str_)
            different = np.flatnonzero(here != there)
            if len(different):
                row = int(different[0])
                raise StoreError(
                    f"{self.path}: sample {start + row} has {name} {there[row].item()!r} in the store and "
                    f"{here[row].item()!r} in this capture; resume with the same batches in the same order, "
                    f"or capture into a new directory"
                )

    def _kept(self, name: str, start: int, stop: int) -> npt.NDArray[Any] | None:
        """Labels or sample ids that were there when the store was opened; None where it keeps none."""
        if name == "sample id":
            if self._manifest.sample_ids is None:
                return None
            return read_sample_ids(self.path, self._manifest, self._found, start, stop)
        for array in self._arrays:
            if array.file == "labels.npy":
                return read_rows(self.path, array, start, stop)
        return None

    def close(self) -> None:
        """Commit what is gathered, bring the manifest up to date, and let the next writer in."""
        if self._lock.released:
            return
        try:
            if not self._broken:
                self._commit()
                try:
                    write_manifest(self.path, self._manifest.with_samples(self._at.committed))
                except OSError as error:
                    raise StoreError(
                        f"{self.path / MANIFEST}: could not be brought up to date ({error.strerror}); all "
                        f"{self._at.committed} samples are complete; free space there, then open the store "
                        f"once with resume=True"
                    ) from error
        finally:
            self._lock.release()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _file_named(directory: Path, file: str) -> Iterator[FileIO]:
    """Open a file of the store for writing; errors tell its name, which those of write() do not."""
    with open_inside(directory, file, os.O_RDWR) as opened:
        try:
            yield opened
        except OSError as error:
            error.filename = str(directory / file)
            raise


def trim(directory: Path, arrays: Sequence[GrowingArray], rows: Sequence[int], journal_bytes: int) -> None:
    """Cut every file back to its committed rows: first the header, so that it never counts too many."""
    for array, count in zip(arrays, rows, strict=True):
        with open_inside(directory, array.file, os.O_RDWR) as file:
            write_all(file, 0, array.header(count))
            file.truncate(array.offset(count))
            os.fsync(file.fileno())
    with open_inside(directory, JOURNAL, os.O_RDWR) as file:
        file.truncate(journal_bytes)
        os.fsync(file.fileno())
