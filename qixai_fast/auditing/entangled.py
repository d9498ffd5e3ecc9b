"""The table of most entangled maps: which pairs, and what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .._validate import Array
from .pair_stages import pair_mask
from .results import Arrays, EntangledPair, EntangledTable, LayerResult, PairResult


@dataclass(frozen=True)
class RankedPair:
    """Two maps of a layer pair, and where their values stand in its tables."""

    pair: PairResult
    row: int
    column: int
    map_a: int
    map_b: int

    @property
    def key(self) -> tuple[str, int, str, int]:
        """Layers and maps, as the KSG stage wants them."""
        return self.pair["layer_a"], self.map_a, self.pair["layer_b"], self.map_b


def strongest(pairs: Sequence[PairResult], arrays: Arrays, n_top: int) -> list[RankedPair]:
    """The pairs of largest mutual information: ``n_top`` between layers, then ``n_top`` within layers.

    Equal values keep the order of layers and maps.
    """
    chosen: list[RankedPair] = []
    for within in (False, True):
        found: list[tuple[float, RankedPair]] = []
        for pair in (pair for pair in pairs if pair["within"] is within):
            tables = arrays[pair["mutual_info"]["arrays"]]
            places = np.argwhere(pair_mask(tables["values"].shape, within))
            values = tables["values"][tuple(places.T)]
            for place in np.argsort(-values, kind="stable")[:n_top]:
                i, j = (int(index) for index in places[place])
                maps = int(tables["maps_a"][i]), int(tables["maps_b"][j])
                found.append((float(values[place]), RankedPair(pair, i, j, *maps)))
        found.sort(key=lambda entry: -entry[0])
        chosen += [ranked for _, ranked in found[:n_top]]
    return chosen


def entangled_table(
    chosen: Sequence[RankedPair],
    ksg: Sequence[float | None],
    layers: Sequence[LayerResult],
    arrays: Arrays,
    n_layer_pairs: int,
) -> EntangledTable:
    """Everything known of each chosen pair.

    The table shows the largest values of all layer pairs, so each p-value is corrected twice: within its
    layer pair (the largest value of each permutation), and for the number of layer pairs (Bonferroni).
    """
    copies = {layer["name"]: layer["duplicate_groups"] for layer in layers}
    rows: list[EntangledPair] = []
    ranks = {False: 0, True: 0}
    for ranked, estimate in zip(chosen, ksg, strict=True):
        pair = ranked.pair
        within = pair["within"]
        ranks[within] += 1
        at = ranked.row, ranked.column
        tests = _entries(arrays[pair["mutual_info"]["arrays"]], at)
        cosines = _entries(arrays[pair["cosine"]["arrays"]], at)
        rows.append(
            {
                "rank": ranks[within],
                "layer_a": pair["layer_a"],
                "map_a": ranked.map_a,
                "layer_b": pair["layer_b"],
                "map_b": ranked.map_b,
                "within": within,
                "duplicate": within
                and any({ranked.map_a, ranked.map_b} <= set(group) for group in copies[pair["layer_a"]]),
                "mutual_info": tests["values"],
                "ksg": estimate,
                "pvalue": tests["pvalues"],
                "qvalue": tests["qvalues"],
                "max_pvalue": tests["max_pvalues"],
                "selection_pvalue": min(1.0, tests["max_pvalues"] * n_layer_pairs),
                "cosine_raw": cosines["cosine_raw"],
                "cosine_centred": cosines["cosine_centred"],
            }
        )
    return {"n_layer_pairs": n_layer_pairs, "rows": rows}


def _entries(tables: Mapping[str, Array], at: tuple[int, int]) -> dict[str, float]:
    """One entry of every table of a layer pair."""
    return {name: float(table[at]) for name, table in tables.items() if table.ndim == 2}
