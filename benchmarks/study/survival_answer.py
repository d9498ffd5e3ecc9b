"""What the survival study found, in sentences whose numbers come from the results."""

from __future__ import annotations

import numpy as np

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
    yield f"- {_fewer(content)}"
    yield f"- {_attributions(content)}"


def _moved(content, rows):
    """How many numbers move under each condition of a group, and which most."""
    parts = []
    for row in rows:
        kinds = verdicts(content, row)
        moved = [name for name, kind in kinds.items() if kind == MOVES]
        text = f"{row['title']}, {len(moved)} of {len(kinds)} move"
        if moved:
            times = {name: standardised(row["numbers"][name], content["spread"][name]) for name in moved}
            most = max(times, key=lambda name: abs(times[name]))
            text += f" (most: {most}, {times[most]:+.1f})"
        parts.append(text)
    return "; ".join(parts) + "."


def _value(content, title, name):
    for row in content["conditions"]:
        if row["title"] == title and name in row["numbers"]:
            return row["numbers"][name]["value"]
    return None


def _top_pairs(content):
    name = f"top pairs, {PAIR}"
    matched = f"top pairs (matched), {PAIR}"
    kept = [
        f"{title} {value:.2f}"
        for title in ("stored as bfloat16", "other images", "input noise 0.1", "input noise 0.25")
        if (value := _value(content, title, name)) is not None
    ]
    return (
        f"The ten most entangled pairs of {PAIR}, as a share that stays (0: as many as chance): "
        f"{', '.join(kept)}; in the network of another seed {_mean(content, name)}, and "
        f"{_mean(content, matched)} once its maps are matched by correlation. Which maps share most is a "
        "fact about one training run and, where other images already exchange some of the ten, about one "
        "sample. It is no finding about the task."
    )


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
    texts = [
        f"{row['title']} {row['numbers']['IG ranks']['value']:.2f}"
        for row in content["conditions"]
        if "IG ranks" in row["numbers"]
    ]
    return (
        "Rank correlation of attributions with the clean ones, same image and class, over pixels that are "
        f"not black: {', '.join(texts)}; another seed {_mean(content, 'IG ranks')}."
    )
