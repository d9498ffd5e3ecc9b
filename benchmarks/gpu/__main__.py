"""Rooflines of the CUDA paths on the card at hand: ``python -m benchmarks.gpu --json FILE``.

The card's own rates come first; then each work runs at a sixty-fourth and an eighth of its size and, by what
those took, at its full size or at as much of it as its share of ``--seconds`` lets it. What was measured is
written after each work, so that a run that is stopped leaves what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import traceback
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from zlib import crc32

from benchmarks.environment import environment
from benchmarks.gpu.targets import TARGETS
from benchmarks.tables import write_json

_PROBE, _SECOND_PROBE = 1 / 64, 1 / 8
# Setup, warming up and what is measured beside a work, as a multiple of one timed call.
_CALLS = 6


@cache
def stamp_and_environment():
    """When and by what: names neither the machine nor its user."""
    made_by = environment() | {"threads": os.cpu_count()}
    made_by["versions"]["numba-cuda"] = metadata.version("numba-cuda")
    try:
        command = ["git", "rev-parse", "--short=12", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    machine = crc32(json.dumps(made_by, sort_keys=True).encode())
    return f"{datetime.now(timezone.utc):%Y-%m-%d} {commit} {machine:08x}", made_by


def fitting_scale(times, share):
    """The largest share of the full size, 1 or a half of one again and again, that fits so many seconds.

    Parameters
    ----------
    times : dict
        Seconds of one call by the shares that were tried, from small to large. The last two give what grows
        with the size; of a single one all of it is taken to grow.
    share : float
        Seconds that may be spent.
    """
    (before, at_first), (last, seconds) = ([(0.0, 0.0), *times.items()])[-2:]
    slope = max(0.0, (seconds - at_first) / (last - before))
    scale = 1.0
    while scale > last and _CALLS * (seconds + slope * (scale - last)) > share:
        scale /= 2
    return max(scale, last)


def measured(card, name, works, share, quick):
    """Rows of a work, at the size that fits; with ``quick`` at the least size."""
    from benchmarks.gpu.card import row

    work, full = works[name]
    times, scale = {}, _PROBE
    while scale not in times:
        rows = dict(work(card, row, scale, full))
        card.clear()
        times[scale] = max(one["seconds"] for one in rows.values())
        if quick or len(times) == 3:
            break
        fits = fitting_scale(times, share)
        scale = min(fits, _SECOND_PROBE) if len(times) == 1 else fits
    return rows


def run(card, path, works, *, names, seconds, quick=False, card_name="", rates=None):
    """Measure works and write their rows.

    Parameters
    ----------
    card : Card
    path : Path
        JSON; rows of works that are not run again stay where it exists.
    works : dict
        As :data:`benchmarks.gpu.works.WORKS`.
    names : list of str
        Of works.
    seconds : float
        For all of them.
    quick : bool
        The least sizes: shows that all of it runs.
    card_name : str
    rates : dict, optional
        Arguments of :func:`benchmarks.gpu.card.measure_rates`.

    Returns
    -------
    list of str
        Works that failed.
    """
    from benchmarks.gpu.card import measure_rates

    stamp, made_by = stamp_and_environment()
    measure_rates(card, **(rates or {}))
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"runs": {}, "rows": {}}
    content = {"card": card_name, "rates": card.rates, "rows": old["rows"]}
    failed = []
    for name in names:
        try:
            rows = measured(card, name, works, seconds / len(names), quick)
        except Exception:
            traceback.print_exc()
            failed.append(name)
            card.clear()
            continue
        content["rows"] |= {key: one | {"run": stamp} for key, one in rows.items()}
        used = {one["run"] for one in content["rows"].values()}
        runs = {key: value for key, value in (old["runs"] | {stamp: made_by}).items() if key in used}
        write_json(path, {"runs": runs, **content})
        for key, one in rows.items():
            print(
                f"{key}: {one['measured']:.4g} (wanted {TARGETS[key].text}), {one['seconds']:.4g} s at "
                f"{one['scale']:.3g} of the size, {one['roofline']:.3g} of what the {one['limit']} allows",
                flush=True,
            )
    return failed


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write; not given: nowhere")
    parser.add_argument("--only", nargs="+", metavar="WORK", help="these alone, as in --only binned ksg")
    parser.add_argument("--seconds", type=float, default=360, help="for all works (default 360)")
    parser.add_argument("--quick", action="store_true", help="least sizes: does it run?")
    parser.add_argument("--device", type=int, default=0, help="which GPU, as torch counts them")
    parser.add_argument("--check", action="store_true", help="only say whether CUDA can be used here")
    options = parser.parse_args(arguments)
    from qixai_fast._device import cuda_problem

    problem = cuda_problem()
    if problem is not None:
        return f"There is no GPU to run on: {problem}"
    if options.check:
        return 0
    import torch

    from benchmarks.gpu.card import Card
    from benchmarks.gpu.works import WORKS
    from qixai_fast._gpu.backend import open_backend

    unknown = set(options.only or ()) - set(WORKS)
    if unknown:
        parser.error(f"--only: {', '.join(sorted(unknown))} is no work; there are {', '.join(WORKS)}")
    backend = open_backend(options.device)
    torch.cuda.set_device(backend.device)
    failed = run(
        Card(backend, simulated=False),
        options.json or Path(os.devnull),
        WORKS,
        names=options.only or list(WORKS),
        seconds=options.seconds,
        quick=options.quick,
        card_name=torch.cuda.get_device_name(backend.device),
    )
    return f"failed: {', '.join(failed)}" if failed else 0


if __name__ == "__main__":
    sys.exit(main())
