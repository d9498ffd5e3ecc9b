"""What a first call costs: ``python -m benchmarks.compile_time``, a few minutes.

Every public function, called in a process of its own: once with nothing in numba's cache, then with what that
left there. numba and, for networks, torch are imported and started before the clock; our own modules are not.
Writes ``results/compile_time.json``; ``python -m benchmarks.tables`` then writes the table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.environment import THREAD_LIMITS, commit_name, environment, environment_line

CHILD = """
import json, sys, tempfile, time
import numpy as np
import qixai_fast as qf
from numba.core.registry import cpu_target
cpu_target.target_context.refresh()  # numba's own start, whatever it then compiles or loads
setup, call = sys.argv[1:]
rng = np.random.default_rng(0)
X = rng.standard_normal((1000, 6))
Y = X + rng.standard_normal((1000, 6))
labels = (X[:, 0] > 0).astype(np.int64)
exec(setup)

def timed():
    start = time.perf_counter()
    eval(call)
    return time.perf_counter() - start

print(json.dumps([timed(), timed()]))
"""
NETWORK = """
import torch
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
x = torch.rand(4, 6)
model(x).sum().backward()
"""
STORE = """
folder = tempfile.mkdtemp()
layers = {"first": qf.LayerSpec((6,)), "second": qf.LayerSpec((6,))}
with qf.create_store(folder + "/store", layers) as writer:
    writer.append({"first": X.astype("float32"), "second": Y.astype("float32")})
store = qf.open_store(folder + "/store")
"""
CALLS = {  # name: what is called, and what is there before
    "pca": ("qf.pca(X, 3, n_jobs=1)", ""),
    "randomized_svd": ("qf.randomized_svd(X, 3, random_state=0, n_jobs=1)", ""),
    "cosine_similarity": ("qf.cosine_similarity(X, n_jobs=1)", ""),
    "cosine_top_k": ("qf.cosine_top_k(X, k=5, n_jobs=1)", ""),
    "linear_cka": ("qf.linear_cka(X, Y, n_jobs=1)", ""),
    "linear_cka_test": ("qf.linear_cka_test(X, Y, n_permutations=99, random_state=0, n_jobs=1)", ""),
    "cca": ("qf.cca(X, Y, n_jobs=1)", ""),
    "svcca": ("qf.svcca(X, Y, n_jobs=1)", ""),
    "procrustes": ("qf.procrustes(X, Y, n_jobs=1)", ""),
    "rsa": ("qf.rsa(X, Y, n_jobs=1)", ""),
    "von_neumann_entropy": ("qf.von_neumann_entropy(X, n_jobs=1)", ""),
    "purity": ("qf.purity(X, n_jobs=1)", ""),
    "coherence": ("qf.coherence(X, n_jobs=1)", ""),
    "effective_rank": ("qf.effective_rank(X, n_jobs=1)", ""),
    "schmidt_spectrum": ("qf.schmidt_spectrum(X, Y, n_jobs=1)", ""),
    "entanglement_entropy": ("qf.entanglement_entropy(X, Y, n_jobs=1)", ""),
    "quantum_mutual_information": ("qf.quantum_mutual_information(X, Y, n_jobs=1)", ""),
    "digitize": ("qf.digitize(X, n_jobs=1)", ""),
    "mutual_info_binned": ("qf.mutual_info_binned(X[:, 0], Y[:, 0], n_jobs=1)", ""),
    "pairwise_mutual_info_binned": ("qf.pairwise_mutual_info_binned(X, n_jobs=1)", ""),
    "mutual_info_discrete": ("qf.mutual_info_discrete(labels, (Y[:, 0] > 0).astype(int), n_jobs=1)", ""),
    "mutual_info_ksg": ("qf.mutual_info_ksg(X[:, 0], Y[:, 0], n_jobs=1)", ""),
    "mutual_info_ksg, after a ReLU": (
        "qf.mutual_info_ksg(np.maximum(X[:, 0], 0), np.maximum(Y[:, 0], 0), n_jobs=1)", "",
    ),
    "mutual_info_ksg, vectors": ("qf.mutual_info_ksg(X, Y, n_jobs=1)", ""),
    "pairwise_mutual_info_ksg": ("qf.pairwise_mutual_info_ksg(X, n_jobs=1)", ""),
    "conditional_mutual_info_ksg": (
        "qf.conditional_mutual_info_ksg(X[:, 0], Y[:, 0], X[:, 1], n_jobs=1)", "",
    ),
    "mutual_info_mixed": ("qf.mutual_info_mixed(X, labels, n_jobs=1)", ""),
    "mutual_info_test": ("qf.mutual_info_test(X, n_permutations=99, random_state=0, n_jobs=1)", ""),
    "mutual_info_test, estimator='ksg'": (
        "qf.mutual_info_test(X[:, :2], estimator='ksg', n_permutations=99, random_state=0, n_jobs=1)", "",
    ),
    "riemann_accumulate": ("qf.riemann_accumulate(X, np.ones(1000) / 1000, n_jobs=1)", ""),
    "integrated_gradients": ("qf.integrated_gradients(model, x, target=0)", NETWORK),
    "integrated_gradients, tol": ("qf.integrated_gradients(model, x, target=0, tol=0.05)", NETWORK),
    "layer_conductance": ("qf.layer_conductance(model, x, ['0'], target=0)", NETWORK),
    "capture": ("qf.capture(model, [x], ['0'], tempfile.mkdtemp() + '/store', progress=False)", NETWORK),
    "open_store": ("qf.open_store(folder + '/store')", STORE),
    "ActivationStore.verify": ("store.verify(n_jobs=1)", STORE),
    "audit": ("qf.audit(store, plan=qf.AuditPlan(n_jobs=1), progress=False)", STORE),
}  # fmt: skip
QUICK = ("riemann_accumulate", "open_store")  # one compiles, one does not
WARM_RUNS = 3
MOST_EMPTY, MOST_WARM = 3.0, 0.1  # seconds promised
NOT_YET = "Not measured yet."


def in_child(name, cache):
    """Seconds of the first and of the second call in a new process."""
    call, setup = CALLS[name]
    known = dict.fromkeys(THREAD_LIMITS, "1") | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, setup, call], env=os.environ | known, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(names, runs):
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as cache:
            empty, _ = in_child(name, cache)
            warm = [in_child(name, cache) for _ in range(runs)]
        firsts, seconds = zip(*warm, strict=True)
        found[name] = {
            "empty_cache": empty,
            "warm_cache": statistics.median(firsts),
            "second_call": statistics.median(seconds),
        }
        print(f"{name}: {empty:.2f} s, {found[name]['warm_cache']:.3f} s", flush=True)
    return found


def _met(measured, most):
    return "yes" if measured <= most else "**no**"


def compile_lines(content):
    """The table; None where there is no JSON."""
    if content is None:
        return [NOT_YET]
    calls = content["calls"]
    kept = [sum(one[what] <= most for one in calls.values()) for what, most in (
        ("empty_cache", MOST_EMPTY), ("warm_cache", MOST_WARM),
    )]  # fmt: skip
    lines = [
        f"{kept[0]} of {len(calls)} first calls took at most {MOST_EMPTY:g} s with nothing compiled, "
        f"{kept[1]} of {len(calls)} at most {MOST_WARM:g} s once compiled.",
        "",
        f"| function | first call, empty cache | at most {MOST_EMPTY:g} s | first call, warm cache "
        f"| at most {MOST_WARM:g} s | second call |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in calls.items():
        empty, warm, second = one["empty_cache"], one["warm_cache"], one["second_call"]
        lines.append(
            f"| {name} | {empty:.2f} s | {_met(empty, MOST_EMPTY)} | {1e3 * warm:.0f} ms "
            f"| {_met(warm, MOST_WARM)} | {1e3 * second:.2g} ms |"
        )
    where = environment_line(content["environment"])
    return [
        *lines,
        "",
        f"Warm cache and second call: median of {content['runs']} processes. Measured {content['measured']} "
        f"at commit `{content['commit']}`: {where}",
    ]


def main(arguments=None):
    from benchmarks import tables

    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile_time", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two functions: does it still run? wants --out")
    parser.add_argument("--out", type=Path, help="folder of compile_time.json")
    options = parser.parse_args(arguments)
    if options.quick and options.out is None:
        parser.error("--quick: wanted --out, as its numbers are no results")
    runs = 1 if options.quick else WARM_RUNS
    content = {
        "measured": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "commit": commit_name(),
        "environment": environment(),
        "runs": runs,
        "calls": measure(QUICK if options.quick else CALLS, runs),
    }
    tables.write_json((options.out or tables.RESULTS) / "compile_time.json", content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
