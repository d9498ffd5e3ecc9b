"""Run a network over data and keep what chosen layers put out, in a store on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from . import _forks
from ._batches import (
    Batch,
    Place,
    Splitter,
    add_array,
    check_call,
    describe,
    device_of,
    first_sample_digest,
    on_device,
)
from ._hooks import Output, Recorder, find_modules, recording, reduction_of_each
from ._validate import Array, check_finite
from .errors import StoreError
from .store import ActivationStore, LayerSpec, StoreWriter, create_store, open_store
from .store.format import MANIFEST

if TYPE_CHECKING:
    import torch

_DTYPES = ("float16", "float32", "float64")


def capture(
    model: torch.nn.Module,
    batches: Iterable[Any],
    layers: str | Iterable[str],
    path: str | os.PathLike[str],
    *,
    labels: Place | None = None,
    sample_ids: Place | None = None,
    forward: Callable[[Any, Any], Any] | None = None,
    reduce: str | Mapping[str, str] = "gap",
    dtype: str = "float32",
    resume: bool = True,
    metadata: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> ActivationStore:
    """Capture the outputs of some layers of a network, for every sample, in a store on disk.

    The model runs in eval mode and without gradients. Each output is reduced and copied at once, so that
    in-place operations that follow do not change it. When the call ends, in whatever way, the model has
    its modes and hooks back. Memory: one batch, and about 32 MiB that are gathered before a write.

    Parameters
    ----------
    model : torch.nn.Module
    batches : iterable
        Of tensors, tuples, lists or dicts (NumPy arrays within them become tensors): a ``DataLoader``,
        a list, a generator. What is named neither as labels nor as ids goes to the model: ``model(x)``,
        ``model(*rest)`` or ``model(**rest)``. Tensors on another device than the model are moved to it.
    layers : str or iterable of str
        Module names as in ``model.named_modules()``, or patterns of them (``"blocks.*.mlp"``; ``*``
        crosses dots).
    path : str or PathLike
        The store's directory, new or empty, or a store to go on with.
    labels : int, str or callable, optional
        Where a batch holds its class labels: an index or a key, or a function of the batch that returns them.
        Integers, shape (b,).
    sample_ids : int, str or callable, optional
        Likewise for the samples' own names; integers or text, shape (b,).
    forward : callable, optional
        ``forward(model, batch)`` runs the model on a whole batch in the caller's own way.
    reduce : str or dict, default "gap"
        What is kept of an output, for all layers or by layer name or pattern (others: "gap").
        An (n, d) output is kept as it is.

        - "gap", "max": mean and maximum over the places of maps (n, C, H, W), (n, C, D, H, W).
        - "gap1d", "max1d": likewise for (n, C, L), which cannot be told from tokens.
        - "mean_tokens": mean over the tokens of (n, T, d), (n, H, W, d).
        - "last_token": the last token of (n, T, d), padding or not.
        - "flatten": all values as one vector.
        - "none": all values in their shape.
    dtype : {"float32", "float16", "float64"}
        What is stored. The network's own dtype is recorded as ``source_dtype``.
    resume : bool, default True
        Go on after the complete samples of a store that is there. Batches before are read and not run
        (with ``forward`` they are run, unless labels or sample ids tell their size). False: a store that
        is there is an error.
    metadata : dict, optional
        Plain JSON to keep with the store, such as ``{"class_names": [...]}``.
    progress : bool, default True
        Show a progress bar on standard error once a capture takes more than half a second.

    Returns
    -------
    ActivationStore

    Raises
    ------
    ValueError, TypeError
        For layers that do not exist or are not called, batches the model cannot take, reductions that do
        not fit, outputs whose first dimension is not the samples, NaN or infinite outputs (layer, row and
        column are named), and values beyond float16 where that is stored. Samples of earlier batches stay
        in the store.
    StoreError
        Where the store was captured from another model state, with other layers, reductions, dtype, first
        sample, labels or sample ids; where it has more samples than the batches; where it is damaged or
        the disk is full.

    Notes
    -----
    A module that puts out a tuple, list, dict or dataclass (an LSTM, a Hugging Face block) is recorded by
    the first tensor in it. A module called more than once in a forward pass (a shared ReLU, a recurrent cell)
    is recorded call by call, as "name#1", "name#2", ... Modules with ``batch_first=False`` put out (T, n, d),
    which is recorded as (n, T, d). A resumed capture of the same batches leaves the same bytes as an
    uninterrupted one, on the same machine.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> import qixai_fast as qf
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    >>> images, classes = torch.rand(20, 1, 8, 8), torch.arange(20) % 3
    >>> batches = zip(images.split(8), classes.split(8))
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = qf.capture(model, batches, ["1", "3"], folder.name, labels=1, progress=False)
    >>> {name: layer.shape for name, layer in store.items()}
    {'1': (20, 4), '3': (20, 3)}
    >>> store.labels[:4].tolist(), store.info["1"].reduction
    ([0, 1, 2, 0], 'gap')
    >>> folder.cleanup()
    """
    model = _checked_model(model)
    modules = find_modules(model, layers)
    reductions = reduction_of_each(reduce, modules)
    splitter = Splitter(labels, sample_ids, forward is not None)
    device = device_of(model)
    if forward is not None and not callable(forward):
        raise TypeError(f"forward: wanted a function of model and batch, got {type(forward).__name__}")
    stored = _checked_dtype(dtype)
    if not hasattr(batches, "__iter__") or isinstance(batches, (str, Mapping)) or hasattr(batches, "ndim"):
        raise TypeError(
            f"batches: wanted an iterable of batches, got one {type(batches).__name__}; cut it into batches, "
            "as in x.split(256), or give [x]"
        )
    recorder = Recorder(modules, reductions)
    run = _Capture(
        Path(path),
        metadata={"model": type(model).__qualname__, **(metadata or {})},
        fingerprint={
            "model": state_digest(model),
            "layers": list(modules),
            "reduce": reductions,
            "dtype": stored,
        },
        dtype=stored,
        resume=bool(resume),
    )

    def outputs_of(batch: Batch) -> dict[str, Output]:
        if forward is not None:
            forward(model, on_device(batch.whole, device))
        else:
            model(*on_device(batch.args, device), **on_device(batch.kwargs, device))
        return recorder.take()

    with ExitStack() as undo:
        undo.enter_context(recording(model, recorder))
        undo.callback(run.close)
        for batch in map(splitter, _with_bar(batches, progress)):
            if run.seen == 0 and forward is None:
                check_call(model, batch)
            run.add(batch, outputs_of)
    run.finish()
    return open_store(path)


@dataclass
class _Capture:
    """The store being filled, and how far the batches have been read."""

    path: Path
    metadata: dict[str, Any]
    fingerprint: dict[str, Any]
    dtype: str
    resume: bool
    seen: int = 0
    _there: int = 0  # samples in the store when it was opened
    _specs: dict[str, LayerSpec] = field(default_factory=dict)
    _writer: StoreWriter | None = None

    def add(self, batch: Batch, outputs_of: Callable[[Batch], dict[str, Output]]) -> None:
        """Run and store one batch; of a batch that the store has wholly or partly, what is missing."""
        if batch.size == 0:
            return
        if self.seen == 0 and self._writer is None:
            self.fingerprint["first_sample"] = first_sample_digest(batch)
            if self.resume and (self.path / MANIFEST).exists():
                self._resume(batch)
        if self._writer is not None:
            self._writer.check_samples(self.seen, labels=batch.labels, sample_ids=batch.sample_ids)
            if batch.size is not None and self.seen + batch.size <= self._there:
                self.seen += batch.size
                return
        outputs = outputs_of(batch)
        size = len(next(iter(outputs.values())).values) if batch.size is None else batch.size
        rows = self._rows(batch, outputs, size)
        writer = self._writer or self._open(batch)
        new = slice(max(0, self._there - self.seen), size)
        if new.start < size:
            writer.append(
                {name: values[new] for name, values in rows.items()},
                labels=None if batch.labels is None else batch.labels[new],
                sample_ids=None if batch.sample_ids is None else batch.sample_ids[new],
            )
        self.seen += size

    def _resume(self, batch: Batch) -> None:
        self._specs = {
            name: LayerSpec(info.shape[1:], info.dtype, info.source_dtype, info.reduction)
            for name, info in open_store(self.path).info.items()
        }
        self._there = self._open(batch).n_samples

    def _open(self, batch: Batch) -> StoreWriter:
        ids = batch.sample_ids
        self._writer = create_store(
            self.path,
            self._specs,
            metadata=self.metadata,
            fingerprint=self.fingerprint,
            labels=batch.labels is not None,
            sample_ids=None if ids is None else "str" if ids.dtype.kind == "U" else "int64",
            resume=self.resume,
        )
        return self._writer

    def _rows(self, batch: Batch, outputs: dict[str, Output], size: int) -> dict[str, Array]:
        """The outputs as they are stored, checked against the batch and the batches before."""
        for name, output in outputs.items():
            if len(output.values) != size:
                raise ValueError(
                    f"layers: {name!r} puts out {output.values.shape} (reduced with {output.reduction!r}) "
                    f"for a batch of {size} samples ({describe(batch.whole)}); the first dimension must be "
                    "the samples. Where they are not the input's first dimension, labels= or sample_ids= "
                    "tell their number"
                )
        found = {
            name: LayerSpec(output.values.shape[1:], self.dtype, output.source_dtype, output.reduction)
            for name, output in outputs.items()
        }
        self._specs = self._specs or found
        if list(found) != list(self._specs):
            raise ValueError(
                f"layers: from sample {self.seen} on, the modules were called as {', '.join(found)}, before "
                f"as {', '.join(self._specs)}; every batch must call them equally often"
            )
        for name, spec in found.items():
            before = self._specs[name]
            if spec != before:
                raise ValueError(
                    f"layers: from sample {self.seen} on, {name!r} gives {spec.source_dtype} of shape "
                    f"{spec.shape} a sample, before {before.source_dtype} of shape {before.shape}; choose a "
                    "reduction that does not depend on the input's size, or bring all inputs to one size"
                )
        return {name: self._as_stored(name, output.values) for name, output in outputs.items()}

    def _as_stored(self, name: str, values: Array) -> Array:
        check_finite(values, f"layer {name!r}", first_row=self.seen)
        with np.errstate(over="ignore"):
            stored: Array = values.astype(self.dtype, copy=False)
        try:
            check_finite(stored, f"layer {name!r}", first_row=self.seen)
        except ValueError:
            row, *column = (int(i) for i in np.argwhere(np.isinf(stored))[0])
            raise ValueError(
                f"layer {name!r}: {values[(row, *column)]:.6g} at row {self.seen + row}, column "
                f"{', '.join(map(str, column))} is too large for {self.dtype}, which ends at "
                f"{np.finfo(self.dtype).max:.6g}; capture with a wider dtype"
            ) from None
        return stored

    def close(self) -> None:
        """Commit what was appended."""
        if self._writer is not None:
            self._writer.close()

    def finish(self) -> None:
        """Check, after the last batch, that there were samples, and all that the store has."""
        if self.seen == 0:
            raise ValueError("batches: gave no samples; a generator can be read only once")
        if self.seen < self._there:
            raise StoreError(
                f"{self.path}: has {self._there} samples, the batches only the first {self.seen}; resume "
                "with the same batches, or capture into a new directory"
            )


def _checked_model(model: Any) -> torch.nn.Module:
    import torch

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: wanted a torch.nn.Module, got {type(model).__name__}")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError("model: torch takes no hooks on TorchScript modules; capture from the eager model")
    _forks.ready_torch()
    return model


def _checked_dtype(dtype: Any) -> str:
    try:
        name = str(np.dtype(dtype))
    except TypeError:
        name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(
            f"dtype: wanted one of {', '.join(map(repr, _DTYPES))}, got {dtype!r}"
            + ("; bfloat16 outputs are stored as 'float32'" if name == "bfloat16" else "")
        )
    return name


def _with_bar(batches: Iterable[Any], progress: bool) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(batches, desc="capture", unit="batch", delay=0.5, disable=not progress)


def state_digest(model: torch.nn.Module) -> str:
    """Digest of a model's class and of its state: names, shapes, dtypes and values of what it would save."""
    import torch

    digest = xxhash.xxh3_128(type(model).__qualname__.encode())
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            digest.update(name.encode())
            add_array(digest, value)
    return str(digest.hexdigest())
