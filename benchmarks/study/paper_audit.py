"""What one call of ``qf.audit`` says of a trained network and of one that was never trained."""

from __future__ import annotations

import qixai_fast as qf

KINDS = ("trained", "untrained")


def measure(nets, sizes):
    """Warnings, and the most entangled pair between Conv1 and Conv2, for the first seed."""
    plan = qf.AuditPlan(
        n_permutations=None if sizes.n_pairs > 1000 else 99,
        test_samples=sizes.n_pairs,
        null_samples=min(500, sizes.n_pairs),
        pairs=[("conv1", "conv2"), ("conv1", "dense"), ("conv2", "dense")],
    )
    found = {}
    for kind in KINDS:
        net = nets[kind][0]
        report = qf.audit(net.store, plan=plan, progress=False)
        row = report.results["entangled"]["rows"][0]
        found[kind] = {
            "warnings": sorted({warning["code"] for warning in report.warnings}),
            "strongest": {
                key: row[key] for key in ("layer_a", "map_a", "layer_b", "map_b", "selection_pvalue")
            },
            "reading": report.reading,
        }
    return found
