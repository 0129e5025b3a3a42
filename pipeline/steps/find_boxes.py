"""Step `boxes`: coordinates that stand in texts, where a source of the recipe has some, and what is wrong with them.

After image stats and before filters; what an image policy makes of them is for render (render_boxes.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from vlmill.pipeline.boxes.forms import UnreadableRegionError
from vlmill.pipeline.boxes.reading import OutsideFrameError, StoredImage, find_image, read_region
from vlmill.pipeline.boxes.regions import MOST_REGIONS, Region, find_spans, write_regions
from vlmill.pipeline.boxes.settings import SourceBoxes
from vlmill.pipeline.core.meter import note_work
from vlmill.pipeline.core.names import (
    IMAGE_STATS_FILE,
    IMAGES_FILE,
    REGIONS_FILE,
    SAMPLES_FILE,
    SUPPLEMENT_FILE,
    name_verdicts,
)
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import ImageStats, Sample, Verdict, read_image_stats, read_samples, write_verdicts
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.images.decode import open_image, read_orientation
from vlmill.pipeline.steps.image_bytes import Pictures


@dataclass(frozen=True)
class FindBoxes:
    """Leaves `boxes.parquet`, and `boxes.verdicts.parquet` with a verdict on each text one of whose regions is bad.

    Both are empty for a source without coordinates, so that every source has verdicts of the same steps. Counts
    regions under `boxes`.
    """

    boxes: SourceBoxes | None

    name: ClassVar[str] = "boxes"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples and image stats, and the images where the turn that their EXIF asks for matters."""
        turned = self.boxes is not None and not self.boxes.upright
        return (SAMPLES_FILE, IMAGE_STATS_FILE, *((IMAGES_FILE, SUPPLEMENT_FILE) if turned else ()))

    def made_by(self) -> Mapping[str, str]:
        """The library that searches and writes."""
        return {"pyarrow": version("pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Find every region of every text."""
        count, verdicts = Count(), list[Verdict]()
        regions = () if self.boxes is None else _find_regions(inputs, self.boxes, count, verdicts)
        write_regions(folder / REGIONS_FILE, regions)
        write_verdicts(folder / name_verdicts(self.name), verdicts)
        return {"boxes": count}


def _find_regions(
    inputs: Inputs, boxes: SourceBoxes, count: Count, verdicts: list[Verdict]
) -> Iterator[tuple[int, Region]]:
    """The sound regions with the row of their sample; counts them and the others, and adds verdicts on the latter."""
    images = _StoredImages(read_image_stats(inputs[IMAGE_STATS_FILE], ("width", "height")), inputs, boxes)
    for row, sample in enumerate(read_samples(inputs[SAMPLES_FILE])):
        places = [place for place, node in enumerate(sample.nodes) if node.text and node.after is None]
        texts = [sample.nodes[place].text or "" for place in places]
        lost = 0
        for place, text, spans in zip(places, texts, find_spans(texts, boxes.notation.pattern), strict=True):
            found = _read_regions(sample, place, text, spans, boxes, images)
            if isinstance(found, list):
                count.keep(len(found))
                yield from ((row, region) for region in found)
                continue
            reason, score = found
            count.lose(reason, len(spans))
            verdicts.append(Verdict(row, place, FindBoxes.name, reason, score))
            lost += 1
        note_work(rows=1, failed=lost)


def _read_regions(
    sample: Sample, place: int, text: str, spans: Sequence[tuple[int, int]], boxes: SourceBoxes, images: _StoredImages
) -> list[Region] | tuple[Reason, float]:
    """The regions of a text, or why it is bad and by how much."""
    if not spans:
        return []
    if len(spans) > MOST_REGIONS:
        return Reason.BAD_BOX, float(len(spans))
    at = find_image(sample.nodes, place, boxes)
    image = images.find(sample.nodes[at].image) if at is not None else None
    if at is None or image is None:
        return Reason.BOX_WITHOUT_IMAGE, 0.0
    try:
        return [Region(place, first, last, at, read_region(text[first:last], boxes, image)) for first, last in spans]
    except OutsideFrameError as error:
        return Reason.BAD_BOX, error.excess
    except UnreadableRegionError:
        return Reason.BAD_BOX, 0.0


class _StoredImages:
    """The images of a partition by number."""

    def __init__(self, stats: Sequence[ImageStats], inputs: Inputs, boxes: SourceBoxes) -> None:
        self.stats = stats
        self.pictures = None if boxes.upright else Pictures(inputs)

    def find(self, number: int | None) -> StoredImage | None:
        """An image that could be decoded; None for any other."""
        if number is None or self.stats[number].reason is not None:
            return None
        size = (self.stats[number].width, self.stats[number].height)
        if self.pictures is None:
            return StoredImage(size)
        return StoredImage(size, read_orientation(open_image(self.pictures.read(number))))
