"""How big the report of wide layers is, and how soon it opens: ``python -m benchmarks.report``.

Four layers of 512 maps, every pair of them drawn in full: ten couples of 512 x 512 matrices. The results are
made up, with groups of maps that go together, as an audit of a million samples would leave them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import audit_example
from browser import CHROMIUM, Browser

from qixai_fast.auditing.report.writer import write_report

ROUNDS = 5
FIRST_VALUE = "document.querySelector('.readout b') !== null"


def wide_report(out, layers=4, maps=512):
    """Write the report of so many wide layers; seconds that took."""
    audit_example.LAYERS.clear()
    audit_example.LAYERS.update({f"layer{i}": maps for i in range(layers)})
    audit_example.N = 2000
    results, arrays = audit_example.example_results()
    began = time.perf_counter()
    page = write_report(results, arrays, out)
    took = time.perf_counter() - began
    drawn = page.read_text(encoding="utf-8").count('class="matrices"')
    print(f"{drawn} of {len(results['pairs'])} pairs drawn in full")
    return took


def opening(page, profile):
    """Seconds to the load event, to the first value under the pointer, and of pointer moves at most."""
    with Browser(profile) as browser:
        loads, values = [], []
        for _ in range(ROUNDS):
            browser.open(page)
            loads.append(browser.ask("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1e3)
            box = browser.place_of(".picture img")
            began = time.perf_counter()
            browser.mouse("mouseMoved", box["x"] + 30, box["y"] + 30)
            browser.wait_for(FIRST_VALUE)
            values.append(time.perf_counter() - began)
        began = time.perf_counter()
        moves = 200
        for step in range(moves):
            browser.mouse("mouseMoved", box["x"] + 1 + step, box["y"] + 40)
        frames = browser.ask("new Promise(done => requestAnimationFrame(() => done(true)))")
        assert frames
        assert not browser.problems, browser.problems
        return loads, values, (time.perf_counter() - began) / moves


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--maps", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--out", type=Path, help="keep the report here")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder) / "report"
        took = wide_report(out, options.layers, options.maps)
        page = (out / "report.html").resolve()
        size = page.stat().st_size / 1e6
        print(f"{options.layers} layers of {options.maps} maps: written in {took:.1f} s, {size:.1f} MB")
        if CHROMIUM is None:
            print("opening: not measured, Chromium is not installed")
            return
        loads, values, move = opening(page, Path(folder) / "profile")
        print(f"opening in headless Chromium: {statistics.median(loads):.2f} s, at most {max(loads):.2f} s")
        print(
            f"first value under the pointer: {statistics.median(values):.3f} s; a move: {1e3 * move:.1f} ms"
        )


if __name__ == "__main__":
    main()
