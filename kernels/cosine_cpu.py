"""Unit vectors, clipping, and a running top-k over blocks of similarities."""

import numpy as np

from ._bits import lowest_one
from ._jit import jit, jit_inlined, jit_reordering
from ._scan import WIDTH, above

# Squares of values whose sum lies between these neither overflow nor lose digits to underflow,
# even after a common value has been taken away.
_SMALLEST_SAFE = 1e-200
_LARGEST_SAFE = 1e200


@jit
def _divide_by_largest(row):
    """Bring a row of extreme values to a largest magnitude of 1, in place; leave zeros alone.

    A true division: the reciprocal of a denormal number would overflow.
    """
    largest = 0.0
    for j in range(row.shape[0]):
        largest = max(largest, abs(row[j]))
    if largest > 0.0:
        for j in range(row.shape[0]):
            row[j] /= largest


@jit
def _subtract(row, value):
    """Take a value away from every element, in place, without reordering it into the sums around."""
    for j in range(row.shape[0]):
        row[j] -= value


@jit_reordering
def _sum(row):
    total = 0.0
    for j in range(row.shape[0]):
        total += row[j]
    return total


@jit_reordering
def _sum_of_squares(row):
    total = 0.0
    for j in range(row.shape[0]):
        total += row[j] * row[j]
    return total


@jit
def _widen(row, wide):
    """Copy a row to float64; return its sum of squares.

    Two loops: where one both writes and sums, the compiler sums in another order if what it writes happens to
    lie close behind what it reads, and the last bit depends on where memory was.
    """
    for j in range(row.shape[0]):
        wide[j] = row[j]
    return _sum_of_squares(wide)


@jit
def unit_rows(rows, center, target, is_zero):
    """Write rows scaled to unit norm, which is taken in float64; a row with no direction becomes zeros.

    Parameters
    ----------
    rows : ndarray of shape (r, d), float32 or float64, C-contiguous
    center : bool
        Take each row's own mean away first. It is taken about the row's first value, so that a
        constant row becomes exactly zero.
    target : ndarray of shape (r, d), float32 or float64, C-contiguous
    is_zero : ndarray of shape (r,), bool
        Written: whether the row is zero (or constant, where centred).

    Returns
    -------
    int
        The first row with a value that is NaN or infinite, where the work stops; -1 where there is none.
    """
    d = rows.shape[1]
    wide = np.empty(d)
    for i in range(rows.shape[0]):
        squares = _widen(rows[i], wide)
        if not (_SMALLEST_SAFE < squares < _LARGEST_SAFE):
            _divide_by_largest(wide)
            squares = _sum_of_squares(wide)
            if not np.isfinite(squares):
                return i
        if center and squares > 0.0:
            _subtract(wide, wide[0])
            _subtract(wide, _sum(wide) / d)
            squares = _sum_of_squares(wide)
        is_zero[i] = squares == 0.0
        inverse = 1.0 / np.sqrt(squares) if squares > 0.0 else 0.0
        for j in range(d):
            target[i, j] = wide[j] * inverse
    return -1


@jit
def clip_block(values, first_row, last_row, first_column, last_column):
    """Bring a block of a C-contiguous float array to [-1, 1], in place.

    Rounding puts few values beyond, so that looking for them is nearly all there is to do.
    """
    one = values.dtype.type(1)
    for i in range(first_row, last_row):
        row = values[i, first_column:last_column]
        beyond = 0
        for j in range(row.shape[0]):
            beyond += abs(row[j]) > one
        if beyond > 0:
            for j in range(row.shape[0]):
                row[j] = min(max(row[j], -one), one)


@jit_inlined
def _take_in(values, indices, score, index, tolerance):
    """Place a score behind all that are no lower, to within the tolerance; the last falls out.

    Returns the next bar. The first of those that are lower is looked for from the front: behind it there may
    be others that are no lower, and one behind those would let errors of a tolerance each add up.
    """
    place = 0
    while values[place] + tolerance >= score:
        place += 1
    for i in range(values.shape[0] - 1, place, -1):
        values[i] = values[i - 1]
        indices[i] = indices[i - 1]
    values[place] = score
    indices[place] = index
    return values[-1] + tolerance


@jit
def update_top_k(scores, first_row, first_candidate, skip_self, tolerance, values, indices):
    """Merge a block of scores into the best k so far of each row.

    Candidates must come in ascending order over the calls: then, of scores that are equal to within
    the tolerance, the one of the lowest index is kept and stands first. BLAS rounds the same product
    differently at different places of a block, so that even duplicates agree to its rounding only.

    Most scores are no better than the k-th so far: 64 are compared with it at once.

    Parameters
    ----------
    scores : ndarray of shape (r, m), float, C-contiguous
        Scores of candidates ``first_candidate`` to ``first_candidate + m - 1``.
    first_row : int
        Index of the first row, compared with candidates where ``skip_self``.
    first_candidate : int
    skip_self : bool
        Leave out the candidate whose index is the row's own.
    tolerance : float
        Of the dtype of the scores.
    values, indices : ndarray of shape (r, k), contiguous
        Updated; best first to within the tolerance. Start with -inf and -1.
    """
    k, m = values.shape[1], scores.shape[1]
    flat = scores.reshape(-1)
    whole = m - m % WIDTH
    for i in range(scores.shape[0]):
        best, places = values[i], indices[i]
        bar = best[k - 1] + tolerance
        own = first_row + i - first_candidate if skip_self else -1
        for start in range(0, whole, WIDTH):
            found = above(flat, i * m + start, bar)
            while found != 0:
                j = start + lowest_one(found)
                found &= found - np.uint64(1)
                # The bar has risen since the comparison.
                if scores[i, j] > bar and j != own:
                    bar = _take_in(best, places, scores[i, j], first_candidate + j, tolerance)
        for j in range(whole, m):
            if scores[i, j] > bar and j != own:
                bar = _take_in(best, places, scores[i, j], first_candidate + j, tolerance)
