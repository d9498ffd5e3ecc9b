"""From joint counts to mutual information in nats: the plug-in estimate, its corrections, normalisations.

Corrections are added to the plug-in estimate I = H(X) + H(Y) - H(X, Y), entropies from relative frequencies:

- ``"miller-madow"``: every entropy grows by (occupied cells - 1) / (2 n) (Miller 1955).
- ``"panzeri-treves"``: as above, but a conditional distribution's relevant cells are estimated, not counted
  (Panzeri and Treves 1996, Network 7:87). Theirs conditions on one variable; both directions are averaged
  here, so that the estimate is symmetric. Of marginals, all occupied cells and no others are relevant.
- ``"grassberger"``: entropies are ln n - sum k G(k) / n (Grassberger 2003, arXiv physics/0307138).
- ``"permutation-mean"``: the exact mean over all permutations of one variable is subtracted (Vinh, Epps and
  Bailey 2010, JMLR 11:2837), from the marginals and without any permuting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .._validate import Float64, check_choice
from ..kernels.entropy_cpu import (
    expected_information,
    fill_grassberger_terms,
    fill_log_terms,
    relevant_excess,
    relevant_excess_of_tables,
    sum_terms,
    summarize_tables,
)

BIAS_CORRECTIONS = (None, "miller-madow", "panzeri-treves", "grassberger", "permutation-mean")
NORMALIZATIONS = (None, "sqrt", "min", "max", "arithmetic", "joint")

TERM_TABLE_BYTES = 65536 * 8
# A denominator below this is rounding: nothing is left to normalise by.
_NO_ENTROPY = 1e-12


@cache
def _terms(grassberger: bool) -> Float64:
    """Terms of counts up to 65,535: 512 KiB, made once."""
    table = np.empty(TERM_TABLE_BYTES // 8)
    (fill_grassberger_terms if grassberger else fill_log_terms)(table)
    return table


@dataclass(frozen=True)
class Summary:
    """What a value is made of, for g tables of joint counts.

    Attributes
    ----------
    sums : (3, g) float64
        Entropy terms summed over the cells, the row sums and the column sums.
    occupied : (3, g) int64
        How many of each are not zero.
    excess : (2, g) float64 or None
        Sum of (relevant cells - 1) over the rows, and over the columns (panzeri-treves).
    expected : (g,) float64 or None
        Mean over permutations (permutation-mean).
    """

    sums: Float64
    occupied: npt.NDArray[np.int64]
    excess: Float64 | None = None
    expected: Float64 | None = None


@dataclass(frozen=True)
class Margins:
    """Marginal counts of columns.

    Attributes
    ----------
    counts : (d, n_bins) int64
    sums : (d,) float64
        Entropy terms of the counts, summed.
    occupied : (d,) int64
        How many counts are not zero.
    """

    counts: npt.NDArray[np.int64]
    sums: Float64
    occupied: npt.NDArray[np.int64]


def _conditionals(rows: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], limit: int) -> float:
    """Sum of (relevant cells - 1) over the rows of a table whose occupied cells come in row order."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows))]).astype(np.int64)
    return float(relevant_excess(counts, starts, limit))


class PluginEstimator:
    """Mutual information from joint counts of ``n_samples`` samples, corrected and normalised."""

    def __init__(self, n_samples: int, bias_correction: str | None, normalize: str | None = None) -> None:
        check_choice(bias_correction, "bias_correction", BIAS_CORRECTIONS)
        check_choice(normalize, "normalize", NORMALIZATIONS)
        self.n_samples = n_samples
        self.bias_correction = bias_correction
        self.normalize = normalize
        self.grassberger = bias_correction == "grassberger"

    def expected(
        self,
        margins_x: npt.NDArray[Any],
        margins_y: npt.NDArray[Any],
        first: npt.NDArray[np.int64],
        second: npt.NDArray[np.int64],
    ) -> Float64:
        """Exact mean of the plug-in estimate over all permutations, from marginal counts.

        Of pairs of columns ``first[p]`` and ``second[p]``; marginal counts are (d_x, a) and (d_y, b).
        """
        ascending = [np.sort(margins, axis=1).astype(np.int64) for margins in (margins_x, margins_y)]
        out = np.empty(len(first))
        expected_information(*ascending, first, second, self.n_samples, _terms(False), out)
        return out

    def expected_of_margins(self, counts_x: npt.NDArray[Any], counts_y: npt.NDArray[Any]) -> float:
        """:meth:`expected` of one pair, from the marginal counts of both."""
        one = np.zeros(1, dtype=np.int64)
        return float(self.expected(counts_x[None], counts_y[None], one, one)[0])

    def expected_of_tables(self, tables: npt.NDArray[Any]) -> Float64:
        """:meth:`expected` of each of (g, a, b) tables."""
        each = np.arange(len(tables), dtype=np.int64)
        return self.expected(tables.sum(axis=2), tables.sum(axis=1), each, each)

    @property
    def terms(self) -> Float64:
        """Entropy terms of small counts."""
        return _terms(self.grassberger)

    @property
    def needs_tables(self) -> bool:
        """Whether sums over the cells and over the marginal counts are not enough."""
        return self.bias_correction == "panzeri-treves"

    def margins(self, counts: npt.NDArray[np.int64]) -> Margins:
        """Marginal counts, (d, n_bins), with what is summed over them."""
        sums = [sum_terms(column, self.terms, self.grassberger) for column in counts]
        return Margins(counts, np.array(sums), np.count_nonzero(counts, axis=1))

    def summarize_sums(
        self,
        margins_x: Margins,
        margins_y: Margins,
        first: npt.NDArray[np.int64],
        second: npt.NDArray[np.int64],
        joint: Float64,
        occupied: npt.NDArray[np.int32],
        tables: npt.NDArray[np.int32] | None = None,
    ) -> Summary:
        """Summarise pairs of columns ``first[p]`` and ``second[p]`` whose cells have been summed elsewhere.

        ``tables`` are asked for where :attr:`needs_tables`.
        """
        sums = np.stack([joint, margins_x.sums[first], margins_y.sums[second]])
        levels = np.stack([occupied, margins_x.occupied[first], margins_y.occupied[second]])
        excess = expected = None
        if tables is not None:
            excess = np.empty((2, len(tables)))
            relevant_excess_of_tables(tables, excess)
        if self.bias_correction == "permutation-mean":
            expected = self.expected(margins_x.counts, margins_y.counts, first, second)
        return Summary(sums, levels, excess, expected)

    def summarize(self, tables: npt.NDArray[np.int32]) -> Summary:
        """Summarise dense tables, (g, a, b)."""
        g = len(tables)
        sums = np.empty((3, g))
        occupied = np.empty((3, g), dtype=np.int64)
        summarize_tables(tables, _terms(self.grassberger), self.grassberger, sums, occupied)
        excess = expected = None
        if self.bias_correction == "panzeri-treves":
            excess = np.empty((2, g))
            relevant_excess_of_tables(tables, excess)
        if self.bias_correction == "permutation-mean":
            expected = self.expected_of_tables(tables)
        return Summary(sums, occupied, excess, expected)

    def summarize_cells(
        self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> Summary:
        """Summarise one table given by its occupied cells, ordered by row and then by column."""
        margins = [np.bincount(index, weights=counts).astype(np.int64) for index in (rows, columns)]
        table = _terms(self.grassberger)
        parts = [counts, *margins]
        sums = np.array([[sum_terms(part, table, self.grassberger)] for part in parts])
        occupied = np.array([[np.count_nonzero(part)] for part in parts])
        excess = expected = None
        if self.bias_correction == "panzeri-treves":
            excess = np.array(self._excess(rows, columns, counts))[:, None]
        if self.bias_correction == "permutation-mean":
            expected = np.array([self.expected_of_margins(*margins)])
        return Summary(sums, occupied, excess, expected)

    @staticmethod
    def _excess(
        rows: npt.NDArray[np.int64],
        columns: npt.NDArray[np.int64],
        counts: npt.NDArray[Any],
    ) -> tuple[float, float]:
        counts = counts.astype(np.int64)
        by_column = np.argsort(columns, kind="stable")
        limits = len(np.unique(columns)), len(np.unique(rows))
        return (
            _conditionals(rows, counts, limits[0]),
            _conditionals(columns[by_column], counts[by_column], limits[1]),
        )

    def values(self, summary: Summary) -> Float64:
        """Mutual information of each summarised table, (g,), in nats or normalised."""
        n = float(self.n_samples)
        joint, rows, columns = summary.sums
        cells, levels_x, levels_y = summary.occupied
        whole = n * np.log(n)
        values = ((joint - columns) + (whole - rows)) / n
        entropy_x = (whole - rows) / n
        entropy_y = (whole - columns) / n
        if self.bias_correction in ("miller-madow", "panzeri-treves"):
            entropy_x = entropy_x + (levels_x - 1) / (2.0 * n)
            entropy_y = entropy_y + (levels_y - 1) / (2.0 * n)
        if self.bias_correction == "miller-madow":
            values -= (cells - levels_x - levels_y + 1) / (2.0 * n)
        elif summary.excess is not None:
            given_x, given_y = summary.excess
            values -= ((given_x - (levels_y - 1)) + (given_y - (levels_x - 1))) / (4.0 * n)
        chance = 0.0 if summary.expected is None else summary.expected
        entropy_joint = entropy_x + entropy_y - values
        values = values - chance
        if self.normalize is not None:
            denominator = self._denominator(entropy_x, entropy_y, entropy_joint) - chance
            usable = denominator > _NO_ENTROPY
            values = np.where(usable, values / np.where(usable, denominator, 1.0), 0.0)
        constant = (levels_x == 1) | (levels_y == 1)
        return np.where(constant, 0.0, values)

    def _denominator(self, x: Float64, y: Float64, joint: Float64) -> Float64:
        if self.normalize == "sqrt":
            return np.sqrt(np.maximum(x, 0.0)) * np.sqrt(np.maximum(y, 0.0))
        if self.normalize == "min":
            return np.minimum(x, y)
        if self.normalize == "max":
            return np.maximum(x, y)
        if self.normalize == "arithmetic":
            return (x + y) / 2.0
        return joint
