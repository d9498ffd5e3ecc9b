"""The verdicts of part 1, by rules: the same for Fashion-MNIST and for anyone's own images."""

from __future__ import annotations

import numpy as np

NEAR = 0.05  # of a share of variance
PAPER_SHARE = 0.27
ALPHA = 0.05


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
    """Rows of claim, what was measured, null, and whether the claim survives, and why."""
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


def _share(content):
    dense = content["variance"]["layers"]["trained"]["dense"]
    near = [abs(share - PAPER_SHARE) < NEAR for share in dense["share"]]
    noise = content["variance"]["spectra"]["noise"][0][4]
    verdict = "yes" if all(near) else "partly" if any(near) else "no"
    return (
        "The first 5 components explain about 27 % of Dense",
        f"{percent(dense['share'])} of {content['variance']['width']} units",
        f"units made independent {percent(dense['independent'])}; noise {100 * noise:.0f} %",
        f"**{verdict}**: the number is one of a network, its width and its data",
    )


def _learned_components(content):
    layers = content["variance"]["layers"]
    trained, untrained = (layers[kind]["dense"]["share"] for kind in ("trained", "untrained"))
    chance = layers["trained"]["dense"]["independent"]
    random_labels = layers["random labels"]["dense"]["share"]
    alike = content["variance"]["scaled"]
    apart = min(trained) > max(untrained) or max(trained) < min(untrained)
    mostly = np.mean(trained) - np.mean(untrained) > (np.mean(trained) - np.mean(chance)) / 2
    verdict = "no" if not apart else "yes" if mostly else "partly"
    return (
        "Its components are what training made",
        f"{percent(trained)}; units scaled alike {percent(alike['trained'])}",
        f"never trained {percent(untrained)}, scaled {percent(alike['untrained'])}; "
        f"random labels {percent(random_labels)}, scaled {percent(alike['random labels'])}",
        f"**{verdict}**: "
        + {
            "no": "networks that never trained overlap",
            "partly": "most of the share is there before training",
            "yes": "training made most of the share",
        }[verdict],
    )


def _orthogonal(content):
    readings = content["cosine"]["kinds"]["trained"]
    cka = [value for row in readings.values() for value in row["cka"]]
    p = [value for row in readings.values() for value in row["cka_p"]]
    raw = [value for row in readings.values() for value in row["maps"]]
    related = [value > 0.1 and chance < ALPHA for value, chance in zip(cka, p, strict=True)]
    verdict = "no" if all(related) else "partly" if any(related) else "yes"
    return (
        "Conv1, Conv2 and Dense are nearly orthogonal",
        f"CKA {spread(cka)} over pairs of layers and seeds, {pvalue(p)}; raw cosine of maps {spread(raw)}",
        f"CKA of unrelated layers 0.00; raw cosine of unrelated units after a ReLU about "
        f"{content['cosine']['nulls']['rectified']:.2f}",
        f"**{verdict}**: "
        + {
            "no": "all pairs of layers are related",
            "partly": "some pairs of layers are related",
            "yes": "no relation found",
        }[verdict],
    )


def _entangled(content):
    entangled = content["entangled"]
    networks = entangled["networks"]
    share = [entry["dependent"] for entry in entangled["pairs"]["trained"]["conv1 conv2"]]
    p = pick(networks, "trained", "heldout_p")
    null = [value for entry in networks["trained"] for value in entry["null"]]
    sure = max(p) < ALPHA
    return (
        "Maps of Conv1 and Conv2 share information (are entangled)",
        f"strongest pair {spread(pick(networks, 'trained', 'heldout'))} nats on images that did not choose "
        f"it, {pvalue(p)}; {percent(share)} of pairs dependent, family-wise",
        f"largest of all pairs, images shuffled: {max(null):.2f} nats",
        "**yes**: far beyond chance" if sure else "**no**: not beyond chance",
    )


def _learned_pairs(content):
    networks = content["entangled"]["networks"]
    top, median = (
        [pick(networks, kind, key) for kind in ("trained", "untrained")] for key in ("max", "median")
    )
    stronger = min(top[0]) > max(top[1])
    more = min(median[0]) > max(median[1])
    verdict = "yes" if stronger and more else "partly" if stronger or more else "no"
    return (
        "Entanglement shows what the network learned",
        f"strongest {spread(top[0])}, median {spread(median[0])} nats",
        f"never trained: strongest {spread(top[1])}, median {spread(median[1])}",
        f"**{verdict}**: "
        + {
            "yes": "untrained maps share less",
            "partly": "the typical pair shares more, the strongest does not"
            if more
            else "the strongest pair shares more, the typical one does not",
            "no": "untrained maps share as much",
        }[verdict],
    )


def _beyond_images(content):
    networks = content["entangled"]["networks"]
    left = {kind: remaining(networks, kind, "both") for kind in ("trained", "untrained", "random labels")}
    p = pick(networks, "trained", "given", "p_both")
    apart = min(left["trained"]) > max(left["untrained"])
    classes = min(left["trained"]) > max(left["random labels"])
    verdict = "no" if max(p) >= ALPHA else "yes" if apart and np.mean(left["trained"]) > 0.5 else "partly"
    return (
        "It is more than the class and brightness of the image",
        f"of the strongest pairs' information {percent(left['trained'])} is left given both "
        f"(strongest pair: {pvalue(p)})",
        f"never trained: {percent(left['untrained'])}; random labels: {percent(left['random labels'])}",
        f"**{verdict}**: "
        + {
            "no": "nothing certain is left",
            "partly": "part of it is" if apart else "part of it is, trained or not",
            "yes": "most of it is",
        }[verdict]
        + ("" if classes or verdict == "no" else ", and with random labels, too"),
    )


def remaining(networks, kind, known):
    """Information that is left once something is known, in parts of what the estimator keeps of a control."""
    return [
        entry["given"][f"top_{known}"] / entry["given"][f"top_{known}_control"] for entry in networks[kind]
    ]


def _named_pair(content):
    stronger = pick(content["entangled"]["networks"], "trained", "named_share_stronger")
    rare = [share < ALPHA for share in stronger]
    verdict = "yes" if all(rare) else "partly" if any(rare) else "no"
    return (
        "Map 22 of Conv1 and map 46 of Conv2 are such a pair",
        f"{percent(stronger)} of all pairs share more",
        "any pair, as numbers of maps carry over to no other network: 50 % on average",
        f"**{verdict}**: "
        + {
            "no": "a pair like any other",
            "partly": "among the strongest of some seeds, as any pair may be",
            "yes": "among the strongest of all seeds",
        }[verdict],
    )


def _complete(content):
    seeds = content["attribution"]["seeds"]
    within = [seed["fixed"]["within"] for seed in seeds]
    refined = [seed["converged"] for seed in seeds]
    verdict = "yes" if min(within) >= 0.95 else "partly" if min(refined) >= 0.95 else "no"
    return (
        "Integrated gradients add up to the output's change",
        f"{percent(within)} of images within {100 * content['attribution']['tol']:.0f} % after "
        f"{content['attribution']['steps']} steps; {percent(refined)} refined until they are",
        "none: it is a theorem, and holds for untrained networks too",
        f"**{verdict}**"
        + {"yes": "", "partly": ": only where steps are refined", "no": ": not by these steps"}[verdict],
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
    verdict = "yes" if works and notices else "partly" if works or notices else "no"
    return (
        "Integrated gradients show what decisions rest on",
        f"deletion area {spread([area['attribution']['mean'] for area in areas])}; rank correlation with "
        f"another trained network {spread(other['signed'])}",
        f"deletion in random order {spread([area['random order']['mean'] for area in areas])}; rank "
        f"correlation with a random network {spread(fresh['signed'])}",
        f"**{verdict}**: "
        + {
            "yes": "they notice when the network is gone"
            + ("" if by_size else ", but by their signs; their sizes hardly do"),
            "partly": "deletion works, but a random network's look alike"
            if works
            else "they notice when the network is gone, but deletion gains little",
            "no": "neither test is passed",
        }[verdict],
    )
