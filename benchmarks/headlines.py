"""What README.md and docs/numbers.md say of speed and accuracy, from the JSON that all tables come from.

Nothing is chosen for being good: a line is there for each family, and what fell short is listed whole.
"""

import json
import math

# One line a family: suite, function of the row, and the peers that a user would otherwise take.
FAMILIES = (
    ("ksg", "test_all_pairs", ("scikit-learn", "NPEET", "ennemi")),
    ("binned", "test_all_pairs[1000000-32]", ("np.bincount, fused codes",)),
    ("significance", "test_binned[64]", ("loop over np.bincount, binned once",)),
    ("compat", "test_regression", ("scikit-learn",)),
    ("spectra", "test_narrow_file", ("scikit-learn PCA", "scikit-learn randomized_svd", "fbpca")),
    ("similarity", "test_full_matrix[float32]", ("scikit-learn", "X @ Y.T")),
    ("alignment", "test_linear_cka", ("NumPy, products of features",)),
    ("gradients", "test_passes", ("Captum",)),
    ("conductance", "test_layers", ("Captum, one call each, default",)),
)
# Rows beside ourselves, which say what an option costs.
_OURSELVES = (
    "one thread",
    "ours on",
    "one layer, the first",
    "N=10,000",
    "N=100,000",
    "loop over mutual_info_",
)
_ESTIMATORS = {
    "KSG-1": "KSG-1 (ours)",
    "KSG-2": "KSG-2 (ours)",
    "scikit-learn": "scikit-learn",
    "NPEET": "NPEET",
    "ennemi": "ennemi",
    "cKDTree + searchsorted": "cKDTree + searchsorted",
}
_SAMPLES, _FAR_OFF = 10_000, 0.1
_GROUPS = ("pairs", "precision")


def _read(results, name):
    path = results / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _table(head, rows):
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]


def _row(results, suite, function):
    content = _read(results, suite)
    return None if content is None else content["rows"].get(function)


def _ratio(peer):
    if peer is None:
        return "not measured"
    return f"{peer['ratio']:.3g} ({peer['lowest_ratio']:.3g} to {peer['highest_ratio']:.3g})"


def family_lines(results):
    """How many times as fast as each peer, one thread each; a line a family."""
    rows = []
    for suite, function, peers in FAMILIES:
        row = _row(results, suite, function)
        if row is None:
            rows.append([suite, "", "not measured"])
            continue
        work = row["row"].replace("|", r"\|")
        for peer in peers:
            rows.append([work, peer, _ratio(row["peers"].get(peer))])
            work = ""
    return _table(["work", "beside", "times as fast (lowest to highest round)"], rows)


def _suites(results):
    contents = {path.stem: _read(results, path.stem) for path in sorted(results.glob("*.json"))}
    return {suite: content["rows"] for suite, content in contents.items() if "rows" in content}


def promises(results):
    """Kept, made: ratios and bounds that the benchmarks promise."""
    kept = made = 0
    for _, _, _, measured, promised, at_most in _promised(results):
        made += 1
        kept += measured <= promised if at_most else measured >= promised
    return kept, made


def _promised(results):
    for suite, rows in _suites(results).items():
        for row in rows.values():
            for name, least in row["least"].items():
                if row["peers"].get(name) is not None:
                    yield suite, row["row"], name, row["peers"][name]["ratio"], least, False
            for name, bound in row.get("bounds", {}).items():
                yield suite, row["row"], name, bound["measured"], bound["most"], True


def short_lines(results):
    """Every promise that was not kept."""
    rows = [
        [suite, work.replace("|", r"\|"), name, f"{measured:.3g}", f"{'at most ' * at_most}{promised:.3g}"]
        for suite, work, name, measured, promised, at_most in _promised(results)
        if not (measured <= promised if at_most else measured >= promised)
    ]
    return _table(["suite", "work", "beside", "measured", "promised"], rows) if rows else ["None."]


def slower_lines(results):
    """Every row in which another way to the same values took less time."""
    rows = []
    for suite, entries in _suites(results).items():
        for row in entries.values():
            for name, peer in row["peers"].items():
                if peer is not None and peer["ratio"] < 1 and not name.startswith(_OURSELVES):
                    rows.append([suite, row["row"].replace("|", r"\|"), name, _ratio(peer)])
    return _table(["suite", "work", "beside", "times as fast"], rows) if rows else ["None."]


def _errors(content):
    """Name and truth of each distribution, and (bias over truth, draws) of each estimator, or None.

    The bias is infinite where some values were, and None stands for what did not run.
    """
    for group in (content["groups"][name] for name in _GROUPS):
        position = group["samples"].index(max(n for n in group["samples"] if n <= _SAMPLES))
        for name, result in group["distributions"].items():
            found = dict.fromkeys(_ESTIMATORS.values())
            for estimator, values in result["estimators"].items():
                lost = values["not_finite"][position]
                if estimator in _ESTIMATORS and lost is not None:
                    bias = math.inf if lost else values["bias"][position] / result["truth"]
                    found[_ESTIMATORS[estimator]] = bias, values["draws"][position]
            yield name, result["truth"], found


def accuracy_sentence(results):
    """How often each KSG estimator is far off without saying so."""
    content = _read(results, "accuracy")
    if content is None:
        return "Accuracy: not measured."
    found = [cells for _, _, cells in _errors(content)]
    far = {
        label: sum(cells[label] is not None and abs(cells[label][0]) > _FAR_OFF for cells in found)
        for label in _ESTIMATORS.values()
    }
    draws = {cell[1] for cells in found for cell in cells.values() if cell is not None}
    counted = f"{min(draws)} draws" if len(draws) == 1 else f"{min(draws)} to {max(draws)} draws"
    told = ", ".join(f"{label} {count}" for label, count in far.items())
    return (
        f"Of {len(found)} distributions of known mutual information, at {_SAMPLES:,} samples, each "
        f"nearest-neighbour estimator is off by more than a tenth of the truth, on average over {counted}, "
        f"on: {told}."
    )


def accuracy_lines(results):
    """Bias as a share of the truth, a line a distribution."""
    content = _read(results, "accuracy")
    if content is None:
        return ["Not measured."]
    rows = []
    for name, truth, found in _errors(content):
        cells = []
        for cell in found.values():
            bias = None if cell is None else cell[0]
            text = "not run" if bias is None else "infinite" if math.isinf(bias) else f"{bias:+.1%}"
            cells.append(f"**{text}**" if bias is not None and abs(bias) > _FAR_OFF else text)
        rows.append([name, f"{truth:.3f}", *cells])
    return _table(["distribution", "truth, nats", *_ESTIMATORS.values()], rows)


def audit_sentence(results):
    content = _read(results, "audit")
    if content is None:
        return "A whole audit out of core: not measured."
    asked = content["arguments"]
    size = 4e-9 * asked["layers"] * asked["features"] * asked["samples"]
    return (
        f"A whole audit of {asked['layers']} layers of {asked['features']} maps, {asked['samples']:,} "
        f"samples ({size:.1f} GB) with `--max-memory {asked['max_memory']}`: {content['seconds']:.0f} s, "
        f"{content['peak_memory_bytes'] / 1e9:.2f} GB at most, on {content['environment']['cores']} cores."
    )


def gpu_sentence(results):
    content = _read(results, "gpu")
    if content is None:
        return "On a GPU: not measured."
    return "On a GPU: see the table in [benchmarks](benchmarks/README.md#on-a-gpu)."


def _setting(results):
    contents = (_read(results, suite) for suite, _, _ in FAMILIES)
    runs = [made_by for content in contents if content is not None for made_by in content["runs"].values()]
    machines = {f"{run['processor']}, {run['cores']} cores, Python {run['python']}" for run in runs}
    return (
        f"One thread each, the same arrays. {'; '.join(sorted(machines))}; versions and dates stand beside "
        "the tables."
    )


def readme_lines(results):
    """The numbers of the repository's README: no other figure of speed or accuracy is in it."""
    kept, made = promises(results)
    return [
        *family_lines(results),
        "",
        _setting(results),
        "",
        f"- {accuracy_sentence(results)}",
        f"- {audit_sentence(results)}",
        f"- {gpu_sentence(results)}",
        f"- Of {made} promises that the benchmarks make, {kept} are kept; "
        "[the others](docs/numbers.md#promises-not-kept) and [every row where something else is faster]"
        "(docs/numbers.md#where-something-else-is-faster) are listed.",
    ]


def docs_lines(results):
    """The measured half of docs/numbers.md."""
    kept, made = promises(results)
    return [
        "## Speed",
        "",
        *family_lines(results),
        "",
        _setting(results),
        "",
        f"{audit_sentence(results)} {gpu_sentence(results).replace('(benchmarks/', '(../benchmarks/')}",
        "",
        "## Where something else is faster",
        "",
        "Times as fast, so below 1 we lose. Some peers are limits rather than tools: a bare matrix product, "
        "or reading the file.",
        "",
        *slower_lines(results),
        "",
        "## Promises not kept",
        "",
        f"{kept} of {made} are kept. These are not:",
        "",
        *short_lines(results),
        "",
        "## Accuracy",
        "",
        f"Bias at {_SAMPLES:,} samples over the truth; bold beyond a tenth. {accuracy_sentence(results)}",
        "",
        *accuracy_lines(results),
    ]
