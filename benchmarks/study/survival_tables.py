"""Tables of the survival study: shift, bracket and verdict of a number under a condition."""

from __future__ import annotations

from benchmarks.study.survival_verdicts import (
    MOVES,
    STAYS,
    UNCLEAR,
    is_counted,
    is_likeness,
    standardised,
    verdict,
)

ESTIMATORS = ("plug-in", "corrected", "KSG")


def number(value):
    """Three digits, without an exponent where that can be read."""
    text = f"{value:.3g}"
    if "e" in text:
        text = f"{value:,.0f}" if abs(value) >= 1 else f"{value:.5f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def counted_verdicts(content, condition):
    """Verdict of every number under a condition that is counted."""
    return {
        name: verdict(entry, content["spread"][name])
        for name, entry in condition["numbers"].items()
        if is_counted(name)
    }


def changed(content):
    """All conditions but the clean one: the first number of audited images is what fewer are held against."""
    clean = len(content["conditions"]) - len(content["fewer_images"])
    return [row for place, row in enumerate(content["conditions"]) if place != clean]


def main_table(content, names):
    """Conditions down, numbers across; first what three seeds give."""
    yield "| condition | " + " | ".join(names) + " |"
    yield "|---|" + "---|" * len(names)
    head = f"{len(content['seeds'])} seeds; *spread*"
    yield "| " + " | ".join([head, *(_seeds(content, name) for name in names)]) + " |"
    for condition in content["conditions"]:
        entries = [condition["numbers"].get(name) for name in names]
        if any(entries):
            cells = [
                _cell(entry, content["spread"][name]) if entry else ""
                for name, entry in zip(names, entries, strict=True)
            ]
            yield "| " + " | ".join([condition["title"], *cells]) + " |"


def _seeds(content, name):
    values = content["between" if is_likeness(name) else "clean"][name]
    return f"{', '.join(map(number, values))}; *{number(content['spread'][name])}*"


def _cell(entry, spread):
    times, kind = standardised(entry, spread), verdict(entry, spread)
    size = "no spread" if abs(times) == float("inf") else f"{times:+.1f}".replace("-0.0", "+0.0")
    if kind == MOVES:
        size = f"**{size}**"
    bracket = ""
    if entry["bracket"]:
        bracket = " [" + ", ".join(number(end) for end in entry["bracket"]) + "]"
    sign = "+" if entry["shift"] > 0 else ""
    return f"{size}{'?' if kind == UNCLEAR else ''}: {sign}{number(entry['shift'])}{bracket}"


def trust_table(content, names):
    """Of each number, the conditions under which it moves, and those that leave it open."""
    yield "| number | moves under | cannot be told under |"
    yield "|---|---|---|"
    for name in names:
        kinds = {
            row["title"]: verdict(row["numbers"][name], content["spread"][name])
            for row in content["conditions"]
            if name in row["numbers"]
        }
        cells = ["; ".join(title for title in kinds if kinds[title] == kind) for kind in (MOVES, UNCLEAR)]
        yield f"| {name} | {' | '.join(cells)} |"


def condition_table(content, families):
    """How many numbers of each family stay, under each condition; and how well the networks classify."""
    yield "| condition | accuracy on clean images | " + " | ".join([*families, "all"]) + " |"
    yield "|---|---|" + "---|" * (len(families) + 1)
    for condition in changed(content):
        cells = []
        for belongs in [*families.values(), lambda name: True]:
            kinds = [kind for name, kind in counted_verdicts(content, condition).items() if belongs(name)]
            moved = f", **{kinds.count(MOVES)} move**" if MOVES in kinds else ""
            cells.append(f"{kinds.count(STAYS)} of {len(kinds)}{moved}" if kinds else "")
        yield "| " + " | ".join([condition["title"], _accuracy(condition["accuracy"]), *cells]) + " |"


def _accuracy(values):
    texts = sorted({f"{value:.1%}" for value in values})
    return " to ".join([texts[0], texts[-1]][: len(texts)]) if texts else ""


def fewer_table(content):
    """Estimates of MI by number of images, each beside what it makes of samples paired at random."""
    yield "| images | " + " | ".join(f"mean, {name} | largest, {name}" for name in ESTIMATORS) + " |"
    yield "|---|" + "---|---|" * len(ESTIMATORS)
    rows = content["conditions"][-len(content["fewer_images"]) :]
    for images, row, null in zip(content["fewer_images"], rows, content["null"], strict=True):
        names = [f"{size} {name} MI, conv2-dense" for name in ESTIMATORS for size in ("mean", "largest")]
        cells = [f"{number(row['numbers'][name]['value'])} ({number(null[name])})" for name in names]
        yield f"| {images:,} | " + " | ".join(cells) + " |"
