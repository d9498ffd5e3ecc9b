"""The section of the README: what survives what, written from the results."""

from __future__ import annotations

from benchmarks.study import fashion
from benchmarks.study.survival_answer import answer
from benchmarks.study.survival_tables import condition_table, fewer_table, main_table, trust_table
from benchmarks.study.survival_verdicts import FAMILIES, another_seed, has_interval, is_counted, is_likeness

TABLES = {
    "Whole layers": (
        "top-5 variance, dense",
        "effective rank, dense",
        "debiased CKA, conv2-dense",
        "mean cosine, conv2-dense",
        "CKA with clean, dense",
    ),
    "Pairs of maps": (
        "mean KSG MI, conv2-dense",
        "largest KSG MI, conv2-dense",
        "MI ranks, conv2-dense",
        "top pairs, conv2-dense",
        "top pairs (matched), conv2-dense",
    ),
    "Attributions": ("IG ranks", "IG error", "IG converged"),
}
RATES = (0.35, 0.65)  # what 39 draws at each of two sizes cannot tell from 1/2


def lines(content):
    yield from answer(content)
    yield from ["", "### How this was measured", ""]
    yield from _setting(content)
    yield from ["", "### What to trust when", ""]
    yield (
        "A condition that is not named leaves the number within the yardstick, or the number does not exist "
        "there (empty cells further below)."
    )
    yield ""
    yield from trust_table(content, [name for names in TABLES.values() for name in names])
    yield from ["", "### By condition", ""]
    yield (
        "Of the numbers that are counted, how many stay within the spread of seeds, and how many move beyond "
        "it; the rest cannot be told:"
    )
    yield ""
    yield from condition_table(content, FAMILIES)
    yield from ["", "![Shift of every number under every condition](figures/survival_shifts.png)"]
    for title, names in TABLES.items():
        yield from ["", f"### {title}", ""]
        yield from main_table(content, names)
    yield from ["", "![Top pairs that are still top pairs](figures/survival_pairs.png)", ""]
    yield from ["### Fewer images: the estimator or the network?", ""]
    yield from _fewer()
    yield from fewer_table(content)
    yield from ["", "### What the intervals are worth", ""]
    yield from _intervals(content)


def _setting(content):
    seeds, replicates = len(content["seeds"]), content["replicates"]
    accuracies = ", ".join(f"{value:.1%}" for value in content["accuracy"])
    chances = ", ".join(f"{another_seed(times):.0%} of cases beyond {times}" for times in (1, 2, 3))
    constant = "; ".join(
        f"{layer} {', '.join(map(str, counts))} of {content['maps'][layer]}"
        for layer, counts in content["constant_maps"].items()
    )
    yield (
        f"The paper's CNN on {content['data']}, {seeds} seeds, {content['epochs']} epochs of "
        f"{content['trained_on']:,} images (test accuracy {accuracies}), audited on {content['images']:,} "
        f"test images; {content['attributed']} of them are attributed. Maps that are constant on all of "
        f"these, by seed: {constant}."
    )
    yield ""
    yield (
        f"Only what is trained otherwise is measured with all {seeds} seeds. Every other condition is "
        "measured on the first seed's network alone, and its bracket is one of images, not of networks. "
        f"These networks train {content['epochs']} epochs where those of part 1 train {fashion.EPOCHS}, so "
        "that their accuracy is another one."
    )
    yield ""
    yield (
        "A cell holds the shift from the clean case in units of a yardstick, then the shift itself and its "
        "bracket. The yardstick is the spread of the clean numbers of three seeds, largest less smallest. "
        "For numbers that say how like the clean case something is, 1 there, it is half of what the networks "
        "of two seeds lack to 1: beyond one, the case is more like another network than like itself. "
        "**Bold** moves: the whole bracket lies beyond one yardstick. Plain stays: it lies within. A "
        "question mark: neither. Three seeds make a short yardstick: a fourth, were seeds normal, is farther "
        f"from the first in {chances} spreads, so that one to two spreads are weak evidence."
    )
    yield ""
    yield (
        f"Brackets are 95 % intervals by subsampling (Politis, Romano and Wolf 1999): {replicates} times "
        f"{content['subsample']} images without replacement, the same on both sides where the images are the "
        "same. Networks trained otherwise are trained with every seed, each beside its own clean network: "
        "the shift is their mean, and its bracket, as wide as the first seed's, holds all three (for KSG it "
        f"is their range). For fewer audited images, {replicates} samples are drawn from "
        f"{content['test_images']:,}, and the bracket is where 95 % of single samples lie. Networks trained "
        "on fewer images or on rare classes took as many steps as the others. Of random labels a share is "
        "right by chance. 1:100: class sizes fall geometrically from the first to the last class. Noise is "
        "Gaussian, on pixels in [0, 1], not clipped."
    )


def _fewer():
    yield (
        "Mean and largest MI of all pairs of conv2 and dense in nats, by samples of so many images, and in "
        "brackets what the same estimator makes of images that are paired at random, where there is nothing:"
    )
    yield ""


def _intervals(content):
    def counts(key):
        return has_interval(key) and is_counted(key)

    rates = {key: rate for key, rate in content["rates"].items() if counts(key) and rate is not None}
    off = {key: rate for key, rate in rates.items() if not RATES[0] <= rate <= RATES[1]}
    yield (
        "Subsampling must know how fast a number settles as images are added: as n to the power 1/2, it "
        f"assumes. Measured on {content['replicates']} samples of {content['fewer_images'][1]:,} and of "
        f"{content['fewer_images'][0]:,} images each, the power is between {RATES[0]} and {RATES[1]} for "
        f"{len(rates) - len(off)} of {len(rates)} numbers."
    )
    if off:
        yield "It is not for " + ", ".join(f"{key} ({rate:.2f})" for key, rate in off.items()) + "."
    others = [row for row in content["conditions"] if row["title"] == "other images"]
    brackets = [
        entry["bracket"]
        for row in others
        for key, entry in row["numbers"].items()
        if entry["bracket"] and is_counted(key) and not is_likeness(key)
    ]
    held = sum(low <= 0 <= high for low, high in brackets)
    yield (
        f"Held against other images of the same network, where nothing has changed, {held} of "
        f"{len(brackets)} intervals contain zero (they are of the same images, and come true or fail "
        "together). The largest MI, ranks and top pairs have no interval by subsampling: the largest of "
        "thousands is too large by selection, by an amount that depends on the number of images."
    )
