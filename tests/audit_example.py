"""A small, synthetic, fully valid audit result, for tests of the report."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from qixai_fast.auditing.plan import AuditPlan

LAYERS = {"conv1": 8, "conv2": 12, "dense": 16}
CLASSES = ["zero", "one", "two"]
N = 300


def example_results(out: Path | None = None) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Results and arrays as ``qixai_fast.audit`` returns them; ``out`` takes the .npz files."""
    rng = np.random.default_rng(0)
    arrays: dict[str, dict[str, np.ndarray]] = {}
    layers = [_layer(name, d, index, arrays, rng) for index, (name, d) in enumerate(LAYERS.items())]
    names = list(LAYERS)
    order = [*itertools.combinations(range(len(names)), 2), *((i, i) for i in range(len(names)))]
    pairs = [_pair(names[a], names[b], a, b, arrays, rng) for a, b in order]
    results = {
        "schema_version": 1,
        "package_version": "0.1.0",
        "random_state": 0,
        "plan": AuditPlan(n_bins=8, n_permutations=199).result_fields(),
        "plan_file": "n_bins = 8\nn_permutations = 199\nrandom_state = 0\n",
        "store": {
            "checksum": "0123456789abcdef",
            "n_samples": N,
            "layers": names,
            "n_classes": 3,
            "class_names": CLASSES,
            "metadata": {"model": "ExampleCNN"},
        },
        "reading": [
            "conv1: 3 components hold 90 % of the variance of 8 maps.",
            "Map 2 of conv1 and map 5 of conv2 share the most information: 0.80 nats.",
            "dense knows the most about the class: its best map holds 64 % of the label entropy.",
        ],
        "findings": [
            {"section": section, "text": f"The finding of the section on {section}, in plain words."}
            for section in ("spectrum", "maps", "similarity", "entanglement", "labels", "attributions")
        ],
        "warnings": [
            {
                "code": "dead_maps",
                "layers": ["conv2"],
                "text": "1 of 12 maps of conv2 is zero for every sample: map 4.",
                "what_to_do": "Leave these maps out, or check initialisation and learning rate.",
            },
            {
                "code": "mutual_information_indistinguishable",
                "layers": ["conv1", "dense"],
                "text": "No pair of maps of conv1 and dense shares more than chance gives.",
                "what_to_do": "Read nothing into these values; use more samples.",
            },
        ],
        "skipped": {},
        "layers": layers,
        "pairs": pairs,
        "entangled": {"n_layer_pairs": len(pairs), "rows": _rows(pairs, arrays)},
        "labels": _labels(arrays, rng),
        "attributions": _attributions(arrays, rng),
    }
    if out is not None:
        for stem, content in arrays.items():
            np.savez(Path(out) / f"{stem}.npz", **content)
    return results, arrays


def _layer(name: str, d: int, index: int, arrays: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    k = 5
    variance = 0.5 ** np.arange(1, k + 1)
    components = np.linalg.qr(rng.normal(size=(d, k)))[0].T
    stem = f"layer_{index:02d}_{name}"
    dead = [4] if name == "conv2" else []
    zero_fraction = rng.uniform(0.0, 0.6, size=d)
    zero_fraction[dead] = 1.0
    arrays[stem] = {
        "explained_variance_ratio": variance,
        "components": components,
        "loadings": np.clip(components * 2.0, -1.0, 1.0),
        "error_bound": np.full(k, 1e-12),
        "mean": rng.uniform(0.1, 1.0, size=d),
        "std": rng.uniform(0.1, 1.0, size=d),
        "zero_fraction": zero_fraction,
        "scores": rng.normal(size=(N, 2)) + 2.0 * rng.normal(size=(3, 2))[np.arange(N) % 3],
        "score_samples": np.arange(N),
        "score_labels": np.arange(N) % 3,
    }
    listed = []
    for i in range(k):
        top = np.argsort(-(components[i] ** 2))[:5]
        listed.append(
            {
                "index": i,
                "explained_variance_ratio": float(variance[i]),
                "cumulative": float(variance[: i + 1].sum()),
                "top_maps": [
                    {
                        "map": int(j),
                        "loading": float(np.clip(2 * components[i, j], -1, 1)),
                        "weight": float(components[i, j] ** 2),
                    }
                    for j in top
                ],
            }
        )
    return {
        "name": name,
        "arrays": stem,
        "n_samples": N,
        "n_maps": d,
        "dtype": "float32",
        "source_dtype": "float32",
        "reduction": "gap",
        "total_variance": 3.2,
        "components": listed,
        "n_components_90": 4 if index else None,
        "effective_rank": 3.7,
        "von_neumann_entropy": 1.2,
        "von_neumann_entropy_max": float(np.log(d)),
        "purity": 0.41,
        "n_zero_samples": 2 if index == 2 else 0,
        "zero_fraction": float(zero_fraction.mean()),
        "dead_maps": dead,
        "constant_maps": [],
        "duplicate_groups": [[0, 3]] if name == "conv1" else [],
    }


def _pair(a: str, b: str, i: int, j: int, arrays: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    da, db, within = LAYERS[a], LAYERS[b], i == j
    suffix = f"{i:02d}_{a}" if within else f"{i:02d}_{a}_{j:02d}_{b}"
    maps = {"maps_a": np.arange(da), "maps_b": np.arange(db)}
    centred = np.tanh(rng.normal(size=(da, db)))
    values = rng.gamma(1.0, 0.2, size=(da, db))
    p = np.clip(np.exp(-20 * values), 0.005, 1.0)
    if within:
        centred = (centred + centred.T) / 2
        np.fill_diagonal(centred, 1.0)
        for square in (values, p):
            square[:] = (square + square.T) / 2
            np.fill_diagonal(square, np.nan)
    arrays[f"relation_{suffix}"] = {
        **maps,
        "cosine_raw": 0.5 + centred / 2,
        "cosine_centred": centred,
        "cosine_raw_null": np.full((da, db), 0.6),
    }
    arrays[f"mutual_info_{suffix}"] = {
        **maps,
        "values": values,
        "null_mean": np.where(np.isnan(values), np.nan, 0.05),
        "pvalues": p,
        "qvalues": np.minimum(1.0, 1.2 * p),
        "max_pvalues": np.minimum(1.0, 2 * p),
    }
    cka = schmidt = None
    if not within:
        spectrum = 0.6 ** np.arange(1, min(da, db) + 1)
        spectrum /= spectrum.sum()
        significant = (i, j) != (0, 2)
        cka = {
            "value": 0.62 if significant else 0.03,
            "debiased": 0.60 if significant else 0.001,
            "null_mean": 0.03,
            "null_q95": 0.048,
            "pvalue": 0.005 if significant else 0.41,
            "n_permutations": 199,
            "n_samples_tested": N,
            "tested_value": 0.62 if significant else 0.03,
            "significant": significant,
        }
        if significant:
            arrays[f"relation_{suffix}"]["schmidt_spectrum"] = spectrum
            entropy = float(-(spectrum * np.log(spectrum)).sum())
            schmidt = {
                "entropy": entropy,
                "entropy_max": float(np.log(len(spectrum))),
                "effective_modes": float(np.exp(entropy)),
                "spectrum": spectrum[:10].tolist(),
            }
    upper = values[np.triu_indices(da, 1)] if within else values.ravel()
    return {
        "layer_a": a,
        "layer_b": b,
        "within": within,
        "n_maps_a": da,
        "n_maps_b": db,
        "cosine": {
            "arrays": f"relation_{suffix}",
            "n_pairs": len(upper),
            "raw_median": 0.71,
            "raw_null_median": 0.60,
            "centred_median_abs": float(np.median(np.abs(centred))),
            "centred_max_abs": float(np.abs(centred).max()),
            "centred_null_sd": float(1 / np.sqrt(N - 1)),
            "centred_threshold": float(4.2 / np.sqrt(N - 1)),
            "n_beyond_threshold": int((np.abs(centred) > 0.3).sum()),
        },
        "cka": cka,
        "schmidt": schmidt,
        "mutual_info": {
            "arrays": f"mutual_info_{suffix}",
            "n_pairs": len(upper),
            "n_bins": 8,
            "n_permutations": 199,
            "n_samples_tested": N,
            "mean": float(upper.mean()),
            "median": float(np.median(upper)),
            "max": float(upper.max()),
            "null_mean": 0.05,
            "n_q_below_alpha": int((upper > 0.15).sum()),
            "n_max_p_below_alpha": int((upper > 0.2).sum()),
            "distinguishable": True,
        },
    }


def _rows(pairs: list[dict[str, Any]], arrays: dict[str, Any]) -> list[dict[str, Any]]:
    """The five largest values between layers, then the five largest within layers."""
    rows: list[dict[str, Any]] = []
    for within in (False, True):
        found = []
        for pair in pairs:
            if pair["within"] is within:
                content = arrays[pair["mutual_info"]["arrays"]]
                relation = arrays[pair["cosine"]["arrays"]]
                for (i, j), value in np.ndenumerate(content["values"]):
                    if not within or i < j:
                        found.append(
                            (-float(value), pair["layer_a"], i, pair["layer_b"], j, content, relation)
                        )
        found.sort(key=lambda row: row[:5])
        for rank, (negative, a, i, b, j, content, relation) in enumerate(found[:5], start=1):
            rows.append(
                {
                    "rank": rank,
                    "layer_a": a,
                    "map_a": int(i),
                    "layer_b": b,
                    "map_b": int(j),
                    "within": within,
                    "duplicate": rank == 1 and within,
                    "mutual_info": -negative,
                    "ksg": -negative * 1.05 if rank < 5 else None,
                    "pvalue": float(content["pvalues"][i, j]),
                    "qvalue": float(content["qvalues"][i, j]),
                    "max_pvalue": float(content["max_pvalues"][i, j]),
                    "selection_pvalue": float(min(1.0, 6 * content["max_pvalues"][i, j])),
                    "cosine_raw": float(relation["cosine_raw"][i, j]),
                    "cosine_centred": float(relation["cosine_centred"][i, j]),
                }
            )
    return rows


def _labels(arrays: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    entropy = float(np.log(3))
    layers = []
    for index, (name, d) in enumerate(LAYERS.items()):
        values = rng.uniform(0.0, 0.2 + 0.25 * index, size=d)
        p = np.clip(np.exp(-30 * values), 0.005, 1.0)
        stem = f"labels_{index:02d}_{name}"
        arrays[stem] = {
            "values": values,
            "binned": 0.9 * values,
            "pvalues": p,
            "qvalues": np.minimum(1.0, 1.1 * p),
            "max_pvalues": np.minimum(1.0, 2 * p),
        }
        layers.append(
            {
                "layer": name,
                "arrays": stem,
                "mean": float(values.mean()),
                "median": float(np.median(values)),
                "max": float(values.max()),
                "n_permutations": 199,
                "n_samples_tested": N,
                "n_max_p_below_alpha": int((p < 0.025).sum()),
                "best": [
                    {
                        "map": int(i),
                        "mutual_info": float(values[i]),
                        "fraction": float(values[i]) / entropy,
                        "pvalue": float(p[i]),
                        "qvalue": float(min(1.0, 1.1 * p[i])),
                        "max_pvalue": float(min(1.0, 2 * p[i])),
                    }
                    for i in np.argsort(-values)[:10]
                ],
            }
        )
    return {"n_classes": 3, "label_entropy": entropy, "layers": layers}


def _attributions(arrays: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    count = 6
    inputs = rng.uniform(size=(count, 1, 8, 8)).astype(np.float32)
    values = (inputs * rng.normal(size=inputs.shape)).astype(np.float32)
    delta = rng.normal(scale=0.01, size=count)
    stability = np.array([0.99, 0.98, 0.97, 0.99, 0.6, 0.95])
    arrays["attributions"] = {
        "inputs_0": inputs,
        "values_0": values,
        "sample": np.arange(count) * 7,
        "delta": delta,
        "stability": stability,
    }
    samples = [
        {
            "sample": 7 * i,
            "target": i % 3,
            "label": CLASSES[i % 3],
            "output": 4.2,
            "delta": float(delta[i]),
            "relative_delta": abs(float(delta[i])) / 4.2,
            "n_steps": 150,
            "converged": i != 4,
            "stability": float(stability[i]),
        }
        for i in range(count)
    ]
    return {
        "arrays": "attributions",
        "n_inputs": N,
        "method": "riemann_middle",
        "tol": 0.05,
        "noise": 0.05,
        "samples": samples,
        "n_converged": 5,
        "n_stable": 5,
        "median_stability": float(np.median(stability)),
        "median_relative_delta": 0.001,
    }
