"""What changed between two audits of one network: two checkpoints, the same layers, samples and plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from .._validate import Array, Float64, check_int
from .results import Arrays, AttributedSample, LayerResult, PairResult, Results

_LEADING = 5  # components whose span is compared
_BEYOND_SPREAD = 2.58  # standard deviations: 99 % of a normal distribution lie within

Change = tuple[float | None, float | None]


class LayerChange(TypedDict):
    """A layer before and after."""

    layer: str
    effective_rank: Change
    n_components_90: Change
    first_component: Change  # share of variance, 0 to 1
    purity: Change
    zero_fraction: Change
    best_label: Change  # nats, of the map that knows the most of the class
    overlap: float | None  # of the spans of the leading components, 0 to 1
    overlap_by_chance: float | None  # what unrelated directions give


class PairChange(TypedDict):
    """Two maps whose dependence is beyond chance in one of the reports only."""

    map_a: int
    map_b: int
    mutual_info: tuple[float, float]  # nats
    max_pvalue: tuple[float, float]  # family-wise


class CoupleChange(TypedDict):
    """Two layers, or one with itself, before and after."""

    layer_a: str
    layer_b: str
    cka: Change
    cka_significant: tuple[bool, bool] | None
    median: Change  # mutual information, nats
    largest: Change
    n_compared: int  # pairs of maps that both reports compare
    n_gained: int
    n_lost: int
    gained: list[PairChange]  # largest rise first
    lost: list[PairChange]  # largest fall first


class AttributionChange(TypedDict):
    """Integrated gradients of one input, before and after."""

    sample: int
    target: tuple[int | None, int | None]
    stability: tuple[float, float]
    cosine: float | None  # of the two attributions; None where the outputs explained differ


class Comparison(TypedDict):
    """All that changed."""

    alpha: float
    n_samples: int
    layers: list[LayerChange]
    couples: list[CoupleChange]
    attributions: list[AttributionChange]
    left_out: list[str]  # what cannot be compared, and why


def compare_reports(
    before: Results, arrays_before: Arrays, after: Results, arrays_after: Arrays, *, n_top: int = 5
) -> Comparison:
    """What changed between two audits of the same layers, on as many samples, by the same plan.

    A pair of maps is gained where its family-wise p-value is at most the plan's alpha after and above it
    before, by more than random permutations leave open (99 %), and lost the other way round. So the same
    data under another seed gain and lose nothing, but for rare chance.

    Parameters
    ----------
    before, after : Results
        The content of the reports' ``results.json``.
    arrays_before, arrays_after : mapping
        Their arrays, as :func:`.reading.read_report` gives them.
    n_top : int
        Gained and lost pairs listed for every two layers, at most.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        For reports of different layers, widths, numbers of samples or plans, naming what differs: their
        numbers would differ for these reasons too.

    Notes
    -----
    Overlap: the mean squared cosine of the principal angles between the spans of the leading five components
    (Golub and Van Loan 2013, section 6.4.3), 1 for the same span; unrelated directions give five over the
    number of maps. The maps of two checkpoints are the same units, so spans compare without matching.
    CKA of a layer with its own later self needs activations, not reports:
    ``qf.linear_cka(store_before[layer], store_after[layer])``.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> rng = np.random.default_rng(0)
    >>> found = []
    >>> for noise in (0.1, 3.0):
    ...     maps = rng.standard_normal((200, 1)) + noise * rng.standard_normal((200, 3))
    ...     with tempfile.TemporaryDirectory() as folder:
    ...         with qf.create_store(folder, layers={"conv1": qf.LayerSpec((3,), "float64")}) as writer:
    ...             writer.append({"conv1": maps})
    ...         found.append(qf.audit(folder, plan=qf.AuditPlan(n_permutations=99), progress=False))
    >>> first, second = found
    >>> changes = compare_reports(first.results, first.arrays, second.results, second.arrays)
    >>> changes["couples"][0]["n_lost"]
    3
    """
    n_top = check_int(n_top, "n_top", low=0)
    _check_same(before, after)
    alpha = float(before["plan"]["alpha"])
    left_out: list[str] = []
    labels = [_best_labels(report) for report in (before, after)]
    if (before["labels"] is None) != (after["labels"] is None):
        left_out.append("labels: only one of the reports has them")
    pairs = {(pair["layer_a"], pair["layer_b"]): pair for pair in after["pairs"]}
    return {
        "alpha": alpha,
        "n_samples": before["store"]["n_samples"],
        "layers": [
            _layer(first, second, arrays_before, arrays_after, (labels[0], labels[1]))
            for first, second in zip(before["layers"], after["layers"], strict=True)
        ],
        "couples": [
            _couple(pair, pairs[pair["layer_a"], pair["layer_b"]], arrays_before, arrays_after, alpha, n_top)
            for pair in before["pairs"]
        ],
        "attributions": _attributions(before, arrays_before, after, arrays_after, left_out),
        "left_out": left_out,
    }


def _check_same(before: Results, after: Results) -> None:
    names = [[layer["name"] for layer in report["layers"]] for report in (before, after)]
    if names[0] != names[1]:
        only = [[name for name in own if name not in other] for own, other in (names, names[::-1])]
        told = [
            f"only the {which} report has {', '.join(some)}"
            for which, some in zip(("first", "second"), only, strict=True)
            if some
        ]
        raise ValueError(
            f"reports: audits of different layers ({'; '.join(told) or 'in another order'}); "
            "audit both stores with the same layers"
        )
    for first, second in zip(before["layers"], after["layers"], strict=True):
        if first["n_maps"] != second["n_maps"]:
            raise ValueError(
                f"reports: {first['name']} has {first['n_maps']} maps in the first and {second['n_maps']} in "
                "the second; wanted two checkpoints of one network"
            )
    counts = [report["store"]["n_samples"] for report in (before, after)]
    if counts[0] != counts[1]:
        raise ValueError(
            f"reports: audits of {counts[0]:,} and {counts[1]:,} samples, whose estimates do not compare; "
            "capture the same inputs with both checkpoints"
        )
    plans = [{**report["plan"], "layers": None} for report in (before, after)]
    different = [
        f"{name} ({plans[0].get(name)} and {plans[1].get(name)})"
        for name in dict.fromkeys([*plans[0], *plans[1]])
        if plans[0].get(name) != plans[1].get(name)
    ]
    if different:
        raise ValueError(
            f"reports: audits by different plans: {', '.join(different)}; audit both by one plan"
        )


def _best_labels(report: Results) -> dict[str, float]:
    section = report["labels"]
    return {} if section is None else {layer["layer"]: layer["max"] for layer in section["layers"]}


def _first_share(layer: LayerResult) -> float | None:
    return layer["components"][0]["explained_variance_ratio"] if layer["components"] else None


def _overlap(first: Float64, second: Float64) -> tuple[float | None, float | None]:
    count = min(_LEADING, len(first), len(second))
    if count == 0:
        return None, None
    cosines = first[:count] @ second[:count].T
    return float(min(1.0, (cosines**2).sum() / count)), count / first.shape[1]


def _layer(
    first: LayerResult,
    second: LayerResult,
    arrays_before: Arrays,
    arrays_after: Arrays,
    labels: tuple[dict[str, float], dict[str, float]],
) -> LayerChange:
    varies = first["total_variance"] > 0 and second["total_variance"] > 0
    overlap, chance = (
        _overlap(
            arrays_before[first["arrays"]]["components"].astype(np.float64),
            arrays_after[second["arrays"]]["components"].astype(np.float64),
        )
        if varies
        else (None, None)
    )
    return {
        "layer": first["name"],
        "effective_rank": (first["effective_rank"], second["effective_rank"]),
        "n_components_90": (first["n_components_90"], second["n_components_90"]),
        "first_component": (_first_share(first), _first_share(second)),
        "purity": (first["purity"], second["purity"]),
        "zero_fraction": (first["zero_fraction"], second["zero_fraction"]),
        "best_label": (labels[0].get(first["name"]), labels[1].get(first["name"])),
        "overlap": overlap,
        "overlap_by_chance": chance,
    }


def _shared(content: Mapping[str, Array], other: Mapping[str, Array]) -> tuple[list[Array], list[Array]]:
    """Places, in both reports' tables, of the maps that both compare: rows, then columns."""
    own, theirs = [], []
    for maps in ("maps_a", "maps_b"):
        _, first, second = np.intersect1d(content[maps], other[maps], return_indices=True)
        own.append(first)
        theirs.append(second)
    return own, theirs


def _moved(pvalues: list[Array], counts: list[int]) -> Array:
    """Where two p-values differ by more than their numbers of permutations explain.

    Each is a share of so many random pairings, with the spread of one.
    """
    spread = sum(table * (1 - table) / count for table, count in zip(pvalues, counts, strict=True))
    apart: Array = np.abs(pvalues[1] - pvalues[0]) > _BEYOND_SPREAD * np.sqrt(spread)
    return apart


def _couple(
    first: PairResult,
    second: PairResult,
    arrays_before: Arrays,
    arrays_after: Arrays,
    alpha: float,
    n_top: int,
) -> CoupleChange:
    contents = arrays_before[first["mutual_info"]["arrays"]], arrays_after[second["mutual_info"]["arrays"]]
    places = _shared(*contents)
    values, pvalues = (
        [content[name][np.ix_(*at)] for content, at in zip(contents, places, strict=True)]
        for name in ("values", "max_pvalues")
    )
    maps = [contents[0][name][at] for name, at in zip(("maps_a", "maps_b"), places[0], strict=True)]
    usable = np.triu(np.ones(values[0].shape, dtype=bool), 1) if first["within"] else ~np.isnan(values[0])
    beyond = [table <= alpha for table in pvalues]
    n_compared = int(usable.sum())
    counts = [pair["mutual_info"]["n_permutations"] for pair in (first, second)]
    usable &= _moved(pvalues, counts)
    found: dict[str, Any] = {}
    for name, chosen, sign in (
        ("gained", usable & beyond[1] & ~beyond[0], -1.0),
        ("lost", usable & beyond[0] & ~beyond[1], 1.0),
    ):
        at = np.argwhere(chosen)
        order = np.argsort(sign * (values[1] - values[0])[chosen], kind="stable")
        found[f"n_{name}"] = len(at)
        found[name] = [
            {
                "map_a": int(maps[0][i]),
                "map_b": int(maps[1][j]),
                "mutual_info": (float(values[0][i, j]), float(values[1][i, j])),
                "max_pvalue": (float(pvalues[0][i, j]), float(pvalues[1][i, j])),
            }
            for i, j in at[order[:n_top]].tolist()
        ]
    cka = first["cka"], second["cka"]
    return {
        "layer_a": first["layer_a"],
        "layer_b": first["layer_b"],
        "cka": (None if cka[0] is None else cka[0]["value"], None if cka[1] is None else cka[1]["value"]),
        "cka_significant": (
            None if cka[0] is None or cka[1] is None else (cka[0]["significant"], cka[1]["significant"])
        ),
        "median": (first["mutual_info"]["median"], second["mutual_info"]["median"]),
        "largest": (first["mutual_info"]["max"], second["mutual_info"]["max"]),
        "n_compared": n_compared,
        "n_gained": found["n_gained"],
        "n_lost": found["n_lost"],
        "gained": found["gained"],
        "lost": found["lost"],
    }


def _attributions(
    before: Results, arrays_before: Arrays, after: Results, arrays_after: Arrays, left_out: list[str]
) -> list[AttributionChange]:
    first, second = before["attributions"], after["attributions"]
    if first is None or second is None:
        if first is not second:
            left_out.append("attributions: only one of the reports has them")
        return []
    contents = arrays_before[first["arrays"]], arrays_after[second["arrays"]]
    rows = {item["sample"]: place for place, item in enumerate(second["samples"])}
    changes: list[AttributionChange] = []
    for place, item in enumerate(first["samples"]):
        other = rows.get(item["sample"])
        if other is None:
            continue
        if not _same_inputs(contents, place, other):
            left_out.append("attributions: the inputs are not the same")
            return []
        changes.append(_attribution(item, second["samples"][other], contents, (place, other)))
    if not changes:
        left_out.append("attributions: no input was drawn for both reports; audit both with one seed")
    return changes


def _inputs(content: Mapping[str, Array], kind: str) -> list[str]:
    return sorted(name for name in content if name.startswith(f"{kind}_"))


def _same_inputs(contents: tuple[Mapping[str, Array], Mapping[str, Array]], place: int, other: int) -> bool:
    names = _inputs(contents[0], "inputs")
    return names == _inputs(contents[1], "inputs") and all(
        np.array_equal(contents[0][name][place], contents[1][name][other]) for name in names
    )


def _attribution(
    first: AttributedSample,
    second: AttributedSample,
    contents: tuple[Mapping[str, Array], Mapping[str, Array]],
    places: tuple[int, int],
) -> AttributionChange:
    cosine = None
    if first["target"] == second["target"]:
        names = _inputs(contents[0], "values")
        a, b = (
            np.concatenate([content[name][place].ravel().astype(np.float64) for name in names])
            for content, place in zip(contents, places, strict=True)
        )
        norm = np.linalg.norm(a) * np.linalg.norm(b)
        cosine = float(a @ b / norm) if norm > 0 else None
    return {
        "sample": first["sample"],
        "target": (first["target"], second["target"]),
        "stability": (first["stability"], second["stability"]),
        "cosine": cosine,
    }
