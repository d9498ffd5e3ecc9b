"""What part 1 says of whole layers: their variance, and the cosines between them."""

from __future__ import annotations

import numpy as np

from benchmarks.study.paper_verdicts import percent, pvalue, spread

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
        f"variance{': what training adds is between its weaker units. ' if scaled_gap > gap else '. '}The "
        f"first five components of the bare pixels explain {100 * content['pixels']:.0f} % before any "
        "network."
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
    close = [
        f"{width} units and {m:,} images"
        for width, shares in content["noise"].items()
        for m, share in zip(samples, shares, strict=True)
        if abs(share - 0.27) < 0.05
    ]
    yield ""
    chance = content["layers"]["trained"]["dense"]["independent"]
    same = abs(np.mean(chance) - 0.27) < 0.05
    yield (
        f"So 27 % alone is no finding: pure noise has about that with {_listed(close)}"
        + (
            f", and our trained layer has {percent(chance)} once its units are made independent."
            if same
            else "."
        )
    )


def _listed(items):
    return (
        items[0]
        if len(items) == 1
        else ", ".join(items[:-1]) + " or " + items[-1]
        if items
        else "no size here"
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
