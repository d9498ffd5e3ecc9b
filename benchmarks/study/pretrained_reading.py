"""The section of part 2: what was run, what carried over, what needs care."""

from __future__ import annotations

import numpy as np

from benchmarks.study.pretrained_cautions import caution_lines

FIGURES = "figures/pretrained-{}.png"
KINDS = {"efficientnet": "a CNN", "speaker": "an LSTM", "minilm": "a Transformer"}
LABELS = {"efficientnet": "what it shows", "speaker": "the voice", "minilm": "the topic"}
SUREST = (
    " The photographs are chosen among the surest predictions of {} (every fourth of them, in that order): "
    "this says nothing of photographs that it is unsure of."
)


def _percent(share):
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def _between(values, form=_percent):
    values = list(values)
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


def _number(value):
    return f"{value:.3g}"


def _layers(network, audit, key):
    return [network[audit]["layers"][name][key] for name in network["layers"]]


def _across(network, audit):
    """Pairs of two different layers."""
    return [pair for pair in network[audit]["pairs"] if pair["cka"] is not None]


def _entangled(network, audit):
    pairs = network[audit]["pairs"]
    return sum(pair["n_significant"] for pair in pairs) / sum(pair["n_pairs"] for pair in pairs)


def _informed(network, audit):
    found = _layers(network, audit, "n_labels_significant")
    return [count / maps for count, maps in zip(found, _layers(network, audit, "n_maps"), strict=True)]


def _alarms(network, kind, permuted):
    shares = network["rows"]["dependence"][kind][permuted]
    return f"{_percent(np.mean(shares))} ({_percent(min(shares))} to {_percent(max(shares))})"


def _mean(result):
    low, high = result["interval"]
    return f"{_percent(result['mean'])} ({100 * low:.0f} to {100 * high:.0f})"


def _cutting(network):
    rows = network["paths"]["conductance"].values()
    deltas = [row["delta"] for row in rows if row["delta"] is not None]
    around = sum(row["delta"] is None for row in rows)
    text = f"{len(deltas)} layers that cut the network: {_between(deltas)}"
    return text + (f"; {around} that do not: NaN" if around else "")


_ROWS = (
    ("Variance of five components, by layer", lambda n: _between(_layers(n, "audit", "top_variance"))),
    ("... random weights", lambda n: _between(_layers(n, "untrained", "top_variance"))),
    (
        "Largest error bound of a singular value",
        lambda n: f"{max(_layers(n, 'audit', 'largest_error_bound')):.0e}",
    ),
    ("Effective rank by layer, as defined", lambda n: _between(_layers(n, "audit", "rank"), _number)),
    ("... mean subtracted", lambda n: _between(_layers(n, "audit", "rank_centred"), _number)),
    (
        "... mean subtracted, random weights",
        lambda n: _between(_layers(n, "untrained", "rank_centred"), _number),
    ),
    (
        "Cosine of maps between layers, median",
        lambda n: _between((pair["cosine_raw"] for pair in _across(n, "audit")), _number),
    ),
    (
        "... of randomly paired inputs",
        lambda n: _between((pair["cosine_null"] for pair in _across(n, "audit")), _number),
    ),
    ("CKA, first and last layer", lambda n: _number(_ends(n, "audit")["cka"])),
    ("... random weights", lambda n: _number(_ends(n, "untrained")["cka"])),
    ("Entangled pairs of maps (family-wise p <= 0.05)", lambda n: _percent(_entangled(n, "audit"))),
    ("... random weights", lambda n: _percent(_entangled(n, "untrained"))),
    ("Maps that know of the label, by layer", lambda n: _between(_informed(n, "audit"))),
    ("... random weights", lambda n: _between(_informed(n, "untrained"))),
    ("What a map knows of it, mean, last layer", lambda n: _percent(_layers(n, "audit", "label_mean")[-1])),
    ("... random weights", lambda n: _percent(_layers(n, "untrained", "label_mean")[-1])),
    (
        "Pairs found at 5 % between unrelated inputs, rows permuted",
        lambda n: _alarms(n, "unrelated", "single"),
    ),
    ("... places in random order, too", lambda n: _alarms(n, "shuffled", "single")),
    ("... whole inputs permuted (`groups=`)", lambda n: _alarms(n, "unrelated", "grouped")),
    ("... one row an input", lambda n: _alarms(n, "one", "single")),
    ("Integrated gradients that converged", lambda n: f"{n['paths']['n_converged']} of {n['paths']['n']}"),
    ("... gradients an input, median", lambda n: _number(n["paths"]["median_gradients"])),
    ("... largest delta over the output's change", lambda n: _percent(n["paths"]["largest_delta"])),
    ("Conductance: delta over that change, median", _cutting),
    (
        "Output's change lost without the most attributed fifth",
        lambda n: _mean(n["paths"]["removal"]["attributed"]),
    ),
    ("... the fifth farthest from the baseline", lambda n: _mean(n["paths"]["removal"]["largest_input"])),
    ("... a random fifth", lambda n: _mean(n["paths"]["removal"]["random"])),
    ("Warnings of the audit", lambda n: ", ".join(n["audit"]["warnings"]).replace("_", " ") or "none"),
)


def _ends(network, audit):
    ends = {network["layers"][0], network["layers"][-1]}
    return next(pair for pair in network[audit]["pairs"] if set(pair["layers"]) == ends)


def _table(networks):
    yield "| | " + " | ".join(network["title"] for network in networks) + " |"
    yield "|---" * (len(networks) + 1) + "|"
    for name, of in _ROWS:
        yield f"| {name} | " + " | ".join(of(network) for network in networks) + " |"


def _samples(networks):
    for name, network in networks.items():
        yield (
            f"- **{network['title']}**: {network['samples']}. {_label(name, network)} "
            f"{_knows(name, network['checks'])}"
        )


def _knows(name, checks):
    if name == "efficientnet":
        return (
            f"Weights are in place: {_percent(checks['animals_called_animal'])} of the animals are given "
            f"one of ImageNet's animals, and {_percent(checks['others_called_animal'])} of all else."
        )
    if name == "speaker":
        return (
            "Weights are in place: the nearest mean of the other recordings names the voice of "
            f"{_percent(checks['voices_found'])}; embeddings have a mean cosine of "
            f"{checks['cosine_same']:.2f} within a voice and {checks['cosine_other']:.2f} between two. The "
            f"first two voices are one woman in two languages: {checks['cosine_first_two']:.2f}, and "
            f"{checks['largest_cosine_other']:.2f} is the most of any two."
        )
    return (
        "Weights are in place: the nearest other sentence has the same topic in "
        f"{_percent(checks['same_topic'])} ({_percent(checks['same_topic_chance'])} by chance)."
    )


def _verdict(networks):
    kinds = [KINDS[name] for name in networks]
    worst = max(networks.values(), key=lambda n: np.mean(n["rows"]["dependence"]["shuffled"]["single"]))
    shares = worst["rows"]["dependence"]
    alarms, grouped = np.mean(shares["shuffled"]["single"]), np.mean(shares["unrelated"]["grouped"])
    random = all(
        _entangled(network, "untrained") >= _entangled(network, "audit") for network in networks.values()
    )
    repeating = [
        f"the {KINDS[name].split()[1]}"
        for name, network in networks.items()
        if network["rows"]["repeated"]["atoms"]
    ]
    yield (
        f"**The instruments run unchanged on {_and(kinds)}. {'Much' if random else 'Some'} of what they find "
        "is there with random weights, too, and four things need care:** p-values where several rows come "
        f"from one input (between unrelated inputs and in random order, {_percent(alarms)} of pairs pass at "
        f"5 % in {worst['title']}; {_percent(grouped)} with `groups=`), entropy where a layer has a mean, "
        f"plain KSG where values repeat (here in {_and(repeating) if repeating else 'none of them'}"
        f"{' alone' if len(repeating) == 1 else ''}), and conductance within a residual block."
    )


def _and(words, last="and"):
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _label(name, network):
    classes = network["classes"]
    shown = f": {_and(classes, 'or')}" if len(classes) < 6 else f", one of {len(classes)}"
    return f"The label is {LABELS[name]}{shown}."


def _n_maps(networks):
    """How many maps of a layer are paired."""
    most = max(pair["n_pairs"] for network in networks.values() for pair in network["audit"]["pairs"])
    return (
        f"Pairs of maps are those of the {round(most**0.5)} maps of largest variance in a layer, save where "
        "false alarms are counted: there maps are spaced evenly over the layer."
    )


def _learned(networks):
    ties = [
        f"{_percent(_entangled(network, 'audit'))} and {_percent(_entangled(network, 'untrained'))} in "
        f"{network['title']}"
        for network in networks.values()
    ]
    alike = [
        f"{_ends(network, 'audit')['cka']:.2f} and {_ends(network, 'untrained')['cka']:.2f}"
        for network in networks.values()
    ]
    known = [
        f"{_percent(_layers(network, 'audit', 'label_mean')[-1])} and "
        f"{_percent(_layers(network, 'untrained', 'label_mean')[-1])}"
        for network in networks.values()
    ]
    maps = [
        f"{_percent(_informed(network, 'audit')[-1])} and {_percent(_informed(network, 'untrained')[-1])}"
        for network in networks.values()
    ]
    yield (
        "**Which numbers speak of learning?** The same audit of the same inputs through random weights is "
        f"the null model. Pairs of maps that are entangled do not: {'; '.join(ties)} (pretrained, then "
        "random weights; family-wise within a pair of layers). What random weights make maps share is real "
        "dependence, and no sign of training: entangled maps depend on each other, which says nothing of "
        "whether the network learned that they should. CKA of the first and last layer: "
        f"{'; '.join(alike)}. What a map of the last layer knows of the label, mean over maps, in shares "
        f"of the label's entropy: {'; '.join(known)}; maps of which it is significant: {'; '.join(maps)}. "
        "Where random weights reach significance, too, only the size and its course with depth tell the "
        "networks apart."
    )


def _attributed(networks):
    parts = []
    for network in networks.values():
        ahead = network["paths"]["removal"]["attributed_less_input"]
        low, high = ahead["interval"]
        parts.append(
            f"{network['title']} {100 * ahead['mean']:+.0f} points ({100 * low:+.0f} to {100 * high:+.0f})"
        )
    yield (
        "**Do integrated gradients point at what matters?** Parts of the input are put back to the "
        "baseline, a fifth of them, and the output loses a share of its change: see the table, with 95 % "
        "bootstrap intervals over inputs. The test that counts is against a rule that knows nothing of the "
        f"network, the parts farthest from the baseline: {', '.join(parts)}. Explained: "
        + "; ".join(
            f"{network['paths']['target']} ({network['title']}, {network['paths']['n']} inputs, "
            f"{network['paths']['part']})"
            for network in networks.values()
        )
        + "."
        + (SUREST.format(networks["efficientnet"]["title"]) if "efficientnet" in networks else "")
    )


HOW = """**How each was captured and explained.**

- An `nn.LSTM` of three layers is one module, and a hook sees the last layer's states alone. Here it is three
  modules of one layer with the same weights; a test holds them against the original. The audit has the last
  state of each (`reduce="last_token"`). Conductance hooks the states of all moments: every layer then cuts
  the network.
- `reduce="mean_tokens"` counts padding, so that batches hold sentences of one length.
- Tokens have no gradient. Integrated gradients attribute to an embedding layer by `layer=`; conductance wants
  floating-point inputs, so that the network is wrapped to begin with word vectors. Baselines: `[MASK]` for
  each word, silence, and white, the ground of the photographs. Other baselines give other attributions.
- Random weights: PyTorch's own for the LSTM, the package's for the CNN (batch statistics taken from the same
  photographs), BERT's for the Transformer; one draw each."""

LIMITS = """**Limits.** One network of each kind, one draw of random weights, and inputs from what Debian
packages bring: cut-out photographs, telephone announcements by six voices in five languages (voice and
language nearly coincide), and sayings. Recordings of one voice and sentences on one topic are taken to be
independent, which they are only given the voice and the topic. Mutual information compares the 16 maps of
largest variance in each layer; spectra, CKA and labels use all. Effective ranks of layers of different width
are not to be compared: the most they can reach is the width, or the number of inputs."""


def _figures(networks):
    for name, network in networks.items():
        yield ""
        yield (
            f"![{network['title']}: variance by components, effective rank, knowledge of the label, CKA, "
            f"entangled pairs, false alarms, an attribution and its test]({FIGURES.format(name)})"
        )


def lines(content):
    """Markdown of the section."""
    networks = content["networks"]
    if not content["pretrained"]:
        yield "Small networks with random weights and inputs: this shows that the part runs, no more."
    elif networks:
        yield from _verdict(networks)
    yield ""
    for name, sentence in content["missing"].items():
        yield f"`{name}` was left out: {sentence}"
    if not content["pretrained"]:
        yield from _table(list(networks.values()))
        yield from _figures(networks)
    elif networks:
        yield from _samples(networks)
        yield ""
        yield _n_maps(networks)
        yield ""
        yield from _table(list(networks.values()))
        yield from _figures(networks)
        for part in (_learned, _attributed):
            yield ""
            yield from part(networks)
        yield from ("", "**What needs care.**", "")
        yield from caution_lines(networks)
        yield from ("", HOW, "", LIMITS)
