"""An audit out of core: its plan beside what it took, and its memory.

    python benchmarks/audit.py [--samples N] [--features D] [--layers L] [--max-memory 2GB] [--json FILE]

The store is made up: maps behind a ReLU that share 24 signals. Planned seconds are those of our kernels
alone, timed at small sizes (``auditing.rates``): actual over planned is what an audit adds to them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.environment import environment

_ROWS = 16384


def make_store(path, samples, features, layers):
    import qixai_fast as qf

    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((layers, 24, features), dtype=np.float32) * np.float32(0.3)
    specs = {f"layer{i}": qf.LayerSpec((features,), "float32") for i in range(layers)}
    with qf.create_store(path, layers=specs) as writer:
        for start in range(0, samples, _ROWS):
            rows = min(_ROWS, samples - start)
            signals = rng.standard_normal((rows, 24), dtype=np.float32)
            noise = rng.standard_normal((layers, rows, features), dtype=np.float32)
            maps = np.maximum(signals @ mixing + noise, 0)
            writer.append(dict(zip(specs, maps, strict=True)))


def run(folder, max_memory):
    """Audit in a process of its own; its ``timings.json``."""
    command = ["-m", "qixai_fast", "audit", str(folder / "store"), "--out", str(folder / "report")]
    subprocess.run([sys.executable, *command, "--max-memory", max_memory], check=True)
    return json.loads((folder / "report" / "timings.json").read_text())


def kinds(timings):
    """Actual and planned seconds, summed over stages of a kind."""
    stages = {"verify": timings["verify"], **timings["stages"]}
    found = {}
    for name, stage in stages.items():
        kind = next(
            k for k in ("verify", "layer", "relation", "mutual_info", "ksg", "labels") if name.startswith(k)
        )
        actual, planned = found.get(kind, (0.0, 0.0))
        found[kind] = actual + stage["seconds"], planned + stage["planned"]["seconds"]
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--max-memory", default="2GB")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_store(folder / "store", arguments.samples, arguments.features, arguments.layers)
        timings = run(folder, arguments.max_memory)
    found = kinds(timings)
    print(f"{'stages':12s} {'actual s':>9s} {'planned s':>9s} {'ratio':>6s}")
    total = tuple(map(sum, zip(*found.values(), strict=True)))
    for kind, (actual, planned) in {**found, "all": total}.items():
        print(f"{kind:12s} {actual:9.1f} {planned:9.1f} {actual / planned:6.2f}")
    peak = timings["machine"]["peak_memory_bytes"]
    allowed = arguments.max_memory
    print(f"in all {timings['seconds']:.0f} s; {peak / 1e6:.0f} MB resident at most, {allowed} allowed")
    if arguments.json is not None:
        content = {
            "environment": environment(),
            "arguments": {k: v for k, v in vars(arguments).items() if k != "json"},
            "seconds": timings["seconds"],
            "peak_memory_bytes": peak,
            "kinds": {kind: {"actual": a, "planned": p} for kind, (a, p) in found.items()},
        }
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
