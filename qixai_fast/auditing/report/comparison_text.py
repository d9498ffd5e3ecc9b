"""A comparison of two audits as text tables, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..comparing import Change, Comparison, CoupleChange
from ..words import count, decimal, percent

_ARROW = " → "


def _change(values: Change, digits: int = 2) -> str:
    return _ARROW.join(
        "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}" for value in values
    )


def _whole(values: Change) -> str:
    return _ARROW.join("–" if value is None else f"{value:.0f}" for value in values)


def _shares(values: Change) -> str:
    return _ARROW.join("–" if value is None else percent(value) for value in values)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    lines = []
    for row in (heads, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _name(couple: CoupleChange) -> str:
    if couple["layer_a"] == couple["layer_b"]:
        return f"within {couple['layer_a']}"
    return f"{couple['layer_a']} – {couple['layer_b']}"


def _moved(couple: CoupleChange) -> list[str]:
    lines = []
    for word, total, listed in (
        ("gained", couple["n_gained"], couple["gained"]),
        ("lost", couple["n_lost"], couple["lost"]),
    ):
        for place, pair in enumerate(listed):
            head = f"  {word} {total:,}: " if place == 0 else " " * len(f"  {word} {total:,}: ")
            p_before, p_after = pair["max_pvalue"]
            lines.append(
                f"{head}maps {pair['map_a']} and {pair['map_b']}, {_change(pair['mutual_info'], 3)} nats "
                f"(p {p_before:.2g}{_ARROW}{p_after:.2g})"
            )
    return lines


def _relative(values: Change) -> float:
    """By what share a positive number changed, up or down; -1 where one of the two is missing."""
    before, after = values
    if before is None or after is None:
        return -1.0
    return abs(after - before) / max(abs(before), abs(after), 1e-12)


def _turned(found: Comparison) -> list[str]:
    known = [
        (layer["overlap"], layer["overlap_by_chance"], layer["layer"])
        for layer in found["layers"]
        if layer["overlap"] is not None and layer["overlap_by_chance"] is not None
    ]
    if not known:
        return []
    overlap, chance, name = min(known)
    if overlap > 0.995:
        return ["No layer turned its leading directions."]
    return [
        f"{name} turned its leading directions the most: their overlap with those before is "
        f"{decimal(overlap)}, where 1 is the same and unrelated ones have {decimal(chance)}."
    ]


def _in_short(found: Comparison) -> list[str]:
    """What changed the most, in sentences."""
    layers = [layer for layer in found["layers"] if layer["effective_rank"][0] is not None]
    lines = _turned(found)
    if layers:
        most = max(layers, key=lambda layer: _relative(layer["effective_rank"]))
        if _relative(most["effective_rank"]) >= 0.01:
            lines.append(
                f"Effective rank changed the most in {most['layer']}: {_change(most['effective_rank'], 1)} "
                f"directions in use."
            )
        else:
            lines.append("Effective ranks stayed within 1 %.")
    told = [layer for layer in found["layers"] if None not in layer["best_label"]]
    if told:
        most = max(told, key=lambda layer: _relative(layer["best_label"]))
        if _relative(most["best_label"]) >= 0.01:
            lines.append(
                f"What the best map knows of the class changed the most in {most['layer']}: "
                f"{_change(most['best_label'])} nats."
            )
        else:
            lines.append("What the best maps know of the class stayed within 1 %.")
    if found["couples"]:
        lines.append(_moved_in_all(found["couples"]))
    return lines


def _moved_in_all(couples: Sequence[CoupleChange]) -> str:
    compared, gained, lost = (
        sum(couple[which] for couple in couples) for which in ("n_compared", "n_gained", "n_lost")
    )
    start = (
        f"Of {compared:,} pairs of maps, {gained:,} became dependent beyond chance and {lost:,} no longer are"
    )
    if gained + lost == 0:
        return f"{start}."
    most = max(couples, key=lambda couple: couple["n_gained"] + couple["n_lost"])
    return f"{start}, most of them {_between(most)}."


def _between(couple: CoupleChange) -> str:
    if couple["layer_a"] == couple["layer_b"]:
        return f"within {couple['layer_a']}"
    return f"between {couple['layer_a']} and {couple['layer_b']}"


def _cka(couple: CoupleChange) -> str:
    """CKA before and after; a star where it is not beyond chance in both."""
    if couple["cka"] == (None, None):
        return ""
    stars = ["" if beyond else "*" for beyond in couple["cka_significant"] or (True, True)]
    return _ARROW.join(
        f"{_change((value, None)).split(_ARROW)[0]}{star}"
        for value, star in zip(couple["cka"], stars, strict=True)
    )


def comparison_text(found: Comparison) -> str:
    """What changed, in short and in tables: layers, pairs of layers and of maps, attributions.

    Parameters
    ----------
    found : Comparison

    Returns
    -------
    str
        Lines without a last line break.
    """
    lines = [f"In short, first report → second ({count(found['n_samples'], 'sample')})", ""]
    lines += [*_in_short(found), "", "Layers", ""]
    heads = [
        "layer",
        "effective rank",
        "components for 90 %",
        "first component",
        "zeros",
        "best map on class, nats",
        "overlap (chance)",
    ]
    rows = []
    for layer in found["layers"]:
        overlap = "–"
        if layer["overlap"] is not None and layer["overlap_by_chance"] is not None:
            overlap = f"{decimal(layer['overlap'])} ({decimal(layer['overlap_by_chance'])})"
        rows.append(
            [
                layer["layer"],
                _change(layer["effective_rank"], 1),
                _whole(layer["n_components_90"]),
                _shares(layer["first_component"]),
                _shares(layer["zero_fraction"]),
                _change(layer["best_label"]),
                overlap,
            ]
        )
    lines += _table(heads, rows)
    lines += [
        "",
        "Overlap: of the spans of the leading components before and after, 1 where they are the same; in "
        "brackets, of unrelated ones.",
    ]
    if found["couples"]:
        lines += ["", "Pairs of layers, mutual information in nats", ""]
        heads = ["layers", "CKA", "median", "largest", "pairs of maps", "gained", "lost"]
        lines += _table(
            heads,
            [
                [
                    _name(couple),
                    _cka(couple),
                    _change(couple["median"], 3),
                    _change(couple["largest"], 3),
                    f"{couple['n_compared']:,}",
                    f"{couple['n_gained']:,}",
                    f"{couple['n_lost']:,}",
                ]
                for couple in found["couples"]
            ],
        )
        if any(couple["cka_significant"] not in (None, (True, True)) for couple in found["couples"]):
            lines += ["", "* not beyond chance"]
        moved = [(couple, _moved(couple)) for couple in found["couples"]]
        lines += [
            "",
            f"Pairs of maps beyond chance (family-wise p ≤ {found['alpha']:g}) in one report only,",
            "by more than random permutations leave open; largest changes first",
            "",
        ]
        for couple, told in moved:
            if told:
                lines += [_name(couple), *told]
        if not any(told for _, told in moved):
            lines.append("none")
    if found["attributions"]:
        lines += ["", *_attributed(found)]
    if found["left_out"]:
        lines += ["", *(f"left out: {reason}" for reason in found["left_out"])]
    return "\n".join(lines)


def _attributed(found: Comparison) -> list[str]:
    items = found["attributions"]
    stability = [float(np.median([item["stability"][side] for item in items])) for side in (0, 1)]
    other = sum(item["target"][0] != item["target"][1] for item in items)
    cosines = [item["cosine"] for item in items if item["cosine"] is not None]
    lines = [
        f"Attributions of {count(len(items), 'input')}: median stability "
        f"{_change((stability[0], stability[1]))}; {other} explain another output now."
    ]
    if cosines:
        lines.append(
            f"Cosine with the attributions before, median over {len(cosines)}: "
            f"{decimal(float(np.median(cosines)))}, least {decimal(min(cosines))}."
        )
    return lines
