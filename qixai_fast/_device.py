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


def is_torch(value: Any) -> bool:
    """Whether a value is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


@dataclass(frozen=True)
class Home:
    """Where an input lived: ``device`` is None for NumPy and all else, a torch device otherwise."""

    device: Any = None

    def bring(self, result: Any) -> Any:
        """Return an array or tensor in the input's own kind: NumPy array, or torch tensor on its device."""
        if is_torch(result):
            return result.cpu().numpy() if self.device is None else result.to(self.device)
        if self.device is None:
            return result
        import torch

        return torch.from_numpy(np.ascontiguousarray(result)).to(self.device)


def home_of(value: Any) -> Home:
    """Where a value lives."""
    return Home(value.device) if is_torch(value) else Home()


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
        return f"torch {torch.__version__} is a CPU build"
    if not torch.cuda.is_available():
        return "no CUDA device or driver was found"
    if importlib.util.find_spec("numba_cuda") is None:
        major = torch.version.cuda.split(".")[0]
        return f"numba-cuda is not installed (pip install 'qixai-fast[cuda{major}]')"
    return None


def _cuda_devices() -> tuple[int, int]:
    """How many GPUs there are, and which one torch works on now."""
    import torch

    return torch.cuda.device_count(), torch.cuda.current_device()


def gpu_index(value: Any) -> int | None:
    """The device of a torch tensor that lives on a GPU; None for all else."""
    return int(value.device.index or 0) if is_torch(value) and value.device.type == "cuda" else None


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
