"""The table of accuracy as small multiples: one panel a distribution, error against samples."""

import math

from matplotlib.figure import Figure

# Ours in blues and green; drawn in this order, so that nothing of ours hides a peer.
LINES = {
    "KSG-1": {"color": "#1f5fa8", "marker": "o", "linewidth": 2.4},
    "KSG-2": {"color": "#6fa8dc", "marker": "v", "linewidth": 1.4},
    "binned, miller-madow": {"color": "#8fbc8f", "marker": ".", "linewidth": 1.2},
    "scikit-learn": {"color": "#d9541e", "marker": "s", "linewidth": 1.4, "linestyle": "--"},
    "NPEET": {"color": "#e8a33d", "marker": "x", "linewidth": 1.4, "linestyle": ":"},
    "ennemi": {"color": "#8e44ad", "marker": "+", "linewidth": 1.2, "linestyle": "-."},
    "cKDTree + searchsorted": {"color": "#555555", "marker": "^", "linewidth": 1.2, "linestyle": "--"},
}
COLUMNS = 4
LOW, HIGH = 1e-3, 1e2  # of the truth; what is infinite stands at the upper edge


def draw(content, path):
    """RMSE relative to the truth, both axes logarithmic and common to all panels."""
    distributions = content["distributions"]
    rows = math.ceil(len(distributions) / COLUMNS)
    figure = Figure(figsize=(3.6 * COLUMNS, 2.7 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True)
    for axis, (name, result) in zip(axes.ravel(), distributions.items(), strict=False):
        for estimator, style in LINES.items():
            if estimator in result["estimators"]:
                values = result["estimators"][estimator]
                relative = [
                    HIGH if lost else math.nan if rmse is None else rmse / result["truth"]
                    for rmse, lost in zip(values["rmse"], values["not_finite"], strict=True)
                ]
                axis.plot(content["samples"], relative, label=estimator, markersize=5, clip_on=False, **style)
        axis.axhline(0.1, color="0.6", linewidth=0.8, zorder=0)
        axis.set(xscale="log", yscale="log", ylim=(LOW, HIGH))
        axis.set_title(f"{name}: {result['truth']:.3f} nats", fontsize=10)
        axis.grid(alpha=0.25)
    for axis in axes[:, 0]:
        axis.set_ylabel("RMSE / truth")
    for axis in axes[-1]:
        axis.set_xlabel("samples")
    handles, labels = axes.ravel()[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle("Error where the truth is known (grey: a tenth of it; upper edge: infinite)")
    figure.savefig(path, dpi=100)
