"""Attributions that go to a store on disk as they are made, and come back mapped from its files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._attribution_key import check_key
from ._memory import parse_memory
from ._path_chunks import Chunks
from ._path_inputs import PathSamples
from ._path_integrals import Plan, Result, Rule, along_paths, plan_passes
from ._path_passes import progress_bar
from .errors import MemoryBudgetError
from .store import ActivationStore, LayerSpec, create_store, open_store
from .store.format import MANIFEST, read_manifest

if TYPE_CHECKING:
    from torch import Tensor

# Values of a commit: little to lose and little to hold, and a sync is short beside the gradients behind it.
_COMMIT = 4 * 2**20
_BY_SAMPLE = {"delta": "float64", "n_steps": "int64", "n_gradients": "int64"}


def attributions_in_store(
    out: str | os.PathLike[str],
    chunks: Sequence[Chunks],
    key: dict[str, Any],
    rule: Rule,
    max_memory: int | float | str | None,
    progress: bool,
) -> Result:
    """Make the attributions that a store has not got yet, and map all of them.

    Parameters
    ----------
    out : str or PathLike
        The store's directory: new or empty, or one of the same attributions.
    chunks : sequence of Chunks
        The paths, one of these a baseline.
    key : dict
        As :func:`qixai_fast._attribution_key.attribution_key`.
    rule : Rule
    max_memory, progress
        As :func:`qixai_fast.integrated_gradients` takes them.

    Raises
    ------
    StoreError
        For a directory of other things or of other attributions, a damaged store, and a full disk.
    MemoryBudgetError
        Where ``max_memory`` is too small for a single gradient, or for the store's chunk.
    """
    path = Path(out).absolute()
    found = open_store(path) if (path / MANIFEST).exists() else None
    if found is not None:
        check_key(found, key)
    if found is None or found.n_samples < len(chunks[0]):
        _go_on(path, chunks, key, rule, max_memory, progress, found)
        found = open_store(path)
    return _mapped(found)


def _go_on(
    path: Path,
    chunks: Sequence[Chunks],
    key: dict[str, Any],
    rule: Rule,
    max_memory: int | float | str | None,
    progress: bool,
    found: ActivationStore | None,
) -> None:
    n_samples = len(chunks[0])
    start = 0 if found is None else found.n_samples
    at = max(0, min(start, n_samples - 2))
    first = [(each, *each.part(at, min(at + 2, n_samples))) for each in chunks]
    values = Result.zeros(first[0][1]).values
    specs = _specs(values, first[0][1], rule)
    per_sample = sum(int(np.dtype(s.dtype).itemsize * np.prod(s.shape)) for s in specs.values())
    kept = 0 if found is None else read_manifest(path).chunk_rows * per_sample
    paths = []
    for each, few, model in first:
        samples = _as_many(few, each.target, n_samples)
        paths.append((samples, model.probe(samples)))
    plans, rows = _share_memory(paths, rule, max_memory, per_sample, kept, chunks[0].bytes_besides)
    del first, few, samples, paths
    metadata = key | {"shapes": [list(value.shape[1:]) for value in values]}
    n_nodes = sum(plan.n_nodes for plan in plans)
    chunk_bytes = rows * per_sample
    with (
        create_store(
            path, specs, metadata=metadata, fingerprint=key, resume=True, chunk_bytes=chunk_bytes
        ) as writer,
        progress_bar(progress, (n_samples - writer.n_samples) * n_nodes) as bar,
    ):
        for begin in range(writer.n_samples, n_samples, rows):
            end = min(begin + rows, n_samples)
            sums: Result | None = None
            for each, plan in zip(chunks, plans, strict=True):
                samples, model = each.part(begin, end)
                sums = along_paths(model, samples, rule, plan, bar, start=begin, into=sums)
                del samples, model
                each.release(begin, end)
            assert sums is not None
            sums.divide(len(chunks))
            writer.append(_as_stored(sums, specs))


def _share_memory(
    paths: list[tuple[PathSamples, int]],
    rule: Rule,
    max_memory: int | float | str | None,
    per_sample: int,
    kept: int,
    besides: int,
) -> tuple[list[Plan], int]:
    """How samples go through the model, and how many are made before they go to the store.

    ``paths`` are all samples, and the bytes of a row in a pass. ``per_sample`` are bytes in the store,
    ``kept`` those of its chunk, where there is a store, and ``besides`` what a sample takes besides both
    ends of its path.
    """
    budget = parse_memory(max_memory)
    n_samples = len(paths[0][0])

    def plans(reserved: int) -> list[Plan]:
        # A budget that is too small for what lies besides is met as one of a byte, to learn what would do.
        room = None if budget is None else max(1, budget - reserved)
        try:
            return [plan_passes(samples, per_row, rule, room) for samples, per_row in paths]
        except MemoryBudgetError as error:
            required = error.required + reserved
            raise MemoryBudgetError(
                f"max_memory: one gradient and a sample's attributions on their way to the store need "
                f"{required} bytes, the budget is {budget}; max_memory={required} would do",
                required,
            ) from None

    # Its result, once for each baseline and their mean; the writer's copy; both ends of its path.
    ends = sum(x[:1].nbytes for samples, _ in paths for x in (*samples.inputs, *samples.baselines))
    each = per_sample * (2 if len(paths) == 1 else len(paths) + 4) + 2 * ends + besides
    least = plans(kept + each)
    if budget is None:
        at_once = max(plan.at_once for plan in least)
        return least, min(n_samples, at_once * max(1, _COMMIT // (at_once * max(per_sample, besides))))
    spare = max(each, min(2 * _COMMIT, budget // 8))
    try:
        found = plans(kept + spare)
    except MemoryBudgetError:
        found, spare = least, each
    rows, at_once = spare // each, max(plan.at_once for plan in found)
    rows = rows // at_once * at_once or rows
    return found, min(n_samples, rows)


def _as_many(samples: PathSamples, target: Any, n_samples: int) -> PathSamples:
    """A few samples, seen as if they were all: only their number, and what one of them takes, count."""
    inputs = tuple(x[:1].expand(n_samples, *x.shape[1:]) for x in samples.inputs)
    return replace(samples, inputs=inputs, target=target)


def _specs(values: Sequence[Tensor], samples: PathSamples, rule: Rule) -> dict[str, LayerSpec]:
    names = _names(len(values))
    specs = {
        name: LayerSpec(tuple(value.shape[1:]) or (1,), _plain(value.dtype), _plain(x.dtype))
        for name, value, x in zip(names, values, samples.inputs, strict=True)
    }
    specs |= {name: LayerSpec((1,), dtype) for name, dtype in _BY_SAMPLE.items()}
    if rule.accuracy is not None:
        specs["converged"] = LayerSpec((1,), "bool")
    return specs


def _names(count: int) -> list[str]:
    return ["values"] if count == 1 else [f"values_{i}" for i in range(count)]


def _plain(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _as_stored(result: Result, specs: dict[str, LayerSpec]) -> dict[str, Any]:
    found = dict(zip(_names(len(result.values)), result.values, strict=True))
    found |= {name: getattr(result, name) for name in specs if name not in found}
    return {name: found[name].cpu().reshape(-1, *spec.shape).numpy() for name, spec in specs.items()}


def _mapped(store: ActivationStore) -> Result:
    """All attributions of a store, mapped copy-on-write: nothing is read until it is used."""
    import torch

    def layer(name: str, shape: Sequence[int] = ()) -> Tensor:
        array = np.load(store.path / store.info[name].file, mmap_mode="c")
        return torch.from_numpy(array[: store.n_samples].reshape(store.n_samples, *shape))

    shapes = store.metadata["shapes"]
    values = tuple(layer(name, shape) for name, shape in zip(_names(len(shapes)), shapes, strict=True))
    delta, n_steps, n_gradients = (layer(name) for name in _BY_SAMPLE)
    converged = layer("converged") if "converged" in store else torch.ones(0, dtype=torch.bool)
    return Result(values, delta, n_steps, n_gradients, converged)
