"""Docstrings as mkdocstrings wants them: public names where users find them, roles of Sphinx in Markdown."""

import re

import griffe

import qixai_fast

_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):`~?\.?([\w.]+)`")
_FORMULA = re.compile(r"^([ \t]*)\.\. math:: (.*(?:\n\1[ \t]+\S.*)*)", re.MULTILINE)


def _reference(found):
    name = found[1].removeprefix("qixai_fast.")
    shown = f"`{name.rpartition('.')[2]}`"
    return f"[{shown}][qixai_fast.{name}]" if name in qixai_fast.__all__ else f"`{found[1]}`"


def _display(found):
    formula = " ".join(found[2].split())
    return f"{found[1]}\n{found[1]}$$\n{found[1]}{formula}\n{found[1]}$$\n"


def as_markdown(text):
    """Roles and directives of reStructuredText that the package's docstrings use, in Markdown."""
    text = _FORMULA.sub(_display, text)
    text = re.sub(r":math:`([^`]*)`", lambda found: f"${' '.join(found[1].split())}$", text)
    return _ROLE.sub(_reference, text).replace("``", "`")


class Docstrings(griffe.Extension):
    """Names are imported on first use, which a reader of the source cannot see: they are told here."""

    def on_object(self, *, obj, loader, **kwargs):
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_package(self, *, pkg, **kwargs):
        if pkg.name == "qixai_fast":
            for name, home in qixai_fast._HOME.items():
                pkg.set_member(name, griffe.Alias(name, f"qixai_fast.{home}.{name}"))
