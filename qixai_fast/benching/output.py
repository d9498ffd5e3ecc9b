"""``bench.json``, ``bench.md`` and ``bench.png``: all three, or what was there before."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from .text import markdown

FILES = ("bench.json", "bench.md", "bench.png")


def check_folder(folder: Path, store: str | None) -> Path:
    """Complain before the work, not after it, where the folder cannot be written, or is in the store."""
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise ValueError(f"--out: {above} is a file, wanted a folder")
    if not os.access(above, os.W_OK):
        raise ValueError(f"--out: {above} cannot be written")
    if store is not None and folder.resolve().is_relative_to(Path(store).resolve()):
        raise ValueError(f"--out: {folder} is in the store itself; choose another folder")
    return folder


def _png(content: dict[str, Any]) -> bytes:
    import io

    from .figure import draw

    figure = draw(content)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def write(content: dict[str, Any], folder: Path) -> None:
    """Make all bytes first, then temporary files, then put them in place together."""
    data = {
        "bench.json": (json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode(),
        "bench.md": markdown(content).encode(),
        "bench.png": _png(content),
    }
    folder.mkdir(parents=True, exist_ok=True)
    temporary = {name: folder / f".{name}.tmp" for name in data}
    try:
        for name, path in temporary.items():
            path.write_bytes(data[name])
        for name, path in temporary.items():
            os.replace(path, folder / name)
    except BaseException:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink()
        raise
