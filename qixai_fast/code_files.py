"""Codes of a matrix on disk, feature-major, for when they do not fit in memory."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ._memory import format_bytes
from ._validate import Matrix
from .bins import Bins, Codes, code_dtype, encode_rows, row_blocks

# Rows whose codes are written together: a column of them is worth a write of its own.
_WRITE_ROWS = 65536


def disk_error(error: OSError, place: str, size: int, mend: str) -> OSError:
    """The same error, saying what was written where, and what helps."""
    reason = error.strerror or "it ended early"
    return OSError(
        error.errno or errno.EIO,
        f"{place}: {format_bytes(size)} of codes could not be written ({reason}); {mend}",
    )


def _take_space(file: int, size: int) -> None:
    """Take space on the disk before the work begins, where the file system can."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def _write_at(file: int, data: memoryview, offset: int) -> None:
    while len(data):
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def written_rows(width: int, itemsize: int, n_samples: int, room: int) -> int:
    """Rows whose codes are collected before they are written: as many as fit ``room`` bytes, or 65,536."""
    return max(1, min(n_samples, _WRITE_ROWS, room // (width * itemsize)))


def write_codes(
    matrix: Matrix, bins: Bins, file: int, offset: int, *, rows: int, together: int, n_jobs: int
) -> None:
    """Write the codes of a whole matrix into an open file; one pass over the matrix.

    Written, not mapped, so that a full disk is an error and not a signal. Space is taken first.

    Parameters
    ----------
    matrix : Matrix
    bins : Bins
    file : int
        File descriptor.
    offset : int
        Where in the file column 0 begins.
    rows : int
        Rows read at a time by each thread.
    together : int
        Rows whose codes are collected before they are written.
    n_jobs : int
    """
    n, d = matrix.n_samples, matrix.n_features
    dtype = code_dtype(bins.n_bins)
    _take_space(file, offset + n * d * dtype.itemsize)
    codes: Codes = np.empty((d, together), dtype=dtype)
    for start, stop in row_blocks(n, together):
        encode_rows(matrix, bins, codes, start, stop, rows=rows, n_jobs=n_jobs)
        for column in range(d):
            part = codes[column, : stop - start].data.cast("B")
            _write_at(file, part, offset + (column * n + start) * dtype.itemsize)


class CodeFile:
    """Codes of a matrix in a nameless temporary file: it is gone when it is closed, or the process ends.

    The file lies in ``tempfile.gettempdir()``, so ``TMPDIR`` says where. It is read, not mapped: pages in the
    kernel's cache are not this process's memory.

    Parameters
    ----------
    matrix : Matrix
    bins : Bins
    rows, together, n_jobs : int
        As in :func:`write_codes`.

    Raises
    ------
    OSError
        Where the codes do not fit the disk.
    """

    def __init__(self, matrix: Matrix, bins: Bins, *, rows: int, together: int, n_jobs: int) -> None:
        self.dtype = code_dtype(bins.n_bins)
        self.n_samples = matrix.n_samples
        self.n_features = matrix.n_features
        size = self.n_samples * self.n_features * self.dtype.itemsize
        try:
            self._file = tempfile.TemporaryFile(prefix="qixai-codes-", buffering=0)  # noqa: SIM115
            try:
                write_codes(matrix, bins, self._file.fileno(), 0, rows=rows, together=together, n_jobs=n_jobs)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            mend = "set TMPDIR to a directory with room, or raise max_memory so that they stay in memory"
            raise disk_error(error, tempfile.gettempdir(), size, mend) from error

    def __enter__(self) -> CodeFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def read(self, columns: Any, start: int, stop: int, out: Codes) -> None:
        """Read samples ``start`` to ``stop`` of some columns into the rows of ``out``."""
        size = self.dtype.itemsize
        for row, column in enumerate(columns.tolist()):
            part = out[row, : stop - start].data.cast("B")
            offset = (column * self.n_samples + start) * size
            while len(part):
                count = os.preadv(self._file.fileno(), [part], offset)
                if count == 0:
                    raise OSError(errno.EIO, f"{tempfile.gettempdir()}: a file of codes ended early")
                part, offset = part[count:], offset + count


def path_of(out: Any) -> Path | None:
    """The path that an ``out`` argument is, or None where it is something else."""
    if not isinstance(out, (str, os.PathLike)):
        return None
    path = Path(out)
    if path.is_dir():
        raise ValueError(f"out: wanted a path of a file, got the directory {str(path)!r}")
    return path
