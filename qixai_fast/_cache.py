"""The folder for what can be made again: measured rates, copies of remote stores."""

from __future__ import annotations

import os
from pathlib import Path

_VARIABLE = "QIXAI_FAST_CACHE"


def cache_folder() -> Path:
    """The user's cache: ``QIXAI_FAST_CACHE``, or a folder of ours where the system keeps such files."""
    if os.environ.get(_VARIABLE):
        return Path(os.environ[_VARIABLE])
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "qixai_fast"
