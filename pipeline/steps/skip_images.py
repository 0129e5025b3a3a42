"""Step `skip_images`: images that are not fetched, since filters of texts drop all that shows them.

Between read and fetch, where the recipe has `fetch.after`. Fetch reads what it leaves as a side input: an image that
was fetched stays, whatever filters say later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from vlmill.pipeline.core.names import IMAGES_FILE, SAMPLES_FILE, SKIPPED_IMAGES_FILE, name_verdicts
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import ImageStats, read_rows, read_samples, write_rows
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.verdicts.apply import apply_verdicts, read_verdicts_by_sample

SKIPPED_IMAGES = pa.schema(
    [
        pa.field("image", pa.int32(), nullable=False),  # its row in images.parquet
        pa.field("reason", pa.string(), nullable=False),  # a Reason: why a node that shows it is lost
    ]
)
"""The table that it leaves."""


@dataclass(frozen=True)
class SkipImages:
    """Names the addresses of which every document, or every turn, is dropped by filters that look at texts alone.

    More verdicts and images that fail never bring a node back (`apply_verdicts`), so what is lost here is lost in the
    end, however its images might have come out.
    """

    name: ClassVar[str] = "skip_images"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    filters: tuple[str, ...]  # whose verdicts count, in the order in which they count

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples, the addresses of their images, and the verdicts."""
        return (SAMPLES_FILE, IMAGES_FILE, *map(name_verdicts, self.filters))

    def made_by(self) -> Mapping[str, str]:
        """Nothing that could differ."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write skipped_images.parquet, in the order of images.

        Counts `to_fetch`: addresses of images.parquet of which neither bytes nor a failure is known. Memory grows with
        the images of the partition by some bytes each.
        """
        lost = _find_lost_images(inputs, self.filters)
        count = Count()

        def skipped() -> Iterator[dict[str, Any]]:
            for row in read_rows(inputs[IMAGES_FILE], ["image", "url", "reason", "bytes"], batch=32):
                if row["url"] is None or row["reason"] is not None or row["bytes"] is not None:
                    continue
                if row["image"] not in lost:
                    count.keep()
                    continue
                count.lose(Reason.NOT_FETCHED)
                yield {"image": row["image"], "reason": str(lost[row["image"]])}

        write_rows(folder / SKIPPED_IMAGES_FILE, SKIPPED_IMAGES, skipped())
        return {"to_fetch": count}


def _find_lost_images(inputs: Inputs, filters: tuple[str, ...]) -> dict[int, Reason]:
    """Image -> why the first node that shows it is lost, of those that no node shows which is kept."""
    reasons = (row["reason"] for row in read_rows(inputs[IMAGES_FILE], ["reason"]))
    known = [ImageStats(image, reason and Reason(reason)) for image, reason in enumerate(reasons)]
    verdicts = read_verdicts_by_sample(inputs, filters)
    lost, kept = dict[int, Reason](), set[int]()
    for row, sample in enumerate(read_samples(inputs[SAMPLES_FILE])):
        outcome = apply_verdicts(sample, verdicts.get(row, ()), known)
        for node, reason in zip(sample.nodes, outcome.nodes, strict=True):
            if node.image is None:
                continue
            if reason is None:
                kept.add(node.image)
            else:
                lost.setdefault(node.image, reason)
    return {image: reason for image, reason in lost.items() if image not in kept}
