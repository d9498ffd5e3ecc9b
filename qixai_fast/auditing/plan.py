"""What an audit computes: pure data, checked when it is made."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .._memory import parse_memory
from .._threads import resolve_n_jobs
from .._validate import check_choice, check_int
from ..errors import StoreError
from ..store import ActivationStore
from .results import AuditWarning

_CORRECTIONS = (None, "miller-madow", "panzeri-treves", "grassberger", "permutation-mean")
_SAMPLES_A_CELL = 5
_FEWEST_SAMPLES = 4  # for the null of CKA
_MOST_PERMUTATIONS = 9999


@dataclass(frozen=True, kw_only=True)
class AuditPlan:
    """What to compute, and how closely.

    Parameters
    ----------
    layers : sequence of str, optional
        Layers of the store to audit; None for all that hold one number a map and sample.
    pairs : sequence of (str, str), optional
        Pairs of these layers to compare, the same layer twice for the maps within it; None for all.
    n_components : int
        Principal components a layer, at most; fewer where a layer has fewer maps or samples.
    n_bins : int, optional
        Bins an axis for mutual information; None for as many as leave 5 samples a cell, 4 to 16.
    strategy : {"quantile", "uniform"}
        Bin edges. Quantile bins suit activations after a ReLU: the zeros share one bin, and the
        long tail does not leave bins empty.
    bias_correction : str or None
        As in :func:`qixai_fast.mutual_info_binned`. ``"permutation-mean"`` subtracts what randomly paired
        samples give.
    n_permutations : int, optional
        Random pairings behind every null and p-value; None for enough that the strongest pair of
        all layer pairs can reach half of ``alpha`` after correction for its selection, at least 199.
    alpha : float
        Significance level.
    n_top_pairs : int
        Rows of the table of most entangled maps, between layers and again within layers. These pairs get
        a KSG estimate.
    n_neighbors : int
        Neighbours for the KSG and label estimates.
    max_maps : int
        Maps compared in a pair of layers, at most: those of largest variance in wider layers. Spectrum, CKA
        and labels use all maps.
    null_samples : int
        Samples, at most, drawn for the permutation tests of CKA and cosines.
    test_samples : int
        Samples, at most, drawn for the permutation tests of mutual information; its values come from all.
    n_attributions : int
        Inputs to attribute; 0 for none.
    n_steps, max_n_steps : int
        Equal intervals of a path that integrated gradients begin with, and steps at most. Each interval takes
        three gradients and is split where ``tol`` asks for it, so few to begin with cost least.
    tol : float
        Completeness and refinement that integrated gradients refine towards, relative.
    stability_noise : float
        Standard deviation of the noise on inputs, over that of the sampled inputs, for the stability of
        attributions.
    n_noise : int
        Noisy copies of an input.
    min_stability : float
        Mean cosine with the attributions of noisy copies from which an attribution counts as stable.
    min_explained_variance : float
        Share of variance below which the components of a layer are said to explain little.
    max_memory : int or str, optional
        Bytes, or text such as "2GB", for every engine's own allocations.
    n_jobs : int, optional
        Threads; None for all cores.
    random_state : int, optional
        Seed of everything drawn; None leaves it to :func:`qixai_fast.audit`.

    Raises
    ------
    TypeError, ValueError
        For a value out of range, naming the field.

    Examples
    --------
    >>> AuditPlan(n_components=5, n_permutations=999).n_components
    5
    >>> AuditPlan(n_bins=1)
    Traceback (most recent call last):
        ...
    ValueError: n_bins: wanted at least 2, got 1
    """

    layers: Sequence[str] | None = None
    pairs: Sequence[tuple[str, str]] | None = None
    n_components: int = 20
    n_bins: int | None = None
    strategy: str = "quantile"
    bias_correction: str | None = "permutation-mean"
    n_permutations: int | None = None
    alpha: float = 0.05
    n_top_pairs: int = 20
    n_neighbors: int = 3
    max_maps: int = 256
    null_samples: int = 2000
    test_samples: int = 10000
    n_attributions: int = 16
    n_steps: int = 5
    max_n_steps: int = 1350
    tol: float = 0.05
    stability_noise: float = 0.05
    n_noise: int = 4
    min_stability: float = 0.9
    min_explained_variance: float = 0.7
    max_memory: int | str | None = None
    n_jobs: int | None = None
    random_state: int | None = None

    def __post_init__(self) -> None:
        if self.layers is not None:
            object.__setattr__(self, "layers", _layer_names(self.layers))
        if self.pairs is not None:
            object.__setattr__(self, "pairs", _layer_pairs(self.pairs))
        if self.random_state is not None:
            object.__setattr__(self, "random_state", check_int(self.random_state, "random_state", low=0))
        for name, low in _LOWEST.items():
            value = getattr(self, name)
            if value is not None or name not in ("n_bins", "n_permutations"):
                object.__setattr__(self, name, check_int(value, name, low=low))
        for name, (above, below) in _OPEN_RANGES.items():
            object.__setattr__(self, name, _fraction(getattr(self, name), name, above, below))
        check_choice(self.strategy, "strategy", ("quantile", "uniform"))
        check_choice(self.bias_correction, "bias_correction", _CORRECTIONS)
        if self.max_n_steps < 3 * self.n_steps:
            raise ValueError(
                f"max_n_steps: refinement starts with 3 * n_steps, so wanted at least {3 * self.n_steps}, "
                f"got {self.max_n_steps}"
            )
        parse_memory(self.max_memory)
        resolve_n_jobs(self.n_jobs)

    def some(self, names: Sequence[str]) -> dict[str, Any]:
        """A few fields by name: those that one stage depends on."""
        return {name: getattr(self, name) for name in names}

    def result_fields(self) -> dict[str, Any]:
        """Every field that bears on results: all but memory, threads and the seed, which stands beside."""
        fields = asdict(self)
        del fields["max_memory"], fields["n_jobs"], fields["random_state"]
        if self.layers is not None:
            fields["layers"] = list(self.layers)
        if self.pairs is not None:
            fields["pairs"] = [list(pair) for pair in self.pairs]
        return fields


_LOWEST = {
    "n_components": 1,
    "n_bins": 2,
    "n_permutations": 1,
    "n_top_pairs": 0,
    "n_neighbors": 1,
    "max_maps": 2,
    "null_samples": 8,
    "test_samples": 8,
    "n_attributions": 0,
    "n_steps": 1,
    "max_n_steps": 1,
    "n_noise": 1,
}
_OPEN_RANGES = {
    "alpha": (0.0, 1.0),
    "tol": (0.0, math.inf),
    "stability_noise": (0.0, math.inf),
    "min_stability": (-1.0, 1.0),
    "min_explained_variance": (0.0, 1.0),
}


def _layer_names(layers: Any) -> tuple[str, ...]:
    listed = isinstance(layers, Iterable) and not isinstance(layers, (str, bytes, Mapping))
    if not listed or not all(isinstance(name, str) for name in layers):
        raise TypeError(f"layers: wanted a list of layer names or None, got {layers!r}")
    names = tuple(layers)
    if not names:
        raise ValueError("layers: wanted at least one layer name, got none; leave layers=None for all")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"layers: {', '.join(map(repr, repeated))} named more than once")
    return names


def _layer_pairs(pairs: Any) -> tuple[tuple[str, str], ...]:
    wanted = "wanted a list of pairs of layer names or None"
    if isinstance(pairs, (str, bytes, Mapping)) or not isinstance(pairs, Iterable):
        raise TypeError(f"pairs: {wanted}, got {pairs!r}")
    found: list[tuple[str, str]] = []
    for pair in pairs:
        two = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not two or not all(isinstance(name, str) for name in pair):
            raise TypeError(f"pairs: {wanted}, got {pair!r} in it")
        if (pair[0], pair[1]) in found or (pair[1], pair[0]) in found:
            raise ValueError(f"pairs: {pair[0]!r} and {pair[1]!r} named more than once")
        found.append((pair[0], pair[1]))
    if not found:
        raise ValueError("pairs: wanted at least one pair of layers, got none; leave pairs=None for all")
    return tuple(found)


def _fraction(value: Any, name: str, above: float, below: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: wanted a number, got {type(value).__name__}") from None
    if isinstance(value, (bool, str)):
        raise TypeError(f"{name}: wanted a number, got {type(value).__name__}")
    if not above < number < below:
        wanted = f"above {above:g}" if below == math.inf else f"between {above:g} and {below:g}"
        raise ValueError(f"{name}: wanted a number {wanted}, got {number}")
    return number


def resolve_plan(plan: AuditPlan, store: ActivationStore) -> tuple[AuditPlan, list[AuditWarning]]:
    """Fill in what depends on the data: layers and pairs (in capture order), bins, permutations.

    Returns
    -------
    plan : AuditPlan
        With nothing left to choose.
    warnings : list
        One for the layers that were left out because they were captured without a reduction.

    Raises
    ------
    StoreError
        For a store without samples, or without a layer to audit.
    ValueError
        For unknown layer names, layers captured without a reduction, fewer than 2 samples or too few
        for ``n_neighbors``.
    """
    if store.n_samples == 0:
        raise StoreError(f"{store.location}: the store holds no complete sample yet; capture some first")
    least = max(_FEWEST_SAMPLES, plan.n_neighbors + 2)
    if store.n_samples < least:
        raise ValueError(
            f"store: {store.n_samples} sample(s) are too few to audit with n_neighbors={plan.n_neighbors}; "
            f"wanted at least {least}"
        )
    names = list(store) if plan.layers is None else _known(plan.layers, list(store))
    unreduced = [name for name in names if len(store.info[name].shape) != 2]
    warnings: list[AuditWarning] = []
    if unreduced:
        shapes = ", ".join(f"{name} {tuple(store.info[name].shape)}" for name in unreduced)
        mend = "Capture again with a reduction for these layers, such as reduce='gap' or 'flatten'."
        if plan.layers is not None or len(unreduced) == len(names):
            raise ValueError(f"layers: an audit needs one number a map and sample, and has {shapes}. {mend}")
        warnings.append(
            {
                "code": "layer_not_audited",
                "layers": unreduced,
                "text": f"Captured without a reduction, so not audited: {shapes}.",
                "what_to_do": mend,
            }
        )
        names = [name for name in names if name not in unreduced]
    widths = {name: store[name].shape[1] for name in names}
    pairs = None if plan.pairs is None else _known_pairs(plan.pairs, names, widths)
    families = len(names) * (len(names) + 1) // 2 if pairs is None else len(pairs)
    return (
        replace(
            plan,
            layers=names,
            pairs=pairs,
            n_bins=_bins(store.n_samples) if plan.n_bins is None else plan.n_bins,
            n_permutations=(
                min(_MOST_PERMUTATIONS, max(199, math.ceil(2 * families / plan.alpha) - 1))
                if plan.n_permutations is None
                else plan.n_permutations
            ),
        ),
        warnings,
    )


def _known(wanted: Sequence[str], present: list[str]) -> list[str]:
    for name in wanted:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=3, cutoff=0.0)
            raise ValueError(f"layers: the store has no layer {name!r}; the nearest are {', '.join(near)}")
    return [name for name in present if name in wanted]


def _known_pairs(
    wanted: Sequence[tuple[str, str]], names: Sequence[str], widths: Mapping[str, int]
) -> list[tuple[str, str]]:
    """Pairs in the order of the layers, those between layers first; ``widths`` are the layers' maps."""
    for pair in wanted:
        for name in pair:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
                raise ValueError(f"pairs: no layer {name!r} is audited; the nearest are {', '.join(near)}")
        if pair[0] == pair[1] and widths[pair[0]] < 2:
            raise ValueError(f"pairs: layer {pair[0]!r} has one map, so no pairs within it")
    places = [sorted(names.index(name) for name in pair) for pair in wanted]
    return [(names[i], names[j]) for i, j in sorted(places, key=lambda pair: (pair[0] == pair[1], pair))]


def _bins(n_samples: int) -> int:
    return min(16, max(4, math.isqrt(n_samples // _SAMPLES_A_CELL)))
