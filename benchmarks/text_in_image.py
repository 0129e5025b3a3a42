"""How well the signal `text_in_image` reads, whether it tells Chinese from its neighbours, and what it costs.

    python -m benchmarks.text_in_image [--font FILE] [--corpus DIR] [--pictures 24] [--pages 12] [--longest 1280]

Pictures are drawn with sentences in five languages, in small and large letters on plain, dark and uneven ground, with a
font that has Han characters (`apt-get install fonts-noto-cjk`; without one this part is left out). DIR may hold
scanned receipts with their lines (`documents/idl_sroie/*.tar`: tif and json) and PDFs with theirs
(`documents/pdfa_debian/*.tar`: pdf and json), whose pages are drawn at 150 dpi. Recall and precision are of letters
and digits and of words, as multisets, without case and width. A picture is called Chinese above 0.2.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tarfile
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from benchmarks.hard_set import sentence
from vlmill.pipeline.images.decode import decode_image
from vlmill.pipeline.signals.text_in_image import TextInImage, measure_han

FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/opentype/noto/NotoSerifCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
)
FACES = {"zh-Hans": 2, "zh-Hant": 3, "ja": 0, "ko": 1, "en": 0}  # of a Noto collection
LIMIT = 0.2  # of words in Chinese lines, from which on a picture is called Chinese
DPI = 150


@dataclass(frozen=True)
class Page:
    """A picture whose text is known."""

    kind: str
    image: Image.Image
    lines: Sequence[str]


@dataclass
class Figures:
    """What was read of the pictures of one kind."""

    pictures: int = 0
    chinese: int = 0
    seconds: float = 0.0
    hits: Counter[str] = field(default_factory=Counter)  # of characters and words: known, read, both

    def add(self, page: Page, read: Sequence[str], *, chinese: bool, seconds: float) -> None:
        """Count a picture."""
        self.pictures, self.chinese, self.seconds = (
            self.pictures + 1,
            self.chinese + chinese,
            self.seconds + seconds,
        )
        for unit in ("characters", "words"):
            known, found = (Counter(split_text(lines, unit)) for lines in (page.lines, read))
            self.hits[f"{unit} known"] += known.total()
            self.hits[f"{unit} read"] += found.total()
            self.hits[f"{unit} both"] += (known & found).total()

    def share(self, unit: str, of: str) -> str:
        """Recall (of what is known) or precision (of what was read)."""
        whole = self.hits[f"{unit} {of}"]
        return f"{self.hits[f'{unit} both'] / whole:.1%}" if whole else "-"


def split_text(lines: Iterable[str], unit: str) -> Iterator[str]:
    """The letters and digits of lines, or their runs, without case and width: leader dots are no text."""
    for word in re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", " ".join(lines)).casefold()):
        yield from word if unit == "characters" else (word,)


def draw_pages(font: Path, most: int) -> Iterator[Page]:
    """Pictures of sentences: `most` in each language."""
    for language, face in FACES.items():
        for number in range(most):
            chance = random.Random(f"{language} {number}")
            size, width = chance.choice((12, 16, 22, 32)), chance.choice((320, 480, 640))
            letters = ImageFont.truetype(font, size, index=face if font.suffix == ".ttc" else 0)
            lines = [
                line for n in range(3) for line in wrap_text(sentence(language, 5 * number + n), letters, width - 20)
            ]
            image, ink = make_ground(chance, (width, 20 + len(lines) * size * 3 // 2))
            pen = ImageDraw.Draw(image)
            for place, line in enumerate(lines):
                pen.text((10, 8 + place * size * 3 // 2), line, ink, letters)
            yield Page(f"drawn {language}", image, lines)


def wrap_text(text: str, letters: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """A text in lines that fit."""
    parts = text.split(" ") if " " in text else list(text)
    joint, lines = " " if " " in text else "", [""]
    for part in parts:
        longer = joint.join(filter(None, (lines[-1], part)))
        if letters.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return [line for line in lines if line]


def make_ground(chance: random.Random, size: tuple[int, int]) -> tuple[Image.Image, str]:
    """A plain, dark or uneven ground, and a colour that is legible on it."""
    kind = chance.choice(("plain", "dark", "uneven"))
    if kind != "uneven":
        return (
            (Image.new("RGB", size, "white"), "black")
            if kind == "plain"
            else (Image.new("RGB", size, "#203040"), "#e0f0c0")
        )
    noise = np.random.default_rng(chance.randrange(1 << 30)).integers(120, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), "#101030"


def read_receipts(path: Path) -> Iterator[Page]:
    """Scanned receipts with the lines that people typed."""
    for name, data, about in _read_pairs(path, ".tif"):
        del name
        yield Page("receipts (scans)", decode_image(data), about["pages"][0]["text"])


def read_pdf_pages(path: Path, most: int) -> Iterator[Page]:
    """Pages of PDFs with their lines: up to `most` of each language."""
    taken = Counter[str]()
    for _, data, about in _read_pairs(path, ".pdf"):
        document = pypdfium2.PdfDocument(data)
        for number in range(5, len(about["pages"]), 4):
            lines = about["pages"][number]["lines"]["text"]
            kind = f"PDF pages {find_language(' '.join(lines))}"
            if sum(map(len, lines)) > 200 and taken[kind] < most:
                taken[kind] += 1
                yield Page(kind, document[number].render(scale=DPI / 72).to_pil().convert("RGB"), lines)


def find_language(text: str) -> str:
    """The language of a page of a manual."""
    if any("぀" < letter < "ヿ" for letter in text):
        return "ja"
    return "zh" if measure_han([text]) > 0.2 else "en"


def _read_pairs(path: Path, ending: str) -> Iterator[tuple[str, bytes, Any]]:
    """Name, bytes and description of the members of a tar."""
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar.getmembers()}
        for name in sorted(name for name in members if name.endswith(ending)):
            files = (tar.extractfile(members[one]) for one in (name, name.removesuffix(ending) + ".json"))
            data, about = (file.read() for file in files if file is not None)
            yield name, data, json.loads(about)


def measure_pages(pages: Iterable[Page], signal: TextInImage) -> dict[str, Figures]:
    """Figures by kind of page."""
    model, found = signal.load(), dict[str, Figures]()
    for page in pages:
        drawn = signal.view().draw(page.image)
        start = time.process_time()
        values, detections = signal.look(model, drawn)
        seconds = time.process_time() - start
        chinese = dict(zip(signal.values, values, strict=True))["chinese"] > LIMIT
        read = [one.text for one in detections]
        found.setdefault(page.kind, Figures()).add(page, read, chinese=chinese, seconds=seconds)
    return found


def main() -> None:
    """Print a line for each kind of page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_in_image", description=__doc__.splitlines()[0])
    parser.add_argument("--font", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--pages", type=int, default=12)
    parser.add_argument("--longest", type=int, default=TextInImage.longest)
    given = parser.parse_args()
    font = given.font or next((path for path in map(Path, FONTS) if path.exists()), None)
    pages = list(draw_pages(font, given.pictures)) if font else []
    if font is None:
        print("no font with Han characters: apt-get install fonts-noto-cjk, or --font FILE")
    for path in sorted(given.corpus.glob("documents/idl_sroie/*.tar")) if given.corpus else ():
        pages += islice(read_receipts(path), given.pages)
    for path in sorted(given.corpus.glob("documents/pdfa_debian/*.tar")) if given.corpus else ():
        pages += read_pdf_pages(path, given.pages)
    table = Table(
        "pictures",
        "number",
        *(f"{unit}: {side}" for unit in ("characters", "words") for side in ("recall", "precision")),
        "called Chinese",
        "CPU s each",
    )
    for kind, one in measure_pages(pages, TextInImage(longest=given.longest)).items():
        shares = (one.share(unit, of) for unit in ("characters", "words") for of in ("known", "read"))
        table.add_row(kind, f"{one.pictures}", *shares, f"{one.chinese}", f"{one.seconds / one.pictures:.2f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
