"""Maths as MathML: formulas are turned into it while the site is built, and browsers draw it by themselves.

No script, font or style sheet is loaded for it. LaTeX that cannot be turned ends the build.
"""

import html
import re

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def _mathml(display):
    def replace(found):
        latex = html.unescape(found[1]).strip()
        # As operators they stand apart from what is before them.
        spaced = re.sub(r"\\(ln|exp|cos)\b", r"\\operatorname{\1}", latex)
        try:
            mathml = convert(spaced, display=display)
        except Exception as error:
            raise ValueError(f"no MathML for {latex!r}") from error
        if "\\" in mathml:
            raise ValueError(f"no MathML for a command in {latex!r}")
        # The closing bar of a norm with an index would stay small beside a tall opening one.
        return re.sub(r"<mo>(&#x02016;|&#x0007C;)</mo>", r'<mo stretchy="false">\1</mo>', mathml)

    return replace


def on_page_content(text, page, config, files):
    """Replace what pymdownx.arithmatex marked; docstrings have been rendered by then, too."""
    return _INLINE.sub(_mathml("inline"), _BLOCK.sub(_mathml("block"), text))
