"""The command that looks at data and writes a first recipe for it: new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmill.pipeline.cli.arguments import JsonFlag, console, print_json
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.files import write_atomically

if TYPE_CHECKING:
    from vlmill.pipeline.proposal.proposal import Proposal


def new(
    place: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="A file, a folder, an address that fsspec reads, or hf://datasets/OWNER/NAME."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The recipe to write. Default: the data's name with .yaml, in this folder.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=COLUMN",
            help="What a column holds, where its name does not say it: image, caption, ocr, question, answer, choices, "
            "turns, licence or signals (numbers that travel along); of turns, the key that names the speaker "
            "(speaker), the text (said) or images (turn_image); of web documents, the lists texts and images, and url. "
            "Dotted keys lead into objects: turns=talk.turns. May be given several times.",
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

        vlmill new photos/
        vlmill new answers.csv --out mine.yaml
        vlmill new survey.csv --column question=said_by_a --column answer=said_by_b
        vlmill new delivery.jsonl --column turns=talk.turns --column speaker=by
        vlmill new crawl.parquet --column texts=body --column images=pictures --column url=page
        vlmill new hf://datasets/HuggingFaceM4/WebSight
        vlmill build mine.yaml --out run && vlmill train run
    """
    from vlmill.pipeline.proposal.proposal import examine_place
    from vlmill.pipeline.proposal.recipe_text import write_recipe
    from vlmill.pipeline.proposal.table import explain_nothing, list_samples, make_proposal_table

    found = examine_place(place, _read_columns(column) if column else None)
    path = out or Path(f"{found.name}.yaml")
    if as_json:
        print_json(_describe_proposal(found, path))
    else:
        console.print(make_proposal_table(found))
    if found.chosen is None:
        raise SourceError(explain_nothing(found))
    listing = path.parent / found.files
    for one in (path, *([listing] if found.listed else [])):
        if one.exists():
            raise SourceError(f"{one} is there already; name another file with --out, or remove it")
    if found.listed:
        write_atomically(listing, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.listed))
    write_atomically(path, write_recipe(found, found.chosen, path))
    if as_json:
        return
    for line in list_samples(found.chosen):
        console.print(line, markup=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    if found.listed:
        console.print(f"wrote {listing}, a list of pictures and texts", markup=False)
    console.print(
        f"wrote {path}. Next: vlmill check {path}, vlmill build {path}, vlmill train build/{found.name}", markup=False
    )


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
