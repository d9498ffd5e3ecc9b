"""What a bench says: tables for a terminal and for Markdown, and the reading in plain sentences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .cases import FAILED, OFF, RIGHT, WRONG

Content = dict[str, Any]

_TIE = 1.05


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def beside(row: Content) -> str:
    """A ratio in words; 5 % either way is a tie."""
    ratio = row["ratio"]
    if ratio is None:
        return ""
    if 1 / _TIE < ratio < _TIE:
        return "the same"
    return f"{ratio:.2g}x slower" if ratio > 1 and ratio < 100 else (
        f"{ratio:,.0f}x slower" if ratio > 1 else f"{1 / ratio:.2g}x faster"
    )  # fmt: skip


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
    value = "0" if row["error"] == 0 else f"{row['error']:.2g}"
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
                cells[2] += f" ({row['lowest']:.2g} to {row['highest']:.2g})"
            lines.append("| " + " | ".join(cells) + " |")
        if case["not_installed"]:
            lines += ["", f"Cannot be imported here, not measured: {', '.join(case['not_installed'])}."]
        lines.append("")
    lines += ["## How", "", *(f"- {line}" for line in content["how"]), "", environment_line(content)]
    return "\n".join(lines) + "\n"


def _sections(content: Content) -> Iterable[tuple[str, list[str]]]:
    yield "Which is right, and which of those is fast", content["reading"]
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


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _wrong_text(found: list[tuple[Content, Content]]) -> str:
    """Where a tool was wrong, the worst first, three at most."""

    def size(pair: tuple[Content, Content]) -> float:
        case, row = pair
        return float("inf") if row["error"] is None else float(row["error"] / case["wrong"])

    def error(case: Content, row: Content) -> str:
        if row["error"] is None:
            return "not finite"
        text = f"error {error_text(row | {'detail': ''}, case)}"
        return f"{text}, {row['detail']}" if row["detail"] else text

    shown = [
        f"{case['data']} ({error(case, row)})" for case, row in sorted(found, key=size, reverse=True)[:3]
    ]
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(shown) + more


def reading(cases: list[Content]) -> list[str]:
    """By instrument: who is right everywhere, who is the fastest of them, and who was wrong and where."""
    sentences = []
    for instrument in dict.fromkeys(case["instrument"] for case in cases):
        sentences += _instrument_reading(instrument, [c for c in cases if c["instrument"] == instrument])
    return sentences


def _lost_text(instrument: str, cases: list[Content]) -> list[str]:
    """Where the fastest right tool is not ours, and how much longer the fastest right one of ours takes."""
    lost = []
    for case in cases:
        timed = [row for row in case["rows"] if row["verdict"] == RIGHT]
        ours = [row["seconds"] for row in timed if row["ours"]]
        best = min(timed, key=lambda row: row["seconds"], default=None)
        if best is not None and ours and min(ours) > _TIE * best["seconds"]:
            lost.append((min(ours) / best["seconds"], best["name"], case["data"]))
    if not lost:
        return []
    times, name, data = max(lost)
    return [
        f"{instrument}: on {len(lost)} of {len(cases)} another right tool is faster than qixai-fast, at most "
        f"{times:.2g} times ({name} on {data})."
    ]


def _instrument_reading(instrument: str, cases: list[Content]) -> list[str]:
    rows: dict[str, list[tuple[Content, Content]]] = {}
    for case in cases:
        for row in case["rows"]:
            rows.setdefault(row["name"], []).append((case, row))
    on = f"{len(cases)} data set{'s' if len(cases) > 1 else ''}"
    right = [name for name, all_ in rows.items() if all(row["verdict"] == RIGHT for _, row in all_)]
    text = f"{instrument}, {on}: "
    if right:
        text += f"right on {'all of them' if len(cases) > 1 else 'it'}: {_listed(right)}."
    else:
        counts = {name: sum(row["verdict"] == RIGHT for _, row in all_) for name, all_ in rows.items()}
        best = max(counts.values())
        leaders = [name for name, count in counts.items() if count == best]
        text += "nothing is right on all of them"
        text += f"; on the most, {best}: {_listed(leaders)}." if best else "."
    wins: dict[str, int] = {}
    for case in cases:
        timed = [row for row in case["rows"] if row["verdict"] == RIGHT]
        if timed:
            fastest = min(timed, key=lambda row: row["seconds"])["name"]
            wins[fastest] = wins.get(fastest, 0) + 1
    if wins:
        order = sorted(wins.items(), key=lambda item: -item[1])
        text += f" The fastest that is right: {_counted(order)}."
    sentences = [text, *_lost_text(instrument, cases)]
    off = [
        (name, count)
        for name, all_ in rows.items()
        if (count := sum(row["verdict"] == OFF for _, row in all_))
    ]
    if off:
        sentences.append(f"{instrument}, off but not wrong: {_counted(off)}.")
    for name, all_ in rows.items():
        for warned in (False, True):
            found = [(c, row) for c, row in all_ if row["verdict"] == WRONG and bool(row["warned"]) is warned]
            if found:
                how = "though it warned" if warned else "without a warning"
                sentences.append(f"{instrument}: {name} was WRONG, {how}: {_wrong_text(found)}.")
        failed = [case["data"] for case, row in all_ if row["verdict"] == FAILED]
        if failed:
            sentences.append(f"{instrument}: {name} failed: {'; '.join(failed)}.")
    return sentences


def _counted(names: list[tuple[str, int]]) -> str:
    return _listed([f"{name} (on {count})" for name, count in names])
