"""What the survival study found, in sentences whose numbers come from the results."""

from __future__ import annotations

import numpy as np

from benchmarks.study.fashion import LAYERS
from benchmarks.study.survival_tables import number, verdicts
from benchmarks.study.survival_verdicts import MOVES, STAYS, UNCLEAR, standardised

GROUPS = {
    "Half precision": lambda title: title.startswith(("stored", "computed")),
    "Input noise, same network": lambda title: title.startswith("input noise"),
    "Audited images": lambda title: title.startswith("audited") or title == "other images",
    "Other training": lambda title: title.startswith("trained"),
}
PAIR = "conv2-dense"
FEW = 1 / 20


def answer(content):
    survived, suffered, counts = [], [], []
    for row in content["conditions"]:
        kinds = list(verdicts(content, row).values())
        moved = kinds.count(MOVES)
        counts += kinds
        if moved <= FEW * len(kinds):
            survived.append(row["title"])
        else:
            suffered.append(f"{row['title']} ({moved} of {len(kinds)} move)")
    yield (
        "At most one number in twenty moves beyond what another seed of the same network does to it under: "
        f"{'; '.join(survived) or 'no condition'}. More do under: {'; '.join(suffered) or 'no condition'}. "
        f"In all, of {len(counts):,} pairs of a number and a condition, {counts.count(STAYS)} stay, "
        f"{counts.count(MOVES)} move, and {counts.count(UNCLEAR)} cannot be told."
    )
    yield ""
    for group, belongs in GROUPS.items():
        rows = [row for row in content["conditions"] if belongs(row["title"])]
        if rows:
            yield f"- {group}: {_moved(content, rows)}"
    yield f"- {_top_pairs(content)}"
    yield f"- {_layers(content)}"
    yield f"- {_fewer(content)}"
    yield f"- {_attributions(content)}"


def _moved(content, rows):
    """How many numbers move under each condition of a group, and which most."""
    parts = []
    for row in rows:
        kinds = verdicts(content, row)
        moved = [name for name, kind in kinds.items() if kind == MOVES]
        text = f"{row['title']}, {len(moved)} of {len(kinds)} move"
        times = {name: standardised(row["numbers"][name], content["spread"][name]) for name in moved}
        times = {name: value for name, value in times.items() if np.isfinite(value)}
        if times:
            most = max(times, key=lambda name: abs(times[name]))
            text += f" (most: {most}, {times[most]:+.1f})"
        parts.append(text)
    return "; ".join(parts) + "."


def _listed(content, name, titles=None):
    """Values of a number under some conditions, or under all that have it."""
    return ", ".join(
        f"{row['title']} {row['numbers'][name]['value']:.2f}"
        for row in content["conditions"]
        if name in row["numbers"] and (titles is None or row["title"] in titles)
    )


def _top_pairs(content):
    titles = ("stored as bfloat16", "other images", "input noise 0.1", "input noise 0.25")
    texts = []
    for name in ("top pairs", "MI ranks"):
        same, seeds = _listed(content, f"{name}, {PAIR}", titles), _mean(content, f"{name}, {PAIR}")
        matched = _mean(content, f"{name} (matched), {PAIR}")
        texts.append(f"{same}; another seed {seeds}, and {matched} once its maps are matched by correlation")
    return (
        f"The ten most entangled pairs of {PAIR}, as a share that stays (0: as many as chance): {texts[0]}. "
        f"Rank correlation of all pairs that vary: {texts[1]}. A pair of maps with its numbers, as the paper "
        "names them, belongs to one set of weights: training again gives other pairs."
    )


def _layers(content):
    seeds = ", ".join(f"{layer} {min(_between(content, layer)):.4f}" for layer in LAYERS)
    return (
        f"CKA of the same layer of two seeds is at least {seeds}, while their top pairs share what is said "
        "above: where one direction carries a layer, CKA sees that one. Its yardstick is then tiny, and "
        "shifts of many spreads are small in themselves."
    )


def _between(content, layer):
    return content["between"][f"CKA with clean, {layer}"]


def _mean(content, name):
    return f"{np.mean(content['between'][name]):.2f}"


def _fewer(content):
    counts = content["fewer_images"]
    texts = []
    for estimator in ("plug-in", "corrected", "KSG"):
        name = f"mean {estimator} MI, {PAIR}"
        values = [row["numbers"][name]["value"] for row in content["conditions"][-len(counts) :]]
        nulls = [null[name] for null in content["null"]]
        steps = " to ".join(number(value) for value in values)
        texts.append(f"{estimator} {steps} (paired at random: {' to '.join(map(number, nulls))})")
    return (
        f"From {' to '.join(f'{count:,}' for count in counts)} audited images of one network the mean MI of "
        f"{PAIR} goes, {'; '.join(texts)} nats. Nothing in the network changes there: all of it is the "
        "estimator."
    )


def _attributions(content):
    return (
        "Rank correlation of attributions with the clean ones, same image and class, over pixels that are "
        f"not black: {_listed(content, 'IG ranks')}; another seed {_mean(content, 'IG ranks')}. Share that "
        f"meets its tolerance: {_listed(content, 'IG converged')}; clean, by seed, "
        f"{', '.join(f'{value:.2f}' for value in content['clean']['IG converged'])}."
    )
