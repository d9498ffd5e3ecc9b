"""Mutual information of columns whose bins are known: codes in files, made once for several calls."""

from __future__ import annotations

import numpy as np

from .._cluster import current
from .._memory import parse_memory, release_pages
from .._threads import resolve_n_jobs
from .._validate import Float64, as_matrix
from ..bins import Bins, Codes
from ..joint_histograms import Index, JointHistograms, Tables
from .bias import PluginEstimator
from .binned import Reader, counts_by_stretches, values_elsewhere, values_of_tiles
from .binned_elsewhere import TilesElsewhere
from .binned_plan import plan_work
from .pairing import Pairs, Tile


def pairwise_of_codes(
    codes_x: Codes,
    codes_y: Codes | None,
    *,
    n_bins: int,
    bias_correction: str | None,
    n_jobs: int | None,
    max_memory: int | float | str | None,
) -> Float64:
    """As :func:`qixai_fast.pairwise_mutual_info_binned`, of columns that are binned already.

    Parameters
    ----------
    codes_x : (d_x, n_samples) uint8 or uint16
        Bin of every value, 0 to n_bins - 1; a memory map may be larger than memory.
    codes_y : (d_y, n_samples), optional
        ``codes_x`` itself where None.
    n_bins, bias_correction, n_jobs, max_memory
        As there.

    Returns
    -------
    (d_x, d_y) float64
    """
    sides = [codes_x] if codes_y is None else [codes_x, codes_y]
    matrices = [as_matrix(codes.T, "codes") for codes in sides]
    pairs = Pairs.of(None, len(codes_x), len(sides[-1]), symmetric=codes_y is None)
    estimator = PluginEstimator(codes_x.shape[1], bias_correction)
    cluster = current()
    if cluster is not None and cluster.reaches(*matrices):
        return values_elsewhere(matrices, pairs, TilesElsewhere(matrices, estimator, n_bins, "codes", False))
    plan = plan_work(
        matrices,
        len(pairs),
        n_bins=n_bins,
        strategy="uniform",
        n_jobs=resolve_n_jobs(n_jobs),
        budget=parse_memory(max_memory),
    )
    # How many bins there are is all that counting asks of them.
    bins = [Bins(np.zeros((len(codes), n_bins + 1)), np.zeros(len(codes))) for codes in sides]

    def count(tile: Tile) -> Tables:
        return JointHistograms(bins, tile.first, tile.second).count(codes_x, sides[-1])

    def reader(codes: Codes) -> Reader:
        def read(columns: Index, start: int, stop: int) -> Codes:
            some: Codes = codes[columns, start:stop]
            release_pages(codes)
            return some

        return read

    if not plan.cached:
        readers = [reader(codes) for codes in sides]
        return values_of_tiles(
            counts_by_stretches(readers, bins, codes_x.shape[1], plan.stretch), pairs, estimator, plan
        )
    return values_of_tiles(count, pairs, estimator, plan)
