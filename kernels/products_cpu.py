"""Matrix products in tiles that stay in registers: of all pairs of columns, and of rows with weights."""

import numpy as np

from ._jit import jit
from ._tiles import TILE_ROWS, add_tile, offset, row_tile_1, row_tile_2, row_tile_3
from ._windows import hold, pointer


@jit
def pack(rows, panels):
    """Copy rows to panels: ``panels[p, i, j]`` is ``rows[i, p * width + j]``, zero beyond the last column.

    Parameters
    ----------
    rows : (m, d) float32 or float64, C order
    panels : (ceil(d / width), at least m, width), the same dtype, C order
    """
    m, d = rows.shape
    width = panels.shape[2]
    for p in range(panels.shape[0]):
        first = p * width
        if first + width <= d:
            for i in range(m):
                for j in range(width):
                    panels[p, i, j] = rows[i, first + j]
        else:
            for i in range(m):
                for j in range(d - first):
                    panels[p, i, j] = rows[i, first + j]
                for j in range(d - first, width):
                    panels[p, i, j] = 0


@jit
def add_panels(panels, depth, products):
    """Add the products of all pairs of columns to a (d, d) float64 array, on and above the diagonal.

    Some elements below the diagonal are added to as well.

    Parameters
    ----------
    panels : (ceil(d / width), at least depth, width) float32 or float64, C order
        As :func:`pack` leaves them; ``width`` is 128 bytes.
    depth : int
        Rows; one at least.
    products : (d, d) float64, C order
    """
    d = products.shape[0]
    n_panels, rows, width = panels.shape
    data, out = pointer(panels), pointer(products)
    edge = np.empty((TILE_ROWS, width))
    at_edge = pointer(edge)
    size = rows * width
    for p in range(n_panels):
        right = offset(data, p * size)
        column = p * width
        for row in range(0, min(column + width, d), TILE_ROWS):
            left = offset(data, row // width * size + row % width)
            if row + TILE_ROWS <= d and column + width <= d:
                add_tile(left, right, depth, offset(out, row * d + column), d)
                continue
            edge[:] = 0
            add_tile(left, right, depth, at_edge, width)
            for i in range(min(TILE_ROWS, d - row)):
                for j in range(min(width, d - column)):
                    products[row + i, column + j] += edge[i, j]
    hold(edge)


@jit
def map_rows(rows, before, panels, out):
    """Write ``(rows - before) @ weights``, in float64; a row has the same bits wherever it stands.

    Parameters
    ----------
    rows : (m, d) float32 or float64, C order
    before : (d,) float64
    panels : (ceil(k / width), d, width) float64, C order
        The weights, shape (d, k), as :func:`pack` leaves them; ``width`` is 8, 16 or 24.
    out : (m, k) float64, C order
    """
    m, d = rows.shape
    k = out.shape[1]
    n_panels, _, width = panels.shape
    size = d * width
    # Rows a power of two apart would share lines of the cache.
    stride = d + 8 + d % 8
    part, tile = np.zeros((TILE_ROWS, stride)), np.empty((TILE_ROWS, width))
    source, data, left, sums = pointer(rows), pointer(panels), pointer(part), pointer(tile)
    for first in range(0, m, TILE_ROWS):
        last = min(first + TILE_ROWS, m)
        for i in range(first, last):
            row, shifted = rows[i], part[i - first]
            for j in range(d):
                shifted[j] = row[j] - before[j]
        ahead = offset(source, last * d)
        for p in range(n_panels):
            right = offset(data, p * size)
            if width == 8:
                row_tile_1(left, stride, right, d, sums, ahead)
            elif width == 16:
                row_tile_2(left, stride, right, d, sums, ahead)
            else:
                row_tile_3(left, stride, right, d, sums, ahead)
            column = p * width
            for i in range(first, last):
                for j in range(min(width, k - column)):
                    out[i, column + j] = tile[i - first, j]
    hold(part)
    hold(tile)
