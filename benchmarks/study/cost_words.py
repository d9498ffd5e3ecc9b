"""The tables of the section on cost."""

from __future__ import annotations

from benchmarks.tables import duration

LEAST = 1e6  # bytes; of less, nothing is said but that


def table(head, rows):
    """Markdown lines."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def megabytes(size):
    """Three digits, in MB or GB."""
    if size >= 999.5e6:
        return f"{size / 1e9:.3g} GB"
    return f"{size / 1e6:.3g} MB" if size >= LEAST else "< 1 MB"


def percent(share):
    """Two digits."""
    if share < 1e-5:
        return "< 0.001 %"
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:,.0f} %"


def times(ratio):
    """How many times: two digits."""
    return f"{ratio:.2g}" if ratio < 9.95 else f"{ratio:,.0f}"


def worked(network):
    """Rows of instruments that explain samples and did not raise, by key."""
    return {row["key"]: row for row in network["local"] if "error" not in row}


def name_of(row):
    """Tool and instrument."""
    return f"{row['tool']}'s {row['name']}"


def _area(found):
    return f"{found['area']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def local_lines(network):
    """Instruments that explain single samples."""
    n = network["samples"]
    head = [
        *("tool", "instrument", "time a sample", "peak memory", "rows through the network, a sample"),
        *("completeness error", "left as parts go (95 %)", "two seeds agree"),
    ]
    rows = []
    for row in network["local"]:
        if "error" in row:
            rows.append([row["tool"], row["name"], "raises an error", *[""] * 5])
            continue
        rows.append(
            [
                row["tool"],
                row["name"],
                duration(row["seconds"] / n),
                megabytes(row["memory"]),
                f"{row['forward'] / n:,.0f} forward, {row['backward'] / n:,.0f} back",
                percent(row["completeness"]) if "completeness" in row else "",
                _area(row["deletion"]) if "deletion" in row else "",
                f"{row['agreement']:.2f}" if "agreement" in row else "",
            ]
        )
    rows.append(["", "parts in random order", *[""] * 4, _area(network["random"]), ""])
    return table(head, rows)


def layer_lines(network):
    """Instruments that look at whole layers."""
    few, many = network["samples"], network["rows"]
    head = ["instrument", "of", f"{few} rows", f"{many:,} rows", "peak memory", "rows through the network"]
    rows = []
    for row in network["layers"]:
        at_few, at_many = row["few"], row["many"]
        rows.append(
            [
                row["name"],
                row["what"] or f"{few} and {network['recorded']:,} inputs",
                *("too few" if "error" in at else duration(at["seconds"]) for at in (at_few, at_many)),
                "" if "error" in at_many else megabytes(at_many["memory"]),
                f"{at_many['forward']:,.0f} forward" if at_many.get("forward") else "none",
            ]
        )
    return table(head, rows)


def multiples_lines(networks):
    """Every tool's time a sample over that of our integrated gradients, by network."""
    names = {}
    for network in networks:
        for row in network["local"]:
            names.setdefault(row["key"], (row["tool"], row["name"]))
    rows = []
    for key, (tool, name) in names.items():
        cells = []
        for network in networks:
            found, ours = worked(network).get(key), worked(network)["ig"]
            cells.append("raises an error" if found is None else times(found["seconds"] / ours["seconds"]))
        rows.append([tool, name, *cells])
    return table(["tool", "instrument", *(network["name"] for network in networks)], rows)
