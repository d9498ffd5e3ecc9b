"""Quantum-inspired measures: a layer as a mixed state, and how the dependence of two layers is spread.

The QIXAI paper (arXiv 2410.16537) names singular values, PCA, cosine, mutual information and
integrated gradients. Density matrices, purity and Schmidt spectra are this package's reading of its
metaphor, with the definitions of quantum information theory: they measure classical second moments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._centred import cross_singular_values, layer_grams, prefers_grams
from ._device import resolve_device
from ._layer_products import layer_moments
from ._memory import parse_memory, workers_within
from ._products import gram, gram_memory
from ._threads import resolve_n_jobs, single_threaded_blas
from ._unit_rows import UnitRows
from ._validate import Array, Float64, Matrix, as_matrix, check_choice, check_same_samples
from .statistics import cross_moments, cross_moments_memory

# A cross-covariance whose norm is below this fraction of the largest it could be is rounding noise.
_NOISE = 1e-13


def von_neumann_entropy(
    X: Any,
    *,
    zero_samples: str = "raise",
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> float:
    r"""Von Neumann entropy of a layer, in nats.

    0 where all samples point the same way (or the opposite one), ln d where they use all d
    directions alike.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Activations: any input that the package takes, read block by block. Not centred.
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
        Between 0 and ln(min(n_samples, n_features)).

    Raises
    ------
    ValueError
        For a sample of zeros (row named; see ``zero_samples``), or nothing else; NaN or infinite values.
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small.

    Notes
    -----
    :math:`S(\rho) = -\operatorname{tr} \rho \ln \rho` with :math:`\rho = \frac1N \sum_i a_i a_i^T` and
    :math:`a_i = x_i / \lVert x_i \rVert`: von Neumann 1927; Nielsen and Chuang 2010, equation 11.51.
    It equals the matrix-based entropy of order 1 of Sanchez Giraldo, Rao and Principe 2015 (IEEE Trans.
    Inf. Theory 61, definition 2) with the cosine as kernel. The eigenvalues are those of the smaller
    of :math:`\rho` (one read) and the Gram matrix of the :math:`a_i`.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> round(qf.von_neumann_entropy(np.eye(4)) / math.log(4), 12)
    1.0
    >>> qf.von_neumann_entropy([[1.0, 2.0], [2.0, 4.0]])
    0.0
    """
    state = _density(X, zero_samples, n_jobs=n_jobs, device=device, max_memory=max_memory)
    with single_threaded_blas():
        eigenvalues = np.linalg.eigvalsh(state).astype(np.float64, copy=False)
    return _entropy(eigenvalues)


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
    state = _density(X, zero_samples, n_jobs=n_jobs, device=device, max_memory=max_memory)
    return min(1.0, float(np.einsum("ij,ij->", state, state)))


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
    return math.exp(
        von_neumann_entropy(X, zero_samples=zero_samples, n_jobs=n_jobs, device=device, max_memory=max_memory)
    )


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
        values, bound = cross_singular_values(layer_moments(first, second, n_jobs=threads, budget=budget))
    if bound == 0 or np.linalg.norm(values) <= _NOISE * bound:
        raise ValueError(
            "X and Y: their centred cross-covariance is zero (a constant layer, or no linear dependence), "
            "so there is no Schmidt spectrum"
        )
    values = values[: min(first.n_features, second.n_features, first.n_samples - 1)]
    shares = (values / values[0]) ** 2
    return first.home.bring(shares / shares.sum())


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
    return _entropy(np.asarray(shares.cpu() if hasattr(shares, "cpu") else shares))


def _entropy(probabilities: Float64) -> float:
    """Entropy in nats of weights that rounding may have left slightly below 0 or off a sum of 1."""
    weights = np.maximum(probabilities, 0.0)
    weights = weights[weights > 0] / weights.sum()
    return max(0.0, float(-(weights * np.log(weights)).sum()))


@dataclass(frozen=True)
class _States(UnitRows):
    """Samples as states; a sample of zeros, which is none, is refused."""

    def fill(self, target: Array, start: int, stop: int) -> None:
        super().fill(target, start, stop)
        zero: npt.NDArray[np.bool_] = self.is_zero[start:stop]
        if zero.any():
            raise ValueError(
                f"{self.name}: the sample at row {start + int(np.argmax(zero))} is all zeros, which is no "
                "state; leave such samples out, or pass zero_samples='drop'"
            )


def _density(
    X: Any, zero_samples: str, *, n_jobs: int | None, device: Any, max_memory: int | float | str | None
) -> Float64:
    """The density matrix of a layer, or the Gram matrix of its states where that is smaller.

    Both have trace 1 and the same eigenvalues, but for zeros.
    """
    check_choice(zero_samples, "zero_samples", ("raise", "drop"))
    resolve_device(device)
    matrix = as_matrix(X, "X")
    states = _states(matrix, refuse_zeros=zero_samples == "raise")
    wide = matrix.n_samples < matrix.n_features
    fixed, per_worker = gram_memory(states) if wide else cross_moments_memory([states])
    side = matrix.n_samples if wide else matrix.n_features
    workers = workers_within(
        parse_memory(max_memory),
        resolve_n_jobs(n_jobs),
        # A copy for the eigenvalues or of the moments, and its work space.
        fixed=fixed + 8 * 2 * side**2 + matrix.n_samples + 2**16,
        per_worker=per_worker,
        work=f"a density matrix of {side} by {side}",
    )
    state = gram(states, workers) if wide else cross_moments([states], n_jobs=workers).raw_block(0, 0)
    if states.is_zero.all():
        raise ValueError(f"{states.name}: every sample is all zeros, so there is no state")
    # Each state adds 1 to the trace, and a dropped sample 0.
    state /= np.trace(state)
    return state


def _states(matrix: Matrix, *, refuse_zeros: bool) -> UnitRows:
    kind = _States if refuse_zeros else UnitRows
    return kind(
        matrix.name, matrix.data, matrix.home, center=False, is_zero=np.zeros(matrix.n_samples, dtype=bool)
    )
