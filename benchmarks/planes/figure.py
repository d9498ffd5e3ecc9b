"""The planes as small panels: cost to the right, error upwards, and a mark for what fails in silence."""

import io
import math

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from benchmarks.planes.measuring import SILENT_FROM, is_silent

# Colours of Okabe and Ito, which colour-blind readers can tell apart; the markers say the same again.
STYLES = {
    "qixai-fast": ("#0072B2", "o"),
    "scikit-learn": ("#D55E00", "s"),
    "torch": ("#CC79A7", "D"),
    "dask": ("#009E73", "v"),
    "fbpca": ("#E69F00", "^"),
    "Captum": ("#D55E00", "h"),
    "NPEET": ("#E69F00", "<"),
    "ennemi": ("#CC79A7", "d"),
    "cKDTree + searchsorted": ("#56B4E9", "P"),
    "NumPy recipe": ("#555555", "p"),
}
SILENT = "#000000"
# Panels in order: which plane, and whether seconds or what else it costs are to the right.
PANELS = (
    ("pca 0", "seconds"),
    ("pca 30", "seconds"),
    ("pca 300", "seconds"),
    ("pca 300", "cost"),
    ("integrated gradients logit", "cost"),
    ("integrated gradients softmax", "cost"),
    ("mutual information Gaussian, ρ=0.6", "seconds"),
    ("mutual information both after a ReLU, ρ=0.9", "seconds"),
    ("mutual information float16, ρ=0.9", "seconds"),
    ("mutual information bfloat16, ρ=0.9", "seconds"),
    ("cosines", "seconds"),
    ("cka", "seconds"),
)
COLUMNS = 3
HIGHEST = 10.0  # of the truth; what is more, or no number, stands at the upper edge
LOWEST = 1e-9  # what is less stands at the lower edge
BINNED = ("binned", "histogram2d")  # lines that are dashed


def _height(point):
    error = point["error"]
    return HIGHEST if error is None else min(max(error, LOWEST), HIGHEST)


def _panel(axis, plane, cost):
    placed = [point for point in plane["points"] if cost in point]
    lines = {}
    for point in placed:
        lines.setdefault((point["tool"], point["line"]), []).append(point)
    # Ours last and small: where two tools have the same rule, both marks are to be seen.
    for (tool, line), points in sorted(lines.items(), key=lambda item: item[0][0] == "qixai-fast"):
        colour, marker = STYLES[tool]
        x, y = [point[cost] for point in points], [_height(point) for point in points]
        dash = (0, (2, 1.5)) if line.startswith(BINNED) else "-"
        axis.plot(x, y, color=colour, linewidth=0.9, linestyle=dash, alpha=0.6, zorder=2)
        for point, right, up in zip(points, x, y, strict=True):
            size = (4 if tool == "qixai-fast" else 5) * (1.7 if point["default"] else 1)
            mark = {"markeredgecolor": "white", "markeredgewidth": 0.4, "clip_on": False}
            axis.plot(right, up, marker, color=colour, markersize=size, zorder=3, **mark)
            if is_silent(point):
                mark = {"markersize": size + 2, "markeredgewidth": 1.2, "clip_on": False}
                axis.plot(right, up, "x", color=SILENT, zorder=4, **mark)
    axis.axhline(SILENT_FROM, color="0.55", linewidth=0.8, linestyle=":", zorder=1)
    low = 10.0 ** math.floor(math.log10(min(_height(point) for point in placed)))
    axis.set(xscale="log", yscale="log", ylim=(low, HIGHEST))
    named = {1.0, 2.0, 5.0} if cost == "cost" or _decades(axis) < 1.5 else {1.0}
    axis.xaxis.set_major_locator(LogLocator(subs=sorted(named)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    by_pass = ", by pass" if plane["cost_is"].startswith("passes") and cost == "cost" else ""
    axis.set_title(plane["title"] + by_pass, fontsize=9.5)
    axis.set_xlabel("seconds a call" if cost == "seconds" else plane["cost_is"], fontsize=8.5)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.2)


def _decades(axis):
    low, high = axis.get_xlim()
    return math.log10(high / low)


def draw(content, path):
    """Write the figure; planes that were not measured have no panel."""
    panels = [(content["planes"][name], cost) for name, cost in PANELS if name in content["planes"]]
    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(10, 2.75 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _panel(axis, *panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis in axes[::COLUMNS]:
        axis.set_ylabel("relative error", fontsize=8.5)
    tools = [
        tool
        for tool in STYLES
        if any(point["tool"] == tool for plane, _ in panels for point in plane["points"])
    ]
    handles = [
        Line2D([], [], color=STYLES[tool][0], marker=STYLES[tool][1], markersize=5, linewidth=1, label=tool)
        for tool in tools
    ]
    handles += [
        Line2D([], [], color="0.4", marker="o", markersize=8, linewidth=0, label="default settings"),
        Line2D([], [], color="0.4", linestyle=(0, (2, 1.5)), linewidth=1, label="binned"),
        Line2D(
            [], [], color=SILENT, marker="x", markersize=8, linewidth=0,
            label="off by more than 10 %, no warning",
        ),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8.5)
    figure.suptitle(
        "Cost against error: lower left is better (dotted: 10 %; lower edge: 1e-9 or less; "
        "upper edge: ten times the truth, more, or no number)",
        fontsize=10,
    )
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    fewer = Image.open(drawn).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    fewer.save(path, optimize=True)  # a third of the bytes
