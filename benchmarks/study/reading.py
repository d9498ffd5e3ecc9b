"""The README of the study: sections between marks come from the results, the rest is kept as it is."""

from __future__ import annotations

from benchmarks.environment import environment_line
from benchmarks.study.parts import PARTS, part
from benchmarks.tables import read_json, with_section

NOT_YET = "Not measured yet."


def section(name, results):
    """A part's section: what it found, and the machine, versions and date of the run that found it."""
    path = results / f"{name}.json"
    if not path.is_file():
        return NOT_YET
    content = read_json(path)
    about = f"Measured {content['measured']}, commit {content['commit']}: "
    return "\n".join([*part(name).lines(content), "", about + environment_line(content["environment"])])


def readme_text(text, results):
    """``text`` with all sections written anew."""
    for name in PARTS:
        text = with_section(text, name, section(name, results))
    return text
