"""Layer conductance: closed forms, a slow reference, completeness, and layers of every kind."""

import numpy as np
import pytest
from attributed_networks import Encoder, SequenceModel, assert_close, cnn, normal, seeded
from hypothesis import given, settings
from hypothesis import strategies as st

import qixai_fast as qf

torch = pytest.importorskip("torch")
nn = torch.nn


def slow_conductance(score, module, x, baseline, nodes):
    """One sample, one node at a time: {tensor of the module's output: sum of trapezoids}, and delta."""

    def at(node):
        found = []

        def hook(module, inputs, output):
            flat = [output] if torch.is_tensor(output) else [output[0], *output[1]]
            found.extend(flat)
            copies = [tensor.clone() for tensor in flat]  # what comes next may work in place
            return copies[0] if torch.is_tensor(output) else (copies[0], tuple(copies[1:]))

        handle = module.register_forward_hook(hook)
        try:
            value = score((baseline + node * (x - baseline))[None].requires_grad_()).reshape(())
        finally:
            handle.remove()
        gradients = torch.autograd.grad(value, found, allow_unused=True)
        gradients = [torch.zeros_like(a) if g is None else g for a, g in zip(found, gradients, strict=True)]
        return [a.detach().double() for a in found], [g.double() for g in gradients], float(value.detach())

    values, slopes, first = at(0.0)
    totals = [torch.zeros_like(value) for value in values]
    for node in nodes[1:]:
        new_values, new_slopes, last = at(float(node))
        for j, total in enumerate(totals):
            total += (new_values[j] - values[j]) * (new_slopes[j] + slopes[j]) / 2
        values, slopes = new_values, new_slopes
    return totals, float(sum(total.sum() for total in totals)) - (last - first)


def chebyshev(n_steps):
    return (1 - np.cos(np.pi * np.arange(n_steps + 1) / n_steps)) / 2


def mlp(activation=nn.Tanh, n_inputs=4, hidden=6, n_outputs=3):
    return nn.Sequential(nn.Linear(n_inputs, hidden), activation(), nn.Linear(hidden, n_outputs)).double()


# Closed forms


def test_linear_layers_are_exact():
    """Conductance of a unit under a linear head is its weight times its change."""
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))).double()
    x, baseline = normal(4, 3), normal(4, 3, seed=1)
    result = qf.layer_conductance(model, x, ["0", "1"], baselines=baseline, target=1, n_steps=1)
    with torch.no_grad():
        change = model[0](x) - model[0](baseline)
    assert_close(result["0"].values, (model[1].weight[1] * change).detach(), rtol=1e-12, atol=1e-14)
    assert_close(result["1"].values[:, 0], torch.zeros(4), rtol=0)
    for attribution in result.values():
        assert attribution.delta.abs().max() < 1e-13
        assert attribution.converged is None
        assert attribution.note is None
        assert attribution.n_steps.tolist() == [1] * 4
        assert attribution.n_gradients.tolist() == [2] * 4


@settings(max_examples=20, deadline=None)
@given(*[st.floats(-20, 20)] * 4)
def test_quadratic_head_is_exact(x, y, x0, y0):
    """F = a0 * a1 of units a: each accounts for its change times the mean of the other."""
    units = nn.Identity()

    def product(z):  # torch's own prod divides by each factor for its gradient, also by subnormal ones
        a = units(z)
        return a[:, 0] * a[:, 1]

    result = qf.layer_conductance(
        product,
        torch.tensor([[x, y]], dtype=torch.float64),
        units,
        baselines=torch.tensor([[x0, y0]], dtype=torch.float64),
        n_steps=1,
    )["Identity"]
    assert_close(result.values, [[(x - x0) * (y + y0) / 2, (y - y0) * (x + x0) / 2]], rtol=1e-12, atol=1e-10)
    assert abs(float(result.delta)) < 1e-9


@settings(max_examples=15, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(1, 40))
def test_one_hidden_unit_takes_all_of_the_change(weight, x, n_steps):
    """One unit h = tanh(w x), F = exp(h): its conductance is F(x) - F(0), at order 2."""
    unit = nn.Tanh()
    model = lambda x: torch.exp(unit(weight * x[:, 0]))  # noqa: E731
    result = qf.layer_conductance(model, torch.tensor([[x]], dtype=torch.float64), [unit], n_steps=n_steps)[
        "Tanh"
    ]
    change = float(torch.exp(torch.tanh(torch.tensor(weight * x, dtype=torch.float64))) - 1)
    error = float(result.values) - change
    assert float(result.delta) == pytest.approx(error, abs=1e-12)
    assert abs(error) <= 0.5 * abs(weight * x) ** 3 / n_steps**2 + 1e-12


def test_a_layer_that_is_the_input_is_integrated_gradients():
    model = seeded(mlp)
    first = nn.Identity()
    x, baseline = normal(5, 4), normal(1, 4, seed=1)
    options = {"baselines": baseline, "target": 2, "n_steps": 20, "method": "riemann_trapezoid"}
    ours = qf.layer_conductance(lambda x: model(first(x)), x, first, **options)
    theirs = qf.integrated_gradients(model, x, **options)
    assert_close(ours["Identity"].values, theirs.values, rtol=1e-11, atol=1e-14)
    assert_close(ours["Identity"].delta, theirs.delta, rtol=0, atol=1e-13)


# Beside the slow reference


@pytest.mark.parametrize("method", ["chebyshev", "riemann_trapezoid"])
def test_cnn_agrees_with_the_reference(method):
    """In-place activation functions come after two of the layers."""
    model = seeded(cnn).double()
    x, baseline = normal(3, 1, 8, 8), normal(3, 1, 8, 8, seed=1) / 4
    target = torch.tensor([0, 3, 1])
    names = ["0", "1", "2", "3", "4", "7"]
    nodes, options = chebyshev(7), {"n_steps": 7}
    if method == "riemann_trapezoid":
        nodes, options = np.linspace(0, 1, 8), {"n_steps": 7, "method": method}
    result = qf.layer_conductance(model, x, names, baselines=baseline, target=target, **options)
    assert list(result) == names
    for name, attribution in result.items():
        assert attribution.note is None
        for i in range(3):
            (expected,), delta = slow_conductance(
                lambda point, i=i: model(point)[:, target[i]], model[int(name)], x[i], baseline[i], nodes
            )
            assert_close(attribution.values[i], expected[0], rtol=1e-10, atol=1e-13)
            assert float(attribution.delta[i]) == pytest.approx(delta, abs=1e-12)


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 2, 7])])
def test_lstm_has_its_output_and_both_states(lengths):
    model = seeded(SequenceModel).double()
    x = normal(3, 7, 3)
    result = qf.layer_conductance(
        model, x, "lstm", target=2, n_steps=9, additional_forward_args=() if lengths is None else lengths
    )["lstm"]
    assert [tuple(value.shape) for value in result.values] == [(3, 7, 8), (3, 1, 8), (3, 1, 8)]
    head = lambda x: model.head(model.lstm(x)[1][0][-1])[:, 2]  # noqa: E731
    for i in range(3):
        own = x[i] if lengths is None else x[i, : lengths[i]]
        expected, delta = slow_conductance(head, model.lstm, own, 0 * own, chebyshev(9))
        assert_close(result.values[0][i, : len(own)], expected[0][0], rtol=1e-10, atol=1e-13)
        assert (result.values[0][i, len(own) :] == 0).all()
        for values, state in zip(result.values[1:], expected[1:], strict=True):
            assert_close(values[i], state[:, 0], rtol=1e-10, atol=1e-13)
        assert float(result.delta[i]) == pytest.approx(delta, abs=1e-12)


class Sequential(nn.Module):
    """Recurrent, time first: its layer works on (T, n, d)."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.rnn(x.transpose(0, 1))[0]).mean(0))


def test_samples_come_first_also_for_layers_that_have_time_first():
    model = seeded(Sequential).double()
    x = normal(4, 6, 3)
    output, state = qf.layer_conductance(model, x, "rnn", target=0, n_steps=5)["rnn"].values
    assert output.shape == (4, 6, 4)
    assert state.shape == (4, 1, 4)
    alone = qf.layer_conductance(model, x[2:3], "rnn", target=0, n_steps=5)["rnn"].values[0]
    assert_close(output[2:3], alone, rtol=1e-10, atol=1e-14)


# Beside Captum


@pytest.mark.parametrize("name", ["0", "1", "4", "9"])
def test_cnn_agrees_with_captum_at_many_steps(name):
    captum = pytest.importorskip("captum.attr")
    model = seeded(cnn).double()
    model[2].inplace = False  # or theirs would take in what the activation function has overwritten
    x = normal(2, 1, 8, 8)
    ours = qf.layer_conductance(model, x, name, target=3, n_steps=500)[name]
    theirs = captum.LayerConductance(model, model[int(name)]).attribute(x, target=3, n_steps=500)
    assert (ours.values - theirs).abs().max() < 1e-2 * theirs.abs().max()


def test_layer_input_agrees_with_captum():
    captum = pytest.importorskip("captum.attr")
    model, x = seeded(mlp), normal(3, 4)
    ours = qf.layer_conductance(model, x, "1", target=0, n_steps=1000, attribute_to_layer_input=True)["1"]
    layer = captum.LayerConductance(model, model[1])
    theirs = layer.attribute(x, target=0, n_steps=1000, attribute_to_layer_input=True)
    assert (ours.values - theirs).abs().max() < 2e-3 * theirs.abs().max()
    before = qf.layer_conductance(model, x, "0", target=0, n_steps=1000)["0"]
    assert_close(ours.values, before.values, rtol=1e-12)


# Completeness


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU, nn.Softplus])
def test_every_layer_of_a_chain_is_complete(activation):
    model = seeded(lambda: mlp(activation, hidden=20))
    result = qf.layer_conductance(model, normal(10, 4), "*", target=1, n_steps=2000)
    assert list(result) == ["0", "1", "2"]
    for attribution in result.values():
        assert attribution.note is None
        assert attribution.delta.abs().max() < 2e-3


@pytest.mark.parametrize("frozen", [False, True])
def test_transformer_layers_are_complete(frozen):
    model = seeded(Encoder).double().requires_grad_(not frozen)
    padding = torch.tensor([[False] * 5 + [True], [False] * 4 + [True] * 2])
    result = qf.layer_conductance(
        model,
        normal(2, 6, 8),
        ["encoder.layers.0", "encoder.layers.1", "encoder", "head", "encoder.layers.1.linear1"],
        baselines=normal(1, 6, 8, seed=1),
        target=1,
        additional_forward_args=(padding,),
        n_steps=200,
    )
    aside = result.pop("encoder.layers.1.linear1")
    assert "goes around" in aside.note
    assert aside.delta.isnan().all()
    for attribution in result.values():
        assert attribution.note is None
        assert attribution.delta.abs().max() < 1e-3


# Layers that do not cut the network, or that are called more than once


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.block, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        self.unused(x)
        return self.last(x + torch.tanh(self.block(x)))


def test_a_skip_connection_leaves_no_delta_and_is_named():
    model, x = seeded(Residual).double(), normal(3, 4)
    result = qf.layer_conductance(model, x, ["first", "block", "last", "unused"], target=0)
    for name in ("first", "last"):
        assert result[name].note is None
        assert result[name].delta.abs().max() < 1e-3
    for name in ("block", "unused"):
        assert result[name].delta.isnan().all()
        assert result[name].note == (
            f"{name!r} does not cut the network: a path from the inputs to the output goes around it"
        )
    assert (result["unused"].values == 0).all()
    # The block's own share, and the skip connection's: together all of it.
    (own,), _ = slow_conductance(lambda x: model(x)[:, 0], model.block, x[0], 0 * x[0], chebyshev(50))
    assert_close(result["block"].values[0], own[0], rtol=1e-10, atol=1e-14)


def test_a_path_without_gradients_around_a_layer_is_found():
    layer = nn.Linear(3, 2).double()
    model = lambda x: layer(x).sum(1) + (x[:, 0] > 0.5)  # noqa: E731
    result = qf.layer_conductance(model, torch.ones(2, 3).double(), layer)["Linear"]
    assert "through operations without a gradient" in result.note
    assert result.delta.isnan().all()


def test_dropout_does_not_look_like_a_path_around():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    before = torch.random.get_rng_state()
    with pytest.warns(UserWarning, match="dropout"):
        result = qf.layer_conductance(model, normal(3, 4).float(), ["0", "2"], n_steps=2)
    assert result["0"].note is None
    assert not torch.equal(before, torch.random.get_rng_state())  # drawn from, not set


class Shared(nn.Module):
    """One module for two inputs, side by side or one after the other."""

    def __init__(self, in_series):
        super().__init__()
        self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.in_series = in_series

    def forward(self, x, y):
        if self.in_series:
            return self.last(torch.tanh(self.shared(torch.tanh(self.shared(x + y)))))
        return self.last(torch.tanh(self.shared(x)) * torch.tanh(self.shared(y)))


def test_calls_side_by_side_are_added_up():
    model = seeded(lambda: Shared(False)).double()
    x, y = normal(3, 4), normal(3, 4, seed=1)
    result = qf.layer_conductance(model, (x, y), "shared", target=0, n_steps=40)["shared"]
    assert result.note is None
    assert result.delta.abs().max() < 1e-4
    twins = seeded(lambda: Shared(False)).double()
    first, second = nn.Identity(), nn.Identity()
    apart = qf.layer_conductance(
        lambda x, y: twins.last(torch.tanh(first(twins.shared(x))) * torch.tanh(second(twins.shared(y)))),
        (x, y),
        {"first": first, "second": second},
        target=0,
        n_steps=40,
    )
    assert_close(result.values, apart["first"].values + apart["second"].values, rtol=1e-11, atol=1e-14)
    assert "goes around" in apart["first"].note


def test_a_layer_that_hands_on_what_it_was_given_has_only_its_own_share():
    """F = exp(x + identity(x)): half of the change goes through the identity."""
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.5)).eval()
    score = lambda x: torch.exp(x + model[1](model[0](x)))[:, 0]  # noqa: E731
    result = qf.layer_conductance(score, torch.ones(2, 1).double(), list(model), n_steps=400)
    for attribution in result.values():
        assert_close(attribution.values, [[(torch.e**2 - 1) / 2]] * 2, rtol=1e-4)
        assert "goes around" in attribution.note


def test_calls_one_after_the_other_count_the_same_change_twice():
    model = seeded(lambda: Shared(True)).double()
    result = qf.layer_conductance(model, (normal(3, 4), normal(3, 4)), "shared", target=0, n_steps=400)
    with torch.no_grad():
        change = model(normal(3, 4), normal(3, 4)) - model(*[torch.zeros(1, 4).double()] * 2)
    assert_close(result["shared"].values.sum(1), 2 * change[:, 0], rtol=1e-3)
    assert result["shared"].delta.isnan().all()
    assert "follow one another" in result["shared"].note


# One sweep


def test_layers_together_are_as_each_alone():
    model = seeded(cnn)
    x = normal(5, 1, 8, 8).float()
    together = qf.layer_conductance(model, x, ["0", "4", "9"], target=1, n_steps=6)
    for name, attribution in together.items():
        alone = qf.layer_conductance(model, x, name, target=1, n_steps=6)[name]
        torch.testing.assert_close(attribution.values, alone.values, rtol=1e-5, atol=1e-7)


def test_one_pass_serves_all_layers():
    rows = []
    model = seeded(mlp)

    def counting(x):
        rows.append(len(x))
        return model(x)

    result = qf.layer_conductance(counting, normal(7, 4), list(model), target=1, n_steps=30)
    looks = 2 + 2 + 3 + 2 + 3 * 2  # memory; the samples' axis; the tensors; and what goes around each layer
    assert sum(rows) == 7 * 31 + looks
    assert all(attribution.n_gradients.tolist() == [31] * 7 for attribution in result.values())


def test_half_precision_is_summed_in_float64():
    model, x = seeded(lambda: mlp(hidden=16)), normal(4, 4).bfloat16()
    exact = qf.layer_conductance(model, x.double(), "1", target=0, n_steps=200)["1"].values
    result = qf.layer_conductance(model.bfloat16(), x, "1", target=0, n_steps=200)["1"]
    assert result.values.dtype == torch.float32
    assert result.delta.dtype == torch.float64
    assert (result.values - exact).abs().max() < 2e-2 * exact.abs().max()


def test_layers_by_name_pattern_module_and_mapping():
    model, x = seeded(mlp), normal(3, 4)
    by_name = qf.layer_conductance(model, x, "1", target=0)["1"].values
    for layers, name in (
        (model[1], "1"),
        (["[0-1]"], "1"),
        ([model[0], "1", model[1]], "1"),
        ({"squashed": model[1]}, "squashed"),
    ):
        assert_close(qf.layer_conductance(model, x, layers, target=0)[name].values, by_name, rtol=0)
    called = qf.layer_conductance(lambda x: model(x), x, [model[0], model[2]], target=0)
    assert list(called) == ["Linear", "Linear#2"]
    mixed = qf.layer_conductance(model, x, ["2", "[01]"], target=0)
    assert list(mixed) == ["2", "0", "1"]
