"""The power curves as a table, and what they say."""

from __future__ import annotations

import math

from benchmarks.study.dependence import WANTED, least_size
from benchmarks.study.dependence_measures import CORRELATIONS
from benchmarks.study.dependence_pairs import INDEPENDENT, LAYERS, MAPS

GENERAL = ("distance correlation", "RBF CKA")  # peers that see any dependence
KINDS = {"maps": ("Two maps", MAPS), "layers": ("Two layers of four features", LAYERS)}


def _names(names):
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _cell(content, curve):
    n = least_size(content, curve)
    return f"{n:,}" if n else f"({max(curve):.0%})"


def _table(content, family, pairs):
    curves = content["families"][family]
    measures = list(curves[INDEPENDENT])
    yield "| pair | " + " | ".join(measures) + " |"
    yield "|" + "---|" * (1 + len(measures))
    for pair in pairs:
        if pair.name != INDEPENDENT:
            cells = (_cell(content, curves[pair.name][name]) for name in measures)
            yield f"| {pair.name}: {pair.law} | " + " | ".join(cells) + " |"


def _level(content):
    """How often independence was taken for dependence, over all measures and sizes."""
    shares = [
        share
        for family in content["families"].values()
        for curve in family[INDEPENDENT].values()
        for share in curve
    ]
    error = math.sqrt(content["level"] * (1 - content["level"]) / content["draws"])
    return (
        f"Independent pairs were taken for dependent in {min(shares):.1%} to {max(shares):.1%} of draws, "
        f"{sum(shares) / len(shares):.1%} on average over {len(shares)} curves and sizes (wanted "
        f"{content['level']:.0%}, with a standard error of {error:.1%} each)."
    )


def _by_size(content, curves, names):
    """Names with the size that they need, fewest first; and those that never get there."""
    sizes = {name: least_size(content, curves[name]) for name in names}
    seeing = sorted((n, name) for name, n in sizes.items() if n)
    return [f"{name} (n = {n:,})" for n, name in seeing], [name for name, n in sizes.items() if not n]


def _parts(curves):
    """Names of correlations, of measures that QIXAI uses, and of general ones."""
    correlations = [name for name in curves if name in CORRELATIONS]
    general = [name for name in curves if name in GENERAL]
    return correlations, [name for name in curves if name not in (*correlations, *general)], general


def _blind(content, family, pair):
    curves = content["families"][family][pair.name]
    correlations, ours, general = _parts(curves)
    found, _ = _by_size(content, curves, correlations)
    if found:
        text = f"found by {_names(found)}, by the spread of tails alone"
    else:
        most = max(max(curves[name]) for name in correlations)
        text = f"{_names(correlations)} find it in at most {most:.0%} of draws"
    seeing, unseeing = _by_size(content, curves, ours)
    text += f". Found by {_names(seeing)}" if seeing else ". No measure of QIXAI finds it reliably"
    if seeing and unseeing:
        text += f", not by {_names(unseeing)}"
    peers, _ = _by_size(content, curves, general)
    return f"- **{pair.name}**: {text}. Of general measures: {_names(peers) if peers else 'none'}."


def _seen(content, family, pair):
    curves = content["families"][family][pair.name]
    correlations, ours, _ = _parts(curves)
    first, never = _by_size(content, curves, correlations)
    seeing, unseeing = _by_size(content, curves, ours)
    text = f"- **{pair.name}**: {_names(first) if first else 'no correlation finds it reliably'}"
    text += f", {_names(never)} does not" if first and never else ""
    text += f"; {_names(seeing)}" if seeing else ""
    return text + (f"; not by n = {content['sizes'][-1]:,}: {_names(unseeing)}." if unseeing else ".")


def _information(name):
    return "MI" in name and name != "quantum MI"


def _least(content, curves, chosen):
    """The fewest samples that any measure among those chosen needs."""
    return min(least_size(content, curve) or math.inf for name, curve in curves.items() if chosen(name))


def _compared(content):
    """By family, pair and kind of measure, the fewest samples that any of its measures needs."""
    kinds = {
        "correlation": CORRELATIONS.__contains__,
        "information": _information,
        "distance": "distance correlation".__eq__,
    }
    for family, (_, pairs) in KINDS.items():
        for pair in pairs[1:]:
            curves = content["families"][family][pair.name]
            sizes = {kind: _least(content, curves, chosen) for kind, chosen in kinds.items()}
            for single in ("quantum MI", "Schmidt entropy"):
                if single in curves:
                    sizes[single] = least_size(content, curves[single]) or math.inf
            yield pair, sizes


def _against(found, one, other):
    """Where one kind of measure needs fewer samples than another, and where more, as text."""
    fewer = [pair.name for pair, sizes in found if one in sizes and sizes[one] < sizes[other]]
    more = [pair.name for pair, sizes in found if one in sizes and sizes[one] > sizes[other]]
    return f"fewer on {_names(fewer) if fewer else 'none'}, more on {_names(more) if more else 'none'}"


def _verdict(content):
    """Who was the better one, counted from the curves."""
    found = list(_compared(content))
    without = [sizes for pair, sizes in found if pair.relation == "none"]
    linear = [sizes for pair, sizes in found if pair.relation == "linear"]
    fewer = sum(sizes["information"] < sizes["correlation"] for sizes in without)
    more = sum(sizes["information"] > sizes["correlation"] for sizes in linear)
    general = sum(sizes["distance"] <= sizes["information"] for _, sizes in found)
    yield (
        f"**On {fewer} of {len(without)} pairs without linear correlation, mutual information needs fewer "
        f"samples than correlation; on {more} of {len(linear)} linearly correlated pairs it needs more. "
        "Distance correlation, which QIXAI does not use, does as well as mutual information or better on "
        f"{general} of all {len(found)}.**"
    )
    yield ""
    schmidt = [pair.name for pair, sizes in found if sizes.get("Schmidt entropy", math.inf) < math.inf]
    yield (
        "Of the quantum-inspired measures, quantum mutual information needs, against correlation of "
        f"layers, {_against(found, 'quantum MI', 'correlation')}; against classical mutual information, "
        f"{_against(found, 'quantum MI', 'information')}. It compares what products of two features do "
        "within a sample (its states are a aᵀ), after scaling samples to unit norm: it is blind to the "
        "sign and to the length of a sample as a whole, and the pair *random sign* was built for just "
        f"that. The Schmidt entropy finds {_names(schmidt) if schmidt else 'none'}: it says how many "
        "modes share a dependence, not how strong it is."
    )


def lines_of(content):
    """The section: verdict, tables, figure, reading by pair, limits."""
    yield from _verdict(content)
    yield ""
    yield (
        f"Samples from which on a measure finds the pair in at least {WANTED:.0%} of {content['draws']} "
        f"draws (tried: {', '.join(f'{n:,}' for n in content['sizes'])}); in brackets its best share "
        f"where it never does. {_level(content)}"
    )
    for family, (title, pairs) in KINDS.items():
        yield from ("", f"**{title}**", "")
        yield from _table(content, family, pairs)
    yield from ("", "![Power against samples, a panel for each pair](figures/dependence.png)", "")
    for family, (title, pairs) in KINDS.items():
        yield f"*{title}, uncorrelated:*"
        yield ""
        yield from (_blind(content, family, pair) for pair in pairs[1:] if pair.relation == "none")
        yield from ("", f"*{title}, correlated:*", "")
        yield from (_seen(content, family, pair) for pair in pairs if pair.relation != "none")
        yield ""
    yield (
        f"Critical values come from {content['permuted']} permutations of each draw, pooled. The level "
        "was measured on normal variables only. Strengths were not tuned; another strength moves all "
        "curves of a pair to one side. Where tails are heavy, or where the spread of one variable "
        "depends on the other, sample correlations spread wider than permuted ones: correlation then "
        "rejects independence without seeing what the dependence is. The best of two or three measures "
        "stands for its kind; mutual information has 3 neighbours or 8 bins throughout, others were not "
        "tried. Layers have four features; with more, the largest of many pairs loses to measures of "
        "whole layers where all features depend a little."
    )
