"""The null of binned mutual information on a device: codes stay there, and permutations gather them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from threading import Lock

import numpy as np
import torch

from .._validate import Float64
from ..mutual_info.bias import Margins
from ..mutual_info.binned_null import NullOptions
from ..mutual_info.pairing import Pairs
from ..mutual_info.permutations import inverse, moves_first
from ..mutual_info.variables import Int32
from .backend import Backend
from .binned import PairValues, at_once, margins_of, plan_work
from .codes import NO_CODE, DeviceCodes, Index, bins_on_device, code_bytes, counted, encode_on_device, padded
from .rows import DeviceRows

# Threads that draw permutations for the device.
_MOST_DRAWN = 4


def _runs(labels: Index) -> Iterator[slice]:
    """Runs of equal labels."""
    cuts = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return (slice(begin, end) for begin, end in pairwise(cuts))


def _of_columns(margins: Margins, columns: Index) -> Margins:
    return Margins(margins.counts[columns], margins.sums[columns], margins.occupied[columns])


class DeviceBinnedNull:
    """All pairs from one set of codes: :class:`qixai_fast.mutual_info.binned_null.BinnedNull` on a device.

    Attributes
    ----------
    location, scale : (n_pairs,) float64
        As there.
    n_jobs : int
        Permutations drawn at a time; on the device they follow one another.
    places : (n_pairs,) int64
        Pairs in the order in which they are asked for: tile after tile.
    """

    def __init__(
        self,
        rows: list[DeviceRows],
        pairs: Pairs,
        classes: tuple[Int32, int] | None,
        options: NullOptions,
        *,
        backend: Backend,
        max_memory: int | None,
        n_jobs: int,
    ) -> None:
        n, n_bins = rows[0].n_samples, options.n_bins
        self._backend, self._options, self._n_samples = backend, options, n
        self.n_jobs = min(n_jobs, _MOST_DRAWN)
        self._free = Lock()
        bins = n_bins, n_bins if classes is None else classes[1]
        column = padded(n) * code_bytes(max(bins))
        # The order, classes, and columns that are taken and put in it.
        plan = plan_work(
            rows,
            bins,
            options.strategy,
            max_memory,
            [backend],
            extra=8 * padded(n) + column,
            gathered=2 * column,
            must_hold=True,
        )
        with backend.current():
            self._codes = []
            for side in rows:
                own = bins_on_device(
                    side,
                    n_bins,
                    options.strategy,
                    zero=options.zero,
                    size=plan.rows,
                    sort_columns=plan.sort_columns,
                )
                self._codes.append(encode_on_device(side, own, plan.rows))
            if classes is not None:
                self._codes.append(self._classes(*classes))
            self._margins = [margins_of(codes, options.estimator) for codes in self._codes]
        self._values = PairValues(backend, options.estimator, plan.shape, n_jobs)
        self._complete = PairValues(backend, options.complete, plan.shape, n_jobs)
        self._width = width = plan.shape.side
        first, second = pairs.columns(0, len(pairs))
        self._side = 0 if moves_first(first, second) else -1
        moving, still = (first, second) if self._side == 0 else (second, first)
        self.places = np.lexsort((still, moving, still // width, moving // width))
        self._moving, self._still = moving[self.places], still[self.places]
        of_x, of_y = self._margins[0].counts, self._margins[-1].counts
        self._expected = options.expected(of_x, of_y, first, second, n_jobs)
        self.location, self.scale = options.centre(self._expected)

    def _classes(self, numbers: Int32, n_classes: int) -> DeviceCodes:
        """Classes are numbered already: they are their own bins."""
        n, narrow = self._n_samples, code_bytes(n_classes) == 1
        data = np.full((1, padded(n)), NO_CODE if narrow else 0, dtype=np.uint8 if narrow else np.int16)
        data[0, :n] = numbers
        on_device = torch.from_numpy(data).to(self._backend.device)
        return counted(self._backend, on_device, n, n_classes)

    def parts(self) -> Iterator[DeviceBinnedNull]:
        """All pairs at once: codes of all columns are held."""
        yield self

    def values(self, order: Index | None, chosen: Index) -> Float64:
        """Values of pairs ``chosen``, of :attr:`places`, the second column of each taken in ``order``."""
        out = np.empty(len(chosen))
        begun: list[tuple[slice, Callable[[], Float64]]] = []
        moving, still = self._moving[chosen], self._still[chosen]
        codes, fixed = self._codes[self._side], self._codes[-1 - self._side]
        margins, of_fixed = self._margins[self._side], self._margins[-1 - self._side]
        with self._free, self._backend.current():
            sent = None if order is None else self._sent(inverse(order) if self._side == 0 else order)
            for band in _runs(moving // self._width):
                columns, at = np.unique(moving[band], return_inverse=True)
                # Without an order they are taken too: a tile of columns, once for all rounds.
                moved = codes.take(columns, sent)
                both = _of_columns(margins, columns), of_fixed
                for run in _runs(still[band] // self._width):
                    where = slice(band.start + run.start, band.start + run.stop)
                    values = self._values.start((moved, fixed), both, at[run], still[where])
                    begun.append((where, at_once(values) if self._options.estimator.needs_tables else values))
                # Let them go before the next ones are taken.
                del moved
            for where, values in begun:
                out[where] = values()
        if self._options.subtracts_mean:
            out -= self._expected[self.places[chosen]]
        return out

    def _sent(self, order: Index) -> torch.Tensor:
        """An order on the device; what is behind the last sample stays there."""
        n = self._n_samples
        whole = np.concatenate([order, np.arange(n, padded(n))])
        return torch.from_numpy(whole).to(self._backend.device)

    def diagonal(self) -> Float64:
        """Each column with itself."""
        codes, margins = self._codes[0], self._margins[0]
        out = np.empty(len(codes.data))
        with self._backend.current():
            for start in range(0, len(out), self._width):
                each = np.arange(start, min(start + self._width, len(out)))
                out[each] = self._complete.start((codes, codes), (margins, margins), each, each)()
        return out
