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
