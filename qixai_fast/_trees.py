"""The one tree in which partial results combine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Partial = TypeVar("Partial")


def combine_tree(partials: Iterable[Partial], combine: Callable[[Partial, Partial], Partial]) -> Partial:
    """Combine partials, in leaf order, in the binary tree that leaf indices fix.

    Works like a binary counter: at most log2(leaves) + 1 partials are held at a time. Leaves
    2i and 2i+1 meet first; what is left over at the end combines from the smallest up.
    """
    held: list[tuple[int, Partial]] = []
    for partial in partials:
        level = 0
        while held and held[-1][0] == level:
            partial = combine(held.pop()[1], partial)
            level += 1
        held.append((level, partial))
    if not held:
        raise ValueError("combine_tree: wanted at least one partial")
    _, result = held.pop()
    while held:
        result = combine(held.pop()[1], result)
    return result
