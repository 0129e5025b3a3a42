"""The scans and leaflets of the quickstart data as rows of tars, with what is planted among them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

from tools.quickstart.album import SEED, Album
from tools.quickstart.pages import (
    Sheet,
    draw,
    idl,
    leaflet,
    notice,
    pdf,
    pdfa,
    receipt,
    scanned,
    tif,
)
from tools.quickstart.plants import Member, Plant, Row, Twins
from tools.quickstart.tables import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    from tools.quickstart.web import Web

NOTICES, RECEIPTS, BUNDLES = 48, 46, 12
LEAFLETS = 28
MAX_PAGES = 4
"""Of a leaflet, as `quickstart.yaml` has it."""


@dataclass(slots=True)
class Shelf:
    """The documents so far and the duplicates among them."""

    album: Album
    rows: list[Row] = field(default_factory=list)
    twins: list[Twins] = field(default_factory=list)
    sheets: dict[str, list[Sheet]] = field(default_factory=dict)  # by row

    def scan(self, name: str, makers: Sequence[Callable[[int, Random], Sheet]], number: int) -> Row:
        """A tif of one page per maker, each laid out again until it looks unlike all other pictures."""
        pages = [self.page(f"{name}/{place}", maker, number * 3 + place) for place, maker in enumerate(makers)]
        self.sheets[name] = [sheet for sheet, _ in pages]
        row = Row(name, {"tif": tif([image for _, image in pages]), "json": idl(self.sheets[name])})
        self.rows.append(row)
        return row

    def page(self, name: str, maker: Callable[[int, Random], Sheet], number: int) -> tuple[Sheet, Image.Image]:
        """A page that looks like no other."""
        for attempt in range(1000):
            rng = Random(f"{SEED}/scans/{name}/{attempt}")
            sheet = maker(number, rng)
            if self.album.add(draw(sheet)):
                return sheet, scanned(sheet, rng)
        raise RuntimeError(f"{name}: no layout in 1000 looks unlike all other pictures")

    def publish(self, name: str, pages: int, missing: int = -1) -> Row:
        """A PDF of leaflet pages, page `missing` without its object."""
        first = sum(map(len, self.sheets.values()))
        sheets = self.sheets[name] = [self.page(f"{name}/{page}", leaflet, first + page)[0] for page in range(pages)]
        row = Row(name, {"pdf": pdf(sheets, missing), "json": pdfa(sheets)})
        self.rows.append(row)
        return row


def scans(album: Album) -> Shelf:
    """All scans, in the order in which they were planted; `generate.py` mixes them."""
    shelf = Shelf(album)
    for index in range(NOTICES):
        shelf.scan(f"notice-{index}", [notice], index)
    for index in range(RECEIPTS):
        shelf.scan(f"receipt-{index}", [receipt], index)
    for index in range(BUNDLES):
        shelf.scan(f"bundle-{index}", [receipt] * (2 + index % 2), RECEIPTS + index)
    _scanned_twice(shelf)
    _bad_scans(shelf)
    return shelf


def _scanned_twice(shelf: Shelf) -> None:
    """The same receipt again: the same file, or another scan of it, a tenth larger and with other specks."""
    rows = {row.name: row for row in shelf.rows}
    for index in range(6):
        name = f"receipt-{7 * index}"
        content, reason, why = rows[name].content, "exact_image", "the same file"
        if index % 2:
            reason, why = "near_image", "the same receipt, scanned again"
            page = scanned(shelf.sheets[name][0], Random(f"{SEED}/again/{index}"))
            larger = page.resize((page.width * 11 // 10, page.height * 11 // 10))
            content = {**content, "tif": tif([larger])}
        shelf.rows.append(Row(f"again-{index}", content))
        shelf.twins.append(Twins(reason, why, (Member(name, page=0), Member(f"again-{index}", page=0))))


def _bad_scans(shelf: Shelf) -> None:
    """Scans whose parts are missing or do not fit."""
    torn = shelf.scan("torn", [receipt], 70)
    torn.content["tif"] = torn.content["tif"][: len(torn.content["tif"]) // 3]
    torn.plants.append(Plant("failed", "bad_page", "a tif cut off in the middle", page=0))
    mute = shelf.scan("mute", [receipt], 71)
    del mute.content["json"]
    mute.plants.append(Plant("failed", "bad_row", "a tif without its json"))
    garbled = shelf.scan("garbled", [receipt], 72)
    garbled.content["json"] = garbled.content["json"][:-9]
    garbled.plants.append(Plant("failed", "bad_row", "json cut off"))
    short = shelf.scan("short", [receipt] * 2, 73)
    short.content["json"] = idl(shelf.sheets["short"][:1])
    short.plants.append(Plant("failed", "bad_page", "text of one page beside a tif of two", page=0))
    blank = shelf.scan("blank", [receipt] * 3, 74)
    sheets = shelf.sheets["blank"]
    blank.content["json"] = idl([sheets[0], replace(sheets[1], lines=()), sheets[2]])
    blank.plants.append(Plant("failed", "empty_row", "a page without text; the pages around it stay", page=1))


def papers(album: Album) -> Shelf:
    """All leaflets, some with a page that does not exist, too many pages, or nothing that could be read."""
    shelf = Shelf(album)
    for index in range(LEAFLETS):
        shelf.publish(f"leaflet-{index}", 1 + index % 4)
    for index in range(2):
        row = shelf.publish(f"holed-{index}", 3, missing=1)
        row.plants.append(
            Plant("failed", "bad_page", "a page whose object does not exist; the pages around it stay", page=1)
        )
    row = shelf.publish("thick", MAX_PAGES + 1)
    row.plants.append(
        Plant("dropped", "page_cap", f"past the {MAX_PAGES} pages that the recipe allows", page=MAX_PAGES)
    )
    row = shelf.publish("no-pdf", 1)
    row.content["pdf"] = b"%PDF-1.4\nnothing\n"
    row.plants.append(Plant("failed", "bad_page", "no PDF at all", page=0))
    return shelf


def copy_out(web: Web, shelf: Shelf) -> None:
    """Put the text of leaflet pages into web documents.

    A page with its picture is another thing than its text: both stay.
    """
    for index in range(4):
        text = "\n".join(shelf.sheets[f"leaflet-{4 * index + 3}"][index].text())
        web.rows.append(
            Row(f"copied-out-{index}", [Slot(text=text)], [Plant("kept", "", "the text of a leaflet's page")])
        )
