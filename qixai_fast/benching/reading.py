"""What the numbers of a bench say, in plain sentences: a line an instrument, and the details."""

from __future__ import annotations

from collections.abc import Callable

from .cases import FAILED, OFF, RIGHT, WRONG
from .text import TIE, Content, error_text, number

# By tool, each case it ran in and its row there.
_Rows = dict[str, list[tuple[Content, Content]]]
_MOST_PLACES = 3


def reading(cases: list[Content]) -> list[str]:
    """A line an instrument: who is right everywhere, the fastest of the right ones, and who is wrong."""
    return [_summary(instrument, some) for instrument, some in _by_instrument(cases)]


def details(cases: list[Content]) -> list[str]:
    """Where another tool is faster than ours; which tools are off, wrong or failed, where and by how much."""
    sentences = []
    for instrument, some in _by_instrument(cases):
        rows = _by_tool(some)
        found = [*_lost(some), *_off(rows, len(some)), *_wrong(rows), *_failed(rows)]
        sentences += [f"{instrument}: {sentence}" for sentence in found]
    return sentences


def _by_instrument(cases: list[Content]) -> list[tuple[str, list[Content]]]:
    grouped: dict[str, list[Content]] = {}
    for case in cases:
        grouped.setdefault(case["instrument"], []).append(case)
    return list(grouped.items())


def _by_tool(cases: list[Content]) -> _Rows:
    rows: _Rows = {}
    for case in cases:
        for row in case["rows"]:
            rows.setdefault(row["name"], []).append((case, row))
    return rows


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _were(names: list[str]) -> str:
    return f"{_listed(names)} {'was' if len(names) == 1 else 'were'}"


def _counted(rows: _Rows, wanted: Callable[[Content], bool], total: int) -> str:
    """The tools with such rows, those with most first, and on how many of several data sets; "" for none."""
    counts = {name: sum(wanted(row) for _, row in all_) for name, all_ in rows.items()}
    order = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    return _listed([f"{name} (on {counts[name]})" if total > 1 else name for name in order])


def _fastest(case: Content) -> Content | None:
    right = [row for row in case["rows"] if row["verdict"] == RIGHT]
    return min(right, key=lambda row: row["seconds"], default=None)


def _summary(instrument: str, cases: list[Content]) -> str:
    rows, total = _by_tool(cases), len(cases)
    fastest = [id(best) for case in cases if (best := _fastest(case)) is not None]
    right = [name for name, all_ in rows.items() if sum(row["verdict"] == RIGHT for _, row in all_) == total]
    some = _counted(rows, lambda row: row["verdict"] == RIGHT, total)
    everywhere = "on all of them" if total > 1 else "on it"
    if right:
        text = f"right {everywhere}: {_listed(right)}"
    else:
        text = f"nothing is right {everywhere}" + (f"; on some: {some}" if some else "")
    parts = {
        "The fastest that is right": _counted(rows, lambda row: id(row) in fastest, total),
        "WRONG without a warning": _counted(rows, lambda row: _is_wrong(row, warned=False), total),
        "WRONG, though it warned": _counted(rows, lambda row: _is_wrong(row, warned=True), total),
        "Failed": _counted(rows, lambda row: row["verdict"] == FAILED, total),
    }
    more = "".join(f" {head}: {names}." for head, names in parts.items() if names)
    return f"{instrument}, {total} data set{'s' if total > 1 else ''}: {text}.{more}"


def _is_wrong(row: Content, *, warned: bool) -> bool:
    return row["verdict"] == WRONG and bool(row["warned"]) is warned


def _lost(cases: list[Content]) -> list[str]:
    """Where the fastest right tool is not ours, and how much longer the fastest right one of ours takes."""
    lost = []
    for case in cases:
        best = _fastest(case)
        ours = [row["seconds"] for row in case["rows"] if row["ours"] and row["verdict"] == RIGHT]
        if best is not None and ours and min(ours) > TIE * best["seconds"]:
            lost.append((min(ours) / best["seconds"], best["name"], case["data"]))
    if not lost:
        return []
    times, name, data = max(lost)
    return [
        f"on {len(lost)} of {len(cases)} another right tool is faster than qixai-fast, at most "
        f"{number(times)} times ({name} on {data})."
    ]


def _off(rows: _Rows, total: int) -> list[str]:
    names = _counted(rows, lambda row: row["verdict"] == OFF, total)
    return [f"off but not wrong: {names}."] if names else []


def _wrong(rows: _Rows) -> list[str]:
    """A sentence for tools that were wrong on the same data by the same errors."""
    sentences = []
    for warned in (False, True):
        places: dict[str, list[str]] = {}
        for name, all_ in rows.items():
            found = [(case, row) for case, row in all_ if _is_wrong(row, warned=warned)]
            if found:
                places.setdefault(_where(found), []).append(name)
        for where, names in places.items():
            though = f"though {'it' if len(names) == 1 else 'they'} warned"
            sentences.append(f"{_were(names)} WRONG, {though if warned else 'without a warning'}: {where}.")
    return sentences


def _where(found: list[tuple[Content, Content]]) -> str:
    """The data on which a tool was wrong and its errors there, the worst first, three at most."""

    def size(pair: tuple[Content, Content]) -> float:
        case, row = pair
        return float("inf") if row["error"] is None else float(row["error"] / case["wrong"])

    def error(case: Content, row: Content) -> str:
        if row["error"] is None:
            return "not finite"
        text = f"error {error_text(row | {'detail': ''}, case)}"
        return f"{text}, {row['detail']}" if row["detail"] else text

    worst = sorted(found, key=size, reverse=True)[:_MOST_PLACES]
    more = f"; and {len(found) - _MOST_PLACES} more" if len(found) > _MOST_PLACES else ""
    return "; ".join(f"{case['data']} ({error(case, row)})" for case, row in worst) + more


def _failed(rows: _Rows) -> list[str]:
    places: dict[str, list[str]] = {}
    for name, all_ in rows.items():
        data = "; ".join(case["data"] for case, row in all_ if row["verdict"] == FAILED)
        if data:
            places.setdefault(data, []).append(name)
    return [f"{_listed(names)} failed: {data}." for data, names in places.items()]
