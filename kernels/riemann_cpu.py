"""Weighted sums of recorded gradients: one step's segment at a time, summed in float64."""

from ._jit import jit


@jit
def add_weighted(segment, weight, total):
    """Add ``weight * segment`` to ``total``, both (m,) and contiguous; ``total`` is float64.

    Every element is a sum of its own, in the order of the steps, so neither the vector width nor the
    way the elements are cut into segments can change a bit.
    """
    for j in range(total.shape[0]):
        total[j] += weight * float(segment[j])
