"""Compare every committed byte of a store with its checksum."""

from __future__ import annotations

import io
import os
from pathlib import Path

import xxhash

from .._threads import ordered_map, resolve_n_jobs
from ..errors import StoreError
from .columns import columns_problems
from .format import MANIFEST, Manifest
from .journal import Journal, cut_back_hint
from .npy import FROM_A_COPY, GrowingArray, check_header, open_inside

_PIECE = 2**20
_BAR_DELAY = 0.5  # seconds before a bar appears


def find_problems(
    directory: Path, manifest: Manifest, journal: Journal, *, progress: bool, n_jobs: int | None
) -> list[str]:
    """Problems of a store in words; see :meth:`ActivationStore.verify`."""
    from tqdm import tqdm

    arrays = manifest.arrays()
    problems = []
    if not manifest.intact:
        problems.append(f"{directory / MANIFEST}: was changed after it was written; {FROM_A_COPY}")
    tasks = [(index, place) for index in range(len(journal.chunks)) for place in range(len(arrays))]

    def check(task: tuple[int, int]) -> str | None:
        index, place = task
        return _chunk_problem(directory, arrays[place], journal, index, place)

    for array in arrays:
        problems += _header_problem(directory, array, journal)
    found = ordered_map(check, tasks, resolve_n_jobs(n_jobs), in_flight=64)
    for problem in tqdm(
        found, total=len(tasks), desc="verify", unit="chunk", disable=not progress, delay=_BAR_DELAY
    ):
        if problem is not None:
            problems.append(problem)
    for place, array in enumerate(arrays[: len(manifest.layers)]):
        problems += columns_problems(directory, array, place, journal)
    return problems


def _header_problem(directory: Path, array: GrowingArray, journal: Journal) -> list[str]:
    path = directory / array.file
    try:
        with open_inside(directory, array.file, os.O_RDONLY) as file:
            claimed = check_header(array, file.read(array.header_bytes), path)
    except StoreError as error:
        return [str(error)]
    if claimed < journal.rows(array):
        return [
            f"{path}: its .npy header counts {claimed} rows, the journal {journal.rows(array)}; "
            f"open the store once with create_store(..., resume=True), which writes it again"
        ]
    return []


def _chunk_problem(
    directory: Path, array: GrowingArray, journal: Journal, index: int, place: int
) -> str | None:
    start, stop = journal.extent(array, index)
    first = journal.chunks[index - 1].stop if index else 0
    chunk = journal.chunks[index]
    where = f"{directory / array.file}: chunk {index} (samples {first} to {chunk.stop - 1})"
    try:
        with open_inside(directory, array.file, os.O_RDONLY) as file:
            size, digest = _hash(file, array.offset(start), (stop - start) * array.row_bytes)
    except StoreError as error:
        return str(error)
    except OSError as error:
        return f"{where} cannot be read ({error.strerror}); {cut_back_hint(directory, first)}"
    if size < (stop - start) * array.row_bytes:
        return f"{where} is truncated; {cut_back_hint(directory, first)}"
    if digest != chunk.checksums[place]:
        return f"{where} differs from its checksum; {cut_back_hint(directory, first)}"
    return None


def _hash(file: io.FileIO, offset: int, length: int) -> tuple[int, str]:
    """Read and hash in pieces that stay in the processor's cache."""
    buffer = memoryview(bytearray(min(_PIECE, max(length, 1))))
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
