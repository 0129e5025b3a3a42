"""Commands that show a run and change nothing: status, stats, trace, verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmill.pipeline.cli.arguments import Folder, JsonFlag, console, print_json
from vlmill.pipeline.core.errors import NotBuiltError, RecipeError
from vlmill.pipeline.core.shown import describe_more


def status(directory: Folder, as_json: JsonFlag = False) -> None:
    """Show how far a run is: the tasks of each step that are done and that are missing, and how much was kept.

    Only steps that were begun are shown. The same build command does the tasks that are missing. `vlmill report` says
    why the rest was lost. Where images are fetched, the hosts that failed most often are named, and how often; all of
    them with `--json`.
    """
    from vlmill.pipeline.reports.status import read_status

    found = read_status(directory)
    if as_json:
        print_json(asdict(found))
        return
    for part in found.list_parts(f". Why the rest was lost: vlmill report {directory}"):
        console.print(part, markup=not isinstance(part, str), highlight=False)


def stats(
    directory: Folder,
    stage: Annotated[str | None, typer.Option(help="One stage only. Default: all.")] = None,
    as_json: JsonFlag = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Write a page for a browser: the same, with plots and searchable samples.",
        ),
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Say how long so many ranks would wait for each other in a step of the training. Default: those that "
            "the recipe names (train.ranks).",
        ),
    ] = None,
) -> None:
    """Show what the mixtures hold: declared and realised shares, samples, images, tokens, packing, losses.

    Shares are in the mixture's unit, epochs are passes over a source.
    --html writes one file that needs no network: plots, samples as the trainer sees them, search.

        vlmill stats demo
        vlmill stats demo --html demo.html
        vlmill stats run --ranks 64
    """
    from vlmill.mixtures.report.stats import make_schedule_table, make_stats_table
    from vlmill.mixtures.steps.repetition import summarise_repetition
    from vlmill.pipeline.recipe.lock import read_locked_recipe
    from vlmill.pipeline.reports.signals import list_silent_signals
    from vlmill.train.loss_shares import read_weighted_stats

    if html is not None:  # which shows samples and losses of a run without stages as well
        _write_page(directory, stage, html)
        return
    found = read_weighted_stats(directory, stage)
    for warning in () if as_json else list_silent_signals(directory, read_locked_recipe(directory)):
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    if not found:
        raise NotBuiltError(
            f"{directory} has no stages, so it has no mixtures; see what was kept with: vlmill status {directory}"
        )
    balance = _measure_imbalance(directory, list(found), ranks)
    if as_json:
        print_json({name: stats | balance.get(name, {}) for name, stats in found.items()})
        return
    for name, stats_of_stage in found.items():
        console.print(make_stats_table(stats_of_stage, console.width))
        if "schedule" in stats_of_stage:
            console.print(make_schedule_table(stats_of_stage))
        console.print(summarise_repetition(stats_of_stage["repetition"]))
        if name in balance:
            console.print(balance[name]["imbalance"]["said"], markup=False, soft_wrap=True)


def _measure_imbalance(directory: Path, stages: list[str], ranks: int | None) -> dict[str, Any]:
    """By stage how its steps are dealt over ranks: those that are given, or that the recipe names."""
    from vlmill.api.runs import open_run
    from vlmill.pipeline.recipe.lock import read_locked_recipe

    trained = {stage.name: stage.train for stage in read_locked_recipe(directory).stages if stage.train}
    wanted = {name: ranks or trained[name].get("ranks") for name in stages if name in trained}
    run = open_run(directory)
    found = {name: run.stage(name).measure_imbalance(number) for name, number in wanted.items() if number}
    return {name: {"imbalance": asdict(one) | {"said": str(one)}} for name, one in found.items()}


def _write_page(directory: Path, stage: str | None, file: Path) -> None:
    """Make the page before its file is opened, so that a failure leaves an earlier page as it was."""
    from vlmill.api.runs import open_run
    from vlmill.pipeline.core.files import write_atomically

    write_atomically(file, open_run(directory).render_stats_page(stage))
    console.print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB); open it in a browser")


def trace(
    directory: Folder,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="A sample id such as web/part-0.parquet#12, the id of its row, or SHARD.tar:KEY."
        ),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(min=0, help="List the samples that this training step sees, in place of following one sample."),
    ] = None,
    stage: Annotated[str | None, typer.Option(help="The stage of --step; needed where there are several.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Follow a sample or shard member back to its input file, with its verdicts and the steps that see it.

    For a row or page of which no sample was made, it shows the reason and the row's first characters.

    With --step it lists every sample that a training step sees, with image addresses.

        vlmill trace demo web/part-0.parquet#12
        vlmill trace demo my-row-0042                # the `id` of a row in its input file
        vlmill trace demo shards/quiz/small/00000-0000.1f0c53b9a1de.00.tar:000000000000004
        vlmill trace demo --stage align --step 40
    """
    from vlmill.pipeline.reports.refused import describe_refused
    from vlmill.pipeline.reports.trace import find_id, format_trace, trace_refused
    from vlmill.pipeline.reports.trace import trace_sample as traced

    if (name is None) == (step is None):
        raise RecipeError("trace: give either the id of a sample, or --step and a number")
    if step is not None:
        _print_seen(directory, stage, step, as_json=as_json)
        return
    sample = str(find_id(directory, str(name)))
    if as_json:
        print_json(_trace_to_json(directory, sample))
        return
    if lost := trace_refused(directory, sample):
        for line in describe_refused(lost):
            console.print(line, markup=False, soft_wrap=True)
        return
    found = traced(directory, sample)
    for line in format_trace(found):
        console.print(line, markup=False)
    if not found.taken_down:  # today's plans do not say what earlier ones held
        _print_uses(directory, str(found.sample.id), str(found.outcome.sample or ""))


def _trace_to_json(directory: Path, name: str) -> dict[str, Any]:
    """A sample with the training steps that see it, or the rows and pages of this id that were refused."""
    from vlmill.api.runs import open_run
    from vlmill.pipeline.reports.trace import trace_to_json

    run = open_run(directory)
    if refused := run.trace_refused(name):
        return {"refused": [{**asdict(one), "id": str(one.id)} for one in refused]}
    found = run.trace(name)
    uses = {} if found.taken_down or found.outcome.sample else run.find_uses(str(found.sample.id))
    steps = {stage.name: uses[stage.name].steps for stage in run.recipe.stages if stage.train and stage.name in uses}
    return {**trace_to_json(found), "steps": steps, "stages": {name: asdict(use) for name, use in uses.items()}}


def _print_seen(directory: Path, stage: str | None, step: int, *, as_json: bool) -> None:
    """List what a training step sees."""
    from vlmill.pipeline.core.terminal import make_console
    from vlmill.pipeline.recipe.lock import read_locked_recipe
    from vlmill.train.trace import list_seen

    for one in read_locked_recipe(directory).stages:
        if stage in (None, one.name) and (said := _tell_outdated(directory, one.name)):
            make_console(stderr=True).print(f"note: stage {one.name}{said}", markup=False, soft_wrap=True)
    if as_json:
        print_json([asdict(segment) for segment in list_seen(directory, stage, step)])
        return
    for segment in list_seen(directory, stage, step):
        nodes = f"nodes {segment.first} to {'the end' if segment.last is None else segment.last - 1}"
        nodes += f", from token {segment.begin} of the first" if segment.begin else ""
        nodes += f", to token {segment.end} of the last" if segment.end >= 0 else ""
        console.print(
            f"sequence {segment.sequence}: {segment.id}, {nodes}, {segment.tokens} tokens {segment.url}".rstrip(),
            markup=False,
        )
        for url, sha256 in segment.images:
            console.print(f"    image {sha256[:12]} {url}".rstrip(), markup=False)


def _print_uses(directory: Path, sample: str, lost: str) -> None:
    """What each stage makes of a sample, or why nothing. `lost` is the reason for which it was not kept."""
    from vlmill.api.runs import open_run

    run = open_run(directory)
    uses = {} if lost else run.find_uses(sample)
    for stage in run.recipe.stages:
        use = uses.get(stage.name)
        if use is None:
            said = f"no step sees it: it was lost before: {lost}" if lost else "not mixed yet; the build makes it"
        elif use.steps:
            said = f"steps {_list_numbers(use.steps, 'step')}"
        elif use.sequences and not stage.train:
            said = f"packed sequences {_list_numbers(use.sequences, 'sequence')} ({use.why})"
        else:
            said = f"{'no step sees it' if stage.train else 'not in its plan'}: {use.why}"
        if use and use.left:
            said += f"; no sequence holds its nodes {_list_ranges(use.left)}"
        console.print(
            f"  stage {stage.name}: {said}{_tell_outdated(directory, stage.name)}", markup=False, soft_wrap=True
        )


def _tell_outdated(directory: Path, stage: str) -> str:
    """That the model of a stage saw another plan than the one that is told of; nothing where it saw this one."""
    from vlmill.train.validate import describe_outdated_training

    said = describe_outdated_training(directory, stage)
    return f"; of today's plan: {said}" if said else ""


def _list_ranges(numbers: list[int]) -> str:
    """Numbers in order, those behind one another as a range: 0, 4 to 7."""
    held = {*numbers}
    begins = [number for number in numbers if number - 1 not in held]
    ends = [number for number in numbers if number + 1 not in held]
    pairs = [f"{first} to {last}" if first < last else str(first) for first, last in zip(begins, ends, strict=True)]
    return ", ".join(pairs[:10]) + describe_more(len(pairs) - 10, "range")


def _list_numbers(numbers: list[int], what: str) -> str:
    return ", ".join(map(str, numbers[:20])) + describe_more(len(numbers) - 20, what)


def verify(
    directory: Folder,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Worker processes; 0 runs everything in this process. Default: one per core in a large run."
        ),
    ] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Join a Ray cluster.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check every sha256, every count and every lock of a run. Ends with 1 if one does not hold.

    Of a run that is not built to its end it checks what is there, and says what is not built yet.
    """
    from vlmill.api.runs import open_run
    from vlmill.pipeline.core.terminal import make_console
    from vlmill.pipeline.recipe.lock import UNBUILT
    from vlmill.pipeline.reports.verify import list_unfinished

    promises = open_run(directory).verify(workers, ray, console=make_console(stderr=True))
    if as_json:
        print_json(promises)
        raise typer.Exit(1 if promises else 0)
    for line in promises:
        console.print(line, markup=False)
    if promises:
        begun = (directory / UNBUILT).exists()
        remedy = (
            "A change of this run has not come to its end: first let it go on, as the warning says, and verify again."
            if begun
            else "Delete the receipts of the damaged files and build again: sound files are kept."
        )
        console.print(f"{len(promises)} broken. {remedy}")
        raise typer.Exit(1)
    if left := "; ".join(list_unfinished(directory)):
        console.print(
            f"what is built of {directory} is sound: every file, count and lock is as its receipts say. Not built yet: "
            f"{left}; the build goes on with: vlmill build RECIPE --out {directory}",
            markup=False,
        )
        return
    console.print(f"{directory} is sound: every file, count and lock is as its receipts say")
