"""What the CUDA paths are to reach on one H200, and the table of what was measured.

Needs neither torch nor a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.environment import environment_line


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Attributes
    ----------
    work : str
        At full size.
    text : str
        What is promised, in words.
    bound : float
        The promise as a number.
    at_most : bool
        Whether the measured figure may not exceed it; else it may not fall short of it.
    """

    work: str
    text: str
    bound: float
    at_most: bool = False

    def met(self, measured):
        return measured <= self.bound if self.at_most else measured >= self.bound


TARGETS = {
    "binned": Target(
        "binned, 16 bins, 4,096 features x 1,000,000 samples, all pairs", "5e11 sample-pairs/s", 5e11
    ),
    "ksg beside one core": Target(
        "KSG-1 k=3, 1,024 features x 10,000 samples, all pairs, beside our CPU kernel on one core",
        "100x",
        100,
    ),
    "ksg beside all cores": Target("the same, beside all cores of that machine", "10x", 10),
    "cosine top-k": Target(
        "cosine top-k, 1,000,000 x 1,000,000 x 512 float16, k=10, share of the bare cuBLAS rate",
        "0.55 (stretch 0.8)",
        0.55,
    ),
    "pca": Target(
        "pca 10,000,000 x 1,024 float16 from pinned memory of the host, time over the copy's",
        "1.1x",
        1.1,
        True,
    ),
    "pca, pageable": Target(
        "the same from ordinary memory, 2,000,000 rows, time over torch's copy of them", "1.1x", 1.1, True
    ),
    "riemann float32": Target(
        "riemann_accumulate, 50 steps of float32, share of the copy's bandwidth", "0.85", 0.85
    ),
    "riemann float16": Target("the same of float16", "0.85", 0.85),
    "integrated gradients": Target(
        "integrated_gradients, ResNet-like model, time over that of the bare passes", "1.03x", 1.03, True
    ),
}
HEAD = "| work | wanted on an H200 | measured | met | time | share of the card's roofline |"
NOT_YET = "not measured yet"


def _line(target, row):
    if row is None:
        return [target.work, target.text, NOT_YET, NOT_YET, "", ""]
    size = "" if row["scale"] == 1 else f" (at {row['scale']:.3g} of the size)"
    met = "yes" if target.met(row["measured"]) else "**no**"
    share = "" if row["roofline"] is None else f"{row['roofline']:.2g} ({row['limit']})"
    return [target.work, target.text, f"{row['measured']:.3g}{size}", met, f"{row['seconds']:.3g} s", share]


def gpu_text(content):
    """The table, of a run's JSON or of None where no GPU was measured."""
    rows = {} if content is None else content["rows"]
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    lines += ["| " + " | ".join(_line(target, rows.get(key))) + " |" for key, target in TARGETS.items()]
    if content is None:
        return "\n".join(lines)
    rates = "; ".join(f"{name} {rate:.3g} {unit}" for name, (rate, unit) in content["rates"].items())
    where = [
        f"Measured {stamp.split()[0]} on {content['card']}: {environment_line(made_by)}"
        for stamp, made_by in content["runs"].items()
    ]
    return "\n".join([*lines, "", f"The card's own rates in the same run: {rates}.", "", *where])
