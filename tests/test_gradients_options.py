"""Integrated gradients: several baselines, layers in place of inputs, memory that runs out, cuDNN."""

import pytest
import reference
from attributed_networks import SequenceModel, assert_close, budget_for, normal, seeded

import qixai_fast as qf
from qixai_fast.quadrature import path_nodes

torch = pytest.importorskip("torch")
nn = torch.nn


def network(seed=0):
    return seeded(lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), seed).double()


# Several baselines


@pytest.mark.parametrize("tol", [None, 1e-3])
def test_a_list_of_baselines_is_averaged_over(tol):
    model, x = network(), normal(5, 4)
    starts = [0.5, normal(1, 4, seed=1), normal(5, 4, seed=2)]
    together = qf.integrated_gradients(model, x, baselines=starts, target=1, tol=tol)
    each = [qf.integrated_gradients(model, x, baselines=start, target=1, tol=tol) for start in starts]
    assert_close(together.values, sum(one.values for one in each) / 3, rtol=1e-12, atol=1e-14)
    assert_close(together.delta, sum(one.delta for one in each) / 3, atol=1e-14)
    assert torch.equal(together.n_gradients, sum(one.n_gradients for one in each))
    assert (together.converged is None) == (tol is None)


def test_expected_gradients_add_up_to_the_change_from_the_mean_output():
    model, x = network(), normal(3, 4)
    starts = list(normal(20, 4, seed=1).split(1))
    result = qf.integrated_gradients(model, x, baselines=starts, target=0, n_steps=200)
    with torch.no_grad():
        change = model(x)[:, 0] - torch.cat([model(start)[:, 0] for start in starts]).mean()
    assert_close(result.values.sum(1), change, atol=1e-4)
    assert_close(result.values.sum(1) - change, result.delta, atol=1e-12)


def test_a_list_for_a_tuple_of_inputs_holds_tuples():
    x, y = normal(4, 2), normal(4, 3, seed=1)
    model = lambda x, y: x.sum(1) * y.prod(1)  # noqa: E731
    result = qf.integrated_gradients(model, (x, y), baselines=[(0.0, 1.0), 2.0])
    first = qf.integrated_gradients(model, (x, y), baselines=(0.0, 1.0)).values
    second = qf.integrated_gradients(model, (x, y), baselines=2.0).values
    for value, one, two in zip(result.values, first, second, strict=True):
        assert_close(value, (one + two) / 2, rtol=1e-12, atol=1e-14)


def test_an_empty_list_of_baselines():
    with pytest.raises(ValueError, match="baselines: wanted at least one in the list"):
        qf.integrated_gradients(network(), normal(2, 4), baselines=[], target=0)


# Without the factor


@pytest.mark.parametrize("tol", [None, 1e-3])
def test_mean_gradients_without_the_factor(tol):
    model, x, start = network(), normal(6, 4), normal(6, 4, seed=1)
    options = {"baselines": start, "target": 2, "tol": tol, "n_steps": 9}
    plain = qf.integrated_gradients(model, x, multiply_by_inputs=False, **options)
    if tol is None:
        scaled = qf.integrated_gradients(model, x, **options)
        assert_close(plain.values * (x - start), scaled.values, rtol=1e-12, atol=1e-14)
        assert torch.equal(plain.delta, scaled.delta)
    else:
        many = qf.integrated_gradients(
            model, x, baselines=start, target=2, n_steps=3000, multiply_by_inputs=False
        )
        assert plain.converged.all()
        assert ((plain.values - many.values).abs().amax(1) <= 1e-3 * many.values.abs().amax(1)).all()
    with pytest.raises(TypeError, match="multiply_by_inputs: wanted True or False, got int"):
        qf.integrated_gradients(model, x, target=2, multiply_by_inputs=1)


# Layers in place of inputs


class Reader(nn.Module):
    """Token ids in, one number for each of three classes out."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.mixer = nn.Linear(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, ids, mask=None):
        hidden = torch.tanh(self.mixer(self.embedding(ids)))
        if mask is not None:
            hidden = hidden * mask[..., None]
        return self.head(hidden.mean(1))


@pytest.mark.parametrize("tol", [None, 1e-3])
def test_token_ids_are_attributed_to_at_the_embedding(tol):
    model = seeded(Reader).double()
    ids = torch.randint(11, (4, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.rand(4, 7, generator=torch.Generator().manual_seed(2)).double()
    result = qf.integrated_gradients(
        model, ids, baselines=3, target=1, layer="embedding", additional_forward_args=mask, tol=tol, n_steps=6
    )
    assert result.values.shape == (4, 7, 5)

    def rest(embedded, mask):
        return model.head((torch.tanh(model.mixer(embedded)) * mask[..., None]).mean(1))

    with torch.no_grad():
        x, start = model.embedding(ids), model.embedding(torch.full((1, 7), 3))
    expected = qf.integrated_gradients(
        rest, x, baselines=start, target=1, additional_forward_args=mask, tol=tol, n_steps=6
    )
    assert_close(result.values, expected.values, rtol=1e-10, atol=1e-13)
    assert_close(result.delta, expected.delta, atol=1e-12)
    assert torch.equal(result.n_gradients, expected.n_gradients)
    if tol is None:
        values, delta = reference.integrated_gradients(
            lambda point: rest(point, mask[:1])[:, 1], x[0], start[0], *path_nodes("riemann_middle", 6)
        )
        assert_close(result.values[0], values, rtol=1e-10, atol=1e-13)
        assert float(result.delta[0]) == pytest.approx(delta, abs=1e-12)


def test_a_module_itself_names_the_layer_and_leaves_no_hook():
    model = seeded(Reader)
    ids = torch.arange(6).reshape(2, 3)
    by_name = qf.integrated_gradients(model, ids, layer="mixer", target=0)
    by_module = qf.integrated_gradients(model, ids, layer=model.mixer, target=0)
    assert torch.equal(by_name.values, by_module.values)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match=r"layer.*'embeding'.*'embedding'"):
        qf.integrated_gradients(model, ids, layer="embeding", target=0)
    with pytest.raises(TypeError, match=r"inputs: wanted a floating-point tensor, got torch\.int64"):
        qf.integrated_gradients(model, ids, target=0)


# Memory that runs out


class Scarce(nn.Module):
    """Fails as an allocator does for more rows than there is memory for."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error, self.rows = most, error, []

    def forward(self, x):
        self.rows.append(len(x))
        if len(x) > self.most:
            raise self.error
        return torch.tanh(x).sum(1)


CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")
ERRORS = [CPU, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryError()]


@pytest.mark.parametrize("error", ERRORS, ids=["cpu", "cuda", "python"])
@pytest.mark.parametrize("tol", [None, 1e-3])
def test_batches_are_halved_where_memory_runs_out(error, tol):
    x = normal(8, 3)
    options = {"tol": tol, "n_steps": 20}
    expected = qf.integrated_gradients(Scarce(10**9, error), x, **options)
    model = Scarce(9, error)
    result = qf.integrated_gradients(model, x, **options)
    assert_close(result.values, expected.values, rtol=1e-12, atol=1e-14)
    assert torch.equal(result.n_gradients, expected.n_gradients)
    failed = [rows for rows in model.rows if rows > 9]
    assert 0 < len(failed) < 8  # and not once for every batch


class Later(Scarce):
    """Only once the probe and F at both ends are done."""

    def forward(self, x):
        if len(self.rows) < 3:
            self.rows.append(0)
            return torch.tanh(x).sum(1)
        return super().forward(x)


def test_samples_are_parted_where_even_one_node_is_too_much():
    x = normal(8, 3)
    expected = qf.integrated_gradients(Scarce(10**9, CPU), x, n_steps=4)
    result = qf.integrated_gradients(Later(3, CPU), x, n_steps=4)
    assert_close(result.values, expected.values, rtol=1e-12, atol=1e-14)


def test_memory_that_is_too_small_for_one_row_is_an_error():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        qf.integrated_gradients(Later(0, CPU), normal(3, 3))


# cuDNN


class RefusedByCudnn(torch.autograd.Function):
    """What cuDNN does with the gradient of a recurrent layer in evaluation mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.enabled = torch.backends.cudnn.enabled
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.enabled:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        return gradient


def test_recurrent_layers_in_evaluation_mode_run_without_cudnn():
    lstm = seeded(SequenceModel).double()
    x = normal(3, 5, 3)
    expected = qf.integrated_gradients(lstm, x, target=1, n_steps=5)
    calls = []

    def model(x):
        calls.append(torch.backends.cudnn.enabled)
        return lstm(RefusedByCudnn.apply(x))

    kept = torch.backends.cudnn.deterministic
    result = qf.integrated_gradients(
        model, x, target=1, n_steps=5, max_memory=budget_for(3, model, x, target=1)
    )
    assert_close(result.values, expected.values, rtol=1e-10, atol=1e-13)
    assert torch.backends.cudnn.enabled
    assert torch.backends.cudnn.deterministic == kept
    gradients = calls[calls.index(False) :]
    assert len(gradients) == 5  # refused once, then not asked again
    assert not any(gradients)
