"""The render step of a source with coordinates in its texts: they are written as each policy shows the images.

Beside render.py, and the last place where they change: lengths, plans, trainer, cards and exports of a stage read the
texts of shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from vlmill.pipeline.boxes.regions import Region, read_regions
from vlmill.pipeline.boxes.settings import ModelBoxes, SourceBoxes
from vlmill.pipeline.boxes.writing import BoxWriter, PlacedRegion
from vlmill.pipeline.core.names import REGIONS_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Sample, Verdict, order_nodes
from vlmill.pipeline.core.step import Count, Counts, Inputs, get_parameters
from vlmill.pipeline.images import Layout
from vlmill.pipeline.steps.render import ChangedTexts, Render, Texts
from vlmill.pipeline.verdicts.apply import Outcome


@dataclass(frozen=True)
class RenderBoxes(Render):
    """The same, with texts whose coordinates are of what the policy shows.

    A text falls with a region that the policy cuts away, or whose image is lost: its verdict stands in
    `render.verdicts.parquet` beside those on images. Also counts `boxes`, each with the fate of its text, and among
    those kept `clipped_boxes`, of which the view shows a part.
    """

    boxes: SourceBoxes = field(kw_only=True)
    model: ModelBoxes = field(kw_only=True)

    version: ClassVar[int] = 3  # of this class: what it takes over from Render changes it, too

    @property
    def reads(self) -> tuple[str, ...]:
        """The same, and the regions of texts."""
        return (*super().reads, REGIONS_FILE)

    def open_texts(self, inputs: Inputs) -> Texts:
        """The texts with their regions."""
        writer = BoxWriter(self.boxes, self.model, self.policy)
        return _MarkedTexts(writer, read_regions(inputs[REGIONS_FILE]))


def add_boxes(render: Render, boxes: SourceBoxes | None, model: ModelBoxes | None) -> Render:
    """The render step of a source whose texts may hold coordinates; the same one where they do not."""
    if boxes is None:
        return render
    return RenderBoxes(**get_parameters(render), boxes=boxes, model=model or ModelBoxes())


@dataclass
class _MarkedTexts(Texts):
    """The regions of a partition, by sample."""

    writer: BoxWriter
    regions: Mapping[int, Sequence[Region]]
    clipped: Counter[int] = field(default_factory=Counter)  # node -> regions, of the sample that was written last

    def change(
        self, row: int, sample: Sample, outcome: Outcome, layouts: Mapping[int, Layout]
    ) -> ChangedTexts | list[Verdict]:
        """Each text that stays with its regions as the policy shows them."""
        self.clipped.clear()
        by_node = dict[int, list[tuple[Region, PlacedRegion]]]()
        lost = dict[int, Reason]()
        for region in self.regions.get(row, ()):
            if outcome.nodes[region.node] is not None:
                continue
            layout = layouts.get(region.image)
            placed = self.writer.place(region, layout) if layout is not None else None
            if placed is None:
                lost[region.node] = Reason.BOX_CUT_AWAY if layout is not None else Reason.BOX_WITHOUT_IMAGE
            else:
                by_node.setdefault(region.node, []).append((region, placed))
        if lost:
            return [Verdict(row, node, Render.name, reason) for node, reason in lost.items()]
        if not by_node:
            return ChangedTexts(sample)
        nodes, described = list(sample.nodes), dict[int, list[dict[str, Any]]]()
        places = {node: place for place, node in enumerate(order_nodes(sample.nodes, outcome.kept))}
        for node, found in by_node.items():
            text, written = self.writer.write(nodes[node].text or "", found, layouts)
            nodes[node] = replace(nodes[node], text=text)
            self.clipped[node] = sum(placed.clipped for _, placed in found)
            described[node] = [
                placed.to_json(places[placed.image]) | one.to_json()
                for (_, placed), one in zip(found, written, strict=True)
            ]
        return ChangedTexts(replace(sample, nodes=tuple(nodes)), described)

    def count(self, row: int, outcome: Outcome, counts: Counts) -> None:
        """Each region with the fate of its text."""
        boxes, clipped = counts.setdefault("boxes", Count()), counts.setdefault("clipped_boxes", Count())
        for region in self.regions.get(row, ()):
            reason = outcome.nodes[region.node]
            if reason is None:
                boxes.keep()
            else:
                boxes.lose(reason)
        if outcome.sample is None:
            clipped.keep(sum(number for node, number in self.clipped.items() if outcome.nodes[node] is None))
        self.clipped.clear()
