"""Integrated gradients: closed forms, completeness, and models of several kinds."""

import numpy as np
import pytest
import reference
from attributed_networks import Encoder, SequenceModel, assert_close, budget_for, cnn, normal, seeded
from hypothesis import given, settings
from hypothesis import strategies as st

import qixai_fast as qf
from qixai_fast.quadrature import METHODS, path_nodes

torch = pytest.importorskip("torch")
nn = torch.nn


# Closed forms


@pytest.mark.parametrize("method", METHODS)
def test_linear_model_is_exact_with_every_rule(method):
    weight, x, baseline = normal(6), normal(5, 6, seed=1), normal(5, 6, seed=2)
    result = qf.integrated_gradients(
        lambda x: x @ weight + 3, x, baselines=baseline, method=method, n_steps=8
    )
    assert_close(result.values, weight * (x - baseline), rtol=1e-12, atol=1e-14)
    assert result.delta.abs().max() < 1e-12
    assert result.converged is None
    assert result.n_steps.tolist() == [8] * 5
    assert result.n_gradients.tolist() == [len(path_nodes(method, 8)[0])] * 5


@pytest.mark.parametrize("method", ["riemann_middle", "riemann_trapezoid", "simpson", "gausslegendre"])
def test_quadratic_is_exact_with_rules_of_degree_one_and_more(method):
    """For F = x^T A x / 2 the attribution is (x - x') * A (x + x') / 2."""
    A = normal(5, 5)
    A = A + A.T
    x, baseline = normal(7, 5, seed=1), normal(1, 5, seed=2)
    result = qf.integrated_gradients(
        lambda x: ((x @ A) * x).sum(1) / 2, x, baselines=baseline, method=method, n_steps=2
    )
    assert_close(result.values, (x - baseline) * ((x + baseline) / 2 @ A), rtol=1e-12, atol=1e-13)
    assert result.delta.abs().max() < 1e-12


@settings(max_examples=20, deadline=None)
@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(-50, 50), st.floats(-50, 50))
def test_product_of_two_inputs(x, y, x0, y0):
    result = qf.integrated_gradients(
        lambda z: z[:, 0] * z[:, 1],
        torch.tensor([[x, y]], dtype=torch.float64),
        baselines=torch.tensor([[x0, y0]], dtype=torch.float64),
        n_steps=1,
    )
    expected = [[(x - x0) * (y + y0) / 2, (y - y0) * (x + x0) / 2]]
    assert_close(result.values, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("kink", [0.1, 0.25, 0.5, 0.85])
def test_relu_kink_costs_at_most_half_a_step(kink):
    """relu(x - kink) on [0, 1] is 1 - kink; a rule can misplace the kink by half an interval."""
    x = torch.ones(1, 1, dtype=torch.float64)
    for n_steps in (5, 50, 500):
        result = qf.integrated_gradients(lambda x: torch.relu(x[:, 0] - kink), x, n_steps=n_steps)
        assert abs(float(result.values) - (1 - kink)) <= 0.5 / n_steps + 1e-12
        assert float(result.delta) == pytest.approx(float(result.values) - (1 - kink), abs=1e-12)


def test_piecewise_model_with_known_parts():
    """max(x, y) on a path that crosses the diagonal at a = 1/2: each input accounts for its own part."""
    baseline, x = torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[3.0, 4.0]]).double()
    # x - y = 2 - 3a changes sign at a = 2/3: x is the maximum before it, y after it
    result = qf.integrated_gradients(lambda z: z.amax(1), x, baselines=baseline, n_steps=3000)
    assert_close(result.values, [[1 * 2 / 3, 4 * 1 / 3]], atol=2e-3)
    assert abs(float(result.delta)) < 2e-3


def test_smooth_function_against_many_points():
    x = normal(3, 4)
    score = lambda x: torch.tanh(3 * x).prod(1) + torch.exp(x.sin()).sum(1)  # noqa: E731
    many = qf.integrated_gradients(score, x, n_steps=3000)
    for method, n_steps, error in (
        ("gausslegendre", 20, 1e-6),
        ("simpson", 60, 1e-4),
        ("riemann_left", 50, 0.2),
    ):
        result = qf.integrated_gradients(score, x, method=method, n_steps=n_steps)
        assert (result.values - many.values).abs().max() < error


# Beside the slow reference


@pytest.mark.parametrize("method", METHODS)
def test_cnn_agrees_with_the_reference(method):
    model = seeded(cnn)
    x, baseline = normal(4, 1, 8, 8, dtype=torch.float32), normal(4, 1, 8, 8, seed=1, dtype=torch.float32) / 4
    target = torch.tensor([0, 3, 4, 1])
    result = qf.integrated_gradients(model, x, baselines=baseline, target=target, method=method, n_steps=6)
    assert result.values.dtype == torch.float32
    for i in range(4):
        values, delta = reference.integrated_gradients(
            lambda point, i=i: model(point)[:, target[i]], x[i], baseline[i], *path_nodes(method, 6)
        )
        assert_close(result.values[i], values, rtol=1e-4, atol=1e-6)
        assert float(result.delta[i]) == pytest.approx(delta, abs=1e-5)


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 2, 7])])
def test_lstm_with_packed_sequences_agrees_with_the_reference(lengths):
    model = seeded(SequenceModel).double()
    x = normal(3, 7, 3)
    result = qf.integrated_gradients(
        model, x, target=2, n_steps=9, additional_forward_args=() if lengths is None else lengths
    )
    for i in range(3):
        own = None if lengths is None else lengths[i : i + 1]
        values, delta = reference.integrated_gradients(
            lambda point, own=own: model(point, own)[:, 2], x[i], 0 * x[i], *path_nodes("riemann_middle", 9)
        )
        assert_close(result.values[i], values, rtol=1e-10, atol=1e-12)
        assert float(result.delta[i]) == pytest.approx(delta, abs=1e-12)
        if own is not None:
            assert (result.values[i, own:] == 0).all()


@pytest.mark.parametrize("frozen", [False, True])
def test_transformer_is_complete(frozen):
    """F is taken on the route that its gradients are taken on, whether or not the weights want any."""
    model = seeded(Encoder).double().requires_grad_(not frozen)
    padding = torch.tensor([[False] * 5 + [True], [False] * 4 + [True] * 2])
    result = qf.integrated_gradients(
        model,
        normal(2, 6, 8),
        baselines=normal(1, 6, 8, seed=1),
        target=1,
        tol=1e-3,
        additional_forward_args=(padding,),
    )
    assert result.converged.all()


def test_completeness_on_random_networks():
    for seed, activation in enumerate((nn.ReLU, nn.Tanh, nn.GELU, nn.Softplus)):
        model = seeded(lambda a=activation: nn.Sequential(nn.Linear(6, 20), a(), nn.Linear(20, 3)), seed)
        x = normal(10, 6, seed=seed)
        with torch.no_grad():
            change = model.double()(x)[:, 1] - model(torch.zeros(1, 6).double())[:, 1]
        result = qf.integrated_gradients(model, x, target=1, n_steps=2000)
        torch.testing.assert_close(result.delta, result.values.sum(1) - change, rtol=0, atol=1e-10)
        assert result.delta.abs().max() < 2e-3


# Inputs, baselines and targets of every kind


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Conv1d(2, 4, 3)

    def forward(self, x, y, scale=1.0, unused=None):
        return torch.tanh(self.first(x) * self.second(y).mean(2)) * scale


def test_tuple_of_inputs_equals_one_joined_input():
    model = seeded(TwoInputs).double()
    x, y = normal(5, 3), normal(5, 2, 6, seed=1)
    scale = normal(5, 1, seed=2)
    result = qf.integrated_gradients(
        model, (x, y), target=2, baselines=(0.5, y[:1]), additional_forward_args=(scale, "as it is")
    )
    assert isinstance(result.values, tuple)
    assert [tuple(v.shape) for v in result.values] == [(5, 3), (5, 2, 6)]

    def joined(z, scale):
        return model(z[:, :3], z[:, 3:].reshape(-1, 2, 6), scale)

    flat = torch.cat([x, y.flatten(1)], 1)
    baseline = torch.cat([torch.full((1, 3), 0.5).double(), y[:1].flatten(1)], 1)
    together = qf.integrated_gradients(
        joined, flat, target=2, baselines=baseline, additional_forward_args=scale
    )
    assert_close(result.values[0], together.values[:, :3], rtol=1e-10, atol=1e-13)
    assert_close(result.values[1].flatten(1), together.values[:, 3:], rtol=1e-10, atol=1e-13)
    assert_close(result.delta, together.delta, atol=1e-12)


def test_an_input_that_is_not_used_gets_zeros():
    x = normal(3, 2)
    used, unused = qf.integrated_gradients(lambda x, y: x.sum(1), (x, x.clone())).values
    assert_close(used, x, rtol=1e-12)
    assert (unused == 0).all()


def test_targets_of_every_kind_agree():
    model = seeded(cnn)
    x = normal(3, 1, 8, 8, dtype=torch.float32)
    one = qf.integrated_gradients(model, x, target=4, n_steps=5).values
    for target in (np.int64(4), torch.tensor(4), torch.tensor([4]), [4, 4, 4], np.array([4, 4, 4]), (4,)):
        assert torch.equal(qf.integrated_gradients(model, x, target=target, n_steps=5).values, one)
    called = qf.integrated_gradients(model, x, target=lambda output: output[:, 4], n_steps=5).values
    torch.testing.assert_close(called, one)
    mixed = qf.integrated_gradients(model, x, target=torch.tensor([4, 1, 4]), n_steps=5).values
    torch.testing.assert_close(mixed[::2], one[::2])
    assert not torch.allclose(mixed[1], one[1])


def test_targets_of_outputs_with_more_axes():
    x = normal(4, 3, 2)
    weights = torch.arange(6.0).double().reshape(3, 2)
    model = lambda x: x * weights  # noqa: E731
    result = qf.integrated_gradients(model, x, target=(2, 1))
    expected = torch.zeros_like(x)
    expected[:, 2, 1] = 5 * x[:, 2, 1]
    assert_close(result.values, expected, atol=1e-12)
    rows = torch.tensor([[2, 1], [0, 0], [1, 1], [2, 0]])
    result = qf.integrated_gradients(model, x, target=rows, max_memory=budget_for(3, model, x, target=rows))
    expected = torch.zeros_like(x)
    for i, (a, b) in enumerate(rows):
        expected[i, a, b] = weights[a, b] * x[i, a, b]
    assert_close(result.values, expected, atol=1e-12)


def test_outputs_of_one_column_and_one_dimensional_inputs():
    x = normal(4)
    flat = qf.integrated_gradients(lambda x: x**3, x, n_steps=1)
    column = qf.integrated_gradients(lambda x: (x**3)[:, None], x, n_steps=1)
    assert_close(flat.values, 0.75 * x**3, rtol=1e-12)
    assert_close(column.values, flat.values, rtol=0)
    assert_close(flat.delta, -0.25 * x**3, rtol=1e-12)


def test_baselines_of_every_kind_agree():
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))).double()
    x = normal(5, 3)
    expected = qf.integrated_gradients(model, x, baselines=torch.full((5, 3), 2.0).double()).values
    for baselines in (2, 2.0, torch.tensor(2), torch.full((1, 3), 2), torch.full((1, 3), 2.0)):
        torch.testing.assert_close(qf.integrated_gradients(model, x, baselines=baselines).values, expected)
    none = qf.integrated_gradients(model, x).values
    torch.testing.assert_close(none, qf.integrated_gradients(model, x, baselines=0.0).values)
    at_baseline = qf.integrated_gradients(model, x, baselines=x, tol=1e-3)
    assert (at_baseline.values == 0).all()
    assert at_baseline.converged.all()


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_models_are_summed_in_float32_or_better(dtype, error):
    model = seeded(lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)))
    x = normal(4, 8).to(dtype)
    exact = qf.integrated_gradients(model.double(), x.double(), target=0, n_steps=200).values
    result = qf.integrated_gradients(model.to(dtype), x, target=0, n_steps=200)
    assert result.values.dtype == torch.float32
    assert result.delta.dtype == torch.float64
    assert (result.values - exact).abs().max() < error


def test_many_small_gradients_survive_in_half_precision():
    """A float16 sum of 5000 equal terms stops growing long before the end."""
    x = torch.ones(1, 2, dtype=torch.float16)
    result = qf.integrated_gradients(lambda x: x.sum(1) * 3, x, n_steps=5000)
    assert_close(result.values, [[3.0, 3.0]], rtol=1e-6)


def test_points_in_half_precision_are_rounded_once():
    """Nodes rounded to bfloat16 would miss the points near zero by far more than bfloat16 has to."""
    points = []

    def model(x):
        points.append(x.detach().float().flatten())
        return x.sum(1)

    x = torch.ones(1, 1, dtype=torch.bfloat16)
    qf.integrated_gradients(model, x, baselines=-1, n_steps=100)
    expected = torch.as_tensor(2 * path_nodes("riemann_middle", 100)[0] - 1)
    torch.testing.assert_close(points[-1].double(), expected, rtol=2**-8, atol=1e-6)


def test_strided_inputs():
    x = normal(6, 5, 4).permute(2, 0, 1)[:, ::2]
    result = qf.integrated_gradients(lambda x: (x**2).sum((1, 2)), x)
    assert_close(result.values, x**2, rtol=1e-12)
