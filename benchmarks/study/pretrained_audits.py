"""One network captured and audited: its layers, the pairs of them, and what they know of the label."""

from __future__ import annotations

import shutil

import numpy as np

import qixai_fast as qf
from benchmarks.environment import SEED

MAX_MAPS = 16  # compared in a pair of layers, those of largest variance
TOP = 5  # components, as the paper gives


def captured(case, model, folder):
    """A store with one row a unit; the folder is begun anew."""
    shutil.rmtree(folder, ignore_errors=True)
    return qf.capture(
        model,
        case.batches,
        [name.split("#")[0] for name in case.layers],
        folder,
        labels=1,
        reduce=case.reduce,
        metadata={"class_names": case.classes},
        progress=False,
    )


def _layer(store, entry, labels, label_entropy):
    """What an audit says of a layer, and beside it what its mean does to its entropy."""
    values = np.asarray(store[entry["name"]], np.float64)
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    scaled = centred[:, spread > 0] / spread[spread > 0]
    ratios = [component["explained_variance_ratio"] for component in entry["components"]]
    bounds = qf.pca(store[entry["name"]], min(TOP, entry["n_maps"])).error_bound
    return {
        "n_maps": entry["n_maps"],
        "n_samples": entry["n_samples"],
        "variance_ratios": ratios,
        "top_variance": sum(ratios[:TOP]),
        "largest_error_bound": float(np.max(bounds)),
        "n_components_90": entry["n_components_90"],
        "entropy": entry["von_neumann_entropy"],
        "entropy_max": entry["von_neumann_entropy_max"],
        "purity": entry["purity"],
        "rank": entry["effective_rank"],
        "rank_centred": float(qf.effective_rank(centred, zero_samples="drop")),
        "rank_scaled": float(qf.effective_rank(scaled, zero_samples="drop")),
        "zero_fraction": entry["zero_fraction"],
        "n_dead": len(entry["dead_maps"]),
        "n_duplicates": sum(len(group) - 1 for group in entry["duplicate_groups"]),
        "n_labels_significant": labels["n_max_p_below_alpha"] if labels else None,
        "label_best": labels["best"][0]["fraction"] if labels else None,
        "label_mean": labels["mean"] / label_entropy if labels else None,
    }


def _pair(entry):
    """What an audit says of two layers."""
    information = entry["mutual_info"]
    return {
        "layers": [entry["layer_a"], entry["layer_b"]],
        "cka": entry["cka"] and entry["cka"]["debiased"],
        "cka_raw": entry["cka"] and entry["cka"]["value"],
        "cka_null": entry["cka"] and entry["cka"]["null_mean"],
        "cka_pvalue": entry["cka"] and entry["cka"]["pvalue"],
        "cosine_raw": entry["cosine"]["raw_median"],
        "cosine_null": entry["cosine"]["raw_null_median"],
        "n_pairs": information["n_pairs"],
        "n_significant": information["n_max_p_below_alpha"],
        "mean_information": information["mean"],
        "largest_information": information["max"],
    }


def _top(row):
    keys = ("layer_a", "map_a", "layer_b", "map_b", "mutual_info", "ksg", "selection_pvalue")
    return {key: row[key] for key in keys}


def audited(case, model, folder, quick):
    """The numbers of one audit that the page shows."""
    store = captured(case, model, folder)
    sizes = {"max_maps": 4, "n_permutations": 19} if quick else {"max_maps": MAX_MAPS, "null_samples": 500}
    plan = qf.AuditPlan(layers=case.layers, **sizes)
    results = qf.audit(store, plan=plan, random_state=SEED, progress=False).results
    section = results["labels"] or {"layers": [], "label_entropy": None}
    labels = {entry["layer"]: entry for entry in section["layers"]}
    rows = results["entangled"]["rows"]
    return {
        "layers": {
            entry["name"]: _layer(store, entry, labels.get(entry["name"]), section["label_entropy"])
            for entry in results["layers"]
        },
        "pairs": [_pair(entry) for entry in results["pairs"]],
        "most_entangled": [
            _top(next(row for row in rows if row["within"] == within)) for within in (False, True)
        ],
        "warnings": sorted({warning["code"] for warning in results["warnings"]}),
        "n_permutations": results["pairs"][0]["mutual_info"]["n_permutations"],
        "n_bins": results["pairs"][0]["mutual_info"]["n_bins"],
    }
