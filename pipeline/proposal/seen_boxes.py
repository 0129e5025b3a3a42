"""Coordinates that the first texts of a source seem to hold: the texts with the sizes of their images, and what to say.

For `vlmill new` (proposal.py), which has pages of rows, and `vlmill check` (sample_costs.py), which has tables of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmill.pipeline.boxes.recognition import SeenBoxes, SeenText, recognise_boxes
from vlmill.pipeline.core.confined import FileRefused, open_confined, read_bounded
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE
from vlmill.pipeline.core.sample import Node, read_image_stats, read_samples
from vlmill.pipeline.core.yaml_format import format_yaml_inline
from vlmill.pipeline.images.decode import Undecodable, open_image, read_orientation
from vlmill.pipeline.images.policy import Size
from vlmill.pipeline.sources import Page
from vlmill.pipeline.sources.base import Picture

LARGEST = 64 << 20
"""Bytes of an image file that is opened for its size."""
MOST = 4000
"""Texts that are looked at."""


def recognise_in_pages(pages: Sequence[Page], images: str | None) -> list[SeenBoxes]:
    """What the texts of rows seem to hold; `images` is the folder in which the image files lie that rows name."""
    texts = list[SeenText]()
    for page in pages:
        sizes = {number: _measure_picture(picture, images) for number, picture in enumerate(page.pictures)}
        texts += _list_texts(page.nodes, sizes)
    return recognise_boxes(texts[:MOST])


def recognise_in_tables(files: Mapping[str, Path]) -> list[SeenBoxes]:
    """What the texts of a partition seem to hold, from its samples and image stats."""
    stats = read_image_stats(files[IMAGE_STATS_FILE], ("width", "height"))
    sizes = {number: (one.width, one.height) if one.width else None for number, one in enumerate(stats)}
    texts = list[SeenText]()
    for sample in read_samples(files[SAMPLES_FILE]):
        texts += _list_texts(sample.nodes, sizes)
        if len(texts) >= MOST:
            break
    return recognise_boxes(texts[:MOST])


def _list_texts(nodes: Sequence[Node], sizes: Mapping[int, Size | None]) -> Iterator[SeenText]:
    """The texts of a sample that shows something."""
    shown = [node.image for node in nodes if node.image is not None]
    size = sizes.get(shown[0]) if len(shown) == 1 else None
    for node in nodes if shown else ():
        if node.text:
            yield SeenText(node.text, size, several=len(shown) > 1)


def _measure_picture(picture: Picture, images: str | None) -> Size | None:
    """The size of an image, upright; None where its bytes are not here, or cannot be read."""
    try:
        data = picture.data
        if data is None and picture.path is not None and images is not None:
            with open_confined(Path(images), picture.path) as file:
                data = read_bounded(file, LARGEST)
        if data is None:
            return None
        image = open_image(data)
    except (FileRefused, OSError, Undecodable):
        return None
    return image.size[::-1] if read_orientation(image) >= 5 else image.size


def list_box_lines(found: Sequence[SeenBoxes]) -> Iterator[tuple[str, str]]:
    """Lines of a source's block in a recipe, with their comments; those of a doubtful reading are comments themselves.

    A source has one notation, so of several the most frequent one is written.
    """
    for place, seen in enumerate(found):
        block = f"boxes: {format_yaml_inline(dict(seen.settings))}"
        if place == 0 and not seen.doubts:
            yield f"    {block}", f"numbers move with the picture; {seen.regions} regions, {seen.why}"
            continue
        yield f"    # {seen}", ""
        for doubt in seen.doubts:
            yield f"    # not told by the numbers: {doubt}", ""
        yield (
            f"    # {block}",
            "take out the # if it is so: until then numbers stay as they are, whatever the policy does",
        )


def list_box_notes(found: Sequence[SeenBoxes], source: str) -> Iterator[str]:
    """The same for a person at a terminal."""
    for place, seen in enumerate(found):
        block = f"boxes: {format_yaml_inline(dict(seen.settings))}"
        if place == 0 and not seen.doubts:
            yield f"{seen}; the recipe says {block}; vlmill preview draws them"
        else:
            open_ = f"; not told by the numbers: {'; '.join(seen.doubts)}" if seen.doubts else ""
            yield (
                f"{seen}{open_}. Until sources.{source} has `boxes`, they stay as they are and point beside things "
                f"wherever a policy pads, crops or resizes; the recipe has a line to take the # out of: {block}"
            )


def warn_of_boxes(found: Sequence[SeenBoxes], source: str) -> Iterator[str]:
    """For `vlmill check`, of a source without `boxes`."""
    for seen in found:
        block: Mapping[str, Any] = dict(seen.settings)
        yield (
            f"source {source}: {seen}. Without `boxes` they stay as they are, whatever a policy makes of the picture. "
            f"Perhaps boxes: {format_yaml_inline(block)}; docs/images.md, Coordinates in texts"
            + "".join(f"; not told by the numbers: {doubt}" for doubt in seen.doubts)
        )
