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


def _blind(content, family, pair):
    curves = content["families"][family][pair.name]
    correlations = [name for name in curves if name in CORRELATIONS]
    ours = [name for name in curves if name not in (*CORRELATIONS, *GENERAL)]
    most = max(max(curves[name]) for name in correlations)
    seeing, unseeing = _by_size(content, curves, ours)
    peers, _ = _by_size(content, curves, [name for name in curves if name in GENERAL])
    text = f"- **{pair.name}**: {_names(correlations)} find it in at most {most:.0%} of draws. "
    text += f"Found by {_names(seeing)}" if seeing else "None of the QIXAI measures finds it reliably"
    if seeing and unseeing:
        text += f", not by {_names(unseeing)}"
    return f"{text}. Of general measures: {_names(peers) if peers else 'none'}."


def _seen(content, family, pair):
    curves = content["families"][family][pair.name]
    correlations = [name for name in curves if name in CORRELATIONS]
    ours = [name for name in curves if name not in (*CORRELATIONS, *GENERAL)]
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


def _verdict(content):
    """How often each kind of measure was the better one, counted from the curves."""
    counts = {blind: {"better": 0, "worse": 0, "all": 0} for blind in (True, False)}
    first, last, general = [], [], 0
    for family, (_, pairs) in KINDS.items():
        for pair in pairs[1:]:
            curves = content["families"][family][pair.name]
            correlation = _least(content, curves, CORRELATIONS.__contains__)
            information = _least(content, curves, _information)
            count = counts[not pair.correlated]
            count["all"] += 1
            count["better"] += information < correlation
            count["worse"] += information > correlation
            general += _least(content, curves, GENERAL[:1].__contains__) <= information
            if "quantum MI" in curves:
                quantum = _least(content, curves, "quantum MI".__eq__)
                first += [pair.name] * (quantum < min(correlation, information))
                last += [pair.name] * (quantum > min(correlation, information))
    blind, fit = counts[True], counts[False]
    yield (
        f"**Of {blind['all']} pairs without linear correlation, mutual information needs fewer samples "
        f"than correlation on {blind['better']} and more on {blind['worse']}; of {fit['all']} pairs with it, "
        f"fewer on {fit['better']} and more on {fit['worse']}.** (The rest: equal on this grid of sizes, or "
        "neither suffices.) And mutual information has no monopoly there: distance correlation, which QIXAI "
        f"does not use, needs as few samples or fewer on {general} of all {blind['all'] + fit['all']}."
    )
    yield (
        "Quantum mutual information beats both correlation and classical mutual information on "
        f"{_names(first) if first else 'no pair of layers'}, and is beaten on "
        f"{_names(last) if last else 'none'}. It compares what products of two features do within a sample "
        "(its states are a aᵀ), after scaling samples to unit norm: it is blind to signs and to common size."
    )


def lines_of(content):
    """The section: verdict, tables, figure, reading by pair, limits."""
    yield from _verdict(content)
    yield ""
    yield (
        f"Samples from which on a measure finds the pair in at least {WANTED:.0%} of {content['draws']} "
        f"draws (tried: {', '.join(f'{n:,}' for n in content['sizes'])}); in brackets its best share where "
        f"it never does. {_level(content)}"
    )
    for family, (title, pairs) in KINDS.items():
        yield from ("", f"**{title}**", "")
        yield from _table(content, family, pairs)
    yield from ("", "![Power against samples, a panel for each pair](figures/dependence.png)", "")
    for family, (title, pairs) in KINDS.items():
        yield f"*{title}, uncorrelated:*"
        yield ""
        yield from (_blind(content, family, pair) for pair in pairs[1:] if not pair.correlated)
        yield from ("", f"*{title}, correlated:*", "")
        yield from (_seen(content, family, pair) for pair in pairs if pair.correlated)
        yield ""
    yield (
        f"Critical values come from {content['permuted']} permutations of each draw, pooled; the strength of "
        "each pair was fixed before any power was seen, and another strength moves all curves to one side. "
        "Where tails are heavy, uncorrelated variables of common size still make sample correlations spread "
        "wider than permuted ones: correlation then rejects independence without seeing what the dependence "
        "is. Layers have four features; with more, the largest of many pairs loses to measures of whole "
        "layers where all features depend a little."
    )
