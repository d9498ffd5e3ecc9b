"""What capture stores is what the layers put out, and the model is left as it was."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qixai_fast as qf
from qixai_fast._hooks import find_modules, reduction_of_each
from qixai_fast._reductions import REDUCTIONS, reduce_output


class Emits(nn.Module):
    """A model whose layer "out" puts out what it is given a function for."""

    def __init__(self, function):
        super().__init__()
        self.out = nn.Identity()
        self.out.forward = function

    def forward(self, x):
        return self.out(x)


def cnn(inplace=False):
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 4, 3),
            norm=nn.BatchNorm2d(4),
            relu=nn.ReLU(inplace=inplace),
            drop=nn.Dropout(0.5),
            flatten=nn.Flatten(),
            head=nn.Linear(4 * 36, 3),
        )
    )


def images(n=20):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def run(model, batches, layers, path, **options):
    return qf.capture(model, batches, layers, path, progress=False, **options)


def emitted(function, path, reduce, x=None, **options):
    x = torch.arange(4.0) if x is None else x
    return run(Emits(function), [x], "out", path, reduce=reduce, **options)["out"]


# What is stored


def test_layers_equal_the_networks_own_values(tmp_path):
    model, x = cnn().eval(), images()
    store = run(model, x.split(7), ["head", "conv1"], tmp_path / "s")
    with torch.no_grad():
        conv = model.conv1(x)
        head = model(x)
    assert list(store) == ["head", "conv1"]
    np.testing.assert_allclose(store["conv1"], conv.mean((2, 3)).numpy(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(store["head"], head.numpy(), rtol=1e-6, atol=1e-7)
    assert store.labels is None
    assert store.sample_ids is None
    assert store.verify() == []


def test_in_place_relu_after_a_layer_does_not_change_what_is_stored(tmp_path):
    plain = run(cnn(), [images()], ["norm"], tmp_path / "plain", reduce="none")["norm"]
    inplace = run(cnn(inplace=True), [images()], ["norm"], tmp_path / "inplace", reduce="none")["norm"]
    assert plain.min() < 0
    assert np.array_equal(plain, inplace)


def test_training_modes_hooks_and_gradients_are_restored(tmp_path):
    model = cnn()
    model.train()
    model.norm.eval()
    before = {name: module.training for name, module in model.named_modules()}
    running = model.norm.running_mean.clone()
    fused = torch.backends.mha.get_fastpath_enabled()
    run(model, [images()], "*", tmp_path / "s", reduce={"flatten": "flatten"})
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(not module._forward_hooks for module in model.modules())
    assert torch.equal(model.norm.running_mean, running)
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled() == fused
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_a_batch_that_fails_leaves_the_model_as_it_was_and_earlier_batches_stored(tmp_path, error):
    model = cnn().train()
    calls = []

    def forward(model, batch):
        if len(calls) == 2:
            raise error
        calls.append(0)
        return model(batch)

    with pytest.raises(type(error)):
        run(model, images().split(5), "conv1", tmp_path / "s", forward=forward)
    assert all(module.training for module in model.modules())
    assert all(not module._forward_hooks for module in model.modules())
    assert qf.open_store(tmp_path / "s").n_samples == 10


def test_a_model_can_be_trained_after_a_capture_that_filled_its_caches(tmp_path):
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.cache = None

        def forward(self, x):
            if self.cache is None:
                self.cache = torch.arange(3.0) * 2
            return self.linear(x) * self.cache

    model = Cached()
    run(model, [torch.rand(4, 3)], "linear", tmp_path / "s")
    model(torch.rand(4, 3)).sum().backward()
    assert model.linear.weight.grad is not None


@pytest.mark.parametrize(
    ("reduction", "shape", "expected"),
    [
        ("gap", (4, 3, 2, 5), lambda a: a.reshape(4, 3, 10).mean(2)),
        ("gap", (4, 3, 2, 2, 5), lambda a: a.reshape(4, 3, 20).mean(2)),
        ("gap", (4, 3), lambda a: a),
        ("max", (4, 3, 2, 5), lambda a: a.reshape(4, 3, 10).max(2)),
        ("max", (4, 3), lambda a: a),
        ("gap1d", (4, 3, 5), lambda a: a.mean(2)),
        ("max1d", (4, 3, 5), lambda a: a.max(2)),
        ("mean_tokens", (4, 3, 5), lambda a: a.mean(1)),
        ("mean_tokens", (4, 3, 2, 5), lambda a: a.reshape(4, 6, 5).mean(1)),
        ("mean_tokens", (4, 5), lambda a: a),
        ("last_token", (4, 3, 5), lambda a: a[:, -1]),
        ("flatten", (4, 3, 2), lambda a: a.reshape(4, 6)),
        ("flatten", (4,), lambda a: a.reshape(4, 1)),
        ("none", (4, 3, 2), lambda a: a),
        ("none", (4, 3, 2, 5), lambda a: a),
    ],
)
def test_reductions(tmp_path, reduction, shape, expected):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    layer = emitted(lambda x: torch.from_numpy(values), tmp_path / "s", reduction)
    np.testing.assert_allclose(layer, expected(values.astype(np.float64)), rtol=1e-6, atol=1e-7)
    assert qf.open_store(tmp_path / "s").info["out"].reduction == reduction


@settings(max_examples=30, deadline=None)
@given(
    reduction=st.sampled_from(sorted(REDUCTIONS)),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=6).map(tuple),
)
def test_a_reduction_gives_rows_or_says_which_ones_fit(reduction, shape):
    output = torch.rand(shape)
    module = nn.ReLU()
    try:
        reduced = reduce_output(output, reduction, "layer", module)
    except ValueError as error:
        assert str(shape) in str(error)  # noqa: PT017
        fitting = [name for name in REDUCTIONS if f"{name!r} for" in str(error)]
        assert reduction not in fitting
        for name in fitting:
            assert len(reduce_output(output, name, "layer", module)) == shape[0]
    else:
        assert len(reduced) == shape[0]
        assert reduced.ndim == (output.ndim if reduction == "none" else 2)


def test_maps_of_a_1d_convolution_are_averaged_over_their_length(tmp_path):
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU())
    x = torch.rand(5, 2, 7)
    store = run(model, [x], ["0", "1"], tmp_path / "s", reduce={"1": "gap1d"})
    np.testing.assert_allclose(store["0"], model[0](x).mean(2).detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(store["1"], model(x).mean(2).detach().numpy(), rtol=1e-6)


def test_reductions_by_layer_name_and_pattern(tmp_path):
    reduce = {"conv*": "max", "conv1": "flatten", "[nr]*": "gap"}
    assert reduction_of_each(reduce, ["conv1", "conv2", "norm", "head"]) == {
        "conv1": "flatten",
        "conv2": "max",
        "norm": "gap",
        "head": "gap",
    }
    store = run(cnn(), [images(3)], ["conv1", "norm"], tmp_path / "s", reduce={"conv1": "none"})
    assert store["conv1"].shape == (3, 4, 6, 6)
    assert store["norm"].shape == (3, 4)


# dtypes


def test_bfloat16_is_stored_as_float32_and_remembered(tmp_path):
    model = cnn().to(torch.bfloat16)
    store = run(model, [images().to(torch.bfloat16)], ["head", "conv1"], tmp_path / "s")
    assert (store["head"].dtype, store.info["head"].source_dtype) == (np.float32, "bfloat16")
    with torch.no_grad():
        head = model.eval()(images().to(torch.bfloat16))
        conv = model.conv1(images().to(torch.bfloat16))
    assert np.array_equal(store["head"], head.float().numpy())
    # the mean is not rounded to bfloat16 again
    np.testing.assert_allclose(store["conv1"], conv.float().mean((2, 3)).numpy(), rtol=1e-6)


def test_half_precision_means_do_not_overflow(tmp_path):
    layer = emitted(lambda x: torch.full((4, 2, 30, 30), 6e4, dtype=torch.float16), tmp_path / "s", "gap")
    assert np.all(layer == np.float32(np.float16(6e4)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", np.float16, torch.float16])
def test_dtype_of_the_store(tmp_path, dtype):
    values = torch.rand(4, 3, dtype=torch.float64)
    layer = emitted(lambda x: values, tmp_path / "s", "gap", dtype=dtype)
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else dtype.__name__
    assert layer.dtype == np.dtype(name)
    assert np.array_equal(layer, values.numpy().astype(name))
    assert qf.open_store(tmp_path / "s").info["out"].source_dtype == "float64"


def test_integer_and_boolean_outputs(tmp_path):
    values = torch.tensor([[1, 2], [3, -4], [5, 6], [7, 8]])
    assert np.array_equal(emitted(lambda x: values, tmp_path / "i", "gap"), values.numpy())
    assert np.array_equal(emitted(lambda x: values > 2, tmp_path / "b", "gap"), values.numpy() > 2)
    maps = values.reshape(1, 2, 2, 2).expand(4, 2, 2, 2)
    assert np.array_equal(emitted(lambda x: maps, tmp_path / "m", "gap")[0], [0.5, 6.5])


def test_channels_last_memory_is_stored_in_the_usual_order(tmp_path):
    values = torch.rand(4, 3, 2, 5)
    layer = emitted(lambda x: values.to(memory_format=torch.channels_last), tmp_path / "s", "none")
    assert np.array_equal(layer, values.numpy())


# Outputs that are no single tensor, and modules that are called again


def test_lstm_is_recorded_by_its_output_sequence(tmp_path):
    model = nn.Sequential(nn.LSTM(3, 5, batch_first=True))
    x = torch.rand(4, 6, 3)
    store = run(model, [x], "0", tmp_path / "s", reduce="last_token")
    np.testing.assert_allclose(store["0"], model(x)[1][0][0].detach().numpy(), rtol=1e-6)


def test_lstm_without_batch_first_is_recorded_with_samples_first(tmp_path):
    model = nn.Sequential(nn.LSTM(3, 5))
    x, y = torch.rand(6, 4, 3), torch.arange(4)
    store = run(model, [(x, y)], "0", tmp_path / "s", reduce="none", labels=1)
    assert store["0"].shape == (4, 6, 5)
    np.testing.assert_allclose(store["0"], model(x)[0].transpose(0, 1).detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: {"hidden": t, "other": t + 1},
        lambda t: OrderedDict(none=None, hidden=t),
        lambda t: ("text", [t, t + 1]),
        lambda t: namedtuple("Output", "hidden other")(t, t + 1),
    ],
)
def test_dicts_and_nested_outputs_are_recorded_by_their_first_tensor(tmp_path, wrap):
    values = torch.rand(4, 3)
    assert np.array_equal(emitted(lambda x: wrap(values), tmp_path / "s", "gap"), values.numpy())


def test_a_module_called_more_than_once_is_recorded_call_by_call(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.relu(-self.linear(self.relu(x)))

    model, x = Twice(), torch.randn(5, 3)
    store = run(model, x.split(2), ["relu", "linear"], tmp_path / "s")
    assert list(store) == ["relu#1", "relu#2", "linear"]
    np.testing.assert_allclose(store["relu#1"], x.relu().numpy())
    np.testing.assert_allclose(store["relu#2"], model(x).detach().numpy(), rtol=1e-6)


def test_padded_transformer_is_captured_inside_and_out(tmp_path):
    """Torch's fused kernels would skip the linear layers, and make padded batches nested tensors."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2)
    x, mask = torch.rand(4, 5, 8), torch.zeros(4, 5, dtype=torch.bool)
    mask[:, 4] = True
    batch = {"src": x, "src_key_padding_mask": mask}
    store = run(model, [batch], ["layers.*.linear1", "layers.1"], tmp_path / "s", reduce="none")
    assert list(store) == ["layers.0.linear1", "layers.1.linear1", "layers.1"]
    expected = model.train()(**batch).detach().numpy()
    np.testing.assert_allclose(store["layers.1"], expected, rtol=1e-4, atol=1e-5)


# Batches


@pytest.mark.parametrize(
    ("batches", "options"),
    [
        (lambda x, y, i: [(x, y, i)], {"labels": 1, "sample_ids": 2}),
        (lambda x, y, i: [[x, y, i]], {"labels": -2, "sample_ids": -1}),
        (lambda x, y, i: iter([(y, x, i)]), {"labels": 0, "sample_ids": 2}),
        (lambda x, y, i: [{"input": x, "y": y, "i": i}], {"labels": "y", "sample_ids": "i"}),
        (lambda x, y, i: [{"input": x, 0: y, 1: i}], {"labels": 0, "sample_ids": 1}),
        (lambda x, y, i: [x], {"labels": lambda b: torch.arange(20) % 3, "sample_ids": lambda b: range(20)}),
        (lambda x, y, i: [namedtuple("B", "x y i")(x, y, i)], {"labels": "y", "sample_ids": "i"}),
        (lambda x, y, i: [(x.numpy(), y.numpy(), i.tolist())], {"labels": 1, "sample_ids": 2}),
        (
            lambda x, y, i: torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(x, y, i), batch_size=6
            ),
            {"labels": 1, "sample_ids": 2},
        ),
    ],
)
def test_batches_of_every_kind(tmp_path, batches, options):
    x, y, i = images(), torch.arange(20) % 3, torch.arange(20)
    store = run(cnn(), batches(x, y, i), "conv1", tmp_path / "s", **options)
    expected = run(cnn(), [x], "conv1", tmp_path / "expected")
    np.testing.assert_allclose(store["conv1"], expected["conv1"], rtol=1e-6)
    assert np.array_equal(store.labels, y.numpy())
    assert np.array_equal(store.sample_ids, i.numpy())


def test_text_sample_ids_and_metadata(tmp_path):
    names = [f"image-{i:03}.png" for i in range(20)]
    store = run(
        cnn(), [(images(), names)], "conv1", tmp_path / "s", sample_ids=1, metadata={"class_names": ["a"]}
    )
    assert store.sample_ids.tolist() == names
    assert store.metadata == {"model": "Sequential", "class_names": ["a"]}


def test_several_inputs_and_read_only_arrays(tmp_path):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.total = nn.Identity()

        def forward(self, a, b):
            return self.total(a + b)

    a = np.random.default_rng(0).random((4, 3))
    a.setflags(write=False)
    assert np.array_equal(run(Sum(), [(a, a)], "total", tmp_path / "t")["total"], (a + a).astype(np.float32))
    kept = run(Sum(), [{"b": a, "y": [0, 1, 0, 1], "a": a}], "total", tmp_path / "d", labels="y")
    assert np.array_equal(kept["total"], (a + a).astype(np.float32))


def test_own_forward_decides_the_samples(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))
    frames = torch.rand(2, 5, 3)
    store = run(model, [frames], "0", tmp_path / "s", forward=lambda model, video: model(video.flatten(0, 1)))
    assert store["0"].shape == (10, 2)


def test_batches_without_samples_are_skipped(tmp_path):
    x = images(5)
    store = run(cnn(), [x[:0], x[:2], x[:0], x[2:]], "conv1", tmp_path / "s")
    assert store.n_samples == 5


# Which modules


def test_patterns_follow_the_models_order_and_names_come_first():
    model = nn.ModuleDict({"b": nn.Linear(1, 1), "a": nn.Linear(1, 1), "c": nn.ModuleDict({"x": nn.ReLU()})})
    assert list(find_modules(model, "?")) == ["b", "a", "c"]
    assert list(find_modules(model, ["c*", "b", "a", "b"])) == ["c", "c.x", "b", "a"]


def test_a_pattern_takes_a_shared_module_once():
    shared = nn.ReLU()
    model = nn.ModuleDict({"relu1": shared, "relu2": shared})
    assert list(find_modules(model, "relu*")) == ["relu1"]
    assert list(find_modules(model, "relu2")) == ["relu2"]
    with pytest.raises(ValueError, match="'relu1' and 'relu2' are one shared module"):
        find_modules(model, ["relu1", "relu2"])


def test_many_layers_do_not_change_each_other(tmp_path):
    model = cnn()
    together = run(model, [images()], ["conv1", "norm", "relu", "head"], tmp_path / "all")
    for name in together:
        alone = run(model, [images()], [name], tmp_path / name)
        assert np.array_equal(alone[name], together[name])


def test_manifest_names_what_a_resumed_capture_must_repeat(tmp_path):
    run(cnn(), [images()], ["conv1"], tmp_path / "s")
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert set(manifest["fingerprint"]) == {"model", "layers", "reduce", "dtype", "first_sample"}


def test_progress_goes_to_standard_error_only(tmp_path, capsys):
    qf.capture(cnn(), images().split(1), "conv1", tmp_path / "s", progress=True)
    assert capsys.readouterr().out == ""
