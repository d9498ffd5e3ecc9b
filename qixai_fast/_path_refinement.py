"""Refinement towards a tolerance: what it asks for, how samples share memory, and who is done alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._path_inputs import PathSamples
from ._path_mesh import SPLITTING
from ._path_passes import Passes
from ._path_splits import Refined, Refinement, kept_dtype, of_split
from ._validate import check_int

if TYPE_CHECKING:
    from torch import Tensor

# Gradients of a sample that there is room for, beside the first ones, where samples share their passes.
# A CNN's softmax takes up to 75 to a tolerance of 1 %.
_KEPT = 128
# Bytes for each gradient besides it: its node, its interval, and copies of these in sorting.
_BOOKKEEPING = 64


@dataclass(frozen=True)
class Accuracy:
    """When a sample's attributions are accurate enough, and when to give up."""

    tol: float
    atol: float
    max_n_steps: int


def _check_number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: wanted a number, got {type(value).__name__}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: wanted a positive number, got {value}")
    return float(value)


def first_nodes(method: str, n_steps: int) -> int:
    """Gradients of a sample before any interval is split."""
    return 3 * n_steps if method == "riemann_middle" else 2 * n_steps + 1


def check_tolerance(tol: Any, atol: Any, max_n_steps: Any) -> Accuracy | None:
    """The accuracy asked for; None without ``tol``.

    Raises
    ------
    TypeError, ValueError
        For numbers that are none or not positive.
    """
    atol = _check_number(atol, "atol")
    limit = check_int(max_n_steps, "max_n_steps", low=1)
    return None if tol is None else Accuracy(_check_number(tol, "tol"), atol, limit)


def check_accuracy(tol: Any, atol: Any, max_n_steps: Any, method: str, n_steps: int) -> Accuracy | None:
    """As :func:`check_tolerance`, for a rule.

    Raises
    ------
    ValueError
        Also for a rule that cannot be refined, and a ``max_n_steps`` that leaves no room for a comparison.
    """
    accuracy = check_tolerance(tol, atol, max_n_steps)
    if accuracy is None:
        return None
    if method not in SPLITTING:
        wanted = " and ".join(repr(name) for name in SPLITTING)
        raise ValueError(
            f"method: tol reuses the gradients of coarser steps, which {method!r} cannot; only {wanted} nest"
        )
    needed = first_nodes(method, n_steps)
    if accuracy.max_n_steps < needed:
        raise ValueError(
            f"max_n_steps: tol needs {needed} gradients to compare n_steps={n_steps} with finer steps, "
            f"so wanted at least {needed}, got {accuracy.max_n_steps}"
        )
    return accuracy


@dataclass(frozen=True)
class Shares:
    """How samples share memory.

    Attributes
    ----------
    at_once : int
        Samples that share their passes.
    kept, kept_alone : int
        Gradients of each that are kept; and of one that takes more, and is done alone.
    bytes : int
        What the samples take besides the passes.
    """

    at_once: int
    kept: int
    kept_alone: int
    bytes: int


def _per_gradient(samples: PathSamples) -> int:
    return sum(x[0].numel() for x in samples.inputs) * kept_dtype(samples).itemsize + _BOOKKEEPING


def _besides(samples: PathSamples) -> int:
    """Bytes of a sample's sums and their temporaries."""
    return sum(x[0].numel() for x in samples.inputs) * 64


def least_kept(method: str, n_steps: int, accuracy: Accuracy) -> int:
    """Gradients of a sample that there has to be room for: the first ones, and those of one split."""
    return min(max(first_nodes(method, n_steps), of_split(SPLITTING[method])), accuracy.max_n_steps)


def memory_of_sample(samples: PathSamples, kept: int) -> int:
    """Bytes that refining one sample takes besides its passes, with so many gradients kept."""
    return kept * _per_gradient(samples) + _besides(samples)


def share(samples: PathSamples, least: int, room: int, per_row: int, limit: int) -> Shares:
    """How samples share ``room`` bytes: half for what they keep, the rest for passes of ``per_row`` a row.

    Parameters
    ----------
    samples : PathSamples
    least : int
        As :func:`least_kept`.
    room, per_row : int
    limit : int
        Gradients of a sample that are never exceeded.
    """
    wanted = memory_of_sample(samples, min(limit, least + _KEPT)) + per_row
    half = min(room // 2, room - per_row)
    at_once = max(1, min(len(samples), half // wanted))
    each, alone = (
        min(limit, max(least, (half // count - _besides(samples)) // _per_gradient(samples)))
        for count in (at_once, 1)
    )
    most = max(at_once * memory_of_sample(samples, each), memory_of_sample(samples, alone))
    return Shares(at_once, each, alone, most)


def refine_paths(
    passes: Passes,
    samples: PathSamples,
    ends: tuple[Tensor, Tensor],
    method: str,
    n_steps: int,
    accuracy: Accuracy,
    shares: Shares,
    multiply: bool,
) -> Refined:
    """Attributions of a few samples, each as accurate as asked for or as ``max_n_steps`` allows.

    A path that takes more gradients than there is room for is done again alone.
    """
    import torch

    def refined(part: PathSamples, ends: tuple[Tensor, Tensor]) -> Refined:
        kept = shares.kept if len(part) > 1 else shares.kept_alone
        return Refinement(passes, part, ends, method, n_steps, accuracy, kept, multiply).run()

    found = refined(samples, ends)
    for i in np.flatnonzero(found.rough):
        alone = refined(samples.take(torch.tensor([int(i)])), (ends[0][i : i + 1], ends[1][i : i + 1]))
        found.values[i], found.delta[i] = alone.values[0], alone.delta[0]
        found.n_steps[i], found.converged[i] = alone.n_steps[0], alone.converged[0]
        found.n_gradients[i] += alone.n_gradients[0]
    return found
