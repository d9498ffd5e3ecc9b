"""One layer by itself: its spectrum, its maps, and what its maps know of the class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._memory import parse_memory, workers_within
from .._moment_measures import cosines_of, spectrum_of
from .._validate import Array, Float64, Matrix
from ..similarity import cosine_similarity
from ..spectra import PCAResult, pca
from ..statistics import leaf_bounds, reduce_rows
from .context import AuditContext, draw_rows
from .files import Stage
from .layer_state import entropy_and_purity
from .memory import take_rows

# What the stage reads of the plan: part of its key.
LAYER_FIELDS = ("n_components",)

_SCORED_SAMPLES = 2000
_TOP_MAPS = 5
_SAME_MAP = (
    1 - 1e-6
)  # cosine of centred maps from which they count as copies: they differ by 0.15 % of their spread
_TILE = 1024


@dataclass
class _Maps:
    """What one read of a layer tells of each map."""

    n: int
    mean: Float64
    squares: Float64  # centred sums of squares
    zeros: npt.NDArray[np.int64]
    low: Float64
    high: Float64
    zero_rows: int


class _MapSummary:
    """Mean, spread, range and exact zeros of each map; all-zero samples."""

    def chunk(self, blocks: Sequence[Float64]) -> _Maps:
        block = blocks[0]
        zero = block == 0.0
        mean = block.mean(axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = ((block - mean) ** 2).sum(axis=0)
        return _Maps(
            len(block),
            mean,
            squares,
            zero.sum(axis=0),
            block.min(axis=0),
            block.max(axis=0),
            int(zero.all(axis=1).sum()),
        )

    def combine(self, first: _Maps, second: _Maps) -> _Maps:
        n = first.n + second.n
        gap = second.mean - first.mean
        return _Maps(
            n,
            first.mean + gap * (second.n / n),
            first.squares + second.squares + gap**2 * (first.n * second.n / n),
            first.zeros + second.zeros,
            np.minimum(first.low, second.low),
            np.maximum(first.high, second.high),
            first.zero_rows + second.zero_rows,
        )


def map_summary(matrix: Matrix, workers: int) -> _Maps:
    """One read of a layer."""
    return reduce_rows(_MapSummary(), [matrix], workers)


def summarize_maps(context: AuditContext, layer: str) -> _Maps:
    """Read a layer once. Also the first look at its values: NaN and inf are named here."""
    matrix = context.matrix(layer)
    start, stop = leaf_bounds([matrix])[0]
    leaf = 8 * (stop - start) * matrix.n_features
    workers = workers_within(
        parse_memory(context.plan.max_memory),
        context.workers(),
        fixed=64 * 64 * matrix.n_features,
        per_worker=4 * leaf,
        work=f"a summary of {matrix.name}",
    )
    maps = map_summary(matrix, workers)
    if not np.isfinite(maps.squares).all():
        column = int(np.argmin(np.isfinite(maps.squares)))
        raise ValueError(
            f"{matrix.name}: the squares of map {column} overflow float64; capture it on a smaller scale"
        )
    return maps


def layer_stage(context: AuditContext, layer: str, rng: np.random.Generator) -> Stage:
    """Spectrum and state of one layer: :class:`LayerResult` without name and file."""
    maps = summarize_maps(context, layer)
    info = context.store.info[layer]
    data = context.store[layer]
    n, d = data.shape
    varying = maps.low < maps.high
    std = np.where(varying, np.sqrt(maps.squares / (n - 1)), 0.0)
    k, seed = min(n, d, context.plan.n_components), _seed(rng)
    held = context.moments.products(layer, layer)
    if held is None:
        spectrum = pca(data, k, random_state=seed, **context.options())
    else:
        spectrum = spectrum_of(held[0], held[1], k)
    ratio = np.nan_to_num(np.asarray(spectrum.explained_variance_ratio, dtype=np.float64))
    components = np.asarray(spectrum.components, dtype=np.float64)
    spread = np.sqrt(np.maximum(np.asarray(spectrum.explained_variance, dtype=np.float64), 0.0))
    loadings = components * spread[:, None] / np.where(varying, std, 1.0)
    loadings = np.clip(np.where(varying, loadings, 0.0), -1.0, 1.0)
    reached = np.flatnonzero(np.cumsum(ratio) >= 0.9)
    rows = draw_rows(n, _SCORED_SAMPLES, rng)
    result = {
        "n_samples": n,
        "n_maps": d,
        "dtype": info.dtype,
        "source_dtype": info.source_dtype,
        "reduction": info.reduction,
        "total_variance": float(spectrum.total_variance),
        "components": _components(ratio, components, loadings),
        "n_components_90": int(reached[0]) + 1 if len(reached) else None,
        **_state(context, layer, maps),
        "n_zero_samples": maps.zero_rows,
        "zero_fraction": float(maps.zeros.sum() / (n * d)),
        "dead_maps": np.flatnonzero(maps.zeros == n).tolist(),
        "constant_maps": np.flatnonzero(~varying & (maps.zeros < n)).tolist(),
        "duplicate_groups": _duplicates(context, layer, np.flatnonzero(varying)),
    }
    arrays: dict[str, Array] = {
        "explained_variance_ratio": ratio,
        "components": components,
        "loadings": loadings,
        "error_bound": np.asarray(spectrum.error_bound, dtype=np.float64),
        "mean": maps.mean,
        "std": std,
        "zero_fraction": maps.zeros / n,
        "scores": _scores(spectrum, take_rows(data, rows)),
        "score_samples": rows,
        "score_labels": np.full(len(rows), -1) if context.classes is None else context.classes.codes[rows],
    }
    return result, arrays


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _components(ratio: Float64, components: Float64, loadings: Float64) -> list[dict[str, Any]]:
    listed = []
    for index, (share, cumulative) in enumerate(zip(ratio, np.cumsum(ratio), strict=True)):
        weights = components[index] ** 2
        top = np.argsort(-weights, kind="stable")[:_TOP_MAPS]
        listed.append(
            {
                "index": index,
                "explained_variance_ratio": float(share),
                "cumulative": float(min(cumulative, 1.0)),
                "top_maps": [
                    {"map": int(j), "loading": float(loadings[index, j]), "weight": float(weights[j])}
                    for j in top
                ],
            }
        )
    return listed


def _scores(spectrum: PCAResult, samples: Array) -> Float64:
    scores = np.asarray(spectrum.transform(np.ascontiguousarray(samples)), dtype=np.float64)[:, :2]
    return np.pad(scores, ((0, 0), (0, 2 - scores.shape[1])))


def _state(context: AuditContext, layer: str, maps: _Maps) -> dict[str, float | None]:
    """Entropy and purity of the samples as unit-norm states, over samples that have a direction."""
    n, d = context.store[layer].shape
    entropy = mixedness = rank = None
    if maps.zero_rows < n:
        zero_samples = "drop" if maps.zero_rows else "raise"
        entropy, mixedness = entropy_and_purity(
            context.matrix(layer), zero_samples=zero_samples, **context.options()
        )
        rank = math.exp(entropy)  # as effective_rank, without another read
    return {
        "effective_rank": rank,
        "von_neumann_entropy": entropy,
        "von_neumann_entropy_max": float(np.log(min(n, d))),
        "purity": mixedness,
    }


def _duplicates(context: AuditContext, layer: str, varying: npt.NDArray[np.int64]) -> list[list[int]]:
    """Groups of maps that are copies of each other up to positive scale and shift, found tile by tile."""
    group = np.arange(context.store[layer].shape[1])
    held = context.moments.products(layer, layer)
    starts = range(0, len(varying), _TILE)
    for first in starts:
        rows = varying[first : first + _TILE]
        for second in (start for start in starts if start >= first):
            columns = varying[second : second + _TILE]
            if held is None:
                pair = None if second == first else context.columns(layer, columns)
                cosines = cosine_similarity(
                    context.columns(layer, rows), pair, axis=0, center=True, **context.options()
                )
            else:
                cosines = cosines_of(*held, (rows, columns), center=True)
            for i, j in np.argwhere(np.asarray(cosines) >= _SAME_MAP):
                a, b = group[rows[i]], group[columns[j]]
                group[group == max(a, b)] = min(a, b)
    members: dict[int, list[int]] = {}
    for index in varying:
        members.setdefault(int(group[index]), []).append(int(index))
    return [found for found in members.values() if len(found) > 1]
