"""Integrated gradients of a trained ReLU network, against gradients a sample."""

import copy
import functools

import qixai_fast as qf
from benchmarks.peers import optional
from benchmarks.planes.measuring import Entrant, Plane

torch = optional("torch")
attr = optional("captum.attr")
networks = optional("benchmarks.networks") if torch else None  # needs scikit-learn's digits

STEPS = (5, 10, 20, 50, 100, 200)
METHODS = ("riemann_middle", "gausslegendre", "riemann_trapezoid")
TOLERANCES = (0.1, 0.05, 0.01)
TRUE_STEPS = 5_000


def true_values(model, x, target, n_steps):
    """The midpoint rule in double precision, with so many steps that its own error does not show."""
    wide = copy.deepcopy(model).double()
    return qf.integrated_gradients(wide, x.double(), target=target, n_steps=n_steps).values


def ours(case, **options):
    model, x, target = case
    return qf.integrated_gradients(model, x, target=target, **options)


def captum(case, **options):
    model, x, target = case
    explainer = attr.IntegratedGradients(model)
    values, delta = explainer.attribute(x, target=target, return_convergence_delta=True, **options)
    return values, delta


def values_of(result):
    return result[0] if isinstance(result, tuple) else result.values


def error(result, case, truth):
    """Of the worst pixel, relative to the largest true one; the median over samples."""
    away = (values_of(result).double() - truth).abs().flatten(1).amax(1)
    return float((away / truth.abs().flatten(1).amax(1)).median())


def gradients(result):
    return float(result.n_gradients.double().mean())


def _of_rules(tool, call, default, cost):
    """A tool's entrants: all rules at all numbers of steps; ``cost(n)`` is that at n steps."""
    return [
        Entrant(
            tool, method, f"{method}, n_steps={n}",
            lambda case, method=method, n=n: call(case, method=method, n_steps=n),
            cost=cost(n), default=(method, n) == (default, 50),
        )
        for method in METHODS
        for n in STEPS
    ]  # fmt: skip


def entrants():
    found = [
        *_of_rules("qixai-fast", ours, "riemann_middle", lambda n: gradients),
        *(
            Entrant(
                "qixai-fast", "tol", f"tol={tol:g}", lambda case, tol=tol: ours(case, tol=tol),
                cost=gradients,
            )
            for tol in TOLERANCES
        ),
    ]  # fmt: skip
    if attr:
        found += _of_rules("Captum", captum, "gausslegendre", lambda n: n)
    return found


def planes(rng, quick, folder):
    if networks is None:
        return
    n, epochs, true_steps = (2, 1, 300) if quick else (16, 20, TRUE_STEPS)
    trained, x, target = networks.trained_on_digits(networks.digit_cnn, (1, 8, 8), n, epochs=epochs)
    softmax = networks.frozen(torch.nn.Sequential(trained, torch.nn.Softmax(1)))
    for title, model in (("logit", trained), ("softmax", softmax)):
        truth = true_values(model, x, target, true_steps)
        half = true_values(model, x, target, true_steps // 2)
        known_to = error((half, None), None, truth)
        yield Plane(
            name=f"integrated gradients {title}",
            group="attributions",
            title=f"Integrated gradients, {title}",
            work=(
                f"a trained CNN with ReLUs, {n} held-out digits of 8 x 8; the truth: {true_steps:,} steps in "
                f"float64, half as many differ by {known_to:.1g}"
            ),
            error_is="worst pixel's error / the largest attribution, median of the samples",
            cost_is="gradients a sample",
            cases=[(model, x, target)],
            entrants=entrants(),
            error=functools.partial(error, truth=truth),
        )
