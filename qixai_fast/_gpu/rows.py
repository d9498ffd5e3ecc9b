"""A matrix that a device works on block by block: its own memory, or a host's streamed through it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import _device
from .._memory import release_pages
from .._threads import usable_cores
from .._validate import as_matrix, check_matrix_shape
from .backend import Backend

_FLOATS = {np.dtype(np.float16): torch.float16, np.dtype(np.float32): torch.float32,
           np.dtype(np.float64): torch.float64}  # fmt: skip
# One thread copies a fraction of what a bus to a device takes.
_MOST_READERS = 8
_READ_BYTES = 2**22


def _fill(host: torch.Tensor, data: Any, start: int, readers: Executor) -> None:
    """Copy rows from ``start`` on into a tensor of the host, by several threads where that pays."""
    into = host.numpy()
    step = max(1, _READ_BYTES // max(1, into.nbytes // len(into)))

    def copy(first: int) -> None:
        view = data[start + first : start + min(first + step, len(into))]
        into[first : first + step] = view
        release_pages(view)

    if not isinstance(data, np.ndarray):
        step = len(into)  # lazy rows are made by calls that have threads of their own
    list(readers.map(copy, range(0, len(into), step)))


@dataclass(frozen=True)
class DeviceRows:
    """Rows of an (n_samples, n_features) input.

    Attributes
    ----------
    name : str
        The argument's name, for messages.
    data : Tensor or ndarray
        A tensor of the device, or an array of the host: memory, memmap or lazy rows.
    backend : Backend
    """

    name: str
    data: Any
    backend: Backend

    @classmethod
    def of(cls, X: Any, name: str, backend: Backend, *, min_samples: int = 1) -> DeviceRows:
        """Check an input as :func:`qixai_fast._validate.as_matrix` does; tensors on a GPU stay on one.

        Raises
        ------
        TypeError, ValueError
            As :func:`qixai_fast._validate.as_matrix`.
        """
        tensor = _device.gpu_tensor(X)
        if tensor is None:
            return cls(name, as_matrix(X, name, min_samples=min_samples).data, backend)
        if tensor.is_complex() or tensor.layout != torch.strided:
            raise TypeError(
                f"{name}: wanted a dense tensor of real numbers, got {tensor.dtype}, {tensor.layout}"
            )
        check_matrix_shape(tuple(tensor.shape), name, min_samples=min_samples)
        return cls(name, tensor.to(backend.device), backend)

    @property
    def n_samples(self) -> int:
        return int(self.data.shape[0])

    @property
    def n_features(self) -> int:
        return int(self.data.shape[1])

    @property
    def resident(self) -> bool:
        """Whether the input lies in the device's memory already."""
        return torch.is_tensor(self.data)

    @property
    def dtype(self) -> torch.dtype:
        """What blocks have: the input's own float type; float64 for integers."""
        if torch.is_tensor(self.data):
            dtype: torch.dtype = self.data.dtype
            return dtype if dtype.is_floating_point else torch.float64
        return _FLOATS.get(self.data.dtype, torch.float64)

    def block_bytes(self, rows: int) -> int:
        """Bytes of the device that :meth:`blocks` takes: two blocks, none where the input lies there."""
        own = self.resident and self.data.dtype.is_floating_point
        return 0 if own else 2 * rows * self.n_features * self.dtype.itemsize

    def blocks(
        self, rows: int, *, first: int = 0, last: int | None = None, checked: bool = True
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Start and values of each block of rows ``first:last``, (r, n_features), on the device, in order.

        A host's rows are copied through two pinned buffers, one being filled and sent while the device works
        on the other; rows that lie in pinned memory already are sent from there. A block is good until the
        next one is asked for. Values are checked to be finite at the
        end, in one go, so that the device never waits for it; without ``checked``, they are not.

        Raises
        ------
        ValueError
            For NaN or infinite values: the first row and column. Comes when all blocks have been taken.
        """
        wrong = torch.zeros((), dtype=torch.bool, device=self.backend.device)
        span = first, self.n_samples if last is None else last
        for start, block in self._resident(rows, *span) if self.resident else self._streamed(rows, *span):
            # A sum is finite unless a value is not or the sum is too large: then each one is looked at.
            # Before a sum in a wider type torch copies the block, but from half to single on a GPU.
            if checked:
                wide = torch.float64 if block.dtype == torch.float64 else torch.float32
                wrong |= ~torch.isfinite(block.sum(dtype=wide))
            yield start, block
        if bool(wrong):
            self._name_the_first(rows, *span)

    def _resident(self, rows: int, first: int, last: int) -> Iterator[tuple[int, torch.Tensor]]:
        for start in range(first, last, rows):
            yield start, self.data[start : min(start + rows, last)].to(self.dtype)

    def _streamed(self, rows: int, first: int, last: int) -> Iterator[tuple[int, torch.Tensor]]:
        backend, d = self.backend, self.n_features
        rows = min(rows, last - first)
        # Pinned memory is sent as it lies; all else is copied to pinned memory first.
        source = self._pinned_already()
        hosts = [] if source is not None else [backend.pinned((rows, d), self.dtype) for _ in range(2)]
        devices = [torch.empty((rows, d), dtype=self.dtype, device=backend.device) for _ in range(2)]
        # Nothing of the copies may begin before what the current stream has left to do with this memory.
        done: list[Any] = [backend.mark(), backend.mark()]
        sent: list[Any] = [None, None]

        def send(start: int, side: int) -> None:
            stop = min(start + rows, last)
            if source is not None:
                host = source[start:stop]
            else:
                if sent[side] is not None:
                    backend.block_until(sent[side])
                host = hosts[side][: stop - start]
                _fill(host, self.data, start, readers)
            with backend.copying():
                backend.wait(done[side])
                devices[side][: stop - start].copy_(host, non_blocking=True)
                sent[side] = backend.mark()

        with ThreadPoolExecutor(min(usable_cores(), _MOST_READERS)) as readers:
            try:
                send(first, 0)
                for number, start in enumerate(range(first, last, rows)):
                    side = number % 2
                    if start + rows < last:
                        send(start + rows, 1 - side)
                    backend.wait(sent[side])
                    yield start, devices[side][: min(rows, last - start)]
                    done[side] = backend.mark()
            finally:
                # However this ends, no copy may still be under way when the buffers go back.
                for mark in sent:
                    if mark is not None:
                        backend.block_until(mark)

    def _pinned_already(self) -> torch.Tensor | None:
        """The host's rows as a tensor where the device can read them as they lie."""
        data = self.data
        if not isinstance(data, np.ndarray) or data.dtype not in _FLOATS or not data.flags.c_contiguous:
            return None
        return torch.from_numpy(data) if self.backend.reads(data) else None

    def _name_the_first(self, rows: int, *span: int) -> None:
        for start, block in self._resident(rows, *span) if self.resident else self._streamed(rows, *span):
            found = torch.nonzero(~torch.isfinite(block))
            if len(found):
                row, column = (int(place) for place in found[0])
                raise ValueError(
                    f"{self.name}: {float(block[row, column])} at row {start + row}, column {column}; "
                    "remove or impute NaN and infinite values first"
                )
