"""Write the figures and ``report.html`` of an audit."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from tqdm import tqdm

from ...plots.style import png_bytes
from ..results import Arrays, LayerResult, PairResult, Results
from . import attribution_figures, layer_figures, relation_figures

_MAX_LAYERS_DRAWN = 12
_MAX_HEATMAPS = 6


def _stem(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


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
        yield f"loadings_{_stem(layer['arrays'])}", partial(layer_figures.loadings_figure, layer, arrays)
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
            _stem(pair["mutual_info"]["arrays"]),
            partial(relation_figures.mutual_info_figure, pair, arrays, marked),
        )
    if results["labels"] is not None and results["labels"]["layers"]:
        yield "labels", partial(layer_figures.labels_figure, results, arrays)
    if results["attributions"] is not None and results["attributions"]["samples"]:
        yield "attributions", partial(attribution_figures.attribution_figure, results, arrays)


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.000"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: no "-0.00"


def _pvalue(value: float, floor: float) -> str:
    """A p-value, with the smallest that the permutations can give written as such."""
    if value <= floor * (1 + 1e-9):
        return f"≤ {value:.2g}"
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _maps(indices: list[int], shown: int = 12) -> str:
    """A list of map numbers, cut where it is long."""
    text = ", ".join(str(index) for index in indices[:shown])
    return text + (f" and {len(indices) - shown} more" if len(indices) > shown else "")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("qixai_fast.auditing.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, number=_number, signed=_signed, pvalue=_pvalue, maps=_maps)
    return environment


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
    figures: dict[str, str] = {}
    planned = list(_plan_figures(results, arrays))
    for name, make in tqdm(
        planned, desc="figures", unit="figure", disable=not progress, file=sys.stderr, delay=1.0
    ):
        png = png_bytes(make())
        (folder / f"{name}.png").write_bytes(png)
        figures[name] = base64.b64encode(png).decode("ascii")
    page = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            results=results,
            figures=figures,
            css=resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8"),
            between=relation_figures.between_layers(results),
            heatmaps=[_stem(pair["mutual_info"]["arrays"]) for pair in heatmap_pairs(results)],
            pair_name=relation_figures.pair_name,
            findings={finding["section"]: finding["text"] for finding in results["findings"]},
            drawn_layers=results["layers"][:_MAX_LAYERS_DRAWN],
            stem=_stem,
        )
    )
    path = out / "report.html"
    path.write_text(page, encoding="utf-8", newline="\n")
    return path
