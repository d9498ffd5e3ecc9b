"""The drop-ins of qixai_fast.compat.captum without Captum: definitions, what passes hold, bad arguments."""

import numpy as np
import pytest
import reference
from attributed_networks import SequenceModel, assert_close, normal, seeded

from qixai_fast._path_passes import Passes
from qixai_fast.compat.captum import IntegratedGradients, LayerConductance, LayerIntegratedGradients
from qixai_fast.quadrature import path_nodes

torch = pytest.importorskip("torch")
nn = torch.nn

RULES = ("riemann_left", "riemann_right", "riemann_middle", "gausslegendre")


def perceptron(outputs=3):
    return seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, outputs))).double()


class Counting:
    """A function that keeps how many rows it is given."""

    def __init__(self, function):
        self.function, self.rows = function, []

    def __call__(self, x, *more):
        self.rows.append(len(x))
        return self.function(x, *more)


@pytest.mark.parametrize("rule", RULES)
def test_integrated_gradients_by_definition(rule):
    model, x, baseline = perceptron(), normal(3, 4), normal(3, 4, seed=1)
    values, delta = IntegratedGradients(model).attribute(
        x, baseline, 2, n_steps=9, method=rule, return_convergence_delta=True
    )
    for i in range(3):
        expected, change = reference.integrated_gradients(
            lambda x: model(x)[:, 2], x[i], baseline[i], *path_nodes(rule, 9)
        )
        # Nodes and weights are Captum's, rounded to float32.
        assert_close(values[i], expected, rtol=1e-6, atol=1e-7)
        assert delta[i].item() == pytest.approx(change, abs=1e-6)


def test_trapezoid_is_that_of_one_step_less():
    model, x = perceptron(), normal(2, 4)
    values = IntegratedGradients(model).attribute(x, target=0, n_steps=6, method="riemann_trapezoid")
    for i in range(2):
        expected, _ = reference.integrated_gradients(
            lambda x: model(x)[:, 0], x[i], torch.zeros(4).double(), *path_nodes("riemann_trapezoid", 5)
        )
        assert_close(values[i], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rule", [*RULES, "riemann_trapezoid"])
def test_conductance_by_definition(rule):
    model, x, baseline = perceptron(), normal(3, 4), normal(3, 4, seed=1)
    values = LayerConductance(model, model[1]).attribute(x, baseline, 2, n_steps=7, method=rule)
    nodes, _ = path_nodes(rule, 7 if rule == "riemann_trapezoid" else 8)
    hidden = [model[:2](baseline + node * (x - baseline)).detach().requires_grad_() for node in nodes]
    slopes = [torch.autograd.grad(model[2](h)[:, 2].sum(), h)[0] for h in hidden]
    expected = sum((hidden[i + 1] - hidden[i]) * slopes[i] for i in range(7))
    assert_close(values, expected.detach(), rtol=1e-6, atol=1e-7)


def test_layer_integrated_gradients_of_a_linear_layer_are_those_of_its_inputs():
    model, x = perceptron(), normal(3, 4)
    found = LayerIntegratedGradients(model, model[0]).attribute(
        x, 0.5, target=1, attribute_to_layer_input=True, n_steps=9
    )
    torch.testing.assert_close(found, IntegratedGradients(model).attribute(x, 0.5, target=1, n_steps=9))
    values, delta = LayerIntegratedGradients(model, [model[1]]).attribute(
        x, 0.5, target=1, return_convergence_delta=True
    )
    change = model[:2](x) - model[:2](torch.full_like(x, 0.5))
    assert_close(values[0], (change * model[2].weight[1]).detach(), rtol=1e-6, atol=1e-9)
    assert delta.abs().max() < 1e-6


class Around(nn.Module):
    """Sequences first: a recurrent layer whose samples are along the second axis."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.rnn(x.movedim(0, 1))[0].mean(0))


def test_samples_first_also_for_layers_that_have_them_second():
    model, x = seeded(Around).double(), normal(2, 2, 3)  # as many steps as samples
    options = {"target": 1, "method": "riemann_trapezoid", "n_steps": 300}
    for kind in (LayerIntegratedGradients, LayerConductance):
        explain = kind(model, model.rnn)
        (values, *_), delta = explain.attribute(x, **options, return_convergence_delta=True)
        alone, *_ = explain.attribute(x[:1], **options)
        assert values.shape == (2, 2, 5)
        torch.testing.assert_close(values[:1], alone)
        assert delta.abs().max() < 1e-2


@pytest.mark.parametrize("kind", [IntegratedGradients, LayerIntegratedGradients, LayerConductance])
@pytest.mark.parametrize("rows", [1, 4, 7, 100])
def test_internal_batch_size_bounds_the_rows_of_a_pass(kind, rows):
    model = perceptron()
    layer = () if kind is IntegratedGradients else (model[1],)
    x, more = normal(6, 4), normal(6, 1, seed=1)
    expected = kind(lambda x, y: model(x) * y, *layer).attribute(x, 0.25, [0, 1, 2] * 2, more, 8)
    counting = Counting(lambda x, y: model(x) * y)
    found = kind(counting, *layer).attribute(x, 0.25, [0, 1, 2] * 2, more, 8, internal_batch_size=rows)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    # Layers are looked at with 2 and 3 rows; their path begins with a forward pass of all samples.
    first = {IntegratedGradients: 0, LayerIntegratedGradients: 6, LayerConductance: 3}[kind]
    assert max(counting.rows) <= max(rows, first)
    if rows == 100:
        assert max(counting.rows) >= 48


def test_batches_fit_the_default_budget():
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 4096), nn.Tanh(), nn.Linear(4096, 1)))
    counting = Counting(model)
    IntegratedGradients(counting).attribute(normal(300, 4, dtype=torch.float32))
    assert sum(counting.rows) > 300 * 50
    # A row saves 16 KiB for its gradient, and needs several times that on the way.
    assert 100 <= max(counting.rows) <= 2**26 // 2**14 // 3


def test_samples_that_cannot_be_separated_stay_together(monkeypatch):
    def score(x, flat):
        return (x * flat.reshape(-1, 4)).tanh().prod(1)

    x, flat = normal(3, 4), normal(12, seed=1)
    counting = Counting(score)
    whole = IntegratedGradients(score).attribute(x, additional_forward_args=flat, n_steps=8)
    found = IntegratedGradients(counting).attribute(
        x, additional_forward_args=flat, n_steps=8, internal_batch_size=1
    )
    assert set(counting.rows) == {3}
    torch.testing.assert_close(found, whole)
    calls = []

    def short_of_memory(self, samples, nodes, gradients=Passes.gradients):
        calls.append(len(nodes))
        return gradients(self, samples, nodes)

    monkeypatch.setattr(Passes, "gradients", short_of_memory)

    def hungry(x, flat):
        if len(x) > 3:
            raise MemoryError
        return score(x, flat)

    torch.testing.assert_close(
        IntegratedGradients(hungry).attribute(x, additional_forward_args=flat, n_steps=8), whole
    )
    assert calls[0] == 8


def test_conductance_with_less_memory_than_thought():
    model, x = perceptron(), normal(5, 4)

    def hungry(x):
        if len(x) > 3:
            raise MemoryError
        return model(x)

    options = {"target": 1, "n_steps": 6}
    torch.testing.assert_close(
        LayerConductance(hungry, model[1]).attribute(x, **options),
        LayerConductance(model, model[1]).attribute(x, **options),
    )

    def failing(x):
        raise MemoryError

    with pytest.raises(MemoryError):
        LayerConductance(failing, model[1]).attribute(x, **options)


def test_packed_sequences_have_no_layer_path():
    model = seeded(SequenceModel)
    x, lengths = normal(3, 6, 3, dtype=torch.float32), torch.tensor([6, 2, 4])
    with pytest.raises(ValueError, match="PackedSequence"):
        LayerIntegratedGradients(model, model.lstm).attribute(
            x, target=1, additional_forward_args=lengths, attribute_to_layer_input=True
        )


def test_inference_mode():
    model = perceptron()
    with torch.inference_mode():
        x = normal(3, 4) + 0
        for explain in (
            IntegratedGradients(model),
            LayerIntegratedGradients(model, model[1]),
            LayerConductance(model, model[1]),
        ):
            values, delta = explain.attribute(x, target=1, n_steps=40, return_convergence_delta=True)
            assert values.isfinite().all()
            assert delta.abs().max() < 0.2


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("three",), {}, TypeError, "inputs: wanted a torch tensor"),
        (([normal(3, 4)],), {}, TypeError, "inputs: wanted a torch tensor"),
        (((),), {}, ValueError, "inputs: wanted a tensor or a tuple"),
        ((normal(0, 4),), {}, ValueError, "not empty"),
        (((normal(3, 4), normal(2, 4)),), {}, ValueError, "equally many samples"),
        ((torch.tensor([[1.0, 2, float("nan"), 4]]),), {"target": 0}, ValueError, "nan at row 0, column 2"),
        ((normal(3, 4), normal(2, 4)), {"target": 0}, ValueError, "baselines"),
        ((normal(3, 4), (0, 0)), {"target": 0}, ValueError, "baselines: wanted a number or a tuple of 1"),
        ((normal(3, 4),), {}, ValueError, "target: wanted one that leaves one number"),
        ((normal(3, 4),), {"target": 3}, ValueError, "target: wanted 0 to 2 .* got 3"),
        ((normal(3, 4),), {"target": [0, 1, 7]}, ValueError, "target: wanted 0 to 2 .* got 7"),
        ((normal(3, 4),), {"target": [0, 1]}, ValueError, "for each of 3 sample"),
        ((normal(3, 4),), {"target": torch.tensor([0, 1])}, ValueError, "3 samples"),
        ((normal(3, 4),), {"target": (0, 0)}, ValueError, "at most 1 index"),
        ((normal(3, 4),), {"target": 1.5}, TypeError, "target: wanted None, an integer"),
        ((normal(3, 4),), {"target": True}, TypeError, "target: wanted None, an integer"),
        ((normal(3, 4),), {"target": torch.tensor([0.0, 1, 2])}, TypeError, "target: wanted integers"),
        ((normal(3, 4),), {"target": 0, "n_steps": 0}, ValueError, "n_steps"),
        ((normal(3, 4),), {"target": 0, "method": "simpson"}, ValueError, "method"),
        ((normal(3, 4),), {"target": 0, "internal_batch_size": 0}, ValueError, "internal_batch_size"),
    ],
)
@pytest.mark.parametrize("kind", [IntegratedGradients, LayerIntegratedGradients, LayerConductance])
def test_bad_arguments(kind, arguments, options, error, message):
    if kind is LayerIntegratedGradients and "nan" in message:
        pytest.skip("inputs are not what its path leads through")
    model = perceptron()
    explain = kind(model, *(() if kind is IntegratedGradients else (model[1],)))
    with pytest.raises(error, match=message):
        explain.attribute(*arguments, **options)


def test_bad_models_and_layers():
    model, x = perceptron(), normal(3, 4)
    with pytest.raises(TypeError, match="forward_func: wanted a torch module or a function"):
        IntegratedGradients("model")
    with pytest.raises(TypeError, match="layer: wanted a torch module"):
        LayerIntegratedGradients(model, "1")
    with pytest.raises(TypeError, match="layer: wanted one torch module"):
        LayerConductance(model, [model[1]])
    with pytest.raises(TypeError, match="forward_func: wanted a tensor as output, got tuple"):
        IntegratedGradients(lambda x: (x, x)).attribute(x)
    with pytest.raises(TypeError, match="floating-point output"):
        IntegratedGradients(lambda x: x.argmax(1)).attribute(x)
    for kind in (LayerIntegratedGradients, LayerConductance):
        with pytest.raises(ValueError, match="not called"):
            kind(model, nn.Linear(1, 1)).attribute(x, target=0)
        with pytest.raises(ValueError, match="'create_graph'"):
            kind(model, model[1]).attribute(x, target=0, grad_kwargs={"create_graph": True})
    with pytest.raises(ValueError, match="n_steps"):
        IntegratedGradients(model).attribute(x, target=0, n_steps=1, method="riemann_trapezoid")
    with pytest.raises(ValueError, match="additional_forward_args: wanted tensors with one row"):
        LayerConductance(lambda x, y: model(x), model[1]).attribute(
            x, target=0, additional_forward_args=normal(2)
        )
    with pytest.raises(ValueError, match="attributions: wanted one row for each of 3"):
        IntegratedGradients(model).compute_convergence_delta(x[:2], 0, x, target=0)


def test_refusals_are_assertion_errors_too():
    with pytest.raises(AssertionError, match="target"):
        IntegratedGradients(perceptron()).attribute(normal(3, 4))


def test_hooks_are_gone_after_an_error():
    model = perceptron()
    with pytest.raises(ValueError, match="target"):
        LayerIntegratedGradients(model, model[1]).attribute(normal(3, 4), target=9)
    assert not any(module._forward_hooks for module in model.modules())


def test_interpolate():
    values = normal(2, 3, 4, 4)
    larger = LayerConductance.interpolate(values, (8, 8))
    np.testing.assert_array_equal(larger.numpy(), values.numpy().repeat(2, 2).repeat(2, 3))
