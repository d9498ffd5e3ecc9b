"""Read a finished audit back from its directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np

from .._validate import Array
from ..errors import StoreError
from .results import SCHEMA_VERSION, Arrays, Results


def read_report(path: Any) -> tuple[Results, Arrays]:
    """Results and arrays of a report on disk.

    Parameters
    ----------
    path : path
        What ``qixai-fast audit --out`` wrote.

    Returns
    -------
    results : Results
    arrays : mapping
        File stem -> array name -> array.

    Raises
    ------
    StoreError
        For a directory that is no report, a damaged one, or one of another version of the format.
    """
    folder = Path(path)
    try:
        results = cast(Results, json.loads((folder / "results.json").read_text(encoding="utf-8")))
        version = results["schema_version"]
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{folder}: a report of format {version}, wanted {SCHEMA_VERSION}; audit the store again"
            )
        arrays: dict[str, Mapping[str, Array]] = {}
        for name in _named(results):
            with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
                arrays[name] = {member: file[member] for member in file.files}
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise StoreError(f"{folder}: no finished report, {missing} is not there") from None
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise StoreError(f"{folder}: a damaged report ({error}); audit the store again") from None
    return results, arrays


def _named(results: Results) -> list[str]:
    """The files that results name."""
    names = [layer["arrays"] for layer in results["layers"]]
    for pair in results["pairs"]:
        names += [pair["cosine"]["arrays"], pair["mutual_info"]["arrays"]]
    if results["labels"] is not None:
        names += [layer["arrays"] for layer in results["labels"]["layers"]]
    if results["attributions"] is not None:
        names.append(results["attributions"]["arrays"])
    return names
