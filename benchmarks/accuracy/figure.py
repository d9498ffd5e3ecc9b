"""The table of accuracy as small multiples: one panel a distribution, error against samples."""

import math

from matplotlib.figure import Figure

# Ours in blue and green, peers in red and orange; drawn in this order, so that nothing of ours hides a peer.
LINES = {
    "KSG-1": {"color": "#1f5fa8", "marker": "o", "linewidth": 2.2},
    "KSG-2": {"color": "#6fa8dc", "marker": "v", "linewidth": 1.4},
    "binned": {"color": "#9bc29b", "marker": ".", "linewidth": 1.2, "linestyle": ":"},
    "binned, miller-madow": {"color": "#3d8b3d", "marker": ".", "linewidth": 1.2},
    "scikit-learn": {"color": "#d9541e", "marker": "s", "linewidth": 1.4, "linestyle": "--"},
    "NPEET": {"color": "#e8a33d", "marker": "x", "linewidth": 1.4, "linestyle": ":"},
}
COLUMNS = 5


def draw(content, path):
    """RMSE relative to the truth, both axes logarithmic and common to all panels; the key takes the last."""
    distributions = content["distributions"]
    rows = math.ceil((len(distributions) + 1) / COLUMNS)
    figure = Figure(figsize=(3.1 * COLUMNS, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True)
    panels = axes.ravel()
    for axis, (name, result) in zip(panels, distributions.items(), strict=False):
        for estimator, style in LINES.items():
            if estimator in result["estimators"]:
                relative = [value / result["truth"] for value in result["estimators"][estimator]["rmse"]]
                axis.plot(content["samples"], relative, label=estimator, markersize=4.5, **style)
        axis.axhline(0.1, color="0.6", linewidth=0.8, zorder=0)
        axis.set(xscale="log", yscale="log")
        axis.set_title(f"{name}: {result['truth']:.3f} nats", fontsize=10)
        axis.grid(alpha=0.25)
    for axis in panels[len(distributions) :]:
        axis.axis("off")
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].legend(handles, labels, loc="center", frameon=False, fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("RMSE / truth")
    for column in range(COLUMNS):
        last = [axis for axis in axes[:, column] if axis.axison][-1]
        last.set_xlabel("samples")
        last.tick_params(labelbottom=True)
    figure.suptitle(
        "Error of mutual information estimators where the truth is known (grey line: a tenth of it)"
    )
    figure.savefig(path, dpi=110)
