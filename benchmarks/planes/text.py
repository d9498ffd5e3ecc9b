"""The planes in words: who fails in silence, what it takes to be right, and every number in a table."""

from benchmarks.environment import environment_line
from benchmarks.planes.measuring import SILENT_FROM, is_silent, is_wrong

NOT_YET = "Not measured yet."
FIGURE = (
    "![Cost against error: panels for singular values, integrated gradients, mutual information, cosines "
    "and CKA](planes.png)"
)
ENOUGH = {"information": 0.05}  # relative error; samples alone decide of less
ELSEWHERE = 0.01


def _percent(error):
    if error is None:
        return "no number"
    if error >= 10:
        return f"{error:.3g} times the truth"
    return f"{100 * error:.0f} %" if error >= 0.095 else f"{100 * error:.2g} %"


def _seconds(value):
    return f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def _failures(content):
    """Who is wrong at its default settings and says nothing; then who is at settings that one chose."""
    kinds = {True: {}, False: {}}
    for plane in content["planes"].values():
        for point in plane["points"]:
            if is_silent(point):
                words = f"{point['setting']} ({_percent(point['error'])})"
                by_plane = kinds[point["default"]].setdefault(point["tool"], {})
                by_plane.setdefault(plane["title"], []).append(words)
    heads = {
        True: "at default settings (recipes: in the data's own type)",
        False: "at settings of one's choice",
    }
    for default, tools in kinds.items():
        yield f"**Off by more than {SILENT_FROM:.0%} without a warning, {heads[default]}:**"
        yield ""
        for tool, planes in tools.items():
            yield f"- {tool}: " + "; ".join(
                f"*{title}*: {', '.join(words)}" for title, words in planes.items()
            )
        if not tools:
            yield "- nobody"
        yield ""


def _spoken(content):
    """Who is as wrong, and says so."""
    for plane in content["planes"].values():
        for point in plane["points"]:
            if "raised" in point:
                yield f"- *{plane['title']}*: {point['tool']}, {point['setting']}: raises `{point['raised']}`"
            elif is_wrong(point) and not is_silent(point):
                off, said = _percent(point["error"]), "; ".join(point["warned"])
                yield f"- *{plane['title']}*: {point['tool']}, {point['setting']}: {off}, and says `{said}`"


def _cheapest(plane):
    """For each tool, what it costs to be near enough; fastest first."""
    best = {}
    known = [point for point in plane["points"] if point.get("error") is not None]
    right = [point for point in known if point["error"] <= _enough(plane)]
    for point in sorted(right, key=lambda point: point["seconds"]):
        best.setdefault(point["tool"], point)
    return list(best.values())


def _cost(plane, point):
    return f", {point['cost']:.3g} {plane['cost_is']}" if "cost" in point else ""


def _enough(plane):
    return ENOUGH.get(plane["group"], ELSEWHERE)


def _near(content):
    yield "| plane | near enough | each tool's fastest setting that is | tools without one |"
    yield "|---|---|---|---|"
    for plane in content["planes"].values():
        found = _cheapest(plane)
        cells = [
            f"{point['tool']}: {_seconds(point['seconds'])}{_cost(plane, point)} ({point['setting']}; "
            f"{_percent(point['error'])})"
            for point in found
        ]
        right = {point["tool"] for point in found}
        tools = dict.fromkeys(point["tool"] for point in plane["points"])
        none = [tool for tool in tools if tool not in right]
        row = [plane["title"], f"{_enough(plane):.0%}", "<br>".join(cells) or "nobody", ", ".join(none)]
        yield "| " + " | ".join(row) + " |"


def _table(plane):
    """Every point."""
    cost = plane["cost_is"]
    head = ["tool", "setting", "seconds a call", *([cost] if cost else []), "error", "warned"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for point in plane["points"]:
        name = f"**{point['setting']}**" if point["default"] else point["setting"]
        if "raised" in point:
            cells = ["", *([""] if cost else []), "raises", point["raised"]]
        else:
            error = "no number" if point["error"] is None else f"{point['error']:.2g}"
            warned = "; ".join(point["warned"]) or ("**silent**" if is_silent(point) else "")
            spent = [f"{point['cost']:.3g}" if "cost" in point else ""] if cost else []
            cells = [_seconds(point["seconds"]), *spent, error, warned]
        yield "| " + " | ".join([point["tool"], name, *cells]).replace("\n", " ") + " |"


def planes_text(content):
    """All of the section; None where there is no JSON."""
    if content is None:
        return NOT_YET
    lines = [FIGURE, "", *_failures(content)]
    spoken = list(_spoken(content))
    lines += [
        f"Off by more than {SILENT_FROM:.0%}, and said so (or no result at all):",
        "",
        *(spoken or ["- nobody"]),
        "",
    ]
    lines += [*_near(content), ""]
    for plane in content["planes"].values():
        lines += ["<details>", f"<summary>{plane['title']}: all {len(plane['points'])} points</summary>", ""]
        lines += [
            f"Work: {plane['work']}. Error: {plane['error_is']}.",
            "",
            *_table(plane),
            "",
            "</details>",
            "",
        ]
    where = environment_line(content["environment"])
    lines.append(f"Measured {content['measured']} at commit `{content['commit']}`: {where}")
    return "\n".join(lines)
