"""Run an audit on this machine, resumable stage by stage."""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, cast

from .. import __version__
from .._random import as_generator
from .._validate import Array
from ..errors import StoreError
from ..store import ActivationStore, open_store
from .attribution_stage import ATTRIBUTION_FIELDS, Subject, attribution_stage, draw_subject
from .checks import find_warnings
from .context import AuditContext, find_classes, stem
from .costs import as_json
from .entangled import entangled_table, strongest
from .files import json_bytes, write_atomic
from .findings import describe, read
from .label_stage import LABEL_FIELDS, label_entropy, label_stage
from .layer_stages import LAYER_FIELDS, layer_stage
from .pair_stages import (
    KSG_FIELDS,
    MUTUAL_INFO_FIELDS,
    RELATION_FIELDS,
    ksg_stage,
    mutual_info_stage,
    relation_stage,
)
from .plan import AuditPlan, resolve_plan
from .plan_file import embedded_plan
from .planning import chosen_plan, output_files, stage_costs
from .results import (
    SCHEMA_VERSION,
    AuditReport,
    AuditWarning,
    LabelSection,
    PairResult,
    Results,
    StoreSummary,
)
from .runner import StageRunner, code_digest, machine, stage_generator
from .unchanged import StoreWatch


def audit(
    store: ActivationStore | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    model: Any = None,
    inputs: Any = None,
    target: Any = None,
    plan: AuditPlan | str | os.PathLike[str] | None = None,
    client: Any = None,
    random_state: Any = 0,
    progress: bool = True,
) -> AuditReport:
    """Explain the layers of a network from its recorded activations, and say how far to trust it.

    For each layer: its spectrum, the maps behind each component, dead and duplicate maps. For each pair of
    layers: cosines between maps, CKA, Schmidt modes, mutual information between maps, each beside what
    chance gives. Then the most entangled maps, what each map knows of the class, and integrated gradients
    of sampled inputs.

    Every finished part is kept in ``out``: after Ctrl-C or a kill, the same call goes on from there and
    leaves the same bytes as an undisturbed one.

    Parameters
    ----------
    store : ActivationStore or path
        What :func:`qixai_fast.capture` wrote, or the URL of a copy of it (see :func:`open_store`). Layers
        captured without a reduction are left out, with a warning.
    out : path, optional
        Directory for ``report.html``, ``results.json``, ``plan.toml``, ``*.npz``, ``figures/*.png`` and
        ``timings.json``. An earlier audit there is replaced when this one is done; other files are left
        alone. None writes nothing.
    model : torch.nn.Module, optional
        The network, for integrated gradients; needs ``inputs``. Run in evaluation mode and left as it was.
    inputs : Tensor, array, tuple of Tensor, or iterable of batches, optional
        Inputs to sample from. A tuple of tensors is for models of several inputs; batches are tensors or
        tuples whose first element is one.
    target : int or array_like of int, optional
        Output to explain, for all inputs or one for each; None for the predicted class.
    plan : AuditPlan or path, optional
        What to compute; a path is that of a TOML file with the fields of :class:`AuditPlan`. The one that
        was used is kept in ``results["plan_file"]`` and in ``plan.toml``: with it, the same store gives the
        same numbers.
    client : distributed.Client, optional
        Dask cluster whose workers do the work (needs the extra ``dask``); each has to see the store under the
        same path or URL, and reads it there. The report has the same bits as one made without, whatever the
        number of workers, where they have processors of one type. ``plan.max_memory`` and ``n_jobs`` are
        about this process. Attributions are computed here, and so is what has to do with ``out`` where
        workers do not see it.
    random_state : None, int, Generator or RandomState
        Seed of everything drawn, unless the plan has one. None and generators give a new seed, noted in the
        results.
    progress : bool
        Show a progress bar on stderr, and how often layers are read where ``plan.max_memory`` is too small
        for one read of each.

    Returns
    -------
    AuditReport
        ``results`` (:class:`qixai_fast.auditing.results.Results`), ``arrays``, ``timings``, ``out``,
        ``html``, and the shortcuts ``reading`` and ``warnings``.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, layers the store does not have, NaN or infinite activations (layer,
        row and column named), an ``out`` that is a store or holds files that no audit wrote.
    StoreError
        For a damaged store, one without samples, and one that changes while it is audited; samples that a
        capture appends do not count.
    OSError
        Where ``out`` cannot be written, as on a full disk, naming the file. Finished stages stay.
    MemoryBudgetError
        Where ``plan.max_memory`` is too small for a stage.
    ClusterError
        Where the cluster of ``client`` is gone, or has no memory for a task. Finished stages stay, and the
        same audit goes on from there, also without a client.
    ImportError
        For a ``client`` without distributed.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.standard_normal((200, 2))
    >>> maps = np.maximum(signal @ rng.standard_normal((2, 6)), 0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with qf.create_store(folder, layers={"conv1": qf.LayerSpec((6,), "float64")}) as writer:
    ...         writer.append({"conv1": maps})
    ...     report = qf.audit(folder, plan=qf.AuditPlan(n_permutations=99), progress=False)
    >>> report.results["layers"][0]["n_maps"]
    6
    """
    began = time.perf_counter()
    started = datetime.now(timezone.utc).isoformat()
    opened = store if isinstance(store, ActivationStore) else open_store(store)
    if client is not None:
        from .dask import on_workers

        with on_workers(client, opened):
            return audit(
                opened, out, model=model, inputs=inputs, target=target, plan=plan,
                random_state=random_state, progress=progress,
            )  # fmt: skip
    watch = StoreWatch(opened)
    asked = chosen_plan(plan)
    _check_model(model, inputs, target)
    seed = _seed(random_state) if asked.random_state is None else asked.random_state
    plan, early = resolve_plan(asked, opened)
    embedded = embedded_plan(asked, plan, seed)
    classes, no_classes = find_classes(opened)
    files = None if out is None else output_files(Path(out), opened)
    context = AuditContext(opened, plan, classes, no_classes, files, code_digest())
    costs = stage_costs(context, subject=model is not None and plan.n_attributions > 0, measure=progress)
    subject = None
    if model is not None and plan.n_attributions > 0:
        subject = draw_subject(context, model, inputs, target, stage_generator(seed, "inputs"))
    # Held from here on: whoever cannot have it need not wait for the checksums.
    with nullcontext() if files is None else files.locked():
        verified = _check_data(opened, progress)
        runner = StageRunner(files, {}, seed, len(costs) - 1, progress, context.tidy, costs, watch.check)

        def timings() -> dict[str, Any]:
            planned = as_json(costs)
            return {
                "started": started,
                "seconds": time.perf_counter() - began,
                "store": opened.location,
                "out": None if files is None else str(files.out),
                "verify": {"seconds": verified, "planned": planned["verify"]},
                "stages": {
                    name: {**timed, "planned": planned[name]} for name, timed in runner.timings.items()
                },
                "moments": {"groups": len(context.moments.groups), "reads": context.moments.n_reads},
                "machine": machine(),
            }

        results, arrays = _compute(context, subject, early, seed, embedded, runner, progress)
        if files is None:
            context.finish()
            runner.compare(verified)
            return AuditReport(results, arrays, timings())
        from .report.writer import write_report  # brings matplotlib, which nothing else here needs

        fresh = files.fresh_folder()
        context.finish()
        try:
            write_report(results, arrays, fresh, progress=progress)
        except OSError as error:
            if error.filename is not None:
                raise
            raise OSError(
                error.errno, f"the report cannot be written: {error.strerror}", str(fresh)
            ) from None
        ran = timings()
        write_atomic(fresh / "timings.json", json_bytes(ran))
        write_atomic(fresh / "plan.toml", embedded.encode())
        runner.compare(verified)
        files.publish(list(runner.names), list(arrays), json_bytes(results))
    return AuditReport(results, arrays, ran, files.out, files.out / "report.html")


def _check_data(store: ActivationStore, progress: bool) -> float:
    """Compare all data with its checksums, as damaged activations are worth nothing; return the seconds."""
    began = time.perf_counter()
    problems = store.verify(progress=progress)
    if problems:
        more = f" (and {len(problems) - 1} more; see qixai-fast verify)" if len(problems) > 1 else ""
        raise StoreError(problems[0] + more)
    return time.perf_counter() - began


def _check_model(model: Any, inputs: Any, target: Any) -> None:
    if (model is None) != (inputs is None):
        have, lack = ("model", "inputs") if inputs is None else ("inputs", "model")
        raise ValueError(f"{lack}: wanted together with {have}, for attributions")
    if target is not None and model is None:
        raise ValueError("target: has no meaning without a model and inputs")


def _seed(random_state: Any) -> int:
    """An integer that stands for all random numbers, and can be noted in the results."""
    generator = as_generator(random_state)
    plain = hasattr(random_state, "__index__")
    return int(random_state) if plain else int(generator.integers(2**31))


def _compute(
    context: AuditContext,
    subject: Subject | None,
    early: list[AuditWarning],
    seed: int,
    embedded: str,
    runner: StageRunner,
    progress: bool,
) -> tuple[Results, dict[str, dict[str, Array]]]:
    """All stages, then what follows from them."""
    plan, names = context.plan, context.layers
    if progress and context.moments.plan():
        print(context.moments.plan(), file=sys.stderr)
    couples = context.couples
    between = [couple for couple in couples if couple[0] != couple[1]]
    arrays: dict[str, dict[str, Array]] = {}
    with runner:
        layers: list[Any] = []
        summaries: dict[str, dict[str, Array]] = {}
        for name in names:
            file = stem("layer", context, name)
            result, arrays[file] = runner.run(
                file,
                {**plan.some(LAYER_FIELDS), "data": context.store.checksum_of([name], labels=True)},
                f"spectrum of {name}",
                partial(layer_stage, context, name),
            )
            summaries[name] = arrays[file]
            layers.append({"name": name, "arrays": file, **result})
        pairs = [_pair(context, runner, couple, summaries, arrays) for couple in couples]
        chosen = strongest(pairs, arrays, plan.n_top_pairs)
        keys = [ranked.key for ranked in chosen]
        ksg: list[float | None] = []
        if couples:
            result, _ = runner.run(
                "ksg",
                {
                    **plan.some(KSG_FIELDS),
                    "pairs": keys,
                    "data": context.store.checksum_of(
                        sorted({layer for a, _, b, _ in keys for layer in (a, b)})
                    ),
                },
                "KSG on the strongest pairs",
                partial(ksg_stage, context, keys),
            )
            ksg = result["values"]
        labels = _labels(context, runner, arrays)
        attributions: Any = None
        if subject is not None:
            class_names = None if context.classes is None else context.classes.names
            result, arrays["attributions"] = runner.run(
                "attributions",
                {
                    **plan.some(ATTRIBUTION_FIELDS),
                    "subject": subject.digest,
                    "labels": class_names,
                    "data": context.store.checksum_of(labels=True),
                },
                "integrated gradients",
                partial(attribution_stage, context, subject, runner.shows),
            )
            attributions = {"arrays": "attributions", **result}
    skipped = {}
    if not between:
        skipped["similarity"] = (
            "only one layer was audited" if plan.pairs is None else "the plan asks for no pair of two layers"
        )
    if not couples:
        skipped["entanglement"] = "only one map was audited"
    if labels is None:
        skipped["labels"] = context.no_classes
    if attributions is None:
        asked = plan.n_attributions > 0
        skipped["attributions"] = "no model was given" if asked else "the plan asks for no attributions"
    results: Results = {
        "schema_version": SCHEMA_VERSION,
        "package_version": __version__,
        "random_state": seed,
        "plan": plan.result_fields(),
        "plan_file": embedded,
        "store": _summary(context),
        "reading": [],
        "findings": [],
        "warnings": [],
        "skipped": skipped,
        "layers": layers,
        "pairs": pairs,
        "entangled": entangled_table(chosen, ksg, layers, arrays, len(couples)),
        "labels": labels,
        "attributions": attributions,
    }
    results["warnings"] = early + find_warnings(results, plan)
    results["findings"] = describe(results, plan)
    results["reading"] = read(results, plan)
    return results, arrays


def _pair(
    context: AuditContext,
    runner: StageRunner,
    couple: tuple[str, str],
    summaries: dict[str, dict[str, Array]],
    arrays: dict[str, dict[str, Array]],
) -> PairResult:
    plan = context.plan
    a, b = couple
    within = a == b
    title = f"within {a}" if within else f"{a} and {b}"
    both = summaries[a], summaries[b]
    layers = (a,) if within else couple
    data = {"data": context.store.checksum_of(layers)}
    relation_file, information_file = (stem(kind, context, *layers) for kind in ("relation", "mutual_info"))
    relation, arrays[relation_file] = runner.run(
        relation_file,
        {**plan.some(RELATION_FIELDS), **data},
        f"similarity, {title}",
        partial(relation_stage, context, couple, both),
    )
    information, arrays[information_file] = runner.run(
        information_file,
        {**plan.some(MUTUAL_INFO_FIELDS), **data},
        f"mutual information, {title}",
        partial(mutual_info_stage, context, couple, both),
    )
    relation["cosine"] = {"arrays": relation_file, **relation["cosine"]}
    return cast(
        PairResult,
        {
            "layer_a": a,
            "layer_b": b,
            "within": within,
            **relation,
            "mutual_info": {"arrays": information_file, **information},
        },
    )


def _labels(
    context: AuditContext, runner: StageRunner, arrays: dict[str, dict[str, Array]]
) -> LabelSection | None:
    if context.classes is None:
        return None
    layers: list[Any] = []
    for name in context.layers:
        file = stem("labels", context, name)
        data = context.store.checksum_of([name], labels=True)
        depends = {**context.plan.some(LABEL_FIELDS), "data": data}
        result, arrays[file] = runner.run(
            file, depends, f"class information in {name}", partial(label_stage, context, name)
        )
        layers.append({"layer": name, "arrays": file, **result})
    return {
        "n_classes": len(context.classes.names),
        "label_entropy": label_entropy(context.classes.codes),
        "layers": layers,
    }


def _summary(context: AuditContext) -> StoreSummary:
    classes = context.classes
    return {
        "checksum": context.store.checksum,
        "n_samples": context.n_samples,
        "layers": list(context.layers),
        "n_classes": None if classes is None else len(classes.names),
        "class_names": None if classes is None else classes.names,
        "metadata": context.store.metadata,
    }
