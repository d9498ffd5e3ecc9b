"""The page itself: templates, style and script put together into one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from collections.abc import Mapping
from importlib import resources

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.colors import to_hex

from ...plots.style import MAGNITUDE_MAP, SIGNED_MAP
from ..findings import layer_line
from ..results import Arrays, Results
from . import relation_figures
from .cells import LEVELS
from .summary import five_sentences, highlights
from .tables import map_rows, pair_floor, pair_views, rows_a_layer

_PIXELS = 1.5  # of a figure to one of the page, so that it is sharp on dense screens


def stem(text: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.000"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: no "-0.00"


def _shortest(value: float) -> str:
    """Three digits, whatever the scale."""
    return f"{value + 0.0:.3g}"


def _bound(value: float) -> str:
    """A relative error bound, rounded up to one digit; "none" where there is none."""
    if not math.isfinite(value):
        return "none"
    if value == 0:
        return "0"
    power = math.floor(math.log10(value))
    return f"{math.ceil(value / 10.0**power - 1e-9) * 10.0**power:.0e}"


def _pvalue(value: float, floor: float) -> str:
    """A p-value, with the smallest that the permutations can give written as such."""
    if value <= floor * (1 + 1e-9):
        return f"≤ {value:.2g}"
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _pvalue_after(value: float, floor: float) -> str:
    """A p-value as a sentence has it, after "p"."""
    text = _pvalue(value, floor)
    return text if text.startswith("≤") else f"= {text}"


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
    environment.filters.update(
        percent=_percent,
        number=_number,
        signed=_signed,
        shortest=_shortest,
        bound=_bound,
        pvalue=_pvalue,
        pvalue_after=_pvalue_after,
        maps=_maps,
    )
    return environment


def _gradient(cmap: str) -> str:
    """A colour map as stops of a CSS gradient."""
    colours = matplotlib.colormaps[cmap]
    return ", ".join(to_hex(colours(i / 8)) for i in range(9))


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _style() -> str:
    return (
        _source("page.css")
        .replace("{{ magnitude }}", _gradient(MAGNITUDE_MAP))
        .replace("{{ signed }}", _gradient(SIGNED_MAP))
    )


def _embedded(png: bytes) -> dict[str, object]:
    width, height = struct.unpack(">II", png[16:24])
    return {
        "data": base64.b64encode(png).decode("ascii"),
        "width": round(width / _PIXELS),
        "height": round(height / _PIXELS),
    }


def render_page(results: Results, arrays: Arrays, figures: Mapping[str, bytes]) -> str:
    """``report.html`` of an audit.

    Parameters
    ----------
    results : Results
    arrays : mapping
        As :func:`.writer.write_report` takes them.
    figures : mapping
        Name -> PNG, as :mod:`.writer` names them.

    Returns
    -------
    str
        HTML that holds figures, matrices, style and script, and loads nothing. Its policy lets no other
        script run.
    """
    alpha = float(results["plan"]["alpha"])
    permutations = int(results["plan"]["n_permutations"])
    script = _source("tables.js") + _source("matrices.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    views = list(pair_views(results, arrays))
    labels = {layer["layer"]: layer for layer in (results["labels"] or {"layers": []})["layers"]}
    most = rows_a_layer(results)
    lines = [layer_line(layer) if layer["components"] else f"{layer['name']}." for layer in results["layers"]]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            results={**results, "reading_of_layers": lines},
            arrays=arrays,
            alpha=alpha,
            floor=1 / (1 + permutations),
            label_floor=1 / (1 + permutations),
            sentences=five_sentences(results, alpha),
            highlights=highlights(results, alpha),
            findings={finding["section"]: finding["text"] for finding in results["findings"]},
            figures={name: _embedded(png) for name, png in figures.items()},
            views=views,
            by_names={(view.pair["layer_a"], view.pair["layer_b"]): view for view in views},
            between=relation_figures.between_layers(results),
            pair_name=relation_figures.pair_name,
            pair_floor=pair_floor,
            map_rows=lambda layer: map_rows(layer, labels.get(layer["name"]), arrays, most),
            levels=LEVELS,
            stem=stem,
            css=_style(),
            script=script,
            script_digest=f"sha256-{digest}",
        )
    )
