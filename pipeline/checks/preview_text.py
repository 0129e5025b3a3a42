"""What `vlmill preview` prints: samples with their verdicts and tokens, and pictures as cells of colour."""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image
from rich.text import Text

from vlmill.pipeline.checks.preview import PreviewedSample, SourcePreview
from vlmill.pipeline.reports.trace import format_trace

COLUMNS = 40
"""Cells that a picture is wide in the terminal, at most."""

LINES = 20
"""Cells that it is high, at most; a cell shows two pixels, one above the other."""

REFUSED = 3
"""Rows without a sample that are named."""


def list_lines(found: SourcePreview, *, pictures: bool) -> Iterator[str | Text]:
    """What to print of a source; `pictures` says whether the terminal shows colours."""
    yield f"{found.source}: {len(found.samples)} {'sample' if len(found.samples) == 1 else 'samples'} of {found.file}"
    for one in found.samples:
        yield ""
        yield from _list_sample(one, pictures=pictures)
    for line in found.refused[:REFUSED]:
        yield f"no sample: {line}"
    if len(found.refused) > REFUSED:
        yield f"and {len(found.refused) - REFUSED} more rows or pages without a sample"
    yield from (f"Note: {note}" for note in found.notes)


def describe_tokens(one: PreviewedSample) -> str:
    """The tokens of a sample by policy; empty where none are counted."""
    counted = (f"{policy} {total:,}, of them {said:,} supervised" for policy, (total, said) in one.tokens.items())
    return "; ".join(counted)


def _list_sample(one: PreviewedSample, *, pictures: bool) -> Iterator[str | Text]:
    if pictures:
        yield from (draw_cells(Image.open(io.BytesIO(data))) for _, data in sorted(one.pictures.items()))
    yield from (line for line in format_trace(one.traced) if not line.startswith("  input file"))
    for node, text in sorted(one.texts.items()):
        yield f"  node {node} under the first policy: {text}"
    if said := describe_tokens(one):
        yield f"  tokens: {said}"


def draw_cells(picture: Image.Image) -> Text:
    """A picture as half blocks: of each cell the upper half has the colour of the text, the lower that behind it."""
    width, height = picture.size
    scale = min(COLUMNS / width, 2 * LINES / height, 1.0)
    rows = max(2, 2 * round(height * scale / 2))
    small = picture.convert("RGB").resize((max(1, round(width * scale)), rows), Image.Resampling.BOX)
    text = Text()
    for row in range(0, rows, 2):
        for column in range(small.width):
            upper, lower = (_name_colour(small.getpixel((column, line))) for line in (row, row + 1))
            text.append("\u2580", style=f"{upper} on {lower}")
        text.append("\n" if row + 2 < rows else "")
    return text


def _name_colour(pixel: object) -> str:
    red, green, blue = pixel if isinstance(pixel, tuple) else (0, 0, 0)
    return f"#{red:02x}{green:02x}{blue:02x}"
