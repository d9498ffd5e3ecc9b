"""``module:function`` on the command line: find it, call it, or say what is wrong."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any


def load_object(spec: str, option: str) -> Any:
    """Import ``module:function``, from the current folder too, and return what the function returns.

    Raises
    ------
    ValueError
        Where the text has another form, the module or the name does not exist, it is not callable, or the
        user's own code fails.
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        raise ValueError(f"{option}: wanted module:function, got {spec!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not (module_name + ".").startswith(missing + "."):
            raise ValueError(f"{option}: importing {module_name!r} failed: {_told(error)}") from error
        raise ValueError(
            f"{option}: no module named {missing!r} (searched {here} and the installed packages)"
        ) from None
    function = module
    for part in name.split("."):
        if not hasattr(function, part):
            raise ValueError(f"{option}: module {module_name!r} has no {name!r}")
        function = getattr(function, part)
    if not callable(function):
        raise ValueError(f"{option}: {spec!r} is not a function, it is a {type(function).__name__}")
    try:
        return function()
    except Exception as error:
        raise ValueError(f"{option}: {spec!r} failed: {_told(error)}") from error


def _told(error: Exception) -> str:
    """An error of the user's own code, with the line that raised it."""
    kind = type(error).__name__
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    if isinstance(error, SyntaxError) or not places:
        return f"{kind}: {error}"
    return f"{kind}: {error} ({places[-1].filename}, line {places[-1].lineno})"
