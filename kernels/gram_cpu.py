"""Inner products of Gram matrices whose samples are permuted."""

from ._jit import jit_reordering


@jit_reordering
def permuted_inner_product(K, L, order):
    """Sum over i and j of ``K[i, j] * L[order[i], order[j]]``, for symmetric K and L (n, n), float64.

    Only the lower triangle of K is read.
    """
    total = 0.0
    for i in range(K.shape[0]):
        row = K[i]
        other = L[order[i]]
        below = 0.0
        for j in range(i):
            below += row[j] * other[order[j]]
        total += 2.0 * below + row[i] * other[order[i]]
    return total
