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
        try:
            return convert(latex, display=display)
        except Exception as error:
            raise ValueError(f"no MathML for {latex!r}") from error

    return replace


def on_page_content(text, page, config, files):
    """Replace what pymdownx.arithmatex marked; docstrings have been rendered by then, too."""
    return _INLINE.sub(_mathml("inline"), _BLOCK.sub(_mathml("block"), text))
