"""Integrated gradients: the certificate that ``tol`` asks for, and batches."""

import numpy as np
import pytest
from attributed_networks import SequenceModel, assert_close, budget_for, cnn, normal, seeded

import qixai_fast as qf
from qixai_fast._path_passes import TORCH_OWN

torch = pytest.importorskip("torch")
nn = torch.nn


# The certificate


def certificate(result, model, x, tol, atol=1e-3):
    with torch.no_grad():
        change = model(x) - model(torch.zeros_like(x[:1]))
    return result.delta.abs() <= tol * change.abs().clamp(min=atol)


@pytest.mark.parametrize("method", ["riemann_middle", "riemann_trapezoid"])
def test_tolerance_is_met_and_only_hard_samples_go_on(method):
    model = lambda x: torch.sigmoid(4 * x.sum(1))  # noqa: E731
    x = normal(20, 3) * torch.logspace(-3, 1, 20).double()[:, None]
    result = qf.integrated_gradients(model, x, tol=1e-3, n_steps=2, method=method, max_n_steps=2000)
    assert result.converged.all()
    assert certificate(result, model, x, 1e-3).all()
    many = qf.integrated_gradients(model, x, n_steps=5000).values
    assert ((result.values - many).abs().amax(1) <= 1e-3 * many.abs().amax(1)).all()
    first = 6 if method == "riemann_middle" else 5
    assert result.n_steps[0] == first  # all but linear
    assert result.n_steps.max() >= 5 * first
    assert result.n_gradients.tolist() == result.n_steps.tolist()


def composite(gradient, start, length, known, method):
    """The rule on one interval, split as far as its nodes are known: the obvious way."""

    def has(place):
        return any(abs(place - node) < 1e-9 for node in known)

    if method == "riemann_middle":
        parts = 3 if has(start + length / 6) else 0
        value = length * gradient(start + length / 2)
    else:
        parts = 2 if has(start + length / 2) else 0
        value = length * (gradient(start) + gradient(start + length)) / 2
    if not parts:
        return value
    part = length / parts
    return sum(composite(gradient, start + i * part, part, known, method) for i in range(parts))


@pytest.mark.parametrize("method", ["riemann_middle", "riemann_trapezoid"])
def test_refined_attributions_are_those_of_a_split_rule_and_points_are_reused(method):
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)), seed=3).double()
    x = 3 * normal(6, 4)
    points = []

    def recording(x):
        points.append(x.detach().clone())
        return model(x)

    result = qf.integrated_gradients(recording, x, tol=1e-4, n_steps=3, method=method)
    seen = torch.cat(points[3:])  # after the probe, and F at both ends
    assert len(seen) == int(result.n_gradients.sum())
    assert not torch.equal(result.n_gradients, result.n_gradients[:1].expand(6))
    for i in range(6):
        along = (seen @ x[i]) / (x[i] @ x[i])
        own = along[((seen - along[:, None] * x[i]).abs().amax(1) < 1e-9)].tolist()

        def gradient(node, i=i):
            point = (node * x[i : i + 1]).requires_grad_()
            return torch.autograd.grad(model(point).sum(), point)[0][0] * x[i]

        lengths = sum(composite(gradient, j / 3, 1 / 3, own, method) for j in range(3))
        assert_close(result.values[i], lengths, rtol=1e-9, atol=1e-12)


def test_nodes_go_where_a_saturating_output_changes():
    """Nine tenths of the path do not change the output: nearly all nodes are in the tenth that does."""
    model = lambda x: torch.sigmoid(400 * (x[:, 0] - 0.13))  # noqa: E731
    places = []

    def recording(x):
        places.append(x.detach().clone())
        return model(x)

    x = torch.ones(1, 1, dtype=torch.float64)
    result = qf.integrated_gradients(recording, x, tol=1e-2, method="riemann_middle")
    places = torch.cat(places[3:])[:, 0]
    assert result.converged.all()
    assert ((places > 0.08) & (places < 0.18)).double().mean() > 0.6
    assert int(result.n_gradients) < 70
    equal = qf.integrated_gradients(model, x, n_steps=int(result.n_gradients))
    assert float(equal.delta.abs()) > 5 * float(result.delta.abs())


def wavy(n_features=600):
    """A model whose paths take more gradients where they are longer, and the accuracy to ask for."""
    weights = torch.linspace(0, 1, n_features, dtype=torch.float64)
    model = lambda x: torch.sin(30 * x @ weights * 2 / n_features) + (x @ weights) / 100  # noqa: E731
    return model, {"tol": 1e-3, "max_n_steps": 9000}


def test_paths_that_take_more_than_there_is_room_for_are_done_alone():
    """The answer is the same; what was done before it showed is counted."""
    model, options = wavy()
    x = torch.ones(40, 600, dtype=torch.float64)
    x[::2] *= torch.linspace(1, 2, 20).double()[:, None]  # too much for one after the other
    x[1::2] /= 100
    roomy = [qf.integrated_gradients(model, x[i : i + 1], **options) for i in range(4)]
    result = qf.integrated_gradients(model, x, **options)
    assert result.converged.all()
    assert (result.n_gradients[::2] > result.n_steps[::2]).sum() > 15
    assert torch.equal(result.n_gradients[1::2], result.n_steps[1::2])
    for i, alone in enumerate(roomy):
        assert torch.equal(alone.n_gradients, alone.n_steps)
        assert torch.equal(result.n_steps[i : i + 1], alone.n_steps)
        assert_close(result.values[i], alone.values[0], rtol=1e-10, atol=1e-13)
    assert 200 < int(roomy[0].n_steps[0]) < 1000


@pytest.mark.parametrize("method", ["riemann_middle", "riemann_trapezoid"])
@pytest.mark.parametrize("n_steps", [1, 5])
def test_gradients_are_computed_again_where_few_can_be_kept(method, n_steps):
    """The same nodes and values, from room for the first gradients only."""
    model, options = wavy()
    x = torch.ones(3, 600, dtype=torch.float64) * torch.tensor([[1.0], [0.02], [1.5]]).double()
    options |= {"method": method, "n_steps": n_steps}
    expected = qf.integrated_gradients(model, x, **options)
    result = qf.integrated_gradients(model, x, **options, max_memory=budget_for(1, model, x, **options))
    assert result.converged.all()
    assert_close(result.values, expected.values, rtol=1e-9, atol=1e-12)
    assert torch.equal(result.n_steps, expected.n_steps)
    again = result.n_gradients / expected.n_gradients
    assert again[1] == 1 or n_steps == 1
    assert (again[::2] > 1.2).all()
    assert again.max() < (1.6 if method == "riemann_middle" else 2.6)


def test_many_samples_that_reach_the_limit_end_there():
    x = normal(3000, 2)
    model = lambda x: torch.sin(3000 * x).sum(1)  # noqa: E731
    result = qf.integrated_gradients(model, x, tol=1e-4, max_n_steps=44)
    assert (result.n_steps <= 44).all()
    assert not result.converged.all()
    assert (result.n_steps[~result.converged] >= 43).all()


def test_completeness_alone_is_not_enough():
    """Errors of opposite sign cancel in the sum: the sums add up at every number of steps."""

    def odd(x):
        bump = torch.sin(8 * np.pi * x)
        return bump[:, 0] - bump[:, 1] + x.sum(1)

    same = torch.ones(1, 2, dtype=torch.float64)
    coarse = qf.integrated_gradients(odd, same, n_steps=4)
    assert abs(float(coarse.delta)) < 1e-9  # complete ...
    assert (coarse.values - 1).abs().max() > 1  # ... and wrong
    unstable = qf.integrated_gradients(
        odd, same, tol=1e-2, n_steps=4, max_n_steps=12, method="riemann_middle"
    )
    assert abs(float(unstable.delta)) < 1e-9
    assert not unstable.converged.any()
    assert unstable.n_steps.tolist() == [12]
    stable = qf.integrated_gradients(odd, same, tol=1e-2, n_steps=4, max_n_steps=400)
    assert stable.converged.all()
    assert (stable.values - 1).abs().max() < 0.02


def test_stability_alone_is_not_enough():
    """A step that every node misses: the attributions agree and do not add up."""
    model = lambda x: x[:, 0] + 5 * torch.sigmoid(1e7 * (x[:, 0] - 0.25))  # noqa: E731
    result = qf.integrated_gradients(
        model, torch.ones(1, 1).double(), tol=1e-2, n_steps=5, max_n_steps=45, method="riemann_middle"
    )
    assert_close(result.values, [[1.0]], rtol=1e-9)
    assert_close(result.delta, [-5.0], rtol=1e-6)
    assert not result.converged.any()
    assert result.n_steps.tolist() == [45]


def test_atol_is_what_small_changes_are_measured_against():
    """x0 - x1 ** 3 returns to where it began; the midpoint's delta is 1 / (4 n ** 2)."""
    model = lambda x: x[:, 0] - x[:, 1] ** 3  # noqa: E731
    x = torch.ones(1, 2, dtype=torch.float64)
    for atol, n_steps, converged in ((1.0, 9, True), (0.01, 27, True), (1e-6, 27, False)):
        result = qf.integrated_gradients(
            model, x, tol=0.1, atol=atol, n_steps=1, max_n_steps=27, method="riemann_middle"
        )
        assert result.n_steps.tolist() == [n_steps]
        assert result.converged.tolist() == [converged]
        assert_close(result.delta, [0.25 / n_steps**2], rtol=1e-9)


@pytest.mark.parametrize("method", ["riemann_middle", "riemann_trapezoid"])
def test_a_tuple_of_inputs_refines_as_one_joined_input(method):
    """Numbers as baselines, an input that the output does not depend on, and dtypes that differ."""
    model = lambda x, y, unused: torch.sigmoid(3 * x.sum(1) + 2 * y.sum((1, 2)) - 4)  # noqa: E731
    x, y, unused = normal(5, 3), normal(5, 2, 2, seed=1), normal(5, 1, dtype=torch.float32)
    options = {"tol": 1e-4, "method": method}
    result = qf.integrated_gradients(model, (x, y, unused), baselines=(0.5, y[:1], None), **options)
    start = torch.cat([torch.full((1, 3), 0.5).double(), y[:1].flatten(1)], 1)
    joined = qf.integrated_gradients(
        lambda z: model(z[:, :3], z[:, 3:].reshape(-1, 2, 2), None),
        torch.cat([x, y.flatten(1)], 1),
        baselines=start,
        **options,
    )
    together = torch.cat([value.flatten(1) for value in result.values[:2]], 1)
    assert_close(together, joined.values, rtol=1e-12, atol=1e-15)
    assert torch.equal(result.n_gradients, joined.n_gradients)
    assert (result.values[2] == 0).all()
    assert result.values[2].dtype == torch.float32
    assert result.converged.all()
    for baselines in (None, 0.25):
        everywhere = qf.integrated_gradients(model, (x, y, unused), baselines=baselines, **options)
        assert everywhere.converged.all()


def test_outputs_that_are_not_numbers_on_the_way_hold_up_their_own_sample_only():
    """The gradient of the constant branch is 0, so that only F itself shows the gap."""

    def model(x):
        hole = (x[:, 0] > 0.4) & (x[:, 0] < 0.5)
        return torch.where(hole, torch.nan, torch.sigmoid(20 * (x.sum(1) - 1)))

    x = torch.tensor([[1.0, 1.0], [0.3, 1.5], [0.2, 1.2]], dtype=torch.float64)
    alone = qf.integrated_gradients(model, x[1:], tol=1e-3)
    result = qf.integrated_gradients(model, x, tol=1e-3, max_n_steps=500)
    assert result.converged.tolist() == [False, True, True]
    assert torch.equal(result.n_gradients[1:], alone.n_gradients)
    assert_close(result.values[1:], alone.values, rtol=1e-12)


@pytest.mark.parametrize("method", ["riemann_middle", "riemann_trapezoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_jump_is_given_up_where_points_no_longer_differ(method, dtype):
    """Of the 20,000 steps that there could be, each about its place takes a few for every power of 3 or 2."""
    x = torch.ones(2, 3, dtype=dtype)
    jump = lambda x: x.sum(1) + (x[:, 0] > 1 / 3) * x.new_tensor(2)  # noqa: E731
    result = qf.integrated_gradients(jump, x, tol=1e-2, method=method, max_n_steps=20_000)
    assert not result.converged.any()
    assert_close(result.values, torch.ones(2, 3), rtol=1e-6)
    assert_close(result.delta, [-2.0, -2.0], rtol=1e-6)
    assert result.n_gradients.max() < (600 if dtype == torch.float64 else 250)
    steep = lambda x: torch.sigmoid(3e5 * (x[:, 0] - 1 / 3)) + x.sum(1)  # noqa: E731
    result = qf.integrated_gradients(steep, x.double(), tol=1e-2, method=method)
    assert result.converged.all()
    assert_close(result.values[:, 0], [2.0, 2.0], rtol=1e-2)


# Batches


@pytest.mark.parametrize("kind", ["cnn", "lstm"])
def test_any_batch_gives_the_same_values(kind):
    if kind == "cnn":
        model, x = seeded(cnn).double(), normal(7, 1, 8, 8)
    else:
        model, x = seeded(SequenceModel).double(), normal(7, 5, 3)
    target = torch.tensor([0, 1, 2, 3, 3, 2, 1])
    everything = {"target": target, "tol": 1e-2, "n_steps": 2, "max_n_steps": 18}
    expected = qf.integrated_gradients(model, x, **everything)
    for rows in (1, 5, 40):
        budget = budget_for(rows, model, x, **everything)
        result = qf.integrated_gradients(model, x, **everything, max_memory=budget)
        torch.testing.assert_close(result.values, expected.values, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(result.delta, expected.delta, rtol=1e-8, atol=1e-11)
        assert torch.equal(result.n_steps, expected.n_steps)
        # where there is no room to keep them, some are computed again
        assert torch.equal(result.n_gradients, expected.n_gradients) or rows == 1
        assert torch.equal(result.converged, expected.converged)


@pytest.mark.parametrize("rows", [1, 7, 50, 60, 120])
def test_passes_fill_the_budget_and_no_more(rows):
    sizes = []

    def model(x):
        sizes.append(len(x))
        return (x**2).sum(1)

    x = normal(50, 100)
    budget = budget_for(rows, model, x)
    sizes.clear()
    qf.integrated_gradients(model, x, n_steps=20, max_memory=budget)
    assert max(sizes[1:]) == {1: 1, 7: 7, 50: 50, 60: 50, 120: 100}[rows]
    assert sum(sizes) == 50 * 20 + 2 * 50 + 2
    assert budget >= TORCH_OWN + rows * 100 * 8 * 4  # points, copy, gradient and the square's own


def test_one_sample_and_many_steps_share_passes():
    sizes = []

    def model(x):
        sizes.append(len(x))
        return x.sum(1)

    qf.integrated_gradients(model, normal(1, 3), n_steps=300)
    assert max(sizes) == 300
