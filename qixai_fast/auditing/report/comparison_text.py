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


def comparison_text(found: Comparison) -> str:
    """Tables of what changed: layers, pairs of layers, pairs of maps gained and lost, attributions.

    Parameters
    ----------
    found : Comparison

    Returns
    -------
    str
        Lines without a last line break.
    """
    lines = [f"Layers, first report → second ({count(found['n_samples'], 'sample')})", ""]
    heads = [
        "layer",
        "effective rank",
        "for 90 %",
        "first component",
        "zeros",
        "class, nats",
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
    if found["couples"]:
        lines += ["", "Pairs of layers, mutual information in nats", ""]
        heads = ["layers", "CKA", "median", "largest", "pairs of maps", "gained", "lost"]
        lines += _table(
            heads,
            [
                [
                    _name(couple),
                    "" if couple["cka"] == (None, None) else _change(couple["cka"]),
                    _change(couple["median"], 3),
                    _change(couple["largest"], 3),
                    f"{couple['n_compared']:,}",
                    f"{couple['n_gained']:,}",
                    f"{couple['n_lost']:,}",
                ]
                for couple in found["couples"]
            ],
        )
        moved = [(couple, _moved(couple)) for couple in found["couples"]]
        lines += [
            "",
            f"Pairs of maps beyond chance (family-wise p ≤ {found['alpha']:g}) in one report only",
            "",
        ]
        for couple, told in moved:
            if told:
                lines += [_name(couple), *told]
        if not any(told for _, told in moved):
            lines.append("none")
    if found["attributions"]:
        lines += ["", *_attributed(found)]
    lines += [f"left out: {reason}" for reason in found["left_out"]]
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
