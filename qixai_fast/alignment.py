"""Linear centred kernel alignment: how alike two layers arrange the same samples."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ._centred import Grams, grams_memory, layer_grams, prefers_grams
from ._cka_permutations import count_at_least, permutations_memory
from ._dask_arrays import dask_inputs
from ._device import backends_for, resolve_device
from ._layer_products import LayerProducts, layer_moments, moments_memory
from ._memory import parse_memory, require_budget
from ._open import opened
from ._random import as_generator
from ._threads import resolve_n_jobs, single_threaded_blas
from ._validate import Float64, Matrix, check_choice, check_int, check_same_samples

if TYPE_CHECKING:
    from ._gpu.moments import DeviceMatrix

# A squared norm below this fraction of what it was subtracted from is rounding noise.
_NOISE = 1e-13
# Pairings whose CKA differs from the true one's by this, which rounding explains, count as reaching it.
_ROUNDING = 1e-12


@dask_inputs("X", "Y", access="rows")
def linear_cka(
    X: Any,
    Y: Any,
    *,
    debiased: bool = False,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> float:
    r"""Linear centred kernel alignment of two layers.

    1 where the layers are the same up to an orthogonal transform, one scale and an offset; 0 where
    no feature of one is correlated with any of the other.

    Parameters
    ----------
    X : array-like of shape (n_samples, d_x)
        Activations of one layer; any input that the package takes, read block by block.
    Y : array-like of shape (n_samples, d_y)
        Activations of another for the same samples.
    debiased : bool
        Use the unbiased estimators of HSIC, from at least 4 samples. The plain (biased) value is
        well above 0 even for independent layers unless there are many more samples than features:
        about ``d / n`` for noise. The debiased one has an average of exactly 0 over all ways to
        pair the samples, and so may be slightly negative.
    n_jobs : int, optional
        Threads; None for all cores. The result has the same bits for any number.
    device : None, "cpu", "cuda" or "cuda:1"
        None: the GPU that ``X`` or ``Y`` lives on, else the CPU.
    max_memory : int or str, optional
        Budget for this call's own allocations.

    Returns
    -------
    float
        Between 0 and 1; debiased, at most 1.

    Raises
    ------
    ValueError
        For different numbers of samples, fewer than 2 (debiased: 4), and NaN or infinite values.
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small.

    Warns
    -----
    UserWarning
        Where a layer is constant: its CKA with anything is set to 0, like the cosine of a zero vector.

    See Also
    --------
    linear_cka_test : With a p-value and what to expect by chance.

    Notes
    -----
    :math:`\lVert Y_c^T X_c\rVert_F^2 / (\lVert X_c^T X_c\rVert_F \lVert Y_c^T Y_c\rVert_F)` with
    centred columns (Kornblith, Norouzi, Lee and Hinton 2019, arXiv 1905.00414, section 3), which is
    the RV coefficient of Robert and Escoufier 1976. Debiased: each HSIC is the unbiased estimator of
    Song et al. 2012 (JMLR 13, equation 5), as Nguyen, Raghu and Kornblith 2021 (arXiv 2010.15327) use
    it; with :math:`p_i, q_i` the squared norms of the centred samples it is

    .. math:: n (n - 3)\,\mathrm{HSIC}_1 = \lVert Y_c^T X_c\rVert_F^2 - \tfrac{n}{n - 2} \sum_i p_i q_i
              + \tfrac{1}{(n - 1)(n - 2)} \sum_i p_i \sum_i q_i

    One read of each layer where ``n_samples >= d_x + d_y``; otherwise the (n, n) Gram matrices, which
    are smaller than the cross moments, are formed in two reads and more.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, 1.0], [0.0, 4.0]])
    >>> round(qf.linear_cka(X, 5 * X[:, ::-1] + 7), 12)
    1.0
    >>> round(qf.linear_cka(X, X[:, :1]), 3)
    0.649
    """
    check_choice(debiased, "debiased", (False, True))
    backends = backends_for(device, X, Y)
    first, second = _check(X, Y, backends, min_samples=4 if debiased else 2)
    terms = _terms(first, second, resolve_n_jobs(n_jobs), parse_memory(max_memory))
    terms.warn_of_constants(first, second)
    return terms.debiased() if debiased else terms.biased()


@dataclass(frozen=True)
class LinearCKATest:
    """Result of :func:`linear_cka_test`.

    Attributes
    ----------
    value : float
        Linear CKA of the layers.
    pvalue : float
        (1 + b) / (1 + m): b of m random pairings of the samples gave at least this value.
    null_mean, null_std : float
        Mean and standard deviation of CKA over all pairings of the samples, exact.
    n_permutations : int
        m.
    """

    value: float
    pvalue: float
    null_mean: float
    null_std: float
    n_permutations: int


@dask_inputs("X", "Y", access="rows")
def linear_cka_test(
    X: Any,
    Y: Any,
    *,
    debiased: bool = False,
    n_permutations: int = 999,
    random_state: Any = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> LinearCKATest:
    r"""Linear CKA of two layers beside what it would be if their samples were unrelated.

    Parameters
    ----------
    X, Y, debiased, n_jobs, max_memory
        As in :func:`linear_cka`, but from at least 4 samples. Both layers, centred, or their Gram
        matrices are held in memory as float64.
    device : {None, "cpu"}
    n_permutations : int
        Random pairings of the samples of ``Y`` with those of ``X``. Each takes a product of
        ``n_samples * d_x * d_y``, or ``n_samples**2 / 2`` steps for wide layers, so that a test of
        very many samples is better made on a random subset of them.
    random_state : None, int, Generator or RandomState
        Seed of the pairings.

    Returns
    -------
    LinearCKATest
        ``value, pvalue, null_mean, null_std, n_permutations``.

    Raises
    ------
    ValueError, TypeError, MemoryBudgetError
        As :func:`linear_cka`.

    Warns
    -----
    UserWarning
        Where a layer is constant: value 0, p-value 1.

    Notes
    -----
    The mean and the standard deviation need no permutations. A centred Gram matrix is the sum of
    three orthogonal parts that a permutation of the samples maps into themselves: a multiple of the
    centring matrix, a part fixed by the diagonal (n - 1 dimensions), and the U-centred rest
    (n (n - 3) / 2 dimensions, whose inner product is the unbiased HSIC). Over all permutations, the
    inner product of two parts that are irreducible has mean 0 and variance
    :math:`\lVert K\rVert^2 \lVert L\rVert^2` over their dimension (Schur orthogonality). So the
    debiased CKA has mean 0 and variance :math:`2 / (n (n - 3))` whatever the layers. The moments agree
    with those of the RV coefficient in Kazi-Aoual, Hitier, Sabatier and Lebreton 1995.

    Examples
    --------
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(100, 5))
    >>> test = qf.linear_cka_test(X, X + rng.normal(size=(100, 5)), n_permutations=99, random_state=0)
    >>> test.pvalue, test.value > test.null_mean + 5 * test.null_std
    (0.01, True)
    """
    check_choice(debiased, "debiased", (False, True))
    resolve_device(device)
    first, second = _check(X, Y, None, min_samples=4)
    m = check_int(n_permutations, "n_permutations", low=1)
    generator = as_generator(random_state)
    threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
    # Before anything is computed, the larger of both steps has to fit.
    required = max(sum(memory(first, second)) for memory in (_terms_memory, permutations_memory))
    require_budget(budget, required, f"a test of CKA of {first.n_samples} samples")
    terms = _terms(first, second, threads, budget)
    terms.warn_of_constants(first, second)
    if terms.x_constant or terms.y_constant:
        return LinearCKATest(0.0, 1.0, 0.0, 0.0, m)
    b = count_at_least(
        first,
        second,
        debiased=debiased,
        tolerance=_ROUNDING * math.sqrt(terms.xx) * math.sqrt(terms.yy),
        n_permutations=m,
        generator=generator,
        n_jobs=threads,
        budget=budget,
    )
    value = terms.debiased() if debiased else terms.biased()
    null_mean, null_std = terms.null_debiased() if debiased else terms.null_biased()
    return LinearCKATest(value, (1 + b) / (1 + m), null_mean, null_std, m)


def _check(X: Any, Y: Any, backends: list[Any] | None, *, min_samples: int) -> tuple[Matrix, Matrix]:
    """Check the arguments that both functions share; ``backends`` None for the CPU."""
    first = opened(X, "X", backends, min_samples=min_samples)
    second = opened(Y, "Y", backends, min_samples=min_samples)
    check_same_samples(first, second)
    return first, second


def _terms_memory(X: Matrix, Y: Matrix) -> tuple[int, int]:
    """Bytes that :func:`_terms` takes: once, and for each worker."""
    return grams_memory(X, Y) if prefers_grams(X, Y) else moments_memory(X, Y)


def _terms(X: Matrix, Y: Matrix, n_jobs: int, budget: int | None) -> CkaTerms:
    if X.on_device:
        from ._gpu.layers import layer_parts

        parts = layer_parts(cast("DeviceMatrix", X), cast("DeviceMatrix", Y), budget)
        return terms_of_grams(parts) if isinstance(parts, Grams) else terms_of_products(parts, 0, 1)
    if prefers_grams(X, Y):
        return terms_of_grams(layer_grams(X, Y, n_jobs=n_jobs, budget=budget))
    return terms_of_products(layer_moments(X, Y, n_jobs=n_jobs, budget=budget), 0, 1)


@dataclass(frozen=True)
class CkaTerms:
    """Inner products of two centred Gram matrices, each scaled to trace 1.

    Attributes
    ----------
    n : int
        Samples.
    xx, xy, yy : float
        Of the matrices.
    pp, pq, qq : float
        Of their diagonals less the mean 1 / n: the squared norms of the centred samples.
    x_constant, y_constant : bool
        The layer has no variance, and its matrix is zero.
    """

    n: int
    xx: float
    xy: float
    yy: float
    pp: float
    pq: float
    qq: float
    x_constant: bool
    y_constant: bool

    def _parts(self, total: float, diagonal: float) -> tuple[float, float, float]:
        """Split an inner product into those of the three parts that permutations keep; from 4 samples."""
        trivial = 1 / (self.n - 1)
        standard = diagonal * self.n / (self.n - 2)
        rest = total - trivial - standard
        return trivial, standard, rest

    def biased(self) -> float:
        """Linear CKA."""
        if self.x_constant or self.y_constant:
            return 0.0
        return min(1.0, max(0.0, self.xy / (math.sqrt(self.xx) * math.sqrt(self.yy))))

    def debiased(self) -> float:
        """Linear CKA of unbiased estimators; 0 where one of them is zero, as for equidistant samples."""
        if self.x_constant or self.y_constant:
            return 0.0
        of_x, of_y = self._parts(self.xx, self.pp)[2], self._parts(self.yy, self.qq)[2]
        if of_x <= _NOISE * self.xx or of_y <= _NOISE * self.yy:
            return 0.0
        value = self._parts(self.xy, self.pq)[2] / (math.sqrt(of_x) * math.sqrt(of_y))
        return min(1.0, max(-1.0, value))

    def null_biased(self) -> tuple[float, float]:
        """Mean and standard deviation of linear CKA over all permutations of the samples."""
        trivial, standard_x, rest_x = self._parts(self.xx, self.pp)
        _, standard_y, rest_y = self._parts(self.yy, self.qq)
        variance = standard_x * standard_y / (self.n - 1)
        variance += 2 * max(rest_x, 0.0) * max(rest_y, 0.0) / (self.n * (self.n - 3))
        norm = math.sqrt(self.xx) * math.sqrt(self.yy)
        return trivial / norm, math.sqrt(variance) / norm

    def null_debiased(self) -> tuple[float, float]:
        """The same of the debiased form."""
        return 0.0, math.sqrt(2 / (self.n * (self.n - 3)))

    def warn_of_constants(self, X: Matrix, Y: Matrix) -> None:
        """Warn the caller of a public function, once, where a layer is constant."""
        constant = [m.name for m, flag in ((X, self.x_constant), (Y, self.y_constant)) if flag]
        if constant:
            names = " and ".join(constant)
            warnings.warn(f"{names}: every feature is constant; CKA is set to 0", UserWarning, stacklevel=4)


def _sum_of_products(first: Float64, second: Float64) -> float:
    """Sum of elementwise products, without copies of strided views."""
    return float(np.einsum("ij,ij->", first, second))


def terms_of_products(products: LayerProducts, i: int, j: int) -> CkaTerms:
    """CKA's terms of layers i and j.

    With A the norms column of a layer, a its other columns and d their mean, the squared norm of a
    centred sample is A - 2 d.a - |d|^2, so that its products follow from those of the columns.
    """
    traces, weights = [], []
    for which in (i, j):
        traces.append(float(np.trace(products.block(which, which)[:-1, :-1])))
        weights.append(np.append(-2.0 * products.means(which)[:-1], 1.0))

    def inner(first: int, second: int) -> tuple[float, float]:
        """Inner products of two Gram matrices and of their diagonals, at the scale of trace 1."""
        side = {i: 0, j: 1}
        x, y = (0, 1) if first != second else (side[first], side[first])
        block = products.block(first, second)
        root_x, root_y = math.sqrt(traces[x]), math.sqrt(traces[y])
        if root_x == 0 or root_y == 0:
            return 0.0, 0.0
        cross = block[:-1, :-1] / root_x
        cross /= root_y
        diagonal = (weights[x] / traces[x]) @ block @ (weights[y] / traces[y])
        return _sum_of_products(cross, cross), float(diagonal)

    with single_threaded_blas():
        (xx, pp), (xy, pq), (yy, qq) = inner(i, i), inner(i, j), inner(j, j)
    return CkaTerms(products.sums.n, xx, xy, yy, pp, pq, qq, traces[0] == 0, traces[1] == 0)


def terms_of_grams(grams: Grams) -> CkaTerms:
    """CKA's terms from centred Gram matrices; scales them to trace 1 in place."""
    n = len(grams.K)
    traces, deviations = [], []
    for matrix in (grams.K, grams.L):
        trace = float(np.trace(matrix))
        matrix /= trace or 1.0
        diagonal = np.diagonal(matrix)
        traces.append(trace)
        deviations.append(diagonal - diagonal.mean())
    p, q = deviations
    xx, xy, yy = (
        _sum_of_products(first, second)
        for first, second in ((grams.K, grams.K), (grams.K, grams.L), (grams.L, grams.L))
    )
    pp, pq, qq = (float((a * b).sum()) for a, b in ((p, p), (p, q), (q, q)))
    return CkaTerms(n, xx, xy, yy, pp, pq, qq, traces[0] == 0, traces[1] == 0)
