"""Compare every committed byte of a store with its checksum."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

from .._threads import ordered_map, resolve_n_jobs
from ..errors import StoreError
from .columns import columns_problems
from .format import MANIFEST, Manifest
from .journal import Journal, cut_back_hint
from .npy import FROM_A_COPY, GrowingArray, open_inside, read_header

_PIECE = 2**20  # bytes read and hashed at a time: they stay in the processor's cache
_RUN_BYTES = 64 * 2**20  # bytes that one thread reads in a row; after Ctrl-C no more than these are finished
_BAR_DELAY = 0.5  # seconds before a bar appears


@dataclass(frozen=True)
class _Run:
    """Chunks of one file, one after the other on disk."""

    place: int
    start: int
    stop: int
    n_bytes: int


def find_problems(
    directory: Path, manifest: Manifest, journal: Journal, *, progress: bool, n_jobs: int | None
) -> list[str]:
    """Problems of a store in words; see :meth:`ActivationStore.verify`.

    Files are read one after the other and in their own order, as disks like it, by threads that each hash a
    run of chunks in a buffer of 1 MiB while the system reads ahead.
    """
    from tqdm import tqdm

    arrays = manifest.arrays()
    problems = []
    if not manifest.intact:
        problems.append(f"{directory / MANIFEST}: was changed after it was written; {FROM_A_COPY}")
    for array in arrays:
        problems += _header_problem(directory, array, journal)
    runs = [run for place, array in enumerate(arrays) for run in _runs(array, journal, place)]

    def check(run: _Run) -> list[tuple[int, int, str]]:
        return _run_problems(directory, arrays[run.place], journal, run)

    found = []
    with tqdm(
        total=sum(run.n_bytes for run in runs), desc="verify", unit="B", unit_scale=True,
        disable=not progress, delay=_BAR_DELAY,
    ) as bar:  # fmt: skip
        for run, told in zip(runs, ordered_map(check, runs, resolve_n_jobs(n_jobs)), strict=True):
            found += told
            bar.update(run.n_bytes)
    problems += [text for _, _, text in sorted(found)]  # all that is wrong with a chunk side by side
    for place, array in enumerate(arrays[: len(manifest.layers)]):
        problems += columns_problems(directory, array, place, journal)
    return problems


def _runs(array: GrowingArray, journal: Journal, place: int) -> Iterator[_Run]:
    start, n_bytes = 0, 0
    for index in range(len(journal.chunks)):
        first, end = journal.extent(array, index)
        n_bytes += (end - first) * array.row_bytes
        if n_bytes >= _RUN_BYTES or index == len(journal.chunks) - 1:
            yield _Run(place, start, index + 1, n_bytes)
            start, n_bytes = index + 1, 0


def _header_problem(directory: Path, array: GrowingArray, journal: Journal) -> list[str]:
    path = directory / array.file
    try:
        with open_inside(directory, array.file, os.O_RDONLY) as file:
            claimed = read_header(array, file, path)
    except StoreError as error:
        return [str(error)]
    if claimed < journal.rows(array):
        return [
            f"{path}: its .npy header counts {claimed} rows, the journal {journal.rows(array)}; "
            f"open the store once with create_store(..., resume=True), which writes it again"
        ]
    return []


def _run_problems(
    directory: Path, array: GrowingArray, journal: Journal, run: _Run
) -> list[tuple[int, int, str]]:
    """Chunk, place and words of each problem; a file that cannot be opened is one problem for each chunk."""
    indices = range(run.start, run.stop)
    try:
        file = open_inside(directory, array.file, os.O_RDONLY)
    except StoreError as error:
        return [(index, run.place, str(error)) for index in indices]
    with file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)  # reads further ahead
        buffer = memoryview(bytearray(min(_PIECE, max(run.n_bytes, 1))))
        told = (
            (index, _chunk_problem(directory, file, buffer, array, journal, run, index)) for index in indices
        )
        return [(index, run.place, text) for index, text in told if text is not None]


def _chunk_problem(
    directory: Path,
    file: io.FileIO,
    buffer: memoryview,
    array: GrowingArray,
    journal: Journal,
    run: _Run,
    index: int,
) -> str | None:
    start, stop = journal.extent(array, index)
    first = journal.chunks[index - 1].stop if index else 0
    chunk = journal.chunks[index]
    where = f"{directory / array.file}: chunk {index} (samples {first} to {chunk.stop - 1})"
    try:
        size, digest = _hash(file, buffer, array.offset(start), (stop - start) * array.row_bytes)
    except OSError as error:
        return f"{where} cannot be read ({error.strerror}); {cut_back_hint(directory, first)}"
    if size < (stop - start) * array.row_bytes:
        return f"{where} is truncated; {cut_back_hint(directory, first)}"
    if digest != chunk.checksums[run.place]:
        return f"{where} differs from its checksum; {cut_back_hint(directory, first)}"
    return None


def _hash(file: io.FileIO, buffer: memoryview, offset: int, length: int) -> tuple[int, str]:
    """Read and hash in pieces that stay in the processor's cache."""
    state = xxhash.xxh3_64()
    file.seek(offset)
    done = 0
    while done < length:
        count = file.readinto(buffer[: min(len(buffer), length - done)])
        if not count:
            break
        state.update(buffer[:count])
        done += count
    return done, state.hexdigest()
