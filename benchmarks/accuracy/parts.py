"""The parts, in the order of the page, and where each keeps its results.

A part is a module of this package with ``measure(quick, processes)`` (None where what it needs is not
there), ``lines(content)`` and ``draw(content, path)``.
"""

PARTS = ("information", "beyond_normal", "spectra", "similarity", "gradients")


def file_of(part):
    """Name of its results and its figure, without what follows the dot."""
    return "accuracy" if part == "information" else f"accuracy_{part}"
