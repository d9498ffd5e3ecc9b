"""Check a batch of samples before any of it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._device import to_numpy
from .format import Manifest


@dataclass(frozen=True)
class Batch:
    """A checked batch.

    Attributes
    ----------
    n_samples : int
    values : list of ndarray
        Layers in the manifest's order, then labels, then integer sample ids.
    words : list of bytes
        Text sample ids, UTF-8.
    """

    n_samples: int
    values: list[npt.NDArray[Any]]
    words: list[bytes]


def checked_batch(manifest: Manifest, arrays: Mapping[str, Any], labels: Any, sample_ids: Any) -> Batch:
    """Check a batch against the manifest; ValueError or TypeError names the layer or argument."""
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays: wanted a dict of layer name to array, got {type(arrays).__name__}")
    missing = [name for name in manifest.layers if name not in arrays]
    unknown = [str(name) for name in arrays if name not in manifest.layers]
    if missing or unknown:
        raise ValueError(
            f"arrays: wanted exactly the store's layers; missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}"
        )
    values: list[npt.NDArray[Any]] = []
    n_samples = -1
    for name, spec in manifest.layers.items():
        where = f"arrays[{name!r}]"
        value = to_numpy(arrays[name], where)
        if value.ndim == 0 or value.shape[1:] != spec.shape:
            raise ValueError(
                f"{where}: wanted shape (b, {', '.join(map(str, spec.shape))}), got {value.shape}"
            )
        if value.dtype.kind not in "buif" or not np.can_cast(value.dtype, spec.dtype, "same_kind"):
            raise TypeError(f"{where}: dtype {value.dtype} cannot be stored as {spec.dtype}")
        _check_range(value, spec.dtype, where)
        if n_samples not in (-1, len(value)):
            raise ValueError(f"{where}: wanted {n_samples} samples as in the layers before, got {len(value)}")
        n_samples = len(value)
        values.append(value)
    if _wanted(labels, "labels", manifest.labels):
        values.append(whole_numbers(labels, "labels", n_samples))
    words: list[bytes] = []
    if _wanted(sample_ids, "sample_ids", manifest.sample_ids is not None):
        if manifest.sample_ids == "str":
            words = text_ids(sample_ids, n_samples)
        else:
            values.append(whole_numbers(sample_ids, "sample_ids", n_samples))
    return Batch(n_samples, values, words)


def _check_range(value: npt.NDArray[Any], dtype: str, where: str) -> None:
    """Integers that do not fit would wrap around in silence."""
    if np.dtype(dtype).kind not in "iu" or np.can_cast(value.dtype, dtype, "safe") or value.size == 0:
        return
    limits = np.iinfo(dtype)
    for extreme in (int(value.min()), int(value.max())):
        if not limits.min <= extreme <= limits.max:
            raise ValueError(f"{where}: {extreme} does not fit {dtype}; store a wider dtype")


def _wanted(value: Any, name: str, kept: bool) -> bool:
    if kept and value is None:
        raise ValueError(f"{name}: the store keeps them, so every batch must bring them")
    if not kept and value is not None:
        raise ValueError(f"{name}: the store was created without them; create it with {name}=")
    return kept


def whole_numbers(value: Any, name: str, n_samples: int) -> npt.NDArray[np.int64]:
    """Labels or integer ids as int64 of shape (n_samples,)."""
    found = to_numpy(value, name)
    if found.shape != (n_samples,):
        raise ValueError(f"{name}: wanted shape ({n_samples},), got {found.shape}")
    if n_samples and found.dtype.kind not in "bui":
        mend = "number text with np.unique(..., return_inverse=True), its words go to metadata['class_names']"
        if name == "sample_ids":
            mend = "text needs a store created with sample_ids='str'"
        raise TypeError(f"{name}: wanted integers, got dtype {found.dtype}; {mend}")
    if found.dtype == np.uint64 and found.size and int(found.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: {int(found.max())} does not fit int64")
    return found.astype(np.int64)


def text_ids(value: Any, n_samples: int) -> list[bytes]:
    """Text ids as UTF-8, checked to come back as they were."""
    found = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(found, str) or not hasattr(found, "__len__") or len(found) != n_samples:
        raise ValueError(f"sample_ids: wanted a sequence of {n_samples} strings, got {_brief(found)}")
    words = []
    for row, word in enumerate(found):
        if not isinstance(word, str):
            raise TypeError(
                f"sample_ids: wanted strings, got {type(word).__name__} at row {row}; integers need a store "
                f"created with sample_ids='int64'"
            )
        if word.endswith("\0"):
            raise ValueError(f"sample_ids: {word!r} at row {row} ends with a NUL, which NumPy drops")
        try:
            words.append(word.encode("utf-8"))
        except UnicodeEncodeError:
            raise ValueError(f"sample_ids: {word!r} at row {row} is not valid Unicode text") from None
    return words


def _brief(value: Any) -> str:
    size = f" of length {len(value)}" if hasattr(value, "__len__") else ""
    return f"{type(value).__name__}{size}"
