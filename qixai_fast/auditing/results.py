"""What an audit leaves behind: the schema of ``results.json`` and of the arrays beside it.

``results.json`` is strict JSON: no NaN, no infinity. Where a number does not exist, the field is
null. Everything in it is the same for the same data, plan and seed; what differs from run to run
(seconds, dates, paths) is in ``timings.json``.

Mutual information and entropies are in nats. Maps (features, channels, units of a layer) are
counted from 0. "Layer pair" means two layers, or one layer with itself (``within``).

Arrays
------
Every ``arrays`` field below is the stem of an ``.npz`` file beside ``results.json``. A and B are the
numbers of maps compared in a layer pair (``n_maps_a``, ``n_maps_b``), d the maps of a layer, k its
components, m at most 2,000 samples.

``layer_*`` (:class:`LayerResult`)
    ``explained_variance_ratio`` (k,); ``components`` (k, d): unit rows; ``loadings`` (k, d): correlation
    of each map with each component's scores, in [-1, 1], 0 for constant maps; ``error_bound`` (k,):
    relative error bound of each singular value; ``mean`` (d,), ``std`` (d,), ``zero_fraction`` (d,);
    ``scores`` (m, 2): scores of some samples on the first two components (zeros where there is only
    one); ``score_samples`` (m,) int64: their rows in the store; ``score_labels`` (m,) int64: index into
    ``store.class_names``, -1 where the store has no classes.
``relation_*`` (:class:`CosineResult`, :class:`CKAResult`, :class:`SchmidtResult`)
    ``maps_a`` (A,), ``maps_b`` (B,) int64: the maps compared; ``cosine_raw``, ``cosine_centred``,
    ``cosine_raw_null``: each (A, B), the last what random pairing of samples gives on average;
    between two layers whose CKA is significant also ``schmidt_spectrum`` (modes,).
``mutual_info_*`` (:class:`MutualInfoResult`)
    ``maps_a`` (A,), ``maps_b`` (B,) int64; ``values``, ``null_mean``, ``pvalues``, ``qvalues``,
    ``max_pvalues``: each (A, B). Within one layer they are symmetric, NaN on the diagonal.
``labels_*`` (:class:`LayerLabels`)
    ``values``, ``binned`` (the estimate behind the p-values, nats), ``pvalues``, ``qvalues``,
    ``max_pvalues``: each (d,).
``attributions`` (:class:`AttributionSection`)
    ``inputs_0``, ``values_0`` (n, ...): the sampled inputs and their attributions, float32;
    ``inputs_1``, ``values_1`` and so on for models of several inputs; ``sample`` (n,) int64;
    ``delta`` (n,), ``stability`` (n,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from .._validate import Array

SCHEMA_VERSION = 1

Section = Literal["spectrum", "maps", "similarity", "entanglement", "labels", "attributions"]
Arrays = Mapping[str, Mapping[str, Array]]


class StoreSummary(TypedDict):
    """Which activations were audited."""

    checksum: str  # the store's own digest of its data
    n_samples: int
    layers: list[str]  # those audited, in capture order
    n_classes: int | None  # None without labels, or where labels are not classes
    class_names: list[str] | None  # one a class, as score_labels counts them; None without classes
    metadata: dict[str, Any]  # what the writer of the store noted: model name and so on


class Loading(TypedDict):
    """How strongly one map takes part in one component."""

    map: int
    loading: float  # correlation of the map with the component's scores, -1 to 1
    weight: float  # squared entry of the component, 0 to 1: the map's share of the direction


class Component(TypedDict):
    """One principal component of a layer."""

    index: int  # from 0
    explained_variance_ratio: float  # share of the layer's variance, 0 to 1
    cumulative: float  # this and all components before it, 0 to 1
    top_maps: list[Loading]  # at most 5, largest weight first


class LayerResult(TypedDict):
    """Spectrum and state of one layer."""

    name: str
    arrays: str
    n_samples: int
    n_maps: int
    dtype: str  # on disk
    source_dtype: str  # what the network computed
    reduction: str  # how activations became one number a map
    total_variance: float  # summed over maps, squared units of the activations
    components: list[Component]
    n_components_90: int | None  # components that explain 90 %; None where more than were computed
    effective_rank: float | None  # exp(von_neumann_entropy): directions in use, mean included
    von_neumann_entropy: float | None  # nats, of samples as unit-norm states; None where all are zero
    von_neumann_entropy_max: float  # ln min(n_samples, n_maps), nats
    purity: float | None  # tr rho^2, 1 / n_maps to 1
    n_zero_samples: int  # all-zero samples, which have no direction: left out of entropy and purity
    zero_fraction: float  # exact zeros among all values, 0 to 1
    dead_maps: list[int]  # zero for every sample
    constant_maps: list[int]  # the same non-zero value for every sample
    duplicate_groups: list[list[int]]  # maps equal up to scale and shift


class CosineResult(TypedDict):
    """Cosines between maps. The null pairs every sample of one layer with a random one of the other.

    The null's mean and standard deviation over all permutations are exact closed forms; the threshold
    is a quantile of the largest value over random permutations.
    """

    arrays: str
    n_pairs: int  # i < j within one layer
    raw_median: float
    raw_null_median: float  # what random pairing gives: well above 0 for positive activations
    centred_median_abs: float
    centred_max_abs: float
    centred_null_sd: float  # 1 / sqrt(n_samples - 1); the null's mean is 0
    centred_threshold: (
        float  # |centred cosine| beyond which a pair differs from the null (5 % over all pairs)
    )
    n_beyond_threshold: int


class CKAResult(TypedDict):
    """Linear centred kernel alignment of two layers, 0 to 1, beside its permutation null."""

    value: float  # all samples
    debiased: float  # of unbiased estimates: near 0 for unrelated layers, may be negative
    null_mean: float  # over all pairings of the samples, exact
    null_q95: float  # 95 % of pairings give less (gamma approximation from the exact mean and spread)
    pvalue: float  # (1 + b) / (1 + n_permutations)
    n_permutations: int
    n_samples_tested: int  # the test draws samples where there are more than plan.null_samples
    tested_value: float  # CKA of those samples
    significant: bool  # pvalue <= plan.alpha


class SchmidtResult(TypedDict):
    """How many modes share the dependence of two layers (not how strong it is: see CKA)."""

    entropy: float  # entanglement entropy, nats
    entropy_max: float  # ln of the number of modes, nats
    effective_modes: float  # exp(entropy)
    spectrum: list[float]  # the largest 10, each mode's share, 0 to 1


class MutualInfoResult(TypedDict):
    """Binned mutual information between the maps of a layer pair, bias corrected, nats."""

    arrays: str
    n_pairs: int  # i < j within one layer
    n_bins: int
    n_permutations: int
    n_samples_tested: int  # p-values and null are those of drawn samples where there are more
    mean: float
    median: float
    max: float
    null_mean: float  # mean over pairs under random pairing: near 0 where bias is corrected
    n_q_below_alpha: int  # pairs with Benjamini-Hochberg q-value <= plan.alpha
    n_max_p_below_alpha: int  # pairs with family-wise (max-statistic) p-value <= plan.alpha
    distinguishable: bool  # whether any pair is, by the family-wise p-value


class PairResult(TypedDict):
    """Two layers, or one layer with itself."""

    layer_a: str
    layer_b: str
    within: bool  # layer_a is layer_b
    n_maps_a: int  # maps compared: at most plan.max_maps, those of largest variance
    n_maps_b: int
    cosine: CosineResult
    cka: CKAResult | None  # None within one layer
    schmidt: SchmidtResult | None  # None within one layer, and where CKA is not significant
    mutual_info: MutualInfoResult


class EntangledPair(TypedDict):
    """One row of the table of most entangled maps."""

    rank: int  # from 1, among pairs between layers or within layers
    layer_a: str
    map_a: int
    layer_b: str
    map_b: int
    within: bool
    duplicate: bool  # both maps are in one duplicate group
    mutual_info: float  # binned, bias corrected, nats
    ksg: float | None  # KSG estimate with atoms split off, nats
    pvalue: float  # permutation p-value of this pair alone
    qvalue: float  # Benjamini-Hochberg, over the layer pair
    max_pvalue: float  # family-wise, over the layer pair
    selection_pvalue: (
        float  # max_pvalue times the number of layer pairs, at most 1: accounts for the choice of the largest
    )
    cosine_raw: float
    cosine_centred: float


class EntangledTable(TypedDict):
    """The most entangled pairs of maps: between layers first, then within layers."""

    n_layer_pairs: int  # the families that selection_pvalue accounts for
    rows: list[EntangledPair]


class LabelMap(TypedDict):
    """What one map knows of the class."""

    map: int
    mutual_info: float  # nats
    fraction: float  # of the label entropy
    pvalue: float
    qvalue: float
    max_pvalue: float  # family-wise over the layer's maps


class LayerLabels(TypedDict):
    """Mutual information of each map of a layer with the class labels (Ross 2014), nats.

    The p-values shuffle labels, on a binned estimate with the plan's bins.
    """

    layer: str
    arrays: str
    mean: float
    median: float
    max: float
    n_permutations: int
    n_samples_tested: int  # p-values are those of drawn samples where there are more
    n_max_p_below_alpha: int
    best: list[LabelMap]  # at most 10, most informative first


class LabelSection(TypedDict):
    """Mutual information with class labels."""

    n_classes: int
    label_entropy: float  # nats: no map can know more
    layers: list[LayerLabels]


class AttributedSample(TypedDict):
    """Integrated gradients of one input."""

    sample: int  # row in the inputs
    target: int | None  # output explained; None for models with one output
    label: int | str | None  # the store's label, where inputs and store have the same samples
    output: float  # model output at the target
    delta: float | None  # sum of attributions minus (output - output at baseline); 0 is complete
    relative_delta: float | None  # |delta| / |output - output at baseline|
    n_steps: int
    converged: bool  # delta and refinement both within tol
    stability: float  # mean cosine with the attributions of noisy copies of the input, -1 to 1


class AttributionSection(TypedDict):
    """Integrated gradients of sampled inputs, from a zero baseline."""

    arrays: str
    n_inputs: int  # inputs to choose from
    method: str
    tol: float
    noise: float  # standard deviation of the noise over that of the inputs
    samples: list[AttributedSample]
    n_converged: int
    n_stable: int  # stability at least plan.min_stability
    median_stability: float
    median_relative_delta: float | None


class Finding(TypedDict):
    """One section's result in plain words."""

    section: Section
    text: str


class AuditWarning(TypedDict):
    """Something that limits what the numbers can be used for."""

    code: str  # see auditing/checks.py
    layers: list[str]
    text: str
    what_to_do: str


class Results(TypedDict):
    """All of ``results.json``."""

    schema_version: int
    package_version: str
    random_state: int
    plan: dict[str, Any]  # every field of AuditPlan that bears on results, as used
    plan_file: str  # the same as TOML with the seed: on the same store, it gives the same numbers
    store: StoreSummary
    reading: list[str]  # the short version: a few sentences
    findings: list[Finding]  # one a section that was computed, in page order
    warnings: list[AuditWarning]
    skipped: dict[str, str]  # section -> why it was left out
    layers: list[LayerResult]
    pairs: list[PairResult]  # between layers (a before b) first, then within
    entangled: EntangledTable
    labels: LabelSection | None
    attributions: AttributionSection | None


@dataclass(frozen=True)
class AuditReport:
    """What :func:`qixai_fast.audit` returns.

    Attributes
    ----------
    results : dict
        The content of ``results.json`` (:class:`Results`).
    arrays : mapping
        File stem -> array name -> array, the content of the ``.npz`` files.
    timings : dict
        The content of ``timings.json``: all that differs from run to run.
    out : Path or None
        The directory written; None where nothing was.
    html : Path or None
        ``report.html`` in it.
    """

    results: Results
    arrays: Arrays = field(repr=False)
    timings: dict[str, Any] = field(repr=False)
    out: Path | None = None
    html: Path | None = None

    @property
    def reading(self) -> list[str]:
        """The short version, a few sentences."""
        return self.results["reading"]

    @property
    def warnings(self) -> list[AuditWarning]:
        """What limits the use of the numbers."""
        return self.results["warnings"]
