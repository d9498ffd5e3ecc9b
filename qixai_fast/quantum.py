"""Quantum-inspired measures: a layer as a mixed state, and how the dependence of two layers is spread.

The QIXAI paper (arXiv 2410.16537) names singular values, PCA, cosine, mutual information and
integrated gradients. Density matrices, purity and Schmidt spectra are this package's reading of its
metaphor, with the definitions of quantum information theory: they measure classical second moments.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._centred import cross_singular_values, layer_grams, prefers_grams
from ._dask_arrays import dask_inputs
from ._device import resolve_device
from ._entropies import check_alpha, entropy
from ._layer_products import layer_moments
from ._memory import parse_memory, workers_within
from ._states import EXACT_SIDE, Ensemble, entropies, states_of, warn_of_bound
from ._threads import resolve_n_jobs
from ._validate import as_matrix, check_choice, check_int, check_same_samples
from .bins import check_flag

# A cross-covariance whose norm is below this fraction of the largest it could be is rounding noise.
_NOISE = 1e-13


@dask_inputs("X", access="rows")
def von_neumann_entropy(
    X: Any,
    *,
    alpha: float = 1,
    rank: int | None = None,
    return_bound: bool = False,
    zero_samples: str = "raise",
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> Any:
    r"""Von Neumann entropy of a layer, in nats; or its Renyi entropy of another order.

    0 where all samples point the same way (or the opposite one), ln d where they use all d
    directions alike.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Activations: any input that the package takes, read block by block. Not centred.
    alpha : float
        Order, above 0. 1: von Neumann. 2: minus the logarithm of :func:`purity`. Larger orders look at the
        leading eigenvalues only, smaller ones at how many there are.
    rank : int, optional
        Vectors that the matrix is applied to, six times: up to six times as many leading eigenvalues
        follow, and the rest is bounded. None: all eigenvalues where there are up to 5,000 samples or 5,000
        features, else 256 vectors.
    return_bound : bool
        Return the bound as well.
    zero_samples : {"raise", "drop"}
        A sample of zeros, which layers with ReLU can have, is no state. "raise" refuses it; "drop"
        computes from all others.
    n_jobs : int, optional
        Threads; None for all cores. The result has the same bits for any number.
    device : {None, "cpu"}
    max_memory : int or str, optional
        Budget for this call's own allocations.

    Returns
    -------
    float
        Between 0 and ln(min(n_samples, n_features)). Where not all eigenvalues were computed, the middle
        of the values that it can have.
    bound : float
        With ``return_bound``: how far the true value can be from it, rounding aside. 0 where all
        eigenvalues were computed.

    Raises
    ------
    ValueError
        For a sample of zeros (row named; see ``zero_samples``), or nothing else; NaN or infinite values.
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
    :math:`S(\rho) = -\operatorname{tr} \rho \ln \rho` with :math:`\rho = \frac1N \sum_i a_i a_i^T` and
    :math:`a_i = x_i / \lVert x_i \rVert`: von Neumann 1927; Nielsen and Chuang 2010, equation 11.51.
    :math:`S_\alpha(\rho) = \frac{1}{1 - \alpha} \ln \operatorname{tr} \rho^\alpha` is the matrix-based
    entropy of Sanchez Giraldo, Rao and Principe 2015 (IEEE Trans. Inf. Theory 61, definition 2) with
    the cosine as kernel, in nats. The eigenvalues are those of the smaller of :math:`\rho` (one read)
    and the Gram matrix of the :math:`a_i`.

    The bound: the leading eigenvalues are Ritz values of a block Krylov space (Golub and Underwood 1977),
    which come with residuals, and of all others the sum and the sum of squares are known exactly. Their
    entropy is smallest, by Jensen's inequality, where it is :math:`t \ln(t / f)`, and largest where they are
    alike.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> round(qf.von_neumann_entropy(np.eye(4)) / math.log(4), 12)
    1.0
    >>> qf.von_neumann_entropy([[1.0, 2.0], [2.0, 4.0]])
    0.0
    >>> value, bound = qf.von_neumann_entropy(np.eye(4), rank=2, return_bound=True)
    >>> abs(value - math.log(4)) <= bound + 1e-12
    True
    """
    order = check_alpha(alpha)
    leading = None if rank is None else check_int(rank, "rank", low=1)
    check_flag(return_bound, "return_bound")
    layer, threads, budget = _one_layer(X, zero_samples, n_jobs, device, max_memory)
    ((value, bound),) = entropies([layer], order, leading, n_jobs=threads, budget=budget)
    if return_bound:
        return value, bound
    warn_of_bound(bound)
    return value


@dask_inputs("X", access="rows")
def purity(
    X: Any,
    *,
    zero_samples: str = "raise",
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> float:
    r"""Purity of a layer: 1 for a single direction, 1 / d where all d directions are used alike.

    It is also the mean squared cosine between two samples drawn at random.

    Parameters
    ----------
    X, zero_samples, n_jobs, device, max_memory
        As in :func:`von_neumann_entropy`.

    Returns
    -------
    float
        Between 1 / min(n_samples, n_features) and 1.

    Raises
    ------
    ValueError, TypeError, MemoryBudgetError
        As :func:`von_neumann_entropy`.

    Notes
    -----
    :math:`\operatorname{tr} \rho^2`, with :math:`\rho` as in :func:`von_neumann_entropy` (Nielsen and
    Chuang 2010, section 2.4.1).

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> qf.purity(np.eye(4)), qf.purity([[1.0, 2.0], [2.0, 4.0]])
    (0.25, 1.0)
    """
    layer, threads, budget = _one_layer(X, zero_samples, n_jobs, device, max_memory)
    whole = layer.side <= EXACT_SIDE
    fixed, each = layer.matrix_memory() if whole else layer.partial_memory(1)
    work = f"a density matrix of {layer.side} by {layer.side}"
    workers = workers_within(budget, threads, fixed=fixed + 3 * layer.n_samples, per_worker=each, work=work)
    if not whole:
        return min(1.0, layer.squared_norm(workers))
    state = layer.matrix(workers)
    return min(1.0, float(np.einsum("ij,ij->", state, state)))


@dask_inputs("X", access="rows")
def coherence(
    X: Any,
    *,
    zero_samples: str = "raise",
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> float:
    r"""Coherence of a layer between its features: 0 where no two are ever active together.

    Unlike the other measures it depends on the basis: it is about these features, not about the
    space that they span.

    Parameters
    ----------
    X, zero_samples, n_jobs, device, max_memory
        As in :func:`von_neumann_entropy`.

    Returns
    -------
    float
        Between 0 and n_features - 1, which all samples alike with all features equal have.

    Raises
    ------
    ValueError, TypeError, MemoryBudgetError
        As :func:`von_neumann_entropy`.

    Notes
    -----
    :math:`C(\rho) = \sum_{i \ne j} \lvert \rho_{ij} \rvert`, with :math:`\rho` as in
    :func:`von_neumann_entropy`: the l1 norm of coherence of Baumgratz, Cramer and Plenio 2014 (Phys.
    Rev. Lett. 113, 140401). The matrix is made a few rows at a time, so that wide layers
    take no square of their width.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> qf.coherence(np.eye(4)), round(qf.coherence(np.ones((3, 4))), 12)
    (0.0, 3.0)
    """
    layer, threads, budget = _one_layer(X, zero_samples, n_jobs, device, max_memory)
    fixed, each = layer.norms_memory()
    workers = workers_within(
        budget, threads, fixed=fixed + 3 * layer.n_samples, per_worker=each, work="coherence"
    )
    magnitudes = layer.sum_over_entries(np.abs, workers)
    # The entries on the diagonal, which are never negative, sum to the number of states.
    return max(0.0, magnitudes / layer.n_states - 1.0)


@dask_inputs("X", access="rows")
def effective_rank(
    X: Any,
    *,
    zero_samples: str = "raise",
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> float:
    r"""Effective rank of a layer: how many directions, used alike, would have its entropy.

    Parameters
    ----------
    X, zero_samples, n_jobs, device, max_memory
        As in :func:`von_neumann_entropy`.

    Returns
    -------
    float
        Between 1 and min(n_samples, n_features).

    Raises
    ------
    ValueError, TypeError, MemoryBudgetError
        As :func:`von_neumann_entropy`.

    Notes
    -----
    :math:`\exp S(\rho)`, the exponential of :func:`von_neumann_entropy`. Roy and Vetterli 2007 (EUSIPCO)
    take the exponential of an entropy too, but of the singular values of ``X`` itself, scaled to sum
    to one; here it is of the squared ones, of samples scaled to unit norm, so that large samples
    count no more than small ones. The two agree on matrices of orthogonal rows of equal norm.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> round(qf.effective_rank(np.eye(4)), 12)
    4.0
    """
    layer, threads, budget = _one_layer(X, zero_samples, n_jobs, device, max_memory)
    ((value, bound),) = entropies([layer], 1.0, None, n_jobs=threads, budget=budget)
    warn_of_bound(bound)
    return math.exp(value)


@dask_inputs("X", "Y", access="rows")
def schmidt_spectrum(
    X: Any,
    Y: Any,
    *,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> Any:
    r"""Shares of the modes of the linear dependence between two layers.

    Parameters
    ----------
    X : array-like of shape (n_samples, d_x)
        Activations of one layer; any input that the package takes, read block by block.
    Y : array-like of shape (n_samples, d_y)
        Activations of another for the same samples.
    n_jobs : int, optional
        Threads; None for all cores. The result has the same bits for any number.
    device : {None, "cpu"}
    max_memory : int or str, optional
        Budget for this call's own allocations.

    Returns
    -------
    ndarray or tensor of shape (min(d_x, d_y, n_samples - 1),), float64
        Shares, largest first; they sum to 1.

    Raises
    ------
    ValueError
        For different numbers of samples, fewer than 2, NaN or infinite values, and layers whose
        cross-covariance is zero: a constant layer has no dependence to share out.
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small.

    Notes
    -----
    :math:`p_i = s_i^2 / \sum_j s_j^2` with :math:`s` the singular values of :math:`X_c^T Y_c`, columns
    centred: the Schmidt coefficients (Nielsen and Chuang 2010, theorem 2.7) of the cross-covariance
    read as the amplitudes of a pure state of two systems. They say how many modes share the
    dependence, not how strong it is: independent layers have a flat spectrum of noise. Look at
    :func:`linear_cka_test` first; its numerator is :math:`\sum_j s_j^2`.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> qf.schmidt_spectrum(x, x), qf.schmidt_spectrum(x, x[:, :1])
    (array([0.5, 0.5]), array([1.]))
    """
    resolve_device(device)
    first, second = as_matrix(X, "X", min_samples=2), as_matrix(Y, "Y", min_samples=2)
    check_same_samples(first, second)
    threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
    if prefers_grams(first, second):
        # Two eigenproblems with their work space, and the product of the roots, on top of the matrices.
        grams = layer_grams(first, second, n_jobs=threads, budget=budget, squares=5)
        values, bound = cross_singular_values(grams)
    else:
        products = layer_moments(first, second, n_jobs=threads, budget=budget, across_only=True)
        values, bound = cross_singular_values(products)
    if bound == 0 or np.linalg.norm(values) <= _NOISE * bound:
        raise ValueError(
            "X and Y: their centred cross-covariance is zero (a constant layer, or no linear dependence), "
            "so there is no Schmidt spectrum"
        )
    values = values[: min(first.n_features, second.n_features, first.n_samples - 1)]
    shares = (values / values[0]) ** 2
    return first.home.bring(shares / shares.sum())


@dask_inputs("X", "Y", access="rows")
def entanglement_entropy(
    X: Any,
    Y: Any,
    *,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> float:
    r"""Entanglement entropy of two layers, in nats: 0 for one shared mode, ln k for k alike.

    Parameters
    ----------
    X, Y, n_jobs, device, max_memory
        As in :func:`schmidt_spectrum`.

    Returns
    -------
    float
        Between 0 and ln(min(d_x, d_y, n_samples - 1)).

    Raises
    ------
    ValueError, TypeError, MemoryBudgetError
        As :func:`schmidt_spectrum`.

    Notes
    -----
    :math:`-\sum_i p_i \ln p_i` of the :func:`schmidt_spectrum` (Bennett, Bernstein, Popescu and
    Schumacher 1996, equation 2). It says how many modes share the dependence, not how strong that is.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(qf.entanglement_entropy(x, x) / math.log(2), 12)
    1.0
    """
    shares = schmidt_spectrum(X, Y, n_jobs=n_jobs, device=device, max_memory=max_memory)
    return entropy(np.asarray(shares.cpu() if hasattr(shares, "cpu") else shares))


def _one_layer(
    X: Any, zero_samples: str, n_jobs: int | None, device: Any, max_memory: int | float | str | None
) -> tuple[Ensemble, int, int | None]:
    """Check what all measures of one layer take: its states, threads, and the budget."""
    check_choice(zero_samples, "zero_samples", ("raise", "drop"))
    resolve_device(device)
    threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
    return Ensemble(tuple(states_of([as_matrix(X, "X")], zero_samples))), threads, budget
