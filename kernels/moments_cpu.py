"""Rows about a shift, copied for matrix products, with their sums; and products added up."""

import numpy as np

from ._jit import jit, jit_inlined, jit_reordering

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_MIX_AGAIN = np.uint64(0x94D049BB133111EB)


@jit_inlined
def _random_rotation(index):
    """Cosine and sine of an angle between 0 and a right angle, from a number (splitmix64)."""
    bits = np.uint64(index) * _ODD
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_AGAIN
    bits = bits ^ (bits >> np.uint64(31))
    tangent = np.float64(bits >> np.uint64(11)) * 2.0**-53  # of half the angle
    return (1 - tangent * tangent) / (1 + tangent * tangent), 2 * tangent / (1 + tangent * tangent)


@jit_reordering
def _add_row(row, shift, total, squares):
    for j in range(shift.shape[0]):
        x = np.float64(row[j]) - shift[j]
        total[j] += x
        squares[j] += x * x


@jit_reordering
def _add_four_rows(a, b, c, d, shift, total, squares):
    for j in range(shift.shape[0]):
        s = shift[j]
        w = np.float64(a[j]) - s
        x = np.float64(b[j]) - s
        y = np.float64(c[j]) - s
        z = np.float64(d[j]) - s
        total[j] += (w + x) + (y + z)
        squares[j] += (w * w + x * x) + (y * y + z * z)


@jit_reordering
def _add_rows(rows, first, last, shift, total, squares):
    quarter = first
    while quarter + 4 <= last:
        a, b, c, d = rows[quarter], rows[quarter + 1], rows[quarter + 2], rows[quarter + 3]
        _add_four_rows(a, b, c, d, shift, total, squares)
        quarter += 4
    for i in range(quarter, last):
        _add_row(rows[i], shift, total, squares)


@jit
def _copy_row(row, shift, out):
    for j in range(shift.shape[0]):
        out[j] = row[j] - shift[j]


@jit_reordering
def _rotate_rows(a, b, shift, cosine, sine, out_a, out_b):
    for j in range(shift.shape[0]):
        s = shift[j]
        x = np.float64(a[j]) - s
        y = np.float64(b[j]) - s
        out_a[j] = cosine * x + sine * y
        out_b[j] = cosine * y - sine * x


@jit
def copy_shifted(rows, shift, out, column, total, squares):
    """Copy rows less a shift; add their sums and sums of squares, in float64.

    Parameters
    ----------
    rows : (m, d) float32 or float64, C order
    shift : (d,) float64
    out : (at least m, at least column + d) float64, C order
        Columns ``column`` to ``column + d`` of the first ``m`` rows are written.
    total, squares : (d,) float64
        Added to. Not finite where a value of the rows is not, or where squares overflow.
    """
    d = shift.shape[0]
    for first in range(0, rows.shape[0], 4):
        last = min(first + 4, rows.shape[0])
        for i in range(first, last):
            _copy_row(rows[i], shift, out[i][column : column + d])
        _add_rows(rows, first, last, shift, total, squares)


@jit
def copy_rotated(rows, shift, key, out, column, total, squares):
    """As :func:`copy_shifted` into float32, with every two rows turned in their plane by a random angle.

    The turn leaves X^T X as it is. Without it, a value that comes again and again (the zeros of
    a rectified layer) would be rounded the same way each time it is added to a float32 sum.

    Parameters
    ----------
    rows, shift, column, total, squares
        As there; sums are of the rows themselves.
    key : int
        Angles follow from it, and from the place of the pair.
    out : float32, C order
    """
    d = shift.shape[0]
    m = rows.shape[0]
    for first in range(0, m, 4):
        last = min(first + 4, m)
        for i in range(first, last - 1, 2):
            # In float32, cosine and sine would lengthen or shorten the two rows as a whole: an error
            # that all products share, and that no sum over columns averages.
            cosine, sine = _random_rotation(key + i)
            out_a, out_b = out[i][column : column + d], out[i + 1][column : column + d]
            _rotate_rows(rows[i], rows[i + 1], shift, cosine, sine, out_a, out_b)
        if (last - first) % 2:
            _copy_row(rows[last - 1], shift, out[last - 1][column : column + d])
        _add_rows(rows, first, last, shift, total, squares)


@jit
def _add_to(row, total):
    for j in range(total.shape[0]):
        total[j] += row[j]


@jit
def add_upper(part, whole):
    """Add the upper triangle of a square float32 matrix to that of a float64 one.

    Some elements below the diagonal are added as well: rows begin at multiples of 16, where
    they are aligned, which halves the time.
    """
    for i in range(whole.shape[0]):
        first = i // 16 * 16
        _add_to(part[i][first:], whole[i][first:])
