"""Gradient passes on a device: how many rows they have, where gradients are summed, and graphs of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import qixai_fast as qf
from qixai_fast import _path_integrals, _path_passes, conductance, gradients
from qixai_fast._gpu.passes import Graphs, PassDevice, rows_of
from qixai_fast._path_passes import TORCH_OWN, pass_budget


class ReplayedCalls:
    """A recorder on the CPU: replaying runs the work again, into the tensors of the first run."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def record(self, work):
        self.recorded += 1
        outputs = work()

        def replay():
            self.replayed += 1
            for mine, new in zip(outputs, work(), strict=True):
                if mine is not None:
                    mine.copy_(new)

        return replay, outputs


class StandIn(PassDevice):
    """A device on which a row of a pass takes so many bytes."""

    def __init__(self, backend, network, bytes_of_row):
        super().__init__(backend, fused=True)
        self.recorder = ReplayedCalls()
        self._network, self._bytes_of_row = network, bytes_of_row

    def peak(self, work):
        return work(), self._bytes_of_row * self._network.rows[-1] if self._network.rows else 0

    def graphs(self):
        return Graphs(self.recorder)


class Network(nn.Module):
    """Notes the rows of each call; out of memory beyond ``most``."""

    def __init__(self, most=10**9):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        self.rows, self.most = [], most

    def forward(self, x, *others):
        self.rows.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for other in others:
            x = x * other
        return self.body(x)


@pytest.fixture
def device(gpu, monkeypatch):
    """``device(network)`` puts a network where its passes are a device's; and tensors."""

    def put(network, *tensors, bytes_of_row=100, free=None):
        if not gpu.simulated:
            return None, network.to(gpu.backend.device), *(x.to(gpu.backend.device) for x in tensors)
        if free is not None:
            gpu.backend.memory = free
        stand_in = StandIn(gpu.backend, network, bytes_of_row)
        for module in (_path_passes, _path_integrals, gradients, conductance):
            monkeypatch.setattr(module, "pass_device", lambda tensor: stand_in)
        return stand_in, network, *tensors

    put.simulated = gpu.simulated
    put.gpu = gpu
    return put


def data(n=4, seed=0, dtype=torch.float32):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)


def passes_of(network):
    """Rows of the gradient passes: what comes after the first look and a group's two ends."""
    return network.rows[3:]


# Values


@pytest.mark.parametrize("method", ["riemann_middle", "riemann_trapezoid", "gausslegendre"])
@pytest.mark.parametrize("graph", [False, True])
def test_values_are_those_of_the_cpu(device, method, graph):
    wanted = qf.integrated_gradients(Network(), data(), target=1, method=method, n_steps=20)
    _, network, x = device(Network(), data())
    found = qf.integrated_gradients(
        network, x, target=1, method=method, n_steps=20, cuda_graph=graph, max_memory=TORCH_OWN + 20_000
    )
    assert found.values.device == x.device
    torch.testing.assert_close(found.values.cpu(), wanted.values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.delta.cpu(), wanted.delta, rtol=1e-5, atol=1e-6)
    assert found.n_gradients.tolist() == wanted.n_gradients.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_other_dtypes(device, dtype):
    wanted = qf.integrated_gradients(Network().to(dtype), data(dtype=dtype), target=1)
    _, network, x = device(Network().to(dtype), data(dtype=dtype))
    found = qf.integrated_gradients(network, x, target=1)
    assert found.values.dtype == wanted.values.dtype
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-10
    torch.testing.assert_close(found.values.cpu(), wanted.values, rtol=tolerance, atol=tolerance)


def test_a_tolerance_is_met_on_the_device(device):
    wanted = qf.integrated_gradients(Network(), data(9), target=1, tol=1e-3)
    _, network, x = device(Network(), data(9))
    found = qf.integrated_gradients(network, x, target=1, tol=1e-3, cuda_graph=True)
    assert found.converged.all()
    torch.testing.assert_close(found.values.cpu(), wanted.values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradients_are_summed_where_they_are(gpu, fused, dtype):
    """By the kernel, or by torch where numba cannot be used; channels last, too."""
    passes = PassDevice(gpu.backend, fused=fused)
    steps = gpu.put(torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(0)).to(dtype))
    weights = np.linspace(0.1, 1, 5)
    for gradient in (steps, gpu.put(steps.permute(0, 1, 3, 2).contiguous()).permute(0, 1, 3, 2)):
        total = gpu.put(torch.ones(2, 3, 4, dtype=torch.float64))
        passes.add_weighted(total, gradient, passes.constant(weights))
        expected = 1 + np.einsum("s,snij->nij", weights, steps.double().cpu().numpy())
        np.testing.assert_allclose(total.cpu(), expected, rtol=1e-14)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 127, 128, 129])
def test_trapezoids_are_summed_where_they_are(gpu, fused, dtype, count):
    four = torch.randn(4, 2 * count, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(
        dtype
    )
    before, after, low, high = gpu.put(four)[:, ::2]
    total = gpu.put(torch.ones(count, dtype=torch.float64))
    PassDevice(gpu.backend, fused=fused).add_trapezoid((before, low), (after, high), total)
    first, last, low, high = four[:, ::2].double()
    torch.testing.assert_close(total.cpu(), 1 + (last - first) * (low + high) / 2, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("tol", [None, 1e-2])
def test_conductances_are_those_of_the_cpu(device, tol):
    wanted = qf.layer_conductance(Network(), data(), ["body.0", "body.1"], target=1, tol=tol)
    _, network, x = device(Network(), data())
    for limit in (None, TORCH_OWN + 10_000):
        found = qf.layer_conductance(network, x, ["body.0", "body.1"], target=1, tol=tol, max_memory=limit)
        for name, attribution in found.items():
            assert attribution.values.device == x.device
            torch.testing.assert_close(attribution.values.cpu(), wanted[name].values, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(attribution.delta.cpu(), wanted[name].delta, rtol=1e-5, atol=1e-6)


def test_constants_are_copied_once(gpu):
    passes = PassDevice(gpu.backend, fused=False)
    assert passes.constant(np.arange(3.0)) is passes.constant(np.arange(3.0))
    assert passes.constant(np.arange(4.0)).tolist() == [0, 1, 2, 3]


def test_the_device_is_not_waited_for_between_passes(device):
    if device.simulated:
        pytest.skip("a real device says when it is waited for")
    gpu = device.gpu
    _, network, x = device(Network(), data())
    rule = _path_integrals.check_rule(None, 20, None, 1e-3, 1350, True)
    nodes, weights = gradients_nodes(rule)
    samples = gradients.check_samples(x, None, 1, None)
    samples = _path_integrals.replace(samples, target=samples.target.to(x.device))
    passes = _path_passes.Passes(
        gradients.PathModel(network), 8, _path_passes.progress_bar(False), gpu=_path_passes.pass_device(x)
    )
    with gradients.recording():
        passes.sums(samples, nodes, weights)
        torch.cuda.set_sync_debug_mode("error")
        try:
            passes.sums(samples, nodes, weights)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert gpu.backend.device == x.device


def gradients_nodes(rule):
    return _path_integrals.path_nodes(rule.method, rule.n_steps)


# Rows


def test_room_is_half_of_what_is_free_or_all_of_a_limit_that_fits(gpu):
    if not gpu.simulated:
        pytest.skip("needs a device whose memory is known")
    gpu.backend.memory = 1000 * 2**20
    passes = PassDevice(gpu.backend, fused=False)
    assert passes.room(None) == 500 * 2**20
    assert passes.room(300 * 2**20) == 300 * 2**20
    assert passes.room(2000 * 2**20) == 900 * 2**20
    assert pass_budget(None, 100, "cuda", passes) == 500 * 2**20 - TORCH_OWN
    assert pass_budget("300MiB", 100, "cuda", passes) == 300 * 2**20 - TORCH_OWN
    # One row is tried whatever is free; a limit that has no room for it is an error.
    assert pass_budget(None, 600 * 2**20, "cuda", passes) == 600 * 2**20
    with pytest.raises(qf.MemoryBudgetError):
        pass_budget("300MiB", 600 * 2**20, "cuda", passes)


@pytest.mark.parametrize(
    ("room", "peak", "rows", "wanted"), [(800, 100, 10, 70), (800, 10**6, 10, 1), (80, 0, 1, 70)]
)
def test_rows_that_fill_a_room(room, peak, rows, wanted):
    assert rows_of(room, peak, rows) == wanted


@pytest.mark.parametrize(("bytes_of_row", "more"), [(20, True), (10_000, False)])
def test_a_measured_pass_says_how_many_rows_the_next_ones_have(device, bytes_of_row, more):
    if not device.simulated:
        pytest.skip("needs a device whose memory is known")
    room = 60_000
    _, network, x = device(Network(), data(2), bytes_of_row=bytes_of_row)
    qf.integrated_gradients(network, x, target=1, n_steps=400, max_memory=TORCH_OWN + room)
    first, *others = passes_of(network)
    fitting = rows_of(room, bytes_of_row, 1)
    assert (fitting > first) == more
    assert others
    assert max(others) <= max(fitting, 2)
    # What is left is shared out evenly.
    assert max(others) - min(others) <= 2 * len(others)
    assert sum(passes_of(network)) == 2 * 400


def test_passes_are_halved_where_memory_runs_out_and_do_not_grow_again(device):
    if not device.simulated:
        pytest.skip("needs a device whose memory is known")
    network = Network(most=30)
    _, network, x = device(network, data(2), bytes_of_row=1, free=2**30)
    found = qf.integrated_gradients(network, x, target=1, n_steps=100)
    wanted = qf.integrated_gradients(Network(), data(2), target=1, n_steps=100)
    torch.testing.assert_close(found.values, wanted.values, rtol=1e-5, atol=1e-6)
    refused = [i for i, rows in enumerate(network.rows) if rows > 30]
    assert refused
    after = network.rows[refused[-1] + 1 :]
    assert sum(after) == 200
    assert max(after) <= 30
    assert len(refused) <= 4  # halving from 200


def test_one_launch_a_pass(device):
    if not device.simulated:
        pytest.skip("counts the stand-in's launches")
    _, network, x = device(Network(), data(2), bytes_of_row=2000)
    qf.integrated_gradients(network, x, target=1, n_steps=40, max_memory=TORCH_OWN + 20_000)
    launches = [entry[1] for entry in device.gpu.backend.log if entry[0] == "launch"]
    # Pieces of 16 bytes, and no elements besides: 12 numbers of float32.
    assert launches == ["add_weighted"] * len(passes_of(network))


# Graphs


def test_a_shape_that_comes_again_is_recorded_once_and_replayed(device):
    stand_in, network, x = device(Network(), data(8), bytes_of_row=1000)
    options = {"target": 1, "n_steps": 60, "max_memory": TORCH_OWN + 40_000}
    wanted = qf.integrated_gradients(network, x, **options)
    found = qf.integrated_gradients(network, x, cuda_graph=True, **options)
    torch.testing.assert_close(found.values, wanted.values, rtol=1e-5, atol=1e-6)
    if stand_in is not None:
        assert 1 <= stand_in.recorder.recorded <= 3
        assert stand_in.recorder.replayed > stand_in.recorder.recorded


def test_what_belongs_to_samples_goes_into_the_recorded_pass(device):
    """Targets and further arguments of each group, one graph for all; also for several baselines."""
    factor = 1 + torch.rand(30, 1, generator=torch.Generator().manual_seed(3))
    target = torch.arange(30) % 3
    stand_in, network, x, factor = device(Network(), data(30), factor, bytes_of_row=10**9)
    options = {"target": target, "n_steps": 6, "additional_forward_args": (factor, 2.0)}
    options["baselines"] = [0.0, 0.5]
    wanted = qf.integrated_gradients(network, x, **options)
    found = qf.integrated_gradients(network, x, cuda_graph=True, max_memory=TORCH_OWN + 12_000, **options)
    torch.testing.assert_close(found.values, wanted.values, rtol=1e-5, atol=1e-6)
    if stand_in is not None:
        assert stand_in.recorder.replayed > 2


def test_a_layers_passes_are_recorded(device):
    _, network, x = device(Network(), data(12))
    options = {"target": 1, "layer": "body.0", "n_steps": 20, "max_memory": TORCH_OWN + 20_000}
    wanted = qf.integrated_gradients(network, x, **options)
    found = qf.integrated_gradients(network, x, cuda_graph=True, **options)
    torch.testing.assert_close(found.values, wanted.values, rtol=1e-5, atol=1e-6)


def test_a_pass_that_cannot_be_recorded_gives_one_warning_and_the_same_values(device, monkeypatch):
    class ReadsBack(Network):
        def forward(self, x):
            if not device.simulated and x.sum().item() > 1e9:
                return x
            return super().forward(x)

    stand_in, network, x = device(ReadsBack(), data(8))
    if stand_in is not None:

        def refuse(work):
            stand_in.recorder.recorded += 1
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        monkeypatch.setattr(stand_in.recorder, "record", refuse)
    options = {"target": 1, "n_steps": 30, "max_memory": TORCH_OWN + 20_000}
    wanted = qf.integrated_gradients(network, x, **options)
    with pytest.warns(RuntimeWarning, match="cuda_graph: a pass could not be recorded") as caught:
        found = qf.integrated_gradients(network, x, cuda_graph=True, **options)
    assert len(caught) == 1
    torch.testing.assert_close(found.values, wanted.values, rtol=1e-5, atol=1e-6)
    if stand_in is not None:
        assert stand_in.recorder.recorded == 1


def test_shapes_that_come_once_are_not_recorded_and_there_are_few_graphs():
    recorder = ReplayedCalls()
    graphs = Graphs(recorder)
    for width in range(1, 8):
        assert graphs.run(lambda x: (x + 1, None), (torch.zeros(width),))[0].tolist() == [1.0] * width
    assert recorder.recorded == 0
    for value in (2.0, 3.0):
        for width in range(1, 8):
            found = graphs.run(lambda x: (x + 1, None), (torch.full((width,), value),))
            assert found[0].tolist() == [value + 1] * width
            assert found[1] is None
    assert recorder.recorded == 4


def test_results_of_a_replay_outlive_the_next():
    graphs = Graphs(ReplayedCalls())
    found = [graphs.run(lambda x: (2 * x,), (torch.tensor([float(i)]),))[0] for i in range(5)]
    assert [float(one) for one in found] == [0, 2, 4, 6, 8]


def test_work_with_another_constant_is_another_graph():
    graphs = Graphs(ReplayedCalls())
    for _ in range(4):
        for constant in ((one := torch.tensor(3.0)), (two := torch.tensor(5.0))):
            found = graphs.run(lambda x, c=constant: (c * x,), (torch.ones(2),), (constant,))
            assert found[0].tolist() == [float(constant)] * 2
    assert float(one) != float(two)


def test_bad_arguments():
    with pytest.raises(ValueError, match="cuda_graph: wanted inputs on a GPU, got them on cpu"):
        qf.integrated_gradients(Network(), data(), target=1, cuda_graph=True)
    with pytest.raises(TypeError, match="cuda_graph: wanted True or False, got str"):
        qf.integrated_gradients(Network(), data(), target=1, cuda_graph="yes")
    with pytest.raises(TypeError, match="inputs: wanted a torch tensor"):
        qf.integrated_gradients(Network(), np.ones((2, 6)), target=1, cuda_graph=True)
