"""Image quality: drops images that show nothing, or nothing clearly. Sizes are the business of `shape`.

Two image stats of the one decode decide (`pipeline/steps/image_stats.py`): how much luminance varies, and how much its
Laplacian does, which is low where edges are soft (Pech-Pacheco et al., ICPR 2000; data-juicer and NeMo Curator filter
interleaved data by it). Their scales:

    contrast     0 one flat colour, 0.7 a page number on a white page, 25 to 60 photographs and screenshots,
                 127.5 half black, half white
    sharpness    0 flat, 5 soft shapes on one colour, 100 a blurred photograph, above 500 most others
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import ImageStats, Sample, Verdict
from vlmill.pipeline.filters.base import take_sources


@dataclass(frozen=True, config=STRICT)
class ImageQuality:
    """Drops image nodes by contrast and sharpness; None asks for nothing.

    Attributes:
        min_contrast: standard deviation of luminance, of 0 to 255. With the default flat colours go and a dot on a page
            stays. Colours of one luminance look alike to it: raise it with care where shapes are asked about.
        min_sharpness: variance of the Laplacian of luminance, at a longer side of 256 pixels at most. Off by default:
            drawings and diagrams have large flat areas, and lie as low as blurred photographs.
        sources: those that it is asked of, by name or by a pattern such as `cauldron-*`; none: all.
    """

    name: ClassVar[str] = "image_quality"
    version: ClassVar[int] = 1
    image_stats: ClassVar[tuple[str, ...]] = ("contrast", "sharpness")

    min_contrast: Annotated[float, Field(ge=0)] | None = 0.25
    min_sharpness: Annotated[float, Field(ge=0)] | None = None
    sources: tuple[str, ...] = ()

    def made_by(self) -> Mapping[str, str]:
        """Nothing but this file."""
        return {}

    def decide(self, samples: Iterable[tuple[int, Sample]], image_stats: Sequence[ImageStats]) -> Iterator[Verdict]:
        """Verdicts with the contrast or sharpness as their score. Images that failed get none."""
        for row, sample in take_sources(samples, self.sources):
            for index, node in enumerate(sample.nodes):
                if node.image is not None and image_stats[node.image].reason is None:
                    fault = self._fault(image_stats[node.image])
                    if fault:
                        yield Verdict(row, index, self.name, *fault)

    def _fault(self, stats: ImageStats) -> tuple[Reason, float] | None:
        if self.min_contrast is not None and stats.contrast < self.min_contrast:
            return Reason.BLANK_IMAGE, stats.contrast
        if self.min_sharpness is not None and stats.sharpness < self.min_sharpness:
            return Reason.BLURRED_IMAGE, stats.sharpness
        return None
