"""Check a value against the TypedDicts of an audit's results, field by field."""

from __future__ import annotations

import types
import typing
from typing import Any

from qixai_fast.auditing.results import Results


def schema_problems(value: Any, kind: Any = Results, where: str = "results") -> list[str]:
    """Every place where a value is not of its declared type; extra and missing fields count."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return []
    if origin in (typing.Union, types.UnionType):
        tries = [schema_problems(value, option, where) for option in args]
        return min(tries, key=len)
    if typing.is_typeddict(kind):
        if not isinstance(value, dict):
            return [f"{where}: {type(value).__name__} is no object"]
        hints = typing.get_type_hints(kind)
        found = [f"{where}.{name}: extra" for name in value.keys() - hints.keys()]
        found += [f"{where}.{name}: missing" for name in hints.keys() - value.keys()]
        for name in hints.keys() & value.keys():
            found += schema_problems(value[name], hints[name], f"{where}.{name}")
        return found
    if origin is list:
        if not isinstance(value, list):
            return [f"{where}: {type(value).__name__} is no list"]
        return [p for i, item in enumerate(value) for p in schema_problems(item, args[0], f"{where}[{i}]")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{where}: {type(value).__name__} is no object"]
        return [p for name, item in value.items() for p in schema_problems(item, args[1], f"{where}.{name}")]
    if origin is typing.Literal:
        return [] if value in args else [f"{where}: {value!r} is none of {args}"]
    if kind is float:
        return [] if type(value) in (float, int) else [f"{where}: {type(value).__name__} is no number"]
    return (
        [] if type(value) is (type(None) if kind is None else kind) else [f"{where}: {value!r} is no {kind}"]
    )
