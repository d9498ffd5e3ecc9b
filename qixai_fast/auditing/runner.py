"""Run the stages of an audit: each once, under its own seed, kept on disk as soon as it is done."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import kernels
from .._memory import format_bytes
from .costs import StageCost, seconds_text, table
from .files import AuditFiles, Stage, digest, json_bytes

_BAR_DELAY = 0.5  # seconds before a bar appears, so that quick audits stay silent
_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARIES = ("numpy", "scipy", "numba", "llvmlite", "torch")
# What decides how results look or how a command is called, but no number.
_NO_NUMBERS = (
    "auditing/report",
    "auditing/words.py",
    "auditing/findings.py",
    "auditing/checks.py",
    "auditing/plan_file.py",
    "auditing/unchanged.py",
    "auditing/costs.py",
    "auditing/rates.py",
    "auditing/comparing.py",
    "auditing/reading.py",
    "store/verifying.py",
    "_cluster.py",
    "_gpu",
    "_forks.py",
    "auditing/dask.py",
    "cli.py",
    "_start.py",
    "demo.py",
    "store/locking.py",
    "store/remote.py",
    "_cache.py",
    "_file_maps.py",
)


@cache
def code_digest() -> str:
    """Digest of the code that results depend on: this package's sources, libraries, and the processor.

    Bits are promised to be the same on one type of processor with one set of libraries, so an audit that
    goes on elsewhere begins anew instead of mixing them.
    """
    folders = [(_PACKAGE, "package"), (Path(kernels.__path__[0]), "kernels")]
    parts: list[bytes] = []
    for folder, label in folders:
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            if label == "kernels" or not name.startswith(_NO_NUMBERS):
                parts += [f"{label}/{name}".encode(), path.read_bytes()]
    parts += [f"{name} {_version(name)}".encode() for name in _LIBRARIES]
    parts += [part.encode() for part in (*_processor(), *_blas())]
    return digest(b"".join(digest(part).encode() for part in parts))


def _processor() -> tuple[str, str]:
    """What numba compiles for: another type of processor gives other last bits."""
    from llvmlite import binding
    from numba.core import config

    name, features = (getattr(config, option, None) for option in ("CPU_NAME", "CPU_FEATURES"))
    return (
        str(name or binding.get_host_cpu_name()),
        str(features or binding.get_host_cpu_features().flatten()),
    )


def _blas() -> list[str]:
    """The BLAS of NumPy and SciPy: name, version and the kernels that it chose for this processor."""
    import scipy.linalg  # noqa: F401  (loads its BLAS, which otherwise comes with the first stage)
    from threadpoolctl import threadpool_info

    # torch brings one of its own, and only where a model is given: for that, its version stands.
    found = [
        one
        for one in threadpool_info()
        if one["user_api"] == "blas" and "torch" not in Path(one["filepath"]).parts
    ]
    return sorted({f"{one['internal_api']} {one['version']} {one.get('architecture')}" for one in found})


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
        What every stage depends on beside seed and code.
    seed : int
    n_stages : int
        How many there will be, for the progress bar.
    progress : bool
        Whether to show one, on stderr; where that is no terminal, a line a stage.
    tidy : callable
        Called when a stage is done.
    costs : sequence of StageCost
        The plan, for the time that is left.
    unchanged : callable
        Called before and after a stage is computed; raises where the data are not what they were.

    Attributes
    ----------
    timings : dict
        Seconds of each stage, and whether it was read back.
    names : list of str
        Stages run so far.
    shows : bool
        Whether there is a bar, on a terminal.
    """

    def __init__(
        self,
        files: AuditFiles | None,
        common: dict[str, Any],
        seed: int,
        n_stages: int,
        progress: bool,
        tidy: Callable[[], None] = lambda: None,
        costs: Sequence[StageCost] = (),
        unchanged: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = files
        self._common = {**common, "code": code_digest()}
        self._seed = seed
        self._n_stages = n_stages
        self._tidy = tidy
        self._unchanged = unchanged
        self._costs = {cost.name: cost for cost in costs}
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self.shows = progress and terminal
        self._logs = progress and sys.stderr is not None and not terminal
        self._bar = tqdm(
            total=n_stages,
            unit="stage",
            disable=not self.shows,
            file=sys.stderr,
            delay=_BAR_DELAY,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
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
            Plain JSON: everything but seed and code that the result depends on, with a digest of the data.
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
            self._unchanged()
            result, arrays = compute(stage_generator(self._seed, name))
            self._unchanged()
            # As read back from disk, so that a resumed audit sees the same types.
            stage = json.loads(json_bytes(result)), {k: np.asarray(v) for k, v in arrays.items()}
            if self._files is not None:
                self._files.write(name, key, stage)
        self._tidy()
        seconds = time.perf_counter() - began
        self.timings[name] = {"seconds": seconds, "reused": reused}
        self.names.append(name)
        left = self._time_left()
        self._bar.set_postfix_str(left, refresh=False)
        self._bar.update()
        if self._logs:
            print(self._line(name, title, seconds, reused, left), file=sys.stderr, flush=True)
        return stage

    def compare(self, verified: float) -> None:
        """Show the plan beside what stages took, on a terminal; ``verified`` are the seconds of checksums."""
        if self.shows and self._costs:
            actual = {name: timed["seconds"] for name, timed in self.timings.items() if not timed["reused"]}
            print(table(list(self._costs.values()), {"verify": verified, **actual}), file=sys.stderr)

    def _time_left(self) -> str:
        """Planned seconds of stages to come, as much longer as those that ran took; empty if unknown."""
        ran = [name for name in self.names if name in self._costs and not self.timings[name]["reused"]]
        planned = sum(_known(self._costs[name].seconds) for name in ran)
        to_come = sum(
            _known(cost.seconds)
            for name, cost in self._costs.items()
            if name not in self.timings and name != "verify"
        )
        if not planned or not to_come:
            return ""
        slower = sum(self.timings[name]["seconds"] for name in ran) / planned
        return f"about {seconds_text(slower * to_come)} left"

    def _line(self, name: str, title: str, seconds: float, reused: bool, left: str) -> str:
        """What a log shows of a stage."""
        size = self._costs[name].bytes_read if name in self._costs else 0
        parts = [f"audit {len(self.names)}/{self._n_stages}: {title}", f"{seconds:.2f} s"]
        parts += ["read back" if reused else f"{format_bytes(size)} read"]
        return ", ".join([*parts, left] if left else parts)


def _known(seconds: float) -> float:
    return 0.0 if math.isnan(seconds) else seconds


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
