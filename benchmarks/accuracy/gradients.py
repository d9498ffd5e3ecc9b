"""Integrated gradients: what rules and steps leave of completeness, on three kinds of network.

``delta`` is the sum of the attributions less F(x) - F(x'), relative to the latter; the error is that of the
attributions themselves, relative to their largest magnitude, beside 2,000 midpoints in float64.
"""

import copy
import warnings

import numpy as np
import torch

import qixai_fast as qf
from benchmarks.networks import DigitLSTM, digit_cnn, frozen, trained_on_digits
from benchmarks.peers import optional

STEPS, QUICK_STEPS = (6, 10, 24, 50, 100, 250), (6, 10)  # Simpson wants even numbers
REFERENCE_STEPS, QUICK_REFERENCE_STEPS = 2_000, 60
N_SAMPLES, QUICK_N_SAMPLES = 24, 4
RULES = ("riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid", "gausslegendre")
ONLY_OURS = ("simpson",)
SHORT = {rule: rule.removeprefix("riemann_") for rule in (*RULES, *ONLY_OURS)}
_captum = optional("captum.attr")
AT = 50


def smooth_network():
    """No bends: softplus and tanh."""
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 64),
        torch.nn.Softplus(),
        torch.nn.Linear(64, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, 10),
    )


NETWORKS = {
    "ReLU CNN": (digit_cnn, (1, 8, 8)),
    "smooth network": (smooth_network, (1, 8, 8)),
    "LSTM": (DigitLSTM, (8, 8)),
}


def ours(model, x, target, rule, steps):
    return qf.integrated_gradients(model, x, target=target, method=rule, n_steps=steps).values


def theirs(model, x, target, rule, steps):
    return _captum.IntegratedGradients(model).attribute(x, target=target, method=rule, n_steps=steps)


TOOLS = {"ours": ours} | ({"Captum": theirs} if _captum else {})


def change(model, x, target):
    """F(x) - F(x') of each sample."""
    with torch.no_grad():
        rows = torch.arange(len(x))
        return (model(x)[rows, target] - model(torch.zeros_like(x))[rows, target]).double()


def scores(values, exact, difference):
    """Medians over samples, and the largest delta."""
    values = values.detach().double()
    delta = ((values.flatten(1).sum(1) - difference) / difference).abs()
    error = (values - exact).flatten(1).abs().amax(1) / exact.flatten(1).abs().amax(1)
    return {"delta": delta.median().item(), "worst_delta": delta.max().item(), "error": error.median().item()}


def in_half(model, x, target, exact, difference):
    """The midpoint at 50 steps with a model and inputs in half precision."""
    found = {}
    for dtype in (torch.float16, torch.bfloat16):
        rounded = copy.deepcopy(model).to(dtype)
        for tool, call in TOOLS.items():
            try:
                values = call(rounded, x.to(dtype), target, "riemann_middle", AT)
            except (RuntimeError, AssertionError, TypeError, ValueError):
                if tool == "ours":
                    raise
                values = None
            name = f"{str(dtype).removeprefix('torch.')}, {tool}"
            found[name] = None if values is None else scores(values, exact, difference)
    return found


def measure_network(name, quick):
    make, shape = NETWORKS[name]
    n = QUICK_N_SAMPLES if quick else N_SAMPLES
    model, x, target = trained_on_digits(make, shape, n, epochs=1 if quick else 20)
    wide, wide_x = frozen(make()).double(), x.double()
    wide.load_state_dict(model.state_dict())
    steps = QUICK_REFERENCE_STEPS if quick else REFERENCE_STEPS
    exact = ours(wide, wide_x, target, "riemann_middle", steps).detach()
    difference = change(wide, wide_x, target)
    found = {}
    for dtype, network, inputs in (("float32", model, x), ("float64", wide, wide_x)):
        found[dtype] = {}
        for tool, call in TOOLS.items():
            for rule in (*RULES, *ONLY_OURS) if tool == "ours" else RULES:
                found[dtype][f"{tool}, {SHORT[rule]}"] = [
                    scores(call(network, inputs, target, rule, n_steps), exact, difference)
                    for n_steps in (QUICK_STEPS if quick else STEPS)
                ]
    return {
        "samples": n,
        "reference_delta": scores(exact, exact, difference)["worst_delta"],
        "rules": found,
        "half": in_half(model, x, target, exact, difference),
    }


def measure(quick, processes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "steps": list(QUICK_STEPS if quick else STEPS),
            "reference_steps": QUICK_REFERENCE_STEPS if quick else REFERENCE_STEPS,
            "networks": {name: measure_network(name, quick) for name in NETWORKS},
        }


def _percent(value):
    return f"{value:.1e}" if value < 0.001 else f"{value:.2%}"


def lines(content):
    position = len(content["steps"]) - 1 if AT not in content["steps"] else content["steps"].index(AT)
    steps = content["steps"][position]
    cnn = content["networks"]["ReLU CNN"]["rules"]["float32"]
    mid, gauss = (cnn[f"ours, {rule}"][position] for rule in ("middle", "gausslegendre"))
    better = "beats" if mid["error"] < gauss["error"] else "does not beat"
    smooth = [content["networks"][name]["rules"]["float32"] for name in ("smooth network", "LSTM")]
    times = [
        rules["ours, middle"][position]["error"] / rules["ours, gausslegendre"][position]["error"]
        for rules in smooth
    ]
    beyond = mid["error"] / mid["delta"]
    yield (
        f"**At {steps} steps on the ReLU CNN our default, the midpoint, leaves a median error of "
        f"{_percent(mid['error'])} in the attributions and {better} Gauss-Legendre "
        f"({_percent(gauss['error'])}). On the smooth network and the LSTM Gauss-Legendre is "
        f'{times[0]:,.0f} and {times[1]:,.0f} times nearer: ask for `method="gausslegendre"` there.** '
        "Delta alone proves little: on the ReLU CNN the midpoint's attributions are "
        f"{beyond:.1f} times as far off as it says."
    )
    trapezoids = [network["rules"]["float32"] for network in content["networks"].values()]
    if all("Captum, trapezoid" in rules for rules in trapezoids):
        yield (
            f"Captum's trapezoid has weights that sum to 1 - 1/n: at {steps} steps it leaves a median "
            "delta of "
            + ", ".join(_percent(rules["Captum, trapezoid"][position]["delta"]) for rules in trapezoids)
            + " on the three networks, ours "
            + ", ".join(_percent(rules["ours, trapezoid"][position]["delta"]) for rules in trapezoids)
            + ". Its other rules give what ours give."
        )
    else:
        yield "Captum is not installed: its rows are not measured."
    yield ""
    yield f"float32, {steps} steps; median |delta| (largest), median error of the attributions:"
    yield ""
    names = list(cnn)
    yield "| rule | " + " | ".join(content["networks"]) + " |"
    yield "|---" * (1 + len(content["networks"])) + "|"
    for name in names:
        cells = [network["rules"]["float32"][name][position] for network in content["networks"].values()]
        yield (
            f"| {name} | "
            + " | ".join(
                f"{_percent(cell['delta'])} ({_percent(cell['worst_delta'])}), {_percent(cell['error'])}"
                for cell in cells
            )
            + " |"
        )
    halves = {name: network["half"] for name, network in content["networks"].items()}
    for name in next(iter(halves.values())):
        cells = [half[name] for half in halves.values()]
        yield (
            f"| {name}, middle | "
            + " | ".join(
                "refused"
                if cell is None
                else f"{_percent(cell['delta'])} ({_percent(cell['worst_delta'])}), {_percent(cell['error'])}"
                for cell in cells
            )
            + " |"
        )
    yield ""
    what = "median |delta|, median error"
    yield f"<details><summary>All numbers of steps, float32 and float64: {what}</summary>"
    for network, found in content["networks"].items():
        for dtype, rules in found["rules"].items():
            yield ""
            yield f"| {network}, {dtype} | " + " | ".join(f"{n} steps" for n in content["steps"]) + " |"
            yield "|---" * (1 + len(content["steps"])) + "|"
            for name, cells in rules.items():
                yield (
                    f"| {name} | "
                    + " | ".join(f"{_percent(cell['delta'])}, {_percent(cell['error'])}" for cell in cells)
                    + " |"
                )
    yield ""
    yield "</details>"
    yield ""
    samples = next(iter(content["networks"].values()))["samples"]
    references = max(network["reference_delta"] for network in content["networks"].values())
    yield (
        f"Networks trained on scikit-learn's digits with seed 0, {samples} held-out digits, the true class, "
        f"baseline 0. Reference: {content['reference_steps']:,} midpoints in float64, itself complete to "
        f"{references:.0e}."
    )


def draw(content, path):
    from matplotlib.figure import Figure

    colours = {"left": "#e8a33d", "right": "#b05080", "middle": "#1f5fa8", "trapezoid": "#2e8b57"}
    colours |= {"gausslegendre": "#8e44ad", "simpson": "#555555"}
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = figure.subplots(2, len(content["networks"]), sharex=True, sharey="row")
    for column, (network, found) in enumerate(content["networks"].items()):
        for name, cells in found["rules"]["float32"].items():
            tool, rule = name.split(", ")
            if tool == "Captum" and rule != "trapezoid":
                continue  # the same as ours
            for axis, key in zip(axes[:, column], ("delta", "error"), strict=True):
                axis.plot(
                    content["steps"],
                    np.maximum([cell[key] for cell in cells], 1e-9),
                    label=f"Captum's {rule}" if tool == "Captum" else rule,
                    color="#d9541e" if tool == "Captum" else colours[rule],
                    linestyle="--" if tool == "Captum" else "-",
                    marker="o",
                    markersize=4,
                )
                axis.set(xscale="log", yscale="log")
                axis.grid(alpha=0.25)
        axes[0, column].set_title(network)
        axes[1, column].set_xlabel("steps")
    axes[0, 0].set_ylabel("median |delta|, of F(x) - F(x')")
    axes[1, 0].set_ylabel("median error of attributions")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle("Integrated gradients by rule and steps, float32")
    figure.savefig(path, dpi=100)
