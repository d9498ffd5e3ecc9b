"""Measure the study, or some of its parts, and write its README.

``python -m benchmarks.study`` writes ``results/PART.json``, ``figures/`` and the sections of README.md;
``python -m benchmarks.study paper --images cell_images/ --out mine`` leaves all of that in ``mine``;
``python -m benchmarks.study --write`` measures nothing and writes figures and README from what is kept.
"""

from benchmarks.environment import limit_threads

if __name__ == "__main__":  # before NumPy is imported; processes of a pool inherit it
    limit_threads()

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.environment import commit_name, environment
from benchmarks.study.parts import PARTS, Options, part
from benchmarks.study.reading import readme_text
from benchmarks.tables import read_json, write_json

HERE = Path(__file__).parent
WORK = Path(".benchmarks/study")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all without")
    parser.add_argument("--images", type=Path, help="folder with one folder of images a class")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it still run? wants --out")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results, figures and README.md")
    parser.add_argument("--work", type=Path, default=WORK, help="trained networks and stores are kept here")
    parser.add_argument("--write", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"PART: wanted some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if (options.quick or options.images) and options.out == HERE:
        parser.error("--quick, --images: wanted --out, as these are not the numbers that are committed")
    if options.images and not options.images.is_dir():
        parser.error(f"--images: {options.images} is no folder")
    asked = Options(options.quick, options.images, options.work)
    results, figures = options.out / "results", options.out / "figures"
    commit = commit_name()
    for name in options.parts or PARTS:
        path = results / f"{name}.json"
        if not options.write:
            content = part(name).measure(asked)
            about = {
                "measured": f"{datetime.now(timezone.utc):%Y-%m-%d}",
                "commit": commit,
                "environment": environment(),
            }
            write_json(path, about | content)
        if path.is_file():
            figures.mkdir(parents=True, exist_ok=True)
            part(name).draw(read_json(path), figures)
    options.out.mkdir(parents=True, exist_ok=True)
    readme = options.out / "README.md"
    before = (HERE / "README.md").read_text(encoding="utf-8")
    readme.write_text(readme_text(before, results), encoding="utf-8")
    print(f"written: {readme}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
