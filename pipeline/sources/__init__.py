"""Sources: one class per upstream row shape, from an origin file to rows of pages with nodes and pictures.

SOURCES names them for recipes. To add one, write a file with a frozen dataclass that has `survey` and `rows`, and a line in
SOURCES. `pipeline/read.py` turns what they yield into samples and the image table; they know nothing of either.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.sources.cauldron import Cauldron
from pipeline.sources.idl import Idl
from pipeline.sources.obelics import Obelics
from pipeline.sources.pdfa import Pdfa
from pipeline.sources.source import Page, Picture, Row, Source

__all__ = ["SOURCES", "Page", "Picture", "Row", "Source"]

SOURCES: Mapping[str, type[Source]] = {
    "cauldron": Cauldron,
    "idl": Idl,
    "obelics": Obelics,
    "pdfa": Pdfa,
}
