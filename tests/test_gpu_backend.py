"""What a launch hands to numba, with numba's CUDA and torch's streams stood in for: there is no GPU."""

from __future__ import annotations

import types
from contextlib import contextmanager

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qixai_fast._gpu import backend as module  # noqa: E402  (needs torch)
from qixai_fast._gpu.backend import Backend  # noqa: E402


class Kernel:
    def __init__(self, options):
        self.options, self.calls = options, []

    def __getitem__(self, place):
        assert self.options.CUDA_LOW_OCCUPANCY_WARNINGS == 0
        return lambda *arguments: self.calls.append((place, arguments))


@pytest.fixture
def made(monkeypatch):
    """A backend of device 1 without one, a kernel, and what is current."""
    numba_cuda = pytest.importorskip("numba.cuda")
    dispatcher = pytest.importorskip("numba.cuda.dispatcher")
    inside, streams = [], []

    @contextmanager
    def context(index):
        inside.append(index)
        yield
        inside.pop()

    class Contexts:
        def __getitem__(self, index):
            return context(index)

    def external_stream(handle):
        assert inside == [1], "made in the device's context"
        streams.append(handle)
        return f"stream {handle}"

    def from_interface(described, owner):
        assert inside == [1], "made in the device's context"
        return {**described, "owner": owner}

    monkeypatch.setattr(numba_cuda, "gpus", Contexts())
    monkeypatch.setattr(numba_cuda, "external_stream", external_stream)
    monkeypatch.setattr(numba_cuda, "from_cuda_array_interface", from_interface)
    current = types.SimpleNamespace(cuda_stream=7)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    options = types.SimpleNamespace(CUDA_LOW_OCCUPANCY_WARNINGS=1)
    monkeypatch.setattr(dispatcher, "config", options)
    module._numba_stream.cache_clear()
    backend = Backend.__new__(Backend)
    backend.device = torch.device("cuda", 1)
    yield types.SimpleNamespace(
        backend=backend, kernel=Kernel(options), options=options, streams=streams, current=current
    )
    module._numba_stream.cache_clear()


def test_a_launch_is_on_the_current_stream_in_the_devices_context(made):
    made.backend.launch(made.kernel, (3, 2), 64, 5)
    made.current.cuda_stream = 9
    made.backend.launch(made.kernel, 1, 32)
    made.backend.launch(made.kernel, 1, 32)
    assert [place for place, _ in made.kernel.calls] == [
        ((3, 2), 64, "stream 7"),
        (1, 32, "stream 9"),
        (1, 32, "stream 9"),
    ]
    assert made.kernel.calls[0][1] == (5,)
    assert made.streams == [7, 9], "each stream is made known once"
    assert made.options.CUDA_LOW_OCCUPANCY_WARNINGS == 1, "the user's own kernels keep numba's advice"


@pytest.mark.parametrize("blocks", [0, (0, 4), (4, 0)])
def test_a_grid_of_nothing_starts_nothing(made, blocks):
    made.backend.launch(made.kernel, blocks, 32)
    assert made.kernel.calls == []


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("float16", "<f2"),
        ("float32", "<f4"),
        ("int64", "<i8"),
        ("uint8", "|u1"),
        ("bool", "|b1"),
        ("uint64", "<u8"),
    ],
)
def test_tensors_are_described_as_they_lie(made, dtype, text):
    tensor = torch.zeros((4, 6), dtype=getattr(torch, dtype))
    made.backend.launch(made.kernel, 1, 32, tensor, tensor[1:, ::2], tensor.T, tensor[:0])
    whole, part, turned, empty = made.kernel.calls[0][1]
    assert (whole["typestr"], whole["shape"], whole["strides"]) == (text, (4, 6), None)
    assert whole["data"] == (tensor.data_ptr(), False)
    size = tensor.itemsize
    assert (part["shape"], part["strides"]) == ((3, 3), (6 * size, 2 * size))
    assert part["data"][0] == tensor.data_ptr() + 6 * size
    assert turned["strides"] == (size, 6 * size)
    assert empty["shape"] == (0, 6)
    assert part["owner"].data_ptr() == part["data"][0], "the memory stays as long as the array"


def test_descriptions_read_as_numpys_do(made):
    values = np.arange(24.0).reshape(4, 6)
    tensor = torch.from_numpy(values)[::2, 1:]
    described = module._described(tensor)
    interface = values[::2, 1:].__array_interface__
    for key in ("shape", "strides", "typestr", "data"):
        assert described[key] == interface[key], key


def test_bfloat16_has_no_form(made):
    with pytest.raises(TypeError):
        made.backend.launch(made.kernel, 1, 32, torch.zeros(2, dtype=torch.bfloat16))
