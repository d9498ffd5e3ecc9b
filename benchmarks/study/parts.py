"""The parts of the study, by name, and what each of them is asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

PARTS = ("paper", "pretrained", "cost", "survival", "dependence")  # in the order of the README


@dataclass(frozen=True)
class Options:
    """What a part is asked for.

    Attributes
    ----------
    quick : bool
        Small sizes: does the part still run?
    images : Path or None
        A folder with one folder of images a class, in place of Fashion-MNIST.
    work : Path
        Where trained networks and stores are kept between parts and runs.
    """

    quick: bool
    images: Path | None
    work: Path


def part(name):
    """The module of a part.

    ``measure(options)`` returns what JSON can hold, ``lines(content)`` yields the lines of its section in
    README.md, every number of which comes from ``content``, and ``draw(content, folder)`` writes its figures.
    """
    return importlib.import_module(f"benchmarks.study.{name}")
