"""Where work runs, and how a result gets back to where its input lived.

The one seam for CUDA: families with CUDA kernels ask :func:`backends_for` for devices to work on, None for
the CPU; all others ask :func:`resolve_device`, which knows the CPU alone: torch tensors on a GPU are then
computed on the CPU and returned to their device.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ._forks import ready_torch
from ._lazy_rows import LazyRows

_DLPACK_CUDA = 2  # kDLCUDA of dlpack.h


def is_torch(value: Any) -> bool:
    """Whether a value is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _lives_on_a_gpu(value: Any) -> bool:
    """Whether an object that is no torch tensor says that its memory is CUDA's, as CuPy's arrays do."""
    if isinstance(value, (np.ndarray, LazyRows, type)) or is_torch(value):
        return False
    where = getattr(value, "__dlpack_device__", None)
    if where is not None:
        return int(where()[0]) == _DLPACK_CUDA
    return hasattr(value, "__cuda_array_interface__")


def _adopted(value: Any) -> Any:
    """A torch tensor on the memory of another library's array, once its stream has come there."""
    import torch

    if hasattr(value, "__dlpack__"):
        return torch.from_dlpack(value)  # type: ignore[attr-defined]
    tensor = torch.as_tensor(value, device="cuda")
    stream = value.__cuda_array_interface__.get("stream")
    if stream is not None:
        device = tensor.device
        other = torch.cuda.ExternalStream(stream, device=device)  # type: ignore[no-untyped-call]
        torch.cuda.current_stream(device).wait_stream(other)
    return tensor


def gpu_tensor(value: Any) -> Any:
    """A torch tensor, without a gradient, on the memory of a value that lives on a GPU; None for all else.

    Values are torch tensors, CuPy arrays, and whatever has ``__dlpack__`` or ``__cuda_array_interface__``.
    """
    if is_torch(value):
        return value.detach() if value.device.type == "cuda" else None
    return _adopted(value) if _lives_on_a_gpu(value) and cuda_problem() is None else None


def gpu_index(value: Any) -> int | None:
    """The device of a value that lives on a GPU; None for all else."""
    tensor = gpu_tensor(value)
    return None if tensor is None else int(tensor.device.index or 0)


@dataclass(frozen=True)
class Home:
    """Where an input lived.

    Attributes
    ----------
    device : torch.device or None
        None for NumPy and all else that is of no GPU and not torch's.
    cupy : bool
        Whether it was CuPy's. Other libraries' arrays on a GPU get torch tensors back.
    """

    device: Any = None
    cupy: bool = False

    def bring(self, result: Any) -> Any:
        """Return an array or tensor in the input's own kind: NumPy, or torch's or CuPy's on its device."""
        if self.device is None:
            return result.cpu().numpy() if is_torch(result) else result
        if not is_torch(result):
            import torch

            result = torch.from_numpy(np.ascontiguousarray(result))
        moved = result.to(self.device)
        return sys.modules["cupy"].from_dlpack(moved) if self.cupy else moved


def home_of(value: Any) -> Home:
    """Where a value lives."""
    if is_torch(value):
        return Home(value.device)
    tensor = gpu_tensor(value)
    if tensor is None:
        return Home()
    return Home(tensor.device, type(value).__module__.partition(".")[0] == "cupy")


def _from_gpu(value: Any, name: str) -> npt.NDArray[Any]:
    """Copy another library's array on a GPU to NumPy."""
    tensor = gpu_tensor(value)
    if tensor is not None:
        return _tensor_to_numpy(tensor, name)
    # Without torch for CUDA: CuPy's name for it, and numba's.
    copy = getattr(value, "get", None) or getattr(value, "copy_to_host", None)
    if copy is None:
        raise TypeError(f"{name}: {type(value).__name__} lives on a GPU, and {cuda_problem()}")
    return np.asarray(copy())


def _tensor_to_numpy(value: Any, name: str) -> npt.NDArray[Any]:
    """View a tensor's values; TypeError for tensors that NumPy has no form for."""
    import torch

    ready_torch()
    tensor = value.detach()
    if tensor.is_nested:
        raise TypeError(f"{name}: nested tensors are not supported; call .to_padded_tensor() first")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name}: sparse tensors are not supported; call .to_dense() first")
    if tensor.is_meta:
        raise TypeError(f"{name}: a tensor on the meta device holds no values")
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.to(torch.float32)
    try:
        array: npt.NDArray[Any] = tensor.cpu().resolve_conj().resolve_neg().numpy()
    except TypeError:
        raise TypeError(
            f"{name}: dtype {tensor.dtype} is not supported; convert it to float32 first"
        ) from None
    return array


def to_numpy(value: Any, name: str) -> npt.NDArray[Any]:
    """View (where possible) any array-like as a NumPy array; bfloat16 tensors become float32.

    Memmaps stay memmaps. Lists and scalars of numbers are accepted.
    """
    if isinstance(value, np.ndarray):
        if np.ma.is_masked(value):
            raise ValueError(f"{name}: has masked values; fill or drop them first")
        # A matrix keeps two dimensions however it is indexed; a masked array brings its own arithmetic.
        return np.asarray(value) if isinstance(value, (np.matrix, np.ma.MaskedArray)) else value
    if isinstance(value, LazyRows):
        return cast("npt.NDArray[Any]", value)
    if is_torch(value):
        return _tensor_to_numpy(value, name)
    if _lives_on_a_gpu(value):
        return _from_gpu(value, name)
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    if hasattr(value, "toarray"):
        raise TypeError(f"{name}: sparse matrices are not supported; call .toarray() first")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: cannot be read as an array ({error})") from None
    return array


def cuda_problem() -> str | None:
    """Why CUDA cannot be used here; None where it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed (pip install 'qixai-fast[torch]')"
    import torch

    if torch.version.cuda is None:
        hip = getattr(torch.version, "hip", None)
        return f"torch {torch.__version__} is a build for {'ROCm' if hip else 'the CPU'}"
    if not torch.cuda.is_available():
        return "no CUDA device or driver was found"
    mend = f"pip install 'qixai-fast[cuda{torch.version.cuda.split('.')[0]}]'"
    if importlib.util.find_spec("numba_cuda") is None:
        return f"numba-cuda is not installed ({mend})"
    try:
        cuda: Any = importlib.import_module("numba.cuda")
    except ImportError as error:
        return f"numba-cuda cannot be imported: {error}"
    try:
        usable = cuda.is_available()
    except RuntimeError as error:  # there is a driver, and no libnvvm
        return f"numba-cuda finds no compiler: {str(error).splitlines()[0]}; set CUDA_HOME, or {mend}"
    if not usable:
        return f"numba-cuda finds no driver or no compiler: {cuda.cuda_error() or mend}"
    return None


def _cuda_devices() -> tuple[int, int]:
    """How many GPUs there are, and which one torch works on now."""
    import torch

    return torch.cuda.device_count(), torch.cuda.current_device()


def _wanted(device: Any, name: str) -> str:
    """``"cpu"`` or ``"cuda:<index>"``."""
    text = str(device)
    kind, _, index = text.partition(":")
    if text in ("cpu", "cpu:0"):
        return "cpu"
    if kind != "cuda" or not (index.isdigit() or text == "cuda"):
        raise ValueError(f"{name}: {text!r} is not a device; wanted None, 'cpu', 'cuda' or 'cuda:1'")
    reason = cuda_problem()
    if reason is not None:
        raise ValueError(f"{name}: {text!r} cannot be used: {reason}; leave device=None to run on the CPU")
    count, current = _cuda_devices()
    number = int(index) if index else current
    if number >= count:
        raise ValueError(f"{name}: {text!r} cannot be used: CUDA devices here are 0 to {count - 1}")
    return f"cuda:{number}"


def backends_for(device: Any, *inputs: Any, devices: Sequence[Any] | None = None) -> list[Any] | None:
    """The GPUs that a function with CUDA kernels works on; None for the CPU.

    Parameters
    ----------
    device : str, torch.device or None
        None: the device of the first input that lives on a GPU, else the CPU.
    *inputs : array_like
    devices : sequence of devices, optional
        Several GPUs, in place of ``device``.

    Raises
    ------
    ValueError
        For names that are no device, devices that cannot be used (with the reason), ``devices`` that is
        empty, repeats one, or comes with ``device``.
    """
    if devices is not None:
        if device is not None:
            raise ValueError("devices: wanted without device, got both")
        if isinstance(devices, str) or not isinstance(devices, Sequence):
            raise TypeError(f"devices: wanted a list such as ['cuda:0', 'cuda:1'], got {devices!r}")
        names = [_wanted(one, "devices") for one in devices]
        if not names or len(set(names)) < len(names) or "cpu" in names:
            raise ValueError(
                f"devices: wanted one or more different CUDA devices, got {list(map(str, devices))}"
            )
    elif device is not None:
        names = [_wanted(device, "device")]
        if names == ["cpu"]:
            return None
    else:
        index = next((one for one in map(gpu_index, inputs) if one is not None), None)
        if index is None:
            return None
        reason = cuda_problem()
        if reason is not None:
            warnings.warn(f"computed on the CPU, though an input is on a GPU: {reason}", stacklevel=3)
            return None
        names = [f"cuda:{index}"]
    from ._gpu.backend import open_backend

    return [open_backend(int(name.partition(":")[2])) for name in names]


def resolve_device(device: Any) -> str:
    """Name the device that a function with CPU kernels alone runs on.

    Parameters
    ----------
    device : str, torch.device or None
        None and ``"cpu"`` give ``"cpu"``.

    Raises
    ------
    ValueError
        For ``"cuda"``, with the reason, and for names that are no device.
    """
    if device is not None and _wanted(device, "device") != "cpu":
        raise ValueError(f"device: {str(device)!r} cannot be used: this function has CPU kernels only")
    return "cpu"
