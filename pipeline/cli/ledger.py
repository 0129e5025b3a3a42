"""The command that prints the funnel: ledger."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from vlmill.pipeline.cli.arguments import Folder, JsonFlag, console, print_json
from vlmill.pipeline.core.errors import VlmillError

EXAMPLES = 20


def ledger(
    directory: Folder,
    source: Annotated[str | None, typer.Option(metavar="S", help="One source only. Default: all.")] = None,
    reason: Annotated[str | None, typer.Option(metavar="R", help="Show examples of losses with this reason.")] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Examples to show with --reason. Default: 20.")
    ] = None,
    as_json: JsonFlag = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Write one page with the funnel, and images and texts of losses."
        ),
    ] = None,
) -> None:
    """Show the funnel: in = kept + dropped + failed, of rows, samples, nodes, images, with the reason of each loss.

    Percentages are of what came in. Examples are chosen by a hash of their ids, so they are the same every time. A row
    or page of which no sample could be made is shown with the message and its first characters.

        vlmill ledger demo
        vlmill ledger demo --source web --reason near_text --samples 5
        vlmill ledger demo --reason bad_row
        vlmill ledger demo --html ledger.html
    """
    from vlmill.pipeline.reports.ledger import count_lost_pages, find_steps_by_reason, make_tables, select_funnel

    if html is not None and (reason or as_json):
        raise VlmillError("--html writes a page of all reasons; leave out --reason and --json")
    if samples is not None and not reason:
        raise VlmillError("--samples is the number of examples of a reason; give --reason too")
    funnel = select_funnel(directory, source, reason)
    if html is not None:
        _write_page(directory, funnel, html)
    elif reason is not None:
        _print_examples(directory, funnel, reason, samples or EXAMPLES, as_json=as_json)
    elif as_json:
        pages = {name: lost for name in funnel if (lost := count_lost_pages(directory, name))}
        print_json(
            {
                "funnel": funnel,
                "pages": pages,
                "said_by": {name: find_steps_by_reason(directory, name) for name in funnel},
            }
        )
    else:
        for table in make_tables(directory, funnel, console.width):
            console.print(table)
        _print_notes(directory, funnel)
        console.print(f"Examples: vlmill ledger {directory} --reason REASON; a page: --html FILE", markup=False)


def _print_notes(directory: Path, sources: Collection[str]) -> None:
    """Print what no table of reasons shows: keys that are not read, and pages that left no sample."""
    from vlmill.pipeline.reports.ledger import count_lost_pages
    from vlmill.pipeline.reports.unread import list_unread_keys

    for line in list_unread_keys(directory):
        if line.source in sources:
            console.print(str(line), markup=False)
    for name in sources:
        if lost := count_lost_pages(directory, name):
            why = ", ".join(f"{reason} {number:,}" for reason, number in lost.items())
            console.print(f"{name}: pages without a sample: {why}", markup=False)


def _write_page(directory: Path, funnel: dict[str, Any], file: Path) -> None:
    """Make the page before its file is opened, so that a failure leaves an earlier page as it was."""
    from vlmill.pipeline.core.files import write_atomically
    from vlmill.pipeline.page.ledger import render_funnel_page

    write_atomically(file, render_funnel_page(directory, funnel))
    console.print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB); open it in a browser")


def _print_examples(directory: Path, funnel: dict[str, Any], reason: str, number: int, *, as_json: bool) -> None:
    """Show examples of losses with one reason."""
    from vlmill.pipeline.reports.ledger import loss_to_json as loss_json
    from vlmill.pipeline.reports.ledger import read_row_losses, sample_losses

    rows, found = read_row_losses(directory, funnel, reason), sample_losses(directory, funnel, reason, number)
    if as_json:
        lost = {
            level: {partition: pair[place] for partition, pair in rows.items()}
            for place, level in enumerate(("rows", "pages"))
        }
        print_json({**lost, "examples": [loss_json(loss) for loss in found]})
        return
    for partition, (whole, pages) in rows.items():
        in_all = f"; {pages:,} pages in all" if pages != whole else ""
        console.print(f"{partition}: {whole:,} rows of which no sample was made{in_all}", markup=False)
    for loss in found:
        said = f", {loss.filter} {loss.score:.4g}" if loss.filter and loss.score is not None else ""
        because = f", because of {loss.other}" if loss.other else ""
        console.print(f"{loss.id} ({loss.where}{said}{because})", markup=False, soft_wrap=True)
        for words in (loss.detail, loss.url, " ".join(loss.text.split())):
            if words:
                console.print(f"    {words}", markup=False)
