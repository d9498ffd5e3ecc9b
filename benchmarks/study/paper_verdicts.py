"""The verdicts of part 1, by rules: the same for Fashion-MNIST and for anyone's own images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NEAR = 0.05  # of a share of variance
PAPER_SHARE = 0.27
ALPHA = 0.05
YES, THEOREM, PARTLY, NO = "yes", "a theorem", "partly", "no"
NOT_REPRODUCED, UNTESTABLE = "not reproduced", "cannot be tested"


class Verdict(NamedTuple):
    """A claim, a few words for it, what was measured, its null, the kind of the verdict, and why."""

    claim: str
    short: str
    measured: str
    null: str
    kind: str
    why: str


def spread(values, scale=1.0, digits=2):
    """Mean of the seeds, and the lowest and highest of them where these differ."""
    values = scale * np.array(values, float)
    mean, low, high = (
        f"{round(v, digits) + 0.0:.{digits}f}" for v in (values.mean(), values.min(), values.max())
    )
    return mean if low == high else f"{mean} ({low} to {high})"


def percent(values, digits=0):
    mean, *rest = spread(values, 100, digits).split(" ", 1)
    return " ".join([mean, "%", *rest])


def pvalue(values):
    """The largest of some p-values."""
    return f"p ≤ {max(values):.2g}"


def pick(content, kind, *path):
    """One number a network: ``pick(entries, "trained", "given", "top")``."""
    found = []
    for entry in content[kind]:
        for key in path:
            entry = entry[key]
        found.append(entry)
    return found


def verdicts(content):
    """All claims, in the order of the table."""
    return [
        _share(content),
        _learned_components(content),
        _orthogonal(content),
        _entangled(content),
        _learned_pairs(content),
        _beyond_images(content),
        _named_pair(content),
        _complete(content),
        _faithful(content),
    ]


def near(shares):
    """Which shares are about the paper's."""
    return [abs(share - PAPER_SHARE) < NEAR for share in shares]


def _share(content):
    dense = content["variance"]["layers"]["trained"]["dense"]
    close, by_chance = near(dense["share"]), near([np.mean(dense["independent"])])[0]
    noise = content["variance"]["spectra"]["noise"][0][4]
    kind = NOT_REPRODUCED if not any(close) else YES if all(close) and not by_chance else PARTLY
    why = {NOT_REPRODUCED: " on this network", PARTLY: ": some networks are near", YES: ": all are near"}[
        kind
    ]
    if by_chance:
        why += f"; {100 * PAPER_SHARE:.0f} % is about what its units give once made independent"
    return Verdict(
        "The first 5 components explain about 27 % of Dense",
        "five components explain about 27 % of Dense",
        f"{percent(dense['share'])} of {content['variance']['width']} units",
        f"units made independent {percent(dense['independent'])}; noise {100 * noise:.0f} %",
        kind,
        why,
    )


def firing_units(variance):
    """Units of Dense that fire, of trained and of untrained networks, where these are not as many."""
    firing = [round(variance["width"] - np.mean(variance["dead"][kind])) for kind in ("trained", "untrained")]
    return firing if firing[0] != firing[1] else None


def _learned_components(content):
    layers = content["variance"]["layers"]
    trained, untrained = (layers[kind]["dense"]["share"] for kind in ("trained", "untrained"))
    chance = layers["trained"]["dense"]["independent"]
    random_labels = layers["random labels"]["dense"]["share"]
    alike = content["variance"]["scaled"]
    apart = min(trained) > max(untrained) or max(trained) < min(untrained)
    mostly = np.mean(trained) - np.mean(untrained) > (np.mean(trained) - np.mean(chance)) / 2
    kind = NO if not apart else YES if mostly else PARTLY
    firing = firing_units(content["variance"])
    return Verdict(
        "Its components are what training made",
        "the components of Dense are what training made",
        f"{percent(trained)}; units scaled alike {percent(alike['trained'])}",
        f"never trained {percent(untrained)}, scaled {percent(alike['untrained'])}; "
        f"random labels {percent(random_labels)}, scaled {percent(alike['random labels'])}",
        kind,
        {
            NO: ": networks that never trained overlap",
            PARTLY: ": most of the share is there before training",
            YES: ": training made most of the share",
        }[kind]
        + (f" ({firing[0]} units that fire against {firing[1]}, see below)" if firing else ""),
    )


def _orthogonal(content):
    readings = content["cosine"]["kinds"]["trained"]
    cka = [value for row in readings.values() for value in row["cka"]]
    p = [value for row in readings.values() for value in row["cka_p"]]
    raw = [value for row in readings.values() for value in row["maps"]]
    related = [value > 0.1 and chance < ALPHA for value, chance in zip(cka, p, strict=True)]
    untrained = [value for row in content["cosine"]["kinds"]["untrained"].values() for value in row["cka"]]
    nulls = content["cosine"]["nulls"]
    kind = NO if all(related) else PARTLY if any(related) else YES
    return Verdict(
        "Conv1, Conv2 and Dense are nearly orthogonal",
        "layers are nearly orthogonal",
        f"CKA {spread(cka)} over pairs of layers and seeds, {pvalue(p)}; raw cosine of maps {spread(raw)}",
        f"CKA of unrelated layers 0.00, of layers never trained {spread(untrained)}; cosine of random "
        f"directions in {nulls['width']} dimensions ±{nulls['random']:.2f}, of unrelated units after a ReLU, "
        f"raw, about {nulls['rectified']:.2f}",
        kind,
        {
            NO: ": all pairs of layers are related",
            PARTLY: ": some pairs of layers are related",
            YES: ": no relation found",
        }[kind],
    )


def _entangled(content):
    entangled = content["entangled"]
    networks = entangled["networks"]
    share = [entry["dependent"] for entry in entangled["pairs"]["trained"]["conv1 conv2"]]
    p = pick(networks, "trained", "heldout_p")
    null = [value for entry in networks["trained"] for value in entry["null"]]
    sure = max(p) < ALPHA
    return Verdict(
        "Maps of Conv1 and Conv2 share information (are entangled)",
        "maps of two layers share information",
        f"strongest pair {spread(pick(networks, 'trained', 'heldout'))} nats on images that did not choose "
        f"it, {pvalue(p)}; {percent(share)} of pairs dependent, family-wise",
        f"largest of all pairs, images shuffled: {max(null):.2f} nats",
        YES if sure else NO,
        ": far beyond chance" if sure else ": not beyond chance",
    )


def _learned_pairs(content):
    networks = content["entangled"]["networks"]
    top, median = (
        [pick(networks, kind, key) for kind in ("trained", "untrained")] for key in ("max", "median")
    )
    stronger = min(top[0]) > max(top[1])
    more = min(median[0]) > max(median[1])
    kind = YES if stronger and more else PARTLY if stronger or more else NO
    return Verdict(
        "Entanglement shows what the network learned",
        "what maps share shows what the network learned",
        f"strongest {spread(top[0])}, median {spread(median[0])} nats",
        f"never trained: strongest {spread(top[1])}, median {spread(median[1])}",
        kind,
        {
            YES: ": untrained maps share less",
            PARTLY: ": the typical pair shares more, the strongest does not"
            if more
            else ": the strongest pair shares more, the typical one does not",
            NO: ": untrained maps share as much",
        }[kind],
    )


def _beyond_images(content):
    networks = content["entangled"]["networks"]
    left = {kind: remaining(networks, kind, "both") for kind in ("trained", "untrained", "random labels")}
    p = pick(networks, "trained", "given", "p_both")
    apart = min(left["trained"]) > max(left["untrained"])
    classes = min(left["trained"]) > max(left["random labels"])
    kind = NO if max(p) >= ALPHA else YES if apart and np.mean(left["trained"]) > 0.5 else PARTLY
    return Verdict(
        "It is more than the class and brightness of the image",
        "what maps share is more than the class and brightness of the image",
        f"of the strongest pairs' information {percent(left['trained'])} is left given both "
        f"(strongest pair: {pvalue(p)})",
        f"never trained: {percent(left['untrained'])}; random labels: {percent(left['random labels'])}",
        kind,
        {
            NO: ": nothing certain is left",
            PARTLY: ": part of it is" if apart else ": part of it is, trained or not",
            YES: ": most of it is",
        }[kind]
        + ("" if classes or kind == NO else ", and with random labels, too"),
    )


def remaining(networks, kind, known):
    """Information that is left once something is known, in parts of what the estimator keeps of a control."""
    return [
        entry["given"][f"top_{known}"] / entry["given"][f"top_{known}_control"] for entry in networks[kind]
    ]


def _named_pair(content):
    stronger = pick(content["entangled"]["networks"], "trained", "named_share_stronger")
    return Verdict(
        "Map 22 of Conv1 and map 46 of Conv2 are such a pair",
        "map 22 of Conv1 and map 46 of Conv2 are such a pair",
        f"{percent(stronger)} of all pairs share more",
        "any pair: 50 % on average",
        UNTESTABLE,
        " on another network: numbers of maps carry over to none",
    )


def _complete(content):
    seeds = content["attribution"]["seeds"]
    within = [seed["fixed"]["within"] for seed in seeds]
    refined = [seed["converged"] for seed in seeds]
    kind = THEOREM if min(refined) >= 0.95 else NO
    steps = ", here only where steps are refined" if min(within) < 0.95 else ""
    return Verdict(
        "Integrated gradients add up to the output's change",
        "integrated gradients add up to the output's change",
        f"{percent(within)} of images within {100 * content['attribution']['tol']:.0f} % after "
        f"{content['attribution']['steps']} steps; {percent(refined)} refined until they are",
        "none",
        kind,
        {THEOREM: f": it holds for untrained networks, too{steps}", NO: ": not by these steps"}[kind],
    )


def _faithful(content):
    seeds = content["attribution"]["seeds"]
    fresh, other = (
        {reading: [path(seed)[reading] for seed in seeds] for reading in ("signed", "lit")}
        for path in (lambda seed: seed["cascade"]["conv1"], lambda seed: seed["other_seed"])
    )
    areas = [seed["deletion"]["areas"] for seed in seeds]
    works = all(
        area["attribution"]["interval"][0] > 0
        and area["attribution"]["mean"] < min(area["brightness"]["mean"], area["fresh network"]["mean"])
        for area in areas
    )
    notices = np.mean(fresh["signed"]) < np.mean(other["signed"]) / 2
    by_size = np.mean(fresh["lit"]) < np.mean(other["lit"]) / 2
    kind = YES if works and notices else PARTLY if works or notices else NO
    return Verdict(
        "Integrated gradients show what decisions rest on",
        "integrated gradients show what decisions rest on",
        f"deletion area {spread([area['attribution']['mean'] for area in areas])}; rank correlation with "
        f"another trained network {spread(other['signed'])}",
        f"deletion in random order {spread([area['random order']['mean'] for area in areas])}; rank "
        f"correlation with a random network {spread(fresh['signed'])}",
        kind,
        {
            YES: ": they notice when the network is gone"
            + ("" if by_size else ", but by their signs; their sizes hardly do"),
            PARTLY: ": deletion works, but a random network's look alike"
            if works
            else ": they notice when the network is gone, but deletion gains little",
            NO: ": neither test is passed",
        }[kind],
    )
