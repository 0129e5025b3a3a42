"""The render step: what the filters left, drawn under an image policy and written into shards.

Last of the steps that see a partition's bytes. One pass over its samples; of its images a row group or two are in
memory, and parts that were just made are kept for a while, since web documents repeat their images.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import features

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.meter import note_work
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, IMAGES_FILE, SAMPLES_FILE, SUPPLEMENT_FILE, name_verdicts
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    ImageStats,
    Sample,
    Verdict,
    order_nodes,
    read_image_stats,
    read_samples,
    write_verdicts,
)
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.images import Layout, Policy, Size, Unrenderable
from vlmill.pipeline.images.decode import Undecodable, decode_image
from vlmill.pipeline.images.pixels import encode_image
from vlmill.pipeline.shards.writer import Rendered, ShardSample, ShardWriter
from vlmill.pipeline.steps.image_bytes import Pictures
from vlmill.pipeline.verdicts.apply import Outcome, apply_verdicts, read_verdicts_by_sample
from vlmill.pipeline.verdicts.audit import count_sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MOST_PIXELS = 178_956_970  # Pillow's own limit; image stats has said which images are too large for the recipe
RECENT_BYTES = 32 << 20  # of encoded parts kept for the next sample that shows the same image

SHOWN = ("sha256", "width", "height")
"""The image stats that rendering needs."""


@dataclass(frozen=True, slots=True)
class ChangedTexts:
    """A sample as its shard is to hold it, and what coordinates in its texts mark, by node."""

    sample: Sample
    boxes: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


class Texts:
    """What a policy makes of a sample's texts: nothing. Coordinates are written anew by a class that derives."""

    def change(
        self, row: int, sample: Sample, outcome: Outcome, layouts: Mapping[int, Layout]
    ) -> ChangedTexts | list[Verdict]:
        """The sample with its texts for the layouts of the images that are shown, by node; or verdicts on some."""
        del row, outcome, layouts
        return ChangedTexts(sample)

    def count(self, row: int, outcome: Outcome, counts: Counts) -> None:
        """Count what else there is in a sample."""


@dataclass(frozen=True)
class Render:
    """Writes `<nn>.tar` with index and lineage, and `render.verdicts.parquet`.

    The verdicts are of images, and of texts about them, that only rendering found fault with.

    Those verdicts stand behind all filters' in the order of attribution. Samples stand in the order of samples.parquet.
    """

    policy: Policy
    filters: tuple[str, ...]  # whose verdicts count, in recipe order
    file_number: int  # of the partition, for the keys of samples
    chunk: int
    samples: int = 10_000  # at most, in a shard
    bytes: int = 1 << 30  # at most, of a tar

    name: ClassVar[str] = "render"
    version: ClassVar[int] = 7
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples, images (and what a retry fetched), image stats, and the verdicts of the filters named."""
        tables = (SAMPLES_FILE, IMAGES_FILE, SUPPLEMENT_FILE, IMAGE_STATS_FILE)
        return (*tables, *(name_verdicts(filter_) for filter_ in self.filters))

    def made_by(self) -> Mapping[str, str]:
        """The libraries that render, encode and write."""
        codecs = {name: features.version(name) or "" for name in ("webp", "libjpeg_turbo")}
        return {"pillow": version("pillow"), "pyarrow": version("pyarrow"), **codecs}

    def open_texts(self, inputs: Inputs) -> Texts:
        """What changes texts."""
        del inputs
        return Texts()

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the shards; counts samples, nodes, and images (image nodes). Nothing kept: no shard."""
        counts = {"samples": Count(), "nodes": Count(), "images": Count()}
        verdicts, own = read_verdicts_by_sample(inputs, self.filters), list[Verdict]()
        texts, renderer = (
            self.open_texts(inputs),
            _Renderer(self.policy, read_image_stats(inputs[IMAGE_STATS_FILE], SHOWN), Pictures(inputs)),
        )
        with ShardWriter(folder, self.samples, self.bytes) as shards:
            for row, sample in enumerate(read_samples(inputs[SAMPLES_FILE])):
                outcome, images, found, changed = _render_sample(renderer, texts, row, sample, verdicts.get(row, []))
                own += found
                texts.count(row, outcome, counts)
                note_work(rows=1, failed=len(found))
                count_sample(counts, sample, outcome)
                if outcome.sample is None:
                    key = f"{self.file_number:05d}{self.chunk:04d}{row:06d}"
                    kept = order_nodes(sample.nodes, outcome.kept)
                    shards.add(ShardSample(key, changed.sample, kept, images, changed.boxes))
        write_verdicts(folder / name_verdicts("render"), own)
        return counts


def _render_sample(
    renderer: _Renderer, texts: Texts, row: int, sample: Sample, verdicts: Sequence[Verdict]
) -> tuple[Outcome, tuple[Rendered, ...], list[Verdict], ChangedTexts]:
    """What stays of a sample, its images rendered, verdicts on what cannot be, and its texts.

    A failure may take other nodes along, and layouts may depend on how many images there are: so it is applied again.
    """
    found: list[Verdict] = []
    while True:
        outcome = apply_verdicts(sample, [*verdicts, *found], renderer.image_stats)
        shown = {index: image for index in outcome.kept if (image := sample.nodes[index].image) is not None}
        if outcome.sample is not None:
            return outcome, (), found, ChangedTexts(sample)
        drawn = renderer.draw(list(shown.values())) if shown else ()
        if isinstance(drawn, dict):
            found += [Verdict(row, at, Render.name, drawn[image]) for at, image in shown.items() if image in drawn]
            continue
        layouts = {index: image.layout for index, image in zip(shown, drawn, strict=True)}
        changed = texts.change(row, sample, outcome, layouts)
        if isinstance(changed, ChangedTexts):
            return outcome, drawn, found, changed
        found += changed


@dataclass
class _Renderer:
    """Draws images of a partition by number."""

    policy: Policy
    image_stats: Sequence[ImageStats]
    images: Pictures
    recent: OrderedDict[tuple[int, Layout], Rendered] = field(default_factory=OrderedDict)
    weight: int = 0  # bytes of `recent`

    def draw(self, numbers: Sequence[int]) -> tuple[Rendered, ...] | dict[int, Reason]:
        """All images of one sample, or why some of them cannot be drawn, by number."""
        sizes = [(self.image_stats[number].width, self.image_stats[number].height) for number in numbers]
        try:
            layouts = self.policy.layout(sizes)
        except Unrenderable:
            failed = {
                number: Reason.UNRENDERABLE for number, size in zip(numbers, sizes, strict=True) if not self._fits(size)
            }
            if not failed:  # the policy breaks its promise, and applying verdicts again would change nothing
                raise
            return failed
        drawn = [self._one(number, layout) for number, layout in zip(numbers, layouts, strict=True)]
        broken = {number: image for number, image in zip(numbers, drawn, strict=True) if isinstance(image, Reason)}
        return broken or tuple(image for image in drawn if isinstance(image, Rendered))

    def _fits(self, size: Size) -> bool:
        try:
            self.policy.layout([size])
        except Unrenderable:
            return False
        return True

    def _one(self, number: int, layout: Layout) -> Rendered | Reason:
        """The image from among those just drawn, or drawn now."""
        known = self.recent.get((number, layout))
        if known is not None:
            self.recent.move_to_end((number, layout))
            return known
        drawn = self._anew(number, layout)
        if isinstance(drawn, Rendered):
            self.recent[number, layout] = drawn
            self.weight += _count_bytes(drawn)
        while self.weight > RECENT_BYTES:
            self.weight -= _count_bytes(self.recent.popitem(last=False)[1])
        return drawn

    def _anew(self, number: int, layout: Layout) -> Rendered | Reason:
        try:
            image = decode_image(self.images.read(number), MOST_PIXELS)
        except Undecodable as error:
            return error.reason
        if image.size != layout.size:
            raise StoreError(
                f"image {number} is {image.width} x {image.height} px, but image_stats.parquet says "
                f"{layout.size[0]} x {layout.size[1]}: another decoder made it. Make it anew with: vlmill build "
                "RECIPE --rebuild"
            )
        parts = self.policy.render(image, layout)
        encoded = {part: encode_image(picture, self.policy.quality) for part, picture in parts.items()}
        drawn = Rendered(layout, encoded, self.image_stats[number].sha256)
        note_work(images=1, size=_count_bytes(drawn))
        return drawn


def _count_bytes(image: Rendered) -> int:
    return sum(len(data) for _, data in image.parts.values())
