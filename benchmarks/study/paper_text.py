"""The section of part 1 in the study's README."""

from __future__ import annotations

from math import comb

import numpy as np

from benchmarks.study.paper_attribution import CASCADE
from benchmarks.study.paper_layers import cosine_lines, variance_lines
from benchmarks.study.paper_verdicts import (
    NO,
    NOT_REPRODUCED,
    PARTLY,
    THEOREM,
    UNTESTABLE,
    YES,
    percent,
    pick,
    pvalue,
    remaining,
    spread,
    verdicts,
)

KINDS = {  # in the lead: of one claim, of several, and before their names
    YES: ("stands against a null model", "stand against a null model", "What stands"),
    THEOREM: ("is a theorem", "are theorems", "A theorem, whatever the network"),
    PARTLY: ("stands in part", "stand in part", "In part"),
    NO: ("falls", "fall", "What falls"),
    NOT_REPRODUCED: ("is not reproduced here", "are not reproduced here", "Not reproduced here"),
    UNTESTABLE: (
        "cannot be tested on another network",
        "cannot be tested on another network",
        "Only the paper's own network could tell",
    ),
}


def lines(content):
    """Answer, verdicts, evidence with figures, limits."""
    yield from _answer(content)
    yield from ["", "| claim | measured | null | survives? |", "|---|---|---|---|"]
    for row in verdicts(content):
        yield f"| {row.claim} | {row.measured} | {row.null} | **{row.kind}**{row.why} |"
    yield ""
    yield from _networks(content)
    yield from ["", "### Variance", ""]
    yield from variance_lines(content["variance"])
    yield from ["", "### Cosines", ""]
    yield from cosine_lines(content["cosine"])
    yield from ["", "### Entangled maps", ""]
    yield from _entangled(content["entangled"])
    yield from ["", "### Integrated gradients", ""]
    yield from _attribution(content["attribution"])
    yield from ["", "### Limits", ""]
    yield from _limits(content)


def _answer(content):
    rows = verdicts(content)
    named = {kind: [row.short for row in rows if row.kind == kind] for kind in KINDS}
    counts = [
        f"{len(found)} {KINDS[kind][0 if len(found) == 1 else 1]}" for kind, found in named.items() if found
    ]
    yield (
        f"**Of {len(rows)} claims that the paper makes, or that its reading of them rests on, "
        f"{', '.join(counts[:-1])} and {counts[-1]}.**"
    )
    yield ""
    for kind, found in named.items():
        if found:
            yield f"- {KINDS[kind][2]}: {'; '.join(f'that {claim}' for claim in found)}."
    networks = content["entangled"]["networks"]
    trained, untrained = (np.mean(pick(networks, kind, "max")) for kind in ("trained", "untrained"))
    yield ""
    yield (
        "Chance (shuffled images, independent units) is the easy null. The hard one is the same network "
        f"before training, whose maps all see the same image, too: its strongest pair of maps shares "
        f"{untrained:.2f} nats, where that of the trained network shares {trained:.2f}. A number that comes "
        "without its untrained twin is not evidence of anything learned."
    )


def _networks(content):
    data = content["data"]
    channels, height, width = data["shape"]
    accuracy = content["accuracy"]
    yield (
        f"Networks: Conv1 (32 maps), Conv2 (64), Dense ({content['variance']['width']}), on {data['name']} "
        f"({height} x {width}, {'grey' if channels == 1 else 'RGB'}, {len(data['classes'])} classes): "
        f"{data['n_train']:,} images to train on, epochs: {data['epochs']}; {data['n_test']:,} to test "
        f"with and to record; seeds {', '.join(map(str, data['seeds']))}. Accuracy "
        f"{percent(accuracy['trained'], 1)}; never trained {percent(accuracy['untrained'], 1)}; trained on "
        f"random labels {percent(accuracy['random labels'], 1)} (of true labels; how well they fit those "
        "that they were given was not measured, so that they may have barely trained). Numbers are means "
        "over seeds with the lowest and highest. Maps are averaged over positions, as in the paper. Its "
        "public accounts name the layers, the averaging, maps 22 and 46, and the 27 %; widths, kernels and "
        "optimiser are our reading (`fashion.py`), and so is what exactly it took the cosine of."
    )


def _entangled(content):
    networks = content["networks"]
    trained = networks["trained"]
    yield "![Mutual information of all pairs, and what is left of the strongest](figures/paper-entangled.png)"
    yield ""
    yield "| | trained | random labels | never trained |"
    yield "|---|---|---|---|"
    kinds = ("trained", "random labels", "untrained")

    def row(name, cells):
        return f"| {name} | " + " | ".join(cells) + " |"

    for name, key in (("strongest", "max"), ("95 % of pairs are below", "p95"), ("median", "median")):
        yield row(f"KSG, {name}, nats", [spread(pick(networks, kind, key)) for kind in kinds])
    yield row(
        "strongest pair on other images, nats", [spread(pick(networks, kind, "heldout")) for kind in kinds]
    )
    for pair in content["pairs"]["trained"]:
        cells = [percent([entry["dependent"] for entry in content["pairs"][kind][pair]]) for kind in kinds]
        yield row(f"{pair.title().replace(' ', ' with ')}: pairs dependent, family-wise p < 0.05", cells)
    for known, name in (("class", "the class"), ("brightness", "the brightness"), ("both", "both")):
        yield row(
            f"strongest pairs: left, given {name}",
            [percent(remaining(networks, kind, known)) for kind in kinds],
        )
    yield row(
        "same order of pairs on other images (rank correlation)",
        [spread(pick(networks, kind, "same_order")) for kind in kinds],
    )
    yield row(
        "same strongest pairs on other images", [percent(pick(networks, kind, "same_top")) for kind in kinds]
    )
    yield row(
        "rank correlation with plain correlation",
        [spread(pick(networks, kind, "like_correlation")) for kind in kinds],
    )
    null = [value for entry in trained for value in entry["null"]]
    named = ", ".join(f"{entry['named']:.2f}" for entry in trained)
    strongest = ", ".join(f"{a} with {b}" for a, b in pick(networks, "trained", "strongest"))
    passed = [
        percent([entry["dependent"] for entry in content["pairs"][kind]["conv1 conv2"]])
        for kind in ("trained", "untrained")
    ]
    p = pvalue(pick(networks, "trained", "heldout_p"))
    apart = np.mean(content["to_untrained"]) > np.mean(content["between_seeds"])
    yield ""
    yield (
        f"Dependence itself is easily had: shuffling images leaves at most {max(null):.2f} nats in the "
        f"strongest of all pairs, and the strongest pair, chosen on {content['n']:,} images, is tested on "
        f"as many others ({p}). But {passed[0]} of pairs of Conv1 and Conv2 pass in trained networks and "
        f"{passed[1]} in those that never trained, so that passing says little about a pair: Conv2 is "
        "computed from Conv1, and both see one image. Training shows, if anywhere, in the distribution of "
        "the values: from seed to seed its Kolmogorov–Smirnov distance is "
        f"{spread(content['between_seeds'])}, from trained to untrained networks "
        f"{spread(content['to_untrained'])}{'' if apart else ', no more'}. Maps 22 and 46 share {named} "
        f"nats in our seeds, where the strongest pairs are {strongest}: the number of a map means nothing "
        "in another network. “Left” is in parts of a control, the same estimate given class and "
        "brightness of other images, as estimates with more variables lean towards 0."
    )
    yield ""
    yield "One call of `qf.audit` on either network of the first seed knows chance, not the other network:"
    yield ""
    for kind, found in content["audit"].items():
        sentence = next(text for text in found["reading"] if text.startswith("Between layers"))
        yield f"- {kind}: “{sentence}”"
    yield ""
    yield "So audit the network before training, too, and lay the two side by side with `qixai-fast compare`."


def _attribution(content):
    seeds = content["seeds"]
    yield "![Attributions of a trained network, and of random layers](figures/paper-examples.png)"
    yield ""
    yield "![Rank correlations as layers are made random, and deletion curves](figures/paper-attribution.png)"
    yield ""
    yield "| rank correlation with those of | sizes, all pixels | sizes, lit pixels | signed, lit pixels |"
    yield "|---|---|---|---|"
    rows = {
        "the same network, mean image as baseline": ("mean_baseline",),
        "another trained seed": ("other_seed",),
    }
    rows |= {f"layers made random down to {name}": ("cascade", name) for name in CASCADE}
    rows["the image itself, no network"] = ("image",)
    for name, path in rows.items():
        cells = []
        for reading in ("all", "lit", "signed"):
            values = []
            for seed in seeds:
                found = seed
                for key in path:
                    found = found[key]
                values.append(found[reading])
            cells.append(spread(values))
        yield f"| {name} | " + " | ".join(cells) + " |"
    gradient = [seed["gradient_fresh"]["signed"] for seed in seeds]
    fixed = [seed["fixed"] for seed in seeds]
    last = {
        reading: (
            spread([seed["cascade"][CASCADE[-1]][reading] for seed in seeds]),
            spread([seed["other_seed"][reading] for seed in seeds]),
        )
        for reading in ("lit", "signed")
    }
    yield ""
    yield (
        f"On {content['n']} test images |δ| has a median of "
        f"{100 * np.mean([f['median'] for f in fixed]):.2g} % of the output's change, and a 95 % quantile "
        f"of {100 * np.mean([f['p95'] for f in fixed]):.2g} %, after {content['steps']} steps; with "
        f"`tol={content['tol']}` {percent([seed['converged'] for seed in seeds])} of images converge, "
        f"after {spread([seed['gradients'] for seed in seeds], digits=0)} gradients. Completeness holds "
        "for a random network just as well: it vouches for the arithmetic, not for the explanation. With "
        f"all layers random the sizes of attributions still have a rank correlation of {last['lit'][0]} on "
        f"lit pixels with those of the trained network; another trained network has {last['lit'][1]}. With "
        f"signs it is {last['signed'][0]} and {last['signed'][1]}. Sizes share a factor, the image; mean "
        f"gradients, which lack it, have {spread(gradient)} with signs. The baseline is a choice as well, "
        "which the first row of the table shows."
    )
    yield from [
        "",
        "| order of deletion | area under the curve | below random order, 95 % interval, seed by seed |",
    ]
    yield "|---|---|---|"
    for name in seeds[0]["deletion"]["areas"]:
        areas = [seed["deletion"]["areas"][name] for seed in seeds]
        less = "; ".join(
            f"{area['below_random']:+.2f} ({area['interval'][0]:+.2f} to {area['interval'][1]:+.2f})"
            for area in areas
        )
        less = "" if name == "random order" else less
        yield f"| {name} | {spread([area['mean'] for area in areas])} | {less} |"


def _limits(content):
    seeds, side = len(content["data"]["seeds"]), content["data"]["shape"][1]
    paper = "The paper's 27 % may well be right for its own network, whose code we did not find. "
    yield (
        f"One architecture and {seeds} seeds, on images {side} pixels wide and high. {paper}Ranges over so "
        "few seeds are ranges, not confidence intervals. Verdicts follow fixed rules "
        "(`paper_verdicts.py`): a claim about learning must separate all trained from all untrained "
        f"seeds, in a given direction. By chance alone {seeds} seeds against {seeds} do so in 1 of "
        f"{comb(2 * seeds, seeds)} cases, and nothing corrects for the number of claims. Mutual information "
        "is that of maps averaged over positions; what positions tell is gone. Class and brightness are two "
        "things that an image has, not all. A deleted pixel is black, as the baseline of the attributions "
        "is, and may leave images unlike any that the network has seen."
    )
