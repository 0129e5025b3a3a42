"""The steps that take things down, between image stats and the filters.

    match      pure     which samples and images of a partition fall under the list
    takedown   impure   the raw table (samples, refused rows, or images with what retries brought) without them

The redaction is keyed by the table that it replaces alone, as a retry is: the list had a say, as the network has in a
fetch. So running a chain again finds what was done, whatever the list says later, and the table that was replaced is
not needed any more: the chain deletes it. Row numbers stay: where something was, there is a row that holds nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pyarrow as pa

from vlmill.pipeline.core.compared_text import remove_ignorable
from vlmill.pipeline.core.excerpt import find_addresses
from vlmill.pipeline.core.names import (
    IMAGE_STATS_FILE,
    IMAGES_FILE,
    MATCHES_FILE,
    RAW_SAMPLES_FILE,
    REFUSED_FILE,
    SAMPLES_FILE,
    SUPPLEMENT_FILE,
)
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    IMAGES,
    REFUSED,
    SAMPLES,
    SampleId,
    read_refused,
    read_rows,
    write_rows,
)
from vlmill.pipeline.core.step import RUNTIME, Count, Counts, Inputs
from vlmill.pipeline.takedown.marks import mark_content, mark_excerpt, match_marks
from vlmill.pipeline.takedown.rules import TakedownList

Table = Literal["refused", "samples", "images"]
TABLES: tuple[Table, ...] = ("refused", "images", "samples")
"""In the order in which they are replaced: while a sample stands, it says which images go with it."""

ANY_TEXT = "text, which an excerpt may be of"
"""The rule that excerpts fall under where a list names texts: these are named by the sha256 of all their words, and an
excerpt has the first."""


def hash_text(nodes: Sequence[Mapping[str, Any]]) -> str:
    """What names the text of a document: sha256 of its text nodes, a line each, without characters that show nothing.

    Empty for samples that are about their images, or say nothing.
    """
    text = remove_ignorable("\n".join(node["text"] or "" for node in nodes if node["kind"] == "text"))
    if not text.strip() or any(node["required"] for node in nodes):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Matches:
    """What of a partition stands on the list, and under which rule."""

    samples: Mapping[int, str] = field(default_factory=dict)  # row in samples.parquet -> rule
    images: Mapping[int, str] = field(default_factory=dict)  # row in images.parquet -> rule
    refused: Mapping[int, str] = field(default_factory=dict)  # row in refused.parquet -> rule

    def __bool__(self) -> bool:
        return bool(self.samples or self.images or self.refused)

    def to_json(self) -> str:
        """Sorted, so that equal findings are equal bytes."""
        tables = {name: {str(row): rule for row, rule in sorted(getattr(self, name).items())} for name in TABLES}
        return json.dumps(tables, sort_keys=True, indent=1, ensure_ascii=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `to_json` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{name: {int(row): rule for row, rule in data[name].items()} for name in TABLES})


def name_record(table: Table) -> str:
    """The file that says what was taken out of a table: row -> rule, those of earlier redactions included."""
    return f"{table}.taken_down.json"


def read_record(inputs: Inputs, table: Table) -> dict[int, str]:
    """What was taken out of a table so far."""
    path = inputs.get(name_record(table))
    return {} if path is None else {int(row): rule for row, rule in json.loads(path.read_text("utf-8")).items()}


def match_partition(listed: TakedownList, inputs: Inputs) -> Matches:
    """What of a partition stands on the list and is still there; pure.

    An image falls under the sha256 of its bytes or its address, a sample under its id, the address of its document
    or of its row's id upstream, or its text. With a sample go the images that no other sample of the partition
    shows. Of an image that could not be had the address goes, so that no retry asks for it. Texts are read only if
    the list names any; bytes are not. A refused row falls under its id and every address in its message,
    excerpt and id upstream; where the list names texts, whatever has an excerpt does.
    """
    address, digests = listed.address(), set(listed.sha256)
    held = {
        row["image"]: row["sha256"] for row in read_rows(inputs[IMAGE_STATS_FILE], ["image", "sha256"]) if row["sha256"]
    }
    images = {image: f"sha256 {digest}" for image, digest in held.items() if digest in digests}
    standing = set(held)
    for row in read_rows(inputs[IMAGES_FILE], ["image", "url"]):
        if row["url"]:
            standing.add(row["image"])
        if rule := address(row["url"]):
            images.setdefault(row["image"], rule)
    whole = _make_matcher(listed, address, held)
    samples, shown, orphans = dict[int, str](), set[int](), dict[int, str]()
    gone = read_record(inputs, "samples")
    raw = inputs.get(RAW_SAMPLES_FILE, inputs[SAMPLES_FILE])  # what a model wrote names no document
    for number, row in enumerate(_read_samples(raw, texts=bool(listed.texts or listed.rows))):
        if number in gone:
            continue
        numbers = [node["image"] for node in row["nodes"] if node["image"] is not None]
        if rule := whole(row):
            samples[number] = rule
            orphans.update(dict.fromkeys(numbers, rule))
            continue
        shown.update(numbers)
        for node in row["nodes"]:
            if node["image"] in standing and (rule := address(node["url"])):
                images.setdefault(node["image"], rule)
    alone = {image: rule for image, rule in orphans.items() if image in standing and image not in shown}
    return Matches(samples, {**alone, **images}, _match_refused(listed, address, inputs))


def _match_refused(listed: TakedownList, address: Callable[[str | None], str], inputs: Inputs) -> dict[int, str]:
    """Which rows of refused.parquet hold something that stands on the list; earlier versions of `read` left none."""
    match_row, plain = match_marks(listed.ids, listed.rows), {url for url in listed.urls if "://" not in url}

    def rule(row: Mapping[str, Any]) -> str:
        name = SampleId(row["source"], row["file"], row["row"], row["page"])
        told = f"{row['detail']} {row['excerpt']} {row['upstream_id']}"
        if found := match_row(name, row["upstream_id"], partial(mark_excerpt, row["excerpt"])):
            return f"id {found}"
        if found := next(filter(None, map(address, find_addresses(told))), ""):
            return found
        if found := next((url for url in sorted(plain) if url in told), ""):
            return f"url {found}"
        return ANY_TEXT if listed.texts and row["excerpt"] else ""

    table = inputs.get(REFUSED_FILE)
    standing = (
        ((number, row) for number, row in enumerate(read_refused(table)) if row["detail"] or row["excerpt"])
        if table
        else ()
    )
    return {number: found for number, row in standing if (found := rule(row))}


def _make_matcher(
    listed: TakedownList, address: Callable[[str | None], str], held: Mapping[int, str]
) -> Callable[[Mapping[str, Any]], str]:
    """A function that says which rule a row of samples.parquet falls under as a whole; `held`: image -> its sha256."""
    match_row, texts = match_marks(listed.ids, listed.rows), set(listed.texts)

    def rule(row: Mapping[str, Any]) -> str:
        name = SampleId(row["source"], row["file"], row["row"], row["page"])
        if found := match_row(name, row["upstream_id"], lambda: mark_content(row["nodes"], held)):
            return f"id {found}"
        if texts and (digest := hash_text(row["nodes"])) in texts:
            return f"text {digest}"
        return address(row["url"]) or address(row["upstream_id"])

    return rule


def _read_samples(path: Path, *, texts: bool) -> Iterator[dict[str, Any]]:
    """Rows of samples.parquet, with what rules look at."""
    columns = ("kind", "image", "url", "required", *(("role", "text") if texts else ()))
    nodes = (f"nodes.list.element.{name}" for name in columns)
    rows = read_rows(path, [*SampleId._fields, "url", "upstream_id", *nodes])
    return ({"upstream_id": "", **row} for row in rows)  # which earlier versions of `read` did not keep


@dataclass(frozen=True)
class Match:
    """Step: what of a partition stands on the list. Pure. Leaves `found.json`."""

    rules: TakedownList

    name: ClassVar[str] = "match"
    version: ClassVar[int] = 6
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The raw tables, what was taken out of them before, and the sha256 of the images."""
        return (
            *(f"{table}.parquet" for table in TABLES),
            IMAGE_STATS_FILE,
            *(name_record(table) for table in TABLES),
        )

    def made_by(self) -> Mapping[str, str]:
        """Nothing that could differ."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Look, and say what was found."""
        (folder / MATCHES_FILE).write_text(match_partition(self.rules, inputs).to_json(), encoding="utf-8")
        return {}


@dataclass(frozen=True)
class Redact:
    """Step: a raw table without some of its rows, which stay as rows that hold nothing. Impure: the list had a say.

    Leaves the tables that it reads, and the record of what was taken out. Counts the rows under the table's name.
    """

    table: Table
    rows: Mapping[int, str] = field(default_factory=dict, metadata=RUNTIME)  # to empty, and the rule each falls under

    name: ClassVar[str] = "takedown"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The table (of images with what retries brought) and its record."""
        more = (SUPPLEMENT_FILE,) if self.table == "images" else ()
        return (f"{self.table}.parquet", *more, name_record(self.table))

    def made_by(self) -> Mapping[str, str]:
        """Nothing that a later redaction would have to agree with."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the tables anew, row groups of bounded size at a time."""
        count = Count()
        gone = {**read_record(inputs, self.table), **self.rows}
        schema, emptied = EMPTIED[self.table]
        for name in sorted(name for name in inputs if name.endswith(".parquet")):
            kept = {"upstream_id": ""} if "upstream_id" in schema.names else {}  # not by earlier versions of `read`
            rows = enumerate({**kept, **row} for row in read_rows(inputs[name], batch=32))
            numbered = ((row.get("image", number), row) for number, row in rows)
            write_rows(folder / name, schema, (emptied(row) if number in gone else row for number, row in numbered))
        in_all = sum(1 for _ in read_rows(inputs[f"{self.table}.parquet"], [schema.names[0]]))
        count.lose(Reason.TAKEN_DOWN, len(gone))
        count.keep(in_all - len(gone))
        listed = {str(row): rule for row, rule in sorted(gone.items())}
        (folder / name_record(self.table)).write_text(
            json.dumps(listed, indent=1, ensure_ascii=False), encoding="utf-8"
        )
        return {f"{self.table}_read": count}


def redact_image(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of an image that was taken down: its number, and why there is nothing."""
    return {**dict.fromkeys(row), "image": row["image"], "reason": str(Reason.TAKEN_DOWN)}


def redact_sample(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a sample that was taken down: its id, group and kinds of nodes; no text, no address."""
    nodes = [{**node, "text": None, "image": None, "url": None} for node in row["nodes"]]
    return {**row, "nodes": nodes, "url": "", "upstream_id": "", "licence": "", "signals": "{}"}


def redact_refused(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a refused row whose message and excerpt were taken down: its id and reason."""
    return {**row, "upstream_id": "", "detail": "", "excerpt": ""}


EMPTIED: Mapping[Table, tuple[pa.Schema, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "refused": (REFUSED, redact_refused),
    "images": (IMAGES, redact_image),
    "samples": (SAMPLES, redact_sample),
}
"""Schema of each table, and what stands in the place of a row that was taken down."""


def make_redaction(table: Table, found: Matches) -> Redact:
    """The step that takes out of a table what was found."""
    return replace(Redact(table), rows=getattr(found, table))
