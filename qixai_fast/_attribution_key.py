"""What a store of attributions must have been made from, for a call to go on with it."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any

import xxhash

from ._batches import add_array
from ._device import is_torch
from ._layer_tensors import name_layer
from ._mapped_tensors import Pages
from .capturing import state_digest
from .errors import StoreError
from .store import ActivationStore
from .store.format import canonical_json

if TYPE_CHECKING:
    from torch import Tensor

KIND = "integrated gradients"
_BLOCK = 1 << 20
_LONGEST = 16  # longer sequences are named by their digest
_DEEPEST = 4


def attribution_key(
    model: Any, inputs: Any, baselines: Any, target: Any, layer: Any, extra: Any, rule: dict[str, Any]
) -> dict[str, Any]:
    """Plain JSON that differs where attributions would.

    Tensors and modules are named by digests of all their values; a function by its code, its defaults and
    what it has closed over, as far as these are numbers, text, tensors, modules and functions. What a
    function takes from globals is not looked at.
    """
    return {
        "kind": KIND,
        "model": _named(model),
        "layer": None if layer is None else name_layer(model, layer)[0],
        "inputs": _named(inputs),
        "baselines": _named(baselines),
        "target": _named(target),
        "additional_forward_args": _named(extra),
        **rule,
    }


def check_key(store: ActivationStore, key: dict[str, Any]) -> None:
    """Raise StoreError where a store is none of attributions, or of others than these."""
    there = store.fingerprint
    if there.get("kind") != KIND:
        raise StoreError(f"{store.path}: holds no attributions; choose another directory")
    differences = [
        f"{name} is {_short(there.get(name))} in the store, {_short(value)} now"
        for name, value in key.items()
        if there.get(name) != value
    ]
    if differences:
        raise StoreError(
            f"{store.path}: its attributions were made differently: {'; '.join(differences)}. Go on with "
            "what the store was made with, or choose another directory"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _named(value: Any, depth: int = 0) -> Any:
    import torch

    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return repr(float(value))
    if is_torch(value):
        return _tensor_digest(value)
    if isinstance(value, torch.nn.Module):
        return state_digest(value)
    if hasattr(value, "__array__"):
        return _tensor_digest(torch.as_tensor(value))
    if depth == _DEEPEST:
        return _type(value)
    if isinstance(value, (tuple, list)):
        found = [_named(item, depth + 1) for item in value]
        return found if len(found) <= _LONGEST else _digest(found)
    if isinstance(value, dict):
        return {str(name): _named(item, depth + 1) for name, item in value.items()}
    return _callable(value, depth + 1) if callable(value) else _type(value)


def _callable(value: Callable[..., Any], depth: int) -> Any:
    """A function by what it is made of; an object that can be called by its type and attributes."""
    if isinstance(value, partial):
        parts: list[Any] = [value.func, value.args, value.keywords]
    elif hasattr(value, "__self__"):
        parts = [value.__self__, getattr(value, "__name__", None)]
    elif hasattr(value, "__code__"):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
        return [
            f"{value.__module__}.{value.__qualname__}",
            _digest(
                [_code(value.__code__), _named([value.__defaults__, value.__kwdefaults__, cells], depth)]
            ),
        ]
    else:
        parts = [getattr(value, "__qualname__", None), dict(getattr(value, "__dict__", {}))]
    return [_type(value), _digest(_named(parts, depth))]


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (an empty cell raises)
    except ValueError:
        return False
    return True


def _code(code: CodeType) -> list[Any]:
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]


def _type(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _digest(value: Any) -> str:
    return xxhash.xxh3_128_hexdigest(canonical_json(value))


def _tensor_digest(tensor: Tensor) -> str:
    """Digest of shape, dtype and values; a few MB at a time, and pages of mapped files go again."""
    digest = xxhash.xxh3_128(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    if tensor.ndim and tensor.numel():
        rows = max(1, _BLOCK // max(1, tensor[:1].numel()))
        pages = Pages(tensor)
        for first in range(0, len(tensor), rows):
            block = tensor[first : first + rows]
            add_array(digest, block)
            pages.release(block)
    else:
        add_array(digest, tensor)
    return digest.hexdigest()
