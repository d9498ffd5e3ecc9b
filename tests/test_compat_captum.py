"""The drop-ins of qixai_fast.compat.captum beside Captum's classes: every rule, and models of every kind."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attributed_networks import SequenceModel, normal, seeded

from qixai_fast.compat import captum as ours

torch = pytest.importorskip("torch")
captum = pytest.importorskip("captum.attr")
nn = torch.nn

NAMES = ("IntegratedGradients", "LayerIntegratedGradients", "LayerConductance")
# All but the trapezoid, whose weights in Captum do not sum to 1; conductance uses nodes only.
RULES = ("riemann_left", "riemann_right", "riemann_middle", "gausslegendre")
TOLERANCE = {torch.float16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-12}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """More would wait for one another longer than they work on so little."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def flat(values):
    return [values] if isinstance(values, torch.Tensor) else [x for value in values for x in flat(value)]


def structure(values):
    if isinstance(values, torch.Tensor):
        return values.shape, values.dtype
    return type(values), [structure(value) for value in values]


def same(name, model, layer, *arguments, tolerance=None, multiply_by_inputs=None, **options):
    """Our values with their delta, once both are equal to Captum's."""
    own = () if layer is None else (layer,)
    more = {} if multiply_by_inputs is None else {"multiply_by_inputs": multiply_by_inputs}
    options = {"n_steps": 12, "return_convergence_delta": True} | options
    found, expected = (
        getattr(home, name)(model, *own, **more).attribute(*arguments, **options) for home in (ours, captum)
    )
    assert structure(found) == structure(expected)
    for value, theirs in zip(flat(found), flat(expected), strict=True):
        limit = (tolerance or TOLERANCE[theirs.dtype]) * max(1.0, theirs.abs().max().item())
        assert not value.requires_grad
        torch.testing.assert_close(value, theirs.detach(), rtol=0, atol=limit)
    return found


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2), nn.Flatten(), nn.Linear(5, 4)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", [*RULES, "riemann_trapezoid"])
def test_every_rule_on_a_cnn(rule, dtype):
    model = seeded(cnn).to(dtype)
    x, baseline = normal(3, 1, 7, 7, dtype=dtype), normal(3, 1, 7, 7, seed=1, dtype=dtype)
    for rows in (None, 8):
        options = {"target": [0, 3, 2], "method": rule, "internal_batch_size": rows}
        same("LayerConductance", model, model[3], x, baseline, **options)
        if rule != "riemann_trapezoid":
            same("IntegratedGradients", model, None, x, baseline, **options)
            same("LayerIntegratedGradients", model, model[2], x, baseline, **options)


@pytest.mark.parametrize("n_steps", [2, 7])
def test_trapezoid_weights_sum_to_one(n_steps):
    model = seeded(cnn).double()
    x = normal(2, 1, 7, 7)
    options = {"target": 1, "n_steps": n_steps, "method": "riemann_trapezoid"}
    for name, layer in (("IntegratedGradients", ()), ("LayerIntegratedGradients", (model[0],))):
        found, theirs = (
            getattr(home, name)(model, *layer).attribute(x, **options) for home in (ours, captum)
        )
        torch.testing.assert_close(found, theirs * n_steps / (n_steps - 1), rtol=1e-6, atol=1e-9)
    value, delta = ours.IntegratedGradients(lambda x: 3 * x.sum(1)).attribute(
        normal(2, 3), method="riemann_trapezoid", n_steps=n_steps, return_convergence_delta=True
    )
    torch.testing.assert_close(value, 3 * normal(2, 3), rtol=1e-12, atol=0)
    assert delta.abs().max() < 1e-12


def test_one_step():
    model = seeded(cnn)
    x = normal(2, 1, 7, 7, dtype=torch.float32)
    same("IntegratedGradients", model, None, x, target=1, n_steps=1)
    same("LayerIntegratedGradients", model, model[0], x, target=1, n_steps=1)
    for rule in (*RULES, "riemann_trapezoid"):
        same("LayerConductance", model, model[0], x, target=1, n_steps=1, method=rule)


@pytest.mark.parametrize("name", NAMES)
def test_lstm_with_packed_input(name):
    model = seeded(SequenceModel)
    x, lengths = normal(3, 6, 3, dtype=torch.float32), torch.tensor([6, 2, 4])
    layer = None if name == "IntegratedGradients" else model.head
    same(name, model, layer, x, 0.1, target=torch.tensor([1, 0, 3]), additional_forward_args=lengths)


class Reader(nn.Module):
    """Token ids, positions and a mask; an embedding, a transformer encoder, a head."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(11, 8), nn.Embedding(5, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, ids, places, padding=None):
        hidden = self.encoder(self.tokens(ids) + self.places(places), src_key_padding_mask=padding)
        return self.head(hidden.mean(1))


@pytest.mark.parametrize("rows", [None, 4])
def test_transformer_with_embeddings(rows):
    model = seeded(Reader)
    ids = torch.tensor([[1, 4, 10, 0, 2], [3, 3, 7, 9, 5]])
    places = torch.arange(5).repeat(2, 1)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    options = {"target": 2, "additional_forward_args": (places, padding), "internal_batch_size": rows}
    same("LayerIntegratedGradients", model, model.tokens, ids, 0, tolerance=1e-5, **options)
    layers = [model.tokens, model.places]
    found, _ = same(
        "LayerIntegratedGradients",
        model,
        layers,
        (ids, places),
        (torch.zeros_like(ids[:1]), 0),
        target=[(0,), (2,)],
        additional_forward_args=padding,
        internal_batch_size=rows,
    )
    assert [value.shape for value in found] == [(2, 5, 8)] * 2
    same(
        "LayerIntegratedGradients",
        model,
        [model.head],
        ids,
        multiply_by_inputs=False,
        tolerance=1e-5,
        **options,
    )


class Halves(nn.Module):
    def forward(self, x):
        return x[:, :2], torch.tanh(x[:, 2:])


class Pairs(nn.Module):
    """Two inputs, a layer that puts out two tensors, outputs of three axes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.halves = Halves()

    def forward(self, x, y, scale=1.0, shift=None):
        a, b = self.halves(torch.sigmoid(self.first(x)) * y)
        out = scale * torch.stack([a * b, a - b * b], 1)
        return out if shift is None else out + shift[:, None] * out**2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "target", [(1, 0), [(0, 1), (1, 1), (1, 0)]], ids=["a tuple for all", "a tuple for each"]
)
def test_tuples(name, target):
    model = seeded(Pairs).double()
    x, y = normal(3, 4), normal(3, 4, seed=1)
    layer = None if name == "IntegratedGradients" else model.halves
    options = {"target": target, "additional_forward_args": (0.5, normal(3, 2, seed=2))}
    values, delta = same(name, model, layer, (x, y), (0.25, normal(1, 4, seed=3)), **options)
    assert isinstance(values, tuple)
    assert delta.shape == (3,)
    if layer is not None:
        values, _ = same(name, model, layer, (x, y), attribute_to_layer_input=True, **options)
        assert isinstance(values, torch.Tensor)


@pytest.mark.parametrize(
    "target",
    [2, -1, torch.tensor(1), torch.tensor([1]), torch.tensor([0, 3, 3]), [0, 3, 3], (2,), [(1,), (0,), (3,)]],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_targets(name, target):
    model = seeded(lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))).double()
    same(name, model, None if name == "IntegratedGradients" else model[1], normal(3, 5), target=target)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 1, 1)])
def test_one_output_needs_no_target(shape):
    same("IntegratedGradients", lambda x: x.prod(1).reshape(-1, *shape[1:]), None, normal(3, 4))


@pytest.mark.parametrize("name", NAMES)
def test_one_output_for_the_whole_batch_is_a_sum(name):
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))).double()
    layer = None if name == "IntegratedGradients" else model[1]
    x = normal(3, 4)
    same(name, lambda x: model(x).sum().reshape(1), layer, x)
    same(name, lambda x: model(x).sum().reshape(1), layer, x, internal_batch_size=6)
    explain = getattr(ours, name)(
        *((lambda x: model(x).mean(),) if layer is None else (lambda x: model(x).mean(), layer))
    )
    with pytest.raises(ValueError, match="not the sum over the rows"):
        explain.attribute(x)


def test_half_precision():
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))).half()
    x = normal(3, 4).half()
    for name in NAMES:
        same(name, model, None if name == "IntegratedGradients" else model[1], x, target=1, tolerance=1e-2)


def test_integers_become_floats():
    weights = normal(4, dtype=torch.float32)
    x = torch.arange(12).reshape(3, 4)
    same("IntegratedGradients", lambda x: (x.float() * weights).pow(2).sum(1), None, x, 1, tolerance=1e-4)
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()))
    same("LayerConductance", lambda x: model(x.float()), model[0], x, 1, target=2)


@pytest.mark.parametrize("wrap", [(lambda x: x), (lambda x: (x,))], ids=["tensor", "tuple"])
@pytest.mark.parametrize(
    "baseline", [None, 0.5, 1, normal(1, 4), normal(3, 4), (normal(3, 4),), (0.5,)], ids=repr
)
def test_baselines(baseline, wrap):
    found, _ = same("IntegratedGradients", lambda x: x.prod(1), None, wrap(normal(3, 4)), baseline)
    assert type(found) is type(wrap(normal(3, 4)))


def test_a_layer_with_several_rows_a_sample():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.each, self.head = nn.Linear(3, 2), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(torch.tanh(self.each(x.reshape(-1, 3))).reshape(-1, 8))

    model = seeded(Flat).double()
    found = same(
        "LayerIntegratedGradients",
        model,
        model.each,
        normal(5, 4, 3),
        target=1,
        return_convergence_delta=False,
    )
    assert found.shape == (20, 2)


def test_tensors_of_other_lengths_are_repeated_for_each_node():
    def score(x, flat):
        return (x * flat.reshape(-1, 4)).tanh().prod(1)

    same("IntegratedGradients", score, None, normal(3, 4), additional_forward_args=normal(12, seed=1))
    same("IntegratedGradients", score, None, normal(1, 4), additional_forward_args=normal(4, seed=1))


def test_a_layer_that_is_called_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.Tanh()

        def forward(self, x):
            return self.act(self.second(self.act(self.first(x))))

    model = seeded(Twice).double()
    same("LayerConductance", model, model.act, normal(3, 4), target=1)
    same("LayerIntegratedGradients", model, model.act, normal(3, 4), target=1)


def test_inputs_and_models_stay_as_they_are(recwarn):
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2))).train()
    x = normal(3, 4, dtype=torch.float32).requires_grad_()
    with torch.no_grad():
        for name in NAMES:
            layer = () if name == "IntegratedGradients" else (model[0],)
            getattr(ours, name)(model, *layer).attribute(x, target=1, return_convergence_delta=True)
    assert model.training
    assert x.requires_grad
    assert x.grad is None
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not recwarn.list


def test_captum_smooths_over_ours():
    model = seeded(cnn)
    x = normal(2, 1, 7, 7, dtype=torch.float32)
    smooth = []
    for home in (ours, captum):
        torch.manual_seed(0)
        tunnel = captum.NoiseTunnel(home.IntegratedGradients(model))
        smooth.append(tunnel.attribute(x, nt_samples=4, stdevs=0.2, target=1, n_steps=8))
    torch.testing.assert_close(smooth[0], smooth[1].detach(), rtol=1e-5, atol=1e-6)


def test_scripted_models_and_data_parallel():
    model = seeded(cnn)
    x = normal(2, 1, 7, 7, dtype=torch.float32)
    same("IntegratedGradients", torch.jit.script(model), None, x, target=1)
    same("LayerConductance", nn.DataParallel(model), model[0], x, target=1)
    same("LayerIntegratedGradients", nn.DataParallel(model), model[0], x, target=1)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_theirs(name):
    def parameters(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    for method in ("__init__", "attribute", "compute_convergence_delta", "has_convergence_delta", "get_name"):
        mine, theirs = (getattr(getattr(home, name), method) for home in (ours, captum))
        assert parameters(mine) == parameters(theirs), method
    assert getattr(ours, name).get_name() == getattr(captum, name).get_name()


@pytest.mark.skipif("CAPTUM_CHECKOUT" not in os.environ, reason="Captum's wheels leave its tests out")
def test_captums_own_tests_pass(tmp_path):
    script, result = Path(__file__).parent / "run_captum_tests.py", tmp_path / "result.json"
    command = [sys.executable, str(script), os.environ["CAPTUM_CHECKOUT"], "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert len(json.loads(result.read_text())["reaching"]) >= 130
