"""Shape: drops images by side and ratio, and documents by how many images are left.

The bounds published for OBELICS are sides of 150 to 20,000 pixels, ratios up to 2, and 1 to 30 images a document
(Laurencon et al. 2023, arXiv:2306.16527, and its `config_filter_web_documents.yaml`). The defaults are wider in ratio, since banners of
2.5 hold screenshots and panoramas, and a letterbox or tiling policy takes any ratio.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.reasons import Reason
from pipeline.sample import WHOLE_SAMPLE, ImageFacts, Sample, Verdict
from pipeline.settings import STRICT


@dataclass(frozen=True, config=STRICT)
class Shape:
    """Drops image nodes whose size is out of bounds, and samples with too few or too many images left.

    Attributes:
        min_side: pixels of the shorter side; below 32 are spacers, bullets and toolbar icons.
        max_side: pixels of the longer side.
        max_ratio: longer over shorter side; above 10 are rules and borders. A set of text lines needs more.
        min_images: images that a sample must have left, after failures and these bounds.
        max_images: images that it may have left.
    """

    name: ClassVar[str] = "shape"
    version: ClassVar[int] = 1
    facts: ClassVar[tuple[str, ...]] = ("width", "height")

    min_side: int = Field(default=32, ge=1)
    max_side: int = Field(default=20_000, ge=1)
    max_ratio: float = Field(default=10.0, ge=1.0)
    min_images: int = Field(default=0, ge=0)
    max_images: int | None = Field(default=None, ge=0)

    def __post_init__(self) -> None:
        if self.min_side > self.max_side:
            raise ValueError(f"min_side {self.min_side} is above max_side {self.max_side}: no image could pass")
        if self.max_images is not None and self.min_images > self.max_images:
            raise ValueError(
                f"min_images {self.min_images} is above max_images {self.max_images}: no sample could pass"
            )

    def made_by(self) -> Mapping[str, str]:
        """Nothing but this file."""
        return {}

    def judge(self, samples: Iterable[tuple[int, Sample]], facts: Sequence[ImageFacts]) -> Iterator[Verdict]:
        """Verdicts with the offending side in pixels, ratio or number of images as their score.

        Images that failed have no size and get no verdict; they count as lost.
        """
        for row, sample in samples:
            left = 0
            for index, node in enumerate(sample.nodes):
                if node.image is None or facts[node.image].reason is not None:
                    continue
                fault = self._fault(facts[node.image])
                if fault:
                    yield Verdict(row, index, self.name, *fault)
                else:
                    left += 1
            if left < self.min_images:
                yield Verdict(row, WHOLE_SAMPLE, self.name, Reason.TOO_FEW_IMAGES, left)
            elif self.max_images is not None and left > self.max_images:
                yield Verdict(row, WHOLE_SAMPLE, self.name, Reason.TOO_MANY_IMAGES, left)

    def _fault(self, fact: ImageFacts) -> tuple[Reason, float] | None:
        short, long = sorted((fact.width, fact.height))
        if short < self.min_side:
            return Reason.IMAGE_TOO_SMALL, short
        if long > self.max_side:
            return Reason.IMAGE_TOO_LARGE, long
        return (Reason.IMAGE_RATIO, long / short) if long > self.max_ratio * short else None
