"""Where an array came from, so that another process makes it again instead of being sent it.

A view of a mapped file is sent as the file's name, place, shape and strides, or as the URL that the file is a
copy of; the result of :func:`derived` as the call that made it. What is made again is kept, by the digest of
what was sent, until :func:`forget`.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import xxhash

from ._file_maps import FileMap
from ._validate import Array
from .errors import StoreError
from .store.remote import copy_of, source_of
from .store.remote import forget as forget_stores

# What is made again is kept up to these bytes; mapped files do not count.
_KEPT_BYTES = 2**30
_MOST_LOADED = 16

_origins: dict[int, tuple[weakref.ref[Any], Callable[..., Any], tuple[Any, ...]]] = {}
_lock = threading.RLock()
_kept: OrderedDict[str, Any] = OrderedDict()
_loaded: OrderedDict[str, Any] = OrderedDict()
_maps: dict[tuple[str, int, int], mmap.mmap] = {}


class Unseen(StoreError):
    """A file that this process cannot open, or not to its end."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return Unseen, (self.path, self.reason)

    def on(self, worker: str) -> StoreError:
        """The same, naming the worker."""
        return StoreError(
            f"{self.path}: the worker at {worker} cannot read it ({self.reason}); every worker has to see "
            "the store under the same path, on a file system that all share"
        )


def derived(function: Callable[..., Array], *arguments: Any) -> Array:
    """``function(*arguments)``, a new array, and a note of the call.

    The function is a module's own, and has no side effects. The note keeps the arguments for as long as the
    array lives.
    """
    made = function(*arguments)
    remember(made, function, *arguments)
    return made


def remember(made: Array, function: Callable[..., Array], *arguments: Any) -> None:
    """Note that an array is ``function(*arguments)``."""
    key = id(made)
    _origins[key] = weakref.ref(made, lambda _: _origins.pop(key, None)), function, arguments


def _origin_of(array: Array) -> tuple[Any, ...] | None:
    noted = _origins.get(id(array))
    if noted is not None and noted[0]() is array:
        return "call", dump((noted[1], noted[2]))
    place = _place_in_file(array)
    source = None if place is None else source_of(place[1])
    if place is None or source is None:
        return place
    return "remote", pickle.dumps(source), *place[2:]


def _place_in_file(array: Array) -> tuple[Any, ...] | None:
    """File, offset, shape and strides of a view of a mapped, read-only file; None for other arrays."""
    if not isinstance(array, np.memmap) or array.flags.writeable or array.size == 0:
        return None
    if array.filename is None or min(array.strides, default=0) < 0 or array.dtype.hasobject:
        return None
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base.base, mmap.mmap):
            break
        base = base.base
    if not isinstance(base, np.memmap):
        return None
    before = base.offset - base.offset % mmap.ALLOCATIONGRANULARITY
    origin = np.frombuffer(cast(mmap.mmap, base.base), dtype=np.uint8).ctypes.data
    offset = before + array.ctypes.data - origin
    path = os.fspath(cast(str, base.filename))
    return "file", path, offset, array.dtype.str, array.shape, array.strides


def files_of(array: Array) -> list[str]:
    """The files that an array is a view of, or was made from; none where that is not known."""
    noted = _origins.get(id(array))
    if noted is not None and noted[0]() is array:
        arrays = [argument for argument in noted[2] if isinstance(argument, np.ndarray)]
        return [path for one in arrays for path in files_of(one)]
    place = _place_in_file(array)
    return [] if place is None else [place[1]]


def size_of(path: str) -> int:
    """Bytes of a file as this process sees it; -1 where it does not."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def open_place(path: str, offset: int, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """A view of a file, mapped read-only: the file is mapped once, and again where it has changed.

    Raises
    ------
    Unseen
        Where the file is not there, or ends before.
    """
    try:
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            key = path, state.st_size, state.st_mtime_ns
            mapped = _maps.get(key)
            if mapped is None:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                _maps[key] = mapped
        end = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if end + np.dtype(dtype).itemsize > len(mapped):
            raise Unseen(path, f"it has only {len(mapped)} bytes there")
    except OSError as error:
        raise Unseen(path, error.strerror or str(error)) from None
    view = np.ndarray.__new__(FileMap, shape, np.dtype(dtype), mapped, offset, strides)
    view._mmap, view.filename, view.offset, view.mode = mapped, path, 0, "r"  # type: ignore[attr-defined]
    return view


def dump(value: Any) -> bytes:
    """Pickle functions and what they close over, arrays of known origin by that."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def persistent_id(self, thing: Any) -> Any:
            return _origin_of(thing) if isinstance(thing, np.ndarray) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, origin: Any) -> Any:
        kind, what, *place = origin
        if kind == "call":
            return _made(what)
        return open_place(copy_of(*pickle.loads(what)) if kind == "remote" else what, *place)


def read(data: bytes) -> Any:
    """What :func:`dump` wrote; arrays of known origin are found again."""
    return _Unpickler(io.BytesIO(data)).load()


def load(data: bytes) -> Any:
    """As :func:`read`, and kept: tasks that come with the same bytes share one object."""
    key = xxhash.xxh3_128_hexdigest(data)
    with _lock:
        if key not in _loaded:
            _loaded[key] = read(data)
            while len(_loaded) > _MOST_LOADED:
                _loaded.popitem(last=False)
        _loaded.move_to_end(key)
        return _loaded[key]


def _made(call: bytes) -> Array:
    """The array that a call gives, made once."""
    key = xxhash.xxh3_128_hexdigest(call)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            found: Array = _kept[key]
            return found
        function, arguments = read(call)
        made: Array = function(*arguments)
        _kept[key] = made
        while len(_kept) > 1 and sum(array.nbytes for array in _kept.values()) > _KEPT_BYTES:
            _kept.popitem(last=False)
        return made


def forget() -> None:
    """Let go of all that was kept and opened."""
    with _lock:
        _kept.clear()
        _loaded.clear()
        _maps.clear()
    forget_stores()
