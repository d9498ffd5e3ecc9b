"""What part 1 says of whole layers: their variance, and the cosines between them."""

from __future__ import annotations

import numpy as np

from benchmarks.study.paper_verdicts import PAPER_SHARE, firing_units, near, percent, pvalue, spread

READINGS = {
    "maps": "maps over images, as they are: mean cosine of all pairs",
    "centred": "maps over images, centred: mean absolute cosine",
    "units": "units of an image, the wider layer cut to the narrower",
    "scores": "first 5 principal scores, best signs",
    "cka": "CKA, debiased",
}


def variance_lines(content):
    """Claim (a)."""
    yield "![Variance explained, beside nulls, and how it depends on the width](figures/paper-variance.png)"
    yield ""
    yield "| layer | trained | random labels | never trained | trained, units made independent |"
    yield "|---|---|---|---|---|"
    for layer in content["layers"]["trained"]:
        row = [content["layers"][kind][layer]["share"] for kind in ("trained", "random labels", "untrained")]
        row.append(content["layers"]["trained"][layer]["independent"])
        yield f"| {layer.title()}, first 5 components | " + " | ".join(percent(v, 1) for v in row) + " |"
    scaled = [content["scaled"][kind] for kind in ("trained", "random labels", "untrained")]
    yield "| Dense, units scaled to variance 1 | " + " | ".join(percent(v, 1) for v in scaled) + " | |"
    dead = [content["dead"][kind] for kind in ("trained", "random labels", "untrained")]
    yield "| Dense, units that never fire | " + " | ".join(spread(v, digits=0) for v in dead) + " | |"
    intervals = "; ".join(f"{100 * low:.1f} to {100 * high:.1f} %" for low, high in content["interval"])
    yield ""
    layers, scaled = content["layers"], content["scaled"]
    gap, scaled_gap = (
        100 * abs(np.mean(trained) - np.mean(untrained))
        for trained, untrained in (
            [layers[kind]["dense"]["share"] for kind in ("trained", "untrained")],
            [scaled[kind] for kind in ("trained", "untrained")],
        )
    )
    fewer = ", ".join(
        f"{100 * np.mean(shares):.0f} % on {int(m):,}" for m, shares in content["subsets"].items()
    )
    yield (
        "The share is sharp for a given network (95 % bootstrap intervals over images, seed by seed: "
        f"{intervals}; on fewer images {fewer}). How remarkable it is depends on the width of the layer: "
        "independent units explain less the more of them there are, as the next table shows. It depends "
        f"on the scale of units, too: trained and untrained layers differ by {gap:.0f} points as they are, "
        f"and by {scaled_gap:.0f} once all units have the same "
        f"variance. The "
        f"first five components of the bare pixels explain {100 * content['pixels']:.0f} % before any "
        "network."
    )
    if firing := firing_units(content):
        yield ""
        yield (
            f"Of {content['width']} trained units about {firing[0]} fire, of untrained ones {firing[1]}: "
            "trained and untrained shares are of different numbers of units, and fewer units have larger "
            "shares. The untrained share over as many random units was not measured."
        )
    yield from ["", "| units of Dense | trained | never trained | units made independent | accuracy |"]
    yield "|---|---|---|---|---|"
    for width, row in content["widths"].items():
        cells = [row.get(key) for key in ("trained", "untrained", "independent", "accuracy")]
        yield f"| {width} | " + " | ".join(percent(cell, 1) if cell else "" for cell in cells) + " |"
    samples = content["noise_samples"]
    yield ""
    yield (
        "And it is biased upwards where there are few images. Noise, all units alike and independent, has "
        "this share in its first five components:"
    )
    yield ""
    yield "| units | " + " | ".join(f"{m:,} images" for m in samples) + " |"
    yield "|---" * (len(samples) + 1) + "|"
    for width, shares in content["noise"].items():
        yield f"| {width} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |"
    yield ""
    yield _by_chance(content)


def _by_chance(content):
    """What the paper's share is worth: independent units, and noise, that have it, too."""
    chance = content["layers"]["trained"]["dense"]["independent"]
    shares = content["noise"][str(content["width"])]
    close = [f"{m:,}" for m, is_near in zip(content["noise_samples"], near(shares), strict=True) if is_near]
    noise = f"only with some {' or '.join(close)} images" if close else "with none of these numbers of images"
    paper = f"{100 * PAPER_SHARE:.0f} %"
    if near([np.mean(chance)])[0]:
        return (
            f"So {paper} alone is no finding: our trained layer has {percent(chance)} once its units are "
            f"made independent. Noise of {content['width']} like units has about {paper} {noise}."
        )
    return (
        f"Our trained layer has {percent(chance)} once its units are made independent; noise of "
        f"{content['width']} like units has about {paper} {noise}."
    )


def cosine_lines(content):
    """Claim (b)."""
    yield "![Five readings of similarity between layers](figures/paper-cosine.png)"
    yield ""
    pairs = list(content["kinds"]["trained"])
    yield "| reading | networks | " + " | ".join(pair.title().replace(" ", ", ") for pair in pairs) + " |"
    yield "|---|---|" + "---|" * len(pairs)
    for reading, name in READINGS.items():
        for kind in ("trained", "untrained"):
            cells = [spread(content["kinds"][kind][pair][reading]) for pair in pairs]
            yield f"| {name if kind == 'trained' else ''} | {kind} | " + " | ".join(cells) + " |"
    orders = np.array([row["orders"] for row in content["kinds"]["trained"].values()])
    p = [value for row in content["kinds"]["trained"].values() for value in row["cka_p"]]
    nulls = content["nulls"]
    yield ""
    yield (
        "Whether layers look orthogonal is a matter of which cosine one takes. Units of different layers "
        "have no order in common: random orders of one layer's units move the third reading between "
        f"{orders.min():.2f} and {orders.max():.2f} (95 % of orders), and the order in memory is no fact "
        "about the network. Principal scores have no sign: other choices give other values between plus "
        f"and minus the fourth row. Two random directions in {nulls['width']} dimensions have a cosine of "
        f"{nulls['random']:.2f} either way, so a small cosine is what no relation at all looks like; "
        f"independent units after a ReLU have {nulls['rectified']:.2f} raw, only for being positive "
        f"(centred, over {nulls['n']:,} images, {nulls['centred']:.3f}). CKA depends on no order and no "
        f"sign and is 0 on average for unrelated layers ({pvalue(p)} here, by shuffled images): it answers "
        "the question that the cosine was asked."
    )
