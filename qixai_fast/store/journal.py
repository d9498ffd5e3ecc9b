"""The append-only journal: one checksummed line for each committed chunk of samples.

A chunk is a run of ``chunk_rows`` samples of every file. The last one may be partial; when
samples are added to it, a new line for the same chunk takes the place of the old one, so that
the chunks (and their checksums) do not depend on how often a capture was interrupted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from ..errors import StoreError
from .format import Manifest, canonical_json
from .npy import FROM_A_COPY, GrowingArray

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Chunk:
    """One committed chunk.

    Attributes
    ----------
    index : int
    stop, text_stop : int
        Samples, and bytes of sample id text, complete with this chunk.
    checksums : tuple of str
        XXH3 (64 bit) of the chunk's bytes in each file, in the order of :meth:`Manifest.arrays`.
    """

    index: int
    stop: int
    text_stop: int
    checksums: tuple[str, ...]

    def line(self) -> bytes:
        """The journal's line for this chunk."""
        return _line({"chunk": self.index, "stop": self.stop, "text": self.text_stop, "xxh3": self.checksums})

    def rows(self, array: GrowingArray) -> int:
        """Rows of a file that are complete with this chunk."""
        return self.text_stop if array.is_text else self.stop


@dataclass(frozen=True)
class Journal:
    """The committed chunks, and the bytes of the journal that hold them."""

    chunks: tuple[Chunk, ...]
    n_bytes: int

    @property
    def n_samples(self) -> int:
        return self.chunks[-1].stop if self.chunks else 0

    def rows(self, array: GrowingArray) -> int:
        """Committed rows of a file."""
        return self.chunks[-1].rows(array) if self.chunks else 0

    def extent(self, array: GrowingArray, index: int) -> tuple[int, int]:
        """First row and end of a chunk within a file."""
        start = self.chunks[index - 1].rows(array) if index else 0
        return start, self.chunks[index].rows(array)


def _line(value: Any) -> bytes:
    text = canonical_json(value)
    return xxhash.xxh3_64_hexdigest(text).encode("ascii") + b" " + text + b"\n"


def first_line(manifest: Manifest) -> bytes:
    """The journal's first line, which names the manifest it belongs to."""
    return _line({"journal_of": manifest.digest()})


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """The content of a line; None where it is torn or corrupted, empty where it is whole but foreign."""
    checksum, _, text = line.partition(b" ")
    if xxhash.xxh3_64_hexdigest(text).encode("ascii") != checksum:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def read_journal(directory: Path, manifest: Manifest, *, before_damage: bool = False) -> Journal:
    """Read the committed chunks.

    A torn last line is what a killed writer leaves, and no error.

    Parameters
    ----------
    directory : Path
    manifest : Manifest
    before_damage : bool
        Return the chunks before a damaged line instead of raising.

    Raises
    ------
    StoreError
        Where the journal is missing, is another store's, is damaged before its end, or lost lines.
    """
    path = directory / JOURNAL
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{path}: is missing; {FROM_A_COPY}") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return parse_journal(raw, directory, manifest, before_damage=before_damage)


def parse_journal(
    raw: bytes, directory: Path | str, manifest: Manifest, *, before_damage: bool = False
) -> Journal:
    """The content of a journal; ``directory`` is for messages, else as :func:`read_journal`."""
    path = f"{directory}/{JOURNAL}"
    lines = raw.split(b"\n")[:-1]
    head = _parse_line(lines[0]) if lines else None
    if head is None:
        raise StoreError(f"{path}: line 1 is damaged; {FROM_A_COPY}")
    if head.get("journal_of") != manifest.digest():
        raise StoreError(
            f"{path}: does not belong to the manifest beside it (one of them was changed or comes from "
            f"another store); {FROM_A_COPY}"
        )
    n_files = len(manifest.arrays())
    chunks: list[Chunk] = []
    n_bytes = len(lines[0]) + 1
    for number, line in enumerate(lines[1:], start=2):
        value = _parse_line(line)
        chunk = _next_chunk(value, chunks, manifest, n_files) if value is not None else None
        if chunk is None:
            if before_damage or (
                value is None and all(_parse_line(later) is None for later in lines[number:])
            ):
                break
            keep = chunks[-1].stop if chunks else 0
            raise StoreError(
                f"{path}: line {number} (chunk {len(chunks)}, samples from {keep} on) is damaged; "
                f"{cut_back_hint(directory, keep)}"
            )
        del chunks[chunk.index :]
        chunks.append(chunk)
        n_bytes += len(line) + 1
    journal = Journal(tuple(chunks), n_bytes)
    if journal.n_samples < manifest.n_samples and not before_damage:
        raise StoreError(
            f"{path}: its last lines are lost: the manifest counts {manifest.n_samples} samples, the journal "
            f"only {journal.n_samples} (chunk {len(chunks)} is the first one missing); "
            f"{cut_back_hint(directory, journal.n_samples)}"
        )
    return journal


def _next_chunk(value: dict[str, Any], chunks: list[Chunk], manifest: Manifest, n_files: int) -> Chunk | None:
    """The chunk of a line, if it is the next one or a longer version of a partial last one."""
    try:
        chunk = Chunk(int(value["chunk"]), int(value["stop"]), int(value["text"]), tuple(value["xxh3"]))
    except (KeyError, TypeError, ValueError):
        return None
    rows = manifest.chunk_rows
    stop, text = (chunks[-1].stop, chunks[-1].text_stop) if chunks else (0, 0)
    follows = (
        chunk.index == stop // rows
        and stop <= chunk.stop <= (chunk.index + 1) * rows
        and chunk.stop > chunk.index * rows
        and chunk.text_stop >= text
        and len(chunk.checksums) == n_files
    )
    return chunk if follows else None


def cut_back_hint(directory: Path | str, n_samples: int) -> str:
    """The mend for damage that begins at some sample."""
    if isinstance(directory, str):  # a URL, under which nothing is ever written
        return FROM_A_COPY
    return (
        f"restore it from a copy, or keep the first {n_samples} samples with "
        f"qixai_fast.store.cut_back({str(directory)!r}, {n_samples}) and capture the others with resume=True"
    )
