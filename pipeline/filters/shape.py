"""Shape: drops images by side, pixels and ratio, and samples by their images and words per image.

The bounds published for OBELICS are sides of 150 to 20,000 pixels, ratios up to 2, and 1 to 30 images a document
(Laurencon et al. 2023, arXiv:2306.16527, and its `config_filter_web_documents.yaml`). The defaults are wider in ratio,
since banners of
2.5 hold screenshots and panoramas, and a letterbox or tiling policy takes any ratio. Words for each image are counted
as in `measures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import LEAST_IMAGES, WHOLE_SAMPLE, ImageStats, Sample, Verdict
from vlmill.pipeline.filters.base import take_sources
from vlmill.pipeline.filters.measures import split_words


@dataclass(frozen=True, config=STRICT)
class ShapeBounds:
    """What images, and samples by their images, must keep to.

    Attributes:
        min_side: pixels of the shorter side; below 32 are spacers, bullets and toolbar icons.
        max_side: pixels of the longer side at most.
        max_ratio: longer over shorter side; above 10 are rules and borders. A set of text lines needs more.
        min_pixels: width times height at least.
        max_pixels: width times height at most.
        min_images: images that a sample must have left, after failures, these bounds and whatever else drops images:
            other filters, dedupe, an image policy that cannot draw them.
        max_images: images that it may have left.
        min_words_per_image: words of all its texts over images left; galleries have few. Asked only where an image is
            left.
        max_words_per_image: the same; books with one cover have many.
    """

    min_side: int = Field(default=32, ge=1)
    max_side: int = Field(default=20_000, ge=1)
    max_ratio: float = Field(default=10.0, ge=1.0)
    min_pixels: int | None = Field(default=None, ge=1)
    max_pixels: int | None = Field(default=None, ge=1)
    min_images: int = Field(default=0, ge=0)
    max_images: int | None = Field(default=None, ge=0)
    min_words_per_image: float | None = Field(default=None, ge=0)
    max_words_per_image: float | None = Field(default=None, ge=0)

    def __post_init__(self) -> None:
        for least, most, thing in (
            ("min_side", "max_side", "image"),
            ("min_pixels", "max_pixels", "image"),
            ("min_images", "max_images", "sample"),
            ("min_words_per_image", "max_words_per_image", "sample"),
        ):
            low, high = getattr(self, least), getattr(self, most)
            if low is not None and high is not None and low > high:
                raise ValueError(f"{least} {low} is above {most} {high}: no {thing} could pass")

    def find_sample_fault(self, sample: Sample, left: int) -> tuple[Reason, float] | None:
        """The fault of a sample with so many images left, if any: reason, and number or words per image."""
        if left < self.min_images:
            return Reason.TOO_FEW_IMAGES, left
        if self.max_images is not None and left > self.max_images:
            return Reason.TOO_MANY_IMAGES, left
        least, most = self.min_words_per_image, self.max_words_per_image
        if not left or (least is None and most is None):
            return None
        density = sum(len(split_words(node.text)) for node in sample.nodes if node.text) / left
        beyond = (least is not None and density < least) or (most is not None and density > most)
        return (Reason.WORDS_PER_IMAGE, density) if beyond else None

    def find_image_fault(self, stats: ImageStats) -> tuple[Reason, float] | None:
        """The fault of an image, if any: reason, and side or area in pixels, or ratio."""
        short, long = sorted((stats.width, stats.height))
        area = short * long
        if short < self.min_side:
            return Reason.IMAGE_TOO_SMALL, short
        if self.min_pixels is not None and area < self.min_pixels:
            return Reason.IMAGE_TOO_SMALL, area
        if long > self.max_side:
            return Reason.IMAGE_TOO_LARGE, long
        if self.max_pixels is not None and area > self.max_pixels:
            return Reason.IMAGE_TOO_LARGE, area
        return (Reason.IMAGE_RATIO, long / short) if long > self.max_ratio * short else None


@dataclass(frozen=True, config=STRICT)
class Shape(ShapeBounds):
    """Drops image nodes whose size is out of bounds, and samples with too few or too many images, or words for each.

    Attributes:
        by_source: other bounds in the place of these, by name of a source or by a pattern such as `cauldron-*`; the
            first that fits counts.
        sources: those that it is asked of, by name or by a pattern; none: all.
    """

    name: ClassVar[str] = "shape"
    version: ClassVar[int] = 2
    image_stats: ClassVar[tuple[str, ...]] = ("width", "height")

    by_source: Mapping[str, ShapeBounds] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def made_by(self) -> Mapping[str, str]:
        """Nothing but this file."""
        return {}

    def decide(self, samples: Iterable[tuple[int, Sample]], image_stats: Sequence[ImageStats]) -> Iterator[Verdict]:
        """Verdicts scored by the offending side or area in pixels, ratio, number of images, or words per image.

        Images that failed have no size and get no verdict; they count as lost.
        """
        for row, sample in take_sources(samples, self.sources):
            bounds, left = self._choose_bounds(sample.id.source), 0
            for index, node in enumerate(sample.nodes):
                if node.image is None or image_stats[node.image].reason is not None:
                    continue
                fault = bounds.find_image_fault(image_stats[node.image])
                if fault:
                    yield Verdict(row, index, self.name, *fault)
                else:
                    left += 1
            fault = bounds.find_sample_fault(sample, left)
            if fault:
                yield Verdict(row, WHOLE_SAMPLE, self.name, *fault)
            elif bounds.min_images:  # more may fall later
                yield Verdict(row, LEAST_IMAGES, self.name, Reason.TOO_FEW_IMAGES, bounds.min_images)

    def _choose_bounds(self, source: str) -> ShapeBounds:
        return next((bounds for name, bounds in self.by_source.items() if fnmatchcase(source, name)), self)
