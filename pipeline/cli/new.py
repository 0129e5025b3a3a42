"""The command that looks at data and writes a first recipe for it: new."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmill.pipeline.cli.arguments import JsonFlag, console, print_json
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.files import write_atomically

if TYPE_CHECKING:
    from vlmill.pipeline.proposal.proposal import Proposal


def new(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Files, folders, addresses that fsspec reads, or hf://datasets/OWNER/NAME: each is a source.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The recipe to write. Default: the data's names with .yaml, in this folder.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=COLUMN",
            help="What a column holds, where its name does not say it: image, caption, ocr, ocr_boxes, question, "
            "answer, choices, turns, system, id (of the row), licence or signals (numbers that travel along); of "
            "turns, the key that names the speaker (speaker), the text (said) or images (turn_image); of web "
            "documents, the lists texts and images, and url and id. Dotted keys lead into objects: turns=talk.turns. "
            "May be given several times; for one PATH.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look at data, say what they are, and write a recipe for them, commented line by line.

    It reads rows of several files: of the first, and of others from all over the list, always the same ones. Each row
    shape that vlmill knows is tried on them, and the one that makes samples of the most rows is taken; else columns are
    recognised by what they are called and hold, or as --column says. Where files differ it says so. A folder of
    pictures with a .txt or .json file each becomes a list of both beside the recipe, and so do folders that hold rows
    and their pictures each.
    Files of a test or validation split are left out where others are of train. Nothing is overwritten.
    Of several paths, each becomes a source of one recipe, whose mixture has them in proportion to their samples.

        vlmill new photos/
        vlmill new talks/ quiz.parquet
        vlmill new answers.csv --out mine.yaml
        vlmill new survey.csv --column question=said_by_a --column answer=said_by_b
        vlmill new delivery.jsonl --column turns=talk.turns --column speaker=by
        vlmill new crawl.parquet --column texts=body --column images=pictures --column url=page
        vlmill new hf://datasets/HuggingFaceM4/WebSight
        vlmill build mine.yaml --out run && vlmill train run
    """
    from vlmill.pipeline.proposal.recipe_text import name_recipe
    from vlmill.pipeline.proposal.table import explain_nothing, make_proposal_table

    proposals, faults = _examine_places(places, column or [])
    name = name_recipe([found.name for found in proposals])
    path = out or Path(f"{name}.yaml")
    if as_json:
        told = [_describe_proposal(found, path) for found in proposals]
        print_json(told[0] if len(places) == 1 else {"places": told, "recipe": str(path)})
    else:
        for found in proposals:
            if len(proposals) > 1:
                console.print(f"source {found.name}: {found.place}", markup=False, soft_wrap=True)
            console.print(make_proposal_table(found))
    faults |= {found.place: explain_nothing(found) for found in proposals if found.chosen is None}
    if faults:
        read = [place for place in places if place not in faults]
        others = f"the others can be read: vlmill new {' '.join(map(shlex.quote, read))}"
        raise SourceError("\n".join([*faults.values(), *([others] if read else [])]))
    listings = _write_recipe(proposals, path)
    if as_json:
        return
    for found in proposals:
        if len(proposals) > 1:
            console.print(f"source {found.name}: {found.place}", markup=False, soft_wrap=True)
        _print_samples(found)
    for listing in listings:
        console.print(f"wrote {listing}, a list of pictures and texts", markup=False)
    console.print(
        f"wrote {path}. Next: vlmill check {path}, vlmill build {path}, vlmill train build/{name}", markup=False
    )


def _examine_places(places: list[str], column: list[str]) -> tuple[list[Proposal], dict[str, str]]:
    """What is in each of these places, under a name of its own; and of those that cannot be read why."""
    from vlmill.pipeline.proposal.proposal import examine_place

    if column and len(places) > 1:
        raise SourceError("--column is for one path: look at that path alone, and move its source into the recipe")
    found: list[Proposal] = []
    faults = dict[str, str]()
    for place in places:
        try:
            found.append(examine_place(place, _read_columns(column) or None, [one.name for one in found]))
        except SourceError as error:
            if len(places) == 1:
                raise
            faults[place] = str(error)
    return found, faults


def _print_samples(found: Proposal) -> None:
    """Samples of a place, and what a person should know of it."""
    from vlmill.pipeline.proposal.table import list_samples

    for line in list_samples(found.chosen) if found.chosen else ():
        console.print(line, markup=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)


def _write_recipe(proposals: list[Proposal], path: Path) -> list[Path]:
    """Write the recipe, and the lists that sources of it read; these are returned. Nothing is overwritten."""
    from vlmill.pipeline.proposal.recipe_text import write_recipe

    listings = {path.parent / found.files: found.listed for found in proposals if found.listed}
    for one in (path, *listings):
        if one.exists():
            raise SourceError(f"{one} is there already; name another file with --out, or remove it")
    for listing, rows in listings.items():
        write_atomically(listing, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_atomically(path, write_recipe([(found, found.chosen) for found in proposals if found.chosen], path))
    return [*listings]


def _read_columns(given: list[str]) -> dict[str, list[str]]:
    """Roles and their columns, in the order in which they are given."""
    named = dict[str, list[str]]()
    for item in given:
        role, _, name = item.partition("=")
        named.setdefault(role, []).append(name)
    return named


def _describe_proposal(found: Proposal, path: Path) -> dict[str, Any]:
    """What was found, for machines."""
    chosen = found.chosen
    return {
        "place": found.place,
        "files": {suffix: {"files": count, "bytes": size} for suffix, (count, size) in found.suffixes.items()},
        "columns": dict(found.columns),
        "kind": chosen.kind if chosen else None,
        "options": dict(chosen.options) if chosen else {},
        "samples_of_rows": [len(chosen.pages), chosen.tried] if chosen else [0, 0],
        "files_looked_at": list(chosen.files) if chosen else [0, 0],
        "notes": list(found.notes),
        "recipe": str(path),
    }
