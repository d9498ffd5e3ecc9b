"""What the maps of a layer know of the class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._validate import Array
from ..joint_histograms import code_dtype, encode, quantile_bins, uniform_bins
from ..mutual_info.mixed import mutual_info_mixed
from ..mutual_info.significance import mutual_info_test
from .context import AuditContext, quiet
from .files import Stage

# What the stage reads of the plan: part of its key.
LABEL_FIELDS = ("n_neighbors", "n_bins", "strategy", "n_permutations", "alpha")

_LISTED = 10
_COLUMNS = 16  # sorted at a time, for quantile edges
_ROWS = 4096  # read at a time


def label_entropy(codes: npt.NDArray[np.int64]) -> float:
    """Entropy of the class labels, nats."""
    share = np.bincount(codes) / len(codes)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def label_stage(context: AuditContext, layer: str, rng: np.random.Generator) -> Stage:
    """Mutual information of each map with the classes: :class:`LayerLabels` without name and file.

    Values are Ross's nearest-neighbour estimate, which needs no bins. p-values come from the binned
    estimate of the same dependence, with the labels shuffled: as valid, and far faster.
    """
    assert context.classes is not None, "stages are planned only where there are classes"
    codes, plan = context.classes.codes, context.plan
    assert plan.n_permutations is not None, "resolve_plan fills it in"
    values = np.asarray(
        mutual_info_mixed(context.store[layer], codes, n_neighbors=plan.n_neighbors, **context.options()),
        dtype=np.float64,
    )
    binned = _binned(context, layer)
    with quiet():
        # Both sides are small integers: with as many bins as there are values, each keeps its own.
        test = mutual_info_test(
            binned,
            codes[:, None],
            n_permutations=plan.n_permutations,
            n_bins=max(int(binned.max()), int(codes.max())) + 1,
            bias_correction="permutation-mean",
            random_state=rng,
            **context.options(beside=binned.nbytes),
        )
    pvalues, qvalues, family, information = (
        np.asarray(table, dtype=np.float64)[:, 0]
        for table in (test.pvalues, test.qvalues, test.max_pvalues, test.values)
    )
    entropy = label_entropy(codes)
    best = np.argsort(-values, kind="stable")[:_LISTED]
    result = {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "max": float(values.max()),
        "n_permutations": plan.n_permutations,
        "n_max_p_below_alpha": int((family <= plan.alpha).sum()),
        "best": [
            {
                "map": int(i),
                "mutual_info": float(values[i]),
                "fraction": float(values[i]) / entropy,
                "pvalue": float(pvalues[i]),
                "qvalue": float(qvalues[i]),
                "max_pvalue": float(family[i]),
            }
            for i in best
        ],
    }
    arrays: dict[str, Array] = {
        "values": values,
        "binned": information,
        "pvalues": pvalues,
        "qvalues": qvalues,
        "max_pvalues": family,
    }
    return result, arrays


def _binned(context: AuditContext, layer: str) -> Array:
    """The plan's bin of every value, (n_samples, n_maps) small integers."""
    matrix = context.matrix(layer)
    n_bins = context.plan.n_bins
    assert n_bins is not None, "resolve_plan fills it in"
    n, d = matrix.data.shape
    rows = min(n, _ROWS)
    size = n * d * code_dtype(n_bins).itemsize + 8 * n * min(d, _COLUMNS) + 16 * d * rows * context.workers()
    context.require(size, f"the bins of {matrix.name}")
    common = {"rows": rows, "n_jobs": context.workers()}
    if context.plan.strategy == "quantile":
        bins = quantile_bins(matrix, n_bins, columns=_COLUMNS, **common)
    else:
        bins = uniform_bins(matrix, n_bins, **common)
    return encode(matrix, bins, **common).T
