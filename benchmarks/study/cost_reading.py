"""What the tables on cost say, in sentences whose every number comes from them."""

from __future__ import annotations

from benchmarks.study.cost_words import LEAST, megabytes, name_of, percent, times, worked
from benchmarks.tables import duration

CLOSE = 1.1  # ratios up to here are not called a difference
COMPLETE = 0.1  # a larger error of DeepExplainer's sums, which are exact where it has rules, is called wrong


def span(values, write=times):
    """The smallest to the largest, once where they are written alike."""
    low, high = write(min(values)), write(max(values))
    return low if low == high else f"{low} to {high}"


def listed(words):
    """Words with commas, and an "and" before the last."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def ratios(networks, key, what="seconds", least=0.0):
    """A peer's over our integrated gradients', by network where it works."""
    return {
        network["name"]: max(rows[key][what], least) / max(rows["ig"][what], least)
        for network in networks
        for rows in [worked(network)]
        if key in rows
    }


def _peer(networks, key, title):
    """How a peer's time compares, and where it works."""
    found = ratios(networks, key)
    if not found:
        return None
    text = f"{title} {span(found.values())}"
    return text if len(found) == len(networks) else f"{text} (on the {listed(found)} alone)"


def answer(networks):
    """The first paragraphs: two questions, and what each costs."""
    yield (
        "**What one output rests on** (integrated gradients, SHAP, LIME, LRP: a cost a sample) **and how "
        "the units of layers vary together** (spectrum, entanglement, orthogonality: a cost a layer) **are "
        "two questions, and no tool here answers both.** Conductance stands between them: which units one "
        "output goes through."
    )
    own = [f"{duration(worked(n)['ig']['seconds'] / n['samples'])} ({n['name']})" for n in networks]
    said = [f"- **A sample** takes our integrated gradients at 50 steps {listed(own)}."]
    if captum := ratios(networks, "captum"):
        equal = ratios(networks, "captum_equal")
        memory = ratios(networks, "captum", "memory", LEAST)
        memory_equal = ratios(networks, "captum_equal", "memory", LEAST)
        said.append(
            f"Captum's take {span(captum.values())} times as long and {span(memory.values())} times the "
            f"memory as they come; with passes as large as ours {span(equal.values())} and "
            f"{span(memory_equal.values())} times."
        )
    others = [
        _peer(networks, key, title)
        for key, title in (
            ("kernel", "KernelExplainer"),
            ("lime", "LIME"),
            ("partition", "PartitionExplainer"),
            ("gradient", "GradientExplainer"),
            ("deep", "DeepExplainer"),
            ("lrp", "LRP"),
        )
    ]
    if any(others):
        said.append(f"Times of the others, as multiples of ours: {listed(filter(None, others))}.")
    yield from ("", " ".join(said))
    yield _of_layers(networks)
    yield _of_trust(networks)


def _each(networks, key, what, write):
    """A number of one instrument on every network where it works."""
    return listed(
        f"{write(worked(network)[key][what])} ({network['name']})"
        for network in networks
        if key in worked(network)
    )


def _of_trust(networks):
    tools = {key for network in networks for key in worked(network)}
    text = (
        "- **Cheap is not right**: 50 steps miss completeness by "
        f"{_each(networks, 'ig', 'completeness', percent)}, our refinement to tol 0.05 by "
        f"{_each(networks, 'ig_tol', 'completeness', percent)}"
    )
    if "deep" in tools:
        text += f", DeepExplainer by {_each(networks, 'deep', 'completeness', percent)}"
    text += "."
    for key, title in (("kernel", "KernelExplainer"), ("lime", "LIME")):
        if key in tools:
            text += f" Two seeds of {title} agree to {_each(networks, key, 'agreement', '{:.2f}'.format)}."
    return text


def _of_layers(networks):
    found = {}
    for network in networks:
        for row in network["layers"]:
            if "error" not in row["many"]:
                found.setdefault(row["name"], []).append(row["many"])
    parts = [
        f"{name.split(': ')[-1]} {span([row['seconds'] for row in rows], duration)}"
        for name, rows in found.items()
        if not name.startswith(("capture", "whole"))
    ]
    text = (
        f"- **A layer** of {networks[0]['rows']:,} rows is captured once, and asks nothing more of the "
        f"network: {listed(parts)}."
    )
    few = [row["few"] for network in networks for row in network["layers"] if row["name"].startswith("whole")]
    audits = next((rows for name, rows in found.items() if name.startswith("whole")), None)
    if audits:
        text += (
            f" The whole audit of three layers takes {span([row['seconds'] for row in audits], duration)} "
            f"and {span([row['memory'] for row in audits], megabytes)}; "
            f"{span([row['seconds'] for row in few], duration)} of that with a handful of rows, too: its "
            "page and figures."
        )
    return text


def _better(network, what, least):
    """Peers that take less of something than our integrated gradients, and how many times less."""
    rows = worked(network)
    found = [
        (rows["ig"][what] / max(row[what], least), row)
        for row in rows.values()
        if row["tool"] != "qixai-fast" and max(row[what], least) < rows["ig"][what]
    ]
    found = sorted((one for one in found if one[0] > CLOSE), key=lambda one: -one[0])
    return [f"{name_of(row)} ({times(ratio)} times)" for ratio, row in found]


def reading(network):
    """Sentences about one network."""
    rows, n = worked(network), network["samples"]
    refined = rows["ig_tol"]
    yield (
        "Refining to a tolerance in place of 50 steps takes "
        f"{times(refined['seconds'] / rows['ig']['seconds'])} times the time: {refined['backward'] / n:.0f} "
        "gradients a sample."
    )
    for what, least, word in (("seconds", 0.0, "Faster"), ("memory", LEAST, "Lighter")):
        if better := _better(network, what, least):
            yield f"{word} than our 50 steps: {listed(better)}."
    ours, theirs = rows["conductance"], rows.get("captum_conductance")
    if theirs:
        yield (
            f"Conductance: Captum's takes {times(theirs['seconds'] / ours['seconds'])} times our time and "
            f"{times(max(theirs['memory'], LEAST) / max(ours['memory'], LEAST))} times our memory; errors of "
            f"completeness are {percent(theirs['completeness'])} and, ours, {percent(ours['completeness'])}."
        )
    yield _deletion(network, rows)
    if "deep" in rows and rows["deep"]["completeness"] > COMPLETE:
        yield (
            f"SHAP's DeepExplainer has no rules for some of these modules: its values miss their sum by "
            f"{percent(rows['deep']['completeness'])}. Do not use it here, however cheap."
        )
    for row in network["local"]:
        if "error" in row:
            yield f"{name_of(row)} raises `{plain(row['error'])}`"


def _deletion(network, rows):
    """Whose largest parts matter most, and whether that can be told."""
    areas = {key: row["deletion"] for key, row in rows.items() if "deletion" in row}
    best = min(areas, key=lambda key: areas[key]["area"])
    text = (
        f"Taking parts away in the order of {name_of(rows[best])} leaves least of the explained change: "
        f"{areas[best]['area']:.2f}, with ours at 50 steps {areas['ig']['area']:.2f}, in random order "
        f"{network['random']['area']:.2f}."
    )
    apart = [key for key in areas if areas[key]["low"] > areas[best]["high"]]
    if apart:
        return f"{text} Intervals of {listed(name_of(rows[key]) for key in apart)} lie wholly above its own."
    return f"{text} {network['samples']} samples do not tell the tools apart: all intervals overlap its own."


def plain(error, most=150):
    """An error's beginning, in one line."""
    text = " ".join(error.replace("`", "'").split())
    return text if len(text) <= most else text[: text.rfind(" ", 0, most)] + " ..."
