"""What each tool costs and how wrong it is: ``python -m benchmarks.planes``.

Writes ``results/planes.json`` and ``planes.png``; ``--draw`` draws the figure again and measures nothing;
``python -m benchmarks.tables`` then writes the section of README.md.
"""

from benchmarks.environment import SEED, limit_threads

if __name__ == "__main__":  # before NumPy is imported; processes of a pool inherit it
    limit_threads()

import argparse
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from benchmarks import tables
from benchmarks.environment import commit_name, environment
from benchmarks.planes import attributions, information, likeness, spectra
from benchmarks.planes.figure import draw
from benchmarks.planes.measuring import measure

GROUPS = {
    "spectra": spectra,
    "attributions": attributions,
    "information": information,
    "likeness": likeness,
}
ROUNDS = 5


def measured(groups, quick, folder):
    """All planes of these groups, by name."""
    found = {}
    for group in groups:
        for plane in GROUPS[group].planes(np.random.default_rng(SEED), quick, folder):
            print(f"{plane.title}: {len(plane.entrants)} entrants", flush=True)
            found[plane.name] = measure(plane, 0 if quick else ROUNDS)
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planes", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all without")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it still run? wants --out")
    parser.add_argument("--out", type=Path, help="folder of planes.json and planes.png")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"GROUP: wanted some of {', '.join(GROUPS)}, got {', '.join(sorted(unknown))}")
    if options.quick and options.out is None:
        parser.error("--quick: wanted --out, as its numbers are no results")
    path = (options.out or tables.RESULTS) / "planes.json"
    if not options.draw:
        commit = commit_name()
        with tempfile.TemporaryDirectory() as folder:
            planes = measured(options.groups or GROUPS, options.quick, folder)
        if options.groups and path.is_file():
            planes = tables.read_json(path)["planes"] | planes
        content = {
            "measured": f"{datetime.now(timezone.utc):%Y-%m-%d}",
            "commit": commit,
            "environment": environment(),
            "planes": planes,
        }
        tables.write_json(path, content)
    draw(tables.read_json(path), (options.out or tables.HERE) / "planes.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
