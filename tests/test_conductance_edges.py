"""Layer conductance: the certificate, batches, what is refused, and what is left as it was found."""

import subprocess
import sys

import pytest
from attributed_networks import Encoder, SequenceModel, cnn, normal, seeded

import qixai_fast as qf
from qixai_fast._path_passes import TORCH_OWN

torch = pytest.importorskip("torch")
nn = torch.nn

X = normal(4, 3).float()


def mlp():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def budget_for(rows, *arguments, **options):
    with pytest.raises(qf.MemoryBudgetError, match="max_memory: one gradient needs") as caught:
        qf.layer_conductance(*arguments, **options, max_memory=1)
    return caught.value.required + (rows - 1) * (caught.value.required - TORCH_OWN)


# The certificate


def test_tolerance_is_met_and_only_hard_samples_go_on():
    model = seeded(mlp).double()
    x = normal(12, 3) * torch.logspace(-2, 1.5, 12).double()[:, None]
    result = qf.layer_conductance(model, x, "*", target=0, tol=1e-3, n_steps=2)
    with torch.no_grad():
        change = (model(x) - model(0 * x[:1]))[:, 0]
    for attribution in result.values():
        assert attribution.converged.all()
        assert (attribution.delta.abs() <= 1e-3 * change.abs().clamp(min=1e-3)).all()
        assert len(attribution.n_steps.unique()) > 2
        assert (attribution.n_gradients >= attribution.n_steps).all()
        assert torch.equal(attribution.n_steps, result["0"].n_steps)
    fine = qf.layer_conductance(model, x, "*", target=0, n_steps=3000)
    for name, attribution in result.items():
        size = fine[name].values.abs().amax(1, keepdim=True)
        assert ((attribution.values - fine[name].values).abs() <= 3e-3 * size).all()


def test_completeness_alone_is_not_enough():
    """Two units' errors cancel in the sum at every number of steps."""
    units = nn.Identity()

    def model(x):
        a = units(x)
        bump = torch.sin(8 * torch.pi * a)
        return bump[:, 0] - bump[:, 1] + a.sum(1)

    same = torch.ones(1, 2, dtype=torch.float64)
    equal = "riemann_trapezoid"
    coarse = qf.layer_conductance(model, same, units, n_steps=4, method=equal)["Identity"]
    assert abs(float(coarse.delta)) < 1e-9
    assert (coarse.values - 1).abs().max() > 1
    unstable = qf.layer_conductance(model, same, units, tol=1e-2, n_steps=4, max_n_steps=8, method=equal)[
        "Identity"
    ]
    assert not unstable.converged.any()
    stable = qf.layer_conductance(model, same, units, tol=1e-2, n_steps=4, max_n_steps=400)["Identity"]
    assert stable.converged.all()
    assert (stable.values - 1).abs().max() < 0.02


def test_a_step_that_the_nodes_miss_is_not_called_converged():
    units = nn.Identity()
    model = lambda x: (units(x) + 5 * torch.sigmoid(1e7 * (units(x) - 0.28)))[:, 0]  # noqa: E731
    result = qf.layer_conductance(model, torch.ones(1, 1).double(), units, tol=1e-2, max_n_steps=40)
    attribution = result["Identity"]
    assert not attribution.converged.any()
    assert float(attribution.delta) == pytest.approx(-5, rel=1e-6)


# Batches and memory


@pytest.mark.parametrize("kind", ["cnn", "lstm", "packed"])
def test_any_batch_gives_the_same_values(kind):
    if kind == "cnn":
        model, x, layers, extra = seeded(cnn).double(), normal(7, 1, 4, 4), ["0", "3", "9"], ()
    else:
        model, x, layers = seeded(SequenceModel).double(), normal(7, 5, 3), ["lstm", "head"]
        extra = torch.tensor([3, 5, 1, 2, 2, 4, 1]) if kind == "packed" else ()
    options = {
        "target": torch.tensor([0, 1, 2, 3, 3, 2, 1]),
        "additional_forward_args": extra,
        "n_steps": 3,
        "tol": 1e-2,
        "max_n_steps": 6,
    }
    expected = qf.layer_conductance(model, x, layers, **options)
    for rows in (2, 9):
        budget = budget_for(rows, model, x, layers, **options)
        result = qf.layer_conductance(model, x, layers, **options, max_memory=budget)
        for name, attribution in result.items():
            torch.testing.assert_close(attribution.values, expected[name].values, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(attribution.delta, expected[name].delta, rtol=1e-7, atol=1e-11)
            assert torch.equal(attribution.n_steps, expected[name].n_steps)
            assert torch.equal(attribution.converged, expected[name].converged)


def test_memory_that_runs_out_halves_the_batch():
    model, sizes = seeded(mlp), []

    def limited(x):
        sizes.append(len(x))
        if len(x) > 6:
            raise torch.OutOfMemoryError("too much")
        return model(x)

    expected = qf.layer_conductance(model, X, "*", target=0, n_steps=10)
    result = qf.layer_conductance(limited, X, [model[0], model[2]], target=0, n_steps=10)
    assert max(sizes) > 6
    torch.testing.assert_close(result["Linear"].values, expected["0"].values)
    torch.testing.assert_close(result["Linear#2"].delta, expected["2"].delta, rtol=0, atol=1e-6)

    def hopeless(x):
        if len(x) > 3:
            raise torch.OutOfMemoryError("too much")
        if sizes == "broken":
            raise torch.OutOfMemoryError("far too much")
        return model(x)

    qf.layer_conductance(hopeless, X, model[0], target=0, n_steps=1)
    sizes = "broken"
    with pytest.raises(torch.OutOfMemoryError, match="far too much"):
        qf.layer_conductance(hopeless, X, model[0], target=0, n_steps=1)


_PEAK = """
import resource, torch, qixai_fast as qf
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
).eval()
x = torch.randn(40, 3, 32, 32)

def high_water():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

layers = ["0", "1", "2", "3"]
qf.layer_conductance(model, x[:1], layers, target=1, n_steps=1, max_memory="48MiB")
before = high_water()
result = qf.layer_conductance(
    model, x, layers, target=1, n_steps=1, tol=1e-9, max_n_steps=4, max_memory="48MiB"
)
print(high_water() - before - sum(result[name].values.nbytes for name in layers))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kB on Linux")
def test_budget_is_kept():
    """Measured as the high-water mark of a process of its own."""
    run = subprocess.run([sys.executable, "-c", _PEAK], check=True, capture_output=True, text=True)
    assert int(run.stdout) <= 48 * 2**20


# Refused


def with_value(value, row, column):
    x = X.clone()
    x[row, column] = value
    return x


class Untouchable(nn.Module):
    """Fails the test that calls it."""

    def __init__(self):
        super().__init__()
        self.part = nn.Linear(3, 1)

    def forward(self, *arguments):
        raise AssertionError("the model was called although the input is bad")


@pytest.mark.parametrize(
    ("inputs", "layers", "options", "error", "message"),
    [
        (X, "parts", {}, ValueError, "layers: 'parts' matches no module of the model; nearest: 'part'"),
        (X, [], {}, ValueError, "layers: wanted at least one layer, got none"),
        (X, {}, {}, ValueError, "layers: wanted at least one layer, got none"),
        (X, 3, {}, TypeError, "layers: wanted module names or modules, got int"),
        (X, ["part", 3], {}, TypeError, "layers: wanted module names or modules, got int"),
        (X, {"part": 3}, {}, TypeError, "layers: wanted names and modules, got 'part': int"),
        (X.long(), "part", {}, TypeError, r"inputs: .*torch.int64.*integrated_gradients\(..., layer=...\)"),
        ((X, X.long()), "part", {}, TypeError, "inputs: .*torch.int64"),
        (X.numpy(), "part", {}, TypeError, "inputs: wanted a torch tensor, got ndarray"),
        (with_value(torch.nan, 2, 1), "part", {}, ValueError, "inputs: nan at row 2, column 1"),
        (X, "part", {"baselines": torch.inf}, ValueError, "baselines: inf at row 0"),
        (X, "part", {"n_steps": 0}, ValueError, "n_steps: wanted at least 1, got 0"),
        (X, "part", {"method": "simpson"}, ValueError, "method: wanted one of 'chebyshev', 'riemann_trap"),
        (X, "part", {"tol": 0}, ValueError, "tol: wanted a positive number, got 0"),
        (X, "part", {"tol": 0.1, "max_n_steps": 19}, ValueError, "max_n_steps: .*at least 20, got 19"),
        (X, "part", {"attribute_to_layer_input": 1}, TypeError, "attribute_to_layer_input: .*got int"),
    ],
)
def test_bad_input_is_refused_before_the_model_is_called(inputs, layers, options, error, message):
    with pytest.raises(error, match=message):
        qf.layer_conductance(Untouchable(), inputs, layers, **options)


def test_names_need_a_torch_module():
    with pytest.raises(
        TypeError, match="layers: names such as '0' need a torch module as model, got function"
    ):
        qf.layer_conductance(lambda x: x.sum(1), X, "0")


class Odd(nn.Module):
    """Hands on what has no row for each sample."""

    def __init__(self, kind):
        super().__init__()
        self.layer, self.head, self.kind = nn.Identity(), nn.Linear(3, 1), kind

    def forward(self, x):
        if self.kind == "ids":
            self.layer(x.argmax(1))
        elif self.kind == "table":
            self.layer(self.head.weight)
        elif self.kind == "folded":
            return self.head(self.layer(x.repeat_interleave(2, 0))[::2])
        elif self.kind == "often":
            for row in x:
                self.layer(row)
        elif self.kind == "not square":
            self.layer(x[:, :1])
            self.layer(x)
        return self.head(x)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "layers: 'layer' was not called in the forward pass"),
        ("ids", "layers: 'layer' puts out no floating-point tensor; token ids and other integers"),
        (
            "table",
            r"layers: 'layer' puts out shape \(1, 3\) for 2 samples and \(1, 3\) for 3; wanted one axis",
        ),
        ("folded", r"layers: 'layer' puts out shape \(4, 3\) for 2 samples and \(6, 3\) for 3"),
        ("often", r"layers: 'layer' was called 2 time\(s\) for 2 samples and 3 for 3"),
        ("not square", r"layers: 'layer' hands on shapes \(4, 1\) and \(4, 3\) in different calls"),
    ],
)
def test_layers_without_a_row_for_each_sample(kind, message):
    model = Odd(kind)
    with pytest.raises(ValueError, match=message):
        qf.layer_conductance(model, X, "layer")
    assert not model.layer._forward_hooks


def test_the_bad_sample_is_named_by_its_place_among_all():
    layer = nn.Linear(3, 1)
    model = lambda x: torch.where(x[:, 0] == 7, torch.nan, layer(x)[:, 0])  # noqa: E731
    x = torch.ones(9, 3)
    x[6, 0] = 7
    for max_memory in (None, budget_for(2, model, torch.ones(9, 3), layer)):
        with pytest.raises(ValueError, match="model: output nan at the input of sample 6"):
            qf.layer_conductance(model, x, layer, max_memory=max_memory)


def test_what_is_not_finite_on_the_path_gives_a_warning():
    roots = nn.Identity()
    model = lambda x: roots(x).abs().sqrt().sum(1)  # noqa: E731
    x = torch.ones(3, 2)
    x[1] = -1
    with pytest.warns(RuntimeWarning, match=r"'Identity' are not finite .* 1 sample\(s\), first sample 1"):
        result = qf.layer_conductance(model, x, roots, baselines=1, n_steps=4, tol=0.5)["Identity"]
    assert result.delta.isfinite().tolist() == [True, False, True]
    assert result.converged.tolist() == [True, False, True]


# Left as it was found


def test_model_and_inputs_are_left_as_they_were():
    model = seeded(cnn)
    model[4].bias.requires_grad_(False)
    model[0].weight.grad = torch.full_like(model[0].weight, 3.0)
    model[9].register_forward_hook(lambda *arguments: None)
    x = normal(3, 1, 8, 8).float().requires_grad_()

    def state():
        return [
            [module.training for module in model.modules()],
            [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()],
            {name: tensor.tolist() for name, tensor in model.state_dict().items()},
            [[len(m._forward_hooks), len(m._forward_pre_hooks)] for m in model.modules()],
            [x.tolist(), x.grad, torch.is_grad_enabled(), torch.random.get_rng_state().tolist()],
            torch.backends.mha.get_fastpath_enabled(),
        ]

    before = state()
    for layers, options in ((["0", "4"], {}), ("9", {"attribute_to_layer_input": True})):
        result = qf.layer_conductance(model, x, layers, target=1, n_steps=3, **options)
        assert state() == before
        assert not any(a.values.requires_grad or a.delta.requires_grad for a in result.values())
    with pytest.raises(ValueError, match="target"):
        qf.layer_conductance(model, x, ["0"], target=9)
    model[7].forward = None
    with pytest.raises(TypeError):
        qf.layer_conductance(model, x, ["0", "4"], target=1)
    assert state() == before


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradients_inside_a_context_that_turns_them_off(context):
    model = seeded(mlp)
    expected = qf.layer_conductance(model, X, "1", target=1)["1"].values
    with context():
        result = qf.layer_conductance(model, X.clone(), "1", target=1)["1"].values
    assert torch.equal(result, expected)


def test_frozen_models_and_layers_without_gradient_upstream():
    """What does not depend on the inputs differentiably has a gradient all the same."""
    layer = nn.Linear(3, 4).requires_grad_(False)
    model = lambda x: torch.relu(layer(x.detach())).sum(1) + x.sum(1)  # noqa: E731
    result = qf.layer_conductance(model, X, layer, n_steps=400)["Linear"]
    with torch.no_grad():
        change = torch.relu(layer(X)).sum(1) - torch.relu(layer(0 * X)).sum(1)
    torch.testing.assert_close(result.values.sum(1), change, rtol=1e-2, atol=1e-3)
    assert "goes around" in result.note


def test_every_activation_that_works_in_place_is_seen_through():
    """ReLU, addition and masking in place, one after the other, each a layer."""

    class InPlace(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            self.first, self.relu, self.drop = nn.Linear(3, 6), nn.ReLU(in_place), nn.Dropout(0.5)
            self.last, self.in_place = nn.Linear(6, 2), in_place

        def forward(self, x):
            x = self.relu(self.first(x))
            y = self.drop(x)  # in evaluation mode the same tensor
            y = y.add_(1) if self.in_place else y + 1
            return self.last(y)

    names = ["first", "relu", "drop", "last"]
    one, other = (qf.layer_conductance(seeded(lambda p=p: InPlace(p)), X, names, target=0) for p in (0, 1))
    for name in names:
        torch.testing.assert_close(one[name].values, other[name].values, rtol=1e-6, atol=1e-7)


def test_parts_of_a_frozen_transformer_are_called():
    padding = torch.zeros(2, 6, dtype=torch.bool)
    model = seeded(Encoder).requires_grad_(False)
    result = qf.layer_conductance(
        model, normal(2, 6, 8).float(), ["encoder.layers.0.self_attn", "head"],
        target=0, additional_forward_args=padding, n_steps=2,
    )  # fmt: skip
    assert result["encoder.layers.0.self_attn"].values.shape == (2, 6, 8)


def test_progress_bar(capsys):
    qf.layer_conductance(seeded(mlp), X, "1", target=0, n_steps=2, progress=True)
    assert "12/12" in capsys.readouterr().err
    qf.layer_conductance(seeded(mlp), X, "1", target=0, n_steps=2)
    assert capsys.readouterr().err == ""
