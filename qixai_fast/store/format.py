"""What a store is made of: layer specifications, the manifest, and safe file names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ..errors import StoreError
from .npy import FROM_A_COPY, GrowingArray, write_atomically

FORMAT = "qixai-fast activation store"
VERSION = 1
MANIFEST = "manifest.json"
DTYPES = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
_FILE_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,119}\.npy")
_OWN_FILES = ("labels.npy", "sample_ids.npy", "sample_ids_text.npy")


@dataclass(frozen=True)
class LayerSpec:
    """What one layer stores for each sample.

    Parameters
    ----------
    shape : tuple of int
        Shape of one sample: ``(d,)``, ``(C, H, W)``, ``(T, d)``.
    dtype : str, default "float32"
        NumPy dtype on disk: real floating point, integer or boolean.
    source_dtype : str, optional
        dtype that the values had in the network, such as ``"bfloat16"``; ``dtype`` where not given.
    reduction : str, default "none"
        How the sample came from the layer's output, such as ``"gap"``.

    Examples
    --------
    >>> LayerSpec(shape=(32,), source_dtype="bfloat16", reduction="gap").dtype
    'float32'
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    source_dtype: str = ""
    reduction: str = "none"

    def checked(self, name: str) -> LayerSpec:
        """This specification with plain Python values, or ValueError/TypeError naming the layer."""
        where = f"layers[{name!r}]"
        try:
            shape = tuple(int(size.__index__()) for size in self.shape)
        except (TypeError, AttributeError):
            raise TypeError(f"{where}: shape wanted as a tuple of integers, got {self.shape!r}") from None
        if not shape or min(shape) < 1:
            raise ValueError(f"{where}: shape of one sample wanted with sizes of at least 1, got {shape}")
        dtype = self.dtype
        if isinstance(dtype, (type, np.dtype)):
            dtype = str(np.dtype(dtype))
        if dtype == "bfloat16":
            raise ValueError(
                f"{where}: NumPy has no bfloat16; store dtype='float32' with source_dtype='bfloat16'"
            )
        if dtype not in DTYPES:
            raise ValueError(f"{where}: dtype wanted as one of {', '.join(DTYPES)}, got {self.dtype!r}")
        return LayerSpec(shape, dtype, str(self.source_dtype or dtype), str(self.reduction))


@dataclass(frozen=True)
class LayerInfo:
    """What a store tells of one layer.

    Attributes
    ----------
    name, file : str
        The layer's name in the network, and its file in the store.
    shape : tuple of int
        Shape of the whole layer, samples first.
    dtype, source_dtype : str
        dtype on disk, and the one the values had in the network.
    reduction : str
    """

    name: str
    file: str
    shape: tuple[int, ...]
    dtype: str
    source_dtype: str
    reduction: str


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes
    ----------
    layers : dict of str to LayerSpec
        In capture order.
    files : dict of str to str
        File of each layer.
    labels : bool
        Whether each sample has a class label (int64).
    sample_ids : {None, "int64", "str"}
        Kind of the samples' own names.
    chunk_rows : int
        Samples in a full chunk.
    n_samples : int
        Complete samples when the manifest was written; the journal knows the newest number.
    metadata, fingerprint : dict
        Plain JSON from the writer.
    intact : bool
        Whether the content matched its own checksum when read.
    """

    layers: dict[str, LayerSpec]
    files: dict[str, str]
    labels: bool
    sample_ids: str | None
    chunk_rows: int
    n_samples: int
    metadata: dict[str, Any]
    fingerprint: dict[str, Any]
    intact: bool = True

    def arrays(self) -> list[GrowingArray]:
        """Every ``.npy`` file of the store: layers in order, then labels and sample ids."""
        found = [
            GrowingArray(f"layer {name!r}", self.files[name], np.dtype(spec.dtype), spec.shape)
            for name, spec in self.layers.items()
        ]
        whole = np.dtype(np.int64)
        if self.labels:
            found.append(GrowingArray("labels", "labels.npy", whole, ()))
        if self.sample_ids is not None:
            found.append(GrowingArray("sample ids", "sample_ids.npy", whole, ()))
        if self.sample_ids == "str":
            title = "text of the sample ids"
            found.append(GrowingArray(title, "sample_ids_text.npy", np.dtype(np.uint8), (), is_text=True))
        return found

    def structure(self) -> dict[str, Any]:
        """The part that never changes while samples are added."""
        return {
            "chunk_rows": self.chunk_rows,
            "layers": [
                {
                    "name": name,
                    "file": self.files[name],
                    "shape": list(spec.shape),
                    "dtype": spec.dtype,
                    "source_dtype": spec.source_dtype,
                    "reduction": spec.reduction,
                }
                for name, spec in self.layers.items()
            ],
            "labels": self.labels,
            "sample_ids": self.sample_ids,
        }

    def digest(self) -> str:
        """Digest of :meth:`structure`; ties the journal to its manifest."""
        return xxhash.xxh3_64_hexdigest(canonical_json(self.structure()))

    def with_samples(self, n_samples: int) -> Manifest:
        """The same manifest with another number of complete samples."""
        return replace(self, n_samples=n_samples)

    def with_chunk_rows(self, chunk_rows: int) -> Manifest:
        """The same manifest with another chunk size."""
        return replace(self, chunk_rows=chunk_rows)

    def with_metadata(self, metadata: dict[str, Any]) -> Manifest:
        """The same manifest with other metadata, unless these are empty."""
        return replace(self, metadata=metadata or self.metadata)


def canonical_json(value: Any) -> bytes:
    """One spelling of a JSON value, for digests and comparisons."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def plain_json(value: Any, name: str) -> dict[str, Any]:
    """Check that an argument is a JSON object and return it as its own JSON copy."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: wanted a dict of plain JSON values, got {type(value).__name__}")
    try:
        copied = json.loads(canonical_json(dict(value)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: wanted plain JSON values (str, int, finite float, list, dict): {error}"
        ) from None
    result: dict[str, Any] = copied
    return result


def safe_file_names(names: Iterable[str]) -> dict[str, str]:
    """A file name for every layer name: lower-case ASCII, no separators, all different.

    Examples
    --------
    >>> safe_file_names(["encoder.layers.0", "../x", "Conv", "conv"])
    {'encoder.layers.0': 'encoder.layers.0.npy', '../x': 'x.npy', 'Conv': 'conv.npy', 'conv': 'conv-2.npy'}
    """
    taken = set(_OWN_FILES)
    files = {}
    for name in names:
        stem = re.sub(r"[^a-z0-9._-]+", "_", name.lower()).strip("._-")[:80].rstrip("._-") or "layer"
        file, count = f"{stem}.npy", 1
        while file in taken:
            count += 1
            file = f"{stem}-{count}.npy"
        taken.add(file)
        files[name] = file
    return files


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace ``manifest.json`` whole."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "n_samples": manifest.n_samples,
        **manifest.structure(),
        "metadata": manifest.metadata,
        "fingerprint": manifest.fingerprint,
    }
    content["checksum"] = xxhash.xxh3_64_hexdigest(canonical_json(content))
    write_atomically(directory / MANIFEST, json.dumps(content, indent=1).encode("ascii") + b"\n")


def read_manifest(directory: Path) -> Manifest:
    """Read ``manifest.json`` and check everything in it before anything else is opened.

    Raises
    ------
    StoreError
        Where it is missing, damaged, foreign or from a newer version.
    """
    path = directory / MANIFEST
    if directory.is_file():
        raise StoreError(f"{directory}: is a file; a store is a directory")
    if not directory.is_dir():
        raise StoreError(f"{directory}: there is no such directory; capture activations into it first")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise StoreError(
            f"{directory}: is not an activation store (it has no {MANIFEST}); check the path"
        ) from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    return parse_manifest(raw, path)


def parse_manifest(raw: bytes, path: Path | str) -> Manifest:
    """The content of a ``manifest.json``, checked; ``path`` is for messages.

    Raises
    ------
    StoreError
        Where it is damaged, foreign or from a newer version.
    """
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise StoreError(f"{path}: is damaged (not JSON); {FROM_A_COPY}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError(f"{path}: is not the manifest of an activation store; check the path")
    version = content.get("version")
    if version is None or not _is_count(version, 1):
        raise StoreError(f"{path}: is damaged (version {version!r}); {FROM_A_COPY}")
    if int(version) > VERSION:
        raise StoreError(
            f"{path}: has store version {version}, this qixai-fast reads up to {VERSION}; upgrade qixai-fast"
        )
    recorded = content.pop("checksum", None)
    try:
        manifest = _parse(content, path)
        intact = recorded == xxhash.xxh3_64_hexdigest(canonical_json(content))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: is damaged ({type(error).__name__}: {error}); {FROM_A_COPY}") from None
    return replace(manifest, intact=intact)


def _is_count(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _parse(content: dict[str, Any], path: Path | str) -> Manifest:
    layers: dict[str, LayerSpec] = {}
    files: dict[str, str] = {}
    for entry in content["layers"]:
        name, file = entry["name"], entry["file"]
        if not isinstance(name, str) or not isinstance(file, str) or name in layers:
            raise ValueError(f"layer {name!r}")
        if not _FILE_NAME.fullmatch(file):
            raise StoreError(
                f"{path}: the file {file!r} of layer {name!r} is not a plain name within the store; nothing "
                f"was opened; the manifest was not written by qixai-fast: capture again"
            )
        if file in _OWN_FILES or file in files.values():
            raise ValueError(f"file {file!r} has two uses")
        files[name] = file
        layers[name] = LayerSpec(
            tuple(entry["shape"]), str(entry["dtype"]), str(entry["source_dtype"]), str(entry["reduction"])
        ).checked(name)
    if content["sample_ids"] not in (None, "int64", "str") or not isinstance(content["labels"], bool):
        raise ValueError("labels or sample_ids")
    if not layers or not _is_count(content["chunk_rows"], 1) or not _is_count(content["n_samples"], 0):
        raise ValueError("layers, chunk_rows or n_samples")
    if not isinstance(content["metadata"], dict) or not isinstance(content["fingerprint"], dict):
        raise ValueError("metadata or fingerprint")
    return Manifest(
        layers,
        files,
        content["labels"],
        content["sample_ids"],
        content["chunk_rows"],
        content["n_samples"],
        content["metadata"],
        content["fingerprint"],
    )
