"""Entropy sums over integer counts, and the finite-sample corrections that need a loop of their own.

A term of a count k is ``k ln k`` (plug-in) or ``k G(k)`` (Grassberger 2003). Terms of small counts come
from a table of a fixed size, so a count has the same term in every call.
"""

import math

import numpy as np

from ._jit import jit

_EULER_GAMMA = 0.57721566490153286
# Weights below this share of the largest add nothing to a float64 sum.
_NEGLIGIBLE = 1e-20
# A count whose mean is at least this has its expectation from so many central moments: the next ones are
# below 1e-12 of the first.
_LARGE_MEAN = 500.0
_ORDERS = 13
_CHOOSE = np.array([[math.comb(m, j) for j in range(_ORDERS)] for m in range(_ORDERS)], dtype=np.float64)


@jit
def fill_log_terms(table):
    """Write ``k ln k`` at every index k."""
    table[0] = 0.0
    for k in range(1, table.size):
        table[k] = k * math.log(k)


@jit
def fill_grassberger_terms(table):
    """Write ``k G(k)``, G(k) = psi(k) + (-1)^k (psi((k + 1) / 2) - psi(k / 2)) / 2, at every index k.

    By the recursion G(1) = -gamma - ln 2, G(2m + 1) = G(2m), G(2m + 2) = G(2m) + 2 / (2m + 1).
    """
    table[0] = 0.0
    value = -_EULER_GAMMA - math.log(2.0)
    for k in range(1, table.size):
        if k % 2 == 0:
            value += 2.0 / (k - 1)
        table[k] = k * value


@jit
def _term(count, table, grassberger):
    if count < table.size:
        return table[count]
    if not grassberger:
        return count * math.log(count)
    # G(2m) = psi(m + 1/2) + ln 2, by its asymptotic series; exact in float64 beyond the table.
    half = float(count // 2)
    return count * (math.log(2.0 * half) + 1.0 / (24.0 * half * half))


@jit
def sum_terms(counts, table, grassberger):
    """Sum the terms of a flat array of counts."""
    total = 0.0
    for c in range(counts.size):
        if counts[c] > 0:
            total += _term(counts[c], table, grassberger)
    return total


@jit
def summarize_tables(tables, table, grassberger, sums, occupied):
    """Sum the terms of joint tables and of their marginals, and count the occupied cells.

    Parameters
    ----------
    tables : (g, a, b) int32
    table : (size,) float64
        Terms of counts below ``size``.
    grassberger : bool
        Which term the table holds.
    sums : (3, g) float64, written
        Over the cells, over the row sums, over the column sums.
    occupied : (3, g) int64, written
        How many of each are not zero.
    """
    pairs, bins_x, bins_y = tables.shape
    columns = np.empty(bins_y, dtype=np.int64)
    for p in range(pairs):
        columns[:] = 0
        joint = 0.0
        joint_cells = 0
        margin = 0.0
        margin_cells = 0
        for a in range(bins_x):
            row = 0
            for b in range(bins_y):
                count = tables[p, a, b]
                if count > 0:
                    row += count
                    columns[b] += count
                    joint += _term(count, table, grassberger)
                    joint_cells += 1
            if row > 0:
                margin += _term(row, table, grassberger)
                margin_cells += 1
        sums[0, p] = joint
        occupied[0, p] = joint_cells
        sums[1, p] = margin
        occupied[1, p] = margin_cells
        margin = 0.0
        margin_cells = 0
        for b in range(bins_y):
            if columns[b] > 0:
                margin += _term(columns[b], table, grassberger)
                margin_cells += 1
        sums[2, p] = margin
        occupied[2, p] = margin_cells


@jit
def _expected_occupied(counts, n, extra):
    """Expected number of occupied cells were there ``extra`` cells besides the seen ones.

    Cells have the posterior means of Panzeri and Treves (1996): with m seen cells, an unseen one has
    q = 1 - (n / (n + m))^(1 / n), and the seen ones share the rest in proportion to count + 1. So an unseen
    cell is occupied with probability 1 - (1 - q)^n = m / (n + m).
    """
    m = counts.size
    unseen = 1.0 - math.exp(math.log(n / (n + m)) / n)
    share = max(0.0, 1.0 - extra * unseen) / (n + m)
    expected = extra * (m / (n + m))
    for c in range(m):
        p = share * (counts[c] + 1.0)
        expected += 1.0 - math.exp(n * math.log1p(-p)) if p < 1.0 else 1.0
    return expected


@jit
def relevant_cells(counts, limit):
    """How many cells are relevant to a distribution that was seen in ``counts`` (all above 0).

    The number from ``counts.size`` to ``limit`` under which as many occupied cells as were seen are expected,
    as nearly as can be (Panzeri and Treves 1996).
    """
    m = counts.size
    if m >= limit:
        return m
    n = float(counts.sum())
    best = m
    error = abs(m - _expected_occupied(counts, n, 0))
    for cells in range(m + 1, limit + 1):
        trial = abs(m - _expected_occupied(counts, n, cells - m))
        if trial >= error:
            break
        best = cells
        error = trial
    return best


@jit
def relevant_excess(cells, starts, limit):
    """Sum of (relevant cells - 1) over conditional distributions.

    Parameters
    ----------
    cells : (m,) int64
        Occupied cells, one distribution after the other.
    starts : (k + 1,) int64
        Distribution r is ``cells[starts[r]:starts[r + 1]]``; an empty one adds nothing.
    limit : int
        Cells that any of them can have.
    """
    total = 0
    for r in range(starts.size - 1):
        if starts[r + 1] > starts[r]:
            total += relevant_cells(cells[starts[r] : starts[r + 1]], limit) - 1
    return total


@jit
def relevant_excess_of_tables(tables, excess):
    """:func:`relevant_excess` of joint tables, given x and given y.

    Parameters
    ----------
    tables : (g, a, b) int32
    excess : (2, g) float64, written
        Sums over the rows, and over the columns, of a table.
    """
    pairs, bins_x, bins_y = tables.shape
    cells = np.empty(bins_x * bins_y, dtype=np.int64)
    starts = np.empty(max(bins_x, bins_y) + 1, dtype=np.int64)
    seen = np.empty(max(bins_x, bins_y), dtype=np.bool_)
    for p in range(pairs):
        for side in range(2):
            # Occupied cells one distribution after the other, and how many levels the other variable has.
            found = 0
            levels = 0
            given, other = (bins_x, bins_y) if side == 0 else (bins_y, bins_x)
            seen[:] = False
            for a in range(given):
                starts[a] = found
                for b in range(other):
                    count = tables[p, a, b] if side == 0 else tables[p, b, a]
                    if count > 0:
                        cells[found] = count
                        found += 1
                        levels += not seen[b]
                        seen[b] = True
            starts[given] = found
            excess[side, p] = relevant_excess(cells, starts[: given + 1], levels)


@jit
def _expanded_cell(a, b, n, moments):
    """As :func:`_expected_cell`, from central moments of the count: where its mean is large.

    With x = k - mu, k ln(k / mu) = x + sum over m >= 2 of (-1)^m x^m / (m (m - 1) mu^(m - 1)). Central
    moments of a hypergeometric count follow from E[k (n - a - b + k) h(k)] = E[(a - k) (b - k) h(k + 1)]
    with h(k) = x^(m - 1): n - m + 1 times the m-th is a sum over those before it. ``moments`` is room for
    them.
    """
    mu = a * (b / n)
    both = (a - mu) + (b - mu)
    product = (a - mu) * (b - mu)
    moments[0] = 1.0
    moments[1] = 0.0
    total = 0.0
    power = 1.0
    for m in range(2, _ORDERS + 1):
        moments[m] = 0.0
        moment = 0.0
        for j in range(m - 1):
            moment += _CHOOSE[m - 1, j] * (moments[j + 2] + product * moments[j] - both * moments[j + 1])
        moments[m] = moment / (n - m + 1.0)
        power *= -1.0 / mu
        term = -power * moments[m] / (m * (m - 1.0))
        total += term
        # Odd moments may be 0.
        if m % 2 == 0 and term < 1e-17 * total:
            break
    return total


@jit
def _expected_cell(a, b, n, table, moments):
    """E[k ln(k n / (a b))] for the hypergeometric count k of a cell with marginals a and b.

    Weights start from 1 at the mode and are normalised by their own sum, so that no factorial of a large
    number is ever taken.
    """
    if a * (b / n) >= _LARGE_MEAN:
        return _expanded_cell(float(a), float(b), float(n), moments)
    low = max(0, a + b - n)
    high = min(a, b)
    mode = min(max(int((a + 1.0) * (b + 1.0) / (n + 2.0)), low), high)
    shift = math.log(a) + math.log(b) - math.log(n)
    total = 1.0
    moment = _term(mode, table, False) - mode * shift
    weight = 1.0
    for k in range(mode, high):
        weight *= (a - k) * (b - k) / ((k + 1.0) * (n - a - b + k + 1.0))
        if weight < _NEGLIGIBLE:
            break
        total += weight
        moment += weight * (_term(k + 1, table, False) - (k + 1) * shift)
    weight = 1.0
    for k in range(mode, low, -1):
        weight *= k * float(n - a - b + k) / ((a - k + 1.0) * (b - k + 1.0))
        if weight < _NEGLIGIBLE:
            break
        total += weight
        moment += weight * (_term(k - 1, table, False) - (k - 1) * shift)
    return moment / total


@jit
def _runs(ascending, values, repeats):
    """Write the distinct counts above 0 of an ascending array, and how often each occurs; return how many."""
    found = 0
    for i in range(ascending.size):
        if ascending[i] > 0:
            if found > 0 and values[found - 1] == ascending[i]:
                repeats[found - 1] += 1
            else:
                values[found] = ascending[i]
                repeats[found] = 1
                found += 1
    return found


@jit
def expected_information(margins_x, margins_y, first, second, n, table, out):
    """Mean plug-in mutual information over all permutations of one variable, in nats, for pairs of columns.

    It depends on the marginal counts alone (Vinh, Epps and Bailey 2010), and cells with the same marginals
    have the same mean: quantile bins cost next to nothing. Exactly 0 where a column is constant.

    Parameters
    ----------
    margins_x : (d_x, a) int64
        Marginal counts of each column, ascending.
    margins_y : (d_y, b) int64
    first, second : (g,) int64
        Pair ``p`` joins columns ``first[p]`` and ``second[p]``.
    n : int
        Samples.
    table : (size,) float64
        Terms ``k ln k`` of counts below ``size``.
    out : (g,) float64, written
    """
    values_x = np.empty_like(margins_x)
    repeats_x = np.empty_like(margins_x)
    levels_x = np.empty(len(margins_x), np.int64)
    for i in range(len(margins_x)):
        levels_x[i] = _runs(margins_x[i], values_x[i], repeats_x[i])
    values_y = np.empty_like(margins_y)
    repeats_y = np.empty_like(margins_y)
    levels_y = np.empty(len(margins_y), np.int64)
    for j in range(len(margins_y)):
        levels_y[j] = _runs(margins_y[j], values_y[j], repeats_y[j])
    moments = np.empty(_ORDERS + 1)
    for p in range(first.size):
        i = first[p]
        j = second[p]
        total = 0.0
        if values_x[i, 0] < n and values_y[j, 0] < n:
            for a in range(levels_x[i]):
                for b in range(levels_y[j]):
                    times = repeats_x[i, a] * repeats_y[j, b]
                    total += times * _expected_cell(values_x[i, a], values_y[j, b], n, table, moments)
        out[p] = total / n
