"""Step `retry` of sources whose rows name image files.

Files that were missing are looked for again, into a supplement.

What `Retry` of pipeline/fetch is to addresses. What is there stays as it is, whatever lies in the folder today.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from vlmill.pipeline.core.names import IMAGES_FILE, SUPPLEMENT_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import IMAGES, read_rows, write_rows
from vlmill.pipeline.core.step import RUNTIME, Count, Counts, Inputs
from vlmill.pipeline.sources.files import Files

NOT_HAD = (Reason.MISSING_FILE, Reason.FORBIDDEN_ADDRESS)
"""What another content of the folder, or another folder, may change."""


@dataclass(frozen=True)
class RetryImages:
    """Step: look once more, and for each `round` once, for the image files that were not had."""

    name: ClassVar[str] = "retry"
    version: ClassVar[int] = 2
    pure: ClassVar[bool] = False

    round: int = 1  # each is a separate task; it reads what the round before it left
    images: str = field(default="", metadata=RUNTIME)  # folder or fsspec URL that paths start from

    @property
    def reads(self) -> tuple[str, ...]:
        """See Step."""
        return (IMAGES_FILE, SUPPLEMENT_FILE)

    def next_round(self) -> Self:
        """The same step, one round later."""
        return replace(self, round=self.round + 1)

    def made_by(self) -> Mapping[str, str]:
        """Nothing that a later round would have to agree with."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write supplement.parquet: rows of images.parquet that have bytes now, those of earlier rounds included.

        They are in image order.

        Counts `retried`: the files looked for, and their outcomes. One image is in memory at a time, besides those of a
        row group.

        Raises:
            SourceError: the folder of images is not there, or a file in it may not be read.
        """
        count, files, before = Count(), Files(self.images), inputs.get(SUPPLEMENT_FILE)
        had = {row["image"] for row in read_rows(before, ["image"])} if before else set()

        def gained() -> Iterator[dict[str, Any]]:
            for row in read_rows(inputs[IMAGES_FILE], ["image", "url", "reason"]):
                if row["image"] in had or row["url"] is None or row["reason"] not in NOT_HAD:
                    continue
                found = files.load(row["url"])
                if found.data is None:
                    count.lose(found.reason or Reason.MISSING_FILE)
                    continue
                count.keep()
                yield {"image": row["image"], "media_type": found.media_type, "bytes": found.data}

        earlier = read_rows(before, batch=32) if before else iter(())
        merged = heapq.merge(earlier, gained(), key=lambda row: row["image"])
        write_rows(folder / SUPPLEMENT_FILE, IMAGES, merged)
        return {"retried": count}
