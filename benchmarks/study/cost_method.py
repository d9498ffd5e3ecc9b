"""How the costs are measured, and what they do not say."""

from __future__ import annotations

from benchmarks.study.cost_meter import FEW, LONG, ROUNDS, WARM_ROWS

TITLES = {"cnn": "CNN", "lstm": "LSTM", "transformer": "Transformer"}


def method(content):
    """Lines of Markdown."""
    networks = list(content["networks"].values())
    tools = {row["tool"] for network in networks for row in network["local"]}
    samples = ", ".join(f"{network['samples']} ({network['name']})" for network in networks)
    yield "How it is measured:"
    yield ""
    yield (
        f"- Every tool explains the same number of the same samples, {samples}, from the same baseline "
        "(black, silence, `[MASK]`). Tools that only call the network see parts there or gone, the same "
        f"parts for all of them: {', '.join(network['parts'] for network in networks)}. Fewer parts and "
        "evaluations cost less and say less."
    )
    compiles = content["shap_compiles"]
    yield (
        f"- One thread; a forked child process an instrument. Seconds: the median of {ROUNDS} rounds, of one "
        f"where a round takes more than {LONG:g} s. A warm-up before that, on one sample or {WARM_ROWS} "
        "rows, is not counted: imports, loading of compiled code, first uses of torch's operations."
        + (
            f" Nor is what SHAP's PartitionExplainer compiles in every process, {compiles:.0f} s."
            if "SHAP" in tools
            else ""
        )
    )
    yield (
        "- Peak memory: the most that was resident (`VmHWM`) above what was resident after the warm-up: "
        "network, inputs and libraries do not count, results do."
    )
    yield (
        "- Completeness error: the median over samples of how far a sample's values are from what they "
        "should add up to (the change from the baseline; for LRP the output itself), over that; LIME "
        "promises no sum, and of conductance it is the layer with the largest one. KernelExplainer and "
        "PartitionExplainer are made to add up."
    )
    yield (
        "- Left as parts go: parts are put back to the baseline one by one, the largest value first; the "
        "mean of what is left of the explained change on the way, 0.5 where parts weigh alike, less where "
        "the order is good. Intervals: bootstrap over samples. KernelExplainer and LIME are fitted to "
        "outputs with parts gone, gradients are not, so this measure is closer to what these two optimise."
    )
    yield (
        "- Two seeds agree: the median over samples of the rank correlation between two runs' values of "
        f"parts ({FEW} samples where a round is long); tools without a number draw nothing at random."
    )
    yield (
        "- Settings: integrated gradients and conductance by each tool's default rule; GradientExplainer "
        "and DeepExplainer with the one baseline of all others (DeepExplainer's time grows with their "
        "number); KernelExplainer without its selection of ten features (`l1_reg=0`), which leaves the "
        "others at 0; DeepExplainer without its check of the sum, as SHAP 0.51 compares it with another "
        "output than `ranked_outputs` chose. Evaluations: SHAP's own default for KernelExplainer is 2,048 "
        "and two a part, LIME's is 1,000 for pictures and 5,000 for words; their time grows in proportion."
    )
    yield (
        "- LRP is Captum's; `Flatten`, for which it has no rule, is given the epsilon rule. Zennit is not "
        "measured: it imports torchvision, which is not in this environment."
    )
    for name, why in content["left_out"].items():
        yield f"- {TITLES[name]}: not measured. {why}"
    if missing := [tool for tool in ("Captum", "SHAP", "LIME") if tool not in tools]:
        yield f"- Not installed, not measured: {', '.join(missing)}."
