"""Integrated gradients of sampled inputs, and whether they hold still when the inputs tremble."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._device import is_torch, to_numpy
from .._validate import Array, Float64
from ..gradients import integrated_gradients
from .context import AuditContext, number
from .files import Stage, digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# What the stage reads of the plan, beside what draw_subject did: part of its key.
ATTRIBUTION_FIELDS = ("n_steps", "max_n_steps", "tol", "stability_noise", "n_noise", "min_stability")

_METHOD = "riemann_middle"


@dataclass(frozen=True)
class Subject:
    """A model and the inputs drawn for it, checked to run.

    Attributes
    ----------
    model : torch.nn.Module
    inputs : tuple of Tensor
        The sampled inputs, on the model's device.
    sample : ndarray of int64
        Their rows among all inputs.
    n_inputs : int
        How many there were to choose from.
    target : Tensor or None
        Output explained, one a sample; None for models with one output.
    outputs, baseline_outputs : ndarray of float64
        The model's output at the target, for each input and for its zero baseline.
    digest : str
        Of model, inputs and targets: what attributions depend on.
    """

    model: Any
    inputs: tuple[Tensor, ...]
    sample: npt.NDArray[np.int64]
    n_inputs: int
    target: Tensor | None
    outputs: Float64
    baseline_outputs: Float64
    digest: str


def draw_subject(
    context: AuditContext, model: Any, inputs: Any, target: Any, rng: np.random.Generator
) -> Subject:
    """Sample inputs and run the model on them once: mistakes show before any other work.

    Raises
    ------
    TypeError
        For a model that is no ``torch.nn.Module``, and inputs that are neither tensors nor batches of them.
    ValueError
        For inputs without samples, and targets that do not fit.
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model: wanted a torch.nn.Module, got {type(model).__name__}")
    picked, sample, n_inputs = _draw(_batches(inputs), context.plan.n_attributions, rng)
    for tensor in picked:
        if not tensor.is_floating_point():
            raise TypeError(f"inputs: wanted floating-point tensors to have gradients, got {tensor.dtype}")
    place = next((weight for weight in model.parameters() if weight.is_floating_point()), None)
    tensors = tuple(_to_model(tensor, place) for tensor in picked)
    with _steady(model), torch.no_grad():
        outputs = model(*tensors)
        if not isinstance(outputs, torch.Tensor):
            raise TypeError(f"model: wanted a tensor out of it, got {type(outputs).__name__}; wrap the model")
        targets = _targets(target, outputs, sample, n_inputs)
        at_inputs = _at_target(outputs, targets)
        at_baseline = _at_target(model(*(torch.zeros_like(tensor) for tensor in tensors)), targets)
    return Subject(
        model,
        tensors,
        sample,
        n_inputs,
        targets,
        at_inputs,
        at_baseline,
        _digest(model, tensors, targets, at_inputs),
    )


def _batches(inputs: Any) -> Iterator[tuple[Tensor, ...]]:
    """Model inputs batch by batch, from a tensor, a tuple of tensors (several inputs) or batches."""
    import torch

    if isinstance(inputs, np.ndarray) or is_torch(inputs):
        yield (torch.as_tensor(inputs),)
    elif isinstance(inputs, tuple) and inputs and all(is_torch(part) for part in inputs):
        yield inputs
    elif isinstance(inputs, Mapping) or not isinstance(inputs, Iterable):
        raise TypeError(
            "inputs: wanted a tensor, a tuple of tensors (for a model of several inputs), or an iterable of "
            f"batches, got {type(inputs).__name__}"
        )
    else:
        for batch in inputs:
            first = batch[0] if isinstance(batch, (tuple, list)) and len(batch) else batch
            if not (isinstance(first, np.ndarray) or is_torch(first)):
                raise TypeError(
                    "inputs: wanted batches that are tensors, or tuples whose first element is one, "
                    f"got {type(first).__name__}"
                )
            yield (torch.as_tensor(first),)


def _draw(
    batches: Iterator[tuple[Tensor, ...]], wanted: int, rng: np.random.Generator
) -> tuple[list[Tensor], npt.NDArray[np.int64], int]:
    """A uniform sample of the rows of all batches, in order, without holding them (Vitter's algorithm R)."""
    import torch

    rows: list[tuple[int, tuple[Tensor, ...]]] = []
    seen = 0
    for batch in batches:
        lengths = {int(part.shape[0]) if part.ndim else 0 for part in batch}
        if len(lengths) != 1:
            raise ValueError(f"inputs: the tensors of one batch have {sorted(lengths)} rows; wanted the same")
        for row in range(lengths.pop()):
            place = len(rows) if len(rows) < wanted else int(rng.integers(seen + 1))
            if place < wanted:
                kept = (seen, tuple(part[row].detach().clone() for part in batch))
                if place == len(rows):
                    rows.append(kept)
                else:
                    rows[place] = kept
            seen += 1
    if not rows:
        raise ValueError("inputs: wanted at least one sample, got none")
    rows.sort(key=lambda kept: kept[0])
    try:
        columns = [torch.stack(parts) for parts in zip(*(parts for _, parts in rows), strict=True)]
    except RuntimeError as error:
        raise ValueError(f"inputs: samples of different shapes cannot share a batch ({error})") from None
    return columns, np.array([index for index, _ in rows], dtype=np.int64), seen


def _to_model(tensor: Tensor, place: Tensor | None) -> Tensor:
    """A tensor on the device and in the dtype of the model's weights; as it is where it has none."""
    return tensor if place is None else tensor.to(place.device, place.dtype)


def _targets(target: Any, outputs: Tensor, sample: npt.NDArray[np.int64], n_inputs: int) -> Tensor | None:
    """One output a sample: what was asked for, or the largest (the predicted class)."""
    import torch

    if outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1):
        if target is not None:
            raise ValueError("target: the model has one output a sample, so leave target=None")
        return None
    if outputs.ndim != 2:
        raise ValueError(
            f"model: wanted outputs of shape (n, classes), got {tuple(outputs.shape)}; wrap the model"
        )
    if target is None:
        return outputs.argmax(dim=1)
    wanted = to_numpy(target, "target")
    if wanted.dtype.kind not in "iu":
        raise TypeError(f"target: wanted integers, got {wanted.dtype}")
    if wanted.ndim == 1 and len(wanted) != n_inputs:
        raise ValueError(
            f"target: wanted one output, or one for each of {n_inputs} inputs, got {len(wanted)}"
        )
    if wanted.ndim > 1:
        raise ValueError(f"target: wanted one output, or one an input, got shape {wanted.shape}")
    chosen = np.broadcast_to(wanted if wanted.ndim == 0 else wanted[sample], sample.shape).astype(np.int64)
    if chosen.min() < 0 or chosen.max() >= outputs.shape[1]:
        raise ValueError(
            f"target: wanted outputs 0 to {outputs.shape[1] - 1}, got {chosen.min()} to {chosen.max()}"
        )
    return torch.as_tensor(chosen, device=outputs.device)


def _at_target(outputs: Tensor, targets: Tensor | None) -> Float64:
    chosen = outputs if targets is None else outputs.gather(1, targets[:, None])
    result: Float64 = chosen.reshape(-1).double().cpu().numpy()
    return result


def _digest(
    model: torch.nn.Module, inputs: tuple[Tensor, ...], targets: Tensor | None, outputs: Float64
) -> str:
    """Of weights and architecture, and of outputs, which also show a change in the model's own code."""
    parts = [repr(model).encode(), f"{np.array2string(outputs, precision=4)}".encode()]
    state = {name: value for name, value in model.state_dict().items() if is_torch(value)}
    for name, value in sorted(state.items()):
        parts += [name.encode(), to_numpy(value, name).tobytes()]
    parts += [to_numpy(tensor, "inputs").tobytes() for tensor in inputs]
    if targets is not None:
        parts.append(targets.cpu().numpy().tobytes())
    return digest(b"".join(digest(part).encode() for part in parts))


def attribution_stage(
    context: AuditContext, subject: Subject, progress: bool, rng: np.random.Generator
) -> Stage:
    """Attributions with completeness and stability: :class:`AttributionSection` without the file's name.

    ``progress`` shows a bar for each run of the model over all inputs.
    """
    plan = context.plan
    with _steady(subject.model):
        values, delta, n_steps, converged = _attribute(context, subject, subject.inputs, progress)
        stability = _stability(context, subject, values, progress, rng)
    change = subject.outputs - subject.baseline_outputs
    relative = np.divide(np.abs(delta), np.abs(change), out=np.full_like(delta, np.nan), where=change != 0)
    finite = relative[np.isfinite(relative)]
    result = {
        "n_inputs": subject.n_inputs,
        "method": _METHOD,
        "tol": plan.tol,
        "noise": plan.stability_noise,
        "samples": [
            {
                "sample": int(subject.sample[i]),
                "target": None if subject.target is None else int(subject.target[i]),
                "label": _label(context, subject, i),
                "output": float(subject.outputs[i]),
                "delta": number(delta[i]),
                "relative_delta": number(relative[i]),
                "n_steps": int(n_steps[i]),
                "converged": bool(converged[i]),
                "stability": float(stability[i]),
            }
            for i in range(len(subject.sample))
        ],
        "n_converged": int(converged.sum()),
        "n_stable": int((stability >= plan.min_stability).sum()),
        "median_stability": float(np.median(stability)),
        "median_relative_delta": float(np.median(finite)) if len(finite) else None,
    }
    arrays: dict[str, Array] = {"sample": subject.sample, "delta": delta, "stability": stability}
    for place, (tensor, value) in enumerate(zip(subject.inputs, values, strict=True)):
        arrays[f"inputs_{place}"] = to_numpy(tensor, "inputs").astype(np.float32)
        arrays[f"values_{place}"] = value.astype(np.float32)
    return result, arrays


def _label(context: AuditContext, subject: Subject, i: int) -> str | None:
    """The store's label, where the inputs are as many as its samples and so, surely, the same."""
    if context.classes is None or subject.n_inputs != context.n_samples:
        return None
    return context.classes.names[int(context.classes.codes[subject.sample[i]])]


def _attribute(
    context: AuditContext, subject: Subject, inputs: tuple[Tensor, ...], progress: bool
) -> tuple[list[Array], Float64, Array, Array]:
    plan = context.plan
    found = integrated_gradients(
        subject.model,
        inputs,
        target=subject.target,
        n_steps=plan.n_steps,
        method=_METHOD,
        tol=plan.tol,
        max_n_steps=plan.max_n_steps,
        max_memory=plan.max_memory,
        progress=progress,
    )
    assert found.converged is not None, "tol is always given"
    values = [to_numpy(value, "values") for value in found.values]
    delta = to_numpy(found.delta, "delta").astype(np.float64)
    return values, delta, to_numpy(found.n_steps, "n_steps"), to_numpy(found.converged, "converged")


def _stability(
    context: AuditContext,
    subject: Subject,
    values: list[Array],
    progress: bool,
    rng: np.random.Generator,
) -> Float64:
    """Mean cosine of each sample's attributions with those of noisy copies of it, for the same output."""
    import torch

    plan = context.plan
    total = np.zeros(len(subject.sample))
    for _ in range(plan.n_noise):
        noisy = []
        for tensor in subject.inputs:
            plain = to_numpy(tensor, "inputs").astype(np.float64)
            noise = rng.standard_normal(plain.shape) * (plan.stability_noise * plain.std())
            noisy.append(torch.as_tensor(plain + noise).to(tensor.device, tensor.dtype))
        shaken, *_ = _attribute(context, subject, tuple(noisy), progress)
        total += _cosine(values, shaken)
    return total / plan.n_noise


def _cosine(first: list[Array], second: list[Array]) -> Float64:
    """Cosine of each sample's attributions, all inputs together; 1 where both are zero, 0 where one is."""
    a, b = (
        np.concatenate([part.reshape(len(part), -1).astype(np.float64) for part in side], axis=1)
        for side in (first, second)
    )
    norms = np.sqrt((a**2).sum(axis=1)) * np.sqrt((b**2).sum(axis=1))
    same = ((a == 0).all(axis=1) & (b == 0).all(axis=1)).astype(np.float64)
    cosine = np.divide((a * b).sum(axis=1), norms, out=same, where=norms > 0)
    return np.where(np.isfinite(cosine), np.clip(cosine, -1.0, 1.0), 0.0)


@contextmanager
def _steady(model: torch.nn.Module) -> Iterator[None]:
    """The model in evaluation mode; torch on one thread, since its results change with their number."""
    import torch

    training = [module for module in model.modules() if module.training]
    threads = torch.get_num_threads()
    model.eval()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for module in training:
            module.training = True
