"""Integrated gradients and conductance on a pretrained network, and whether they point at what matters."""

from __future__ import annotations

import numpy as np
import torch

import qixai_fast as qf
from benchmarks.environment import SEED

TOL = 0.05
SHARE = 0.2  # of the parts are put back to the baseline
N_RANDOM = 10
N_STEPS = 20  # of conductance


def _output(case, inputs):
    with torch.no_grad():
        output = case.explained(inputs, *case.references)
    return output if case.target is None else output.gather(1, case.target[:, None])[:, 0]


def _interval(values):
    """Mean over inputs, and where 95 % of its bootstrap lies."""
    values = np.asarray(values, np.float64)
    drawn = np.random.default_rng(SEED).integers(0, len(values), (2000, len(values)))
    interval = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return {"mean": float(values.mean()), "interval": interval.tolist()}


def _removal(case, scores, change, full):
    """Output lost, over the whole change from the baseline, where the parts of largest score are gone."""
    n, n_parts = scores.shape
    n_gone = max(1, round(SHARE * n_parts))

    def lost(order):
        gone = torch.zeros(n, n_parts, dtype=torch.bool).scatter(1, order[:, :n_gone], True)
        return ((full - _output(case, case.without(case.inputs, gone))) / change).numpy()

    generator = torch.Generator().manual_seed(SEED)
    random = [lost(torch.rand(n, n_parts, generator=generator).argsort(dim=1)) for _ in range(N_RANDOM)]
    size = case.parts((case.inputs - case.baselines).abs())
    ours, by_size = lost(scores.argsort(dim=1, descending=True)), lost(size.argsort(dim=1, descending=True))
    return {
        "n_gone": n_gone,
        "n_parts": n_parts,
        "attributed": _interval(ours),
        "random": _interval(np.mean(random, axis=0)),
        "largest_input": _interval(by_size),
        "attributed_less_input": _interval(ours - by_size),
    }


def _conductance(case):
    """Each layer's delta over the change, or why it has none, and how few units carry half of it."""
    found = qf.layer_conductance(
        case.explained,
        case.inputs,
        list(case.conductors),
        baselines=case.baselines,
        target=case.target,
        additional_forward_args=case.references,
        n_steps=N_STEPS,
    )
    change = (_output(case, case.inputs) - _output(case, case.baselines)).abs()
    rows = {}
    for name, result in found.items():
        values = result.values[0] if isinstance(result.values, tuple) else result.values
        size = values.flatten(1).abs().sort(dim=1, descending=True).values.double()
        half = (size.cumsum(dim=1) < size.sum(dim=1, keepdim=True) / 2).sum(dim=1) + 1
        delta = (result.delta.abs() / change).median()
        rows[name] = {
            "tuple": isinstance(result.values, tuple),
            "shape": list(values.shape[1:]),
            "delta": None if torch.isnan(delta) else float(delta),
            "note": result.note or "",
            "half_share": float((half / size.shape[1]).median()),
        }
    return rows


def paths_measured(case):
    """One network: completeness, removal of the most attributed parts, conductance by layer."""
    result = qf.integrated_gradients(
        case.explained,
        case.inputs,
        baselines=case.baselines,
        target=case.target,
        additional_forward_args=case.references,
        tol=TOL,
    )
    full, empty = _output(case, case.inputs), _output(case, case.baselines)
    change = full - empty
    scores = case.parts(result.values)
    relative = (result.delta.abs() / change.abs()).numpy()
    return {
        "n": len(case.inputs),
        "target": case.target_text,
        "part": case.part,
        "n_converged": int(result.converged.sum()),
        "median_delta": float(np.median(relative)),
        "largest_delta": float(relative.max()),
        "median_gradients": float(result.n_gradients.double().median()),
        "largest_gradients": int(result.n_gradients.max()),
        "removal": _removal(case, scores, change, full),
        "conductance": _conductance(case),
        "examples": [
            {
                **shown,
                "output": float(full[place]),
                "baseline": float(empty[place]),
                "scores": scores[place].tolist(),
            }
            for place, shown in enumerate(case.examples)
        ],
    }
