"""What the maps of a layer know of the class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._validate import Array
from ..mutual_info.mixed import mutual_info_mixed
from ..mutual_info.significance import mutual_info_test
from .context import AuditContext, draw_rows, quiet
from .files import Stage
from .memory import take_rows

# What the stage reads of the plan: part of its key.
LABEL_FIELDS = ("n_neighbors", "n_bins", "strategy", "n_permutations", "alpha", "test_samples")

_LISTED = 10


def label_entropy(codes: npt.NDArray[np.int64]) -> float:
    """Entropy of the class labels, nats."""
    share = np.bincount(codes) / len(codes)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def label_stage(context: AuditContext, layer: str, rng: np.random.Generator) -> Stage:
    """Mutual information of each map with the classes: :class:`LayerLabels` without name and file.

    Values are Ross's nearest-neighbour estimate, which needs no bins. p-values come from the binned
    estimate of the same dependence, with the labels shuffled: as valid, and far faster. Above
    ``test_samples`` samples they are those of a draw.
    """
    assert context.classes is not None, "stages are planned only where there are classes"
    codes, plan = context.classes.codes, context.plan
    assert plan.n_permutations is not None, "resolve_plan fills it in"
    assert plan.n_bins is not None, "resolve_plan fills it in"
    values = np.asarray(
        mutual_info_mixed(
            context.by_columns(layer), codes, n_neighbors=plan.n_neighbors, **context.options()
        ),
        dtype=np.float64,
    )
    data = context.store[layer]
    rows = draw_rows(context.n_samples, plan.test_samples, rng)
    everything = len(rows) == context.n_samples
    if not everything:
        context.require(len(rows) * data.shape[1] * data.itemsize, f"{len(rows)} samples of {layer!r}")
    with quiet():
        test = mutual_info_test(
            data if everything else take_rows(data, rows),
            labels=codes[rows],
            n_permutations=plan.n_permutations,
            n_bins=plan.n_bins,
            strategy=plan.strategy,
            bias_correction="permutation-mean",
            random_state=rng,
            **context.options(),
        )
    pvalues, qvalues, family, information = (
        np.asarray(table, dtype=np.float64)
        for table in (test.pvalues, test.qvalues, test.max_pvalues, test.values)
    )
    entropy = label_entropy(codes)
    best = np.argsort(-values, kind="stable")[:_LISTED]
    result = {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "max": float(values.max()),
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
        "binned": information,
        "pvalues": pvalues,
        "qvalues": qvalues,
        "max_pvalues": family,
    }
    return result, arrays
