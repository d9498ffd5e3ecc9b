"""Our instruments: attributions of single samples, and what looks at whole layers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

import qixai_fast as qf

STEPS = 50
TOL = 0.05
COMPONENTS = 5  # as many as the paper looks at


def integrated_gradients(case, tol=None):
    """Fixed steps, or refined until each sample is within ``tol``."""
    steps = {"n_steps": STEPS} if tol is None else {"tol": tol}

    def explain(part, seed):
        return qf.integrated_gradients(
            case.model, case.inputs[part], baselines=case.baselines[part], target=case.target[part], **steps
        ).values

    return explain


def layer_conductance(case):
    """All layers in one sweep: (n, units) of each."""

    def explain(part, seed):
        found = qf.layer_conductance(
            case.model,
            case.inputs[part],
            case.layers,
            baselines=case.baselines[part],
            target=case.target[part],
            n_steps=STEPS,
        )
        # A recurrent layer puts out the last states a second time; the network goes on from the first part.
        values = [found[name].values for name in case.layers]
        return [part[0] if isinstance(part, tuple) else part for part in values]

    return explain


def layer_instruments(case, arrays):
    """What looks at whole layers: name to a function of the first n rows, and what it looks at.

    Parameters
    ----------
    case : Case
    arrays : list of array (rows, units)
        What ``case.layers`` put out.
    """
    whole = arrays[1]
    second = whole[:, : case.sizes.units]
    d, d_pairs = whole.shape[1], second.shape[1]
    pairs = d_pairs * (d_pairs - 1) // 2

    widths = " + ".join(str(array.shape[1]) for array in arrays)
    found = {
        "spectrum: pca": (f"{d} units", lambda n: qf.pca(whole[:n], min(COMPONENTS, n), n_jobs=1)),
        "orthogonality: cosine of units": (
            f"{d} units",
            lambda n: qf.cosine_similarity(whole[:n], axis=0, n_jobs=1),
        ),
        "orthogonality: linear CKA": (
            f"{d} units with {arrays[2].shape[1]}",
            lambda n: qf.linear_cka(whole[:n], arrays[2][:n], n_jobs=1),
        ),
        "entanglement: binned": (
            f"{d * (d - 1) // 2:,} pairs",
            lambda n: qf.pairwise_mutual_info_binned(whole[:n], n_jobs=1),
        ),
        "entanglement: KSG": (
            f"{pairs:,} pairs",
            lambda n: qf.pairwise_mutual_info_ksg(second[:n], n_jobs=1),
        ),
        "entanglement: permutation test": (
            f"{pairs:,} pairs, {case.sizes.permutations} permutations",
            lambda n: qf.mutual_info_test(
                second[:n], n_permutations=case.sizes.permutations, random_state=0, n_jobs=1
            ),
        ),
    }
    if case.sizes.audit:
        plan = qf.AuditPlan(max_maps=case.sizes.units, n_permutations=case.sizes.permutations, n_jobs=1)
        found["whole audit, with its page"] = (
            f"{widths} units, pairs of {case.sizes.units} a layer",
            lambda n: audit([array[:n] for array in arrays], plan),
        )
    return found


def audit(arrays, plan):
    """Audit arrays as layers, into a report."""
    layers = {f"layer {number}": array for number, array in enumerate(arrays, 1)}
    specs = {name: qf.LayerSpec(array.shape[1:]) for name, array in layers.items()}
    with tempfile.TemporaryDirectory() as folder:
        with qf.create_store(Path(folder, "store"), layers=specs) as writer:
            writer.append(layers)
        store = qf.open_store(Path(folder, "store"))
        qf.audit(store, Path(folder, "report"), plan=plan, progress=False)


def use_all(*, audited):
    """Use each instrument once, as small as it goes: compiled code is loaded, modules are imported."""
    model, x = torch.nn.Linear(4, 2).requires_grad_(False), torch.rand(2, 4)
    qf.integrated_gradients(model, x, target=0, n_steps=2)
    qf.layer_conductance(torch.nn.Sequential(model), x, "0", target=0, n_steps=2)
    rows = np.random.default_rng(0).random((20, 3), np.float32)
    qf.pca(rows, 2, n_jobs=1)
    qf.cosine_similarity(rows, axis=0, n_jobs=1)
    qf.linear_cka(rows, rows, n_jobs=1)
    qf.pairwise_mutual_info_binned(rows, n_jobs=1)
    qf.pairwise_mutual_info_ksg(rows, n_jobs=1)
    qf.mutual_info_test(rows, n_permutations=19, random_state=0, n_jobs=1)
    if audited:
        audit([rows, rows], qf.AuditPlan(n_permutations=19, n_jobs=1))


def capture(case, n):
    """Runs the network over so many inputs and keeps what the layers put out."""
    with tempfile.TemporaryDirectory() as folder:
        case.record(case.recorded[:n], Path(folder, "store"))
