"""Where work runs, and how a result gets back to where its input lived.

The one seam for CUDA: families ask :func:`resolve_device` where to run and import the kernel
module of that device. Until the CUDA kernels exist, ``device="cuda"`` is refused with the
reason, and torch tensors on a GPU are computed on the CPU and returned to their device.
"""

from __future__ import annotations

import importlib.util
import sys
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

    def bring(self, result: npt.NDArray[Any]) -> Any:
        """Return an array in the input's own kind: NumPy array, or torch tensor on its device."""
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
    return None


def resolve_device(device: Any) -> str:
    """Name the device that kernels run on.

    Parameters
    ----------
    device : str, torch.device or None
        None and ``"cpu"`` give ``"cpu"``.

    Raises
    ------
    ValueError
        For ``"cuda"``, with the reason, and for names that are no device.
    """
    name = "cpu" if device is None or str(device) == "cpu:0" else str(device)
    if name == "cpu":
        return name
    if name.split(":")[0] == "cuda":
        reason = cuda_problem() or "this version has CPU kernels only"
        raise ValueError(f"device: {name!r} cannot be used: {reason}; leave device=None to run on the CPU")
    raise ValueError(f"device: {name!r} is not a device; wanted None, 'cpu' or 'cuda'")
