"""Open a store for reading: its layers as read-only memory maps of the complete samples."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from .._file_maps import FileMap
from ..errors import StoreError
from .columns import open_columns
from .format import LayerInfo, Manifest, canonical_json, read_manifest
from .journal import Journal, cut_back_hint, read_journal
from .npy import GrowingArray, open_inside, read_header
from .verifying import find_problems

Map = np.memmap[Any, np.dtype[Any]]


def open_store(path: str | os.PathLike[str]) -> ActivationStore:
    """Open an activation store for reading.

    Everything but the activations themselves is checked; :meth:`ActivationStore.verify` checks those.
    A store that a writer is adding to shows the samples that were complete when it was opened.

    Parameters
    ----------
    path : str or PathLike
        Directory of the store, or a URL that fsspec opens (``s3://``, ``gs://``, ``http://``): of these, each
        layer is copied into the user's cache when it is first used (``QIXAI_FAST_CACHE`` says where), and
        nothing is written to the URL.

    Returns
    -------
    ActivationStore

    Raises
    ------
    StoreError
        For a directory that is no store, a store of a newer version, and missing, truncated,
        corrupted or foreign files.
    ImportError
        For a URL without fsspec, or without the package for its protocol.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from qixai_fast.store import LayerSpec, create_store
    >>> folder = tempfile.TemporaryDirectory()
    >>> with create_store(folder.name, {"conv1": LayerSpec((4,), reduction="gap")}) as writer:
    ...     writer.append({"conv1": np.ones((10, 4))})
    >>> store = open_store(folder.name)
    >>> list(store), store["conv1"].shape, store["conv1"].dtype
    (['conv1'], (10, 4), dtype('float32'))
    >>> folder.cleanup()
    """
    if isinstance(path, str) and "://" in path:
        from .remote import open_remote

        return open_remote(path)
    directory = Path(path).absolute()
    manifest = read_manifest(directory)
    journal = read_journal(directory, manifest)
    check_files(directory, manifest, journal)
    return ActivationStore(directory, manifest, journal)


class ActivationStore(Mapping[str, Map]):
    """Recorded activations: a mapping from layer name to a read-only memory-mapped array.

    Made by :func:`open_store`. Layers come in capture order; axis 0 of each is the samples.

    Attributes
    ----------
    path : Path
    location : str
        The same, or the URL of which ``path`` holds copies.
    n_samples : int
        Complete samples when the store was opened.
    """

    def __init__(self, path: Path, manifest: Manifest, journal: Journal) -> None:
        self.path = path
        self.location = str(path)
        self.n_samples = journal.n_samples
        self._manifest = manifest
        self._journal = journal
        self._arrays = {array.file: array for array in manifest.arrays()}
        self._places = {file: place for place, file in enumerate(self._arrays)}
        self._maps: dict[str, Map] = {}
        self._copies: dict[Path, os.stat_result] = {}
        self._labels: npt.NDArray[np.int64] | None = None
        self._sample_ids: npt.NDArray[Any] | None = None

    def __getitem__(self, name: str) -> Map:
        file = self._manifest.files[self._known(name)]
        if file not in self._maps:
            self._maps[file] = map_rows(self.path, self._arrays[file], self.n_samples)
        return self._maps[file]

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifest.layers)

    def __len__(self) -> int:
        return len(self._manifest.layers)

    def __contains__(self, name: object) -> bool:
        return name in self._manifest.layers

    def __repr__(self) -> str:
        return f"<ActivationStore {self.location!r}: {self.n_samples} samples of {', '.join(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled without its maps: another process opens the files again, and sees the same samples."""
        return ActivationStore, (self.path, self._manifest, self._journal)

    def _known(self, name: str) -> str:
        if name in self._manifest.layers:
            return name
        near = difflib.get_close_matches(str(name), list(self), n=3, cutoff=0.4) or list(self)[:10]
        raise KeyError(f"no layer {name!r} in {self.location}; nearest: {', '.join(near)}")

    @property
    def info(self) -> Mapping[str, LayerInfo]:
        """File, shape, dtypes and reduction of every layer."""
        return MappingProxyType(
            {
                name: LayerInfo(
                    name,
                    self._manifest.files[name],
                    (self.n_samples, *spec.shape),
                    spec.dtype,
                    spec.source_dtype,
                    spec.reduction,
                )
                for name, spec in self._manifest.layers.items()
            }
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """Plain JSON that the writer gave: model name, ``class_names`` and the like."""
        return self._manifest.metadata

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Plain JSON that a resumed capture must repeat."""
        return self._manifest.fingerprint

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """Class labels, int64 of shape (n_samples,); None where none were captured."""
        if self._labels is None and self._manifest.labels:
            self._labels = self._whole("labels.npy", self.n_samples)
        return self._labels

    @property
    def sample_ids(self) -> npt.NDArray[Any] | None:
        """The samples' own names, int64 or str of shape (n_samples,); None where none were captured."""
        if self._sample_ids is None and self._manifest.sample_ids is not None:
            self._sample_ids = read_sample_ids(self.path, self._manifest, self._journal, 0, self.n_samples)
        return self._sample_ids

    def _whole(self, file: str, n_rows: int) -> npt.NDArray[Any]:
        return read_rows(self.path, self._arrays[file], 0, n_rows)

    @property
    def checksum(self) -> str:
        """Digest of the layers' descriptions and of every committed chunk's checksum (32 hex digits).

        It does not depend on interruptions of the capture, and reading it reads no data.
        """
        sums = [[chunk.stop, *chunk.checksums] for chunk in self._journal.chunks]
        return xxhash.xxh3_128_hexdigest(canonical_json([self._manifest.structure(), sums]))

    def checksum_of(self, layers: Iterable[str] = (), *, labels: bool = False) -> str:
        """Digest of a few layers, and of the labels if wanted: it changes when one of them does.

        Reading it reads no data. Other layers, sample ids and metadata do not enter.

        Raises
        ------
        KeyError
            For an unknown layer.
        """
        info = self.info
        chosen = [info[self._known(name)] for name in layers]
        described = [[one.name, one.dtype, one.source_dtype, one.reduction, one.shape] for one in chosen]
        places = [self._places[one.file] for one in chosen]
        if labels and self._manifest.labels:
            places.append(self._places["labels.npy"])
        sums = [[chunk.stop, *(chunk.checksums[place] for place in places)] for chunk in self._journal.chunks]
        return xxhash.xxh3_128_hexdigest(canonical_json([described, sums]))

    def columns(self, name: str) -> Map:
        """One layer feature by feature: a read-only map of shape (n_samples, d), Fortran order.

        The copy is written once, in one streamed pass, into ``columns/`` within the store, and
        written again after the layer has grown. A layer of more dimensions is flattened.

        Raises
        ------
        KeyError
            For an unknown layer.
        StoreError
            Where the copy cannot be written.
        """
        file = self._manifest.files[self._known(name)]
        mapped, found = open_columns(
            self.path, self._arrays[file], self._places[file], self._journal, self[name]
        )
        self._copies[Path(str(mapped.filename))] = found
        return mapped

    @property
    def files(self) -> list[Path]:
        """Files that hold samples: those of the layers, then of labels and sample ids."""
        return [self.path / file for file in self._arrays]

    @property
    def copies(self) -> dict[Path, os.stat_result]:
        """Files of the feature-major copies opened so far, and what each was when it was opened last."""
        return dict(self._copies)

    def verify(self, progress: bool = False, *, n_jobs: int | None = None) -> list[str]:
        """Read every committed byte and compare it with its checksum.

        Parameters
        ----------
        progress : bool
            Show a progress bar.
        n_jobs : int, optional
            Threads; None for all cores.

        Returns
        -------
        list of str
            Problems in words, each with file, chunk and mend; empty when all is well.
        """
        return find_problems(self.path, self._manifest, self._journal, progress=progress, n_jobs=n_jobs)


def check_files(directory: Path, manifest: Manifest, journal: Journal) -> None:
    """Check that every file is the one the manifest describes and holds the committed rows.

    Raises
    ------
    StoreError
        Naming the file, the first chunk that is not whole, and the mend.
    """
    for array in manifest.arrays():
        path = directory / array.file
        with open_inside(directory, array.file, os.O_RDONLY) as file:
            read_header(array, file, path)
            size = os.fstat(file.fileno()).st_size
        if size < array.offset(journal.rows(array)):
            whole = [c for c in journal.chunks if array.offset(c.rows(array)) <= size]
            keep = whole[-1].stop if whole else 0
            end = journal.chunks[len(whole)].stop
            raise StoreError(
                f"{path}: is truncated in chunk {len(whole)} (samples {keep} to {end - 1}): it has {size} "
                f"bytes of {array.offset(journal.rows(array))}; {cut_back_hint(directory, keep)}"
            )


def map_rows(directory: Path, array: GrowingArray, n_rows: int) -> Map:
    """Map the first rows of a store's file, read-only."""
    with open_inside(directory, array.file, os.O_RDONLY) as file:
        if os.fstat(file.fileno()).st_size < array.offset(n_rows):
            raise StoreError(
                f"{directory / array.file}: became shorter since the store was opened; open it again"
            )
        shape = (n_rows, *array.row_shape)
        mapped = FileMap(file, array.dtype, "r", array.header_bytes, shape)
    mapped.filename = str((directory / array.file).resolve())  # joblib and Dask open a map again by its name
    return mapped


def read_rows(directory: Path, array: GrowingArray, start: int, stop: int) -> npt.NDArray[Any]:
    """Read rows of a store's file into memory, as a read-only array."""
    with open_inside(directory, array.file, os.O_RDONLY) as file:
        file.seek(array.offset(start))
        wanted = (stop - start) * array.row_bytes
        raw = bytearray()
        while len(raw) < wanted and (piece := file.read(wanted - len(raw))):
            raw += piece
    if len(raw) < wanted:
        raise StoreError(
            f"{directory / array.file}: became shorter since the store was opened; open it again"
        )
    values = np.frombuffer(bytes(raw), array.dtype).reshape(stop - start, *array.row_shape)
    values.flags.writeable = False
    return values


def read_sample_ids(
    directory: Path, manifest: Manifest, journal: Journal, start: int, stop: int
) -> npt.NDArray[Any]:
    """Read committed sample ids, int64 or str, from ``start`` to ``stop``."""
    arrays = {array.file: array for array in manifest.arrays()}
    if manifest.sample_ids != "str":
        return read_rows(directory, arrays["sample_ids.npy"], start, stop)
    # Each sample has the end of its word in the text; it begins where the one before it ends.
    ends = read_rows(directory, arrays["sample_ids.npy"], max(start - 1, 0), stop).tolist()
    if start == 0:
        ends = [0, *ends]
    array = arrays["sample_ids_text.npy"]
    try:
        if ends != sorted(ends) or ends[0] < 0 or ends[-1] > journal.rows(array):
            raise ValueError("ends of the words")
        text = read_rows(directory, array, ends[0], ends[-1]).tobytes()
        words = [text[a - ends[0] : b - ends[0]].decode("utf-8") for a, b in pairwise(ends)]
    except ValueError:
        raise StoreError(
            f"{directory / array.file}: the text of the sample ids is damaged; run verify to see which chunk"
        ) from None
    ids = np.array(words, dtype=np.str_)
    ids.flags.writeable = False
    return ids
