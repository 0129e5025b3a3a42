r"""Conversations about image files, as JSON or JSON Lines.

LLaVA's own (liuhaotian/LLaVA-Instruct-150K and all that were made after it), and the messages that ms-swift,
LLaMA-Factory and TRL take:

    [{"id": "1", "image": "coco/1.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt",
    "value": "A dog."}]}]
    {"images": ["coco/1.jpg"], "messages": [{"role": "user", "content": "<image>What?"}, {"role": "assistant",
    "content": "A dog."}]}
    {"messages": [{"role": "user", "content": [{"type": "image", "image": "coco/1.jpg"}, {"type": "text", "text":
    "What?"}]}, ...]}

`image` (or `images`) is a path or a data URI, a list of them, or left out in rows of text alone. Paths start from the
source's `root`, or from its `images` if that is set. LLaVA-NeXT moves the only `<image>` of a turn to its front; here
it stays where it is. Upstream reuses ids, so a sample is named by its row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources.base import Page, UnreadableRow
from vlmill.pipeline.sources.conversation import SYSTEM, TURNS, get_turns, read_marked_page, read_picture
from vlmill.pipeline.sources.formats.json_rows import JsonSource
from vlmill.pipeline.sources.known_keys import get_given
from vlmill.pipeline.sources.marks import MARK, Mark

IMAGES = ("image", "images")


@dataclass(frozen=True, config=STRICT)
class LlavaSource(JsonSource):
    """Conversations whose images are files."""

    kind: ClassVar[str] = "llava"
    opens: ClassVar[bool] = True

    mark: Mark = MARK  # where an image stands in a text, beside <image>; with a number <image {number}>
    id: str = ""  # the column with the id of each row, also in dotted keys: samples keep it; else id, uuid or key

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The turns, as either calls them."""
        return (TURNS,)

    def reads(self) -> Collection[str]:
        """The turns, the images, and a system prompt."""
        return (*TURNS, *IMAGES, *SYSTEM)

    def page(self, row: Mapping[str, Any]) -> Page:
        """One sample of several turns.

        Raises UnreadableRow as `conversation.read_marked_page`, and for an image that is no path.
        """
        told, web = {name: _list_images(row.get(name)) for name in IMAGES}, self.fetches
        listed = get_given(told, IMAGES) or []
        beside = [read_picture(f"image {place}", image, web=web) for place, image in enumerate(listed)]
        if web and (files := [image.url for image in beside if image.picture.path]):
            raise UnreadableRow(f"images: {files[0]} is no address; kind llava reads files", Reason.UNSUPPORTED_MEDIA)
        return read_marked_page(get_turns(row), beside, get_given(row, SYSTEM), web=web, mark=self.mark)


@dataclass(frozen=True, config=STRICT)
class WebLlavaSource(LlavaSource):
    """Conversations whose images have to be fetched, as OpenAI's messages name them."""

    kind: ClassVar[str] = "web_llava"
    opens: ClassVar[bool] = False
    fetches: ClassVar[bool] = True


def _list_images(images: Any) -> list[Any]:
    """One image, or a list of them, as a list."""
    if images is None or images == "":
        return []
    return images if isinstance(images, list) else [images]
