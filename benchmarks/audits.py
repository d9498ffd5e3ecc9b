"""Tables of whole audits: one out of core beside its plan, and audits on Dask workers beside local ones."""

from benchmarks.environment import environment_line

NOT_YET = "Not measured yet."
_AGAIN = "Again: `make {}`"


def _table(head, rows):
    lines = [head, *rows]
    return ["| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(head), *lines[1:]]]


def audit_text(content):
    """An audit out of core: seconds of its stages beside those that its kernels take alone."""
    kinds = dict(content["kinds"])
    kinds["all"] = {what: sum(kind[what] for kind in kinds.values()) for what in ("actual", "planned")}
    rows = [
        [kind, f"{one['actual']:.1f}", f"{one['planned']:.1f}", f"{one['actual'] / one['planned']:.2f}"]
        for kind, one in kinds.items()
    ]
    asked = content["arguments"]
    return [
        f"{asked['layers']} layers x {asked['features']} features x {asked['samples']:,} samples of float32 "
        f"({4e-9 * asked['layers'] * asked['features'] * asked['samples']:.1f} GB), "
        f"`--max-memory {asked['max_memory']}`: {content['seconds']:.0f} s in all, "
        f"{content['peak_memory_bytes'] / 1e9:.2f} GB resident at most.",
        "",
        *_table(["stages", "seconds", "planned: our kernels' own, timed at small sizes", "ratio"], rows),
        "",
        environment_line(content["environment"]),
    ]


def scaling_text(content):
    """Audits on workers of one thread each beside a local one."""
    local = content["local"]
    rows = [[f"local, {local['n_jobs']} threads", f"{local['seconds']:.1f}", "1.00", "", "", "", ""]]
    rows += [
        [
            f"{count} Dask",
            f"{one['seconds']:.1f}",
            f"{one['ratio']:.2f}",
            "yes" if one["same_bits"] else "**no**",
            str(one["tasks"]),
            f"{1e3 * one['empty_task']:.1f} ms",
            f"{1e3 * one['real_task']:.1f} ms",
        ]
        for count, one in content["workers"].items()
    ]
    head = ["workers", "seconds", "against local", "same bits", "tasks", "empty task", "beyond local, a task"]
    return [
        f"{content['layers']} layers x {content['features']} features x {content['samples']:,} samples, "
        f"{content['permutations']} permutations; all stages, without the page.",
        "",
        *_table(head, rows),
        "",
        environment_line(content["environment"]),
    ]


def audits_text(audit, scaling):
    """Both tables; None where there is no JSON."""
    parts = [
        [_AGAIN.format(target), "", *([NOT_YET] if content is None else write(content))]
        for target, write, content in (
            ("bench-audit", audit_text, audit),
            ("bench-scaling", scaling_text, scaling),
        )
    ]
    return "\n".join([*parts[0], "", *parts[1]])
