"""Cosine similarity of samples or feature maps: the full matrix, or the best k of each.

Linear CKA, which compares whole layers, is in :mod:`qixai_fast.alignment`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ._dask_arrays import dask_inputs
from ._device import backends_for
from ._map_cosine import cosine_of_maps
from ._memory import parse_memory
from ._open import opened
from ._products import RowProducts
from ._threads import resolve_n_jobs
from ._unit_rows import unit_rows
from ._validate import Array, Matrix, check_choice, check_int, check_same_samples
from .kernels.cosine_cpu import clip_block, update_top_k

if TYPE_CHECKING:
    from ._gpu.moments import DeviceMatrix

Mask = npt.NDArray[np.bool_]

# Products of the same two unit vectors differ by up to about 5 units of rounding (measured, for 16 to
# 50,000 features) with their place in a tile.
_TIE_ROUNDINGS = 8

_KINDS = {1: "row", 0: "column"}


@dask_inputs("X", "Y", access=lambda given, shape: "stream" if given["axis"] == 0 else "rows")
def cosine_similarity(
    X: Any,
    Y: Any = None,
    *,
    axis: int = 1,
    center: bool = False,
    out: Array | None = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> Any:
    r"""Cosine of the angle between samples, or between feature maps.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        NumPy array, memmap, store layer or torch tensor; read block by block.
    Y : array-like, optional
        Compared with ``X``: the same features where ``axis=1``, the same samples where ``axis=0``.
        None compares ``X`` with itself.
    axis : {1, 0}
        What the vectors are. 1: rows (samples), as scikit-learn does. 0: columns (feature maps).
    center : bool
        Take the mean of each vector being compared away from it first, so that the result is
        Pearson's correlation: a row's own mean over its features where ``axis=1``, a column's
        mean over the samples where ``axis=0``. Feature maps after a ReLU are never negative, so
        that even independent ones have a cosine well above 0 (about 0.3); centred they have 0.
    out : ndarray, optional
        Float array or memmap of the result's shape to write to, of any float dtype.
    n_jobs : int, optional
        Threads; None for all cores. The result has the same bits for any number.
    device : None, "cpu", "cuda" or "cuda:1"
        None: the GPU that ``X`` or ``Y`` lives on, else the CPU. What does not live on the GPU is streamed
        through it.
    max_memory : int or str, optional
        Budget for this call's own allocations; the result does not count. On a GPU, of its memory.

    Returns
    -------
    ndarray or tensor of shape (n_x, n_y)
        Values in [-1, 1]; a vector with itself gives exactly 1 where ``Y`` is None. float32 where
        the input is float16, bfloat16 or float32, else float64. ``out`` itself where it was given.

    Raises
    ------
    ValueError
        For shapes that do not fit, and NaN or infinite values (first row and column named).
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small.

    Warns
    -----
    UserWarning
        Once, where vectors are zero (or constant, where centred): their cosine is set to 0.

    Notes
    -----
    :math:`\cos(x, y) = \sum_i x_i y_i / (\lVert x \rVert \lVert y \rVert)`. Norms and means are
    float64. Products of rows are in the result's dtype; products of columns, which run over all
    samples, are float64 and about a shift, and take memory for several tables of their size.
    A GPU gives the same to rounding.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> X = np.array([[3.0, 4.0], [4.0, 3.0], [-3.0, -4.0]])
    >>> qf.cosine_similarity(X).round(2)
    array([[ 1.  ,  0.96, -1.  ],
           [ 0.96,  1.  , -0.96],
           [-1.  , -0.96,  1.  ]])
    >>> qf.cosine_similarity(X, axis=0).shape
    (2, 2)
    """
    pair = _Pair.of(X, Y, axis, center, backends_for(device, X, Y))
    if out is not None:
        _check_out(out, pair)
    if axis == 1 and pair.X.on_device:
        from ._gpu.cosine import similarity_matrix

        resolve_n_jobs(n_jobs)
        sides = cast("tuple[DeviceMatrix, DeviceMatrix]", (pair.X, pair.Y))
        result, zero_x, zero_y = similarity_matrix(
            sides, center=pair.center, dtype=pair.dtype, out=out, budget=parse_memory(max_memory)
        )
        pair.warn_of_zeros(zero_x, zero_y)
        return pair.X.home.bring(result) if out is None else out
    result = np.empty(pair.shape, dtype=pair.dtype) if out is None else out

    # Tiles of rows are computed where they belong, if BLAS can write there.
    in_place = axis == 1 and result.dtype == pair.dtype and result.flags.carray
    target = np.asarray(result) if in_place else None

    def keep(first_x: int, first_y: int, tile: Array) -> None:
        rows = slice(first_x, first_x + tile.shape[0])
        columns = slice(first_y, first_y + tile.shape[1])
        if target is not None:
            clip_block(target, rows.start, rows.stop, columns.start, columns.stop)
        else:
            clip_block(tile, 0, tile.shape[0], 0, tile.shape[1])
            result[rows, columns] = tile
        if pair.same and first_x != first_y:
            result[columns, rows] = tile.T

    zero_x, zero_y = pair.tiles(
        keep, symmetric=pair.same, target=target, n_jobs=n_jobs, max_memory=max_memory
    )
    if pair.same:
        np.fill_diagonal(result, np.where(zero_x, 0, 1))
    pair.warn_of_zeros(zero_x, zero_y)
    return pair.X.home.bring(result) if out is None else out


@dask_inputs("X", "Y", access=lambda given, shape: "stream" if given["axis"] == 0 else "rows")
def cosine_top_k(
    X: Any,
    Y: Any = None,
    *,
    k: int,
    axis: int = 1,
    center: bool = False,
    n_jobs: int | None = None,
    device: Any = None,
    devices: Sequence[Any] | None = None,
    max_memory: int | float | str | None = None,
) -> tuple[Any, Any]:
    """For each vector of ``X``, the ``k`` vectors of ``Y`` with the largest cosine.

    The full matrix of similarities is never held: each tile of it goes into the best ``k`` so far.

    Parameters
    ----------
    X, Y, axis, center, n_jobs, device, max_memory
        As in :func:`cosine_similarity`. Where ``Y`` is None, ``X`` is compared with itself, and a
        vector is never among its own neighbours (its duplicates are).
    k : int
        Neighbours of each vector; at most the number of candidates.
    devices : sequence of devices, optional
        Several GPUs in place of ``device``, such as ``["cuda:0", "cuda:1"]``: each takes a part of the rows
        of ``X`` where ``axis=1``.

    Returns
    -------
    similarities : ndarray or tensor of shape (n_x, k)
        Largest first; dtypes as in :func:`cosine_similarity`.
    indices : ndarray or tensor of shape (n_x, k), int64
        Where in ``Y`` (or ``X``). Of equal similarities the lowest index comes first; those within 8
        units of rounding of the dtype (1e-6 for float32) count as equal, as duplicates must.

    Raises
    ------
    ValueError
        As :func:`cosine_similarity`, and for ``k`` larger than the number of candidates.
    TypeError, MemoryBudgetError
        As :func:`cosine_similarity`.

    Warns
    -----
    UserWarning
        Once, where vectors are zero (or constant, where centred): their cosine is set to 0.

    Notes
    -----
    Among many candidates a GPU looks in float16 first. Those that a bound of its errors leaves as possible
    get exact scores, which decide as on the CPU.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> X = np.array([[3.0, 4.0], [4.0, 3.0], [-3.0, -4.0]])
    >>> similarities, indices = qf.cosine_top_k(X, k=1)
    >>> similarities.ravel().round(2), indices.ravel()
    (array([ 0.96,  0.96, -0.96]), array([1, 0, 1]))
    """
    backends = backends_for(device, X, Y, devices=devices)
    pair = _Pair.of(X, Y, axis, center, backends)
    n_x, n_y = pair.shape
    candidates = n_y - 1 if pair.same else n_y
    if candidates == 0:
        raise ValueError(f"X: wanted at least two {_KINDS[axis]}s to compare, got one; or give Y")
    k = check_int(k, "k", low=1, high=candidates, why=f"{candidates} candidates")
    tolerance = _TIE_ROUNDINGS * np.finfo(pair.dtype).eps
    if axis == 1 and backends is not None:
        from ._gpu.cosine import top_k

        resolve_n_jobs(n_jobs)
        pairs = [pair, *(_Pair.of(X, Y, axis, center, [other]) for other in backends[1:])]
        sides = [cast("tuple[DeviceMatrix, DeviceMatrix]", (one.X, one.Y)) for one in pairs]
        best, places, zero_x, zero_y = top_k(
            sides,
            k,
            center=pair.center,
            dtype=pair.dtype,
            tolerance=tolerance,
            budget=parse_memory(max_memory),
        )
        pair.warn_of_zeros(zero_x, zero_y)
        return pair.X.home.bring(best), pair.X.home.bring(places)
    values = np.full((n_x, k), -np.inf, dtype=pair.dtype)
    indices = np.full((n_x, k), -1, dtype=np.int64)

    def merge(first_x: int, first_y: int, tile: Array) -> None:
        rows = slice(first_x, first_x + tile.shape[0])
        scores = tile.astype(pair.dtype, copy=False)
        update_top_k(scores, first_x, first_y, pair.same, tolerance, values[rows], indices[rows])

    zero_x, zero_y = pair.tiles(merge, symmetric=False, target=None, n_jobs=n_jobs, max_memory=max_memory)
    np.minimum.accumulate(values, axis=1, out=values)
    np.clip(values, -1.0, 1.0, out=values)
    pair.warn_of_zeros(zero_x, zero_y)
    return pair.X.home.bring(values), pair.X.home.bring(indices)


@dataclass(frozen=True)
class _Pair:
    """Two checked inputs whose rows (``axis=1``) or columns (``axis=0``) are compared."""

    X: Matrix
    Y: Matrix
    axis: int
    center: bool

    @classmethod
    def of(cls, X: Any, Y: Any, axis: int, center: bool, backends: list[Any] | None) -> _Pair:
        """Check the arguments that both public functions share."""
        check_choice(axis, "axis", (0, 1))
        check_choice(center, "center", (False, True))
        first = opened(X, "X", backends)
        second = first if Y is None else opened(Y, "Y", backends)
        if axis == 0:
            check_same_samples(first, second)
        elif first.n_features != second.n_features:
            raise ValueError(
                "X and Y: wanted the same number of features to compare rows, "
                f"got {first.n_features} and {second.n_features}"
            )
        return cls(first, second, int(axis), bool(center))

    @property
    def same(self) -> bool:
        """Whether an input is compared with itself."""
        return self.X is self.Y

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.X.data.shape[1 - self.axis]), int(self.Y.data.shape[1 - self.axis])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 for float16 and float32 input, float64 for all else."""
        narrow = all(matrix.dtype.kind == "f" and matrix.dtype.itemsize <= 4 for matrix in (self.X, self.Y))
        return np.dtype(np.float32 if narrow else np.float64)

    def tiles(
        self,
        consume: Callable[[int, int, Array], None],
        *,
        symmetric: bool,
        target: Array | None,
        n_jobs: int | None,
        max_memory: int | float | str | None,
    ) -> tuple[Mask, Mask]:
        """Hand every tile of similarities to a consumer; say which vectors have no direction.

        Rounding may leave similarities slightly beyond [-1, 1]. Those of rows are computed in ``target``
        where it is given: a C-contiguous array of the result's shape and of ``dtype``.
        """
        budget, threads = parse_memory(max_memory), resolve_n_jobs(n_jobs)
        if self.axis == 0:
            return cosine_of_maps(
                self.X,
                self.Y,
                consume,
                center=self.center,
                symmetric=symmetric,
                n_jobs=threads,
                budget=budget,
            )
        first = unit_rows(self.X, center=self.center)
        second = first if self.same else unit_rows(self.Y, center=self.center)
        products = RowProducts(first, second, self.dtype, symmetric=symmetric, in_place=target is not None)
        fixed = self.X.n_samples + self.Y.n_samples + 2**16
        workers, panel_tiles = products.within(budget, threads, fixed=fixed, work="cosine between samples")
        products.run(consume, n_jobs=workers, tiles=panel_tiles, target=target)
        return first.is_zero, second.is_zero

    def warn_of_zeros(self, zero_x: Mask, zero_y: Mask) -> None:
        """Warn the caller of a public function, once, of vectors that have no direction."""
        kind = ("constant " if self.center else "zero ") + _KINDS[self.axis]
        sides = [(self.X, zero_x)] if self.same else [(self.X, zero_x), (self.Y, zero_y)]
        found = [
            f"{matrix.name} has {np.count_nonzero(mask)} {kind}(s), the first at {int(np.argmax(mask))}"
            for matrix, mask in sides
            if mask.any()
        ]
        if found:
            warnings.warn(f"{'; '.join(found)}: their cosine is set to 0", UserWarning, stacklevel=4)


def _check_out(out: Any, pair: _Pair) -> None:
    """Raise unless ``out`` can take the result."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: wanted a NumPy array or memmap, got {type(out).__name__}")
    if out.dtype.kind != "f":
        raise TypeError(f"out: wanted a float dtype, got {out.dtype}")
    if out.shape != pair.shape:
        raise ValueError(f"out: wanted shape {pair.shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: is read-only; open the memmap with mode='r+' or 'w+'")
    for matrix in (pair.X, pair.Y):
        if isinstance(matrix.data, np.ndarray) and np.may_share_memory(out, matrix.data):
            raise ValueError(f"out: shares memory with {matrix.name}; give an array of its own")
