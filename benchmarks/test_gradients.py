"""Integrated gradients: against the bare passes and Captum, in time, memory and gradients."""

import json
import os
import subprocess
import sys

import pytest

import qixai_fast as qf
from benchmarks.peers import optional

torch = pytest.importorskip("torch")
attr = optional("captum.attr")
networks = pytest.importorskip("benchmarks.networks")  # needs scikit-learn's digits


def bare_passes(model, x, target, n_steps):
    """As few lines as the same passes can be asked for in."""
    for step in range(n_steps):
        points = ((step + 0.5) / n_steps * x).requires_grad_()
        torch.autograd.grad(model(points)[:, target].sum(), points)


PEAK = """
import json, sys, torch
from benchmarks.environment import limit_threads
limit_threads()
import qixai_fast as qf
from benchmarks.networks import convolutions
torch.set_num_threads(1)
tool, n, side, width = sys.argv[1], *map(int, sys.argv[2:])
model, x = convolutions(width), torch.rand(n, 3, side, side)
if tool == "captum":
    from captum.attr import IntegratedGradients
    call = lambda x: IntegratedGradients(model).attribute(x, target=3, n_steps=50)
else:
    call = lambda x: qf.integrated_gradients(model, x, target=3, n_steps=50)
call(x[:1])

def resident(which):
    for line in open("/proc/self/status"):
        if line.startswith(which):
            return int(line.split()[1]) / 1000

open("/proc/self/clear_refs", "w").write("5")  # from here on VmHWM is a new peak
before = resident("VmRSS:")
call(x)
print(json.dumps(resident("VmHWM:") - before))
"""


def peak(tool, n, side, width):
    """Megabytes above the start, in a process of its own."""
    command = [sys.executable, "-c", PEAK, tool, *map(str, (n, side, width))]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_passes(race, size):
    n, side, width = 32, size(32, 8), size(32, 4)
    model, x = networks.convolutions(width), torch.rand(n, 3, side, side)
    captum = attr and (lambda: attr.IntegratedGradients(model).attribute(x, target=3, n_steps=50))
    race(
        f"integrated_gradients, 3 convolutions, {n} images of 3 x {side} x {side}, 50 steps",
        lambda: qf.integrated_gradients(model, x, target=3, n_steps=50),
        {"the bare passes": lambda: bare_passes(model, x, 3, 50), "Captum": captum},
        least={"the bare passes": 1 / 1.05},
        rounds=7,
    )
    if os.path.exists("/proc/self/clear_refs"):
        race.bound("MB above the start", peak("ours", n, side, width), most=100)


def needed_by_captum(model, x, target, change, most):
    """Gradients a sample that Captum takes until the worst sample's delta is within ``most``.

    By doubling the steps from 5 on, all tries together; and in one try with the fewest steps that do.
    """

    def worst(n_steps):
        _, delta = attr.IntegratedGradients(model).attribute(
            x, target=target, n_steps=n_steps, method="gausslegendre", return_convergence_delta=True
        )
        return float((delta.abs() / change).max())

    tries = [5]
    while worst(tries[-1]) > most:
        tries.append(2 * tries[-1])
    fewest = next(n for n in range(1, tries[-1] + 1) if worst(n) <= most)
    return tries, fewest


@pytest.mark.parametrize("kind", ["logit", "softmax", "LSTM"])
@pytest.mark.parametrize("method", ["riemann_middle", "riemann_trapezoid"])
def test_tolerance(race, size, kind, method):
    make, shape = (networks.DigitLSTM, (8, 8)) if kind == "LSTM" else (networks.digit_cnn, (1, 8, 8))
    model, x, target = networks.trained_on_digits(make, shape, size(32, 4), epochs=size(20, 1))
    score = torch.nn.Sequential(model, torch.nn.Softmax(1)) if kind == "softmax" else model
    index = target[:, None]
    change = (score(x) - score(0 * x)).gather(1, index)[:, 0].abs().clamp(min=1e-3)
    call = lambda: qf.integrated_gradients(score, x, target=target, tol=1e-2, method=method)  # noqa: E731
    found = call()
    worst = float((found.delta.abs() / change).max())
    ours = float(found.n_gradients.double().mean())
    row = f"tol=1e-2, {'CNN ' if kind != 'LSTM' else ''}{kind}, {method}: {ours:.3g} gradients a sample"
    peers = {"Captum, its search": None}
    if attr:
        tries, fewest = needed_by_captum(score, x, target, change, 1e-2)

        def search():
            for n_steps in tries:
                attr.IntegratedGradients(score).attribute(
                    x, target=target, n_steps=n_steps, method="gausslegendre", return_convergence_delta=True
                )

        peers = {"Captum, its search": search}
        row += f"; Captum: {' + '.join(map(str, tries))}, or {fewest} where that is known beforehand"
    race(row, call, peers, rounds=3)
    race.bound("worst sample's delta / change of F", worst, most=1e-2)
    race.bound("samples that have not converged", int((~found.converged).sum()), most=0)
    if attr:
        race.bound(
            "gradients / those of Captum's search", ours / sum(tries), most=0.5 if kind == "softmax" else 1.0
        )
        race.bound(
            "gradients / the fewest that do for Captum", ours / fewest, most=0.5 if kind == "softmax" else 1.0
        )
