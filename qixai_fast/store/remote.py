"""Stores behind URLs that fsspec opens (``s3://``, ``gs://``, ``http://``), read through copies in the cache.

A layer is asked for again and again, by rows and by columns, and a network answers slowly; so each process
that needs one copies its file into the user's cache, once for all processes of a machine, comparing every
chunk with its checksum as it comes. From there on it is a local file. What is remote is never written to.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy.typing as npt
import xxhash

from .._cache import cache_folder
from ..errors import StoreError
from .columns import is_copy_of, open_locked
from .format import MANIFEST, Manifest, parse_manifest
from .journal import JOURNAL, Journal, cut_back_hint, parse_journal
from .npy import GrowingArray, check_header, write_all
from .reader import ActivationStore, Map
from .verifying import find_problems

_INSTALL = "pip install 'qixai-fast[dask]' (it comes with Dask), or fsspec alone"
_IN_USE = "in-use.lock"
# Copies that this process has opened: which store and which of its files each folder stands for.
_sources: dict[str, tuple[str, Manifest, Journal]] = {}
_stores: dict[str, RemoteStore] = {}
_lock = threading.RLock()


def open_remote(url: str) -> ActivationStore:
    """Open the store behind a URL; see :func:`qixai_fast.open_store`.

    Raises
    ------
    ImportError
        Without fsspec, or the package that its protocol needs: named.
    StoreError
        As for a local store.
    """
    source = _Source(url)
    if source.local is not None:
        from .reader import open_store

        return open_store(source.local)
    manifest = parse_manifest(source.read(MANIFEST), f"{url}/{MANIFEST}")
    journal = parse_journal(source.read(JOURNAL), url, manifest)
    store = RemoteStore(url, manifest, journal)
    for array in manifest.arrays():
        source.check(array, journal)
    return store


class _Source:
    """Files under a URL."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise ImportError(f"a store behind a URL needs fsspec: {_INSTALL}") from error
        self.url = url.rstrip("/")
        try:
            self._files, self._root = url_to_fs(self.url)
        except ImportError as error:
            raise ImportError(f"{self.url}: {error}") from error
        except Exception as error:  # of many packages; an unknown protocol is a ValueError
            raise StoreError(f"{self.url}: cannot be opened ({_words(error)})") from error
        protocol = self._files.protocol
        names = (protocol,) if isinstance(protocol, str) else tuple(protocol)
        self.local = self._root if "file" in names else None

    def read(self, file: str, start: int | None = None, stop: int | None = None) -> bytes:
        """A file, or some of its bytes: fewer where it ends."""
        try:
            found: bytes = self._files.cat_file(f"{self._root}/{file}", start=start, end=stop)
        except FileNotFoundError:
            if file == MANIFEST:
                raise StoreError(
                    f"{self.url}: is not an activation store (it has no {MANIFEST}); check the URL"
                ) from None
            raise StoreError(f"{self.url}/{file}: is missing") from None
        except Exception as error:  # every protocol brings its own
            raise StoreError(f"{self.url}/{file}: cannot be read ({_words(error)})") from error
        return found

    def check(self, array: GrowingArray, journal: Journal) -> None:
        """Check that a file is the one that the manifest describes, and is long enough."""
        header = self.read(array.file, 0, array.header_bytes)
        check_header(array, header, f"{self.url}/{array.file}")
        end = array.offset(journal.rows(array))
        if end > array.header_bytes and not self.read(array.file, end - 1, end):
            raise StoreError(f"{self.url}/{array.file}: is truncated; {cut_back_hint(self.url, 0)}")

    def chunks(self, array: GrowingArray, journal: Journal, place: int) -> Iterator[tuple[bytes, str | None]]:
        """Bytes of each chunk, and what is wrong with it."""
        for index, chunk in enumerate(journal.chunks):
            first, stop = journal.extent(array, index)
            data = self.read(array.file, array.offset(first), array.offset(stop)) if stop > first else b""
            problem = None
            if len(data) < (stop - first) * array.row_bytes:
                problem = "is truncated"
            elif xxhash.xxh3_64_hexdigest(data) != chunk.checksums[place]:
                problem = "differs from its checksum"
            where = f"{self.url}/{array.file}: chunk {index}"
            yield data, problem and f"{where} {problem}; {cut_back_hint(self.url, 0)}"


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class RemoteStore(ActivationStore):
    """An :class:`ActivationStore` behind a URL. ``path`` is the folder of its copies in the cache."""

    def __init__(self, url: str, manifest: Manifest, journal: Journal) -> None:
        super().__init__(Path(), manifest, journal)
        self.location = url.rstrip("/")
        self.path = _folder(self.location, self.checksum)
        try:
            self._held = _hold(self.path)
        except OSError as error:
            raise OSError(
                error.errno,
                f"copies of {self.location} cannot be kept: {error.strerror}; set QIXAI_FAST_CACHE to a "
                "folder that can be written to",
                str(self.path),
            ) from None
        _remove_others(self.path)
        with _lock:
            _sources[str(self.path.resolve())] = self.location, manifest, journal

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStore, (self.location, self._manifest, self._journal)

    def __getitem__(self, name: str) -> Map:
        self.fetch(self._manifest.files[self._known(name)])
        return super().__getitem__(name)

    def _whole(self, file: str, n_rows: int) -> npt.NDArray[Any]:
        self.fetch(file)
        return super()._whole(file, n_rows)

    @property
    def sample_ids(self) -> npt.NDArray[Any] | None:
        for file in self._arrays:
            if file.startswith("sample_ids"):
                self.fetch(file)
        return super().sample_ids

    @property
    def files(self) -> list[Path]:
        return [self.fetch(file) for file in self._arrays]

    def verify(self, progress: bool = False, *, n_jobs: int | None = None) -> list[str]:
        """As for a local store: what is remote is read again, and so are the copies."""
        source = _Source(self.location)
        problems = [
            problem
            for place, array in enumerate(self._arrays.values())
            if (self.path / array.file).exists()  # others are compared as they are copied
            for _, problem in source.chunks(array, self._journal, place)
            if problem is not None
        ]
        for file in () if problems else self._arrays:
            try:
                self.fetch(file)
            except StoreError as error:
                problems.append(str(error))
        if problems:
            return problems
        return find_problems(self.path, self._manifest, self._journal, progress=progress, n_jobs=n_jobs)

    def fetch(self, file: str) -> Path:
        """Copy a file into the cache, unless it is there.

        Raises
        ------
        StoreError
            Naming a chunk that differs from its checksum.
        OSError
            Where the cache has no room for it.
        """
        path = self.path / file
        if path.exists():
            return path
        array = self._arrays[file]
        temporary = path.with_name(f"{file}.tmp")
        with open_locked(temporary, wait=True) as target:
            if path.exists():  # copied by another process or thread while this one waited
                temporary.unlink()
                return path
            try:
                source = _Source(self.location)
                rows = self._journal.rows(array)
                target.truncate(0)
                offset = array.header_bytes
                for data, problem in source.chunks(array, self._journal, self._places[file]):
                    if problem is not None:
                        raise StoreError(problem)
                    write_all(target, offset, data)
                    offset += len(data)
                write_all(target, 0, array.header(rows))
                os.fsync(target.fileno())
                os.replace(temporary, path)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                size = array.offset(self._journal.rows(array))
                raise OSError(
                    error.errno,
                    f"a copy of {self.location}/{file} ({size} bytes) cannot be written: {error.strerror}; "
                    "set QIXAI_FAST_CACHE to a folder with room",
                    str(path),
                ) from None
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return path


def _folder(url: str, checksum: str) -> Path:
    return cache_folder() / "stores" / f"{xxhash.xxh3_64_hexdigest(url.encode())}-{checksum}"


def _hold(folder: Path) -> Any:
    """Let others know that copies are in use, until the process ends or the store is let go."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        held = open(folder / _IN_USE, "ab")  # noqa: SIM115  (the lock is as long as this is open)
        try:
            import fcntl

            fcntl.flock(held, fcntl.LOCK_SH)
        except (ImportError, OSError):
            return held
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held.fileno()), (folder / _IN_USE).stat()):
                return held
        held.close()  # deleted by another process before it was locked


def _remove_others(folder: Path) -> None:
    """Delete copies of what the same URL held before, unless someone uses them."""
    try:
        import fcntl
    except ImportError:
        return
    for old in folder.parent.glob(f"{folder.name.partition('-')[0]}-*"):
        if old == folder:
            continue
        with suppress(OSError), open(old / _IN_USE, "ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(old)


def source_of(path: str) -> tuple[str, Manifest, Journal, str] | None:
    """The store that a copy in the cache is of, and the file within it; None for other files."""
    for folder, source in _sources.items():
        if path.startswith(folder + os.sep):
            return (*source, path[len(folder) + 1 :])
    return None


def forget() -> None:
    """Let go of the stores that :func:`copy_of` opened."""
    with _lock:
        _stores.clear()


def copy_of(url: str, manifest: Manifest, journal: Journal, file: str) -> str:
    """The same copy in this process's cache, made where it is not there."""
    key = f"{url} {manifest.digest()} {journal.n_samples} {journal.n_bytes}"
    with _lock:
        if key not in _stores:
            _stores[key] = RemoteStore(url, manifest, journal)
        store = _stores[key]
    if file.startswith(f"columns{os.sep}"):
        name = next(name for name, own in manifest.files.items() if is_copy_of(own, Path(file).name))
        return str(store.columns(name).filename)
    return str(store.fetch(file).resolve())
