"""Items of work over several devices, results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import TypeVar

from .._threads import ordered_map
from .backend import Backend

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    function: Callable[[Backend, Item], Result], items: Iterable[Item], backends: Sequence[Backend]
) -> Iterator[Result]:
    """Apply a function to items, each on the next free device; a single one works on the caller's stream.

    Results come in order, with as many unconsumed as there are devices at most; the first item that fails, in
    order, raises. What a device needs for all its items, the function keeps by backend: one thread at a time
    uses one.
    """
    if len(backends) == 1:
        for item in items:
            # Never around a yield: what the caller does in between belongs to the device it has chosen.
            with backends[0].current():
                result = function(backends[0], item)
            yield result
        return
    free: SimpleQueue[Backend] = SimpleQueue()
    for backend in backends:
        # Threads have streams of their own: what the caller's has yet to do must be there first.
        backend.block_until(backend.mark())
        free.put(backend)

    def work(item: Item) -> Result:
        backend = free.get()
        try:
            with backend.current():
                result = function(backend, item)
                backend.block_until(backend.mark())
                return result
        finally:
            free.put(backend)

    yield from ordered_map(work, items, len(backends))
