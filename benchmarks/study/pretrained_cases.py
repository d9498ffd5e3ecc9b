"""What is captured and explained of each network, and on which inputs.

``rows`` are what one input gives several of: views of a photograph, moments of a recording, tokens of a
sentence. They are not independent; the inputs ("units") are taken to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.environment import SEED
from benchmarks.networks import frozen

N_SHOWN = 3  # explained inputs that are kept for a figure


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network, its inputs, and where to look.

    Attributes
    ----------
    model, untrained : nn.Module
        With its weights, and with random ones.
    batches : list of (Tensor, ndarray of int)
        One input a unit and its label.
    layers : tuple of str
        By depth; those of ``reduce`` keep one number a map.
    row_batches : list of Tensor
        Inputs whose rows are looked at.
    take_rows : callable
        Recorded layer (inputs, ...) to rows (units, rows, maps).
    wide : str
        Layer after an activation function, each place of which is looked at for repeated values.
    explained : nn.Module
        Floating-point inputs, and references, to one number a row (or classes).
    inputs, baselines, references : Tensor
        References are further arguments of ``explained``, empty for none.
    target : Tensor or None
    conductors : tuple of str
        Layers of ``explained`` for conductance.
    parts : callable
        Attributions (n, ...) to one a part (n, parts): patches, moments, tokens.
    without : callable
        ``without(inputs, gone)`` puts the baseline where parts (n, parts) are gone.
    checks : dict
        Numbers that say whether the network knows what it should.
    examples : sequence of dict
        What the first explained inputs look like, small.
    """

    title: str
    samples: str
    unit: str
    row: str
    model: nn.Module
    untrained: nn.Module
    batches: list
    classes: list[str]
    layers: tuple[str, ...]
    names: tuple[str, ...]
    reduce: str
    row_batches: list
    row_reduce: str
    take_rows: Callable[[np.ndarray], np.ndarray]
    wide: str
    explained: nn.Module
    inputs: torch.Tensor
    baselines: torch.Tensor
    references: tuple[torch.Tensor, ...]
    target: torch.Tensor | None
    target_text: str
    part: str
    conductors: tuple[str, ...]
    parts: Callable[[torch.Tensor], torch.Tensor]
    without: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    checks: Mapping[str, float]
    examples: Sequence[Mapping[str, Any]]


class Similarity(nn.Module):
    """Cosine of each input's embedding with a reference's, which is of length 1."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs, references):
        return (self.model(inputs) * references).sum(dim=1)


def seeded(make):
    """A network with random weights, the same each time."""
    torch.manual_seed(SEED)
    return frozen(make())
