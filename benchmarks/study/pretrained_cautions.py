"""What needs care on networks beyond a CNN, in sentences with measured numbers."""

from __future__ import annotations

import numpy as np


def _mean(values):
    return f"{100 * np.mean(values):.0f} %"


def _dependent_rows(networks):
    found = [(network, network["rows"]["dependence"]) for network in networks.values()]
    parts = [
        f"{network['row']}s of a {network['unit']} {_mean(rows['unrelated']['single'])}, "
        f"{_mean(rows['shuffled']['single'])} and {_mean(rows['unrelated']['grouped'])}"
        for network, rows in found
    ]
    same = [
        f"{_mean(rows['same']['single'])} and {_mean(rows['same']['grouped'])} in {network['title']}"
        for network, rows in found
    ]
    size = found[0][1]
    yield (
        "- **Rows of one input are not independent, and they share their places with those of all "
        "others.** Layers recorded from two different sets of inputs have nothing in common but the place "
        "of a row in its input ([CLS] is first in every sentence). At 5 %, permuting rows one by one; the "
        "same with places in random order, so that nothing at all is left to find; and permuting whole "
        f"inputs (`groups=`, which keep their rows in order) find, of pairs of maps: {'; '.join(parts)}. "
        "What the first finds and the second does not is the place, a common cause that says nothing of "
        "the inputs; what the second finds beyond 5 % is rows of one input being alike. Groups are right "
        "in both cases. Of pairs that do share their inputs, single rows and groups call "
        f"{', '.join(same)} significant. ({size['n_pairs']} pairs, {size['n_repeats']} draws of two sets "
        "of inputs, of which the table shows the range: draws overlap, so this is no confidence interval.) "
        "`qf.audit` has no groups: give it one row an input, as here."
    )


def _means(networks):
    parts = []
    for network in networks.values():
        layers = network["audit"]["layers"]
        name = max(layers, key=lambda key: layers[key]["rank_centred"] / layers[key]["rank"])
        shown = network["names"][network["layers"].index(name)]
        parts.append(
            f"{layers[name]['rank']:.3g} becomes {layers[name]['rank_centred']:.3g} ({network['title']}, "
            f"{shown})"
        )
    yield (
        "- **Entropy, purity and raw cosine see a layer's mean first.** With the mean subtracted, the "
        f"effective rank of the layer that it moves most: {'; '.join(parts)}. A falling raw rank can be a "
        "growing mean and no narrowing of the representation. PCA, CKA and mutual information do not see "
        "the mean."
    )


def _stream(network):
    found = network["rows"]["outliers"]
    shown = dict(zip(network["layers"], network["names"], strict=True))
    name, worst = max(found.items(), key=lambda item: item[1]["top1_raw"])
    far = max(found, key=lambda key: found[key]["largest_offset"])
    moved = max(found, key=lambda key: found[key]["scaled"]["rank"] / found[key]["centred"]["rank"])
    top = network["audit"]["most_entangled"][0]
    same = "itself" if top["map_a"] == top["map_b"] else f"dimension {top['map_b']}"
    yield (
        f"- **Dimensions of a residual stream differ in size, and are handed on.** In {network['title']}, "
        f"one of {worst['n_maps']} carries at most {100 * worst['top1_raw']:.0f} % of the tokens' raw size "
        f"({shown[name]}; {worst['n_maps'] * worst['top1_raw']:.0f} times an even share; without the mean "
        f"{100 * worst['top1_spread']:.0f} %), means reach {found[far]['largest_offset']:.3g} standard "
        f"deviations ({shown[far]}), and scaling every dimension moves the centred effective rank of "
        f"tokens from {found[moved]['centred']['rank']:.0f} to {found[moved]['scaled']['rank']:.0f} "
        f"({shown[moved]}): say which of the three was computed. This network normalizes after every "
        "addition; where none does, sizes may differ far more. The most entangled pair between layers is "
        f"dimension {top['map_a']} of {shown[top['layer_a']]} with {same} in {shown[top['layer_b']]} "
        f"({top['mutual_info']:.2f} nats)."
    )


def _atoms(values):
    if not values:
        return "no atoms"
    shown = ", ".join(f"{value:g}" for value in (0, 6) if value in values)
    return f"{len(values)} values repeat in ten pairs of maps, {shown or 'neither 0 nor 6'} among them"


def _repeats(networks):
    parts = []
    for network in networks.values():
        found = network["rows"]["repeated"]
        parts.append(
            f"{network['title']} (`{found['layer']}`): "
            + _atoms(found["atoms"])
            + f", {100 * found['zero_share']:.1f} % zeros, {100 * found['six_share']:.1f} % sixes; KSG's "
            f"median is {found['split']:.2g} nats with atoms split off and {found['plain']:.2g} "
            f"without, at most {found['largest_difference']:.2g} apart in a pair"
        )
    first = next(iter(networks.values()))
    zero = first["rows"]["repeated"]["zero_share_mean"]
    last = first["audit"]["layers"][first["layers"][-1]]["zero_fraction"]
    yield (
        "- **What repeats a value breaks KSG; GELU and the states of an LSTM do not repeat any.** At "
        f"single places after the activation function: {'; '.join(parts)}. Means over an input's places, "
        f"which the audit is about, are zero in {100 * zero:.1f} % there and in {100 * last:.1f} % of the "
        f"last layer of {first['title']}; `qf.audit` splits atoms off wherever it uses KSG. (Behind "
        "cut-out photographs, the white ground repeats values, too.)"
    )


def _branches(networks):
    around = [
        f"`{name}` ({network['title']})"
        for network in networks.values()
        for name, row in network["paths"]["conductance"].items()
        if row["delta"] is None
    ]
    if around:
        yield (
            f"- **A branch of a residual block has conductance, and no delta.** Around {', '.join(around)} "
            "goes another path, so conductances do not add up to the output's change, and `qixai_fast` "
            "gives NaN and says why. Sums after the skip connection do add up."
        )


def _steps(networks):
    parts = []
    for network in networks.values():
        deltas = [
            row["delta"] for row in network["paths"]["conductance"].values() if row["delta"] is not None
        ]
        parts.append(f"{100 * min(deltas):.0f} to {100 * max(deltas):.0f} % in {network['title']}")
    yield (
        "- **Some paths need more steps.** Conductance with a fixed 20 steps misses the output's change by "
        f"a median of {', '.join(parts)}. Integrated gradients were asked for 5 % (`tol=`) and took as "
        "many as that needs. Read `delta` of whatever was run with a fixed number."
    )


def caution_lines(networks):
    """A list of what needs care, each with its numbers."""
    yield from _dependent_rows(networks)
    yield from _means(networks)
    if "minilm" in networks:
        yield from _stream(networks["minilm"])
    yield from _repeats(networks)
    yield from _branches(networks)
    yield from _steps(networks)
