"""Cases that a second look at finished parts brought up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qixai_fast as qf

torch = pytest.importorskip("torch")


@dataclass
class Outputs:
    """What some libraries return in place of a tuple or dict."""

    loss: Any
    logits: Any
    hidden: Any


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(5, 3)

    def forward(self, x: Any) -> Outputs:
        return Outputs(None, self.linear(x), (x,))


def test_dataclass_output_is_recorded_by_its_first_tensor(tmp_path: Path) -> None:
    model, x = torch.nn.Sequential(Block()), torch.rand(7, 5)
    store = qf.capture(model, x.split(3), ["0"], tmp_path, progress=False)
    np.testing.assert_allclose(store["0"], model[0].linear(x).detach().numpy(), rtol=1e-6)
