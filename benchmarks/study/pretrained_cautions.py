"""What needs care on any of the networks, in sentences with measured numbers."""

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


def _atoms(found, clipped):
    """What repeats at single places of a layer, and where it can come from."""
    values = found["atoms"]
    if not values:
        return "no value repeats in ten pairs of maps"
    text = f"{len(values)} values repeat in ten pairs of maps"
    limits = [value for value in (0, 6) if value in values]
    if clipped and limits:
        text += (
            f". {' and '.join(map(str, limits))} ({100 * found['zero_share']:.1f} % and "
            f"{100 * found['six_share']:.1f} % of all values)"
            if len(limits) == 2
            else f". {limits[0]}"
        )
        text += (
            f" {'come' if len(limits) == 2 else 'comes'} from ReLU6, the other "
            f"{len(values) - len(limits)} from the white ground of cut-out photographs, which may add zeros, "
            "too; this run cannot tell how much is due to which"
        )
    return text


def _repeats(networks):
    repeating = [network["title"] for network in networks.values() if network["rows"]["repeated"]["atoms"]]
    first = next(iter(networks.values()))
    zero = first["rows"]["repeated"]["zero_share_mean"]
    last = first["audit"]["layers"][first["layers"][-1]]["zero_fraction"]
    yield (
        f"- **Values that repeat break plain KSG: here in {', '.join(repeating) or 'no network'}.** "
        "`qf.audit` splits them off as atoms wherever it uses KSG. At single places after the activation "
        "function, KSG with atoms split off and without:"
    )
    for name, network in networks.items():
        found = network["rows"]["repeated"]
        yield (
            f"  - {network['title']} (`{found['layer']}`): a median of {found['split']:.2g} and "
            f"{found['plain']:.2g} nats, at most {found['largest_difference']:.2g} apart in a pair; "
            f"{_atoms(found, name == 'efficientnet')}."
        )
    yield (
        "  - Means over an input's places, which the audit is about, are zero in "
        f"{100 * zero:.1f} % there and in {100 * last:.1f} % of the last layer of {first['title']}."
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
