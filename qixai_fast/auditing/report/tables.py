"""What the page shows of each layer and each pair of layers: rows of tables, and matrices of cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np

from ..._validate import Array
from ...plots.style import MAGNITUDE_MAP, SIGNED_MAP
from ..results import Arrays, LayerLabels, LayerResult, PairResult, Results
from .cells import Cells, cluster_order, cosine_cells, magnitude_cells, pvalue_levels

# A page has so many rows of maps and so many bytes of matrices, and opens at once.
_MAX_ROWS = 6000
_MAX_CELL_BYTES = 16_000_000
_STRONGEST = 8
# Along the edge of a matrix: so many letters fit on a phone, or so many numbers of any length.
_TICK_LETTERS = 48
_TICKS = 8


class Tick(TypedDict):
    """A map's number at the edge of a matrix."""

    at: int  # row or column, from 0
    share: float  # where its middle lies, 0 to 1
    label: str


class MapRow(TypedDict):
    """One map of a layer."""

    map: int
    mean: float
    std: float
    zeros: float
    component: int | None  # the component that it loads on most, from 1
    loading: float
    known: float | None  # mutual information with the class, nats
    pvalue: float | None  # family-wise
    state: str  # dead, constant, or copy of another


class StrongPair(TypedDict):
    """One pair of maps."""

    map_a: int
    map_b: int
    mutual_info: float
    null_mean: float
    pvalue: float
    qvalue: float
    max_pvalue: float
    cosine_raw: float
    cosine_centred: float


@dataclass(frozen=True)
class PairView:
    """A pair of layers as its section shows it.

    Attributes
    ----------
    pair : PairResult
    anchor : str
    strongest : list of StrongPair
    shape : (int, int)
    rows, columns : str
        Map numbers in the order of the cells; empty where the matrices are not drawn.
    information, cosine : Cells or None
        None where the page has no room left, or there is nothing to draw.
    pvalues : str
        Family-wise p-values in the same order (:func:`.cells.pvalue_levels`).
    aspect : float
        Width over height of the picture.
    row_ticks, column_ticks : list of Tick
    """

    pair: PairResult
    anchor: str
    strongest: list[StrongPair]
    shape: tuple[int, int]
    rows: str = ""
    columns: str = ""
    information: Cells | None = None
    cosine: Cells | None = None
    pvalues: str = ""
    aspect: float = 1.0
    row_ticks: list[Tick] = field(default_factory=list)
    column_ticks: list[Tick] = field(default_factory=list)


def layer_anchor(index: int) -> str:
    """Where the page tells of a layer, by its place in the network."""
    return f"layer-{index}"


def pair_floor(pair: PairResult) -> float:
    """The smallest p-value that the pair's permutations can give."""
    return 1 / (1 + pair["mutual_info"]["n_permutations"])


def _state(layer: LayerResult) -> dict[int, str]:
    states = dict.fromkeys(layer["dead_maps"], "dead")
    states |= dict.fromkeys(layer["constant_maps"], "constant")
    for group in layer["duplicate_groups"]:
        for index in group:
            other = group[0] if index != group[0] else group[1]
            states[index] = f"copy of {other}"
    return states


def map_rows(layer: LayerResult, labels: LayerLabels | None, arrays: Arrays, most: int) -> list[MapRow]:
    """Every map of a layer, or those of largest spread where there are more than ``most``."""
    content = arrays[layer["arrays"]]
    states = _state(layer)
    loadings = content["loadings"]
    known = arrays[labels["arrays"]] if labels is not None else None
    chosen = np.sort(np.argsort(-content["std"], kind="stable")[:most])
    rows: list[MapRow] = []
    for index in chosen.tolist():
        strongest = int(np.argmax(np.abs(loadings[:, index]))) if len(loadings) else None
        rows.append(
            {
                "map": index,
                "mean": float(content["mean"][index]),
                "std": float(content["std"][index]),
                "zeros": float(content["zero_fraction"][index]),
                "component": None if strongest is None else strongest + 1,
                "loading": 0.0 if strongest is None else float(loadings[strongest, index]),
                "known": None if known is None else float(known["values"][index]),
                "pvalue": None if known is None else float(known["max_pvalues"][index]),
                "state": states.get(index, ""),
            }
        )
    return rows


def rows_a_layer(results: Results) -> int:
    """How many maps of each layer the page lists."""
    return max(32, _MAX_ROWS // max(1, len(results["layers"])))


def _strongest(pair: PairResult, content: Any, relation: Any) -> list[StrongPair]:
    values = content["values"]
    usable = ~np.isnan(values)
    if pair["within"]:
        usable &= np.triu(np.ones(values.shape, dtype=bool), 1)
    places = np.argwhere(usable)
    first = np.argsort(-values[usable], kind="stable")[:_STRONGEST]
    rows: list[StrongPair] = []
    for i, j in places[first].tolist():
        rows.append(
            {
                "map_a": int(content["maps_a"][i]),
                "map_b": int(content["maps_b"][j]),
                "mutual_info": float(values[i, j]),
                "null_mean": float(content["null_mean"][i, j]),
                "pvalue": float(content["pvalues"][i, j]),
                "qvalue": float(content["qvalues"][i, j]),
                "max_pvalue": float(content["max_pvalues"][i, j]),
                "cosine_raw": float(relation["cosine_raw"][i, j]),
                "cosine_centred": float(relation["cosine_centred"][i, j]),
            }
        )
    return rows


def _numbers(maps: Array) -> str:
    return " ".join(map(str, maps.tolist()))


def ticks(maps: Sequence[int]) -> list[Tick]:
    """Numbers along an edge: of every map where there is room on a phone, else of eight, evenly spread.

    Examples
    --------
    >>> [tick["label"] for tick in ticks([4, 2, 7])], [tick["at"] for tick in ticks(range(512))]
    (['4', '2', '7'], [32, 96, 160, 224, 288, 352, 416, 480])
    """
    n = len(maps)
    digits = len(str(max(maps, default=0)))
    if n * (digits + 1) <= _TICK_LETTERS:
        places = list(range(n))
    else:
        places = [(2 * step + 1) * n // (2 * _TICKS) for step in range(_TICKS)]
    return [{"at": at, "share": (at + 0.5) / n, "label": str(maps[at])} for at in places]


def _drawn(pair: PairResult, anchor: str, strong: list[StrongPair], content: Any, relation: Any) -> PairView:
    """The pair with its matrices, rows and columns in the order of their clusters."""
    values = np.asarray(content["values"], dtype=np.float64)
    rows = cluster_order(values)
    columns = rows if pair["within"] else cluster_order(values.T)
    at = np.ix_(rows, columns)
    cosine = np.array(relation["cosine_centred"], dtype=np.float64)
    if pair["within"]:
        np.fill_diagonal(cosine, np.nan)
    pvalues = np.asarray(content["max_pvalues"], dtype=np.float64)[at]
    return PairView(
        pair,
        anchor,
        strong,
        (len(rows), len(columns)),
        _numbers(content["maps_a"][rows]),
        _numbers(content["maps_b"][columns]),
        magnitude_cells(values[at], MAGNITUDE_MAP),
        cosine_cells(cosine[at], SIGNED_MAP),
        pvalue_levels(pvalues, pair_floor(pair)),
        min(2.0, max(0.6, len(columns) / len(rows))),
        ticks(content["maps_a"][rows].tolist()),
        ticks(content["maps_b"][columns].tolist()),
    )


def _size(view: PairView) -> int:
    pictures = [cells.png for cells in (view.information, view.cosine) if cells is not None]
    return sum(map(len, pictures)) + len(view.pvalues)


def pair_views(results: Results, arrays: Arrays) -> Iterator[PairView]:
    """Every pair of layers in the order of the results.

    Matrices are drawn for the pairs with the strongest maps first, for as long as the page has room.
    """
    places = {layer["name"]: index for index, layer in enumerate(results["layers"])}
    views: dict[int, PairView] = {}
    room = _MAX_CELL_BYTES
    order = sorted(range(len(results["pairs"])), key=lambda i: -results["pairs"][i]["mutual_info"]["max"])
    for index in order:
        pair = results["pairs"][index]
        content, relation = arrays[pair["mutual_info"]["arrays"]], arrays[pair["cosine"]["arrays"]]
        anchor = f"pair-{places[pair['layer_a']]}-{places[pair['layer_b']]}"
        strong = _strongest(pair, content, relation)
        view = PairView(pair, anchor, strong, content["values"].shape)
        if strong and room > 0:
            drawn = _drawn(pair, anchor, strong, content, relation)
            room -= _size(drawn)
            view = drawn if room >= 0 else view
        views[index] = view
    return (views[index] for index in range(len(order)))
