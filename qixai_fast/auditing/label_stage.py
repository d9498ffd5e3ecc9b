"""What the maps of a layer know of the class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._threads import ordered_map
from .._validate import Array, Float64
from ..mutual_info.mixed import mutual_info_mixed
from .context import AuditContext
from .files import Stage

_LISTED = 10


def label_entropy(codes: npt.NDArray[np.int64]) -> float:
    """Entropy of the class labels, nats."""
    share = np.bincount(codes) / len(codes)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def label_stage(context: AuditContext, layer: str, rng: np.random.Generator) -> Stage:
    """Mutual information of each map with the classes: :class:`LayerLabels` without name and file.

    p-values compare with shuffled labels, on the same samples; the family-wise ones compare with the
    largest value over the layer's maps in each shuffle (Westfall and Young 1993).
    """
    assert context.classes is not None, "stages are planned only where there are classes"
    codes, plan = context.classes.codes, context.plan
    assert plan.n_permutations is not None, "resolve_plan fills it in"
    data = context.store[layer]
    values = np.asarray(
        mutual_info_mixed(data, codes, n_neighbors=plan.n_neighbors, **context.options()), dtype=np.float64
    )
    rows = context.test_rows(rng)
    tested = np.array(data[rows], dtype=np.float64)
    codes = codes[rows]

    def information(labels: npt.NDArray[np.int64]) -> Float64:
        found: Array = mutual_info_mixed(
            tested, labels, n_neighbors=plan.n_neighbors, n_jobs=1, max_memory=plan.max_memory
        )
        return np.asarray(found, dtype=np.float64)

    observed = information(codes)
    shuffles = (rng.permutation(codes) for _ in range(plan.n_permutations))
    null = np.stack(list(ordered_map(information, shuffles, context.workers())))
    pvalues = (1 + (null >= observed).sum(axis=0)) / (1 + plan.n_permutations)
    family = (1 + (null.max(axis=1)[:, None] >= observed).sum(axis=0)) / (1 + plan.n_permutations)
    qvalues = benjamini_hochberg(pvalues)
    entropy = label_entropy(context.classes.codes)
    best = np.argsort(-values, kind="stable")[:_LISTED]
    result = {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "max": float(values.max()),
        "null_mean": float(null.mean()),
        "n_permutations": plan.n_permutations,
        "n_samples_tested": len(rows),
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
        "null_mean": null.mean(axis=0),
        "pvalues": pvalues,
        "qvalues": qvalues,
        "max_pvalues": family,
    }
    return result, arrays


def benjamini_hochberg(pvalues: Float64) -> Float64:
    """q-values of one family (Benjamini and Hochberg 1995)."""
    order = np.argsort(pvalues, kind="stable")[::-1]
    ranks = np.arange(len(pvalues), 0, -1)
    qvalues = np.empty_like(pvalues)
    qvalues[order] = np.minimum.accumulate(np.minimum(1.0, pvalues[order] * len(pvalues) / ranks))
    return qvalues
