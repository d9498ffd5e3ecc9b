"""What a bench shows: tables for a terminal and for Markdown, and numbers in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .cases import FAILED, WRONG

Content = dict[str, Any]

TIE = 1.05


def number(value: float) -> str:
    """Two digits, and no powers of ten for large numbers."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.2g}"


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    rounded = float(f"{seconds:.3g}")
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
    unit, size = next((one for one in units if rounded >= one[1]), units[-1])
    value = rounded / size
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def beside(row: Content) -> str:
    """A ratio in words; 5 % either way is a tie."""
    ratio = row["ratio"]
    if ratio is None:
        return ""
    if 1 / TIE < ratio < TIE:
        return "the same"
    return f"{number(ratio)}x slower" if ratio > 1 else f"{number(1 / ratio)}x faster"


def judged(row: Content) -> str:
    """The verdict in words: a wrong number that nothing warned of is the worst there is."""
    if row["verdict"] == FAILED:
        return "failed"
    if row["verdict"] != WRONG:
        return str(row["verdict"])
    return "WRONG, though it warned" if row["warned"] else "WRONG, and silent"


def error_text(row: Content, case: Content) -> str:
    """The error with its unit, and what else is known of it."""
    if row["error"] is None:
        return row["detail"] if row["verdict"] != FAILED else ""
    value = "0" if row["error"] == 0 else number(row["error"])
    unit = f" {case['error_unit']}" if case["error_unit"] else ""
    return f"{value}{unit}" + (f" ({row['detail']})" if row["detail"] else "")


def note(row: Content, case: Content, n_jobs: int) -> str:
    """How a row differs from the others in what it did."""
    if row["verdict"] == FAILED:
        return str(row["detail"])
    notes = []
    if row["units"] < case["units"]:
        notes.append(f"{row['units']:,} of {case['units']:,} {case['unit']}s")
    if row["rounds"] == 1:
        notes.append("one round")
    if n_jobs > 1 and row["threads"] == 1:
        notes.append("one thread")
    return ", ".join(notes)


def _cells(row: Content, case: Content, n_jobs: int) -> list[str]:
    time = "" if row["seconds"] is None else duration(row["seconds"])
    return [row["name"], time, beside(row), error_text(row, case), judged(row), note(row, case, n_jobs)]


def _limits_text(case: Content) -> str:
    text = f"right: up to {case['right']:.2g}; WRONG: beyond {case['wrong']:.2g}"
    if case["judged_on"] < case["units"]:
        text += f"; judged on the {case['judged_on']:,} {case['unit']}s that all did"
    return text


def _heads(case: Content) -> list[str]:
    return ["", f"a {case['unit']}", "beside ours", "error", "verdict", ""]


def case_lines(case: Content, n_jobs: int) -> list[str]:
    """A case as a terminal shows it."""
    table = [_heads(case), *(_cells(row, case, n_jobs) for row in case["rows"])]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [f"{case['instrument']}: {case['data']}", f"  truth: {case['truth']}"]
    lines.append(f"  {_limits_text(case)}")
    for name, time, ratio, *rest in table:
        start = f"  {name:<{widths[0]}}  {time:>{widths[1]}}  {ratio:>{widths[2]}}  "
        cells = [f"{cell:<{width}}" for cell, width in zip(rest, widths[3:], strict=True)]
        lines.append((start + "  ".join(cells)).rstrip())
    if case["not_installed"]:
        lines.append(f"  cannot be imported here, not measured: {', '.join(case['not_installed'])}")
    return lines


def markdown(content: Content) -> str:
    """``bench.md``: the reading, then every table."""
    lines = ["# qixai-fast bench", "", content["about"], ""]
    for head, sentences in _sections(content):
        lines += [f"## {head}", "", *(f"- {sentence}" for sentence in sentences), ""]
    lines += ["![Cost against error, a panel an instrument](bench.png)", "", "## All numbers", ""]
    for case in content["cases"]:
        lines += [
            f"### {case['instrument']}: {case['data']}",
            "",
            f"Truth: {case['truth']}. {_limits_text(case)}.",
            "",
        ]
        heads = ["tool", *_heads(case)[1:-1], "note"]
        lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for row in case["rows"]:
            cells = [cell.replace("|", "\\|") for cell in _cells(row, case, content["n_jobs"])]
            if row["rounds"] and row["rounds"] > 1 and row["lowest"] != row["highest"]:
                cells[2] += f" ({number(row['lowest'])} to {number(row['highest'])})"
            lines.append("| " + " | ".join(cells) + " |")
        if case["not_installed"]:
            lines += ["", f"Cannot be imported here, not measured: {', '.join(case['not_installed'])}."]
        lines.append("")
    lines += ["## How", "", *(f"- {line}" for line in content["how"]), "", environment_line(content)]
    return "\n".join(lines) + "\n"


def _sections(content: Content) -> Iterable[tuple[str, list[str]]]:
    yield "Which is right, and which of those is fast", content["reading"]
    if content["details"]:
        yield "Where, and by how much", content["details"]
    if content["findings"]:
        yield "What these data have", content["findings"]
    if content["left_out"]:
        yield "Left out", content["left_out"]


def closing_lines(content: Content) -> list[str]:
    """What a terminal shows after the tables."""
    lines = []
    for head, sentences in _sections(content):
        lines += [f"{head}:", *(f"- {sentence}" for sentence in sentences), ""]
    return [*lines, content["about"]]


def environment_line(content: Content) -> str:
    """Machine, versions, threads and seed in one line."""
    facts = content["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    threads = f"{content['n_jobs']} thread{'s' if content['n_jobs'] > 1 else ''}"
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}; "
        f"{versions}; {threads}; seed {content['random_state']}."
    )
