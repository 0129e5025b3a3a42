r"""LLaVA's JSON: conversations about image files (liuhaotian/LLaVA-Instruct-150K and all that were made after it).

    [{"id": "1", "image": "coco/1.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]}]

An array or JSON Lines. `image` (or `images`, as Mantis calls it) is a path, a list of paths, or left out in rows of text alone.
Paths start from the source's `root`, or from its `images` if that is set. LLaVA-NeXT moves the only `<image>` of a turn to its front; here it
stays where it is. Upstream reuses ids, so a sample is named by its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from pipeline.settings import STRICT
from pipeline.sources.conversation import marked
from pipeline.sources.records import JsonSource
from pipeline.sources.source import Page, Picture, Unfit


@dataclass(frozen=True, config=STRICT)
class Llava(JsonSource):
    """Conversations whose images are files."""

    kind: ClassVar[str] = "llava"
    opens: ClassVar[bool] = True

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The turns."""
        return (("conversations",),)

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of several turns. BAD_ROW as `conversation.marked`, and for an image that is no path."""
        paths = _paths(row.get("image", row.get("images")))
        return Page(marked(row.get("conversations"), paths), tuple(Picture(path=path) for path in paths))


def _paths(images: Any) -> list[str]:
    """The paths of a row's images. Raises Unfit."""
    if images is None or images == "":
        return []
    paths = images if isinstance(images, list) else [images]
    for place, path in enumerate(paths):
        if not isinstance(path, str) or not path.strip():
            raise Unfit(f"image {place} is {path!r}, expected a path")
    return paths
