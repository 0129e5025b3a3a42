"""The command that removes things from a run for good: takedown."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmill.pipeline.cli.arguments import (
    FilterFiles,
    Folder,
    JsonFlag,
    TrustCode,
    console,
    get_command,
    print_json,
)
from vlmill.pipeline.core.shown import describe_more
from vlmill.pipeline.core.terminal import make_console

if TYPE_CHECKING:
    from vlmill.api.takedown import Takedown
    from vlmill.pipeline.reports.takedown_forecast import Forecast

SHOWN = 10
"""Lines of a list that are printed; --json has all of them."""

UNADDRESSED = (
    "that is no address, and names only what rows name just so: a picture wherever it stands is named by --sha256, a "
    "sample by --id (vlmill trace DIR ID shows both)"
)
"""What to do about a path that nothing is called."""


def takedown(
    context: typer.Context,
    directory: Folder,
    url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="An image's address, or a document's, with the images that only it shows."),
    ] = None,
    sha256: Annotated[
        list[str] | None, typer.Option(metavar="HEX", help="An image, by the sha256 of its original bytes.")
    ] = None,
    id_: Annotated[
        list[str] | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="A sample, as `trace` takes it: by its id here or that of its row in the input file; with exact "
            "copies of its images and of its document's text.",
        ),
    ] = None,
    row_id: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="All samples and lost rows whose rows have this id in an input file, in every source; as --id.",
        ),
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="Images and documents of a host and its sub-domains.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and change nothing.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Worker processes; 0: all in this process. Default: one per core, and none for a small run.",
        ),
    ] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Join a Ray cluster.")] = None,
    filter_: FilterFiles = None,
    trust_code: TrustCode = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove things for good: from tables, shards, mixtures, plans, and every later build in the folder.

    Each option may be given several times. Only the partitions that hold something are made again; what they held is
    deleted from the disk. Custom filters run on them again, so name their files again. The list is DIR/takedowns.yaml.
    Without options an interrupted takedown is finished. A model that was trained before is not changed.

        vlmill takedown run --url http://img.example.org/7.png --dry-run
        vlmill takedown run --domain example.org --domain example.net
        vlmill takedown run --id web/part-0.parquet#12
        vlmill takedown run --row-id TICKET-4711
        vlmill takedown run --sha256 $(sha256sum picture.jpg | cut -d" " -f1)
    """
    from vlmill.api.takedown import list_rows, resolve_ids, take_down
    from vlmill.pipeline.takedown.rules import LIST, parse_rules

    ids = [*resolve_ids(directory, id_ or []), *list_rows(directory, row_id or [])]
    removed = take_down(
        directory,
        parse_rules(url or [], sha256 or [], ids, domain or []),
        dry_run=dry_run,
        workers=workers,
        ray=ray,
        filters=filter_ or [],
        trust_code=trust_code or [],
        console=make_console(stderr=True) if as_json else console,
        announce=None if as_json else partial(_print_forecast, goes="would go" if dry_run else "goes"),
        command=get_command(context),
    )
    if as_json:
        print_json(_make_json(removed.forecast) | ({"stages": dict(removed.stages)} if removed.done else {}))
    elif dry_run:
        console.print("nothing was changed")
    else:
        console.print(f"taken down, and kept out by {directory / LIST}. Next: vlmill verify {directory}")
        for stage, trained in removed.stages.items():
            anew = f"delete {directory / 'train' / stage}, then vlmill train {directory} --stage {stage}"
            console.print(
                f"stage {stage}: the plan changed"
                + (f". It was trained on the earlier one, and that model is not changed: {anew}" if trained else "")
            )


def _print_forecast(announced: Takedown, goes: str) -> None:
    """Print what is removed and what stays."""
    from vlmill.pipeline.takedown.marks import list_placed

    found = announced.forecast
    console.print(
        f"{goes}: {len(found.samples):,} samples, {len(found.images):,} images, which {len(found.losing):,} other "
        f"samples show; {sum(effect.rebuilt for effect in found.effects):,} partitions and {len(found.shards):,} "
        "shards are made again"
    )
    if found.never_had:
        console.print(
            f"with the addresses of {len(found.never_had):,} images that could not be fetched, so that no retry "
            "requests them"
        )
    if found.refused:
        console.print(f"with the message and the beginning of {len(found.refused):,} rows of which no sample was made:")
        _print_lines(f"{name} ({rule})" for name, rule in sorted(found.refused.items()))
    _print_lines(f"{name} ({rule})" for name, rule in sorted(found.samples.items()))
    _print_lines(f"image {digest[:12]} ({rule})" for digest, rule in sorted(found.images.items()))
    matched = {*found.samples.values(), *found.images.values(), *found.never_had, *found.refused.values()}
    for rule in announced.new:
        if rule not in matched:
            console.print(f"nothing here falls under {rule}; the list keeps it out of later builds", markup=False)
            if rule.startswith("url ") and "://" not in rule:
                console.print(UNADDRESSED, markup=False, soft_wrap=True)
    here = {*found.samples, *found.refused}
    if placed := [name for name in list_placed(found.rules.ids, found.rules.rows) if name in here]:
        console.print(
            f"{len(placed):,} of these have no id of their own in the input file, so they are known by their place: "
            "another row that moves into it later stays out as well. Where you take one out of the input file, leave a "
            "row without content there",
            soft_wrap=True,
        )
        _print_lines(iter(placed))
    if found.near:
        console.print(f"{len(found.near):,} samples were dropped as duplicates of what is removed, and may come back:")
        _print_lines(
            f"{name} ({verdict.reason} {verdict.score:.4g} of {verdict.other})" for name, verdict in found.near
        )
    if found.copies:
        console.print(f"{len(found.copies):,} of the images are at other addresses too, and stay there unless you add:")
        _print_lines(f"--sha256 {digest}" for digest in found.copies)


def _print_lines(lines: Any) -> None:
    for line in islice(lines, SHOWN):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if more := describe_more(sum(1 for _ in lines), "line"):
        console.print(f" {more}; --json has all")


def _make_json(found: Forecast) -> dict[str, Any]:
    return {
        "samples": found.samples,
        "images": found.images,
        "losing": found.losing,
        "never_had": found.never_had,
        "refused": found.refused,
        "partitions": [effect.place for effect in found.effects],
        "shards": found.shards,
        "near": [
            {"id": name, "reason": str(verdict.reason), "score": verdict.score, "of": verdict.other}
            for name, verdict in found.near
        ],
        "copies": found.copies,
    }
