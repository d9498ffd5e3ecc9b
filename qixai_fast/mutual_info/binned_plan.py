"""How binned mutual information fits a budget: rows, threads, tiles of pairs, codes held or in a file."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from .._memory import require_budget
from .._validate import Matrix
from ..bins import block_dtype, code_dtype
from ..code_files import written_rows
from ..joint_histograms import counting_bytes, uses_planes
from .bias import TERM_TABLE_BYTES

# Bytes of a block of rows: it stays in L2 from its reading to its coding.
_BLOCK_BYTES = 2**20
_LEAST_ROWS = 64
_MOST_ROWS = 32768
_SORT_BYTES = 256 * 2**20
# Tables of a tile that are incremented stay in L2.
_TABLE_BYTES = 2**20
# Pairs of a tile whose columns' planes are made, and columns of each side: they are made anew for each tile,
# and those of all its columns stay in L3.
_TILE_PAIRS = 512
_MOST_COLUMNS = 128
# Samples of a column that are read from a file of codes at a time.
_STRETCH = 2**18
_LEAST_STRETCH = 4096
# Bytes of codes that are collected before they are written.
_WRITE_BYTES = 64 * 2**20
# The table of entropy terms, threads, and small objects.
_OVERHEAD = TERM_TABLE_BYTES + 2**18
# Edges, their temporaries and steps: bytes an edge.
_EDGE_BYTES = 40
# Column numbers, sums, occupied cells and values of a pair while it is summarised.
_PAIR_BYTES = 500
# Ranges of a column while blocks are looked at.
_RANGE_BYTES = 64


def tables_per_group(n_samples: int, cells: int) -> int:
    """Pairs counted by one call: tables stay in L2, and short columns still give a thread enough to do."""
    return max(1, min(_TABLE_BYTES // (4 * cells), max(16, 2**21 // n_samples)))


@dataclass(frozen=True)
class Plan:
    """How the work fits a budget.

    Attributes
    ----------
    n_jobs : int
        Threads.
    rows : int
        Rows read at a time by each.
    sort_columns : int
        Columns sorted at a time (quantile).
    tile : (int, int)
        Columns of each side whose pairs are counted together.
    cached : bool
        Whether all codes are held in memory; otherwise they go into a file.
    together : int
        Rows whose codes are written together into the file.
    stretch : int
        Samples read from the file at a time.
    fixed : int
        Bytes held besides codes, blocks and tables.
    """

    n_jobs: int
    rows: int
    sort_columns: int
    tile: tuple[int, int]
    cached: bool
    together: int
    stretch: int
    fixed: int


@dataclass(frozen=True)
class _Costs:
    """Bytes that parts of the work take."""

    n_samples: int
    n_bins: int
    width: int
    block_row: int
    code: int

    def tile(self, rows: int, columns: int, stretch: int | None) -> int:
        """Counting a tile of pairs; ``stretch`` samples of each column are read into memory first, if any."""
        samples = self.n_samples if stretch is None else stretch
        column = counting_bytes(samples, self.n_bins, self.n_bins) + (stretch or 0) * self.code
        # The tables of one stretch are added to those of the ones before.
        tables = 4 * self.n_bins**2 * (1 if stretch is None or stretch >= self.n_samples else 2)
        return (rows + columns) * column + rows * columns * (tables + _PAIR_BYTES)

    def reading(self, rows: int) -> int:
        """A block of rows, and what is found in it."""
        return rows * self.block_row + _RANGE_BYTES * self.width


def _first_tile(
    n_samples: int, n_bins: int, n_x: int, n_y: int, n_pairs: int, n_jobs: int
) -> tuple[int, int]:
    """Tile where memory does not matter: planes of all its columns in L2 and L3, or its tables in L2."""
    if uses_planes(n_samples, n_bins, n_bins):
        # As many columns as bring enough pairs, where few of all are wanted.
        side = min(_MOST_COLUMNS, isqrt(_TILE_PAIRS * n_x * n_y // n_pairs))
        if n_jobs > 1:
            # Enough tiles for all threads to end together.
            side = min(side, isqrt(n_x * n_y // (4 * n_jobs)))
        side = max(8, side)
    else:
        side = max(1, isqrt(tables_per_group(n_samples, n_bins * n_bins)))
    columns = min(n_y, side)
    rows = min(n_x, 4 * side, max(1, side * side // columns))
    return rows, min(n_y, 4 * side, max(1, side * side // rows))


def _fit_tile(
    costs: _Costs, tile: tuple[int, int], stretch: int | None, room: int | None
) -> tuple[tuple[int, int], int | None]:
    """The largest tile, and stretch, that fit ``room``, by halving; the smallest where nothing does."""
    rows, columns = tile
    while room is not None and costs.tile(rows, columns, stretch) > room:
        if stretch is not None and stretch > 4 * _LEAST_STRETCH:
            stretch //= 2
        elif rows * columns > 1:
            rows, columns = (rows // 2, columns) if rows >= columns else (rows, columns // 2)
        elif stretch is not None and stretch > _LEAST_STRETCH:
            stretch = _LEAST_STRETCH
        else:
            break
    return (rows, columns), stretch


def plan_work(
    matrices: list[Matrix],
    n_pairs: int,
    *,
    n_bins: int,
    strategy: str,
    n_jobs: int,
    budget: int | None,
    extra: int = 0,
    must_cache: bool = False,
) -> Plan:
    """Choose rows, threads and tiles; raise MemoryBudgetError where nothing fits.

    ``extra`` are bytes that the caller needs besides. ``must_cache`` refuses a file of codes.
    """
    n = matrices[0].n_samples
    width = sum(matrix.n_features for matrix in matrices)
    itemsize = max(block_dtype(matrix).itemsize for matrix in matrices)
    costs = _Costs(n, n_bins, width, width * itemsize, code_dtype(n_bins).itemsize)
    most_rows = min(n, _MOST_ROWS, max(_LEAST_ROWS, _BLOCK_BYTES // costs.block_row))
    least_rows = min(n, _LEAST_ROWS)
    fixed = _OVERHEAD + extra + _EDGE_BYTES * width * (n_bins + 1)
    codes = width * n * costs.code
    sort_column = n * itemsize if strategy == "quantile" else 0
    least_stretch = min(n, _LEAST_STRETCH)

    sort_least = sort_column + costs.reading(least_rows)
    cache_least = fixed + max(codes + max(costs.reading(least_rows), costs.tile(1, 1, None)), sort_least)
    write_least = costs.reading(least_rows) + least_rows * width * costs.code
    file_least = fixed + max(write_least, costs.tile(1, 1, least_stretch), sort_least)
    required = cache_least if must_cache else min(cache_least, file_least)
    require_budget(budget, required, "binned mutual information")
    cached = budget is None or budget >= cache_least

    def most(cost: int, available: int | None, wanted: int) -> int:
        return wanted if available is None else max(1, min(wanted, available // max(cost, 1)))

    # What is left for bins, and for codes and pairs.
    free = None if budget is None else budget - fixed
    spare = free if free is None or not cached else free - codes
    least = max(costs.reading(least_rows), costs.tile(1, 1, None if cached else least_stretch))
    jobs = most(least, spare if cached or spare is None else spare - least_rows * width * costs.code, n_jobs)
    share = None if spare is None else spare // jobs
    block_row = costs.block_row if cached else 2 * costs.block_row
    rows = most(block_row, None if share is None else share - _RANGE_BYTES * width, most_rows)
    sort_columns = 1
    if sort_column:
        room = None if free is None else free - costs.reading(rows)
        if room is not None and room < sort_column:
            rows, room = least_rows, sort_column
        sort_columns = most(sort_column, room, max(1, min(width, _SORT_BYTES // sort_column)))
    together = n
    if not cached:
        assert spare is not None
        room = min(_WRITE_BYTES, spare - jobs * costs.reading(rows))
        together = written_rows(width, costs.code, n, room)
    sides = matrices[0].n_features, matrices[-1].n_features
    tile = _first_tile(n, n_bins, min(sides[0], n_pairs), min(sides[1], n_pairs), n_pairs, jobs)
    tile, stretch = _fit_tile(costs, tile, None if cached else min(n, _STRETCH), share)
    return Plan(jobs, rows, sort_columns, tile, cached, together, stretch or n, fixed)
