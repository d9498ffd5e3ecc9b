"""What an audit found, in plain words: one finding a section, and a short reading of all."""

from __future__ import annotations

from collections.abc import Sequence

from .plan import AuditPlan
from .results import (
    AttributionSection,
    CosineResult,
    EntangledPair,
    Finding,
    LabelSection,
    LayerResult,
    PairResult,
    Results,
    Section,
)
from .words import count, decimal, listing, percent, pvalue

_NAMED_LAYERS = 6
_LEADING_MAPS = 3


def describe(results: Results, plan: AuditPlan) -> list[Finding]:
    """One finding for every section that was computed, in page order."""
    found: list[Finding] = []

    def add(section: Section, sentences: Sequence[str]) -> None:
        if sentences:
            found.append({"section": section, "text": " ".join(sentences)})

    add("spectrum", _spectrum(results["layers"]))
    add("maps", _maps(results["layers"]))
    add("similarity", _similarity(results["pairs"]))
    add("entanglement", _entanglement(results, plan))
    if results["labels"] is not None:
        add("labels", _labels(results["labels"]))
    if results["attributions"] is not None:
        add("attributions", attributed(results["attributions"]))
    return found


def read(results: Results, plan: AuditPlan) -> list[str]:
    """The short version: what a reader in a hurry should take away."""
    lines = [layer_line(layer) for layer in _first(results["layers"])]
    if len(results["layers"]) > _NAMED_LAYERS:
        lines.append(f"{count(len(results['layers']) - _NAMED_LAYERS, 'more layer')}: see the report.")
    between = [pair for pair in results["pairs"] if not pair["within"]]
    if between:
        lines.append(alike(between))
    for within in (False, True):
        rows = [row for row in results["entangled"]["rows"] if row["within"] is within]
        if rows:
            lines.append(strongest(rows, plan.alpha))
    if results["labels"] is not None:
        lines.append(best_map(results["labels"]))
    if results["attributions"] is not None:
        lines.append(attributed(results["attributions"])[0])
    if results["warnings"]:
        lines.append(
            f"{count(len(results['warnings']), 'warning')} limit how far these numbers go.".replace(
                "1 warning limit ", "1 warning limits "
            )
        )
    return lines


def _first(layers: list[LayerResult]) -> list[LayerResult]:
    return layers[:_NAMED_LAYERS]


def layer_line(layer: LayerResult) -> str:
    """How many components hold a layer, and which maps lead the first."""
    name, d = layer["name"], layer["n_maps"]
    if not layer["total_variance"] > 0:
        return f"{name}: all {count(d, 'map')} are constant; there is no variance to explain."
    components = layer["components"]
    top = [entry["map"] for entry in components[0]["top_maps"][:_LEADING_MAPS]]
    led = (
        f"the first explains {percent(components[0]['explained_variance_ratio'])} and is led by "
        f"{'map' if len(top) == 1 else 'maps'} {listing(top)}"
    )
    needed = layer["n_components_90"]
    if needed is None:
        return (
            f"{name}: {count(len(components), 'component')} hold {percent(components[-1]['cumulative'])} of "
            f"the variance of {count(d, 'map')}; {led}."
        )
    verb = "holds" if needed == 1 else "hold"
    return f"{name}: {count(needed, 'component')} {verb} 90 % of the variance of {count(d, 'map')}; {led}."


def _spectrum(layers: list[LayerResult]) -> list[str]:
    sentences = [layer_line(layer) for layer in _first(layers)]
    ranked = [layer for layer in layers if layer["effective_rank"] is not None]
    if ranked:
        shares = [
            f"{layer['effective_rank']:.1f} of {layer['n_maps']} in {layer['name']}"
            for layer in _first(ranked)
        ]
        sentences.append(f"Directions in use, mean included (effective rank): {listing(shares)}.")
    return sentences


def _maps(layers: list[LayerResult]) -> list[str]:
    zeros = [f"{percent(layer['zero_fraction'])} in {layer['name']}" for layer in _first(layers)]
    sentences = [f"Exact zeros among the activations: {listing(zeros)}."]
    dead = [f"{len(layer['dead_maps'])} in {layer['name']}" for layer in layers if layer["dead_maps"]]
    sentences.append(f"Dead maps: {listing(dead)}." if dead else "No map is dead.")
    copies = [layer for layer in layers if layer["duplicate_groups"]]
    if copies:
        groups = [f"{len(layer['duplicate_groups'])} in {layer['name']}" for layer in copies]
        sentences.append(f"Groups of duplicate maps: {listing(groups)}.")
    silent = [layer for layer in layers if layer["n_zero_samples"]]
    if silent:
        counts = [f"{layer['n_zero_samples']:,} in {layer['name']}" for layer in silent]
        sentences.append(
            f"Samples that leave a layer all zero, left out of its entropy and purity: {listing(counts)}."
        )
    return sentences


def _names(pair: PairResult) -> str:
    return f"{pair['layer_a']} and {pair['layer_b']}"


def alike(between: Sequence[PairResult]) -> str:
    """The two layers of largest CKA; ``between`` holds at least one pair of layers."""
    best = max(between, key=lambda pair: pair["cka"]["value"] if pair["cka"] else 0.0)
    cka = best["cka"]
    assert cka is not None, "pairs of two layers have CKA"
    if cka["value"] == 0.0:
        return "No two layers vary together: one of every two is constant."
    beside = f"95 % of random pairings stay below {cka['null_q95']:.2g}; {pvalue(cka['pvalue'])}"
    if not cka["significant"]:
        return (
            f"No two layers are more alike than chance: the largest CKA is {cka['value']:.2f}, "
            f"{_names(best)} ({beside})."
        )
    if len(between) == 1:
        return f"{_names(best)} have a CKA of {cka['value']:.2f} ({beside})."
    return f"{_names(best)} are the most alike: CKA {cka['value']:.2f} ({beside})."


def _similarity(pairs: list[PairResult]) -> list[str]:
    between = [pair for pair in pairs if not pair["within"]]
    if not between:
        return []
    sentences = [alike(between)]
    shared = [pair for pair in between if pair["schmidt"] is not None]
    if shared:
        modes = [f"{_effective(pair):.1f} between {_names(pair)}" for pair in shared[:_NAMED_LAYERS]]
        sentences.append(f"Modes that share the dependence, in effect: {listing(modes)}.")
    pair = max(between, key=lambda pair: pair["cosine"]["raw_median"])
    cosine = pair["cosine"]
    why = (
        "Raw cosines mislead where activations are not negative"
        if _rarely_negative(cosine)
        else "Raw cosines"
    )
    sentences.append(
        f"{why}: between the maps of {_names(pair)} the median is {decimal(cosine['raw_median'])}, "
        f"and random pairing gives {decimal(cosine['raw_null_median'])}."
    )
    beyond = sum(pair["cosine"]["n_beyond_threshold"] for pair in between)
    total = sum(pair["cosine"]["n_pairs"] for pair in between)
    sentences.append(
        f"Centred, {beyond:,} of {count(total, 'pair')} of maps from different layers differ from chance."
    )
    return sentences


def _rarely_negative(cosine: CosineResult) -> bool:
    """Whether random pairing alone gives large cosines, as maps that are never negative do."""
    return cosine["raw_null_median"] > 5 * cosine["centred_null_sd"]


def _effective(pair: PairResult) -> float:
    assert pair["schmidt"] is not None, "chosen for having modes"
    return pair["schmidt"]["effective_modes"]


def strongest(rows: Sequence[EntangledPair], alpha: float) -> str:
    """The first of a table's rows, all of them between or all within layers."""
    row = rows[0]
    if row["within"]:
        who = f"Within layers, maps {row['map_a']} and {row['map_b']} of {row['layer_a']}"
    else:
        maps = [f"map {row['map_a']} of {row['layer_a']}", f"map {row['map_b']} of {row['layer_b']}"]
        who = f"Between layers, {listing(maps)}"
    if row["mutual_info"] <= 0:
        where = "within a layer" if row["within"] else "of different layers"
        return f"No two maps {where} share any information."
    if row["selection_pvalue"] > alpha:
        return (
            f"{who} come first with {row['mutual_info']:.2f} nats, but that is indistinguishable from chance "
            f"({pvalue(row['selection_pvalue'])} as the largest of all pairs)."
        )
    ksg = "" if row["ksg"] is None else f", KSG {row['ksg']:.2f}"
    copies = "; they are copies of each other" if row["duplicate"] else ""
    return (
        f"{who} are the most entangled: {row['mutual_info']:.2f} nats{ksg} "
        f"({pvalue(row['selection_pvalue'])} as the largest of all pairs){copies}."
    )


def _entanglement(results: Results, plan: AuditPlan) -> list[str]:
    sentences = []
    for within in (False, True):
        rows = [row for row in results["entangled"]["rows"] if row["within"] is within]
        if rows:
            sentences.append(strongest(rows, plan.alpha))
        chosen = [pair["mutual_info"] for pair in results["pairs"] if pair["within"] is within]
        if chosen:
            found = sum(entry["n_max_p_below_alpha"] for entry in chosen)
            total = sum(entry["n_pairs"] for entry in chosen)
            where = "of one layer" if within else "from different layers"
            sentences.append(
                f"{found:,} of {count(total, 'pair')} of maps {where} share more than random pairing gives, "
                "each layer pair tested as one family."
            )
    silent = [pair for pair in results["pairs"] if not pair["mutual_info"]["distinguishable"]]
    if silent:
        names = [
            f"within {pair['layer_a']}" if pair["within"] else f"between {_names(pair)}" for pair in silent
        ]
        sentences.append(f"Indistinguishable from chance: {listing(names)}.")
    return sentences


def best_map(labels: LabelSection) -> str:
    """The map that knows the most of the class."""
    layer = max(labels["layers"], key=lambda layer: layer["max"])
    best = layer["best"][0]
    if layer["n_max_p_below_alpha"] == 0:
        return (
            f"No map of {layer['layer']} knows more of the class than chance; the largest value is "
            f"{best['mutual_info']:.2f} nats ({pvalue(best['max_pvalue'])} in its layer)."
        )
    return (
        f"Map {best['map']} of {layer['layer']} knows the most of the class: {best['mutual_info']:.2f} of "
        f"{labels['label_entropy']:.2f} nats, {percent(max(best['fraction'], 0.0))} of the label entropy "
        f"({pvalue(best['max_pvalue'])} in its layer)."
    )


def _labels(labels: LabelSection) -> list[str]:
    layers = labels["layers"][:_NAMED_LAYERS]
    medians = [f"{layer['median']:.2f} in {layer['layer']}" for layer in layers]
    found = sum(layer["n_max_p_below_alpha"] for layer in labels["layers"])
    return [
        best_map(labels),
        f"Median over the maps, in nats: {listing(medians)}.",
        f"{count(found, 'map')} of all layers know more of the class than shuffled labels give.".replace(
            "1 map of all layers know ", "1 map of all layers knows "
        ),
    ]


def attributed(section: AttributionSection) -> list[str]:
    """How far the attributions can be trusted; the first sentence says most."""
    total = len(section["samples"])
    if all(sample["relative_delta"] is None for sample in section["samples"]):
        return ["The output is the same for these inputs as for the baseline: there is nothing to attribute."]
    sentences = [
        f"{section['n_converged']} of {total} attributions add up to the change of the output within "
        f"{percent(section['tol'])} and stay put under finer steps; {section['n_stable']} of {total} hold "
        f"still under noise on the input (median cosine {section['median_stability']:.2f})."
    ]
    if section["median_relative_delta"] is not None:
        sentences.append(f"Median completeness error: {section['median_relative_delta']:.1g} of the change.")
    return sentences
