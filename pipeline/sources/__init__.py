"""Sources: one class per upstream row shape, from an origin file to rows of pages with nodes and pictures.

SOURCES names them for recipes. To add one, write a file with a frozen dataclass that says what a row of its format becomes (see
`source.py` for the formats), and a line in SOURCES. `pipeline/read.py` turns what they yield into samples and the image table;
they know nothing of either.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.sources.cauldron import Cauldron
from pipeline.sources.chat import Chat
from pipeline.sources.evaluation import Evaluation
from pipeline.sources.finevision import FineVision
from pipeline.sources.idl import Idl
from pipeline.sources.interleaved import Interleaved
from pipeline.sources.llava import Llava
from pipeline.sources.obelics import Obelics
from pipeline.sources.pairs import Pairs, PairsWds
from pipeline.sources.pdfa import Pdfa
from pipeline.sources.rendered_text import RenderedText
from pipeline.sources.source import Page, Picture, Row, Source
from pipeline.sources.websight import WebSight

__all__ = ["SOURCES", "Page", "Picture", "Row", "Source"]

SOURCES: Mapping[str, type[Source]] = {
    "cauldron": Cauldron,
    "chat": Chat,
    "evaluation": Evaluation,
    "finevision": FineVision,
    "idl": Idl,
    "interleaved": Interleaved,
    "llava": Llava,
    "obelics": Obelics,
    "pairs": Pairs,
    "pairs_wds": PairsWds,
    "pdfa": Pdfa,
    "rendered_text": RenderedText,
    "websight": WebSight,
}
