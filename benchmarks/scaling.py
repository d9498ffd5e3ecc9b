"""Audits on 1, 2 and 4 Dask workers of this machine beside local ones, and what a large cluster would take.

    python benchmarks/scaling.py [--samples N] [--features D] [--workers 1 2 4] [--quick] [--json FILE]

Measured: seconds of all stages (on threads of one process, then on workers of one thread each), whether
the bits are the same, and the overhead of a task: of empty ones, and of real ones, as what workers take
beyond the local audit over the number of tasks. On fewer cores than workers, that holds what sharing
them costs, too. A model of cost then extends measured rates to a larger store and cluster.

Assumptions of the model:
- Work divides over threads: rates of one thread of this machine (``auditing/rates.py``) over all threads.
- Every byte of a layer is read five times: for moments, its summary, its entropy (twice) and the values of
  mutual information, from a file system that gives all workers together ``--file-system`` bytes a second.
- Partials of d x d float64 travel once for each task and each combination of four, over links of
  ``--network`` bytes a second a worker, all workers at a time.
- The scheduler takes the measured time of an empty task for each, one task after the other.
- Values of mutual information count all samples; permutations are of ``test_samples``.
- The bins of columns are made by the process that calls the audit, one column after the other on one thread:
  in this version that part does not get faster with workers, and rules at 10^9 samples.
- Left out: the report, attributions, the checksums, KSG, labels, and the copy by columns.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import qixai_fast as qf
from benchmarks.environment import environment
from qixai_fast._cluster import on_cluster
from qixai_fast.auditing.rates import Rates
from qixai_fast.store import LayerSpec, create_store

LAYERS = 4


@dataclass
class Network:
    """What the model assumes of a cluster: bytes a second of a worker's link, and of the file system."""

    network: float
    file_system: float


def make_store(path: Path, samples: int, features: int) -> None:
    """Four layers that share a few signals."""
    rng = np.random.default_rng(0)
    mixing = [rng.standard_normal((8, features)).astype(np.float32) for _ in range(LAYERS)]
    names = [f"layer{i}" for i in range(LAYERS)]
    with create_store(path, {name: LayerSpec((features,)) for name in names}, labels=True) as writer:
        for start in range(0, samples, 20_000):
            n = min(20_000, samples - start)
            signal = rng.standard_normal((n, 8)).astype(np.float32)
            noise = (rng.standard_normal((n, features)).astype(np.float32) for _ in names)
            layers = {
                name: np.maximum(signal @ mix + one, 0)
                for name, mix, one in zip(names, mixing, noise, strict=True)
            }
            writer.append(layers, labels=(signal[:, 0] > 0).astype(np.int64))


def audit_once(store: Path, out: Path, plan: qf.AuditPlan, client: Any = None) -> dict[str, Any]:
    """Seconds of all stages of an audit; the report's page is not counted."""
    report = qf.audit(store, out, plan=plan, client=client, progress=False)
    return {name: stage["seconds"] for name, stage in report.timings["stages"].items()}


def by_kind(stages: dict[str, float]) -> dict[str, float]:
    """Seconds of stages, summed over those of a kind."""
    kinds = ("layer", "relation", "mutual_info", "ksg", "labels")
    return {
        kind: round(sum(seconds for name, seconds in stages.items() if name.startswith(kind)), 3)
        for kind in kinds
    }


def same_bits(first: Path, second: Path) -> bool:
    """Whether two audits left the same numbers."""
    names = ["results.json", *(path.name for path in first.glob("*.npz"))]
    return not any(filecmp.cmpfiles(first, second, names, shallow=False)[1:])


def empty(item: int) -> int:
    """No work."""
    return item


def task_overhead(client: Any, count: int = 400) -> float:
    """Seconds of an empty task, many in flight."""
    with on_cluster(client) as cluster:
        payload = cluster.payload(empty)
        cluster.wait(payload)
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            futures = [client.submit(_touch, payload, i, pure=False) for i in range(count)]
            client.gather(futures)
            seconds.append((time.perf_counter() - began) / count)
    return statistics.median(seconds)


def _touch(payload: bytes, item: int) -> int:
    return len(payload) + item


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Audits here and on workers."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from dask_cluster import dask_cluster

    plan = qf.AuditPlan(n_permutations=arguments.permutations)
    # Loads kernels and files; as few permutations as a test can have.
    short = qf.AuditPlan(n_permutations=19)
    found: dict[str, Any] = {
        "layers": LAYERS,
        "samples": arguments.samples,
        "features": arguments.features,
        "permutations": arguments.permutations,
        "workers": {},
    }
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        make_store(folder / "store", arguments.samples, arguments.features)
        audit_once(folder / "store", folder / "warm", short)
        local = audit_once(folder / "store", folder / "local", plan)
        found["local"] = {
            "n_jobs": len(os.sched_getaffinity(0)),
            "seconds": sum(local.values()),
            "kinds": by_kind(local),
        }
        for count in arguments.workers:
            with dask_cluster(folder / f"cluster{count}", count) as cluster, cluster.client(count) as client:
                audit_once(folder / "store", folder / f"warm{count}", short, client)
                with on_cluster(client) as ours:
                    stages = audit_once(folder / "store", folder / f"out{count}", plan, None)
                    tasks = ours.n_tasks
                overhead = task_overhead(client)
            seconds = sum(stages.values())
            found["workers"][count] = {
                "seconds": seconds,
                "ratio": seconds / sum(local.values()),
                "kinds": by_kind(stages),
                "same_bits": same_bits(folder / "local", folder / f"out{count}"),
                "tasks": tasks,
                "empty_task": overhead,
                "real_task": max(0.0, seconds - sum(local.values())) / tasks,
            }
    return found


def model(
    samples: float, features: int, workers: int, cluster: Network, overhead: float, layers: int = LAYERS
) -> dict[str, float]:
    """Seconds of each kind of work, by the assumptions above; float32 layers, one thread a worker."""
    rates = Rates()
    plan = qf.AuditPlan()
    maps, permutations = min(features, plan.max_maps), 1000
    tested = min(samples, plan.test_samples)
    couples = layers * (layers + 1) / 2
    size = 4.0 * samples * features * layers
    products = rates.product() * samples * features**2 * couples
    state = rates.layer(int(1e6), features) * samples / 1e6 * layers
    pairs = couples * maps**2
    counted = pairs * (rates.count(16, 16, 10**6) * samples / 1e6)
    permuted = pairs * permutations * rates.count(16, 16, int(tested))
    tasks = 8 * workers * (2 + 3 * layers) + couples * (8 * workers + maps**2 / 1024)
    partial = 8.0 * features**2
    depth = 8 * 1.34 + np.log(max(2, workers)) / np.log(4)
    bins = rates.code(10**6) * np.log2(samples) / np.log2(1e6) * samples * maps * layers
    return {
        "products": products / workers,
        "state of layers": state / workers,
        "values of mutual information": counted / workers,
        "permutations": permuted / workers,
        "reading": 5 * size / cluster.file_system,
        "partials": couples * partial * depth / cluster.network,
        "tasks": tasks * overhead,
        "bins, in one process": bins if samples > tested else 0.0,
    }


def show(found: dict[str, Any], cluster: Network) -> list[dict[str, Any]]:
    """Print what was measured, and the model's table."""
    local = found["local"]
    print(f"{LAYERS} layers x {found['features']} features x {found['samples']} samples, all stages")
    print("| workers | seconds | against local | same bits | tasks | empty task | real task |")
    print("|---|---|---|---|---|---|---|")
    print(f"| local, n_jobs={local['n_jobs']} | {local['seconds']:.1f} | 1.00 | | | | |")
    for count, one in found["workers"].items():
        print(
            f"| {count} | {one['seconds']:.1f} | {one['ratio']:.2f} | {'yes' if one['same_bits'] else 'NO'} "
            f"| {one['tasks']} | {1e3 * one['empty_task']:.1f} ms | {1e3 * one['real_task']:.1f} ms |"
        )
    overhead = max(one["empty_task"] for one in found["workers"].values())
    print(
        "\nModel, from rates of one thread here:",
        json.dumps(asdict(cluster)),
        f"task {1e3 * overhead:.1f} ms",
    )
    table = []
    for samples, features, workers in ((10**6, 512, 4), (10**8, 1024, 32), (10**9, 4096, 100)):
        parts = model(samples, features, workers, cluster, overhead)
        table.append({"samples": samples, "features": features, "workers": workers, "seconds": parts})
        print(f"\n10^{np.log10(samples):.0f} samples x {features} features, {workers} workers of one thread")
        for name, seconds in parts.items():
            print(f"  {name:<30} {seconds / 3600:10.2f} h")
        print(f"  {'in all':<30} {sum(parts.values()) / 3600:10.2f} h")
    print(str(__doc__).partition("Assumptions of the model:")[2])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--permutations", type=int, default=500)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--network", type=float, default=1.25e9, help="bytes/s of a worker's link (10 Gbit/s)"
    )
    parser.add_argument("--file-system", type=float, default=5e9, help="bytes/s of the file system, shared")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for the store and reports")
    parser.add_argument("--quick", action="store_true", help="small sizes, two workers")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.samples, arguments.features, arguments.permutations = 3000, 16, 99
        arguments.workers = [2]
    cluster = Network(arguments.network, arguments.file_system)
    found = measure(arguments)
    found["environment"] = environment()
    found["model"] = {"assumptions": asdict(cluster), "sizes": show(found, cluster)}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
