"""Which device a call runs on, and how results get back, without a GPU."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

import qixai_fast as qf
from qixai_fast import _device
from qixai_fast._environment import environment

torch = pytest.importorskip("torch")


class OnGpu:
    """Stands for another library's array on a GPU: has the protocols, and nothing else."""

    def __init__(self, values, kind=2, index=0):
        self.tensor, self.kind, self.index = torch.as_tensor(values), kind, index

    def __dlpack_device__(self):
        return self.kind, self.index

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__()


class OnlyInterface:
    """Has the older protocol alone, as numba's device arrays do, and their way of copying to the host."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (2, 2), "typestr": "<f4", "data": (0, False), "version": 3}

    def copy_to_host(self):
        return np.eye(2, dtype=np.float32)


@pytest.fixture
def two_gpus(monkeypatch):
    """CUDA works, with two devices, 1 being torch's current one."""
    from qixai_fast._gpu import backend

    monkeypatch.setattr(_device, "cuda_problem", lambda: None)
    monkeypatch.setattr(_device, "_cuda_devices", lambda: (2, 1))
    monkeypatch.setattr(backend, "open_backend", lambda index: index)
    tensors = {}
    real = _device.gpu_tensor

    def gpu_tensor(value):
        return tensors.get(id(value)) if torch.is_tensor(value) else real(value)

    def put(values, index):
        tensor = torch.as_tensor(values)
        tensors[id(tensor)] = types.SimpleNamespace(device=torch.device("cuda", index), kept=tensor)
        return tensor

    monkeypatch.setattr(_device, "gpu_tensor", gpu_tensor)
    return put


def test_inputs_choose_where_nothing_is_said(two_gpus):
    x, y = np.ones((2, 2)), two_gpus(np.ones((2, 2)), 1)
    assert _device.backends_for(None, x) is None
    assert _device.backends_for(None, x, y) == [1]
    assert _device.backends_for(None, y, two_gpus(np.ones(2), 0)) == [1]
    assert _device.backends_for(None, torch.ones(2)) is None


@pytest.mark.parametrize(
    ("device", "found"),
    [("cuda", 1), ("cuda:0", 0), (torch.device("cuda"), 1), (torch.device("cuda", 0), 0)],
)
def test_a_device_that_is_named(two_gpus, device, found):
    assert _device.backends_for(device, two_gpus(np.ones(2), 1)) == [found]
    assert _device.backends_for(device, np.ones(2)) == [found]


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "cpu:0"])
def test_cpu_takes_an_input_from_its_gpu(two_gpus, device):
    assert _device.backends_for(device, two_gpus(np.ones(2), 1)) is None


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:one", "cuda:-1", "", 0, "cpu:1", "CUDA"])
def test_what_is_no_device(two_gpus, device):
    with pytest.raises(
        ValueError, match=r"device: .* is not a device; wanted None, 'cpu', 'cuda' or 'cuda:1'"
    ):
        _device.backends_for(device, np.ones(2))


def test_a_device_that_is_not_there(two_gpus):
    with pytest.raises(ValueError, match=r"device: 'cuda:9' cannot be used: CUDA devices here are 0 to 1"):
        _device.backends_for("cuda:9", np.ones(2))


def test_several_devices(two_gpus):
    x = np.ones(2)
    assert _device.backends_for(None, x, devices=["cuda:1", "cuda:0"]) == [1, 0]
    assert _device.backends_for(None, x, devices=(torch.device("cuda", 0),)) == [0]
    for wrong in (["cuda:0", "cuda:0"], ["cuda", "cuda:1"], [], ["cpu"], ["cuda:0", "cpu"]):
        with pytest.raises(ValueError, match="devices: wanted one or more different CUDA devices"):
            _device.backends_for(None, x, devices=wrong)
    with pytest.raises(ValueError, match=r"devices: 'cuda:2' cannot be used"):
        _device.backends_for(None, x, devices=["cuda:2"])
    with pytest.raises(ValueError, match="devices: wanted without device, got both"):
        _device.backends_for("cuda", x, devices=["cuda:0"])
    for wrong in ("cuda:0", 2, {"cuda:0"}):
        with pytest.raises(TypeError, match=r"devices: wanted a list such as"):
            _device.backends_for(None, x, devices=wrong)


def test_an_input_on_a_gpu_that_cannot_be_used_is_computed_on_the_cpu_with_a_warning(two_gpus, monkeypatch):
    monkeypatch.setattr(_device, "cuda_problem", lambda: "the driver sleeps")
    with pytest.warns(
        UserWarning, match="computed on the CPU, though an input is on a GPU: the driver sleeps"
    ):
        assert _device.backends_for(None, two_gpus(np.ones(2), 0)) is None
    with pytest.raises(
        ValueError, match="device: 'cuda' cannot be used: the driver sleeps; leave device=None"
    ):
        _device.backends_for("cuda", np.ones(2))


def test_without_cuda_a_call_says_why():
    if torch.version.cuda is not None and torch.cuda.is_available():
        pytest.skip("CUDA works here")
    with pytest.raises(ValueError, match=r"device: 'cuda' cannot be used: .+; leave device=None"):
        qf.cosine_similarity(np.eye(3), device="cuda")
    assert environment()["CUDA"].startswith("no: ")


@pytest.fixture
def cuda_torch(monkeypatch):
    """A torch for CUDA 13 that sees one device; numba-cuda as it is here."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_numba_cuda_that_is_missing(cuda_torch, monkeypatch):
    find = _device.importlib.util.find_spec
    monkeypatch.setattr(
        _device.importlib.util, "find_spec", lambda name: None if name == "numba_cuda" else find(name)
    )
    problem = _device.cuda_problem()
    assert problem == "numba-cuda is not installed (pip install 'qixai-fast[cuda13]')"
    with pytest.raises(ValueError, match=r"device: 'cuda' cannot be used: numba-cuda is not installed"):
        _device.backends_for("cuda", np.ones(2))


def test_numba_cuda_that_cannot_be_imported(cuda_torch, monkeypatch):
    pytest.importorskip("numba_cuda")
    monkeypatch.setitem(sys.modules, "numba.cuda", None)
    assert _device.cuda_problem().startswith("numba-cuda cannot be imported: ")


def test_numba_cuda_without_a_driver(cuda_torch, monkeypatch):
    pytest.importorskip("numba_cuda")
    stub = types.SimpleNamespace(is_available=lambda: False, cuda_error=lambda: "UNKNOWN")
    monkeypatch.setitem(sys.modules, "numba.cuda", stub)
    assert _device.cuda_problem() == "numba-cuda finds no driver or no compiler: UNKNOWN"
    stub.cuda_error = lambda: None
    assert _device.cuda_problem().endswith("pip install 'qixai-fast[cuda13]'")
    stub.is_available = lambda: True
    assert _device.cuda_problem() is None


def test_builds_of_torch_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert _device.cuda_problem() == f"torch {torch.__version__} is a build for the CPU"
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert _device.cuda_problem() == f"torch {torch.__version__} is a build for ROCm"
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _device.cuda_problem() == "no CUDA device or driver was found"


def test_info_lists_the_gpus(monkeypatch):
    from qixai_fast import _environment

    found = types.SimpleNamespace(
        name="Model T", total_memory=48 * 10**9, multi_processor_count=84, major=8, minor=9
    )
    monkeypatch.setattr(_environment, "cuda_problem", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found)
    assert environment()["CUDA"] == (
        "cuda:0 Model T (48.0 GB, 84 multiprocessors, sm_89), "
        "cuda:1 Model T (48.0 GB, 84 multiprocessors, sm_89)"
    )


def test_arrays_of_another_library_are_adopted_where_they_lie(monkeypatch):
    monkeypatch.setattr(_device, "cuda_problem", lambda: None)
    monkeypatch.setattr(torch, "from_dlpack", lambda value: value.tensor)
    array = OnGpu(np.arange(6.0).reshape(3, 2))
    assert _device.gpu_tensor(array) is array.tensor
    assert _device.gpu_index(array) == 0
    np.testing.assert_array_equal(_device.to_numpy(array, "X"), array.tensor.numpy())
    on_cpu = OnGpu(np.ones(3), kind=1)
    assert _device.gpu_tensor(on_cpu) is None
    assert _device.home_of(on_cpu).device is None


def test_results_return_to_cupy_and_to_torch_for_all_others(monkeypatch):
    monkeypatch.setattr(_device, "cuda_problem", lambda: None)
    monkeypatch.setattr(torch, "from_dlpack", lambda value: value.tensor)
    cupy = types.ModuleType("cupy")
    cupy.from_dlpack = lambda tensor: ("cupy", tensor)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    other = _device.home_of(OnGpu(np.ones(3)))
    assert torch.is_tensor(other.bring(np.ones(2)))

    class Ndarray(OnGpu):
        __module__ = "cupy._core.core"

    home = _device.home_of(Ndarray(np.ones(3)))
    for result in (np.full(2, 7.0), torch.full((2,), 7.0)):
        kind, tensor = home.bring(result)
        assert kind == "cupy"
        assert tensor.tolist() == [7, 7]


def test_arrays_on_a_gpu_reach_the_cpu_without_torch_for_cuda():
    if torch.cuda.is_available():
        pytest.skip("torch adopts them here")
    array = OnlyInterface()
    assert _device.gpu_tensor(array) is None
    np.testing.assert_array_equal(_device.to_numpy(array, "X"), np.eye(2))
    np.testing.assert_allclose(qf.cosine_similarity(array), np.eye(2))
    with pytest.raises(TypeError, match=r"X: OnGpu lives on a GPU, and torch .* is a build for the CPU"):
        qf.cosine_similarity(OnGpu(np.ones((2, 2))))


@pytest.mark.parametrize("value", [3, "text", [1, 2], None, np.ones(2), OnGpu, np.float32(1)])
def test_all_else_lives_on_no_gpu(value):
    assert _device.gpu_index(value) is None


def _in_a_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_loads_neither_torch_nor_cuda():
    code = (
        "import sys, numpy as np, qixai_fast as qf\n"
        "qf.cosine_similarity(np.eye(3))\n"
        "print([m for m in ('torch', 'numba_cuda', 'numba.cuda.dispatcher', 'cupy') if m in sys.modules])"
    )
    assert _in_a_process(code) == "[]"


def test_without_torch_the_cpu_works_and_cuda_says_what_is_missing():
    code = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "import numpy as np, qixai_fast as qf\n"
        "assert qf.cosine_similarity(np.eye(3)).shape == (3, 3)\n"
        "try: qf.cosine_similarity(np.eye(3), device='cuda')\n"
        "except ValueError as error: print(error)\n"
    )
    assert "torch is not installed (pip install 'qixai-fast[torch]')" in _in_a_process(code)
