"""Time beside peak memory of every instrument, a panel a network."""

from __future__ import annotations

from matplotlib.figure import Figure

from benchmarks.study.cost_words import LEAST

NAME = "cost.png"
# Of Okabe and Ito, which people with any colour vision tell apart; a marker each as well.
STYLES = {
    "qixai-fast": ("#0072B2", "o", "qixai-fast, one sample explained"),
    "Captum": ("#D55E00", "s", "Captum, one sample explained"),
    "SHAP": ("#009E73", "^", "SHAP, one sample explained"),
    "LIME": ("#CC79A7", "D", "LIME, one sample explained"),
    "layer": ("#000000", "P", "qixai-fast, a whole layer looked at"),
}
SHORT = (  # beginnings of names, and what they are called in the figure
    ("integrated gradients, tol", "IG, tol"),
    ("integrated gradients, 50 steps, passes", "IG, equal passes"),
    ("integrated gradients", "IG, 50 steps"),
    ("conductance", "conductance"),
    ("capture", "capture"),
    ("spectrum", "PCA"),
    ("orthogonality: cosine", "cosine"),
    ("orthogonality: linear", "CKA"),
    ("entanglement: binned", "binned MI"),
    ("entanglement: KSG", "KSG"),
    ("entanglement: perm", "permutation test"),
    ("whole audit", "audit"),
    ("LRP", "LRP"),
    ("Lime", "LIME"),
)


def _short(name):
    return next((short for start, short in SHORT if name.startswith(start)), name.split(",")[0])


def _points(network):
    """Kind, label, seconds and megabytes of all that worked."""
    rows = [(row["tool"], row["name"], row, network["samples"]) for row in network["local"]]
    rows += [("layer", row["name"], row["many"], 1) for row in network["layers"]]
    return [
        (kind, _short(name), found["seconds"] / n, max(found["memory"], LEAST) / 1e6)
        for kind, name, found, n in rows
        if "error" not in found
    ]


def _label(axes, points):
    """Write the names right of the points, each moved up or down as far as it takes not to lie on another."""
    places = [axes.transData.transform(point[2:]) for point in points]
    boxes = [(x - 5, x + 5, y - 5, y + 5) for x, y in places]
    for kind, text, x, y in sorted(points, key=lambda point: -point[3]):
        left, middle = axes.transData.transform((x, y))
        left, width = left + 7, 6 * len(text) + 6
        for shift in sorted(range(-90, 91, 3), key=abs):
            box = (left, left + width, middle + shift - 6, middle + shift + 6)
            if all(box[1] < b[0] or b[1] < box[0] or box[3] < b[2] or b[3] < box[2] for b in boxes):
                break
        boxes.append(box)
        axes.annotate(
            text,
            (x, y),
            xytext=(7, shift * 72 / axes.figure.dpi),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=STYLES[kind][0],
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "0.6"} if abs(shift) > 6 else None,
        )


def draw(content, folder):
    """Write the figure."""
    networks = list(content["networks"].values())
    figure = Figure(figsize=(10, 3.9 * len(networks)), dpi=100, layout="constrained")
    panels = figure.subplots(len(networks), 1, squeeze=False)[:, 0]
    for axes, network in zip(panels, networks, strict=True):
        points = _points(network)
        for kind, (colour, marker, _) in STYLES.items():
            some = [(x, y) for other, _, x, y in points if other == kind]
            if some:
                axes.plot(*zip(*some, strict=True), marker, color=colour, markersize=6)
        axes.set(xscale="log", yscale="log", ylabel="peak memory above start, MB")
        low, high = min(x for _, _, x, _ in points), max(x for _, _, x, _ in points)
        axes.set_xlim(low / 1.6, high * 6)  # names stand on the right
        axes.set_ylim(0.7 * min(y for _, _, _, y in points), None)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.set_title(
            f"{network['name']}: {network['samples']} samples explained; layers of {network['rows']:,} rows",
            loc="left",
            fontsize=10,
        )
    panels[-1].set_xlabel("seconds: a sample explained, or a whole layer looked at")
    handles = [
        panels[0].plot([], [], marker, color=colour, label=label)[0]
        for colour, marker, label in STYLES.values()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.draw_without_rendering()  # places are known from here on
    for axes, network in zip(panels, networks, strict=True):
        _label(axes, _points(network))
    figure.savefig(folder / NAME)
