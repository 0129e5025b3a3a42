"""Pages of a PDF or TIFF as pictures.

Runs in a child process: pdfium and libtiff are native code over files from anywhere.
"""

from __future__ import annotations

import ctypes
import io
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Literal

from PIL import Image

from vlmill.pipeline.images.decode import MAX_PIXELS, check_pixels, count_frames, open_image, to_rgb

Form = Literal["pdf", "tif"]

MAX_SCALE = 300 / 72
"""300 dpi: a page of a few points is not blown up to `long_side`."""

PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
"""What PNG holds as it is."""

NO_FONT_FOLDERS = (ctypes.POINTER(ctypes.c_char) * 1)()
"""An empty list for pdfium, which keeps the pointer."""


def render_pages(form: Form, data: bytes, count: int, wanted: Sequence[int], long_side: int) -> Iterator[bytes | str]:
    """One item per wanted page, in order: its picture, or why there is none.

    A PDF page becomes a PNG. A frame of a TIFF becomes a PNG without loss, unless it is the only one: then the TIFF
    stays as it came.

    Args:
        form: What `data` is.
        data: The whole document.
        count: How many pages it must have. If it has others, no page can be trusted to be the one that its text is of.
        wanted: Page numbers from 0, rising.
        long_side: Pixels of a PDF page's longer side; TIFF frames keep their size.
    """
    document: Any = None
    try:
        document = open_pdf(data) if form == "pdf" else open_image(data, formats=("TIFF",))
        found = len(document) if form == "pdf" else count_frames(document)
        trouble = "" if found == count else f"text of {count} pages beside a {form} of {found}"
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise whatever they run into
        trouble = f"{type(error).__name__}: {error}"
    for number in wanted:
        if trouble:
            yield trouble
        elif form == "tif" and count == 1:
            yield data
        else:
            yield _render_picture(form, document, number, long_side)


def open_pdf(data: bytes) -> Any:
    """A PdfDocument of pypdfium2. Raises PdfiumError for what is none, or wants a password."""
    return _load_pdfium().PdfDocument(data)


@cache
def _load_pdfium() -> Any:
    """pypdfium2 with no fonts but pdfium's own 14: fonts of the machine would make pages differ by worker."""
    import pypdfium2  # noqa: PLC0415 - only this child needs the library
    from pypdfium2 import raw  # noqa: PLC0415

    raw.FPDF_DestroyLibrary()  # the import has set it up with the machine's fonts
    raw.FPDF_InitLibraryWithConfig(raw.FPDF_LIBRARY_CONFIG(version=2, m_pUserFontPaths=NO_FONT_FOLDERS))
    return pypdfium2


def _render_picture(form: Form, document: Any, number: int, long_side: int) -> bytes | str:
    """One page as PNG, or why not: one bad page does not spoil the others."""
    try:
        return encode_png(render_page(document[number], long_side) if form == "pdf" else _read_frame(document, number))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise whatever they run into
        return f"{type(error).__name__}: {error}"


def render_page(page: Any, long_side: int) -> Image.Image:
    """A PDF page on white; grey where it has no colour.

    Forms are not filled in: the texts of upstream do not have them.

    Raises ValueError for a page that comes out empty: it has text, so a font is missing, and it is unreadable
    there.
    """
    longest = max(page.get_size())
    if not 0 < longest < math.inf:
        raise ValueError(f"its longer side has {longest:g} points")
    bitmap = page.render(scale=min(long_side / longest, MAX_SCALE), rev_byteorder=True)
    image: Image.Image = bitmap.to_pil()
    if image.getcolors(1):
        raise ValueError("it has text and comes out empty: its fonts are neither embedded nor among the standard 14")
    red, green, blue = image.split()
    return red if red.tobytes() == green.tobytes() == blue.tobytes() else image


def _read_frame(image: Image.Image, number: int) -> Image.Image:
    """A frame of a TIFF, in its own mode if PNG has that."""
    image.seek(number)
    check_pixels(image, MAX_PIXELS)
    image.load()
    return image.copy() if image.mode in PNG_MODES else to_rgb(image)


def encode_png(image: Image.Image) -> bytes:
    """The pixels alone: no profile, resolution or text. On text pages level 3 is a third faster than 6, and smaller."""
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
