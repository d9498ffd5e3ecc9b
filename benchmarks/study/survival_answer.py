"""What the survival study found, in sentences whose numbers come from the results."""

from __future__ import annotations

import numpy as np

from benchmarks.study.fashion import LAYERS
from benchmarks.study.survival_numbers import TOP
from benchmarks.study.survival_tables import changed, counted_verdicts, number
from benchmarks.study.survival_verdicts import FAMILIES, MOVES, STAYS, UNCLEAR, standardised

SUBJECTS = {
    "half precision": lambda title: title.startswith(("stored", "computed")),
    "other images": lambda title: title == "other images",
    "input noise": lambda title: "input noise" in title,
    "label noise": lambda title: "random labels" in title,
    "rare classes": lambda title: "classes 1:" in title,
    "training on fewer images": lambda title: (
        title.startswith("trained on") and title.endswith("fewer images")
    ),
}
PAIR = "conv2-dense"
FEW = 1 / 20
TRAINED = "trained on"


def answer(content):
    yield _lead(content)
    yield ""
    yield _counts(content)
    yield ""
    yield f"- {_families(content)}"
    yield f"- {_top_pairs(content)}"
    yield f"- {_layers(content)}"
    yield f"- {_fewer(content)}"
    yield f"- {_attributions(content)}"


def _moved(content, row):
    return [name for name, kind in counted_verdicts(content, row).items() if kind == MOVES]


def _suffers(content, row):
    """Whether more than one number in twenty moves."""
    return len(_moved(content, row)) > FEW * len(counted_verdicts(content, row))


def _lead(content):
    """Which kinds of conditions leave the numbers where they are."""
    rows = changed(content)
    sizes = content["fewer_images"][1:]
    of = {subject: [row for row in rows if belongs(row["title"])] for subject, belongs in SUBJECTS.items()}
    calm = [
        subject for subject in of if of[subject] and not any(_suffers(content, row) for row in of[subject])
    ]
    rough = [subject for subject in of if of[subject] and subject not in calm]
    few = [images for images, row in zip(sizes, rows[-len(sizes) :], strict=True) if _suffers(content, row)]
    text = []
    if calm:
        text.append(f"Under {_and(calm)} next to nothing moves farther than another seed would move it.")
    if rough:
        text.append(f"Under {_and(rough)} {'more' if calm else 'much'} does.")
    if few:
        text.append(f"{_and([f'{images:,}' for images in few])} images are too few to audit.")
    exceptions = [
        f"{name} ({row['title']})" for subject in calm for row in of[subject] for name in _moved(content, row)
    ]
    note = f"; here {', '.join(exceptions)}" if exceptions else ""
    about = f" (Next to nothing: at most one number in twenty under each condition{note}.)" if calm else ""
    return f"**{' '.join(text)}**{about}"


def _and(words):
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _counts(content):
    found = [list(counted_verdicts(content, row).values()) for row in changed(content)]
    kinds = [kind for one in found for kind in one]
    sizes = [len(one) for one in found]
    return (
        "Counted are numbers that do not follow from each other: effective rank without entropy, debiased "
        "CKA without CKA, corrected MI without plug-in MI. Not each of them exists under each condition "
        "(what is compared map by map wants the same images, not all have attributions, and maps are matched "
        f"only where networks were trained anew): there are {min(sizes)} to {max(sizes)} under each "
        f"of {len(found)} conditions. Of these {len(kinds):,} cases {kinds.count(STAYS)} stay, "
        f"{kinds.count(MOVES)} move, and {kinds.count(UNCLEAR)} cannot be told."
    )


def _families(content):
    shares = {}
    for family, belongs in FAMILIES.items():
        kinds = [
            kind
            for row in changed(content)
            for name, kind in counted_verdicts(content, row).items()
            if belongs(name)
        ]
        shares[family] = kinds.count(MOVES) / len(kinds)
    listed = ", ".join(f"{family} {shares[family]:.0%}" for family in sorted(shares, key=shares.get))
    return (
        f"What moves, by family (named as in the table by condition), from least to most: {listed} of cases."
    )


def _listed(content, name, titles):
    """Values of a number under some conditions."""
    return ", ".join(
        f"{row['title']} {row['numbers'][name]['value']:.2f}"
        for row in content["conditions"]
        if name in row["numbers"] and row["title"] in titles
    )


def _values(content, name, belongs):
    return [
        row["numbers"][name]["value"]
        for row in content["conditions"]
        if name in row["numbers"] and belongs(row["title"])
    ]


def _top_pairs(content):
    titles = ("stored as bfloat16", "other images", "input noise 0.1", "input noise 0.25")
    name = f"top pairs, {PAIR}"
    trained = _values(content, name, lambda title: title.startswith(TRAINED))
    ranks = (_mean(content, f"MI ranks, {PAIR}"), _mean(content, f"MI ranks (matched), {PAIR}"))
    return (
        f"Which pairs of maps are the {TOP} most entangled belongs to one set of weights. Of those of {PAIR} "
        f"this share stays (0: as many as chance): {_listed(content, name, titles)}; trained otherwise, same "
        f"seed, at most {max(trained):.2f}; another seed {_mean(content, name)}, and "
        f"{_mean(content, f'top pairs (matched), {PAIR}')} once its maps are matched by correlation. The "
        f"rank correlation of all pairs with those of another seed is {ranks[0]}, matched {ranks[1]}. So a "
        "pair with its numbers, as the paper names one, says nothing of another network."
    )


def _layers(content):
    seeds = ", ".join(f"{layer} {min(_between(content, layer)):.4f}" for layer in LAYERS)
    return (
        f"CKA of the same layer of two seeds is at least {seeds}: where one direction carries a layer, CKA "
        f"sees that one. {_tiny_yardstick(content)}"
    )


def _tiny_yardstick(content):
    """The CKA that is farthest from 1 in yardsticks, with its value."""
    entries = [
        (abs(standardised(row["numbers"][name], content["spread"][name])), row, name)
        for row in changed(content)
        for name in (f"CKA with clean, {layer}" for layer in LAYERS)
        if name in row["numbers"] and content["spread"][name]
    ]
    times, row, name = max(entries, key=lambda entry: entry[0])
    return (
        f"Its yardstick is then tiny, and many of them are little: under {row['title']} {name} is "
        f"{row['numbers'][name]['value']:.3f}, {times:.0f} yardsticks from 1."
    )


def _between(content, layer):
    return content["between"][f"CKA with clean, {layer}"]


def _mean(content, name):
    return f"{np.mean(content['between'][name]) + 0.0:.2f}".replace("-0.00", "0.00")


def _fewer(content):
    counts = content["fewer_images"]
    name = f"mean plug-in MI, {PAIR}"
    values = [row["numbers"][name]["value"] for row in content["conditions"][-len(counts) :]]
    nulls = [null[name] for null in content["null"]]
    bias = values[-1] - values[0] <= nulls[-1] - nulls[0]
    others = {estimator: f"mean {estimator} MI, {PAIR}" for estimator in ("corrected", "KSG")}
    random = ", ".join(
        f"{estimator} {number(content['null'][-1][name])}" for estimator, name in others.items()
    )
    real = [[row["numbers"][name]["value"] for row in content["conditions"]] for name in others.values()]
    low = all(found[-1] < found[-len(counts)] for found in real)
    return (
        f"Plug-in MI of {counts[-1]:,} images is {values[-1] / values[0]:.1f} times that of {counts[0]:,} "
        f"(mean of {PAIR}, {number(values[-1])} and {number(values[0])} nats), {'all' if bias else 'much'} "
        f"of it bias: images paired at random give {number(nulls[-1])} ({random})."
        + (" Corrected MI and KSG of so few images are too low instead (table below)." if low else "")
    )


def _attributions(content):
    noise = ("input noise 0.1", "input noise 0.25", "input noise 0.5", "computed in bfloat16")
    trained = _values(content, "IG ranks", lambda title: title.startswith(TRAINED))
    rows = [row for row in content["conditions"] if "IG converged" in row["numbers"]]
    worst = min(rows, key=lambda row: row["numbers"]["IG converged"]["value"])
    rest = min((row["numbers"]["IG converged"]["value"] for row in rows if row is not worst), default=1)
    return (
        "Rank correlation of attributions with the clean ones, same image and class, over pixels that are "
        f"not black: {_listed(content, 'IG ranks', noise)}; trained otherwise {min(trained):.2f} to "
        f"{max(trained):.2f}; another seed {_mean(content, 'IG ranks')}. Under {worst['title']} "
        f"{worst['numbers']['IG converged']['value']:.0%} of images meet their tolerance, elsewhere at least "
        f"{rest:.0%}."
    )
