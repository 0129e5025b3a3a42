"""Makes the quickstart data: a thousand samples of three families with every case that the pipeline handles.

    python -m tools.quickstart.generate [FOLDER]

The folder is recipes/quickstart unless another is named. Writes `web/`, `quiz/`, `scans/`, `papers/` and
`manifest.json`, which says what was planted and what has to become of it. The same script gives the same rows, texts
and pictures everywhere; the files' bytes also depend on how Pillow and pyarrow compress, whose versions the manifest
names. All of it is made up here and in the public domain (CC0-1.0).
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import PIL
import pyarrow as pa

from tools.quickstart import documents, quiz, tables, web
from tools.quickstart.album import SEED, Album
from tools.quickstart.plants import Member, Row, Twins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DATA = Path(__file__).parents[2] / "recipes" / "quickstart"
FILES = {
    "web": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
    "quiz": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
    "scans": ["idl-train-00000.tar", "idl-train-00001.tar"],
    "papers": ["pdfa-eng-train-0000.tar"],
}
PRIORITIES = {"quiz": 0, "papers": 1, "scans": 1, "web": 2}
"""As in `quickstart.yaml`: of two duplicates the one from the source with the lower number is kept."""

Place = tuple[str, str, int]
"""Source, file, row."""

Key = tuple[str, str, int, int, int, int]
"""A place, page, node and turn."""


def main(folder: Path) -> None:
    """Write all of the data below `folder`, in place of what is there."""
    album = Album()
    asked, shown = quiz.rows(album), web.documents(album)
    scanned, printed = documents.scans(album), documents.papers(album)
    documents.copy_out(shown, printed)
    twins = [*quiz.show_in(shown, asked), *asked.twins, *shown.twins, *scanned.twins]
    sources = {"web": shown.rows, "quiz": asked.rows, "scans": scanned.rows, "papers": printed.rows}
    placed = {source: _mixed(source, rows) for source, rows in sources.items()}
    for source in FILES:
        shutil.rmtree(folder / source, ignore_errors=True)
        (folder / source).mkdir(parents=True)
    for (source, file), rows in _by_file(placed).items():
        _write(folder / source / file, source, rows)
    for name, data in shown.files.items():
        path = folder / "web" / "images" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (folder / "manifest.json").write_text(_lines(_manifest(placed, twins)), encoding="utf-8")


def made_by() -> dict[str, str]:
    """What decides the bytes of the files, beside this script."""
    return {"pillow": PIL.__version__, "pyarrow": pa.__version__, "machine": platform.machine()}


def _mixed(source: str, rows: Sequence[Row]) -> dict[Place, Row]:
    """Each row's place: shuffled, and spread evenly over the source's files."""
    mixed = Random(f"{SEED}/order/{source}").sample(rows, len(rows))
    share = -(-len(mixed) // len(FILES[source]))
    return {(source, FILES[source][index // share], index % share): row for index, row in enumerate(mixed)}


def _by_file(placed: Mapping[str, Mapping[Place, Row]]) -> dict[tuple[str, str], list[Row]]:
    files: dict[tuple[str, str], list[Row]] = {}
    for rows in placed.values():
        for (source, file, _), row in rows.items():
            files.setdefault((source, file), []).append(row)
    return files


def _write(path: Path, source: str, rows: Sequence[Row]) -> None:
    if source in {"scans", "papers"}:
        tables.write_tar(path, [row.content for row in rows])
        return
    contents = [
        tables.document(row.name, row.content) if isinstance(row.content, list) else row.content for row in rows
    ]
    tables.write_parquet(path, tables.WEB if source == "web" else tables.QUIZ, contents)


def _manifest(placed: Mapping[str, Mapping[Place, Row]], twins: Sequence[Twins]) -> dict[str, Any]:
    """What was planted, ordered by id; and what the bytes were made by."""
    places = {row.name: place for rows in placed.values() for place, row in rows.items()}
    planted: list[tuple[Key, dict[str, Any]]] = []
    for rows in placed.values():
        for place, row in rows.items():
            for plant in row.plants:
                where = Member(row.name, plant.node, plant.turn, plant.page)
                planted.append(_entry(place, where, plant.outcome, plant.reason, plant.why))
    for group in twins:
        kept, *others = sorted(
            group.members, key=lambda member: (PRIORITIES[places[member.row][0]], _key(places[member.row], member))
        )
        original = places[kept.row]
        planted.append(_entry(original, kept, "kept", "", f"the first of its duplicates: {group.why}"))
        first = _id(original, kept)
        planted += [_entry(places[other.row], other, "dropped", group.reason, group.why, first) for other in others]
    return {
        "licence": "CC0-1.0",
        "made_by": made_by(),
        "rows": {source: len(rows) for source, rows in placed.items()},
        "absent_text": web.END_OF_DOCUMENT,
        "planted": [entry for _, entry in sorted(planted, key=lambda item: item[0])],
    }


def _key(place: Place, member: Member) -> Key:
    """Orders places in rows; a row as a whole comes first."""
    page, node, turn = (-1 if part is None else part for part in (member.page, member.node, member.turn))
    return (*place, page, node, turn)


def _id(place: Place, member: Member) -> str:
    """The sample's id as everywhere in vlmill: `papers/file.tar#12.3` for page 3."""
    source, file, row = place
    return f"{source}/{file}#{row}" + ("" if member.page is None else f".{member.page}")


def _entry(
    place: Place, member: Member, outcome: str, reason: str, why: str, other: str = ""
) -> tuple[Key, dict[str, Any]]:
    where = {"node": member.node, "turn": member.turn, "other": other or None}
    said = {name: value for name, value in where.items() if value is not None}
    return _key(place, member), {"id": _id(place, member), "outcome": outcome, "reason": reason, **said, "why": why}


def _lines(manifest: Mapping[str, Any]) -> str:
    """JSON with a line for each planted thing, so that a change can be read."""
    head = json.dumps({**manifest, "planted": []}, indent=1)
    body = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in manifest["planted"])
    return head.replace('"planted": []', f'"planted": [\n{body}\n]') + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
