"""Ranks of values that were sorted together with their places."""

from ._jit import jit


@jit
def centred_ranks(keys, ranks):
    """Write the rank of every value, less the mean rank; equal values share the mean of theirs.

    Parameters
    ----------
    keys : ndarray of shape (m,), uint64, sorted
        A value's order in the upper half, its place in the lower.
    ranks : ndarray of shape (m,), float64
        Written, at the places.
    """
    m = keys.shape[0]
    middle = (m - 1) / 2.0
    start = 0
    while start < m:
        value = keys[start] >> 32
        stop = start + 1
        while stop < m and keys[stop] >> 32 == value:
            stop += 1
        rank = (start + stop - 1) / 2.0 - middle
        for k in range(start, stop):
            ranks[keys[k] & 0xFFFFFFFF] = rank
        start = stop
