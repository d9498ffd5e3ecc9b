"""Power curves as small multiples: a panel a pair, power against samples."""

from matplotlib.figure import Figure

from benchmarks.study.dependence_pairs import LAYERS, MAPS

# Correlations in greys, general peers in browns, ours in strong colours; one style a measure in both rows.
STYLES = {
    "Pearson correlation": {"color": "0.35", "marker": "s", "linestyle": "--"},
    "largest correlation": {"color": "0.35", "marker": "s", "linestyle": "--"},
    "Spearman correlation": {"color": "0.6", "marker": "D", "linestyle": "--"},
    "linear CKA": {"color": "0.6", "marker": "D", "linestyle": "--"},
    "distance correlation": {"color": "#a6761d", "marker": "^", "linestyle": ":"},
    "RBF CKA": {"color": "#e6ab02", "marker": "v", "linestyle": ":"},
    "binned MI": {"color": "#66a61e", "marker": "o"},
    "largest binned MI": {"color": "#66a61e", "marker": "o"},
    "KSG MI": {"color": "#1f5fa8", "marker": "o"},
    "largest KSG MI": {"color": "#1f5fa8", "marker": "o"},
    "KSG MI of layers": {"color": "#7fc4ea", "marker": "P"},
    "quantum MI": {"color": "#d9541e", "marker": "X"},
    "Schmidt entropy": {"color": "#c2519c", "marker": "*"},
}
COLUMNS = 4


def draw_power(content, path):
    """Two blocks of panels: maps above, layers below, with a legend each."""
    figure = Figure(figsize=(12.5, 11.5), layout="constrained")
    blocks = figure.subfigures(2, 1)
    for block, family, pairs, title in (
        (blocks[0], "maps", MAPS, "Two maps"),
        (blocks[1], "layers", LAYERS, "Two layers of four features"),
    ):
        panels = block.subplots(2, COLUMNS, sharex=True, sharey=True)
        for panel, pair in zip(panels.ravel(), pairs, strict=False):
            for name, curve in content["families"][family][pair.name].items():
                panel.plot(content["sizes"], curve, label=name, markersize=6, clip_on=False, **STYLES[name])
            panel.axhline(content["level"], color="0.8", linewidth=0.8, zorder=0)
            panel.set(xscale="log", ylim=(0, 1.02))
            panel.set_xticks(content["sizes"], [str(n) for n in content["sizes"]])
            panel.minorticks_off()
            panel.set_title(f"{pair.name}\n{pair.law}", fontsize=8)
            panel.grid(alpha=0.25)
        for panel in panels.ravel()[len(pairs) :]:
            panel.set_axis_off()
        for panel in panels[:, 0]:
            panel.set_ylabel("power")
        for panel in panels[-1]:
            panel.set_xlabel("samples")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        block.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
        block.suptitle(f"{title}: how often dependence is found, at a level of {content['level']:.0%}")
    figure.savefig(path, dpi=80)
