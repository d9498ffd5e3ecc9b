"""Warnings: what limits the use of an audit's numbers, and what can be done about it.

Codes: ``low_explained_variance``, ``mutual_information_indistinguishable`` and ``unstable_attributions``
are the three failures that the QIXAI paper (arXiv 2410.16537) tells of; then ``dead_maps``,
``constant_maps``, ``duplicate_maps``, ``too_few_samples``, ``too_few_permutations``,
``unmoved_output``, ``attributions_not_converged``, and ``layer_not_audited``, which
:mod:`qixai_fast.auditing.plan` gives.
"""

from __future__ import annotations

from collections.abc import Iterator

from .plan import AuditPlan
from .results import AttributionSection, AuditWarning, LabelSection, LayerResult, PairResult, Results
from .words import count, listing, percent

# Fewer samples a map than this, and the spectrum of pure noise already looks structured: its largest
# eigenvalue is (1 + sqrt(d / n))^2 times the mean one, 2.1 times at 5 samples a map.
_SAMPLES_A_MAP = 5
_SAMPLES_A_CELL = 5


def find_warnings(results: Results, plan: AuditPlan) -> list[AuditWarning]:
    """All warnings that finished results call for, in page order."""
    found: list[AuditWarning] = []
    for layer in results["layers"]:
        found += _layer_warnings(layer, plan)
    found += _pair_warnings(results["pairs"], plan)
    if results["labels"] is not None:
        found += _label_warnings(results["labels"])
    if results["attributions"] is not None:
        found += _attribution_warnings(results["attributions"], plan)
    return found


def _warning(code: str, layers: list[str], text: str, what_to_do: str) -> AuditWarning:
    return {"code": code, "layers": layers, "text": text, "what_to_do": what_to_do}


def _layer_warnings(layer: LayerResult, plan: AuditPlan) -> Iterator[AuditWarning]:
    name, d, n = layer["name"], layer["n_maps"], layer["n_samples"]
    explained = layer["components"][-1]["cumulative"]
    if layer["total_variance"] > 0 and explained < plan.min_explained_variance:
        yield _warning(
            "low_explained_variance",
            [name],
            f"The first {len(layer['components'])} components of {name} explain {percent(explained)} of its "
            "variance.",
            "Do not read single components as what the layer does; compute more of them "
            "(AuditPlan(n_components=...)) or compare maps directly.",
        )
    if layer["dead_maps"]:
        yield _warning(
            "dead_maps",
            [name],
            f"{len(layer['dead_maps'])} of {d} maps of {name} are zero for every sample: "
            f"{listing(layer['dead_maps'])}.",
            "They carry nothing for these inputs: leave them out, and check initialisation, learning rate "
            "and whether the inputs cover what the network was trained on.",
        )
    if layer["constant_maps"]:
        yield _warning(
            "constant_maps",
            [name],
            f"{len(layer['constant_maps'])} of {d} maps of {name} have the same value for every sample: "
            f"{listing(layer['constant_maps'])}.",
            "They tell samples apart no more than dead maps do: leave them out.",
        )
    if layer["duplicate_groups"]:
        groups = "; ".join(listing(group) for group in layer["duplicate_groups"][:5])
        more = len(layer["duplicate_groups"]) - 5
        yield _warning(
            "duplicate_maps",
            [name],
            f"Maps of {name} that are copies of each other up to scale and shift: {groups}"
            + (f"; and {count(more, 'more group')}." if more > 0 else "."),
            "Count each group once: its pairs are entangled by construction.",
        )
    if n < _SAMPLES_A_MAP * d:
        yield _warning(
            "too_few_samples",
            [name],
            f"{name} has {d} maps and {count(n, 'sample')}: its spectrum and CKA lean towards structure.",
            f"Capture at least {_SAMPLES_A_MAP * d} samples, or reduce the layer further "
            "(such as 'gap' in place of 'flatten').",
        )


def _pair_warnings(pairs: list[PairResult], plan: AuditPlan) -> Iterator[AuditWarning]:
    assert plan.n_permutations is not None, "resolve_plan fills it in"
    assert plan.n_bins is not None, "resolve_plan fills it in"
    least = 1 / (1 + plan.n_permutations)
    if pairs and least * len(pairs) > plan.alpha:
        yield _warning(
            "too_few_permutations",
            [],
            f"{count(plan.n_permutations, 'permutation')} give no p-value below {least:.2g}: the strongest "
            f"of {count(len(pairs), 'layer pair')} cannot be significant at {plan.alpha:g} after correction.",
            f"Use AuditPlan(n_permutations={int(len(pairs) / plan.alpha)}) or more, or None: then the audit "
            "chooses.",
        )
    silent = [pair for pair in pairs if not pair["mutual_info"]["distinguishable"]]
    if silent and least <= plan.alpha:
        names = [
            f"within {pair['layer_a']}"
            if pair["within"]
            else f"between {pair['layer_a']} and {pair['layer_b']}"
            for pair in silent
        ]
        layers = dict.fromkeys(name for pair in silent for name in (pair["layer_a"], pair["layer_b"]))
        total = sum(pair["mutual_info"]["n_pairs"] for pair in silent)
        yield _warning(
            "mutual_information_indistinguishable",
            list(layers),
            "No pair of maps shares more information than samples paired at random do: "
            f"{listing(names)} ({count(total, 'pair')}).",
            "Read nothing into these values, the largest included; more samples show weaker dependence.",
        )


def _label_warnings(labels: LabelSection) -> Iterator[AuditWarning]:
    silent = [layer["layer"] for layer in labels["layers"] if layer["n_max_p_below_alpha"] == 0]
    if silent:
        yield _warning(
            "mutual_information_indistinguishable",
            silent,
            f"No map of {listing(silent)} knows more of the class than shuffled labels give.",
            "Read nothing into these values; check that labels and samples are in the same order.",
        )


def _attribution_warnings(section: AttributionSection, plan: AuditPlan) -> Iterator[AuditWarning]:
    total = len(section["samples"])
    unmoved = sum(sample["relative_delta"] is None for sample in section["samples"])
    if unmoved:
        yield _warning(
            "unmoved_output",
            [],
            f"{unmoved} of {total} attributed inputs give the same output as the baseline.",
            "There is nothing to attribute in them: check that the model is trained, and that the target "
            "depends on the input.",
        )
    shaky = total - section["n_stable"]
    if shaky:
        yield _warning(
            "unstable_attributions",
            [],
            f"{shaky} of {total} attributions change when the input trembles by {percent(section['noise'])} "
            f"of its spread: their cosine with the noisy ones is below {plan.min_stability:g}.",
            "Do not explain these samples by single pixels or features; average over noisy copies, or over "
            "coarser parts.",
        )
    open_ = total - section["n_converged"]
    if open_:
        yield _warning(
            "attributions_not_converged",
            [],
            f"{open_} of {total} attributions miss completeness or refinement within "
            f"{percent(section['tol'])} at {plan.max_n_steps} steps.",
            "Allow more steps (AuditPlan(max_n_steps=...)), or leave these samples out.",
        )
