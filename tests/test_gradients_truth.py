"""Integrated gradients of whole networks: completeness, many points, Captum, what a tolerance is worth."""

import functools

import pytest
from attributed_networks import Encoder, SequenceModel, cnn, normal, seeded

import qixai_fast as qf

torch = pytest.importorskip("torch")
nn = torch.nn


class Reader(nn.Module):
    """Token ids in: an embedding layer, a transformer encoder, one number for each of three classes out."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.rest = Encoder()

    def forward(self, ids, padding):
        return self.rest(self.embedding(ids), padding)


def perceptron(activation):
    return nn.Sequential(nn.Linear(6, 20), activation(), nn.Linear(20, 20), activation(), nn.Linear(20, 3))


def network(kind):
    """The model, its input, further arguments, and the layer to attribute to."""
    if kind == "cnn":
        return seeded(cnn).double(), 2 * normal(4, 1, 8, 8), (), None
    if kind == "lstm":
        return seeded(SequenceModel).double(), 2 * normal(4, 7, 3), torch.tensor([5, 2, 7, 3]), None
    if kind == "transformer":
        ids = torch.randint(11, (4, 6), generator=torch.Generator().manual_seed(1))
        padding = torch.arange(6) >= torch.tensor([[6], [4], [5], [3]])
        return seeded(Reader).double(), ids, padding, "embedding"
    activation = nn.ReLU if kind == "relu" else nn.Tanh
    return seeded(lambda: perceptron(activation)).double(), 2 * normal(4, 6), (), None


KINDS = ["relu", "tanh", "cnn", "lstm", "transformer"]


def scored(kind):
    """F of the tensor that is attributed to, one number a row, and the path's ends."""
    model, x, extra, layer = network(kind)
    if layer is None:
        call = (lambda x: model(x, extra.repeat(len(x) // 4))) if kind == "lstm" else model
        return (lambda x: call(x)[:, 1]), x, torch.zeros_like(x[:1])
    with torch.no_grad():
        embedded, start = model.embedding(x), model.embedding(torch.zeros_like(x[:1]))
    return lambda x: model.rest(x, extra.repeat(len(x) // 4, 1))[:, 1], embedded, start


@functools.cache
def by_many_points(kind):
    """The midpoint rule of 3,000 points, 100 a pass; and F's change."""
    score, x, start = scored(kind)
    total = torch.zeros_like(x)
    for first in range(0, 3000, 100):
        nodes = ((torch.arange(first, first + 100) + 0.5) / 3000).double()
        points = start + nodes.reshape(-1, *[1] * x.ndim) * (x - start)
        points = points.flatten(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(score(points).sum(), points)
        total += gradient.reshape(100, *x.shape).sum(0) / 3000
    # Recorded: without gradients torch's encoder zeroes what it puts out for padding.
    change = score(x) - score(start.expand(x.shape).clone().requires_grad_())
    return total * (x - start), change.detach()


def attributed(kind, **options):
    model, x, extra, layer = network(kind)
    return qf.integrated_gradients(model, x, target=1, layer=layer, additional_forward_args=extra, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["riemann_middle", "riemann_trapezoid"])
def test_a_tolerance_is_met_beside_3000_points(kind, method):
    expected, change = by_many_points(kind)
    result = attributed(kind, tol=1e-3, method=method)
    assert result.converged.all()
    torch.testing.assert_close(result.values.flatten(1).sum(1) - change, result.delta, rtol=0, atol=1e-10)
    assert (result.delta.abs() <= 1e-3 * change.abs().clamp(min=1e-3)).all()
    error = (result.values - expected).flatten(1).abs().amax(1) / expected.flatten(1).abs().amax(1)
    assert error.max() < (1e-3 if kind in ("tanh", "lstm") else 4e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["riemann_middle", "gausslegendre", "simpson"])
def test_rules_of_50_steps_beside_3000_points(kind, method):
    expected, change = by_many_points(kind)
    result = attributed(kind, method=method)
    scale = expected.abs().max()
    within = 1e-3 if kind in ("tanh", "lstm") else 0.06  # the others bend
    assert (result.values - expected).abs().max() < within * scale
    assert result.delta.abs().max() < within * change.abs().max()


@pytest.mark.parametrize("kind", ["cnn", "lstm", "transformer"])
@pytest.mark.parametrize("method", ["riemann_left", "riemann_middle", "gausslegendre"])
def test_captum_has_the_same_values(kind, method):
    captum = pytest.importorskip("captum.attr")
    model, x, extra, layer = network(kind)
    result = attributed(kind, method=method, n_steps=7)
    options = {"target": 1, "method": method, "n_steps": 7, "return_convergence_delta": True}
    if layer:
        theirs = captum.LayerIntegratedGradients(model, model.embedding)
        options["baselines"] = torch.zeros_like(x)
    else:
        theirs = captum.IntegratedGradients(model)
    values, delta = theirs.attribute(x, **options, additional_forward_args=extra if kind != "cnn" else None)
    torch.testing.assert_close(result.values, values, rtol=1e-5, atol=1e-8)
    if kind != "transformer":  # Captum takes its ends without gradients, where padding is zeroed
        torch.testing.assert_close(result.delta, delta.double(), rtol=1e-5, atol=1e-8)


# What a tolerance is worth: the true error of samples that have converged


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Softplus, nn.ReLU])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("method", ["riemann_middle", "riemann_trapezoid"])
def test_true_errors_on_random_networks(activation, softmax, method):
    """Smooth outputs are three times as accurate as asked for; a bend can fall where no node sees it."""
    errors = []
    for seed in range(8):
        model = seeded(lambda: nn.Sequential(perceptron(activation), nn.Softmax(1)), seed).double()
        model = model if softmax else model[0]
        x = 4 * normal(6, 6, seed=seed)
        result = qf.integrated_gradients(model, x, target=2, tol=1e-2, method=method)
        assert result.converged.all()
        many = qf.integrated_gradients(model, x, target=2, n_steps=6000).values
        errors.append((result.values - many).abs().amax(1) / many.abs().amax(1) / 1e-2)
    errors = torch.cat(errors)
    if activation is nn.ReLU:
        assert errors.max() < 4
        assert errors.quantile(0.9) < 1
    else:
        assert errors.max() < 0.4
