"""Unit vectors, and a running top-k over blocks of similarities."""

import numpy as np

from ._jit import jit, jit_reordering

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
def normalise_rows(block, center, is_zero):
    """Scale every row to unit norm, in place; a row with no direction becomes zeros.

    Parameters
    ----------
    block : ndarray of shape (r, d), float64, C-contiguous, finite
        Overwritten.
    center : bool
        Take each row's own mean away first. It is taken about the row's first value, so that a
        constant row becomes exactly zero.
    is_zero : ndarray of shape (r,), bool
        Written: whether the row is zero (or constant, where centred).
    """
    d = block.shape[1]
    for i in range(block.shape[0]):
        row = block[i]
        squares = _sum_of_squares(row)
        if not (_SMALLEST_SAFE < squares < _LARGEST_SAFE):
            _divide_by_largest(row)
            squares = _sum_of_squares(row)
        if center and squares > 0.0:
            _subtract(row, row[0])
            _subtract(row, _sum(row) / d)
            squares = _sum_of_squares(row)
        is_zero[i] = squares == 0.0
        inverse = 1.0 / np.sqrt(squares) if squares > 0.0 else 0.0
        for j in range(d):
            row[j] *= inverse


@jit
def update_top_k(scores, first_row, first_candidate, skip_self, tolerance, values, indices):
    """Merge a block of scores into the best k so far of each row.

    Candidates must come in ascending order over the calls: then, of scores that are equal to within
    the tolerance, the one of the lowest index is kept and stands first. BLAS rounds the same product
    differently at different places of a block, so that even duplicates agree to its rounding only.

    Parameters
    ----------
    scores : ndarray of shape (r, m)
        Scores of candidates ``first_candidate`` to ``first_candidate + m - 1``.
    first_row : int
        Index of the first row, compared with candidates where ``skip_self``.
    first_candidate : int
    skip_self : bool
        Leave out the candidate whose index is the row's own.
    tolerance : float
    values, indices : ndarray of shape (r, k), contiguous
        Updated; best first to within the tolerance. Start with -inf and -1.
    """
    k = values.shape[1]
    for i in range(scores.shape[0]):
        worst = values[i, k - 1]
        own = first_row + i if skip_self else -1
        for j in range(scores.shape[1]):
            score = scores[i, j]
            if score > worst + tolerance and first_candidate + j != own:
                place = k - 1
                while place > 0 and values[i, place - 1] + tolerance < score:
                    values[i, place] = values[i, place - 1]
                    indices[i, place] = indices[i, place - 1]
                    place -= 1
                values[i, place] = score
                indices[i, place] = first_candidate + j
                worst = values[i, k - 1]
