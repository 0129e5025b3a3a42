"""Sources: one class per upstream row shape, from an input file to rows of pages with nodes and pictures.

SOURCES names them for recipes. To add one, write a file with a frozen dataclass that says what a row of its format
becomes (see `base.py` for the formats), and a line in SOURCES. `pipeline/steps/read.py` turns what they yield into
samples and the image table; they know nothing of either.
"""

from __future__ import annotations

from collections.abc import Mapping

from vlmill.pipeline.sources.base import OnBadFile, Page, Picture, Source, SourceRow
from vlmill.pipeline.sources.cauldron import Cauldron
from vlmill.pipeline.sources.chat import Chat
from vlmill.pipeline.sources.comm import Comm
from vlmill.pipeline.sources.evaluation import Evaluation
from vlmill.pipeline.sources.finevision import FineVision
from vlmill.pipeline.sources.idl import Idl
from vlmill.pipeline.sources.instructions import Instructions
from vlmill.pipeline.sources.interleaved import Interleaved
from vlmill.pipeline.sources.llava import LlavaSource, WebLlavaSource
from vlmill.pipeline.sources.mint_documents import MintDocuments
from vlmill.pipeline.sources.mmc4 import Mmc4
from vlmill.pipeline.sources.obelics import Obelics
from vlmill.pipeline.sources.pairs import PairsSource, PairsWdsSource
from vlmill.pipeline.sources.pdf import Pdf
from vlmill.pipeline.sources.pdfa import Pdfa
from vlmill.pipeline.sources.rendered_text import RenderedText
from vlmill.pipeline.sources.table import TableSource, WebTableSource
from vlmill.pipeline.sources.web_documents import FileDocuments, WebDocuments
from vlmill.pipeline.sources.websight import WebSight

__all__ = ["SOURCES", "OnBadFile", "Page", "Picture", "Source", "SourceRow", "show_captions"]

SOURCES: Mapping[str, type[Source]] = {
    "cauldron": Cauldron,
    "chat": Chat,
    "comm": Comm,
    "evaluation": Evaluation,
    "file_documents": FileDocuments,
    "finevision": FineVision,
    "idl": Idl,
    "instructions": Instructions,
    "interleaved": Interleaved,
    "llava": LlavaSource,
    "mint_documents": MintDocuments,
    "mmc4": Mmc4,
    "obelics": Obelics,
    "pairs": PairsSource,
    "pairs_wds": PairsWdsSource,
    "pdf": Pdf,
    "pdfa": Pdfa,
    "rendered_text": RenderedText,
    "table": TableSource,
    "web_documents": WebDocuments,
    "web_llava": WebLlavaSource,
    "web_table": WebTableSource,
    "websight": WebSight,
}


def show_captions(source: Source) -> bool:
    """Whether each row is an image with its caption: by its kind, or by the option of a table that names captions."""
    return source.captions or (isinstance(source, TableSource) and bool(source.caption))
