"""Run the stages of an audit: each once, under its own seed, kept on disk as soon as it is done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import kernels
from .files import AuditFiles, Stage, digest, json_bytes

_BAR_DELAY = 0.5  # seconds before a bar appears, so that quick audits stay silent
_PACKAGE = Path(__file__).resolve().parents[1]
# What decides how results look or how a command is called, but no number.
_NO_NUMBERS = (
    "auditing/report",
    "auditing/words.py",
    "auditing/findings.py",
    "auditing/checks.py",
    "auditing/plan_file.py",
    "cli.py",
    "demo.py",
)


@cache
def code_digest() -> str:
    """Digest of the code that results depend on: this package's sources and the libraries' versions."""
    folders = [(_PACKAGE, "package"), (Path(kernels.__path__[0]), "kernels")]
    parts: list[bytes] = []
    for folder, label in folders:
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            if label == "kernels" or not name.startswith(_NO_NUMBERS):
                parts += [f"{label}/{name}".encode(), path.read_bytes()]
    parts += [f"{name} {_version(name)}".encode() for name in ("numpy", "scipy", "numba", "torch")]
    return digest(b"".join(digest(part).encode() for part in parts))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def stage_generator(seed: int, name: str) -> np.random.Generator:
    """A stage's own random numbers: they depend on its name, not on what ran before it."""
    return np.random.default_rng(np.random.SeedSequence([seed, *name.encode()]))


class StageRunner:
    """Runs stages, or reads back those that were finished under the same key.

    Parameters
    ----------
    files : AuditFiles or None
        Where finished stages are kept; None keeps nothing.
    common : dict
        What every stage depends on: the store's checksum.
    seed : int
    n_stages : int
        How many there will be, for the progress bar.
    progress : bool
        Whether to show one, on stderr.

    Attributes
    ----------
    timings : dict
        Seconds of each stage, and whether it was read back.
    names : list of str
        Stages run so far.
    """

    def __init__(
        self, files: AuditFiles | None, common: dict[str, Any], seed: int, n_stages: int, progress: bool
    ) -> None:
        self._files = files
        self._common = {**common, "code": code_digest()}
        self._seed = seed
        self._n_stages = n_stages
        self._bar = tqdm(
            total=n_stages, unit="stage", disable=not progress, file=sys.stderr, delay=_BAR_DELAY
        )
        self.timings: dict[str, dict[str, Any]] = {}
        self.names: list[str] = []

    def __enter__(self) -> StageRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._bar.close()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            done = f"audit interrupted after {len(self.names)} of {self._n_stages} stages"
            raise KeyboardInterrupt(done if self._files is None else f"{done}; these are kept") from None

    def run(
        self, name: str, depends: dict[str, Any], title: str, compute: Callable[[np.random.Generator], Stage]
    ) -> Stage:
        """One stage's result and arrays.

        Parameters
        ----------
        name : str
            Stem of its files.
        depends : dict
            Plain JSON: everything but store, seed and code that the result depends on.
        title : str
            For the progress bar.
        compute : callable
            Takes the stage's random generator.
        """
        self._bar.set_description_str(title)
        began = time.perf_counter()
        key = digest(json_bytes({**self._common, "seed": self._seed, "name": name, "depends": depends}))
        stage = None if self._files is None else self._files.read(name, key)
        reused = stage is not None
        if stage is None:
            result, arrays = compute(stage_generator(self._seed, name))
            # As read back from disk, so that a resumed audit sees the same types.
            stage = json.loads(json_bytes(result)), {k: np.asarray(v) for k, v in arrays.items()}
            if self._files is not None:
                self._files.write(name, key, stage)
        self.timings[name] = {"seconds": time.perf_counter() - began, "reused": reused}
        self.names.append(name)
        self._bar.update()
        return stage


def machine() -> dict[str, Any]:
    """Where the audit ran, for ``timings.json``."""
    return {
        "python": sys.version.split()[0],
        "platform": sys.platform,
        "libraries": {name: _version(name) for name in ("numpy", "scipy", "numba", "torch")},
        "peak_memory_bytes": _peak_memory(),
    }


def _peak_memory() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
