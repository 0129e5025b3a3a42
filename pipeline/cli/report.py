"""The command that shows what a curation kept, and what is in it: report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmill.pipeline.cli.arguments import Folder, JsonFlag, console, print_json
from vlmill.pipeline.core.errors import VlmillError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmill.pipeline.reports.sections import ContaminationSection, CurationReport, FunnelSection
    from vlmill.pipeline.reports.signals import SignalCounts

EXAMPLES = 20


def report(
    directory: Folder,
    section: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One section only: funnel, overlap, contamination or signals. Default: all."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="S", help="One source only, with the reasons of its losses. Default: all.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="R", help="Show examples of losses with this reason, in place of sections.")
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Examples to show with --reason (default: 20), or with --section contamination for each line (none).",
        ),
    ] = None,
    as_json: JsonFlag = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Write one page: all sections, with images and texts of losses."
        ),
    ] = None,
) -> None:
    """Report on a curation: what was kept, why the rest was lost, what sources share, which benchmarks they hold.

        funnel         in = kept + dropped + failed, with the reasons of losses
        overlap        what of one source is in another or repeats, before dedupe
        contamination  which items of benchmarks the training data holds
        signals        what models say, by source, with bounds of thresholds

    Percentages are of what came in. Examples are chosen by a hash of their ids, so they are the same every time. What
    has an id in its input file is shown with it, as `upstream id`. A row or page of which no sample could be made is
    shown with the message and its first characters.

        vlmill report demo
        vlmill report demo --source web
        vlmill report demo --source web --reason near_text --examples 5
        vlmill report demo --section overlap
        vlmill report demo --section contamination --examples 5
        vlmill report demo --html report.html
    """
    from vlmill.pipeline.reports.sections import read_report

    if html is not None and (reason or section or as_json):
        raise VlmillError("--html writes a page of all sections and reasons; leave out --section, --reason and --json")
    if reason is not None and section not in {None, "funnel"}:
        raise VlmillError(f"--reason shows losses of the funnel; leave out --section {section}")
    if examples is not None and not reason and section != "contamination":
        raise VlmillError("--examples: give --reason R or --section contamination too, which it is the number of")
    if html is not None:
        _write_page(directory, source, html)
    elif reason is not None:
        _print_losses(directory, source, reason, examples or EXAMPLES, as_json=as_json)
    elif as_json:
        print_json(read_report(directory, section, source, examples or 0).to_json())
    else:
        _print_sections(directory, read_report(directory, section, source, examples or 0))


def _print_sections(directory: Path, found: CurationReport) -> None:
    from vlmill.pipeline.reports.overlap import make_overlap_table

    if found.funnel is not None:
        _print_funnel(directory, found.funnel)
    if found.overlap is not None:
        _print_heading("Overlap", "images and texts of one source that another has too, before dedupe dropped any")
        if any(pair.near for pair in found.overlap):
            console.print(make_overlap_table(found.overlap))
        else:
            console.print("nothing is in two sources, and nothing repeats within one")
        for line in found.uncompared or ():
            console.print(line, markup=False)
    if found.contamination is not None:
        _print_contamination(found.contamination)
    if found.signals is not None:
        _print_signals(found, found.signals)
    for name, why in (found.missing or {}).items():
        console.print(f"\nno {name}: {why}", markup=False)


def _print_funnel(directory: Path, section: FunnelSection) -> None:
    from vlmill.pipeline.reports.funnel import make_funnel_tables
    from vlmill.pipeline.reports.sections import format_funnel_notes

    _print_heading("Funnel", "in = kept + dropped + failed")
    for table in make_funnel_tables(directory, section.counts, console.width):
        console.print(table)
    for line in format_funnel_notes(section):
        console.print(line, markup=False)
    reasons = "Reasons of one source: --source SOURCE. " if len(section.counts) > 1 else ""
    console.print(f"{reasons}Examples: vlmill report {directory} --reason REASON. A page: --html FILE", markup=False)


def _print_signals(found: CurationReport, signals: Sequence[SignalCounts]) -> None:
    from vlmill.pipeline.reports.asked import make_asked_table
    from vlmill.pipeline.reports.signals import make_signal_table

    _print_heading("Signals", "what models say of images and texts, and what the threshold keeps")
    console.print(make_signal_table(signals))
    for line in found.silent or ():
        console.print(line, markup=False)
    if found.asked:
        console.print(make_asked_table(found.asked))


def _print_contamination(section: ContaminationSection) -> None:
    from vlmill.pipeline.reports.contamination import format_examples, make_contamination_table

    action = {"report": "kept (action: report)", "drop": "dropped (action: drop)"}[section.found.action]
    _print_heading(
        "Contamination", f"benchmark items in the training data, by image and by text; what is found is {action}"
    )
    console.print(make_contamination_table(section.found))
    for line in (*section.warnings, *format_examples(section.found)):
        console.print(line, markup=False)


def _print_heading(name: str, about: str) -> None:
    console.print(f"\n[bold]{name}[/]: {about}")


def _write_page(directory: Path, source: str | None, file: Path) -> None:
    """Make the page before its file is opened, so that a failure leaves an earlier page as it was."""
    from vlmill.api.runs import open_run
    from vlmill.pipeline.core.files import write_atomically

    write_atomically(file, open_run(directory).render_report_page(source))
    console.print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB); open it in a browser")


def _print_losses(directory: Path, source: str | None, reason: str, number: int, *, as_json: bool) -> None:
    """Show examples of losses with one reason."""
    from vlmill.pipeline.core.excerpt import escape_text
    from vlmill.pipeline.reports.causes import CAUSES
    from vlmill.pipeline.reports.funnel import (
        count_causes,
        loss_to_json,
        read_row_losses,
        sample_losses,
        select_funnel,
    )

    funnel = select_funnel(directory, source, reason)
    rows, found = read_row_losses(directory, funnel, reason), sample_losses(directory, funnel, reason, number)
    causes = count_causes(directory, funnel, reason) if rows else []
    if as_json:
        lost = {
            level: {partition: pair[place] for partition, pair in rows.items()}
            for place, level in enumerate(("rows", "pages"))
        }
        print_json(
            {**lost, "causes": [asdict(one) for one in causes], "examples": [loss_to_json(loss) for loss in found]}
        )
        return
    for partition, (whole, pages) in rows.items():
        in_all = f"; {pages:,} pages in all" if pages != whole else ""
        console.print(f"{partition}: {whole:,} rows of which no sample was made{in_all}", markup=False)
    for one in causes[:CAUSES] if len(causes) > 1 else ():
        console.print(f"    {one.number:,} as {one.first}: {one.message}", markup=False)
    if len(causes) > CAUSES:
        console.print(f"    and {len(causes) - CAUSES:,} other causes", markup=False)
    for loss in found:
        own = f", upstream id {escape_text(loss.upstream_id)}" if loss.upstream_id else ""
        measured = f", {loss.filter} {loss.score:.4g}" if loss.filter and loss.score is not None else ""
        because = f", because of {loss.other}" if loss.other else ""
        console.print(f"{loss.id} ({loss.where}{own}{measured}{because})", markup=False, soft_wrap=True)
        for words in (loss.detail, loss.url, " ".join(loss.text.split())):
            if words:
                console.print(f"    {words}", markup=False)
