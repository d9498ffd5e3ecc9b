"""A plan as a TOML file: one line a field of :class:`AuditPlan`, read with places in its errors."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from .plan import AuditPlan

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FIELDS = [field.name for field in fields(AuditPlan)]
_DEFAULTS = {field.name: field.default for field in fields(AuditPlan)}
# TOML has no null. A field is left out to be None; one that is something else by default says "none".
_NONE = "none"


def read_plan(path: str | os.PathLike[str]) -> AuditPlan:
    """Read a plan file.

    Parameters
    ----------
    path : path
        TOML with fields of :class:`AuditPlan` as keys, all optional. ``bias_correction = "none"`` stands for
        None.

    Raises
    ------
    OSError
        Where it cannot be read.
    TypeError, ValueError
        For text that is not TOML, keys that no plan has (the nearest are named), and values that do not fit:
        with file and line.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise type(error)(f"plan: {path} cannot be read ({error.strerror or error})") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return parse_plan(text, str(path))


def parse_plan(text: str, name: str = "plan") -> AuditPlan:
    """Read the text of a plan file; ``name`` stands for it in errors.

    Examples
    --------
    >>> parse_plan('n_bins = 8\\nlayers = ["conv1"]').n_bins
    8
    >>> parse_plan("n_bin = 8", "plan.toml")
    Traceback (most recent call last):
        ...
    ValueError: plan.toml, line 1: a plan has no 'n_bin'; the nearest are n_bins, n_jobs, n_noise
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name}: not TOML: {error}") from None
    for key in values:
        if key not in _FIELDS:
            near = difflib.get_close_matches(key, _FIELDS, n=3, cutoff=0.0)
            raise ValueError(
                f"{_place(text, name, key)}: a plan has no {key!r}; the nearest are {', '.join(near)}"
            )
    if values.get("bias_correction") == _NONE:
        values["bias_correction"] = None
    try:
        return AuditPlan(**values)
    except (TypeError, ValueError) as error:
        key = str(error).partition(":")[0]
        raise type(error)(f"{_place(text, name, key)}: {error}") from None


def _place(text: str, name: str, key: str) -> str:
    """File and line of a key, as far as a line begins with it."""
    begin = re.compile(rf"\s*(\[\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    for number, line in enumerate(text.splitlines(), start=1):
        if begin.match(line):
            return f"{name}, line {number}"
    return name


def plan_text(plan: AuditPlan) -> str:
    """A plan as TOML, fields in their order; reading it back gives the same plan.

    Examples
    --------
    >>> print(plan_text(AuditPlan(layers=["conv1"])).splitlines()[0])
    layers = ["conv1"]
    """
    lines = []
    for name in _FIELDS:
        value = getattr(plan, name)
        if value is not None:
            lines.append(f"{name} = {_toml(value)}\n")
        elif _DEFAULTS[name] is not None:
            lines.append(f'{name} = "{_NONE}"\n')
    return "".join(lines)


def embedded_plan(asked: AuditPlan, resolved: AuditPlan, seed: int) -> str:
    """The plan of a finished audit as TOML: on the same store it gives the same numbers.

    What was open is filled in but the choice of layers and pairs: all of a store stay all. Memory and
    threads are left out, as no number depends on them.
    """
    choice = replace(resolved, layers=asked.layers, pairs=asked.pairs, random_state=seed)
    return plan_text(replace(choice, max_memory=None, n_jobs=None))


def _toml(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        # JSON escapes what TOML does, but for one control character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(float(value)) if isinstance(value, float) else str(int(value))
