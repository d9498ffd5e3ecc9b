"""Bias and RMSE of every estimator on pairs whose mutual information is known.

``python -m benchmarks.accuracy`` writes ``results/accuracy.json`` and ``accuracy.png``, in a few minutes;
``python -m benchmarks.tables`` then writes the tables.
"""

import argparse
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

from pytest_benchmark.utils import get_commit_info

from benchmarks import tables
from benchmarks.accuracy.figure import draw
from benchmarks.accuracy.measuring import measure_all
from benchmarks.environment import environment

# Samples, and how often they are drawn; every estimator gets all of them.
PLAN = [(100, 200), (300, 160), (1_000, 80), (3_000, 40), (10_000, 16), (30_000, 6), (100_000, 4)]
QUICK = [(100, 2), (200, 2)]


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: does it still run?")
    parser.add_argument("--out", type=Path, help="folder of accuracy.json and accuracy.png")
    options = parser.parse_args(arguments)
    if options.quick and options.out is None:
        parser.error("--quick: wanted --out, as its numbers are no results")
    plan = QUICK if options.quick else PLAN
    content = {
        "measured": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "commit": get_commit_info()["id"][:12],
        "environment": environment(),
        "samples": [step[0] for step in plan],
        "repeats": [step[1] for step in plan],
        "distributions": measure_all(plan, 1 if options.quick else os.cpu_count()),
    }
    tables.write_json((options.out or tables.RESULTS) / "accuracy.json", content)
    draw(content, (options.out or tables.HERE) / "accuracy.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
