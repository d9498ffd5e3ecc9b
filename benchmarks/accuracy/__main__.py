"""How right every estimator is where the truth is known, part by part.

``python -m benchmarks.accuracy`` measures all parts, a quarter of an hour on two cores; ``python -m
benchmarks.accuracy spectra`` one. Each leaves ``results/accuracy_PART.json`` and a figure;
``python -m benchmarks.tables`` then writes the tables. Beyond Normal's own package draws its tasks first:
``make bench-beyond-normal``.
"""

from benchmarks.environment import commit_name, environment, limit_threads

if __name__ == "__main__":  # before NumPy is imported; processes of a pool inherit it
    limit_threads()

import argparse
import importlib
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

from benchmarks import tables
from benchmarks.accuracy.parts import PARTS, file_of


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it still run?")
    parser.add_argument("--out", type=Path, help="folder of the results and figures")
    parser.add_argument("--draw", action="store_true", help="only the figures again, from the results kept")
    options = parser.parse_args(arguments)
    if options.quick and options.out is None:
        parser.error("--quick: wanted --out, as its numbers are no results")
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; wanted any of {', '.join(PARTS)}")
    commit = commit_name()
    for name in options.parts or PARTS:
        part = importlib.import_module(f"benchmarks.accuracy.{name}")
        path = (options.out or tables.RESULTS) / f"{file_of(name)}.json"
        if not options.draw:
            measured = part.measure(options.quick, 1 if options.quick else os.cpu_count())
            if measured is None:
                print(f"{name}: nothing to measure; {part.MISSING}", file=sys.stderr)
                continue
            content = {
                "measured": f"{datetime.now(timezone.utc):%Y-%m-%d}",
                "commit": commit,
                "environment": environment(),
            } | measured
            tables.write_json(path, content)
        if path.is_file():
            part.draw(tables.read_json(path), (options.out or tables.HERE) / f"{file_of(name)}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
