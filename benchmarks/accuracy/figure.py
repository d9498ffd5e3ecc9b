"""Mutual information of two scalars: error against samples, and how often intervals hold the truth."""

import math

from matplotlib.figure import Figure

from benchmarks.accuracy.reading import cell_at

# Ours in blues and green; drawn in this order, so that nothing of ours hides a peer.
LINES = {
    "KSG-1": {"color": "#1f5fa8", "marker": "o", "linewidth": 2.4},
    "KSG-2": {"color": "#6fa8dc", "marker": "v", "linewidth": 1.4},
    "binned, quantile, miller-madow": {"color": "#8fbc8f", "marker": ".", "linewidth": 1.2},
    "scikit-learn": {"color": "#d9541e", "marker": "s", "linewidth": 1.4, "linestyle": "--"},
    "NPEET": {"color": "#e8a33d", "marker": "x", "linewidth": 1.4, "linestyle": ":"},
    "ennemi": {"color": "#8e44ad", "marker": "+", "linewidth": 1.2, "linestyle": "-."},
    "cKDTree + searchsorted": {"color": "#555555", "marker": "^", "linewidth": 1.2, "linestyle": "--"},
}
COLUMNS = 4
LOW, HIGH = 1e-3, 1e2  # of the truth; what is infinite stands at the upper edge
SHORT = {
    "binned, miller-madow": "binned",
    "binned, quantile, miller-madow": "binned, quantile",
}
SHOWN = [
    *(("KSG-1", "local"), ("KSG-1", "halves"), ("KSG-2", "local"), ("binned, miller-madow", "local")),
    *(("binned, quantile, miller-madow", "local"), ("scikit-learn", "halves"), ("NPEET", "halves")),
    ("ennemi", "halves"),
]


def relative_rmse(truth, summary):
    if not summary:
        return math.nan
    return HIGH if summary["not_finite"] else summary["rmse"] / truth


def draw(content, path):
    """Both figures: at ``path``, and beside it with ``_coverage`` at the end of its name."""
    group = content["groups"]["pairs"]
    draw_errors(group, path)
    draw_coverage(group, path.with_name(f"{path.stem}_coverage{path.suffix}"))


def draw_errors(group, path):
    """RMSE relative to the truth, both axes logarithmic and common to all panels."""
    distributions = group["distributions"]
    rows = math.ceil(len(distributions) / COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 2.1 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True)
    for axis, (name, result) in zip(axes.ravel(), distributions.items(), strict=False):
        for estimator, style in LINES.items():
            if estimator in result["estimators"]:
                relative = [
                    relative_rmse(result["truth"], cell_at(group, result, estimator, n))
                    for n in group["samples"]
                ]
                axis.plot(group["samples"], relative, label=estimator, markersize=5, clip_on=False, **style)
        axis.axhline(0.1, color="0.6", linewidth=0.8, zorder=0)
        axis.set(xscale="log", yscale="log", ylim=(LOW, HIGH))
        axis.set_title(f"{name}: {result['truth']:.3f}", fontsize=8)
        axis.grid(alpha=0.25)
    for axis in axes[:, 0]:
        axis.set_ylabel("RMSE / truth")
    for axis in axes[-1]:
        axis.set_xlabel("samples")
    handles, labels = axes.ravel()[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(
        "Error where the truth (nats, in the titles) is known; grey: a tenth of it; upper edge: infinite"
    )
    figure.savefig(path, dpi=90)


def draw_coverage(group, path):
    """A row a distribution, a column an interval and number of samples."""
    columns = [
        (estimator, kind, n)
        for estimator, kind in SHOWN
        for n in group["samples"]
        if any(kind in cell_at(group, one, estimator, n) for one in group["distributions"].values())
    ]
    names = list(group["distributions"])
    shares = [
        [
            cell_at(group, group["distributions"][name], estimator, n).get(kind, math.nan)
            for estimator, kind, n in columns
        ]
        for name in names
    ]
    figure = Figure(figsize=(11, 0.3 * len(names) + 2.2), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for row, values in enumerate(shares):
        for column, share in enumerate(values):
            if not math.isnan(share):
                colour = "white" if share < 0.5 else "black"
                axis.text(
                    column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour
                )
    powers = [f"$10^{round(math.log10(n))}$" for _, _, n in columns]
    axis.set_xticks(range(len(columns)), powers, fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_xlabel("samples")
    start = 0
    for estimator, kind in SHOWN:
        width = sum(column[:2] == (estimator, kind) for column in columns)
        if width:
            title = f"{SHORT.get(estimator, estimator)}\n{kind}".replace("binned, ", "binned\n")
            title = title.replace("scikit-learn", "scikit-\nlearn")
            size = 8 if width > 1 else 6
            axis.text(start + width / 2 - 0.5, -0.7, title, ha="center", va="bottom", fontsize=size)
            axis.axvline(start + width - 0.5, color="white", linewidth=2)
            start += width
    figure.colorbar(image, ax=axis, label="share that holds the truth (95 % promised)", shrink=0.8)
    figure.suptitle("How often a nominal 95 % interval holds the truth, in percent")
    figure.savefig(path, dpi=100)
