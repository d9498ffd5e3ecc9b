"""Draw the tasks of "Beyond Normal" with its own package: run by an environment that holds nothing else.

``benchmark-mi`` wants numpy below 2 and old jax, so ``make bench-beyond-normal`` gives it an environment of
its own and runs this file there. What it leaves, one ``.npz`` a task, is all that the benchmark reads:
``x`` and ``y`` of shape (seeds, samples, dimension), the true mutual information in nats, and the name.
"""

import argparse
from importlib import metadata
from pathlib import Path

import numpy as np
from bmi.benchmark import BENCHMARK_TASKS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    version = metadata.version("benchmark-mi")
    for number, (identifier, task) in enumerate(BENCHMARK_TASKS.items()):
        draws = [task.sample(options.samples, seed) for seed in range(options.seeds)]
        x, y = (np.stack([np.asarray(draw[side]) for draw in draws]) for side in (0, 1))
        np.savez(
            options.folder / f"{number:02d}_{identifier}.npz",
            x=x,
            y=y,
            truth=task.mutual_information,
            name=task.name,
            version=version,
        )
        print(f"{task.name}: {task.mutual_information:.4f} nats, {x.shape}, {x.dtype}", flush=True)


if __name__ == "__main__":
    main()
