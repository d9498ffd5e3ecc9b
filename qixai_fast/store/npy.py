"""Plain ``.npy`` files that grow: a header of fixed length, rewritten in place as rows are added."""

from __future__ import annotations

import io
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError

MAGIC = b"\x93NUMPY\x01\x00"
_LONGEST = 10**18  # rows that the header leaves room for
FROM_A_COPY = "restore it from a copy, or capture again into a new directory"


@dataclass(frozen=True)
class GrowingArray:
    """One ``.npy`` file of a store: rows of one shape and dtype, ever more of them.

    Attributes
    ----------
    title : str
        What the file holds, for messages.
    file : str
        Name within the store's directory.
    dtype : dtype
    row_shape : tuple of int
        Shape of one row (one sample).
    is_text : bool
        Whether the rows are bytes of text, whose number is not the number of samples.
    """

    title: str
    file: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    is_text: bool = False

    @property
    def row_bytes(self) -> int:
        return int(self.dtype.itemsize) * prod(self.row_shape)

    @property
    def header_bytes(self) -> int:
        return len(self.header(0))

    def header(self, n_rows: int) -> bytes:
        """Header of the file with ``n_rows`` rows.

        Its length does not depend on them, and lies within one disk sector: rewriting it is one
        system call that a kill or a power cut leaves done or undone, never half done.
        """
        return npy_header(self.dtype, (n_rows, *self.row_shape), fortran_order=False)

    def offset(self, n_rows: int) -> int:
        """Byte at which row ``n_rows`` begins."""
        return self.header_bytes + n_rows * self.row_bytes


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...], *, fortran_order: bool) -> bytes:
    """Header of a ``.npy`` file (format 1.0), padded so that any first dimension fits the same length."""

    def text(first: int) -> str:
        descr = np.lib.format.dtype_to_descr(dtype)
        whole = (first, *shape[1:])
        return f"{{'descr': {descr!r}, 'fortran_order': {fortran_order}, 'shape': {whole!r}, }}"

    length = -(-(len(MAGIC) + 2 + len(text(_LONGEST)) + 1) // 64) * 64
    body = length - len(MAGIC) - 2
    return MAGIC + body.to_bytes(2, "little") + text(shape[0]).ljust(body - 1).encode("latin1") + b"\n"


def read_npy_header(raw: bytes, path: Path | str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Parse the first bytes of a ``.npy`` file into (shape, fortran_order, dtype); never unpickles.

    Raises
    ------
    StoreError
        For anything but a plain numeric header.
    """
    if raw[:1] == b"\x80" and raw[:8] != MAGIC:
        raise StoreError(f"{path}: is a Python pickle, not a .npy file; nothing was unpickled; {FROM_A_COPY}")
    if raw[:8] != MAGIC:
        raise StoreError(f"{path}: is not a .npy file as the store writes them; {FROM_A_COPY}")
    try:
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(raw[8:]))
    except Exception as error:  # whatever literal_eval and the dtype constructor make of damaged text
        raise StoreError(f"{path}: its .npy header is damaged; {FROM_A_COPY}") from error
    if dtype.hasobject:
        raise StoreError(f"{path}: holds Python objects, not numbers; nothing was unpickled; {FROM_A_COPY}")
    return shape, fortran_order, dtype


def check_header(array: GrowingArray, raw: bytes, path: Path | str) -> int:
    """Check that a header is the one the store writes, and return the rows that it claims."""
    shape, fortran_order, dtype = read_npy_header(raw, path)
    wanted = (array.dtype, array.row_shape, False)
    if (dtype, tuple(shape[1:]), fortran_order) != wanted or not shape:
        raise StoreError(
            f"{path}: holds {dtype} of shape {shape}{', Fortran order' if fortran_order else ''}, but the "
            f"manifest says {array.dtype} rows of shape {array.row_shape}; {FROM_A_COPY}"
        )
    if int.from_bytes(raw[8:10], "little") + 10 != array.header_bytes:
        raise StoreError(f"{path}: its .npy header is not the one the store wrote; {FROM_A_COPY}")
    return int(shape[0])


def read_header(array: GrowingArray, file: io.FileIO, path: Path) -> int:
    """:func:`check_header` of an open file; looked at again where a writer may be rewriting it just then."""
    for _ in range(2):
        with suppress(StoreError):
            file.seek(0)
            return check_header(array, file.read(array.header_bytes), path)
        time.sleep(0.01)
    file.seek(0)
    return check_header(array, file.read(array.header_bytes), path)


def open_inside(directory: Path, file: str, flags: int) -> io.FileIO:
    """Open a file of the store unbuffered; a link that could lead elsewhere is refused.

    Raises
    ------
    StoreError
        Where it is missing, a link, or not readable.
    """
    path = directory / file
    with suppress(OSError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
            raise StoreError(f"{path}: is {kind}, which a store never opens; put the file itself there")
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0), 0o666)
    except FileNotFoundError:
        raise StoreError(f"{path}: is missing; {FROM_A_COPY}") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error
    return io.FileIO(descriptor, "r+b" if flags & os.O_RDWR else "rb")


def bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    """The bytes of a C-ordered array, uncopied."""
    return array.reshape(-1).view(np.uint8).data


def write_all(file: io.FileIO, offset: int, data: bytes | memoryview) -> None:
    """Write every byte at an offset; one system call may write fewer than asked."""
    view = memoryview(data)
    file.seek(offset)
    while len(view):
        view = view[file.write(view) :]


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file whole: a reader sees the old content or the new, also after a crash."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make new and renamed entries of a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
