"""The command line. Exit codes: 0 done, 1 the data is bad (one clear line), 2 wrong usage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from ._start import INTERRUPTED, let_interrupt
from .errors import MemoryBudgetError, StoreError

app = typer.Typer(
    name="qixai-fast",
    help="Explain what the layers of a neural network have learned, on activations too big for memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

DATA_IS_BAD = 1
_BENCH_OPTIONS = {"n_samples": "--samples", "n_jobs": "--jobs", "max_memory": "--max-memory"}


class Dtype(str, Enum):
    """What activations can be stored as."""

    float16 = "float16"
    float32 = "float32"
    float64 = "float64"


def _as_typed(text: str, options: dict[str, str]) -> str:
    """``text`` on one line, with arguments of Python named as the options that stand for them."""
    for name, option in options.items():
        text = text.replace(f"{name}:", f"{option}:").replace(f"{name}=", f"{option} ")
    return " ".join(text.split())


@contextmanager
def one_clear_line(resume: str = "", options: dict[str, str] | None = None) -> Iterator[None]:
    """Turn a mistake in data or arguments into one line and exit code 1.

    ``resume`` says how to go on, ``options`` which option stands for an argument of Python.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted. {resume}".rstrip(), err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (StoreError, MemoryBudgetError, ValueError, TypeError, ImportError, OSError) as error:
        if os.environ.get("QIXAI_FAST_TRACEBACK"):
            raise
        typer.echo(f"error: {_as_typed(str(error), options or {})}", err=True)
        raise typer.Exit(DATA_IS_BAD) from None
    except typer.Exit:
        raise
    except RuntimeError as error:
        # What torch raises where a model and its inputs do not fit each other.
        if os.environ.get("QIXAI_FAST_TRACEBACK"):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        typer.echo(f"error: {text} (QIXAI_FAST_TRACEBACK=1 shows where)", err=True)
        raise typer.Exit(DATA_IS_BAD) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qixai-fast {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@app.command(epilog="Example: qixai-fast info")
def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Show versions, cores, BLAS, threading layer, and CUDA or why not."""
    with one_clear_line():
        from ._environment import environment

        facts = environment()
        if as_json:
            typer.echo(json.dumps(facts, indent=2))
            return
        width = max(map(len, facts))
        for name, value in facts.items():
            typer.echo(f"{name:<{width}}  {value}")


@app.command(epilog="Example: qixai-fast warmup")
def warmup() -> None:
    """Compile every kernel into numba's cache, so that first calls are fast."""
    with one_clear_line():
        from ._warmup import warm_up

        let_interrupt()
        for name, seconds in warm_up():
            typer.echo(f"{name:<32} {seconds:6.2f} s")


@app.command(epilog="Example: qixai-fast demo --out qixai-demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for DIR/store and DIR/report.")] = Path("qixai-demo"),
    seed: Annotated[int, typer.Option(help="Seed of training and audit.", min=0)] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train a CNN on handwritten digits, capture its layers, audit them, and leave a report."""
    with one_clear_line("Run the same command again to go on."):
        from .demo import run_demo

        let_interrupt()
        result = run_demo(out, seed=seed, progress=not quiet)
        for line in result.reading:
            typer.echo(line)
        typer.echo(f"\nReport: {result.report.resolve()}")


def _place(text: str | None) -> int | str | None:
    """Where labels or ids stand in a batch: an index where the text is a number, else a key."""
    if text is None:
        return None
    return int(text) if text.lstrip("-").isdigit() else text


def _reductions(texts: list[str]) -> str | dict[str, str]:
    """ "gap", or a reduction by layer from texts such as "lstm=last_token"."""
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    pairs = [text.rpartition("=") for text in texts]
    if not all(equals and layer and reduction for layer, equals, reduction in pairs):
        raise typer.BadParameter("wanted one reduction, or LAYER=REDUCTION for each", param_hint="--reduce")
    return {layer: reduction for layer, _, reduction in pairs}


@app.command(
    epilog="Example: qixai-fast capture store --model qixai_fast.demo:digits_cnn "
    "--inputs qixai_fast.demo:digits_inputs --layers conv1 --layers dense --labels 1"
)
def capture(
    store: Annotated[Path, typer.Argument(help="Folder of the store; new, or one to go on with.")],
    model: Annotated[str, typer.Option(help="module:function that returns a torch.nn.Module.")],
    inputs: Annotated[str, typer.Option(help="module:function that returns an iterable of batches.")],
    layers: Annotated[list[str], typer.Option(help="Module name or pattern; may be given several times.")],
    labels: Annotated[str | None, typer.Option(help="Index or key of the labels in a batch.")] = None,
    sample_ids: Annotated[str | None, typer.Option(help="Index or key of the sample ids in a batch.")] = None,
    reduce: Annotated[list[str] | None, typer.Option(help="Reduction, or LAYER=REDUCTION for each.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="What is stored.")] = Dtype.float32,
    resume: Annotated[bool, typer.Option(help="Go on with a store that is there.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Run a model over data and store what its layers put out."""
    reductions = _reductions(reduce or ["gap"])
    with one_clear_line("Run the same command again to go on."):
        from . import capture as run_capture
        from ._loading import load_object

        let_interrupt()
        captured = run_capture(
            load_object(model, "--model"),
            load_object(inputs, "--inputs"),
            layers,
            store,
            labels=_place(labels),
            sample_ids=_place(sample_ids),
            reduce=reductions,
            dtype=dtype.value,
            resume=resume,
            progress=not quiet,
        )
        typer.echo(f"{captured.n_samples} samples in {store}")
        for name, layer in captured.items():
            typer.echo(f"  {name}  {layer.shape}  {layer.dtype}  {captured.info[name].reduction}")


@app.command(epilog="Example: qixai-fast audit qixai-demo/store --out report")
def audit(
    store: Annotated[str, typer.Argument(help="Folder of the store, or a URL such as s3://bucket/store.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html, results.json, arrays and figures.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what each stage would take; nothing is computed.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="module:function of the model, for attributions.")] = None,
    inputs: Annotated[
        str | None,
        typer.Option(help="module:function of the inputs (a tensor, or batches), for attributions."),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="TOML file with fields of AuditPlan, such as a report's plan.toml."),
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="Layer to audit; may be given several times.")
    ] = None,
    n_permutations: Annotated[
        int | None, typer.Option(help="Random pairings behind p-values.", min=1)
    ] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Memory of the whole process, such as 2GB: Python and libraries count.")
    ] = None,
    n_jobs: Annotated[int | None, typer.Option(help="Threads; all cores where not given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all that is random; 0 by default.", min=0)] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Dask cluster to work on, such as tcp://HOST:PORT; its workers read the store."),
    ] = None,
    scheduler_file: Annotated[
        Path | None, typer.Option(help="The same, by the file that dask scheduler --scheduler-file wrote.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Audit a store: spectra, similarity, entanglement, labels, attributions, and one report.

    Options go before what the plan file says.
    """
    if (model is None) != (inputs is None):
        raise typer.BadParameter("--model and --inputs go together", param_hint="--model")
    if out is None and not dry_run:
        raise typer.BadParameter("wanted a folder, unless it is a --dry-run", param_hint="--out")
    with one_clear_line("What was finished is kept: run the same command again to go on."):
        from . import AuditPlan, open_store
        from . import audit as run_audit
        from ._loading import load_object
        from .auditing import costs, memory, planning
        from .auditing.dask import connected
        from .auditing.plan_file import read_plan

        let_interrupt()
        given = {
            "layers": layers,
            "n_permutations": n_permutations,
            "max_memory": max_memory,
            "n_jobs": n_jobs,
            "random_state": seed,
        }
        chosen = replace(
            AuditPlan() if plan is None else read_plan(plan),
            **{name: value for name, value in given.items() if value is not None},
        )
        opened = open_store(store)
        loaded = {} if model is None or dry_run else {
            "model": load_object(model, "--model"), "inputs": load_object(str(inputs), "--inputs")
        }  # fmt: skip
        with memory.of_the_process(chosen.max_memory) as budget:
            chosen = replace(chosen, max_memory=budget)
            if dry_run:
                planned = planning.dry_run(opened, out, plan=chosen, attributions=model is not None)
                typer.echo(costs.table(planned))
                typer.echo(f"\nabout {costs.seconds_text(costs.total_seconds(planned))} in all")
                return
            with connected(scheduler, scheduler_file) as client:
                report = run_audit(opened, out, plan=chosen, client=client, progress=not quiet, **loaded)
        for line in report.reading:
            typer.echo(line)
        for warning in report.warnings:
            typer.echo(f"warning: {warning['text']} {warning['what_to_do']}")
        typer.echo(f"\nReport: {report.html.resolve()}")


@app.command(epilog="Example: qixai-fast verify qixai-demo/store")
def verify(
    store: Annotated[str, typer.Argument(help="Folder of the store, or a URL such as s3://bucket/store.")],
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Read all data of a store and compare it with its checksums."""
    with one_clear_line():
        from . import open_store

        let_interrupt()
        opened = open_store(store)
        problems = opened.verify(progress=not quiet)
        for problem in problems:
            typer.echo(f"error: {problem}", err=True)
        if problems:
            raise typer.Exit(DATA_IS_BAD)
        typer.echo(f"{store}: {opened.n_samples} samples of {len(opened)} layers, all checksums right")


@app.command(epilog="Example: qixai-fast compare report-epoch1 report-epoch9")
def compare(
    before: Annotated[Path, typer.Argument(help="Folder of the first report.", metavar="REPORT_A")],
    after: Annotated[Path, typer.Argument(help="Folder of the second report.", metavar="REPORT_B")],
    top: Annotated[int, typer.Option(help="Gained and lost pairs listed for two layers.", min=0)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what changed between two audits of the same layers: two checkpoints of a model."""
    with one_clear_line():
        from .auditing.comparing import compare_reports
        from .auditing.reading import read_report
        from .auditing.report.comparison_text import comparison_text

        let_interrupt()
        found = compare_reports(*read_report(before), *read_report(after), n_top=top)
        typer.echo(json.dumps(found, indent=1) if as_json else comparison_text(found))


@app.command(
    epilog="Example: qixai-fast bench --store qixai-demo/store --out bench",
    context_settings={"allow_extra_args": True},  # for a word on where a store goes
)
def bench(
    context: typer.Context,
    store: Annotated[
        str | None,
        typer.Option(help="Folder of a store, or a URL: your own activations. Else data with known truth."),
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="Layer of the store; may be given several times.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Samples drawn of the store; at most 10,000 where not given.", min=1)
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            help="About how long it may take, 10 to 20 at least; more means larger data and more rounds.",
            min=1,
        ),
    ] = 60.0,
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json, bench.md and bench.png.")] = None,
    jobs: Annotated[
        int, typer.Option(help="Threads, of ours and of peers where one call can use several.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.", min=0)] = 0,
    max_memory: Annotated[
        str | None,
        typer.Option(help="Memory for the store's sample and the tools' copies of it; 1GB where not given."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, and the reading without tables.")
    ] = False,
) -> None:
    """Show which estimator is fast and which is right, beside the tools that are installed."""
    if context.args:
        raise typer.BadParameter(f"wanted --store {context.args[0]}", param_hint="--store")
    if store is None and (layers or samples is not None or max_memory is not None):
        raise typer.BadParameter("--layers, --samples and --max-memory are of a store", param_hint="--store")
    with one_clear_line("Nothing was written.", _BENCH_OPTIONS):
        from ._threads import resolve_n_jobs
        from .benching import run_bench
        from .benching.text import case_lines, closing_lines

        let_interrupt()
        n_jobs = resolve_n_jobs(jobs)

        def tell(what: str, case: dict[str, Any] | None) -> None:
            if case is None:
                typer.echo(f"{what} ...", err=True)
            else:
                typer.echo("\n".join(case_lines(case, n_jobs)) + "\n")

        content = run_bench(
            store,
            out,
            layers=layers,
            n_samples=samples,
            seconds=seconds,
            n_jobs=n_jobs,
            random_state=seed,
            max_memory="1GB" if max_memory is None else max_memory,
            tell=None if quiet else tell,
        )
        typer.echo("\n".join(closing_lines(content)))
        if out is not None:
            typer.echo(f"\nWritten: {out / 'bench.md'}, with bench.json and bench.png")
