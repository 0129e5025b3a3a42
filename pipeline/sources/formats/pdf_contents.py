"""Texts and pictures of a PDF that nobody has read before: its text layer, pages as pictures, and embedded images.

Runs in a child process, as pdf_pages.py does, whose pdfium it uses: native code over files from anywhere. A scan has no
text layer; nothing is recognised here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from vlmill.pipeline.images.decode import MAX_PIXELS
from vlmill.pipeline.sources.formats.pdf_pages import encode_png, open_pdf, render_page

Item = dict[str, Any] | bytes
"""What a child says: `{"pages": count}` first, then per page as the function says."""

HYPHEN = re.compile("[\ufffe\x02]\\s*")
"""How pdfium writes a hyphen that divides a word at the end of a line."""

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
BLANKS = re.compile(r"[ \t\u00a0]+")
LINES = re.compile(r" ?\n[ \n]*\n ?| ?\n ?")

MOST_IMAGES = 256
"""Embedded images of one page that are read. A drawing may be cut into thousands."""

BACKGROUND = 0.8
"""From this share of the page on an image lies behind its text, and stands before it."""


def read_pages(data: bytes, long_side: int, max_pages: int) -> Iterator[Item]:
    """Each page as a picture with its text.

    Yields `{"pages": count}`, or `{"error": why}` alone where it is no PDF. Then for each page up to `max_pages`
    `{"text": text}`, which is empty where there is none, and the picture as PNG where there is a text; or
    `{"error": why}`.

    Args:
        data: The whole PDF.
        long_side: Pixels of a page's longer side.
        max_pages: Pages that are read.
    """
    document, count, trouble = _open_document(data)
    yield trouble or {"pages": count}
    for number in range(min(count, max_pages)):
        try:
            page = document[number]
            text = _tidy_text("".join(_read_characters(page.get_textpage())))
            picture = encode_png(render_page(page, long_side)) if text else b""
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - parsers raise whatever they run into
            yield {"error": f"{type(error).__name__}: {error}"}
            continue
        yield {"text": text}
        if text:
            yield picture


def read_layout(data: bytes, max_pages: int) -> Iterator[Item]:
    """The texts of each page with its embedded images where they stand.

    Yields `{"pages": count}`, or `{"error": why}` alone where it is no PDF. Then for each page up to `max_pages`
    `{"parts": [text or number of an image, ...], "images": count}` and the images in the order of their numbers, each
    as PNG or `{"lost": why}`; or `{"error": why}`.
    """
    document, count, trouble = _open_document(data)
    yield trouble or {"pages": count}
    for number in range(min(count, max_pages)):
        try:
            page = document[number]
            images = _list_images(page)
            parts = list(_order_parts(page, images))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - parsers raise whatever they run into
            yield {"error": f"{type(error).__name__}: {error}"}
            continue
        yield {"parts": parts, "images": len(images)}
        left = MAX_PIXELS
        for place, image in enumerate(images):
            pixels = image.width * image.height
            left -= pixels
            if place >= MOST_IMAGES or left < 0:
                yield {"lost": f"image {place} of a page with {len(images)}, of {pixels} pixels"}
            else:
                yield _extract_image(image.handle)


def _open_document(data: bytes) -> tuple[Any, int, Item]:
    """A PDF and the number of its pages, or what is wrong with it."""
    try:
        document = open_pdf(data)
        return document, len(document), {}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise whatever they run into
        return None, 0, {"error": f"{type(error).__name__}: {error}"}


class _Embedded(NamedTuple):
    """An embedded image: where it stands on the page, in points from below, and its size in pixels."""

    handle: Any
    left: float
    bottom: float
    right: float
    top: float
    width: int
    height: int


def _list_images(page: Any) -> list[_Embedded]:
    """The embedded images of a page, from its top to its bottom."""
    from pypdfium2 import raw  # noqa: PLC0415 - only this child needs the library

    found = page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE])
    listed = [_Embedded(one, *one.get_bounds(), *one.get_px_size()) for one in found]
    return sorted(listed, key=lambda image: (-image.top, image.left))


def _order_parts(page: Any, images: Sequence[_Embedded]) -> Iterator[str | int]:
    """The texts of a page, cut where an image stands, and the numbers of images, in order.

    An image stands before the first line that begins below its middle, in the order of the text layer, and that it has
    a stretch of the page's width in common with: so it stays in its column. One behind the whole page comes first.
    """
    text = page.get_textpage()
    characters = list(_read_characters(text))
    boxes = [text.get_charbox(place) for place in range(len(characters))] if images else []
    whole = page.get_width() * page.get_height()
    placed = sorted((_find_line(image, characters, boxes, whole), number) for number, image in enumerate(images))
    begin = 0
    for place, number in placed:
        if said := _tidy_text("".join(characters[begin:place])):
            yield said
        yield number
        begin = max(begin, place)
    if said := _tidy_text("".join(characters[begin:])):
        yield said


def _find_line(image: _Embedded, characters: Sequence[str], boxes: Sequence[tuple[float, ...]], whole: float) -> int:
    """The number of the character that the line begins with before which an image stands."""
    if (image.right - image.left) * (image.top - image.bottom) >= BACKGROUND * whole:
        return 0
    middle = (image.top + image.bottom) / 2
    for place, (left, _, right, top) in enumerate(boxes):
        if top < middle and right > image.left and left < image.right and characters[place].strip():
            before = (other for other in range(place, 0, -1) if characters[other - 1] == "\n")
            return next(before, 0)
    return len(characters)


def _read_characters(text: Any) -> Iterator[str]:
    """The characters of a text layer, with the spaces and line breaks that pdfium puts between."""
    from pypdfium2 import raw  # noqa: PLC0415 - only this child needs the library

    for place in range(text.count_chars()):
        code = raw.FPDFText_GetUnicode(text, place)
        yield chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else ""


def _tidy_text(text: str) -> str:
    """A text without control characters and divided words, with single blanks and at most one empty line."""
    text = CONTROLS.sub("", HYPHEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    return LINES.sub(lambda found: "\n" * min(found[0].count("\n"), 2), BLANKS.sub(" ", text)).strip()


def _extract_image(handle: Any) -> Item:
    """An embedded image as PNG, without its mask, or why not."""
    try:
        bitmap = handle.get_bitmap(render=False)
        image = bitmap.to_pil()
        return encode_png(image if image.mode in {"1", "L", "RGB"} else image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise whatever they run into
        return {"lost": f"{type(error).__name__}: {error}"}
