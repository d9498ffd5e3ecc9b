"""The 40 tasks of "Beyond Normal" (Czyż et al., NeurIPS 2023, arXiv 2306.11078), drawn by their own package.

``make bench-beyond-normal`` gives ``benchmark-mi`` an environment of its own and lets it leave the samples in
``.benchmarks/beyond_normal`` (see ``beyond_normal_tasks.py``); nothing of it is imported here.
"""

import math
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import qixai_fast as qf
from benchmarks import peers
from benchmarks.accuracy import peer_calls

TASKS = Path(__file__).parents[2] / ".benchmarks" / "beyond_normal"
MISSING = "make bench-beyond-normal draws the tasks."
SEEDS, SEEDS_OF_LONG, SEEDS_OF_PEERS = 3, 1, 1
LONG = 25  # dimensions: from there on a call takes seconds
MOST_DIMENSIONS_OF_PEERS = 5  # beyond, one call takes minutes
WRONG = 0.1


def gaussian_by_cca(x, y):
    """What the canonical correlations say if all were Gaussian: the paper's baseline."""
    correlations = np.asarray(qf.cca(x, y, n_jobs=1).correlations)
    return float(-0.5 * np.log1p(-(np.minimum(correlations, 1 - 1e-12) ** 2)).sum())


def of_scalars(call):
    """A call for two scalars; None for vectors."""

    def on_task(x, y):
        return call(x[:, 0], y[:, 0]) if x.shape[1] == y.shape[1] == 1 else None

    return on_task


def of_few_dimensions(call):
    """A call for vectors that takes too long on long ones."""

    def on_task(x, y):
        return call(x, y) if max(x.shape[1], y.shape[1]) <= MOST_DIMENSIONS_OF_PEERS else None

    return on_task


OURS = {
    "KSG-1": partial(qf.mutual_info_ksg, n_jobs=1),
    "KSG-1, k=10": partial(qf.mutual_info_ksg, n_neighbors=10, n_jobs=1),
    "KSG-2": partial(qf.mutual_info_ksg, algorithm=2, n_jobs=1),
    "binned, miller-madow": of_scalars(
        partial(qf.mutual_info_binned, bias_correction="miller-madow", n_jobs=1)
    ),
    "quantile, miller-madow": of_scalars(
        partial(qf.mutual_info_binned, strategy="quantile", bias_correction="miller-madow", n_jobs=1)
    ),
    "CCA, as if Gaussian": gaussian_by_cca,
}
PEERS = {
    **{name: of_few_dimensions(call) for name, call in peer_calls.VECTORS.items() if call},
    **{
        name: of_scalars(call)
        for name, call in peers.KSG.items()
        if call and name in ("scikit-learn", "ennemi")
    },
}


def estimates_of(path):
    """One task: mean and spread over seeds for each estimator; None where it does not apply."""
    with np.load(path, allow_pickle=False) as task:
        x, y = task["x"], task["y"]
        found = {"truth": float(task["truth"]), "dimensions": [x.shape[2], y.shape[2]], "estimates": {}}
        name, version = str(task["name"]), str(task["version"])
    of_ours = SEEDS_OF_LONG if max(found["dimensions"]) >= LONG else SEEDS
    for estimators, seeds in ((OURS, of_ours), (PEERS, SEEDS_OF_PEERS)):
        for estimator, call in estimators.items():
            sides = (x, y) if estimators is OURS else (x.astype(np.float64), y.astype(np.float64))
            values = [call(*draw) for draw in zip(*(side[:seeds] for side in sides), strict=True)]
            applies = values[0] is not None
            found["estimates"][estimator] = (
                {"mean": float(np.mean(values)), "sd": float(np.std(values))} if applies else None
            )
    return name, version, x.shape[1], str(x.dtype), found


def measure(quick, processes):
    paths = sorted(TASKS.glob("*.npz"))
    if not paths:
        return None
    if quick or processes == 1:
        results = list(map(estimates_of, paths[:2] if quick else paths))
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            results = list(pool.map(estimates_of, reversed(paths)))[::-1]
    return {
        "package": f"benchmark-mi {results[0][1]}",
        "samples": results[0][2],
        "dtype": results[0][3],
        "seeds": SEEDS,
        "seeds_of_peers": SEEDS_OF_PEERS,
        "tasks": {name: found for name, *_, found in results},
    }


def _is_wrong(task, estimate):
    return abs(estimate["mean"] - task["truth"]) > WRONG * task["truth"]


def right_in(content, estimator, largest=math.inf):
    """On how many tasks it is within a tenth of the truth, of how many it takes."""
    taken = [
        _is_wrong(task, task["estimates"][estimator])
        for task in content["tasks"].values()
        if task["estimates"].get(estimator) and max(task["dimensions"]) <= largest
    ]
    return taken.count(False), len(taken)


def seeds_text(content):
    """How many seeds each mean is of."""
    return (
        f"ours over {content['seeds']} seeds ({SEEDS_OF_LONG} from {LONG} dimensions on), peers over "
        f"{content['seeds_of_peers']}"
    )


def lines(content):
    names = list(next(iter(content["tasks"].values()))["estimates"])
    counts = {name: right_in(content, name) for name in names}
    scalars = right_in(content, "KSG-1", 1)
    wrong = [
        f"{name} ({task['estimates']['KSG-1']['mean'] / task['truth'] - 1:+.0%})"
        for name, task in content["tasks"].items()
        if _is_wrong(task, task["estimates"]["KSG-1"])
    ]
    yield (
        f"**On its {len(content['tasks'])} tasks our KSG-1 is within a tenth of the truth on "
        f"{counts['KSG-1'][0]}** ({scalars[0]} of the {scalars[1]} with scalars on both sides). It is off "
        f"on: {'; '.join(wrong) or 'none'}. Long vectors and heavy tails are where nearest "
        "neighbours fail, ours and everybody's: no exactness of an implementation mends that."
    )
    yield ""
    theirs = [name for name in names if name not in OURS]
    yield f"Mean estimate within a tenth, of the tasks that each takes: {seeds_text(content)}."
    yield ""
    for who, kept in (("Ours", [name for name in names if name in OURS]), ("Peers", theirs)):
        found = "; ".join(f"{name} {counts[name][0]} of {counts[name][1]}" for name in kept)
        yield f"- {who}: {found or 'none installed'}."
    yield ""
    yield (
        "A mean of more seeds scatters less, and results hold no single seeds: these counts do not rank ours "
        "against peers."
    )
    yield ""
    yield "<details><summary>Every task: mean estimate in nats, bold where off by more than a tenth</summary>"
    yield ""
    yield "| task | truth | " + " | ".join(names) + " |"
    yield "|---" * (2 + len(names)) + "|"
    for name, task in content["tasks"].items():
        cells = []
        for estimator in names:
            estimate = task["estimates"][estimator]
            mark = "**" if estimate and _is_wrong(task, estimate) else ""
            cells.append(f"{mark}{estimate['mean']:.3f}{mark}" if estimate else "")
        yield f"| {name} | {task['truth']:.3f} | " + " | ".join(cells) + " |"
    yield ""
    yield "</details>"
    yield ""
    yield (
        f"{content['package']}, N={content['samples']:,}, {content['dtype']}, seeds of its own from 0 on; "
        f"{seeds_text(content)}, on vectors up to {MOST_DIMENSIONS_OF_PEERS} dimensions a side. "
        "Empty: takes no vectors, or takes too long."
    )


def draw(content, path):
    """Estimate less truth, as in the paper's figure 2: red says too much, blue too little."""
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.figure import Figure

    names = list(next(iter(content["tasks"].values()))["estimates"])
    tasks = content["tasks"]
    shown = np.array(
        [
            [math.nan if one is None else one["mean"] - task["truth"] for one in task["estimates"].values()]
            for task in tasks.values()
        ]
    )
    figure = Figure(figsize=(10, 0.27 * len(tasks) + 2), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(
        shown, cmap="RdBu_r", norm=TwoSlopeNorm(0, -1, 1), aspect="auto", interpolation="nearest"
    )
    for row, task in enumerate(tasks.values()):
        for column, one in enumerate(task["estimates"].values()):
            if one:
                colour = "white" if abs(shown[row, column]) > 0.6 else "black"
                axis.text(
                    column, row, f"{one['mean']:.2f}", ha="center", va="center", fontsize=8, color=colour
                )
    axis.set_xticks(range(len(names)), names, rotation=30, ha="left", fontsize=9)
    axis.xaxis.tick_top()
    axis.set_yticks(
        range(len(tasks)), [f"{name}   {task['truth']:.2f}" for name, task in tasks.items()], fontsize=8
    )
    figure.colorbar(image, ax=axis, label="estimate − truth, nats", shrink=0.5, extend="both")
    figure.suptitle(
        "Beyond Normal: estimates (numbers), the truth beside each task's name; blank: does not apply"
    )
    figure.savefig(path, dpi=70)
