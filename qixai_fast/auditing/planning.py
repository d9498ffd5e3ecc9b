"""What an audit would take, before it begins."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..store import ActivationStore, open_store
from .context import AuditContext, find_classes
from .costs import CostModel, StageCost, require_memory
from .files import AuditFiles
from .plan import AuditPlan, resolve_plan
from .plan_file import read_plan
from .rates import Rates


def dry_run(
    store: ActivationStore | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    plan: AuditPlan | str | os.PathLike[str] | None = None,
    attributions: bool = False,
) -> list[StageCost]:
    """What an audit would take, stage by stage: bytes, operations, memory and seconds. Nothing is computed.

    Parameters
    ----------
    store, out, plan
        As in :func:`audit`.
    attributions : bool
        Whether a model and inputs will be given.

    Raises
    ------
    TypeError, ValueError, StoreError, MemoryBudgetError
        As :func:`audit` before its first stage, but for activations that are damaged: none are read.
    """
    opened = store if isinstance(store, ActivationStore) else open_store(store)
    chosen, _ = resolve_plan(chosen_plan(plan), opened)
    context = AuditContext(opened, chosen, *find_classes(opened))
    if out is not None:
        output_files(Path(out), opened)
    return stage_costs(context, subject=attributions and chosen.n_attributions > 0, measure=True)


def stage_costs(context: AuditContext, *, subject: bool, measure: bool) -> list[StageCost]:
    """Costs of all stages, and an error where one of them does not fit the plan's budget."""
    costs = CostModel(context, Rates(measure)).stages(subject=subject)
    require_memory(costs, context.plan.max_memory)
    return costs


def chosen_plan(plan: AuditPlan | str | os.PathLike[str] | None) -> AuditPlan:
    """The plan that an argument stands for."""
    if isinstance(plan, (str, os.PathLike)):
        return read_plan(plan)
    if plan is not None and not isinstance(plan, AuditPlan):
        raise TypeError(f"plan: wanted an AuditPlan, a path or None, got {type(plan).__name__}")
    return AuditPlan() if plan is None else plan


def output_files(folder: Path, store: ActivationStore) -> AuditFiles:
    """The directory of an audit, checked, and not in the store itself."""
    if re.match(r"[a-z0-9+]{2,}:/", str(folder)):
        raise ValueError(f"out: wanted a local folder, got the URL {str(folder)!r}")
    if folder.resolve().is_relative_to(store.path.resolve()):
        raise ValueError(f"out: {folder} is in the store itself; choose another directory")
    return AuditFiles(folder)
