"""Scanned receipts and notices (IDL's layout: tif and json), and small leaflets (PDFA's layout: pdf and json).

Few words in large letters. Scans are drawn with the font that ships with Pillow; leaflets are written as PDF by hand in
Courier, whose glyphs are all 0.6 em wide, so that the boxes of words are arithmetic.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from tools.quickstart.scenes import COLOURS, SHAPES, Shape, outline
from tools.quickstart.texts import words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

Box = tuple[float, float, float, float]
"""Left, top, width, height."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text at a place; sizes in pixels or points, from the top left corner."""

    text: str
    x: float
    y: float
    size: int
    light: bool = False  # white on a black band; on notices alone


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page: its size and lines, and on leaflets one shape."""

    size: tuple[int, int]
    lines: tuple[Line, ...]
    frame: bool = False
    shape: Shape | None = None

    def text(self) -> list[str]:
        """The lines from top to bottom."""
        return [line.text for line in self.lines]


def notice(number: int, rng: Random) -> Sheet:
    """A notice of two or three large lines; no two share place and state."""
    book = words("pages")
    places, states = book["places"], book["states"]
    said = [
        places[number % len(places)],
        states[(number // len(places) + number) % len(states)],
        rng.choice(book["times"]),
    ]
    said = said[: rng.choice([2, 3, 3])]
    width, height = rng.choice([(320, 200), (280, 280), (240, 320), (360, 180), (300, 220)])
    lines, y, light = [], rng.randrange(8, 30), rng.choice([0, 1, 2, -1])
    for index, text in enumerate(said):
        size = min(rng.choice([26, 34, 44, 54]), int(26 * (width - 12) / _length(text, 26)))
        lines.append(Line(text, rng.randrange(6, width - _length(text, size)), y, size, light=index == light))
        y += size + rng.randrange(8, max(10, (height - y - size * 2) // 2 + 10))
    return Sheet((width, max(height, y + 8)), tuple(lines), frame=rng.random() < 0.4)


def receipt(number: int, rng: Random) -> Sheet:
    """A receipt: shop, day, goods with prices, their sum, a last word."""
    book = words("pages")
    shop = f"{book['names'][number % len(book['names'])]} {book['trades'][number * 7 % len(book['trades'])]}"
    goods = rng.sample(book["goods"], rng.randrange(2, 6))
    prices = [rng.randrange(45, 1990) for _ in goods]
    day = f"{rng.randrange(1, 29):02}.{rng.randrange(1, 13):02}.20{rng.randrange(10, 26)}"
    items = [f"{name} {price / 100:.2f}" for name, price in zip(goods, prices, strict=True)]
    said = [shop, *([day] if rng.random() < 0.5 else []), *items, f"TOTAL {sum(prices) / 100:.2f}"]
    said.append(rng.choice(book["thanks"]) if day in said else day)
    return _column(said, rng)


def _column(said: Sequence[str], rng: Random) -> Sheet:
    """Lines one below the other, the first and the sum larger, on paper as long as they need."""
    width, size, gap = rng.choice([220, 250, 280]), rng.choice([17, 19, 21]), rng.randrange(5, 13)
    lines, y, left = [], rng.randrange(8, 40), rng.randrange(6, 22)
    for index, text in enumerate(said):
        high = size + 3 * (index == 0 or text.startswith("TOTAL"))
        x = left if text[0].islower() else rng.randrange(6, min(60, width - _length(text, high)))
        lines.append(Line(text, x, y, high))
        y += high + gap + 2 * (high - size)
    return Sheet((width, y + rng.randrange(16, 90)), tuple(lines), frame=rng.random() < 0.2)


def _length(text: str, size: int) -> int:
    """Pixels that a text of this size takes."""
    return math.ceil(ImageFont.load_default(size).getlength(text))


def draw(sheet: Sheet) -> Image.Image:
    """The page in RGB."""
    image = Image.new("RGB", sheet.size, "white")
    pen = ImageDraw.Draw(image)
    if sheet.frame:
        pen.rectangle((2, 2, sheet.size[0] - 3, sheet.size[1] - 3), outline="black", width=3)
    if sheet.shape:
        whole, *holes = polygons(sheet.shape)
        pen.polygon(whole, fill=COLOURS[sheet.shape.colour])
        for hole in holes:
            pen.polygon(hole, fill="white")
    for line in sheet.lines:
        if line.light:
            pen.rectangle((0, line.y - 4, sheet.size[0], line.y + line.size + 6), fill="black")
        pen.text(
            (line.x, line.y), line.text, fill="white" if line.light else "black", font=ImageFont.load_default(line.size)
        )
    return image


def scanned(sheet: Sheet, rng: Random) -> Image.Image:
    """The page as a scanner sees it: black on white, with some specks (mode 1)."""
    image = draw(sheet).convert("1", dither=Image.Dither.NONE)
    for _ in range(rng.randrange(4, 14)):
        image.putpixel((rng.randrange(sheet.size[0]), rng.randrange(sheet.size[1])), rng.randrange(2))
    return image


def tif(pages: Sequence[Image.Image]) -> bytes:
    """A tif of one or more pages, as fax machines compress them."""
    file = io.BytesIO()
    first, *others = pages
    first.save(file, "TIFF", compression="group4", save_all=True, append_images=others)
    return file.getvalue()


def idl(sheets: Sequence[Sheet]) -> bytes:
    """IDL's json: lines with relative boxes, their corners and scores, per page."""
    return _json({"pages": [_idl_page(sheet) for sheet in sheets]})


def _idl_page(sheet: Sheet) -> dict[str, Any]:
    boxes = [_relative(_drawn(line), sheet) for line in sheet.lines]
    return {
        "text": sheet.text(),
        "bbox": boxes,
        "poly": [[{"X": x + dx, "Y": y + dy} for dx, dy in ((0, 0), (w, 0), (w, h), (0, h))] for x, y, w, h in boxes],
        "score": [1.0] * len(boxes),
    }


def _drawn(line: Line) -> Box:
    left, top, right, bottom = ImageFont.load_default(line.size).getbbox(line.text)
    return line.x + left, line.y + top, right - left, bottom - top


def _relative(box: Box, sheet: Sheet) -> list[float]:
    width, height = sheet.size
    return [round(value / side, 5) for value, side in zip(box, (width, height, width, height), strict=True)]


LEAFLETS = ((300, 400), (320, 360), (360, 320), (300, 460))
"""Sizes in points; 25 characters of 18 points fit a line."""


def leaflet(number: int, rng: Random) -> Sheet:
    """A page with a heading, a shape that the text names, and short hints."""
    book = words("pages")
    subject, colour, kind = (
        book["subjects"][number % len(book["subjects"])],
        [*COLOURS][number % 8],
        SHAPES[(number + number // 8) % 6],
    )
    hints = rng.sample(book["hints"], rng.randrange(2, 5))
    (width, height), radius, low = rng.choice(LEAFLETS), rng.randrange(36, 70), rng.random() < 0.5
    top = rng.randrange(20, 40) if low else 2 * radius + rng.randrange(30, 60)
    lines = [
        Line(f"{subject} {100 + number}", rng.randrange(12, 60), top, 26),
        Line(f"{colour} {kind}", rng.randrange(12, 80), top + 44, 20),
    ]
    lines += [Line(hint, rng.randrange(12, 60), top + 80 + 28 * index, 17) for index, hint in enumerate(hints)]
    bottom = top + 90 + 28 * len(hints)
    y = bottom + radius if low else radius + 12
    shape = Shape(kind, colour, rng.uniform(radius + 10, width - radius - 10), y, radius)
    return Sheet(
        (width, max(height, math.ceil(y + radius + 12), bottom + 12)),
        tuple(lines),
        frame=rng.random() < 0.3,
        shape=shape,
    )


def pdfa(sheets: Sequence[Sheet]) -> bytes:
    """PDFA's json: words and lines with relative boxes and what belongs together, per page."""
    return _json({"pages": [_pdfa_page(sheet) for sheet in sheets]})


def _pdfa_page(sheet: Sheet) -> dict[str, Any]:
    words: dict[str, list[Any]] = {"text": [], "bbox": [], "score": [], "line_pos": []}
    lines: dict[str, list[Any]] = {"text": [], "bbox": [], "score": [], "word_slice": []}
    for number, line in enumerate(sheet.lines):
        start, advance, place = len(words["text"]), 0.6 * line.size, 0
        for position, word in enumerate(line.text.split(" ")):
            words["text"].append(word)
            words["bbox"].append(_relative((line.x + place * advance, line.y, len(word) * advance, line.size), sheet))
            words["score"].append(1.0)
            words["line_pos"].append([number, position])
            place += len(word) + 1
        lines["text"].append(line.text)
        lines["bbox"].append(_relative((line.x, line.y, len(line.text) * advance, line.size), sheet))
        lines["score"].append(1.0)
        lines["word_slice"].append([start, len(words["text"])])
    return {"words": words, "lines": lines, "images_bbox": [], "images_bbox_no_text_overlap": []}


def pdf(sheets: Sequence[Sheet], missing: int = -1) -> bytes:
    """A PDF of these pages. Page `missing` stands in the list of pages, but its object does not exist."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Courier-Bold >>"]
    kids = []
    for number, sheet in enumerate(sheets):
        if number == missing:
            kids.append("999 0 R")
            continue
        stream = _operators(sheet)
        width, height = sheet.size
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width} {height}] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F 3 0 R >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(kids)}] >>"
    return _file(objects)


def _file(objects: Sequence[str]) -> bytes:
    """Objects numbered from 1, the table of their offsets, the trailer."""
    text, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(text))
        text += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    text += (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R "
        f">>\nstartxref\n{len(text)}\n%%EOF\n"
    )
    return text.encode("ascii")


def _operators(sheet: Sheet) -> str:
    """What draws a page; PDF counts from the bottom, and text stands on its base line."""
    height = sheet.size[1]
    drawn = [f"3 w 3 3 {sheet.size[0] - 6} {height - 6} re S"] if sheet.frame else []
    drawn += [_painted(sheet.shape, height)] if sheet.shape else []
    for line in sheet.lines:
        drawn.append(
            f"BT 0 g /F {line.size} Tf {line.x:.0f} {height - line.y - 0.8 * line.size:.1f} Td ({line.text}) Tj ET"
        )
    return "\n".join(drawn)


def _painted(shape: Shape, height: int) -> str:
    """A shape as filled polygons; a circle has 48 corners, a ring is a circle with a hole (even-odd rule)."""
    red, green, blue = (value / 255 for value in COLOURS[shape.colour])
    rings = [[(x, height - y) for x, y in corners] for corners in polygons(shape)]
    paths = [
        " ".join(f"{x:.1f} {y:.1f} {'l' if index else 'm'}" for index, (x, y) in enumerate(ring)) + " h"
        for ring in rings
    ]
    return f"{red:.3f} {green:.3f} {blue:.3f} rg\n" + "\n".join(paths) + "\nf*"


def polygons(shape: Shape) -> list[list[tuple[float, float]]]:
    """The outlines of a shape."""
    x, y, radius = shape.x, shape.y, shape.radius
    if shape.kind in {"circle", "ring"}:
        return [
            outline(Shape("round", "", x, y, reach))
            for reach in ([radius] if shape.kind == "circle" else [radius, 0.45 * radius])
        ]
    if shape.kind == "square":
        return [
            [(x - radius, y - radius), (x + radius, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
        ]
    if shape.kind == "cross":
        arm, corners = 0.36 * radius, []
        for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1)):
            for along, side in ((radius, -arm), (radius, arm), (arm, arm)):
                corners.append((x + dx * along - dy * side, y + dy * along + dx * side))
        return [corners]
    return [outline(shape)]


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
