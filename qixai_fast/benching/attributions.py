"""A case of integrated gradients, on a network whose path integral is known in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import integrated_gradients
from .._validate import Float64
from .cases import OURS, Case, Score, constant, entrants_of, largest_error, whole
from .peers import optional, torch_seeded

GRADIENTS = "integrated gradients"
N_STEPS = 50


def true_attributions(x: Float64, W: Float64, b: Float64, v: Float64) -> Float64:
    """Integrated gradients of v . relu(W x + b) from a baseline of zeros, exactly.

    On the way from 0 to x a hidden unit is w . x a + b at the share a, a straight line: it is on for a part
    of the way that two lines of arithmetic tell, and its gradient v w is constant there.
    """
    slope = x @ W.T
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = np.clip(np.where(slope == 0, 0.0, -b / slope), 0.0, 1.0)
    end_on, start_on = slope + b > 0, np.broadcast_to(b > 0, slope.shape)
    share = np.where(
        start_on & end_on, 1.0, np.where(end_on, 1 - crossing, np.where(start_on, crossing, 0.0))
    )
    attributions: Float64 = x * ((share * v) @ W)
    return attributions


def gradients_case(n: int, width: int, *, n_jobs: int, seed: int) -> Case | None:
    """A network of one hidden ReLU layer, against the closed form; None without torch."""
    torch = optional("torch")
    if torch is None:
        return None
    rng = np.random.default_rng([seed, 7])
    W = rng.standard_normal((2 * width, width)) / math.sqrt(width)
    b, v = 0.5 * rng.standard_normal(2 * width), rng.standard_normal(2 * width) / math.sqrt(2 * width)
    x = rng.standard_normal((n, width))
    truth = true_attributions(x, W, b, v)
    with torch_seeded():
        hidden, last = torch.nn.Linear(width, 2 * width), torch.nn.Linear(2 * width, 1, bias=False)
    with torch.no_grad():
        for parameter, values in ((hidden.weight, W), (hidden.bias, b), (last.weight, v[None])):
            parameter.copy_(torch.from_numpy(values))
    model = torch.nn.Sequential(hidden, torch.nn.ReLU(), last)
    inputs = torch.from_numpy(x.astype(np.float32))

    def bare() -> Any:
        total = torch.zeros_like(inputs)
        for step in range(N_STEPS):
            points = ((step + 0.5) / N_STEPS * inputs).requires_grad_()
            total += torch.autograd.grad(model(points)[:, 0].sum(), points)[0]
        return (inputs * total / N_STEPS).numpy()

    def ours(**options: Any) -> Any:
        return whole(lambda: integrated_gradients(model, inputs, target=0, **options).values.numpy())

    attr = optional("captum.attr")

    def captum(method: str) -> Any:
        def call() -> Any:
            tool = attr.IntegratedGradients(model)
            return tool.attribute(inputs, target=0, n_steps=N_STEPS, method=method).detach().numpy()

        return attr and whole(call)

    calls = {
        OURS: ours(n_steps=N_STEPS),
        f"{OURS} (tol=0.01)": ours(tol=0.01),
        "Captum (its default)": captum("gausslegendre"),
        "Captum (riemann_middle)": captum("riemann_middle"),
        "Captum (riemann_trapezoid)": captum("riemann_trapezoid"),
        "bare loop of torch": whole(bare),
    }
    present, absent = entrants_of(calls, set(calls), n_jobs)
    largest = float(np.abs(truth).max())

    def score(values: Any, units: int) -> Score:
        return Score(largest_error(values, truth).error / largest)

    return Case(
        GRADIENTS, f"a ReLU network, {n} inputs of {width} features, {N_STEPS} steps",
        "the path integral in closed form; error: the largest one, of the largest attribution",
        "call", 1, present, score, constant(0.01), constant(0.1), absent=absent,
    )  # fmt: skip
