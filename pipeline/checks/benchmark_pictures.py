"""Whether the pictures of a benchmark can be had, before a build that would compare nothing with them; for check.py."""

from __future__ import annotations

from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.sources import Source
from vlmill.pipeline.sources.base import Picture
from vlmill.pipeline.sources.files import Files

ROWS = 20
"""Rows of a benchmark that are looked at."""

WITHIN = (
    "kind {0} takes their bytes or base64, and no addresses. Where rows name files by paths below `root`, kind table "
    "reads them: decontaminate.against.{1}.kind=table with options image, question and answer. `images: []` among the "
    "options of kind evaluation compares the questions alone"
)
"""What to do about a benchmark of a kind that opens no files."""


def check_pictures(source: Source, benchmark: str, name: str, root: str, file: InputFile) -> None:
    """Read the pictures of the first rows of a benchmark's split, of this `name`; those of videos do not count.

    Raises:
        SourceError: there are some, and none can be had.
    """
    with open_input(file) as path:
        pages = [page for row in source.rows(path, range(ROWS)) for page in row.pages]
    shown = [picture for page in pages for picture in page.pictures if picture.reason != Reason.UNSUPPORTED_MEDIA]
    lost = Picture()
    for picture in shown:
        lost = Files(root).load(picture.path) if picture.path is not None else picture
        if lost.reason is None:
            return
    if shown:
        where = f"their paths start from its `root`, {root}" if source.opens else WITHIN.format(source.kind, benchmark)
        raise SourceError(
            f"benchmark {name!r}: {file.name} shows {len(shown)} images in its first {len(pages)} rows, and none can "
            f"be read ({lost.reason}: {lost.detail}), so nothing would be compared with them; {where}"
        )
