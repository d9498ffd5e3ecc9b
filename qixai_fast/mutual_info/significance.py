"""Is mutual information more than chance? Permutation p-values for pairs of columns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from .._dask_arrays import dask_inputs
from .._device import backends_for, home_of, resolve_device
from .._memory import parse_memory
from .._random import as_generator
from .._threads import resolve_n_jobs
from .._validate import Float64, as_input, check_choice, check_int, check_same_samples
from .binned_null import BinnedNull, NullOptions
from .ksg_null import KSGNull
from .mixed import label_codes
from .pairing import Pairs
from .pairwise import check_options
from .permutations import Exchange
from .rounds import ROUND_BYTES, Null, Rounds, draw_seeds

ESTIMATORS = ("binned", "ksg")

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class MutualInfoTest:
    """Result of :func:`mutual_info_test`.

    Arrays are (d_x, d_y), (n_pairs,) with ``pairs``, or (d_x,) with ``labels``.
    Without Y the matrices are symmetric; on the diagonal, which is no test, all but ``values`` are NaN, and
    ``n_permutations_used`` is 0.

    Attributes
    ----------
    values : array, float64
        Mutual information in nats.
    pvalues : array, float64
        (1 + b) / (1 + m), where b of m permutations gave at least the observed value; b / m for a pair that
        ``stop_after`` settled at the last of them.
    qvalues : array, float64
        Benjamini-Hochberg adjusted p-values over all tested pairs.
    null_mean : array, float64
        Mean over the permutations used, in nats. That of a pair settled early is a little too high: its last
        permutation is one that reached the observed value.
    n_permutations_used : array, int64
        Permutations m of each pair: ``n_permutations`` for all without ``stop_after``.
    max_pvalues : array, float64
        Family-wise p-values: (1 + b) / (1 + m), where the largest statistic of all tested pairs reached this
        pair's in b of m permutations: with ``stop_after``, of the first ``20 * stop_after``.
    """

    values: Any
    pvalues: Any
    qvalues: Any
    null_mean: Any
    n_permutations_used: Any
    max_pvalues: Any


def _benjamini_hochberg(pvalues: Float64) -> Float64:
    """Adjusted p-values: the smallest false discovery rate at which each test is still found."""
    order = np.argsort(pvalues, kind="stable")
    scaled = pvalues[order] * len(pvalues) / np.arange(1, len(pvalues) + 1)
    adjusted = np.empty_like(scaled)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def _warn_if_hopeless(n_permutations: int, n_arrangements: float, n_tests: int) -> None:
    """Warn where one pair alone cannot be found among all, however small its p-value."""
    least = max(1.0 / (1 + n_permutations), 1.0 / n_arrangements)
    if least * n_tests < _SIGNIFICANT:
        return
    wanted = ceil(n_tests / _SIGNIFICANT)
    if n_arrangements > wanted:
        advice = (
            f"use n_permutations={wanted} or more (cheap with stop_after=10), fewer pairs, or max_pvalues"
        )
    else:
        advice = f"the samples can be arranged in only {n_arrangements:.0f} ways, so more do not help"
    warnings.warn(
        f"mutual_info_test: {n_permutations} permutations give no p-value below {least:.2g}, so one "
        f"dependent pair among {n_tests} cannot reach q < {_SIGNIFICANT}: {advice}",
        UserWarning,
        stacklevel=4,
    )


@dask_inputs("X", "Y", access="columns")
def mutual_info_test(
    X: Any,
    Y: Any = None,
    *,
    labels: Any = None,
    estimator: str = "binned",
    n_permutations: int = 1000,
    stop_after: int | None = None,
    groups: Any = None,
    random_state: Any = None,
    pairs: Any = None,
    n_bins: int = 16,
    strategy: str = "uniform",
    zero_bin: bool = False,
    bias_correction: str | None = None,
    n_neighbors: int = 3,
    algorithm: int = 1,
    scale: str | None = "std",
    atoms: str = "auto",
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> MutualInfoTest:
    """Permutation test of independence for pairs of columns, or for columns and class labels.

    In each round all columns of Y are put into one random order of the samples. It is the same for all pairs,
    so that columns of one side keep their dependence, and the largest value of a round is one draw from the
    null of the largest. Columns are binned, or sorted, once for all rounds.

    Parameters
    ----------
    X : array_like, shape (n_samples, d_x)
    Y : array_like, shape (n_samples, d_y), optional
        Without it, all pairs i < j of columns of X are tested.
    labels : array_like, shape (n_samples,), optional
        Instead of Y, the class of each sample, as :func:`mutual_info_mixed` takes it: each column of X is
        tested against it. The estimator "ksg" then is Ross's, and "binned" counts every class by itself.
    estimator : {"binned", "ksg"}
    n_permutations : int
        Rounds. The smallest p-value is 1 / (1 + n_permutations); where that cannot reach q < 0.05 over all
        pairs, a UserWarning says what can.
    stop_after : int, optional
        Stop asking a pair once this many permutations reached its value, so that many rounds cost little
        where few pairs are dependent: 10 is usual. The first ``20 * stop_after`` rounds ask all pairs, and
        ``max_pvalues`` come from these alone. None asks all pairs in all rounds.
    groups : array_like, shape (n_samples,), optional
        Group of each sample, where samples of a group (frames of a video, tokens of a text) are not
        independent. Whole groups trade places, their samples in order, with groups of the same size; a group
        of a size that no other has stays where it is. None permutes single samples.
    random_state : None, int, Generator or RandomState
    pairs : array_like of int, shape (n_pairs, 2), optional
        Column of X and column of Y (or X) of the pairs to test, instead of all. Pairs chosen because they
        are large must not be tested alone: test all pairs, and read ``max_pvalues``, which account for the
        choice.
    n_bins, strategy, zero_bin, bias_correction
        For "binned", as in :func:`mutual_info_binned`.
    n_neighbors, algorithm, scale, atoms
        For "ksg", as in :func:`mutual_info_ksg`. Labels have no use for algorithm and scale.
    n_jobs : int, optional
        Threads; all usable cores by default. The result is the same for any number.
    device : None, "cpu", "cuda" or "cuda:1"
        For "binned"; None is that of X or Y where one lives on a GPU, else the CPU. Permutations, and so
        p-values, are the same on both.
    max_memory : int or str, optional
        Bytes, or "2GB": the most this call allocates besides the result; on a GPU, of its memory. The binned
        test holds all codes (a byte a value up to 256 bins); the KSG test holds as many columns as fit, two
        at least, and goes through the rounds again for every tile of pairs.

    Returns
    -------
    MutualInfoTest
        ``values``, ``pvalues`` with (1 + b) / (1 + m), Benjamini-Hochberg ``qvalues``, ``null_mean``,
        ``n_permutations_used`` and the family-wise ``max_pvalues`` of Westfall and Young (1993, single step).
        The statistic of the last is, for "binned", the value less its exact permutation mean E (corrected
        values as they are), divided by sqrt(E / n_samples), so that pairs with many and with few occupied
        bins compare; for "ksg" the value itself.

    Raises
    ------
    ValueError
        For wrong shapes, options out of range, NaN or infinite values, fewer than two samples, groups none of
        which can trade places, and a single column without Y.
    TypeError
        For dtypes that are not real numbers.
    MemoryBudgetError
        Where ``max_memory`` is too small; says what would do.

    Notes
    -----
    With ``stop_after=h``, let F be 20 h rounds. A pair that h or more of them reached has the p-value
    (1 + b) / (1 + F). Others go on: one that the h-th permutation reaches in round m has h / m, and one that
    fewer reach in all ``n_permutations`` has (1 + b) / (1 + n_permutations). Under independence the observed
    value is among the h largest of m with probability at most h / m, so P(p <= a) <= a for every a
    (Besag and Clifford 1991, section 3), and the q-values stand on valid p-values.

    The largest of a round stands for the null of the largest only where no pair is missing, and pairs that
    were dropped were dropped for being small: family-wise p-values cannot use the later rounds.

    References
    ----------
    Besag and Clifford, "Sequential Monte Carlo p-values", Biometrika 78, 301 (1991).

    Westfall and Young, "Resampling-based multiple testing" (Wiley, 1993), section 2.6.

    Examples
    --------
    >>> import numpy as np
    >>> from qixai_fast import mutual_info_test
    >>> rng = np.random.default_rng(1)
    >>> x = rng.standard_normal(300)
    >>> Y = np.column_stack([x + rng.standard_normal(300), rng.standard_normal(300)])
    >>> test = mutual_info_test(x[:, None], Y, n_bins=8, n_permutations=199, random_state=0)
    >>> test.pvalues < 0.05
    array([[ True, False]])

    Ten thousand rounds, of which the second pair is spared all but a few:

    >>> test = mutual_info_test(x[:, None], Y, n_bins=8, n_permutations=9999, stop_after=10, random_state=0)
    >>> test.n_permutations_used
    array([[9999,  200]])
    """
    check_choice(estimator, "estimator", ESTIMATORS)
    n_permutations = check_int(n_permutations, "n_permutations", low=1)
    if stop_after is not None:
        stop_after = check_int(stop_after, "stop_after", low=1)
    if estimator == "binned":
        backends = backends_for(device, X, Y)
    else:
        resolve_device(device)
        backends = None
    matrices = [as_input(X, "X", backends)]
    if labels is not None and not (Y is None and pairs is None):
        raise ValueError("labels: are tested against every column of X; leave out Y and pairs")
    if Y is not None:
        matrices.append(as_input(Y, "Y", backends))
        check_same_samples(*matrices)
    first, last = matrices[0], matrices[-1]
    classes = None if labels is None else label_codes(labels, first.n_samples)
    if classes is not None:
        columns = np.arange(first.n_features)
        pairs = np.column_stack([columns, np.zeros_like(columns)])
    elif Y is None and pairs is None and first.n_features < 2:
        raise ValueError(f"X: wanted at least 2 features where Y is not given, got shape {first.data.shape}")
    symmetric = Y is None and classes is None
    tested = Pairs.of(pairs, first.n_features, last.n_features, symmetric=symmetric, diagonal=False)
    exchange = Exchange(first.n_samples, groups)
    generator = as_generator(random_state)
    threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
    held = ROUND_BYTES * n_permutations
    null: Null
    if estimator == "binned":
        binned = NullOptions.of(
            first.n_samples,
            classes,
            n_bins=n_bins,
            strategy=strategy,
            zero_bin=zero_bin,
            bias_correction=bias_correction,
        )
        if backends is None:
            null = BinnedNull(matrices, tested, classes, binned, n_jobs=threads, budget=budget, held=held)
        else:
            from .._gpu.binned_null import DeviceBinnedNull

            null = DeviceBinnedNull(
                matrices, tested, classes, binned, backend=backends[0], max_memory=budget, n_jobs=threads
            )
    else:
        options = check_options(
            first.n_samples, n_neighbors=n_neighbors, algorithm=algorithm, scale=scale, atoms=atoms, seed=0
        )
        null = KSGNull(matrices, tested, classes, options, n_jobs=threads, budget=budget, held=held)
    _warn_if_hopeless(n_permutations, exchange.n_arrangements, len(tested))

    seeds = draw_seeds(generator, n_permutations)
    outcome = Rounds(exchange, seeds, stop_after).run(null)
    values = tested.spread(outcome.values)
    if tested.symmetric and tested.chosen is None:
        np.fill_diagonal(values, null.diagonal())
    bring = home_of(X).bring
    n_used = np.nan_to_num(tested.spread(outcome.n_used.astype(np.float64)))
    return MutualInfoTest(
        values=bring(values),
        pvalues=bring(tested.spread(outcome.pvalues)),
        qvalues=bring(tested.spread(_benjamini_hochberg(outcome.pvalues))),
        null_mean=bring(tested.spread(outcome.null_mean)),
        n_permutations_used=bring(n_used.astype(np.int64)),
        max_pvalues=bring(tested.spread(outcome.max_pvalues)),
    )
