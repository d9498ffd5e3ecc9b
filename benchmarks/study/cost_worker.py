"""One process that has everything loaded, and forks a child for each instrument.

``python -m benchmarks.study.cost_worker FOLDER`` reads ``FOLDER/options.json`` and leaves
``FOLDER/found.json``.
"""

from benchmarks.environment import limit_threads

if __name__ == "__main__":  # before NumPy is imported; forks inherit it
    limit_threads()

import gc
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from benchmarks.study import cost_fidelity as fidelity
from benchmarks.study import cost_ours, cost_peers
from benchmarks.study.cost_cases import cases
from benchmarks.study.cost_instruments import instruments
from benchmarks.study.cost_meter import FEW, WARM_ROWS, Rows, in_child, measured
from benchmarks.study.parts import Options


def _tensors(values):
    return [
        np.asarray(part.detach() if isinstance(part, torch.Tensor) else part, np.float64) for part in values
    ]


def local(case, instrument):
    """Explain all samples: what it took, and how far to trust it."""
    explain = instrument.make(case)
    everything = slice(0, len(case.inputs))
    found, results = measured(
        lambda: explain(slice(0, 1), 0),
        lambda seed: explain(everything, seed),
        case.model,
        seeded=instrument.seeded,
    )
    if instrument.gives == "layers":
        errors = [fidelity.completeness(case, values, "change") for values in _tensors(results[0])]
        return found | {"completeness": max(errors)}
    if instrument.seeded and len(results) == 1:
        results.append(explain(slice(0, FEW), 1))
    results = _tensors(results)
    if instrument.promise:
        found["completeness"] = fidelity.completeness(case, results[0], instrument.promise)
    groups = results if instrument.gives == "groups" else [case.grouped(values) for values in results]
    if instrument.seeded:
        found["agreement"] = fidelity.agreement(*(values[: len(groups[1])] for values in groups[:2]))
    return found | {"deletion": fidelity.share_left(*fidelity.deletion(case, groups[0]))}


def whole(case, call, n, warm_rows=WARM_ROWS):
    """Look at n rows of whole layers, after ``warm_rows`` of them where that is not 0."""

    def warm_up():
        if warm_rows:
            call(min(n, warm_rows))

    return measured(warm_up, lambda seed: call(n), case.model, seeded=False)[0]


def rows_a_pass(case):
    """Most rows that our integrated gradients give to the network at once."""
    rows = Rows(case.model)
    with rows.counting():
        cost_ours.integrated_gradients(case)(slice(0, len(case.inputs)), 0)
    return {"rows": rows.largest}


def measure_case(case):
    """All instruments on one network."""
    sizes, n = case.sizes, len(case.inputs)
    rows = in_child(lambda: rows_a_pass(case))["rows"]
    found = {
        "name": case.name,
        "about": case.about,
        "explained": case.explained,
        "parts": case.parts,
        "groups": case.n_groups,
        "samples": n,
        "evaluations": sizes.evaluations,
        "rows": sizes.rows,
        "recorded": len(case.recorded),
        "rows_a_pass": rows,
        "random": in_child(lambda: fidelity.at_random(case)),
        "local": [],
        "layers": [],
    }
    for instrument in instruments(case, rows):
        row = in_child(lambda instrument=instrument: local(case, instrument))
        found["local"].append({"key": instrument.key, "name": instrument.name, "tool": instrument.tool} | row)
        print(case.name, instrument.tool, instrument.name, row, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        arrays = case.rows(Path(folder, "store"))
    calls = {"capture of three layers": ("", lambda n: cost_ours.capture(case, n), (n, len(case.recorded)))}
    for name, (what, call) in cost_ours.layer_instruments(case, arrays).items():
        calls[name] = (what, call, (n, sizes.rows))
    for name, (what, call, counts) in calls.items():
        warm = (
            0 if name.startswith("whole audit") else WARM_ROWS
        )  # an audit takes seconds: one was made before
        few, many = (in_child(lambda n=n, call=call, warm=warm: whole(case, call, n, warm)) for n in counts)
        found["layers"].append({"name": name, "what": what, "few": few, "many": many})
        print(case.name, name, few, many, flush=True)
    return found


def preload(*, audited):
    """Import and compile what children share; seconds that SHAP compiles at every start, having no cache."""
    cost_ours.use_all(audited=audited)
    start = time.perf_counter()
    cost_peers.compile_partitions()
    return time.perf_counter() - start


def main(folder):
    asked = json.loads(Path(folder, "options.json").read_text(encoding="utf-8"))
    options = Options(asked["quick"], asked["images"] and Path(asked["images"]), Path(asked["work"]))
    warnings.simplefilter("ignore")
    compiling = preload(audited=not options.quick)
    networks, left_out = cases(options)
    gc.collect()
    gc.freeze()  # children collect only what they make themselves, and leave shared pages shared
    found = {
        "networks": {key: measure_case(case) for key, case in networks.items()},
        "left_out": left_out,
        "shap_compiles": compiling,
    }
    Path(folder, "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
