"""Keep what a run measured, and write the tables of README.md, and the numbers of docs/numbers.md and
the repository's README.md, from all that is kept.

``python -m benchmarks.tables RUN.json`` takes in what ``pytest --benchmark-json=RUN.json`` has left;
without a file it only writes the tables again, and ``--check`` says whether they are as they should be.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from zlib import crc32

from benchmarks.accuracy.page import page_lines
from benchmarks.audits import audits_text
from benchmarks.compile_time import compile_lines
from benchmarks.environment import commit_name, environment_line
from benchmarks.gpu.targets import gpu_text
from benchmarks.headlines import apart, docs_lines, readme_lines
from benchmarks.planes.text import planes_text

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE / "README.md"
HEADLINES = {HERE.parent / "README.md": readme_lines, HERE.parent / "docs" / "numbers.md": docs_lines}
SUITES = {  # in the order of the tables; a suite is a file test_NAME.py
    "ksg": "KSG of two scalars",
    "vectors": "KSG of vectors, conditional mutual information",
    "binned": "Binned mutual information",
    "significance": "Permutation tests",
    "mixed": "Mutual information of features and classes",
    "compat": "Drop-ins for scikit-learn",
    "similarity": "Cosine similarity",
    "alignment": "Layers compared whole",
    "quantum": "Quantum-inspired measures",
    "spectra": "Spectra",
    "gradients": "Integrated gradients",
    "conductance": "Layer conductance",
    "riemann": "Riemann sums of recorded gradients",
    "capture": "Recording a network",
    "verify": "Verifying a store",
    "estimators": "Estimators and linear-algebra drop-ins for scikit-learn",
}
HEAD = "| work | ours | beside | its time | ratio (lowest to highest round) | promised | met |"


def rounded(value, digits=4):
    """The same with all floats rounded: the rest is noise, and makes differences unreadable."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    return [rounded(item, digits) for item in value] if isinstance(value, list) else value


def write_json(path, content):
    text = json.dumps(rounded(content), indent=1, ensure_ascii=False)
    text = re.sub(
        r"\[\s+([^][{}\"]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text
    )  # one line
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def _row(entry):
    """What is kept of one benchmark: never the raw times."""
    row = {"row": entry["name"], "unit": "call", "least": {}, "peers": {}} | entry["extra_info"]
    row.setdefault("seconds", entry["stats"]["median"])
    row.setdefault("rounds", entry["stats"]["rounds"])
    return row


def take_in(run, results=RESULTS, sources=HERE):
    """Put the rows of one run into the files of their suites.

    A benchmark that failed has no row. Rows of a function that ran replace all older ones of that function;
    rows of functions that are gone go, too; all others stay, with the environment they were measured in.
    """
    environment = run["machine_info"]
    if environment["quick"]:
        raise ValueError("run: made with --quick, which shows that benchmarks run, not how fast")
    machine = crc32(json.dumps(environment, sort_keys=True).encode())
    stamp = f"{run['datetime'][:10]} {commit_name(run['commit_info'])} {machine:08x}"
    suites = {}
    for entry in run["benchmarks"]:
        if entry["extra_info"].pop("failed", False):
            continue
        path, name = entry["fullname"].split("::", 1)
        suites.setdefault(Path(path).stem.removeprefix("test_"), {})[name] = _row(entry)
    for suite, new in suites.items():
        path = results / f"{suite}.json"
        old = read_json(path) if path.is_file() else {"runs": {}, "rows": {}}
        functions = set(re.findall(r"^def (test_\w+)", (sources / f"test_{suite}.py").read_text(), re.M))
        functions -= {name.split("[")[0] for name in new}
        rows = {name: row for name, row in old["rows"].items() if name.split("[")[0] in functions}
        rows |= {name: row | {"run": stamp} for name, row in new.items()}
        used = {row["run"] for row in rows.values()}
        runs = {key: value for key, value in (old["runs"] | {stamp: environment}).items() if key in used}
        write_json(path, {"runs": runs, "rows": rows})


def duration(seconds):
    """Three digits and a unit."""
    for unit, scale in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _met(measured, promised):
    return "" if promised is None else "yes" if measured >= promised else "**no**"


def table_lines(rows):
    """One line a peer; one for each bound."""
    lines = []
    for row in rows.values():
        work = row["row"].replace("|", r"\|")
        ours = f"{duration(row['seconds'])} a {row['unit']}"
        for name, peer in row["peers"].items():
            least = row["least"].get(name)
            promised = "" if least is None else f"{least:.3g}x"
            if peer is None:
                lines.append([work, ours, name, "not installed", "not measured", promised, "not measured"])
            else:
                reached = f"{peer['ratio']:.3g}"
                if least is not None and peer["ratio"] < least:
                    reached, wanted = apart(peer["ratio"], least)
                    promised = f"{wanted}x"
                ratio = f"**{reached}x** ({peer['lowest_ratio']:.3g} to {peer['highest_ratio']:.3g})"
                lines.append(
                    [work, ours, name, duration(peer["seconds"]), ratio, promised, _met(peer["ratio"], least)]
                )
            work = ours = ""
        for what, bound in row.get("bounds", {}).items():
            measured, most = bound["measured"], bound["most"]
            met = _met(-measured, -most)
            lines.append([work, ours, what, f"{measured:.4g}", "", f"at most {most:.4g}", met])
            work = ours = ""
        if not row["peers"] and not row.get("bounds"):
            lines.append([work, ours, "", "", "", "", ""])
    return lines


def speed_text(results=RESULTS):
    """All suites that have results: what was promised, and what was measured."""
    parts = []
    for suite, title in SUITES.items():
        path = results / f"{suite}.json"
        if not path.is_file():
            continue
        content = read_json(path)
        lines = table_lines(content["rows"])
        promises = [line[-1] for line in lines if line[-1]]
        kept = f"{promises.count('yes')} of {len(promises)} promises kept" if promises else "Nothing promised"
        missing = promises.count("not measured")
        kept += f", {missing} not measured" if missing else ""
        body = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
        body += ["| " + " | ".join(line) + " |" for line in lines]
        where = [
            f"Measured {date} at commit `{commit}`: {environment_line(made_by)}"
            for stamp, made_by in content["runs"].items()
            for date, commit, _ in [stamp.split()]
        ]
        parts += ["\n".join([f"### {title}", "", f"{kept}. Again: {_command(suite)}", "", *body, "", *where])]
    return "\n\n".join(parts)


def _command(suite):
    """What measures a suite again, with the rows that take minutes if it has any."""
    path = f"benchmarks/test_{suite}.py"
    large = "mark.large" in (HERE.parent / path).read_text(encoding="utf-8")
    return f'`make bench-speed BENCH="{path} --large"`' if large else f"`make bench-speed BENCH={path}`"


def accuracy_text(results=RESULTS):
    """How right estimators are where the truth is known, part by part."""
    return "\n".join(page_lines(results)).rstrip()


def with_section(text, name, body):
    """The text with a new body between the two marks of that name."""
    start, end = f"<!-- {name}: written by benchmarks.tables -->", f"<!-- end of {name} -->"
    head, found, rest = text.partition(start)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"README.md: wanted the marks of {name!r}")
    return f"{head}{start}\n\n{body}\n\n{end}{tail}"


def readme_text(text, results=RESULTS):
    """README.md with its tables written anew."""
    text = with_section(text, "speed", speed_text(results))
    gpu, audit, scaling, compiled, planes = (
        read_json(path) if path.is_file() else None
        for path in (
            results / f"{name}.json" for name in ("gpu", "audit", "scaling", "compile_time", "planes")
        )
    )
    text = with_section(text, "compile time", "\n".join(compile_lines(compiled)))
    text = with_section(text, "audits", audits_text(audit, scaling))
    text = with_section(text, "gpu", gpu_text(gpu))
    text = with_section(text, "planes", planes_text(planes))
    return with_section(text, "accuracy", accuracy_text(results))


def pages(results=RESULTS):
    """Pages with numbers: the path, the text it has, and the text it should have."""
    text = README.read_text(encoding="utf-8")
    yield README, text, readme_text(text, results)
    for path, lines in HEADLINES.items():
        text = path.read_text(encoding="utf-8")
        yield path, text, with_section(text, "headlines", "\n".join(lines(results)))


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("run", nargs="*", type=Path, help="JSON that pytest-benchmark has left")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is stale")
    options = parser.parse_args(arguments)
    for path in options.run:
        take_in(read_json(path))
    found = list(pages())
    if options.check:
        stale = [path.name for path, before, after in found if before != after]
        return f"{', '.join(stale)}: stale, run python -m benchmarks.tables" if stale else 0
    for path, _, after in found:
        path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
