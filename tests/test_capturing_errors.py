"""What capture says of input it cannot use."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from test_capturing import Emits, cnn, emitted, images, run
from torch import nn

import qixai_fast as qf


def refused(kind, *words, **arguments):
    """Run a capture that must fail with all of the words, and leave no store behind."""
    path = arguments.pop("path")
    call = {"model": cnn(), "batches": [images()], "layers": "conv1", **arguments}
    with pytest.raises(kind) as caught:
        run(call.pop("model"), call.pop("batches"), call.pop("layers"), path, **call)
    for word in words:
        assert re.search(re.escape(word), str(caught.value)), f"{word!r} not in: {caught.value}"
    assert not path.exists() or not any(path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"model": "resnet"}, TypeError, ["model:", "torch.nn.Module", "str"]),
        ({"model": nn.ReLU()}, ValueError, ["layers:", "ReLU", "no named submodules"]),
        ({"layers": "conv2"}, ValueError, ["'conv2'", "matches no module", "nearest: 'conv1'"]),
        ({"layers": ["conv1", "zzz*"]}, ValueError, ["'zzz*'", "'conv1'", "'head'"]),
        ({"layers": []}, ValueError, ["layers:", "at least one", "got none"]),
        ({"layers": [1]}, TypeError, ["layers:", "int"]),
        ({"reduce": "mean"}, ValueError, ["reduce: 'mean'", "'gap'", "'mean_tokens'"]),
        ({"reduce": {"conv9": "gap"}}, ValueError, ["'conv9'", "no captured layer", "'conv1'"]),
        ({"reduce": 3}, TypeError, ["reduce:", "int"]),
        ({"reduce": "mean_tokens"}, ValueError, ["'conv1'", "(20, 4, 6, 6)", "'gap'", "'flatten'"]),
        ({"reduce": "last_token"}, ValueError, ["'conv1'", "(20, 4, 6, 6)", "'gap'"]),
        ({"dtype": "bfloat16"}, ValueError, ["dtype:", "'float32'"]),
        ({"dtype": "int8"}, ValueError, ["dtype:", "'float16'"]),
        ({"batches": images}, TypeError, ["batches:", "iterable", "function"]),
        ({"batches": images()}, TypeError, ["batches:", "one Tensor", "x.split"]),
        ({"batches": {"x": images()}}, TypeError, ["batches:", "one dict"]),
        ({"batches": []}, ValueError, ["batches:", "no samples"]),
        ({"batches": iter(())}, ValueError, ["batches:", "no samples"]),
        ({"forward": "model"}, TypeError, ["forward:", "str"]),
        ({"labels": [1, 2, 3]}, TypeError, ["labels:", "list", "index or key"]),
        ({"labels": np.arange(20)}, TypeError, ["labels:", "ndarray", "index or key"]),
        ({"sample_ids": True}, TypeError, ["sample_ids:", "bool"]),
        ({"labels": 1}, TypeError, ["labels: 1", "Tensor (20, 1, 8, 8)"]),
        ({"labels": lambda b: torch.arange(3)}, ValueError, ["'conv1'", "(20, 4)", "3 samples"]),
        ({"labels": lambda b: torch.rand(20)}, TypeError, ["labels:", "float32", "numbers the classes"]),
        ({"labels": lambda b: torch.zeros(20, 3)}, ValueError, ["labels:", "(20, 3)", "argmax"]),
        ({"sample_ids": lambda b: torch.rand(20)}, TypeError, ["sample_ids:", "integers or text"]),
    ],
)
def test_arguments(tmp_path, arguments, kind, words):
    refused(kind, *words, path=tmp_path / "s", **arguments)


@pytest.mark.parametrize(
    ("batch", "options", "kind", "words"),
    [
        (lambda x: (x, x[:, 0, 0, 0]), {}, ValueError, ["forward(input", "labels=", "a tuple of 2"]),
        (lambda x: {"x": x}, {}, ValueError, ["'x'", "forward="]),
        (lambda x: (x,), {"labels": 1}, ValueError, ["labels: no element 1", "tuple of 1"]),
        (lambda x: {"x": x}, {"labels": "y"}, ValueError, ["labels: no element 'y'", "keys are 'x'"]),
        (lambda x: (x, x), {"labels": "y"}, TypeError, ["labels: key 'y'", "dicts"]),
        (lambda x: (torch.arange(20),), {"labels": 0}, ValueError, ["nothing is left for the model"]),
        (
            lambda x: (x, torch.arange(20), torch.arange(19)),
            {"labels": 1, "sample_ids": 2},
            ValueError,
            ["20 and 19"],
        ),
    ],
)
def test_batches(tmp_path, batch, options, kind, words):
    refused(kind, *words, path=tmp_path / "s", batches=[batch(images())], **options)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(
    ("output", "reduce", "words"),
    [
        (lambda x: torch.rand(4, 5, 3), "gap", ["(4, 5, 3)", "'mean_tokens'", "'last_token'", "'gap1d'"]),
        (lambda x: torch.rand(4), "gap", ["'out'", "(4,)", "'flatten'"]),
        (lambda x: torch.tensor(1.0), "none", ["'out'", "()", "first dimension must be samples"]),
        (lambda x: torch.rand(12, 3), "gap", ["'out'", "(12, 3)", "batch of 4 samples"]),
        (lambda x: "text", "gap", ["'out'", "str", "without any tensor"]),
        (lambda x: None, "gap", ["'out'", "NoneType"]),
        (lambda x: torch.rand(4, 3).to_sparse(), "gap", ["'out'", "sparse"]),
        (lambda x: torch.rand(4, 3) + 1j, "gap", ["'out'", "complex64"]),
        (lambda x: torch.nested.nested_tensor([torch.rand(2)] * 4), "gap", ["'out'", "nested"]),
        (lambda x: nn.utils.rnn.pack_sequence([torch.rand(2, 3)] * 4), "none", ["'out'", "PackedSequence"]),
        (lambda x: torch.rand(4, 0), "none", ["'out'", "at least 1"]),
    ],
)
def test_outputs_that_cannot_be_stored(tmp_path, output, reduce, words):
    path = tmp_path / "s"
    with pytest.raises(ValueError) as caught:
        emitted(output, path, reduce)
    for word in words:
        assert word in str(caught.value)
    assert not path.exists()


def test_features_last_are_not_averaged_away(tmp_path):
    model = nn.Sequential(nn.Linear(3, 5))
    with pytest.raises(ValueError, match=r"'gap' does not fit layer '0' \(Linear\).*'mean_tokens'"):
        run(model, [torch.rand(4, 2, 2, 3)], "0", tmp_path / "s")


def test_a_module_that_is_not_called_is_named(tmp_path):
    model = cnn()
    model.spare = nn.Linear(1, 1)
    model.forward = lambda x: model.conv1(x)
    with pytest.raises(ValueError, match="'head' was not called in the forward pass"):
        run(model, [images()], ["conv1", "head"], tmp_path / "s")


def test_another_number_of_calls_or_another_shape_later_on(tmp_path):
    def sometimes_twice(model, batch):
        model(batch)
        if len(batch) == 3:
            model(batch)

    with pytest.raises(ValueError, match=r"from sample 5 on.*conv1#1, conv1#2, before as conv1;"):
        run(cnn(), images(8).split(5), "conv1", tmp_path / "a", forward=sometimes_twice)
    assert qf.open_store(tmp_path / "a").n_samples == 5
    model = nn.Sequential(nn.Conv2d(1, 4, 3))
    batches = [torch.rand(2, 1, 8, 8), torch.rand(2, 1, 9, 9)]
    with pytest.raises(ValueError, match=r"from sample 2 on, '0' gives float32 of shape \(4, 7, 7\)"):
        run(model, batches, "0", tmp_path / "b", reduce="none")
    assert run(model, batches, "0", tmp_path / "c").n_samples == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_and_earlier_batches_kept(tmp_path, bad):
    x = torch.rand(6, 3, 2, 2)
    x[4, 1, 0, 1] = bad
    with pytest.raises(ValueError, match=rf"layer 'out': {bad} at row 4, column 1;"):
        run(Emits(lambda x: x), x.split(3), "out", tmp_path / "gap")
    with pytest.raises(ValueError, match=rf"layer 'out': {bad} at row 4, column 1, 0, 1;"):
        run(Emits(lambda x: x), x.split(3), "out", tmp_path / "none", reduce="none")
    assert qf.open_store(tmp_path / "gap").n_samples == 3


def test_values_beyond_float16_are_named(tmp_path):
    x = torch.ones(6, 3)
    x[5, 2] = -70000.0
    with pytest.raises(ValueError, match=r"'out': -70000 at row 5, column 2 is too large for float16"):
        run(Emits(lambda x: x), x.split(3), "out", tmp_path / "s", dtype="float16")
    assert qf.open_store(tmp_path / "s").n_samples == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_models(tmp_path):
    with pytest.raises(TypeError, match=r"model: .*TorchScript.*eager"):
        run(torch.jit.trace(cnn().eval(), images()), [images()], "conv1", tmp_path / "s")


def test_models_without_values(tmp_path):
    with pytest.raises(ValueError, match=r"'0.weight' has no values yet \(on the meta device\)"):
        run(nn.Sequential(nn.Linear(2, 2, device="meta")), [torch.rand(2, 2)], "0", tmp_path / "s")
    with pytest.raises(ValueError, match=r"'0.weight' has no values yet .*lazy"):
        run(nn.Sequential(nn.LazyLinear(2)), [torch.rand(2, 2)], "0", tmp_path / "s")


def test_batches_go_to_the_models_device(tmp_path):
    """The meta device stands in for a GPU: tensors that reach it prove that they were moved."""
    from qixai_fast._batches import device_of, on_device

    meta = torch.device("meta")
    batch = {"x": torch.rand(2), "more": [(torch.rand(3), "text"), np.ones(2)], "n": 3}
    moved = on_device(batch, meta)
    assert moved["x"].device == moved["more"][0][0].device == moved["more"][1].device == meta
    assert moved["more"][0][1] == "text"
    tensors = (torch.rand(2), "text", {"a": torch.rand(1)})
    assert on_device(tensors, torch.device("cpu")) is tensors
    assert on_device(tensors, None) is tensors
    assert device_of(cnn()) == torch.device("cpu")
    assert device_of(nn.ReLU()) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu_takes_batches_from_the_cpu(tmp_path):
    on_gpu = run(cnn().cuda(), images().split(7), ["conv1", "head"], tmp_path / "gpu")
    on_cpu = run(cnn(), images().split(7), ["conv1", "head"], tmp_path / "cpu")
    np.testing.assert_allclose(on_gpu["head"], on_cpu["head"], rtol=1e-2, atol=1e-3)
