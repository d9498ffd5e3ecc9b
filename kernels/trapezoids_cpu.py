"""Sums of trapezoids along a path: how much an activation changed, times the gradients before and after."""

from ._jit import jit


@jit
def add_trapezoid(before, after, gradient_before, gradient_after, total):
    """Add ``(after - before) * (gradient_before + gradient_after) / 2`` to ``total``.

    All are (m,) and contiguous; ``total`` is float64, and so is the arithmetic. Every element is a sum of
    its own, so the way the elements are cut cannot change a bit.
    """
    for j in range(total.shape[0]):
        change = float(after[j]) - float(before[j])
        total[j] += 0.5 * change * (float(gradient_before[j]) + float(gradient_after[j]))
