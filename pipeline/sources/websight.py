"""WebSight: Parquet of screenshots of made-up web pages and the HTML behind them.

HuggingFaceM4/WebSight, arXiv 2403.09029.

The idea that a model wrote each page from (`llm_generated_idea`, in v0.2) is not read: it says more than can be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.sources.base import Page
from vlmill.pipeline.sources.formats.parquet import IMAGE, Columns, ParquetSource, read_picture
from vlmill.pipeline.sources.pairs import make_pair_page


@dataclass(frozen=True, config=STRICT)
class WebSight(ParquetSource):
    """Screenshots to be written down as code."""

    kind: ClassVar[str] = "websight"

    def columns(self) -> Columns:
        """Those of both versions."""
        return {"image": IMAGE, "text": pa.string()}

    def page(self, row: Mapping[str, Any]) -> Page:
        """The screenshot, then its HTML; BAD_ROW without the one, EMPTY_ROW without the other."""
        return make_pair_page(read_picture(0, row["image"]), row["text"], row["image"]["path"])
