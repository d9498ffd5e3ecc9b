"""Write the figures and ``report.html`` of an audit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

from ...plots.style import png_bytes
from ..results import Arrays, LayerResult, PairResult, Results
from . import attribution_figures, layer_figures, relation_figures
from .page import render_page, stem

_MAX_LAYERS_DRAWN = 12
_MAX_HEATMAPS = 6


def heatmap_pairs(results: Results) -> list[PairResult]:
    """The layer pairs drawn in full: between layers, strongest first where there are many."""
    pairs = relation_figures.between_layers(results)
    if len(pairs) <= _MAX_HEATMAPS:
        return pairs
    return sorted(pairs, key=lambda pair: -pair["mutual_info"]["max"])[:_MAX_HEATMAPS]


def _plan_figures(results: Results, arrays: Arrays) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Name and maker of every figure that these results call for, in page order."""
    layers: list[LayerResult] = [layer for layer in results["layers"] if layer["components"]]
    if layers:
        yield "spectrum", partial(layer_figures.spectrum_figure, results)
        yield "scores", partial(layer_figures.scores_figure, results, arrays)
    for layer in layers[:_MAX_LAYERS_DRAWN]:
        yield f"loadings_{stem(layer['arrays'])}", partial(layer_figures.loadings_figure, layer, arrays)
    yield "zeros", partial(layer_figures.zeros_figure, results, arrays)
    if relation_figures.between_layers(results):
        yield "alignment", partial(relation_figures.alignment_figure, results)
        yield "cosine", partial(relation_figures.cosine_figure, results, arrays)
        if any(pair["schmidt"] for pair in results["pairs"]):
            yield "schmidt", partial(relation_figures.schmidt_figure, results)
    if any(not row["within"] for row in results["entangled"]["rows"]):
        yield "entangled", partial(relation_figures.entangled_figure, results)
    for pair in heatmap_pairs(results):
        marked = [
            row
            for row in results["entangled"]["rows"]
            if (row["layer_a"], row["layer_b"]) == (pair["layer_a"], pair["layer_b"]) and row["rank"] <= 10
        ]
        yield (
            stem(pair["mutual_info"]["arrays"]),
            partial(relation_figures.mutual_info_figure, pair, arrays, marked),
        )
    if results["labels"] is not None and results["labels"]["layers"]:
        yield "labels", partial(layer_figures.labels_figure, results, arrays)
    if results["attributions"] is not None and results["attributions"]["samples"]:
        yield "attributions", partial(attribution_figures.attribution_figure, results, arrays)


def write_report(results: Results, arrays: Arrays, out: Path, *, progress: bool = False) -> Path:
    """Write ``out/figures/*.png`` and ``out/report.html``.

    Parameters
    ----------
    results : Results
        The content of ``results.json``.
    arrays : mapping
        File stem -> array name -> array, as :mod:`qixai_fast.auditing.results` lists them.
    out : Path
        The report's directory; made where it does not exist.
    progress : bool
        Show a bar over figures, on standard error, once they take more than a second.

    Returns
    -------
    Path
        ``report.html``: self-contained, with its figures inside. The same results give the same bytes.
    """
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, bytes] = {}
    planned = list(_plan_figures(results, arrays))
    for name, make in tqdm(
        planned, desc="figures", unit="figure", disable=not progress, file=sys.stderr, delay=1.0
    ):
        figures[name] = png_bytes(make())
        (folder / f"{name}.png").write_bytes(figures[name])
    path = out / "report.html"
    path.write_text(render_page(results, arrays, figures), encoding="utf-8", newline="\n")
    return path
