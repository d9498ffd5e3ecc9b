"""Take a batch apart: inputs, labels, sample ids; and put it on the network's device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from ._device import is_torch, to_numpy
from ._validate import Array

if TYPE_CHECKING:
    import torch

Place = int | str | Callable[[Any], Any]


@dataclass(frozen=True)
class Batch:
    """One batch, taken apart.

    Attributes
    ----------
    whole : object
        As it came.
    args, kwargs : tuple, dict
        What is left for the model once labels and ids are taken out.
    labels, sample_ids : ndarray of shape (size,) or None
    size : int or None
        Number of samples; None where only the forward pass can tell.
    """

    whole: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: Array | None
    sample_ids: Array | None
    size: int | None


@dataclass(frozen=True)
class Splitter:
    """Where labels and sample ids stand in each batch, and whether the caller runs the model on it whole."""

    labels: Place | None
    sample_ids: Place | None
    own_forward: bool

    def __post_init__(self) -> None:
        for name in ("labels", "sample_ids"):
            place = getattr(self, name)
            fits = place is None or isinstance(place, str) or callable(place) or hasattr(place, "__index__")
            if not fits or isinstance(place, (bool, np.ndarray)) or is_torch(place):
                raise TypeError(
                    f"{name}: wanted the index or key of an element of each batch, or a function of the "
                    f"batch, got {type(place).__name__}; an array for all samples goes into the batches, "
                    "for example with torch.utils.data.TensorDataset"
                )

    def __call__(self, batch: Any) -> Batch:
        """Take one batch apart.

        Raises
        ------
        TypeError, ValueError
            Where an element is not there, labels and ids have the wrong shape or differ in length, or nothing
            is left for the model.
        """
        taken: set[Any] = set()
        labels = _column(_pick(batch, self.labels, "labels", taken), "labels")
        ids = _column(_pick(batch, self.sample_ids, "sample_ids", taken), "sample_ids")
        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        if self.own_forward:
            pass
        elif isinstance(batch, Mapping):
            kwargs = {key: value for key, value in batch.items() if key not in taken}
        elif _is_sequence(batch):
            args = tuple(value for place, value in enumerate(batch) if place not in taken)
        else:
            args = (batch,)
        if not (args or kwargs or self.own_forward):
            raise ValueError(f"batches: nothing is left for the model in {describe(batch)}")
        size = _size(args, kwargs, labels, ids)
        return Batch(batch, args, kwargs, labels, ids, size)


def _is_sequence(batch: Any) -> bool:
    return isinstance(batch, (tuple, list))


def _pick(batch: Any, place: Any, name: str, taken: set[Any]) -> Any:
    if place is None:
        return None
    if callable(place):
        return place(batch)
    if isinstance(batch, Mapping):
        if place not in batch:
            raise ValueError(
                f"{name}: no element {place!r} in the batch; its keys are {', '.join(map(repr, batch))}"
            )
        taken.add(place)
        return batch[place]
    if not _is_sequence(batch):
        raise TypeError(
            f"{name}: {place!r} cannot be looked up in {describe(batch)}; wanted tuples, lists or dicts"
        )
    if isinstance(place, str):
        if not hasattr(batch, "_fields") or place not in batch._fields:
            raise TypeError(f"{name}: key {place!r} wants batches that are dicts, got {describe(batch)}")
        place = int(batch._fields.index(place))
    index = int(place)
    if not -len(batch) <= index < len(batch):
        raise ValueError(f"{name}: no element {index} in {describe(batch)}")
    taken.add(index % len(batch))
    return batch[index]


def _column(value: Any, name: str) -> Array | None:
    if value is None:
        return None
    array = to_numpy(value, name)
    if array.dtype == object and all(isinstance(word, str) for word in array.ravel()):
        array = array.astype(np.str_)
    if array.ndim != 1:
        mend = "; for one-hot labels give a function such as lambda batch: batch[1].argmax(1)"
        raise ValueError(
            f"{name}: wanted one value a sample, shape (b,), got shape {array.shape}"
            + (mend if name == "labels" and array.ndim == 2 else "")
        )
    if array.dtype.kind not in ("biu" if name == "labels" else "iuU"):
        raise TypeError(
            f"{name}: wanted integers{'' if name == 'labels' else ' or text'}, got dtype {array.dtype}"
            + ("; give a function that numbers the classes" if name == "labels" else "")
        )
    return array


def _size(
    args: tuple[Any, ...], kwargs: dict[str, Any], labels: Array | None, ids: Array | None
) -> int | None:
    if labels is not None and ids is not None and len(labels) != len(ids):
        raise ValueError(f"labels and sample_ids: got {len(labels)} and {len(ids)} for one batch")
    for column in (labels, ids):
        if column is not None:
            return len(column)
    for value in (*args, *kwargs.values()):
        if (is_torch(value) or isinstance(value, np.ndarray)) and value.ndim:
            return len(value)
    return None


def describe(batch: Any) -> str:
    """A batch in a few words, for messages: "a tuple of 2 (Tensor (32, 1, 8, 8), Tensor (32,))"."""
    if is_torch(batch) or isinstance(batch, np.ndarray):
        return f"{type(batch).__name__} {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        parts = [f"{key!r}: {describe(value)}" for key, value in list(batch.items())[:6]]
        return f"a {type(batch).__name__} of {len(batch)} ({', '.join(parts)})"
    if _is_sequence(batch):
        return (
            f"a {type(batch).__name__} of {len(batch)} ({', '.join(describe(value) for value in batch[:6])})"
        )
    return type(batch).__name__


def check_call(model: torch.nn.Module, batch: Batch) -> None:
    """Raise ValueError where the model's ``forward`` cannot take what a batch leaves for it."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return  # built-in functions may have none
    try:
        signature.bind(*batch.args, **batch.kwargs)
    except TypeError as error:
        raise ValueError(
            f"batches: {type(model).__name__}.forward{signature} cannot be called with what each batch "
            f"holds, {describe(batch.whole)}: {error}; name what is not for the model with labels= or "
            "sample_ids=, or give forward=, for example forward=lambda model, batch: model(batch[0])"
        ) from None


def device_of(model: torch.nn.Module) -> torch.device | None:
    """The one device of a model's parameters and buffers; None for none, and for a model spread over several.

    Raises
    ------
    ValueError
        For parameters without values: meta tensors, and lazy modules before their first batch.
    """
    from torch.nn.parameter import is_lazy

    devices = set()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor) or tensor.device.type == "meta":
            kind = "a lazy module's" if is_lazy(tensor) else "on the meta device"
            raise ValueError(
                f"model: {name!r} has no values yet ({kind}); initialise or load the model first"
            )
        devices.add(tensor.device)
    return devices.pop() if len(devices) == 1 else None


def on_device(value: Any, device: torch.device | None) -> Any:
    """A batch with its tensors on a device and its NumPy arrays as tensors; itself where nothing changes."""
    import torch

    if isinstance(value, np.ndarray) and value.dtype.kind in "buif":
        value = torch.from_numpy(value if value.flags.writeable else value.copy())
    if isinstance(value, torch.Tensor):
        return value if device is None or value.device == device else value.to(device)
    if isinstance(value, Mapping):
        moved = {key: on_device(part, device) for key, part in value.items()}
        return value if all(moved[key] is part for key, part in value.items()) else moved
    if _is_sequence(value):
        parts = [on_device(part, device) for part in value]
        if all(new is old for new, old in zip(parts, value, strict=True)):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def first_sample_digest(batch: Batch) -> str:
    """Digest of what the first sample of a batch holds: a shuffled or different stream has another one."""
    digest = xxhash.xxh3_128()

    def add(value: Any) -> None:
        if is_torch(value) or isinstance(value, np.ndarray):
            add_array(digest, value[:1] if value.ndim else value)
        elif isinstance(value, Mapping):
            for key, part in value.items():
                digest.update(repr(key).encode())
                add(part)
        elif _is_sequence(value) and value and isinstance(value[0], (str, int, float)):
            digest.update(repr(value[0]).encode())
        elif _is_sequence(value):
            for part in value:
                add(part)

    add(batch.whole)
    return str(digest.hexdigest())


def add_array(digest: xxhash.xxh3_128, value: Any) -> None:
    """Add shape, dtype and bytes of a tensor or array (of any layout) to a digest."""
    if is_torch(value):
        import torch

        value = value.detach()
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        dense = value.to_dense() if value.layout != torch.strided else value
        if dense.is_quantized:
            dense = dense.int_repr()
        digest.update(
            dense.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy()
        )
    else:
        digest.update(f"{value.dtype}{value.shape}".encode())
        content = np.ascontiguousarray(value)
        digest.update(repr(content.tolist()).encode() if content.dtype.kind in "OUS" else content.tobytes())
