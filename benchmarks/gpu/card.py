"""The device that is measured: data on it, times, and what it does at best."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Card:
    """A GPU, or a test's stand-in.

    Attributes
    ----------
    backend : Backend
    simulated : bool
        Whether kernels run in numba's simulator: times then say nothing.
    rates : dict
        Of :func:`measure_rates`.
    """

    backend: Any
    simulated: bool
    rates: dict[str, tuple[float, str]] = field(default_factory=dict)

    @property
    def device(self):
        return self.backend.device

    def normal(self, shape, dtype, seed=0):
        """Normal values on the device, made there."""
        generator = torch.Generator(self.device).manual_seed(seed)
        values = torch.empty(shape, dtype=dtype, device=self.device)
        for block in torch.split(values, max(1, 2**28 // max(1, values[0].numel()))):
            block.normal_(generator=generator)
        return values

    def seconds(self, call, *, rounds=5, enough=20.0):
        """Median time of a call after one to warm up; of fewer rounds where they last ``enough`` before."""
        if self.simulated:
            return self._once(call)
        call()
        times = []
        while len(times) < rounds and (not times or sum(times) < enough):
            times.append(self._once(call))
        return statistics.median(times)

    def _once(self, call):
        if self.simulated:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        first.record()
        call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1000

    def clear(self):
        """Give back what the last work took."""
        gc.collect()
        if not self.simulated:
            torch.cuda.empty_cache()


def _product(card, side, dtype):
    if dtype == torch.int8:
        a = torch.randint(-5, 5, (side, side), device=card.device, dtype=torch.int8)
        out = torch.empty((side, side), device=card.device, dtype=torch.int32)
        return lambda: torch._int_mm(a, a.T, out=out)
    a = card.normal((side, side), dtype)
    out = torch.empty_like(a)
    return lambda: torch.mm(a, a.T, out=out)


def _copy_rates(card, copied):
    source = torch.zeros(copied, dtype=torch.uint8, device=card.device)
    into = torch.empty_like(source)
    card.rates["copy"] = 2 * copied / card.seconds(lambda: into.copy_(source)), "bytes/s read and written"
    pinned = card.backend.pinned((copied // 2,), torch.uint8)
    part = into[: copied // 2]
    pace = card.seconds(lambda: part.copy_(pinned, non_blocking=True))
    card.rates["copy from pinned memory"] = len(part) / pace, "bytes/s"


def measure_rates(card, *, copied=2**32, side=8192):
    """A copy within the device, copies to it, and large matrix products: what no kernel can exceed.

    Parameters
    ----------
    card : Card
    copied : int
        Bytes.
    side : int
        Of the square matrices; half of it in float64.
    """
    _copy_rates(card, copied)
    for name, dtype in {
        "float16 product": torch.float16,
        "float32 product": torch.float32,
        "float64 product": torch.float64,
        "int8 product": torch.int8,
    }.items():
        n = side // 2 if dtype == torch.float64 else side
        card.clear()
        # Not one: clocks and caches settle over several.
        card.rates[name] = 2 * n**3 / card.seconds(_product(card, n, dtype), rounds=20), "operations/s"
    card.clear()


def row(card, scale, seconds, measured, *, moved, operations=0, unit="float32 product", **more):
    """What is kept of a work: its time, its figure, and its share of what the card could do at best.

    Parameters
    ----------
    card : Card
    scale : float
        Share of the full size.
    seconds, measured : float
        Time of one call, and the figure that a target is about.
    moved, operations : int
        Bytes that must be read and written, and arithmetic that must be done at least, by the shapes.
    unit : str
        The rate of the card that those operations go by.
    **more
        Anything else worth keeping.
    """
    floors = {"copy": moved / card.rates["copy"][0], unit: operations / card.rates[unit][0]}
    limit = max(floors, key=floors.get)
    return {
        "scale": scale,
        "seconds": seconds,
        "measured": measured,
        "bytes": moved,
        "operations": operations,
        "roofline": floors[limit] / seconds,
        "limit": limit,
        **more,
    }
