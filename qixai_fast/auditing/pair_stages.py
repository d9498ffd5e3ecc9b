"""Two layers side by side: cosines, CKA and Schmidt modes; mutual information between their maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv

from .._moment_measures import cosines_of, entropy_of, schmidt_shares_of
from .._validate import Array, Float64
from ..alignment import linear_cka, linear_cka_test, terms_of_products
from ..mutual_info.binned_codes import pairwise_of_codes
from ..mutual_info.ksg import pairwise_mutual_info_ksg
from ..mutual_info.significance import mutual_info_test
from ..quantum import schmidt_spectrum
from ..similarity import cosine_similarity
from .context import AuditContext, draw_rows, quiet
from .cosine_null import chance_threshold
from .files import Stage
from .memory import take_rows

# What each stage reads of the plan: part of its key.
RELATION_FIELDS = ("max_maps", "null_samples", "n_permutations", "alpha")
MUTUAL_INFO_FIELDS = (
    "max_maps",
    "n_bins",
    "strategy",
    "bias_correction",
    "n_permutations",
    "alpha",
    "test_samples",
)
KSG_FIELDS = ("n_neighbors",)

_LISTED_MODES = 10


def chosen_maps(context: AuditContext, std: Float64) -> npt.NDArray[np.int64]:
    """The maps of a layer that are compared with others: all, or those of largest variance, in order."""
    largest = np.argsort(-std, kind="stable")[: context.plan.max_maps]
    return np.sort(largest)


def relation_stage(
    context: AuditContext,
    layers: tuple[str, str],
    summaries: tuple[Mapping[str, Array], Mapping[str, Array]],
    rng: np.random.Generator,
) -> Stage:
    """Cosines, and between two layers CKA and Schmidt modes: the fields of :class:`PairResult`.

    Parameters
    ----------
    context : AuditContext
    layers : tuple of str
        The same name twice for a layer with itself.
    summaries : tuple of mapping
        Arrays of the two layers' own stages.
    rng : Generator
    """
    a, b = layers
    within = a == b
    maps = [chosen_maps(context, summary["std"]) for summary in summaries]
    held = context.moments.products(a, b)
    if held is None:
        raw, centred = _cosines(context, layers, maps)
    else:
        raw, centred = (cosines_of(*held, (maps[0], maps[1]), center=center) for center in (False, True))
    expected = _expected_cosine(context.n_samples, summaries, maps)
    threshold = chance_threshold(context, context.store[a], context.store[b], within, rng, maps)
    arrays: dict[str, Array] = {
        "maps_a": maps[0],
        "maps_b": maps[1],
        "cosine_raw": raw,
        "cosine_centred": centred,
        "cosine_raw_null": expected,
    }
    result: dict[str, Any] = {
        "n_maps_a": len(maps[0]),
        "n_maps_b": len(maps[1]),
        "cosine": _cosine_summary(context, within, raw, centred, expected, threshold),
        "cka": None,
        "schmidt": None,
    }
    if not within:
        result["cka"] = _alignment(context, a, b, rng)
        if result["cka"]["significant"]:
            result["schmidt"], arrays["schmidt_spectrum"] = _modes(context, a, b)
    return result, arrays


def _cosines(
    context: AuditContext, layers: tuple[str, str], maps: list[npt.NDArray[np.int64]]
) -> list[Array]:
    """Raw and centred cosines of layers too wide for products of all their maps."""
    first = context.columns(layers[0], maps[0])
    second = None if layers[0] == layers[1] else context.columns(layers[1], maps[1])
    with quiet():
        return [
            np.asarray(cosine_similarity(first, second, axis=0, center=center, **context.options()))
            for center in (False, True)
        ]


def _expected_cosine(
    n: int,
    summaries: tuple[Mapping[str, Array], Mapping[str, Array]],
    maps: list[npt.NDArray[np.int64]],
) -> Float64:
    """Mean of the raw cosine over all pairings of the samples: n m_x m_y / (|x| |y|), exactly."""
    angles = []
    for summary, chosen in zip(summaries, maps, strict=True):
        mean, std = summary["mean"][chosen], summary["std"][chosen]
        norm = np.sqrt(n * mean**2 + (n - 1) * std**2)
        angles.append(np.divide(math.sqrt(n) * mean, norm, out=np.zeros_like(mean), where=norm > 0))
    return np.asarray(np.outer(angles[0], angles[1]))


def _cosine_summary(
    context: AuditContext, within: bool, raw: Array, centred: Array, expected: Float64, threshold: float
) -> dict[str, Any]:
    chosen = pair_mask(raw.shape, within)
    size = np.abs(centred[chosen])
    return {
        "n_pairs": len(size),
        "raw_median": float(np.median(raw[chosen])),
        "raw_null_median": float(np.median(expected[chosen])),
        "centred_median_abs": float(np.median(size)),
        "centred_max_abs": float(size.max()),
        "centred_null_sd": 1.0 / math.sqrt(context.n_samples - 1),
        "centred_threshold": threshold,
        "n_beyond_threshold": int((size > threshold).sum()),
    }


def pair_mask(shape: tuple[int, ...], within: bool) -> npt.NDArray[np.bool_]:
    """Which entries of a table are pairs: all, or those above the diagonal."""
    mask = np.ones(shape, dtype=bool)
    return np.triu(mask, 1) if within else mask


def _alignment(context: AuditContext, a: str, b: str, rng: np.random.Generator) -> dict[str, Any]:
    first, second = context.store[a], context.store[b]
    plan = context.plan
    assert plan.n_permutations is not None, "resolve_plan fills it in"
    rows = draw_rows(context.n_samples, plan.null_samples, rng)
    everything = len(rows) == context.n_samples
    if not everything:
        size = len(rows) * (first.itemsize * first.shape[1] + second.itemsize * second.shape[1])
        context.require(size, f"{len(rows)} samples of {a!r} and {b!r}")
    with quiet():
        test = linear_cka_test(
            first if everything else take_rows(first, rows),
            second if everything else take_rows(second, rows),
            n_permutations=plan.n_permutations,
            random_state=rng,
            **context.options(),
        )
        held = context.moments.products(a, b)
        if held is not None:
            terms = terms_of_products(*held)
            value, debiased = terms.biased(), terms.debiased()
        else:
            value = test.value if everything else linear_cka(first, second, **context.options())
            debiased = linear_cka(first, second, debiased=True, **context.options())
    return {
        "value": value,
        "debiased": debiased,
        "null_mean": test.null_mean,
        "null_q95": null_quantile(test.null_mean, test.null_std, 0.95),
        "pvalue": test.pvalue,
        "n_permutations": test.n_permutations,
        "n_samples_tested": len(rows),
        "tested_value": test.value,
        "significant": test.pvalue <= plan.alpha,
    }


def null_quantile(mean: float, std: float, level: float) -> float:
    """Quantile of CKA under random pairing, by the gamma distribution with its exact mean and spread.

    Gretton et al. 2008, "A kernel statistical test of independence", section 3, for the numerator.
    """
    if std == 0.0:
        return mean
    return min(1.0, float(gammaincinv((mean / std) ** 2, level)) * std**2 / mean)


def _modes(context: AuditContext, a: str, b: str) -> tuple[dict[str, Any], Float64]:
    held = context.moments.products(a, b)
    if held is None:
        spectrum: Float64 = schmidt_spectrum(context.store[a], context.store[b], **context.options())
    else:
        spectrum = schmidt_shares_of(*held)
    entropy = entropy_of(spectrum)
    return {
        "entropy": entropy,
        "entropy_max": float(np.log(len(spectrum))),
        "effective_modes": math.exp(entropy),
        "spectrum": spectrum[:_LISTED_MODES].tolist(),
    }, spectrum


def mutual_info_stage(
    context: AuditContext,
    layers: tuple[str, str],
    summaries: tuple[Mapping[str, Array], Mapping[str, Array]],
    rng: np.random.Generator,
) -> Stage:
    """Binned mutual information of all pairs of maps, with p-values: :class:`MutualInfoResult`.

    Values are those of all samples. Above ``test_samples`` samples, p-values and the null come from a draw of
    them, binned as all are: a dependence that a few thousand samples cannot show is too weak to report.
    """
    plan, n = context.plan, context.n_samples
    assert plan.n_permutations is not None, "resolve_plan fills it in"
    assert plan.n_bins is not None, "resolve_plan fills it in"
    within = layers[0] == layers[1]
    maps = [chosen_maps(context, summary["std"]) for summary in summaries]
    rows = draw_rows(n, plan.test_samples, rng)
    everything = len(rows) == n
    binning: dict[str, Any] = {"n_bins": plan.n_bins, "bias_correction": plan.bias_correction}
    if everything:
        data = [context.columns(layer, chosen) for layer, chosen in zip(layers, maps, strict=True)]
        tested, binning["strategy"] = data, plan.strategy
    else:
        data = [context.codes(layer, chosen) for layer, chosen in zip(layers, maps, strict=True)]
        # Codes are whole numbers from 0: as many even bins keep them apart, whichever of them occur.
        tested, binning["strategy"] = [np.asarray(codes[rows]) for codes in data], "uniform"
    with quiet():
        test = mutual_info_test(
            tested[0],
            None if within else tested[1],
            n_permutations=plan.n_permutations,
            random_state=rng,
            **binning,
            **context.options(),
        )
        values = (
            test.values
            if everything
            else pairwise_of_codes(
                data[0].T,
                None if within else data[1].T,
                n_bins=plan.n_bins,
                bias_correction=plan.bias_correction,
                **context.options(),
            )
        )
    tables = {
        name: np.array(getattr(test, name), dtype=np.float64)
        for name in ("null_mean", "pvalues", "qvalues", "max_pvalues")
    }
    tables["values"] = np.array(values, dtype=np.float64)
    if within:
        for table in tables.values():
            np.fill_diagonal(table, np.nan)
    chosen = pair_mask(tables["values"].shape, within)
    values = tables["values"][chosen]
    n_below = int((tables["max_pvalues"][chosen] <= plan.alpha).sum())
    result = {
        "n_pairs": len(values),
        "n_bins": plan.n_bins,
        "n_permutations": plan.n_permutations,
        "n_samples_tested": len(rows),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "max": float(values.max()),
        "null_mean": float(tables["null_mean"][chosen].mean()),
        "n_q_below_alpha": int((tables["qvalues"][chosen] <= plan.alpha).sum()),
        "n_max_p_below_alpha": n_below,
        "distinguishable": n_below > 0,
    }
    return result, {"maps_a": maps[0], "maps_b": maps[1], **tables}


def ksg_stage(
    context: AuditContext, pairs: list[tuple[str, int, str, int]], rng: np.random.Generator
) -> Stage:
    """KSG estimates of chosen pairs of maps, in their order: ``{"values": [...]}``, nats."""
    del rng  # KSG's own jitter is seeded by its definition, so that values do not depend on the audit's seed
    values: list[float | None] = [None] * len(pairs)
    groups: dict[tuple[str, str], list[int]] = {}
    wanted: dict[str, set[int]] = {}
    for place, (a, i, b, j) in enumerate(pairs):
        groups.setdefault((a, b), []).append(place)
        wanted.setdefault(a, set()).add(i)
        wanted.setdefault(b, set()).add(j)
    maps = {layer: np.array(sorted(some)) for layer, some in wanted.items()}
    columns = {layer: context.columns(layer, some) for layer, some in maps.items()}
    for (a, b), places in groups.items():
        index = [
            (np.searchsorted(maps[a], pairs[place][1]), np.searchsorted(maps[b], pairs[place][3]))
            for place in places
        ]
        with quiet():
            found = pairwise_mutual_info_ksg(
                columns[a],
                columns[b],
                n_neighbors=context.plan.n_neighbors,
                pairs=np.array(index),
                **context.options(),
            )
        for place, value in zip(places, np.asarray(found), strict=True):
            values[place] = float(value) if math.isfinite(value) else None
    return {"values": values}, {}
