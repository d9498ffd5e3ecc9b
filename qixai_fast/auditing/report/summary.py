"""The top of the page: five sentences, and the strongest findings as single numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from ..findings import alike, attributed, best_map, strongest
from ..results import EntangledPair, LayerResult, Results
from ..words import count, percent, pvalue

_SENTENCES = 5


class Highlight(TypedDict):
    """One number worth knowing first."""

    what: str
    value: str
    of: str
    trust: str
    method: str  # anchor of the method that computed it
    place: str  # anchor of the section that tells more


def _directions(layer: LayerResult) -> str:
    needed = layer["n_components_90"]
    return f"{layer['name']} ({'more than ' if needed is None else ''}{needed or len(layer['components'])})"


def _audited(results: Results) -> str:
    layers = results["layers"]
    maps = sum(layer["n_maps"] for layer in layers)
    start = (
        f"{count(len(layers), 'layer')} with {count(maps, 'map')} in all were audited on "
        f"{count(results['store']['n_samples'], 'sample')}"
    )
    ranked = sorted(
        (layer for layer in layers if layer["total_variance"] > 0 and layer["components"]),
        key=lambda layer: (layer["n_components_90"] or len(layer["components"]) + 1) / layer["n_maps"],
    )
    if not ranked:
        return f"{start}."
    if len(ranked) == 1:
        return f"{start}; components that hold 90 % of the variance: {_directions(ranked[0])}."
    return (
        f"{start}; for their width, {_directions(ranked[0])} needs the fewest components to hold 90 % of its "
        f"variance and {_directions(ranked[-1])} the most."
    )


def _rows(results: Results, within: bool) -> list[EntangledPair]:
    return [row for row in results["entangled"]["rows"] if row["within"] is within]


def _limits(n_warnings: int) -> str:
    if n_warnings == 0:
        return "Nothing was found that limits the use of these numbers."
    verb = "limits" if n_warnings == 1 else "limit"
    return f"{count(n_warnings, 'warning')}, below, {verb} how far these numbers go."


def five_sentences(results: Results, alpha: float) -> list[str]:
    """At most five sentences: the layers, their likeness, the strongest pair, the class, attributions."""
    between = [pair for pair in results["pairs"] if not pair["within"]]
    sentences = [_audited(results)]
    if between:
        sentences.append(alike(between))
    rows = [found for found in (_rows(results, False), _rows(results, True)) if found]
    sentences += [strongest(found, alpha) for found in rows[:1]]
    if results["labels"] is not None and results["labels"]["layers"]:
        sentences.append(best_map(results["labels"]))
    if results["attributions"] is not None and results["attributions"]["samples"]:
        sentences.append(attributed(results["attributions"])[0])
    spare = [strongest(found, alpha) for found in rows[1:]]
    spare.append(_limits(len(results["warnings"])))
    return (sentences + spare)[:_SENTENCES]


def _pair_highlight(rows: Sequence[EntangledPair], what: str, alpha: float) -> list[Highlight]:
    row = rows[0] if rows else None
    if row is None or row["selection_pvalue"] > alpha:
        return []
    second = str(row["map_b"]) if row["within"] else f"{row['layer_b']} {row['map_b']}"
    return [
        {
            "what": what,
            "value": f"{row['mutual_info']:.2f} nats",
            "of": f"{row['layer_a']} {row['map_a']} and {second}",
            "trust": f"{pvalue(row['selection_pvalue'])} as the largest of all pairs",
            "method": "how-selection",
            "place": "entanglement",
        }
    ]


def highlights(results: Results, alpha: float) -> list[Highlight]:
    """The strongest findings that are beyond chance, strongest kind first; empty where nothing is."""
    found = _pair_highlight(_rows(results, False), "Most entangled maps of two layers", alpha)
    found += _pair_highlight(_rows(results, True), "Most entangled maps of one layer", alpha)
    aligned = [pair for pair in results["pairs"] if pair["cka"] is not None and pair["cka"]["significant"]]
    if aligned:
        best = max(aligned, key=lambda pair: pair["cka"]["value"] if pair["cka"] else 0.0)
        assert best["cka"] is not None, "chosen for having CKA"
        found.append(
            {
                "what": "Most alike layers",
                "value": f"CKA {best['cka']['value']:.2f}",
                "of": f"{best['layer_a']} and {best['layer_b']}",
                "trust": f"{pvalue(best['cka']['pvalue'])}; 95 % of random pairings below "
                f"{best['cka']['null_q95']:.2g}",
                "method": "how-cka",
                "place": "similarity",
            }
        )
    labels = results["labels"]
    known = [layer for layer in labels["layers"] if layer["n_max_p_below_alpha"]] if labels else []
    if labels is not None and known:
        layer = max(known, key=lambda layer: layer["max"])
        item = layer["best"][0]
        share = f"{percent(max(item['fraction'], 0.0))} of the label entropy"
        found.append(
            {
                "what": "Knows the most of the class",
                "value": f"{item['mutual_info']:.2f} nats",
                "of": f"{layer['layer']} {item['map']}, {share}",
                "trust": f"{pvalue(item['max_pvalue'])} in its layer",
                "method": "how-labels",
                "place": "labels",
            }
        )
    return found
