"""``dask.array`` inputs: chunks are computed as they are needed, by whatever scheduler is active.

A function that streams rows reads a :class:`_Chunked`: every pass computes every chunk once. One that
reads columns, or rows again and again, reads a :class:`_Scratch`: every chunk is computed once, into a
temporary file.
Chunks over columns are computed together, a band of rows at a time. ``max_memory`` counts the chunks that are
held, and not what dask itself takes while it makes one.
"""

from __future__ import annotations

import functools
import inspect
import mmap
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, ParamSpec, TypeVar

import numpy as np

from ._lazy_rows import LazyRows
from ._memory import format_bytes, parse_memory
from ._threads import resolve_n_jobs
from ._validate import Array, check_real
from .errors import MemoryBudgetError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
# From a call's arguments and a matrix's shape: "stream", or scratch in "rows" or "columns".
Access = Callable[[dict[str, Any], tuple[int, int]], str]
_Band = list[Array]

# Rows in work by one thread: a part of cross moments, four leaves of 4 MiB or of 32 rows.
_PART_BYTES = 16 * 2**20
_PART_ROWS = 128
# Of a scratch file, written between two times that its pages are let go.
_WRITE_BYTES = 4 * 2**20


def is_dask(value: Any) -> bool:
    """Whether a value is a dask array; never imports dask."""
    return type(value).__module__.split(".")[:2] == ["dask", "array"]


class _Bands:
    """A checked dask array as bands of rows: the chunks that share their rows."""

    def __init__(self, array: Any, name: str) -> None:
        from dask.base import get_scheduler

        if array.ndim != 2:
            hint = f"; reshape a single feature with {name}.reshape(-1, 1)" if array.ndim == 1 else ""
            raise ValueError(f"{name}: wanted shape (n_samples, n_features), got {array.shape}{hint}")
        if any(np.isnan(size) for sizes in array.chunks for size in sizes):
            raise ValueError(
                f"{name}: a dask array of unknown chunk sizes; call {name}.compute_chunk_sizes() first"
            )
        check_real(array, name)
        if not isinstance(array._meta, np.ndarray) or isinstance(array._meta, np.ma.MaskedArray):
            kind = type(array._meta)
            raise TypeError(f"{name}: chunks are {kind.__module__}.{kind.__name__}; wanted NumPy arrays")
        self.name, self.dtype = name, np.dtype(array.dtype)
        self.shape = (int(array.shape[0]), int(array.shape[1]))
        self.rows = np.cumsum([0, *array.chunks[0]]).tolist()
        self.columns = np.cumsum([0, *array.chunks[1]]).tolist()
        self.chunks = (max(array.chunks[0]), max(array.chunks[1]))
        self._array = array
        # A client may be current in this thread only; ours are to use it, too.
        own = get_scheduler(collections=[array])  # type: ignore[no-untyped-call]
        self._scheduler = own or array.__dask_scheduler__

    @property
    def largest(self) -> int:
        """Bytes of the largest band."""
        return int(self.chunks[0] * self.shape[1] * self.dtype.itemsize)

    def compute(self, band: int) -> _Band:
        """The chunks of a band, from left to right."""
        from dask.base import compute

        chunks = [self._array.blocks[band, j] for j in range(len(self.columns) - 1)]
        computed = compute(*chunks, scheduler=self._scheduler)  # type: ignore[no-untyped-call]
        n = self.rows[band + 1] - self.rows[band]
        for j, chunk in enumerate(computed):
            wanted = (n, self.columns[j + 1] - self.columns[j])
            if not isinstance(chunk, np.ndarray) or chunk.shape != wanted or chunk.dtype != self.dtype:
                came = f"{getattr(chunk, 'dtype', type(chunk).__name__)} {getattr(chunk, 'shape', '')}"
                raise ValueError(
                    f"{self.name}: chunk ({band}, {j}) came as {came}; "
                    f"the array announces {self.dtype} {wanted}"
                )
            if np.ma.is_masked(chunk):
                raise ValueError(f"{self.name}: has masked values; fill or drop them first")
        return [np.asarray(chunk) for chunk in computed]

    def within(self, start: int, stop: int) -> Iterator[int]:
        """Bands that hold some of rows ``start:stop``."""
        for band in range(max(0, int(np.searchsorted(self.rows, start, "right")) - 1), len(self.rows) - 1):
            if self.rows[band] >= stop:
                return
            if self.rows[band + 1] > start and self.rows[band + 1] > self.rows[band]:
                yield band


class _Cache:
    """Bands that were computed last; threads that want the same one wait for the first of them."""

    def __init__(self, bands: _Bands, capacity: int) -> None:
        self.bands, self._capacity = bands, capacity
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Future[_Band]] = OrderedDict()

    def _bytes(self, band: int) -> int:
        rows = self.bands.rows
        return int((rows[band + 1] - rows[band]) * self.bands.shape[1] * self.bands.dtype.itemsize)

    def get(self, band: int) -> _Band:
        with self._lock:
            found = self._held.get(band)
            if found is None:
                room = self._capacity - self._bytes(band) - sum(map(self._bytes, self._held))
                for old in [key for key, future in self._held.items() if future.done()]:
                    if room >= 0:
                        break
                    room += self._bytes(old)
                    del self._held[old]
                mine = self._held[band] = Future()
            else:
                self._held.move_to_end(band)
        if found is not None:
            return found.result()
        try:
            mine.set_result(self.bands.compute(band))
        except BaseException as error:
            with self._lock:
                del self._held[band]
            mine.set_exception(error)
            raise
        return mine.result()


class _Chunked(LazyRows):
    """Rows of a dask array, streamed; columns of it are a view that shares its chunks."""

    def __init__(self, cache: _Cache, first: int, stop: int) -> None:
        bands = cache.bands
        super().__init__((bands.shape[0], stop - first), bands.dtype, f_contiguous=False)
        self._cache, self._first, self._stop = cache, first, stop

    def __getitem__(self, index: Any) -> Any:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        first, stop, _ = columns.indices(self.shape[1])
        first, stop = self._first + first, self._first + max(first, stop)
        if rows == slice(None):
            return _Chunked(self._cache, first, stop)
        begin, end, _ = rows.indices(self.shape[0])
        bands = self._cache.bands
        out = np.empty((max(0, end - begin), stop - first), bands.dtype)
        for band in bands.within(begin, end):
            top, chunks = bands.rows[band], self._cache.get(band)
            low, high = max(begin, top), min(end, bands.rows[band + 1])
            for j, chunk in enumerate(chunks):
                left, right = max(first, bands.columns[j]), min(stop, bands.columns[j + 1])
                if left < right:
                    at = slice(left - bands.columns[j], right - bands.columns[j])
                    out[low - begin : high - begin, left - first : right - first] = chunk[
                        low - top : high - top, at
                    ]
        return out


class _Scratch(LazyRows):
    """A dask array that the first read computes, chunk by chunk, into a temporary file."""

    def __init__(self, bands: _Bands, *, by_columns: bool, folder: str) -> None:
        super().__init__(bands.shape, bands.dtype, f_contiguous=by_columns)
        self._bands, self._folder, self._by_columns = bands, folder, by_columns
        self._lock = threading.Lock()
        self._file: np.ndarray[Any, Any] | None = None

    def __getitem__(self, index: Any) -> Any:
        with self._lock:
            if self._file is None:
                self._file = self._write()
        return self._file[index]

    @property
    def mapped(self) -> np.ndarray[Any, Any] | None:
        return self._file

    def _write(self) -> np.ndarray[Any, Any]:
        path = f"{self._folder}/{self._bands.name}.npy"
        file = np.lib.format.open_memmap(path, "w+", self.dtype, self.shape, fortran_order=self._by_columns)
        try:
            # Writing to a mapped page that the disk has no room for would end the process.
            with open(path, "r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, os.path.getsize(path))
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self._bands.name}: no room for {format_bytes(self.nbytes)} of its chunks "
                "in the folder for temporary files (set TMPDIR to another)",
                self._folder,
            ) from error
        rows, columns = self._bands.rows, self._bands.columns
        for band in range(len(rows) - 1):
            chunks = self._bands.compute(band) if rows[band + 1] > rows[band] else []
            for j, chunk in enumerate(chunks):
                place = file[rows[band] : rows[band + 1], columns[j] : columns[j + 1]]
                # Columns lie far apart in a file of columns: a few at a time, and their pages go.
                step = chunk.shape[1]
                if self._by_columns:
                    step = max(1, _WRITE_BYTES // chunk[:, :1].nbytes)
                for left in range(0, chunk.shape[1], step):
                    place[:, left : left + step] = chunk[:, left : left + step]
                    file.flush()
                    file._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        del file
        mapped: np.ndarray[Any, Any] = np.load(path, mmap_mode="r")
        return mapped


def _reserve(bands: list[_Bands], streamed: bool, threads: int) -> int:
    """Bytes that chunks may take; 0 threads for the least that one thread can do with."""
    if not streamed:
        return max(each.largest for each in bands)
    total = 0
    for each in bands:
        part = max(_PART_BYTES, _PART_ROWS * each.shape[1] * each.dtype.itemsize)
        total += 2 * each.largest + (part * (threads + 1) if threads else 0)
    return total


def _too_small(bands: list[_Bands], needed: int, budget: int) -> MemoryBudgetError:
    widest = max(bands, key=lambda each: each.largest)
    return MemoryBudgetError(
        f"max_memory: rows of {widest.name} come in chunks of {widest.chunks[0]} x {widest.shape[1]} "
        f"({format_bytes(widest.largest)}), which take {format_bytes(needed)}; the budget is "
        f"{format_bytes(budget)}. Rechunk {widest.name} with fewer rows a chunk, or give a larger budget",
        2 * needed,
    )


def dask_inputs(
    *names: str, access: str | Access = "stream"
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Let a public function take dask arrays for some of its arguments; other calls go straight through.

    Parameters
    ----------
    names : str
        Arguments that may be dask arrays.
    access : {"stream", "rows", "columns"} or callable
        How the function reads them; a callable gets the call's arguments and the shape of the array.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            if not any(is_dask(value) for value in (*args, *kwargs.values())):
                return function(*args, **kwargs)
            bound = inspect.signature(function).bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            asked = {name: given[name] for name in names if is_dask(given.get(name))}
            found = {name: _Bands(array, name) for name, array in asked.items()}
            if not found:
                return function(*args, **kwargs)
            kinds = {
                name: access if isinstance(access, str) else access(given, each.shape)
                for name, each in found.items()
            }
            streamed = "stream" in kinds.values()
            threads, budget = resolve_n_jobs(given["n_jobs"]), parse_memory(given["max_memory"])
            bands = list(found.values())
            reserve = _reserve(bands, streamed, threads)
            if budget is not None:
                if streamed and 2 * reserve > budget:
                    # Threads far apart need more chunks than one thread does.
                    threads, reserve = 1, _reserve(bands, streamed, 0)
                if reserve >= budget:
                    raise _too_small(bands, reserve, budget)
                given["max_memory"] = budget - reserve
            given["n_jobs"] = threads
            with ExitStack() as stack:
                for name, each in found.items():
                    twin = next(other for other in asked if asked[other] is asked[name])
                    if twin != name:
                        given[name] = given[twin]
                    elif kinds[name] == "stream":
                        share = reserve * each.largest // max(1, sum(other.largest for other in bands))
                        given[name] = _Chunked(_Cache(each, max(share, 2 * each.largest)), 0, each.shape[1])
                    else:
                        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="qixai-"))
                        given[name] = _Scratch(each, by_columns=kinds[name] == "columns", folder=folder)
                try:
                    return function(*bound.args, **bound.kwargs)
                except MemoryBudgetError as error:
                    if budget is None:
                        raise
                    needed = error.required + reserve
                    raise MemoryBudgetError(
                        f"max_memory: {format_bytes(needed)} are needed, {format_bytes(reserve)} of them for "
                        f"chunks of dask arrays; the budget is {format_bytes(budget)}; "
                        f"max_memory={needed} would do",
                        needed,
                    ) from error

        return call

    return decorate
