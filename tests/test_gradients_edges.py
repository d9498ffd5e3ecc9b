"""Integrated gradients: what is refused, what is left as it was found, and the memory promise."""

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tqdm
from attributed_networks import budget_for

import qixai_fast as qf

torch = pytest.importorskip("torch")
nn = torch.nn

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def linear(n_classes=5):
    model = nn.Linear(3, n_classes)
    with torch.no_grad():
        model.weight.copy_(torch.arange(3.0 * n_classes).reshape(n_classes, 3) / 10)
    return model


# Refused before any compute


class Untouchable(nn.Module):
    """Fails the test that calls it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, *arguments):
        raise AssertionError("the model was called although the input is bad")


def with_value(value, row, column):
    x = X.clone()
    x[row, column] = value
    return x


@pytest.mark.parametrize(
    ("inputs", "options", "error", "message"),
    [
        (X.numpy(), {}, TypeError, "inputs: wanted a torch tensor, got ndarray"),
        (
            torch.arange(4),
            {},
            TypeError,
            "inputs: wanted a floating-point tensor, got torch.int64; .*embedding",
        ),
        (X.to(torch.complex64), {}, TypeError, "inputs: wanted a floating-point tensor, got torch.complex64"),
        ((), {}, ValueError, "inputs: .*empty tuple"),
        (torch.tensor(1.0), {}, ValueError, r"inputs: wanted shape \(n_samples, ...\), not empty, got \(\)"),
        (X[:0], {}, ValueError, r"inputs: .*not empty, got \(0, 3\)"),
        (X[:, :0], {}, ValueError, r"inputs: .*not empty, got \(4, 0\)"),
        ((X, X[:2]), {}, ValueError, r"inputs\[1\]: wanted as many samples as inputs\[0\] \(4\), got 2"),
        (
            (X, X.to("meta")),
            {},
            ValueError,
            r"inputs\[1\]: wanted all inputs on one device, got meta beside cpu",
        ),
        (X.to("meta"), {}, ValueError, "inputs: on meta, but the model is on cpu"),
        (with_value(np.nan, 2, 1), {}, ValueError, "inputs: nan at row 2, column 1"),
        ((X, with_value(-np.inf, 3, 0)), {}, ValueError, r"inputs\[1\]: -inf at row 3, column 0"),
        (X, {"baselines": with_value(np.nan, 0, 2)}, ValueError, "baselines: nan at row 0, column 2"),
        (X, {"baselines": np.inf}, ValueError, "baselines: inf at row 0"),
        (X, {"baselines": X[0]}, ValueError, r"baselines: .*\(4, 3\) as inputs, or \(1, 3\).*got \(3,\)"),
        (X, {"baselines": X.to("meta")}, ValueError, "baselines: on meta, but inputs are on cpu"),
        (X, {"baselines": "black"}, TypeError, "baselines: wanted a torch tensor, got str"),
        (X, {"baselines": X.to(torch.complex64)}, TypeError, "baselines: .*complex64"),
        ((X, X), {"baselines": (0,)}, ValueError, "baselines: wanted a number or a tuple of 2.*a tuple of 1"),
        ((X, X), {"baselines": X}, ValueError, "baselines: wanted a number or a tuple of 2.*got Tensor"),
        (X, {"target": 1.5}, TypeError, "target: .*got 1.5"),
        (X, {"target": "cat"}, TypeError, "target: .*got 'cat'"),
        (X, {"target": torch.ones(4)}, TypeError, "target: .*a tensor of torch.float32"),
        (X, {"target": torch.ones(4, dtype=torch.bool)}, TypeError, "target: .*a tensor of torch.bool"),
        (X, {"target": (1, 2.0)}, TypeError, "target: wanted a tuple of integers"),
        (
            X,
            {"target": [0, 1]},
            ValueError,
            r"target: wanted one index a sample \(4 samples\), got shape \(2,\)",
        ),
        (X, {"method": "boole"}, ValueError, "method: wanted one of 'riemann_left'"),
        (X, {"n_steps": 0}, ValueError, "n_steps: wanted at least 1, got 0"),
        (X, {"n_steps": 2.5}, TypeError, "n_steps: wanted an integer, got float"),
        (X, {"n_steps": 3, "method": "simpson"}, ValueError, "n_steps: 'simpson' wants an even number"),
        (
            X,
            {"tol": 0.1, "method": "gausslegendre"},
            ValueError,
            "method: tol reuses .* 'gausslegendre' cannot",
        ),
        (X, {"tol": 0.1, "method": "simpson"}, ValueError, "method: tol reuses .* 'simpson' cannot"),
        (X, {"tol": 0}, ValueError, "tol: wanted a positive number, got 0"),
        (X, {"tol": np.nan}, ValueError, "tol: wanted a positive number, got nan"),
        (X, {"tol": "1%"}, TypeError, "tol: wanted a number, got str"),
        (X, {"tol": 0.1, "atol": 0.0}, ValueError, "atol: wanted a positive number"),
        (X, {"tol": 0.1, "max_n_steps": 10}, ValueError, "max_n_steps: .*wanted at least 11, got 10"),
    ],
)
def test_bad_input_is_refused_before_the_model_is_called(inputs, options, error, message):
    with pytest.raises(error, match=message):
        qf.integrated_gradients(Untouchable(), inputs, **options)


def test_a_model_that_cannot_be_called():
    with pytest.raises(TypeError, match="model: wanted a torch module or a function, got str"):
        qf.integrated_gradients("resnet", X)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (linear(), {}, ValueError, r"target: None is for one output.*\(n, 5\); name a class \(0 to 4\)"),
        (linear(), {"target": 5}, ValueError, r"target: wanted 0 to 4 for outputs of shape \(n, 5\), got 5"),
        (linear(), {"target": -1}, ValueError, "target: wanted 0 to 4 .*got -1"),
        (linear(), {"target": [0, 1, 2, 7]}, ValueError, "target: wanted 0 to 4 .*got 7 for sample 3"),
        (linear(), {"target": (1, 1)}, ValueError, r"target: wanted 1 index\(es\) a sample.*got 2"),
        (
            lambda x: x.sum(1),
            {"target": 0},
            ValueError,
            r"target: wanted None for outputs of shape \(n,\), got 1",
        ),
        (lambda x: x.sum(), {}, ValueError, r"model: wanted one row of output for each row .*shape \(\)"),
        (lambda x: x[:1], {"target": 0}, ValueError, r"model: .*shape \(1, 3\) for 2 row\(s\)"),
        (
            lambda x: (x, x),
            {"target": 0},
            TypeError,
            "model: wanted a tensor as output, got tuple; give target",
        ),
        (lambda x: x.argmax(1), {}, TypeError, "model: wanted a floating-point output, got torch.int64"),
        (lambda x: x.detach().sum(1), {}, ValueError, "model: its output does not depend on the inputs"),
        (linear(), {"target": lambda output: output}, ValueError, r"target: the callable .*\(2,\).*\(2, 5\)"),
        (linear(), {"target": lambda output: output.argmax(1)}, ValueError, "target: the callable .*int64"),
        (linear(), {"target": lambda output: 1.0}, ValueError, "target: the callable .*float"),
        (
            linear().double(),
            {"target": 0},
            TypeError,
            "inputs: torch.float32, but .* weights are torch.float64",
        ),
        (
            lambda x: torch.log(x.abs()).sum(1),
            {},
            ValueError,
            "model: output -inf at the baseline of sample 0",
        ),
        (lambda x: torch.log(x - x[:, :1]).sum(1), {}, ValueError, "model: output -?(inf|nan) at the"),
    ],
)
def test_models_and_targets_that_do_not_fit(model, options, error, message):
    with pytest.raises(error, match=message):
        qf.integrated_gradients(model, X, **options)


def test_a_model_that_squeezes_its_batch_away_is_named():
    """One row left over in the last pass: the output loses its batch axis."""
    model = lambda x: (x @ torch.ones(3, 2)).squeeze()  # noqa: E731
    two_rows = budget_for(2, model, X[:3], target=0)
    with pytest.raises(ValueError, match=r"model: wanted one row of output.* got shape \(2,\) for 1 row"):
        qf.integrated_gradients(model, X[:3], target=0, n_steps=1, max_memory=two_rows)


def test_the_bad_sample_is_named_by_its_place_among_all():
    def model(x):
        return torch.where(x[:, 0] == 7, torch.nan, x.sum(1))

    good = torch.ones(9, 3)
    x = good.clone()
    x[6, 0] = 7
    for max_memory in (None, budget_for(2, model, good)):
        with pytest.raises(ValueError, match="model: output nan at the input of sample 6"):
            qf.integrated_gradients(model, x, max_memory=max_memory)


def test_gradients_that_are_not_finite_give_a_warning_and_no_certificate():
    model = lambda x: x.abs().sqrt().sum(1)  # noqa: E731
    x = X.abs().clone()
    x[1] = 0
    baselines = torch.ones(4, 3)
    with pytest.warns(RuntimeWarning, match=r"not finite on the path of 1 sample\(s\), first sample 1"):
        result = qf.integrated_gradients(
            model, x, baselines=baselines, method="riemann_trapezoid", tol=0.1, n_steps=20
        )
    assert result.delta.isfinite().tolist() == [True, False, True, True]
    assert result.converged.tolist() == [True, False, True, True]
    assert result.n_steps[1] == 41  # finer steps could not help


# Left as it was found


def test_model_and_inputs_are_left_as_they_were():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 4)
            self.norm = nn.BatchNorm1d(4)
            self.drop = nn.Dropout(0.5)
            self.last = nn.Linear(4, 2)

        def forward(self, x, extra):
            x += extra  # in place, on what the caller gave
            return self.last(self.drop(self.norm(nn.functional.relu(self.first(x), inplace=True))))

    model = Model().eval()
    model.drop.train()
    model.drop.p = 0.0
    model.first.bias.requires_grad_(False)
    model.last.weight.grad = torch.full_like(model.last.weight, 3.0)
    calls = []
    model.first.register_forward_hook(lambda *a: calls.append(1))
    x = X.clone().requires_grad_()
    extra = torch.ones(4, 3, requires_grad=True)

    def state():
        return [
            [module.training for module in model.modules()],
            [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()],
            {name: tensor.tolist() for name, tensor in model.state_dict().items()},
            [[len(m._forward_hooks), len(m._backward_hooks)] for m in model.modules()],
            [x.tolist(), x.grad, x.requires_grad, extra.tolist(), extra.grad, torch.is_grad_enabled()],
        ]

    before = state()
    result = qf.integrated_gradients(model, x, target=1, additional_forward_args=extra, n_steps=5)
    assert state() == before
    assert calls
    assert not result.values.requires_grad
    assert not result.delta.requires_grad
    with pytest.raises(ValueError, match="target"):
        qf.integrated_gradients(model, x, target=9, additional_forward_args=extra)
    assert state() == before


def test_an_in_place_first_layer_is_no_obstacle():
    model = nn.Sequential(nn.ReLU(inplace=True), linear(1))
    x = X.clone()
    result = qf.integrated_gradients(model, x)
    assert torch.equal(x, X)
    torch.testing.assert_close(result.values, X.clamp(min=0) * model[1].weight.detach())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradients_inside_a_context_that_turns_them_off(context):
    model = linear()
    target, scale = torch.tensor([0, 1, 2, 3]), torch.full((3,), 2.0)
    scaled = lambda x, scale: model(x * scale)  # noqa: E731
    expected = qf.integrated_gradients(scaled, X, target=target, additional_forward_args=scale)
    with context():
        inputs = X.clone()
        result = qf.integrated_gradients(
            scaled, inputs, target=target.clone(), baselines=0 * inputs, additional_forward_args=scale.clone()
        )
        assert not torch.is_grad_enabled()
        one = qf.integrated_gradients(model, inputs, target=torch.tensor([3])).values
    assert torch.equal(result.values, expected.values)
    assert torch.equal(one, qf.integrated_gradients(model, X, target=3).values)
    assert not result.values.is_inference()


def test_read_only_numpy_memory_behind_a_tensor():
    array = np.ones((2, 3), dtype=np.float32)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it cannot mark a tensor read-only
        x = torch.from_numpy(array)
    result = qf.integrated_gradients(lambda x: x.mul_(2).sum(1), x)
    assert (array == 1).all()
    torch.testing.assert_close(result.values, torch.full((2, 3), 2.0))


# Warnings about the mode


@pytest.mark.parametrize(
    ("layer", "mode", "named"),
    [
        (nn.Dropout(0.5), "train", True),
        (nn.Dropout(0.0), "train", False),
        (nn.Dropout(0.5), "eval", False),
        (nn.BatchNorm1d(3), "train", True),
        (nn.BatchNorm1d(3), "eval", False),
        (nn.BatchNorm1d(3, track_running_stats=False), "eval", True),
        (nn.LayerNorm(3), "train", False),
    ],
)
def test_layers_that_make_gradients_unsteady_are_named(layer, mode, named):
    model = nn.Sequential(layer, linear(1))
    getattr(model, mode)()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        qf.integrated_gradients(model, X, n_steps=2)
    messages = [str(w.message) for w in caught]
    assert bool(messages) == named
    if named:
        assert re.match(r"model: 0: dropout or batch statistics are active, .*model.eval\(\)", messages[0])
        assert caught[0].filename == __file__
    assert model.training == (mode == "train")


def test_progress_bar(capsys, monkeypatch):
    """One over all baselines, on stderr; short calls print nothing."""
    options = {"n_steps": 2, "tol": 1e-3, "baselines": [0, 1, X]}
    qf.integrated_gradients(linear(1), X, **options, progress=True)
    assert capsys.readouterr().err == ""

    class AtOnce(tqdm.tqdm):
        def __init__(self, *arguments, delay, **options):
            assert 0.5 <= delay <= 2
            super().__init__(*arguments, mininterval=0, **options)

    monkeypatch.setattr(tqdm, "tqdm", AtOnce)
    qf.integrated_gradients(linear(1), X, **options, progress=True)
    shown = capsys.readouterr()
    assert "integrated gradients: " in shown.err
    assert "20/60" in shown.err
    assert "60/60" in shown.err  # four samples, five nodes, three baselines
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    qf.integrated_gradients(linear(1), X, **options)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("layer", [None, "1"])
def test_several_baselines_give_one_warning(layer):
    model = nn.Sequential(nn.Dropout(0.5), linear(2))
    with pytest.warns(UserWarning, match="dropout or batch statistics") as caught:
        qf.integrated_gradients(model, X, baselines=[0, 1, X], target=0, layer=layer, n_steps=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_torch_is_not_imported_with_the_module():
    code = (
        "import sys, qixai_fast.gradients; assert 'torch' not in sys.modules and 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Memory


_PEAK = """
import resource, sys, torch, qixai_fast as qf
from torch import nn

if sys.argv[1] == "convolutions":  # 160 MB of activations, if all samples went at once
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    ).eval()
    x = torch.randn(200, 3, 32, 32)
else:  # 150 MB of sums alone
    model, x = nn.Linear(20_000, 4), torch.randn(300, 20_000)

def high_water():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

qf.integrated_gradients(model, x[:1], target=1, n_steps=1)
before = high_water()
result = qf.integrated_gradients(model, x, target=1, n_steps=1, tol=1e-9, max_n_steps=3, max_memory="32MiB")
print(high_water() - before - result.values.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kB on Linux")
@pytest.mark.parametrize("model", ["convolutions", "wide"])
def test_budget_is_kept(model):
    """Measured as the high-water mark of a process of its own."""
    run = subprocess.run([sys.executable, "-c", _PEAK, model], check=True, capture_output=True, text=True)
    assert int(run.stdout) <= 32 * 2**20
