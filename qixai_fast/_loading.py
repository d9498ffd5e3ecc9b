"""``module:function`` on the command line: find it, call it, or say what is wrong."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def load_object(spec: str, option: str) -> Any:
    """Import ``module:function``, from the current folder too, and return what the function returns.

    Raises
    ------
    ValueError
        Where the text has another form, the module or the name does not exist, or it is not callable.
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        raise ValueError(f"{option}: wanted module:function, got {spec!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        raise ValueError(
            f"{option}: no module named {error.name!r} (searched {here} and the installed packages)"
        ) from None
    function = module
    for part in name.split("."):
        if not hasattr(function, part):
            raise ValueError(f"{option}: module {module_name!r} has no {name!r}")
        function = getattr(function, part)
    if not callable(function):
        raise ValueError(f"{option}: {spec!r} is not a function, it is a {type(function).__name__}")
    return function()


_MOST_INPUTS = 4096


def gather_inputs(source: Any) -> Any:
    """Inputs for attributions: a tensor or array as it is; of batches, what goes to the model, joined.

    Of a batch that is a tuple or list, the first element is taken; of an iterable, the first
    4,096 samples at most, since only a few are attributed.

    Raises
    ------
    TypeError
        For batches of another form.
    """
    import torch

    if hasattr(source, "shape"):
        return torch.as_tensor(source)
    if isinstance(source, (str, bytes, dict)) or not hasattr(source, "__iter__"):
        raise TypeError(f"--inputs: wanted a tensor or an iterable of batches, got {type(source).__name__}")
    parts: list[Any] = []
    count = 0
    for batch in source:
        first = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not hasattr(first, "shape"):
            raise TypeError(
                f"--inputs: wanted batches that are or begin with a tensor, got {type(first).__name__}"
            )
        parts.append(torch.as_tensor(first))
        count += len(first)
        if count >= _MOST_INPUTS:
            break
    if not parts:
        raise ValueError("--inputs: wanted at least one batch, got none")
    return torch.cat(parts)
