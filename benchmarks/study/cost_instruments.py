"""Every instrument that is timed: its name, whose it is, and what its values promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.study import cost_ours as ours
from benchmarks.study import cost_peers as peers


@dataclass(frozen=True)
class Instrument:
    """What explains single samples.

    Attributes
    ----------
    key : str
        The same on every network.
    name, tool : str
        For text; a tool that is not installed has no rows.
    make : callable
        Takes the case; returns ``explain(part, seed)``: values (n, ...) of inputs, (n, groups), or a list of
        (n, units), one a layer.
    promise : {"change", "output"} or None
        What a sample's values should add up to.
    gives : {"values", "groups", "layers"}
    seeded : bool
        Whether it draws at random.
    """

    key: str
    name: str
    tool: str
    make: Callable
    promise: str | None = "change"
    gives: str = "values"
    seeded: bool = False


def instruments(case, rows):
    """All that are installed, for one case.

    Parameters
    ----------
    case : Case
    rows : int
        Of a pass of our integrated gradients: Captum gets the same in one of its rows.
    """
    found = [
        Instrument(
            "ig", f"integrated gradients, {ours.STEPS} steps", "qixai-fast", ours.integrated_gradients
        ),
        Instrument(
            "ig_tol",
            f"integrated gradients, tol {ours.TOL}",
            "qixai-fast",
            lambda case: ours.integrated_gradients(case, ours.TOL),
        ),
        Instrument(
            "conductance",
            f"conductance of three layers, {ours.STEPS} steps",
            "qixai-fast",
            ours.layer_conductance,
            gives="layers",
        ),
    ]
    if peers.captum:
        found += [
            Instrument("captum", f"integrated gradients, {peers.STEPS} steps", "Captum", peers.captum_ig),
            Instrument(
                "captum_equal",
                f"integrated gradients, {peers.STEPS} steps, passes as large as ours",
                "Captum",
                lambda case: peers.captum_ig(case, rows),
            ),
            Instrument(
                "captum_conductance",
                f"conductance of three layers, {peers.STEPS} steps",
                "Captum",
                peers.captum_conductance,
                gives="layers",
            ),
            Instrument("lrp", "LRP, epsilon rule", "Captum", peers.captum_lrp, promise="output"),
        ]
    if peers.shap:
        gives = "values" if case.picture else "groups"
        found += [
            Instrument("gradient", "GradientExplainer, 200 draws", "SHAP", peers.shap_gradient, seeded=True),
            Instrument("deep", "DeepExplainer", "SHAP", peers.shap_deep),
            Instrument("kernel", "KernelExplainer", "SHAP", peers.shap_kernel, gives="groups", seeded=True),
            Instrument("partition", "PartitionExplainer", "SHAP", peers.shap_partition, gives=gives),
        ]
    if lime := peers.lime_for(case):
        kind = "LimeImageExplainer" if case.picture else "LimeTextExplainer"
        found.append(Instrument("lime", kind, "LIME", lime, promise=None, gives="groups", seeded=True))
    return found
