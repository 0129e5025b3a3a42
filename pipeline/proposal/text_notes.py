"""What a person should know of the texts that `vlmill new` would have trained on: where they miss what they are about.

A kind may read every row and yet not what its writer meant: an image that texts mark in another way than `<image>`, an
answer that is the letter of a choice which is not there, captions beyond the first, questions without their picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from vlmill.pipeline.proposal.attempts import Attempt
from vlmill.pipeline.proposal.columns import Cells
from vlmill.pipeline.proposal.text_marks import ADVICE, see_entities, see_images
from vlmill.pipeline.sources import Page

LETTER = re.compile(r"\(?[A-H][.):]?")
"""An answer that names a choice."""

REFUSED = frozenset({"reject", "rejected", "ignore", "ignored", "skip", "skipped", "declined", "discard", "discarded"})
VERDICTS = REFUSED | {"", "accept", "accepted", "approve", "approved", "ok", "submitted", "done"}
"""What annotators say of a row: that it is not to be used, and either."""


def list_text_notes(best: Attempt, cells: Cells) -> Iterator[str]:
    """The notes on what these rows became."""
    samples = [page.nodes for page in best.pages]
    if (marks := see_images(samples)).samples:
        yield f"marks of images stand in texts and stay text, such as {marks.example}: {ADVICE}"
    if (seen := see_entities(samples)).samples:
        yield f"{seen} HTML entities, such as {seen.example}: the recipe says unescape: true, and false keeps them"
    answers = [node.text or "" for page in best.pages for node in page.nodes if node.supervised]
    if "choices" not in best.options and len({*answers}) > 1 and all(map(LETTER.fullmatch, answers)):
        yield (
            "every answer is a letter, and no choices are read: name them with --column choices=COLUMN, once for each "
            "column"
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
    bare = sum(not _shows_image(page) for page in best.pages)
    if 0 < bare < len(best.pages):
        yield f"{bare} of the first {len(best.pages)} samples show no image, and are trained on as text alone"


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
