"""A comparison of two audits as text tables, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..comparing import Change, Comparison, CoupleChange, LayerChange
from ..words import count, decimal, percent

_ARROW = " → "


def _both(values: Change, form: Callable[[float], str]) -> str:
    """A value before and after, a dash for one that is missing."""
    return _ARROW.join("–" if value is None else form(value) for value in values)


def _change(values: Change, digits: int = 2) -> str:
    return _both(values, lambda value: f"{round(value, digits) + 0.0:.{digits}f}")


def _whole(values: Change) -> str:
    return _both(values, "{:.0f}".format)


def _shares(values: Change) -> str:
    return _both(values, percent)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    lines = []
    for row in (heads, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _name(couple: CoupleChange, between: str = "{} – {}") -> str:
    a, b = couple["layer_a"], couple["layer_b"]
    return f"within {a}" if a == b else between.format(a, b)


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
    """By what share a positive number changed, up or down."""
    before, after = values
    assert before is not None
    assert after is not None
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


def _most(values: Mapping[str, Change]) -> str | None:
    """The layer whose value changed by the largest share; "" for none by 1 %, None where none is known."""
    shares = {name: _relative(change) for name, change in values.items() if None not in change}
    if not shares:
        return None
    name = max(shares, key=lambda one: shares[one])
    return name if shares[name] >= 0.01 else ""


def _in_short(found: Comparison) -> list[str]:
    """What changed the most, in sentences."""
    lines = _turned(found)
    ranks = {layer["layer"]: layer["effective_rank"] for layer in found["layers"]}
    most = _most(ranks)
    if most == "":
        lines.append("Effective ranks stayed within 1 %.")
    elif most is not None:
        rank = _change(ranks[most], 1)
        lines.append(f"Effective rank changed the most in {most}: {rank} directions in use.")
    best = {layer["layer"]: layer["best_label"] for layer in found["layers"]}
    most = _most(best)
    if most == "":
        lines.append("What the best maps know of the class stayed within 1 %.")
    elif most is not None:
        known = _change(best[most])
        lines.append(f"What the best map knows of the class changed the most in {most}: {known} nats.")
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
    return f"{start}, most of them {_name(most, 'between {} and {}')}."


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
    lines += [*_in_short(found), "", "Layers", "", *_layers(found)]
    if found["couples"]:
        lines += ["", "Pairs of layers, mutual information in nats", "", *_couples(found)]
    if found["attributions"]:
        lines += ["", *_attributed(found)]
    if found["left_out"]:
        lines += ["", *(f"left out: {reason}" for reason in found["left_out"])]
    return "\n".join(lines)


def _overlap(layer: LayerChange) -> str:
    overlap, chance = layer["overlap"], layer["overlap_by_chance"]
    return "–" if overlap is None or chance is None else f"{decimal(overlap)} ({decimal(chance)})"


def _layers(found: Comparison) -> list[str]:
    columns: dict[str, Callable[[LayerChange], str]] = {
        "layer": lambda layer: layer["layer"],
        "effective rank": lambda layer: _change(layer["effective_rank"], 1),
        "components for 90 %": lambda layer: _whole(layer["n_components_90"]),
        "first component": lambda layer: _shares(layer["first_component"]),
        "zeros": lambda layer: _shares(layer["zero_fraction"]),
        "best map on class, nats": lambda layer: _change(layer["best_label"]),
        "overlap (chance)": _overlap,
    }
    return [
        *_table(list(columns), [[cell(layer) for cell in columns.values()] for layer in found["layers"]]),
        "",
        "Overlap: of the spans of the leading components before and after, 1 where they are the same; in "
        "brackets, of unrelated ones.",
    ]


def _couples(found: Comparison) -> list[str]:
    columns: dict[str, Callable[[CoupleChange], str]] = {
        "layers": _name,
        "CKA": _cka,
        "median": lambda couple: _change(couple["median"], 3),
        "largest": lambda couple: _change(couple["largest"], 3),
        "pairs of maps": lambda couple: f"{couple['n_compared']:,}",
        "gained": lambda couple: f"{couple['n_gained']:,}",
        "lost": lambda couple: f"{couple['n_lost']:,}",
    }
    couples = found["couples"]
    lines = _table(list(columns), [[cell(couple) for cell in columns.values()] for couple in couples])
    if any(couple["cka_significant"] not in (None, (True, True)) for couple in couples):
        lines += ["", "* not beyond chance"]
    lines += [
        "",
        f"Pairs of maps beyond chance (family-wise p ≤ {found['alpha']:g}) in one report only,",
        "by more than random permutations leave open; largest changes first",
        "",
    ]
    moved = [line for couple in couples if (told := _moved(couple)) for line in (_name(couple), *told)]
    return lines + (moved or ["none"])


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
