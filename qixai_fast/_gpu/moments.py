"""First and second moments of matrices on a device: leaves of shifted rows, multiplied by cuBLAS in float64.

Leaves have a number of rows that follows from the width alone, and combine in the one tree of all moments.
A leaf's products are summed in parts of 2,048 rows: one batch of products, so that 1,024 columns, whose
products are too small a matrix for all of a large device, keep it busy; and shorter sums are rounded less.
Of a matrix with itself, strips of columns meet only those from their own on: 5/8 of all products where
there are 1,024 columns or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .._blas import mirror_upper
from .._device import home_of
from .._trees import combine_tree
from .._validate import Float64, Matrix, check_finite
from ..kernels.moments_cuda import CHUNK_ROWS, shift_rows
from .backend import Backend
from .rows import DeviceRows

Pair = tuple[int, int]

# Values of a leaf: 128 MiB in float64.
_LEAF_VALUES = 2**24
_MIN_LEAF_ROWS, _MAX_LEAF_ROWS = 256, 2**18
PART_ROWS = 2048
_LARGE = 2**24
_MIN_STRIP = 256
_STRIPS = 4
_WARP, _THREADS = 32, 128


@dataclass(frozen=True)
class DeviceMatrix(Matrix):
    """A matrix that a device reads; what the host reads of it, a few rows here and there, is copied to it.

    Attributes
    ----------
    rows : DeviceRows
    """

    rows: DeviceRows

    @classmethod
    def of(cls, X: Any, name: str, backend: Backend, *, min_samples: int = 1) -> DeviceMatrix:
        """Check an input.

        Raises
        ------
        TypeError, ValueError
            As :func:`qixai_fast._validate.as_matrix`.
        """
        rows = DeviceRows.of(X, name, backend, min_samples=min_samples)
        return cls(name, rows.data, home_of(X), rows)

    @property
    def backend(self) -> Backend:
        return self.rows.backend

    @property
    def dtype(self) -> np.dtype[Any]:
        """As the host would have it: float32 for bfloat16."""
        if not self.rows.resident:
            return super().dtype
        of = {torch.float16: np.float16, torch.bfloat16: np.float32, torch.float32: np.float32}
        return np.dtype(of.get(self.rows.dtype, np.float64))

    @property
    def on_device(self) -> bool:
        return True

    def columns(self, start: int, stop: int) -> DeviceMatrix:
        rows = DeviceRows(self.name, self.data[:, start:stop], self.backend)
        return DeviceMatrix(self.name, rows.data, self.home, rows)

    def block(self, start: int, stop: int) -> Float64:
        """Rows ``start:stop`` in the host's memory, as of any matrix."""
        if not self.rows.resident:
            return super().block(start, stop)
        block = np.array(self.rows.data[start:stop].to("cpu", torch.float64).numpy(), order="C")
        check_finite(block, self.name, first_row=start)
        return block


def device_leaf_rows(width: int) -> int:
    """Rows in a leaf of ``width`` columns: a power of two.

    Examples
    --------
    >>> device_leaf_rows(1024), device_leaf_rows(3)
    (16384, 262144)
    """
    power = 1 << max(0, (_LEAF_VALUES // width).bit_length() - 1)
    return min(_MAX_LEAF_ROWS, max(_MIN_LEAF_ROWS, power))


def device_bounds(n: int, width: int) -> list[Pair]:
    """First and last-plus-one row of every leaf."""
    rows = device_leaf_rows(width)
    return [(start, min(start + rows, n)) for start in range(0, n, rows)]


def padded(rows: int) -> int:
    """Rows of memory for a leaf: whole parts, where there is more than one."""
    return rows if rows <= PART_ROWS else -(-rows // PART_ROWS) * PART_ROWS


def shift_into(
    backend: Backend, block: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    """Write ``block * scale - shift`` to the first rows and columns of ``out``.

    Returns
    -------
    Tensor of shape (2, d)
        Sums and sums of squares of its columns.
    """
    if block.dtype == torch.bfloat16:
        block = block.float()
    m, d = block.shape
    chunks = -(-m // CHUNK_ROWS)
    sums = torch.empty((chunks, 2, d), dtype=torch.float64, device=block.device)
    threads = min(_THREADS, -(-d // _WARP) * _WARP)
    backend.launch(shift_rows, (-(-d // threads), chunks), threads, block, scale, shift, out, sums)
    return sums.sum(0)


class Shifted:
    """Memory on a device for the rows of a leaf about a shift, in float64.

    Parameters
    ----------
    backend : Backend
    rows : int
        Most rows at a time.
    shift : ndarray of shape (d,)
    scale : ndarray of shape (d,) or float
        Of the rows, before the shift is taken away.
    norm : bool
        Whether a column with the squared norm of each row follows the others.
    """

    def __init__(
        self, backend: Backend, rows: int, shift: Float64, scale: Float64 | float = 1.0, *, norm: bool = False
    ) -> None:
        self._backend, self._d, self._norm = backend, len(shift), norm
        scales: Float64 = np.broadcast_to(np.asarray(scale, np.float64), shift.shape).copy()
        self._shift = torch.from_numpy(np.array(shift, np.float64)).to(backend.device)
        self._scale = torch.from_numpy(scales).to(backend.device)
        self._memory = torch.empty((padded(rows), self._d + norm), dtype=torch.float64, device=backend.device)

    def take(self, block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A block of rows about the shift, with zeros to fill its last part, and its sums.

        Returns
        -------
        rows : Tensor of shape (padded(m), d) or (padded(m), d + 1)
            Overwritten by the next call.
        sums : Tensor of shape (2, d) or (2, d + 1)
            Sums and sums of squares of the columns.
        """
        m, d = block.shape
        out = self._memory[: padded(m)]
        out[m:] = 0.0
        total = shift_into(self._backend, block, self._scale, self._shift, out)
        if self._norm:
            norms = torch.linalg.vector_norm(out[:, :d], dim=1).square_()
            out[:, d] = norms
            more = torch.stack([norms.sum(), torch.dot(norms, norms)])
            total = torch.cat([total, more[:, None]], dim=1)
        return out, total


def shifted_bytes(matrix: DeviceMatrix, rows: int, *, norm: bool = False) -> int:
    """Bytes of a device that blocks of a matrix and a :class:`Shifted` of them take."""
    d = matrix.n_features
    rows = min(rows, matrix.n_samples)
    widened = 4 * rows * d if matrix.rows.resident and matrix.rows.dtype == torch.bfloat16 else 0
    chunks: int = -(-rows // CHUNK_ROWS)
    return matrix.rows.block_bytes(rows) + widened + 8 * (d + 1) * (padded(rows) + 2 * chunks + 12)


def _parts(rows: int, values: int) -> tuple[int, int]:
    """Parts of padded rows, and rows of each, for so many products; large matrices need no batch."""
    return (1, rows) if rows <= PART_ROWS or values > _LARGE else (rows // PART_ROWS, PART_ROWS)


def products_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """``first.T @ second`` of padded rows; of a matrix with itself, on and above the diagonal at least."""
    shape = _parts(len(first), first.shape[1] * second.shape[1])
    left, right = (rows.unfold(0, shape[1], shape[1]).movedim(2, 1) for rows in (first, second))
    width = left.shape[2]
    products = torch.zeros((shape[0], width, right.shape[2]), dtype=torch.float64, device=first.device)
    same = first is second
    step = max(_MIN_STRIP, -(-width // _STRIPS)) if same else width
    for j in range(0, width, step):
        after = j if same else 0
        torch.bmm(
            left[:, :, j : j + step].transpose(1, 2),
            right[:, :, after:],
            out=products[:, j : j + step, after:],
        )
    return products.sum(0)


def products_bytes(rows: int, first: int, second: int) -> int:
    """Bytes of a device that :func:`products_of` takes, the result with it."""
    return 8 * (_parts(padded(rows), first * second)[0] + 1) * first * second


@dataclass
class DeviceSums:
    """Sums of all rows of some matrices, and products of pairs of them, on the device or the host.

    Attributes
    ----------
    sums : list of array of shape (2, d_i)
        Sums and sums of squares of each column.
    products : dict of pair of int to array of shape (d_i, d_j)
    """

    sums: list[Any]
    products: dict[Pair, Any]

    def add(self, other: DeviceSums) -> DeviceSums:
        """Add another's to the memory of this."""
        for mine, more in zip(self.sums, other.sums, strict=True):
            mine += more
        for pair, more in other.products.items():
            self.products[pair] += more
        return self

    def to_host(self) -> DeviceSums:
        """The same as NumPy arrays; products of a matrix with itself are made symmetric."""
        products = {pair: tensor.cpu().numpy() for pair, tensor in self.products.items()}
        for (i, j), square in products.items():
            if i == j:
                mirror_upper(square)
        return DeviceSums([tensor.cpu().numpy() for tensor in self.sums], products)


def sums_bytes(matrices: Sequence[DeviceMatrix], pairs: Sequence[Pair], *, norm: bool = False) -> int:
    """Bytes of a device that :func:`device_sums` takes."""
    n = matrices[0].n_samples
    widths = [matrix.n_features + norm for matrix in matrices]
    bounds = device_bounds(n, sum(widths))
    rows = bounds[0][1]
    own = sum(shifted_bytes(matrix, rows, norm=norm) for matrix in matrices)
    work = max(products_bytes(rows, widths[i], widths[j]) for i, j in pairs)
    partial = 8 * sum(widths[i] * widths[j] for i, j in pairs) + 16 * sum(widths)
    return own + work + (len(bounds).bit_length() + 1) * partial + 2**16


def device_sums(
    matrices: Sequence[DeviceMatrix],
    shifts: Sequence[Float64],
    scales: Sequence[Float64 | float],
    pairs: Sequence[Pair],
    *,
    norm: bool = False,
) -> DeviceSums:
    """Sums about shifts, and products of pairs of matrices, in one read of each; arrays of the host.

    Parameters
    ----------
    matrices : sequence of DeviceMatrix
        The same samples in each, on one device.
    shifts, scales : sequence
        Of each matrix, as :class:`Shifted` takes them.
    pairs : sequence of pair of int
        Which matrices' columns to multiply.
    norm : bool
        As in :class:`Shifted`.

    Raises
    ------
    ValueError
        For values that are not finite.
    """
    backend = matrices[0].backend
    n = matrices[0].n_samples
    leaf = device_leaf_rows(sum(matrix.n_features + norm for matrix in matrices))
    rows = min(leaf, n)
    memory = [
        Shifted(backend, rows, shift, scale, norm=norm) for shift, scale in zip(shifts, scales, strict=True)
    ]

    def partials() -> Iterator[DeviceSums]:
        blocks = zip(*(matrix.rows.blocks(leaf) for matrix in matrices), strict=True)
        for taken in blocks:
            shifted = [own.take(block) for own, (_, block) in zip(memory, taken, strict=True)]
            products = {(i, j): products_of(shifted[i][0], shifted[j][0]) for i, j in pairs}
            yield DeviceSums([sums for _, sums in shifted], products)

    return combine_tree(partials(), DeviceSums.add).to_host()
