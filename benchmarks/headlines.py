"""What README.md and docs/numbers.md say of speed and accuracy, from the JSON that all tables come from.

Nothing is chosen for being good: a line is there for each family, and what fell short is listed whole.
"""

import json
import re

from benchmarks.accuracy.beyond_normal import right_in
from benchmarks.accuracy.reading import AT, GROUPS_OF_SCALARS, cell_at, is_wrong, repeats, wrong_in

# One line a family: suite, function of the row, and the peers that a user would otherwise take; the fastest
# that was measured joins them.
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
_SIDES = re.compile(r"(\d+) x \d+")


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


def _with_fastest(measured, peers):
    """The peers, and the fastest that was measured: perhaps one that few would take, or a bare limit."""
    ratios = {
        name: peer["ratio"]
        for name, peer in measured.items()
        if peer is not None and not name.startswith(_OURSELVES)
    }
    fastest = [min(ratios, key=ratios.get)] if ratios else []
    return list(dict.fromkeys([*peers, *fastest]))


def family_lines(results):
    """How many times as fast as each peer, one thread each; a line a family."""
    rows = []
    for suite, function, peers in FAMILIES:
        row = _row(results, suite, function)
        if row is None:
            rows.append([suite, "", "not measured"])
            continue
        work = row["row"].replace("|", r"\|")
        for peer in _with_fastest(row["peers"], peers):
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


def apart(measured, promised):
    """Both with as many digits, from three, as it takes to tell them apart."""
    for digits in range(3, 8):
        texts = f"{measured:.{digits}g}", f"{promised:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def short_lines(results):
    """Every promise that was not kept."""
    rows = []
    for suite, work, name, measured, promised, at_most in _promised(results):
        if not (measured <= promised if at_most else measured >= promised):
            reached, wanted = apart(measured, promised)
            rows.append([suite, work.replace("|", r"\|"), name, reached, "at most " * at_most + wanted])
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


def _cases(content):
    """Name, truth and what each estimator has at 10,000 samples; scalars, then vectors, without repeats."""
    for group in (
        content["groups"][name] for name in (*GROUPS_OF_SCALARS, "vectors") if name in content["groups"]
    ):
        n = max(n for n in group["samples"] if n <= AT)
        for name, result in group["distributions"].items():
            if not repeats(name):
                found = {estimator: cell_at(group, result, estimator, n) for estimator in _ESTIMATORS}
                yield name, result["truth"], found


def _scalars_text(content):
    """How many cases of scalars there are, and what they are."""
    pairs = content["groups"]["pairs"]["distributions"]
    halves = [name for name in content["groups"]["precision"]["distributions"] if not repeats(name)]
    again = {name.rpartition(", ")[0] for name in halves}
    dtypes = " and ".join(dict.fromkeys(name.rpartition(", ")[2] for name in halves))
    also = f"; {len(again)} of them also in {dtypes}" if halves else ""
    return f"Of {len(pairs) + len(halves)} scalar cases ({len(pairs)} distributions{also})"


def _vectors_text(content):
    wrong, tried = wrong_in(content, "KSG-1", ("vectors",))
    if not tried:
        return "Vectors: not measured"
    sides = [
        int(side) for name in content["groups"]["vectors"]["distributions"] for side in _SIDES.findall(name)
    ]
    return (
        f"Of {tried} cases of vectors, {min(sides)} to {max(sides)} dimensions a side, KSG-1 is off on "
        f"{len(wrong)}"
    )


def _tasks_text(results):
    content = _read(results, "accuracy_beyond_normal")
    if content is None:
        return "Beyond Normal: not measured."
    right, tried = right_in(content, "KSG-1")
    return f"of Beyond Normal's {tried} tasks it is within a tenth on {right}."


def accuracy_sentence(results):
    """How often each KSG estimator is far off without saying so, and where ours is at its worst."""
    content = _read(results, "accuracy")
    if content is None:
        return "Accuracy: not measured."
    counts = {
        label: len(wrong_in(content, estimator, GROUPS_OF_SCALARS)[0])
        for estimator, label in _ESTIMATORS.items()
    }
    told = ", ".join(f"{label} {count}" for label, count in counts.items())
    return (
        f"{_scalars_text(content)}, at {AT:,} samples, each nearest-neighbour estimator is off by more than "
        f"a tenth of the truth, beyond two standard errors, on: {told}. {_vectors_text(content)}; "
        f"{_tasks_text(results)}"
    )


def _bias_text(truth, summary):
    if "draws" not in summary:
        return "not run"
    text = "infinite" if summary["not_finite"] else f"{summary['bias'] / truth:+.1%}"
    return f"**{text}**" if is_wrong(truth, summary) else text


def accuracy_lines(results):
    """Bias as a share of the truth, a line a case."""
    content = _read(results, "accuracy")
    if content is None:
        return ["Not measured."]
    rows = [
        [name, f"{truth:.3f}", *(_bias_text(truth, summary) for summary in found.values())]
        for name, truth, found in _cases(content)
    ]
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


def study_sentence(results):
    """What holds of the paper's claims: the first sentence of the study's own answer."""
    path = results.parent / "study" / "results" / "paper.json"
    if not path.is_file():
        return "Whether the paper's claims hold: not measured."
    from benchmarks.study.paper_text import lines  # imports torch

    answer = next(lines(json.loads(path.read_text(encoding="utf-8"))))
    return f"{answer.strip('*')} Which, and why: [study](benchmarks/study/README.md)."


def _setting(results):
    contents = (_read(results, suite) for suite, _, _ in FAMILIES)
    runs = [made_by for content in contents if content is not None for made_by in content["runs"].values()]
    machines = {f"{run['processor']}, {run['cores']} cores, Python {run['python']}" for run in runs}
    return (
        "One thread each, the same arrays; the fastest peer that was measured is always there, be it a bare "
        f"product or the network's passes alone. {'; '.join(sorted(machines))}; versions and dates stand "
        "beside the tables."
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
        f"- {study_sentence(results)}",
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
        f"Bias at {AT:,} samples over the truth; bold beyond a tenth by two standard errors. "
        f"{accuracy_sentence(results)} High dimension is what nearest neighbours stand the least: the last "
        "rows are vectors of so many numbers a side.",
        "",
        *accuracy_lines(results),
    ]
