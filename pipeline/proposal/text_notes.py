"""What a person should know of the texts that `vlmill new` would have trained on: where they miss what they are about.

A kind may read every row and yet not what its writer meant: an image that texts mark in another way than `<image>`, an
answer that is the letter of a choice which is not there, captions beyond the first, questions without their picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from vlmill.pipeline.core.sample import Sample, SampleId, Verdict
from vlmill.pipeline.filters.language.filter import Language
from vlmill.pipeline.proposal.attempts import Attempt
from vlmill.pipeline.proposal.cell_kinds import TEXTS
from vlmill.pipeline.proposal.column_names import BEFORE, BESIDE, CAPTIONS, LISTED, WORD
from vlmill.pipeline.proposal.columns import Cells
from vlmill.pipeline.proposal.image_marks import describe_mark
from vlmill.pipeline.proposal.text_marks import advise_mark, see_entities, see_images
from vlmill.pipeline.sources import Page
from vlmill.pipeline.sources.known_keys import classify_key
from vlmill.pipeline.sources.nested import parse_object

SHOWING = frozenset({"image", "address"})
"""What keys of images mean."""
EMPTY = (
    "column {column} is empty in the rows that were looked at; rows that have an image there are lost. If there are "
    "any, take kind table with image: {column} among its options"
)

LETTER = re.compile(r"\(?[A-H][.):]?")
"""An answer that names a choice."""

SCORES = frozenset(
    {
        *("score", "scores", "similarity", "sim", "aesthetic", "quality", "rating", "watermark", "pwatermark"),
        *("nsfw", "punsafe", "unsafe", "toxicity", "perplexity", "relevance", "confidence", "probability", "prob"),
    }
)
"""Words in the names of columns of scores, as COYO, LAION and DataComp have them."""

REFUSED = frozenset({"reject", "rejected", "ignore", "ignored", "skip", "skipped", "declined", "discard", "discarded"})
VERDICTS = REFUSED | {"", "accept", "accepted", "approve", "approved", "ok", "submitted", "done"}
"""What annotators say of a row: that it is not to be used, and either."""


def list_text_notes(best: Attempt, cells: Cells) -> Iterator[str]:
    """The notes on what these rows became."""
    samples = [page.nodes for page in best.pages]
    if (marks := see_images(samples)).samples:
        yield f"marks of images stand in texts and stay text, {advise_mark(marks.example)}"
    if mark := best.options.get("mark"):
        yield describe_mark(mark)
    if (seen := see_entities(samples)).samples:
        yield f"{seen} HTML entities, such as {seen.example}: the recipe says unescape: true, and false keeps them"
    yield from _note_chinese(best.pages)
    yield from _note_contexts(best, cells)
    yield from _note_nan(best, cells)
    answers = [node.text or "" for page in best.pages for node in page.nodes if node.supervised]
    if "choices" not in best.options and len({*answers}) > 1 and all(map(LETTER.fullmatch, answers)):
        yield (
            "every answer is a letter, and no choices are read: name them with --column choices=COLUMN, once for each "
            "column"
        )
    if keys := next(filter(None, map(_list_keys, answers)), ""):
        yield (
            f"texts that are trained on are JSON, with keys {keys}; dotted names read what lies within, such as "
            "--column question=COLUMN.question (docs/sources.md, Rows of nested objects)"
        )
    yield from _note_refused(best, cells)
    caption = best.options.get("caption")
    if isinstance(caption, str) and cells.hold(caption, "list of texts"):
        yield f"{caption} holds several texts for an image, of which the first is read: make a row of each to keep all"
    if isinstance(caption, list):
        yield (
            f"the caption of a row is the first of {', '.join(caption)} that is not blank: in some rows the usual one "
            "is blank, or Chinese, which the recipe drops"
        )
    yield from _note_other_captions(best, cells)
    if scores := [name for name in sorted(best.unread & {*cells.columns}) if _holds_scores(name, cells)]:
        named = " ".join(f"--column signals={name}" for name in scores)
        yield (
            f"columns of scores: {named} keeps them with the samples; docs/signals.md, Numbers that rows bring, says "
            "how samples are dropped by them"
        )
    yield from _note_empty_images(best, cells)
    bare = sum(not _shows_image(page) for page in best.pages)
    if 0 < bare < len(best.pages):
        yield f"{bare} of the first {len(best.pages)} samples show no image, and are trained on as text alone"


def _note_chinese(pages: Sequence[Page]) -> Iterator[str]:
    """A note where the filter that recipes of `vlmill new` have drops something of a sample, or all of it."""
    samples = [(row, Sample(SampleId("new", "", row), page.nodes)) for row, page in enumerate(pages)]
    found = Language(drop=("zh",), strict=True).decide(samples, ())
    if chinese := {one.sample for one in found if isinstance(one, Verdict)}:
        yield (
            f"{len(chinese)} of {len(samples)} samples that were looked at hold Chinese, which the filter language of "
            "the recipe drops: take its line out to keep it"
        )


def _note_contexts(best: Attempt, cells: Cells) -> Iterator[str]:
    """A note where a column that is not read may hold what the question needs."""
    question = best.options.get("question")
    asked = [question] if isinstance(question, str) else list(question or ())
    if best.kind not in {"table", "web_table"} or not asked:
        return
    for name in sorted(best.unread & {*cells.columns}):
        if BEFORE & _list_words(name) and cells.hold(name, *TEXTS):
            command = " ".join(f"--column question={one}" for one in (name, *asked))
            yield f"column {name} may hold what the question is about, and is not read: {command} puts it before"


def _note_nan(best: Attempt, cells: Cells) -> Iterator[str]:
    """A note where cells hold the letters nan, as programs write a cell that is empty."""
    named = [best.options.get(role) or () for role in ("question", "answer", "choices", "caption")]
    read = [name for one in named for name in ([one] if isinstance(one, str) else one)]
    texts = {name: [value for value in cells.list_values(name) if isinstance(value, str)] for name in read}
    held = {name: sum(text.strip().lower() == "nan" for text in said) for name, said in texts.items()}
    if found := {name: number for name, number in held.items() if number}:
        listed = ", ".join(f"{name} ({number} of {len(cells.rows)} rows)" for name, number in found.items())
        yield f"cells hold the letters nan, which are read as a text: {listed}; make them empty if they say nothing"


def _note_empty_images(best: Attempt, cells: Cells) -> Iterator[str]:
    """A note where texts alone are read beside a column of images that is empty so far."""
    if best.kind not in {"table", "instructions", "chat"} or "image" in best.options:
        return
    for name in cells.columns:
        if classify_key(name) in SHOWING and cells.describe(name) == "nothing":
            asked = best.kind != "chat" and "turns" not in best.options
            yield EMPTY.format(column=name) + ", and write those without to a file of their own" * asked


def _note_other_captions(best: Attempt, cells: Cells) -> Iterator[str]:
    """A note where captions are read and columns that are not read hold others, and how one of them is chosen."""
    words = {*CAPTIONS, *LISTED}
    alike = [name for name in sorted(best.unread) if words.intersection(_list_words(name))]
    if best.kind == "pairs_wds":
        if members := [name for name in alike if name.startswith("json.")]:
            yield (
                f"the caption of an image is its .txt; {', '.join(members)} may be others, which kind pairs_wds does "
                "not read: docs/adding.md, A custom source, has how a file of yours reads them"
            )
        return
    columns = [name for name in alike if cells.hold(name, *TEXTS, "list of texts")]
    if (caption := best.options.get("caption")) and columns:
        usual = caption if isinstance(caption, str) else caption[0]
        yield (
            f"captions are read from {usual if isinstance(caption, str) else ', '.join(caption)}, and "
            f"{', '.join(columns)} may hold others: --column caption={columns[0]} takes another, and --column "
            f"caption={columns[0]} --column caption={usual} the first of these that is not blank in a row; for all of "
            "them make a row of each"
        )


def _list_keys(text: str) -> str:
    """The keys of the object of JSON that a text is; empty where it is none."""
    held = parse_object(text) if text.lstrip().startswith("{") else None
    return ", ".join(map(str, held)) if isinstance(held, Mapping) else ""


def _holds_scores(column: str, cells: Cells) -> bool:
    """Whether a column holds numbers, and is called as scores of texts and images are."""
    return cells.hold(column, "number") and bool(SCORES.intersection(word.lower() for word in WORD.findall(column)))


def _list_words(column: str) -> set[str]:
    """The words of a column's name, with the whole of it; none of one that says something of a text, and is none."""
    words = {word.lower() for word in WORD.findall(column)}
    return set() if words & BESIDE else words | {column.lower()}


def _note_refused(best: Attempt, cells: Cells) -> Iterator[str]:
    """A note where a column says of rows whether an annotator took them, and some were not taken."""
    for column in best.unread & {*cells.columns}:
        said = {str(value).strip().lower() for value in cells.list_values(column) if value is not None}
        if said <= VERDICTS and (refused := said & REFUSED):
            yield (
                f"column {column} says of rows that they are of {', '.join(sorted(refused))}; all are trained on: make "
                "a file without these"
            )


def _shows_image(page: Page) -> bool:
    return any(node.kind == "image" for node in page.nodes)
