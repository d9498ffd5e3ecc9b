"""Quantum mutual information of two layers: what their samples, as product states, share."""

from __future__ import annotations

from typing import Any

from ._dask_arrays import dask_inputs
from ._device import resolve_device
from ._entropies import check_alpha
from ._memory import parse_memory
from ._states import Ensemble, entropies, states_of, warn_of_bound
from ._threads import resolve_n_jobs
from ._validate import as_matrix, check_choice, check_int, check_same_samples
from .bins import check_flag


@dask_inputs("X", "Y", access="rows")
def quantum_mutual_information(
    X: Any,
    Y: Any,
    *,
    alpha: float = 1,
    rank: int | None = None,
    return_bound: bool = False,
    zero_samples: str = "raise",
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> Any:
    r"""Quantum mutual information of two layers, in nats: how far one tells the other's samples apart.

    0 where one of the layers is the same for all samples. The entropy of a layer where the other one has a
    direction of its own for each of its directions.

    Parameters
    ----------
    X : array-like of shape (n_samples, d_x)
        Activations of one layer: any input that the package takes, read block by block. Not centred.
    Y : array-like of shape (n_samples, d_y)
        Activations of another for the same samples.
    alpha : float
        Order of the entropies, above 0. 1: von Neumann.
    rank : int, optional
        Vectors that each matrix is applied to, as in :func:`von_neumann_entropy`. None: all eigenvalues where
        there are up to 5,000 samples or 5,000 (pairs of) features, else 256 vectors.
    return_bound : bool
        Return the bound as well.
    zero_samples : {"raise", "drop"}
        What to do with a sample of zeros, which is no state. "drop" leaves out all that are zero in either
        layer.
    n_jobs : int, optional
        Threads; None for all cores. The result has the same bits for any number.
    device : {None, "cpu"}
    max_memory : int or str, optional
        Budget for this call's own allocations.

    Returns
    -------
    float
        Between 0 and the smaller of both layers' entropies where ``alpha`` is 1, but for rounding and the
        bound. Other orders may be negative: their entropies are not subadditive.
    bound : float
        With ``return_bound``: how far the true value can be from it, rounding aside: the sum of the
        bounds of three entropies. 0 where all eigenvalues were computed.

    Raises
    ------
    ValueError
        For different numbers of samples, a sample of zeros (row named; see ``zero_samples``), or nothing
        else; NaN or infinite values.
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small.

    Warns
    -----
    UserWarning
        Where the bound is above 0.05 nats and was not asked for.

    Notes
    -----
    :math:`I(A{:}B) = S(A) + S(B) - S(AB)` (Nielsen and Chuang 2010, section 11.3) of
    :math:`\rho_{AB} = \frac1N \sum_i a_i a_i^T \otimes b_i b_i^T`, with :math:`a_i, b_i` the samples
    scaled to unit norm. Its eigenvalues are those of :math:`(K_A \circ K_B) / N`, with :math:`K` the
    cosines between samples, so that it is the matrix-based mutual information of Sanchez Giraldo, Rao and
    Principe 2015 (IEEE Trans. Inf. Theory 61); where :math:`d_x d_y < N` they are computed
    from the covariance of the products of features. The state is separable, so that
    :math:`S(AB) \ge \max(S(A), S(B))`, which gives the upper end of its range.

    Like an estimate from few samples, it grows with their number: layers of independent noise share up to
    ln N. Look at a permutation of the samples of one layer beside it. Beyond 5,000 samples and pairs of
    features see the bound of :func:`von_neumann_entropy`.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> states = np.eye(4)
    >>> round(qf.quantum_mutual_information(states, states) / math.log(4), 12)
    1.0
    >>> abs(round(qf.quantum_mutual_information(states, np.ones((4, 3))), 12))
    0.0
    """
    order = check_alpha(alpha)
    leading = None if rank is None else check_int(rank, "rank", low=1)
    check_flag(return_bound, "return_bound")
    check_choice(zero_samples, "zero_samples", ("raise", "drop"))
    resolve_device(device)
    matrices = [as_matrix(X, "X"), as_matrix(Y, "Y")]
    check_same_samples(*matrices)
    threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
    first, second = states_of(matrices, zero_samples)
    ensembles = [Ensemble((first,)), Ensemble((second,)), Ensemble((first, second))]
    of_x, of_y, of_both = entropies(ensembles, order, leading, n_jobs=threads, budget=budget)
    value, bound = of_x[0] + of_y[0] - of_both[0], of_x[1] + of_y[1] + of_both[1]
    if return_bound:
        return value, bound
    warn_of_bound(bound)
    return value
