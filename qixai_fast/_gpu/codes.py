"""Bins and codes of columns on a device: the edges and the codes of the CPU, to the bit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .._validate import Float64
from ..bins import Bins, check_span, even_bins, quantile_line, quantile_places, row_blocks
from ..kernels.histogram_cuda import TILE_COLUMNS, TILE_ROWS, count_codes, digitize_block
from .backend import Backend
from .rows import DeviceRows

Index = npt.NDArray[np.int64]

# Samples of whole words of planes: codes of a column are padded to a multiple.
ALIGNED = 64
# A code that is no bin, behind the last sample; up to 255 bins have one.
NO_CODE = 255
_BLOCK_BYTES = 2**26
_THREADS = 256
_SHARES = 64


def code_bytes(n_bins: int) -> int:
    """Bytes of a code."""
    return 1 if n_bins <= 256 else 2


def padded(n_samples: int) -> int:
    """Codes of a column, with those behind the last sample."""
    return -(-n_samples // ALIGNED) * ALIGNED


def work_dtype(rows: DeviceRows) -> torch.dtype:
    """float32 where it holds every value of an input, float64 elsewhere."""
    exact = rows.dtype in (torch.float16, torch.bfloat16, torch.float32)
    return torch.float32 if exact else torch.float64


def row_bytes(rows: DeviceRows) -> int:
    """Bytes of the device that a row takes while it is looked at or coded, with temporaries."""
    return rows.block_bytes(1) + rows.n_features * (2 * work_dtype(rows).itemsize + 2)


def block_rows(rows: DeviceRows, room: int) -> int:
    """Rows of a block: one at least, however little room there is."""
    row = row_bytes(rows)
    return max(1, min(rows.n_samples, min(room, max(_BLOCK_BYTES, row)) // row))


def sort_bytes(rows: DeviceRows) -> int:
    """Bytes that sorting a column takes: values, sorted ones and their places, and torch's own for many."""
    return rows.n_samples * (4 * work_dtype(rows).itemsize + 32)


class _Columns:
    """Some columns of an array of the host, read with each block of rows."""

    def __init__(self, data: Any, columns: Any) -> None:
        self._data, self._columns = data, columns
        self.dtype = data.dtype
        width = columns.stop - columns.start if isinstance(columns, slice) else len(columns)
        self.shape = (data.shape[0], width)

    def __getitem__(self, rows: slice) -> Any:
        return self._data[rows, self._columns]


def some_columns(rows: DeviceRows, columns: Any, backend: Backend) -> DeviceRows:
    """Some columns of an input (a slice, or their numbers), on a device."""
    if rows.resident:
        if not isinstance(columns, slice):
            columns = torch.from_numpy(columns).to(rows.data.device)
        return replace(rows, data=rows.data[:, columns].to(backend.device), backend=backend)
    return replace(rows, data=_Columns(rows.data, columns), backend=backend)


def check_rows_finite(rows: DeviceRows, size: int) -> None:
    """Look at every value once."""
    for _ in rows.blocks(size):
        pass


def _uniform(rows: DeviceRows, n_bins: int, zero: bool, size: int) -> Bins:
    device = rows.backend.device
    dtype = work_dtype(rows)
    low = torch.full((rows.n_features,), torch.inf, dtype=dtype, device=device)
    high = -low
    for _, block in rows.blocks(size):
        values = block.to(dtype)
        if zero:
            is_zero = values == 0
            low = torch.minimum(low, values.masked_fill(is_zero, torch.inf).amin(0))
            high = torch.maximum(high, values.masked_fill(is_zero, -torch.inf).amax(0))
        else:
            low = torch.minimum(low, values.amin(0))
            high = torch.maximum(high, values.amax(0))
    least, most = (side.to(torch.float64).cpu().numpy() for side in (low, high))
    return even_bins(rows.name, least, most, n_bins, zero=zero)


def _sorted_edges(values: torch.Tensor, n_bins: int, zero: bool) -> Float64:
    """Quantile edges of the columns that are the rows of ``values``."""
    d, n = values.shape
    ordered = torch.sort(values, dim=1).values
    edges = np.zeros((d, n_bins + 1))
    below_zero = up_to_zero = np.zeros(d, dtype=np.int64)
    if zero:
        below_zero = (ordered < 0).sum(1).cpu().numpy()
        up_to_zero = (ordered <= 0).sum(1).cpu().numpy()
    counts = n - (up_to_zero - below_zero)
    places = [quantile_places(max(1, int(count)), n_bins - zero) for count in counts]

    def values_at(at: Index) -> Float64:
        """Values in order, those that are left out being passed over; from n on there are none."""
        moved = np.where(at >= below_zero[:, None], at + (up_to_zero - below_zero)[:, None], at)
        where = torch.from_numpy(np.minimum(moved, n - 1)).to(values.device)
        taken: Float64 = torch.gather(ordered, 1, where).to(torch.float64).cpu().numpy()
        return taken

    left = values_at(np.stack([below for below, _, _ in places]))
    right = values_at(np.stack([above for _, above, _ in places]))
    for j in np.flatnonzero(counts):
        edges[j, int(zero) :] = quantile_line(left[j], right[j], places[j][2])
    return edges


def _quantile(rows: DeviceRows, n_bins: int, zero: bool, size: int, columns: int) -> Bins:
    n, d = rows.n_samples, rows.n_features
    edges = np.empty((d, n_bins + 1))
    groups = row_blocks(d, columns)
    if len(groups) > 1:
        # Once for all, so that the column that is named is the input's.
        check_rows_finite(rows, size)
    for first, stop in groups:
        part = rows if len(groups) == 1 else some_columns(rows, slice(first, stop), rows.backend)
        values = torch.empty((stop - first, n), dtype=work_dtype(rows), device=rows.backend.device)
        for start, block in part.blocks(size):
            values[:, start : start + len(block)] = block.T
        edges[first:stop] = _sorted_edges(values, n_bins, zero)
        check_span(rows.name, edges[first:stop, int(zero)], edges[first:stop, -1], first)
        # Let them go before the next ones are read.
        del values
    return Bins(edges, np.zeros(d), zero)


def bins_on_device(
    rows: DeviceRows, n_bins: int, strategy: str, *, zero: bool, size: int, sort_columns: int
) -> Bins:
    """Bins of every column, by one of the two strategies; ``size`` rows or ``sort_columns`` at a time."""
    if strategy == "uniform":
        return _uniform(rows, n_bins, zero, size)
    return _quantile(rows, n_bins, zero, size, sort_columns)


def inner_edges(bins: Bins, dtype: torch.dtype) -> torch.Tensor:
    """Edges between the bins, such that values of ``dtype`` compare with them as with those of float64.

    A float32 is at least an edge where it is at least the smallest float32 that is.
    """
    inner = np.ascontiguousarray(bins.edges[:, int(bins.zero) + 1 : bins.n_bins])
    if dtype == torch.float64:
        return torch.from_numpy(inner)
    with np.errstate(over="ignore"):
        rounded = inner.astype(np.float32)
    up = np.where(rounded < inner, np.nextafter(rounded, np.float32(np.inf)), rounded)
    return torch.from_numpy(np.ascontiguousarray(up, dtype=np.float32))


@dataclass(frozen=True)
class DeviceCodes:
    """Codes of columns on a device.

    Attributes
    ----------
    data : (d, padded) uint8 or int16
    counts : (d, n_bins) int32
        How many samples each bin of each column has.
    n_samples : int
    """

    data: torch.Tensor
    counts: torch.Tensor
    n_samples: int

    @property
    def n_bins(self) -> int:
        return int(self.counts.shape[1])

    @property
    def words(self) -> torch.Tensor:
        """Eight codes a word, (d, words) uint64; of single-byte codes only."""
        return self.data.view(torch.uint64)

    def to(self, backend: Backend) -> DeviceCodes:
        """A copy on another device."""
        return replace(self, data=self.data.to(backend.device), counts=self.counts.to(backend.device))

    def take(self, columns: Index, order: torch.Tensor | None = None) -> DeviceCodes:
        """Codes of some columns, the samples in an order of their own where there is one."""
        chosen = torch.from_numpy(columns).to(self.data.device)
        data = self.data.index_select(0, chosen)
        return DeviceCodes(
            data if order is None else data.index_select(1, order),
            self.counts.index_select(0, chosen),
            self.n_samples,
        )


def counted(backend: Backend, data: torch.Tensor, n_samples: int, n_bins: int) -> DeviceCodes:
    """Codes with their counts."""
    counts = torch.zeros((len(data), n_bins), dtype=torch.int32, device=backend.device)
    share = max(1, -(-n_samples // _SHARES), _THREADS)
    blocks = len(data), -(-n_samples // share)
    backend.launch(count_codes, blocks, _THREADS, data, n_samples, share, counts)
    return DeviceCodes(data, counts, n_samples)


def encode_on_device(rows: DeviceRows, bins: Bins, size: int) -> DeviceCodes:
    """Codes of all columns of an input."""
    backend, n, d = rows.backend, rows.n_samples, rows.n_features
    dtype = work_dtype(rows)
    inner = inner_edges(bins, dtype).to(backend.device)
    if code_bytes(bins.n_bins) == 1:
        data = torch.full((d, padded(n)), NO_CODE, dtype=torch.uint8, device=backend.device)
    else:
        data = torch.zeros((d, padded(n)), dtype=torch.int16, device=backend.device)
    for start, block in rows.blocks(size):
        values = block.to(dtype).contiguous()
        blocks = -(-len(block) // TILE_ROWS), -(-d // TILE_COLUMNS)
        backend.launch(digitize_block, blocks, _THREADS, values, inner, bins.zero, data, start)
    return counted(backend, data, n, bins.n_bins)
