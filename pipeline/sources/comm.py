"""CoMM: instructions and stories in steps, each of texts and images in order (arXiv 2406.10462).

    {"data_id": "...", "dataset_type": "...", "title": "...", "summary_info": [PART, ...],
     "step_info": [[PART, ...], ...]}

A PART is `{"type": "text", "content": "..."}` or `{"type": "image", "url": "http://...", "image_path": "..."}`. The
document is its title, its summary, then its steps. Upstream's files are pickles (`train_data.pth`), and no pickle is
read here. Write their rows to JSON Lines where you trust them enough to run them:

    python -c "import json, torch; [print(json.dumps(row)) for row in torch.load('train_data.pth', weights_only=True)]"
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, Picture, UnreadableRow
from vlmill.pipeline.sources.formats.json_rows import JsonSource


@dataclass(frozen=True, config=STRICT)
class Comm(JsonSource):
    """Documents in steps with images that have to be fetched."""

    kind: ClassVar[str] = "comm"
    fetches: ClassVar[bool] = True

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The steps."""
        return (("step_info",),)

    def reads(self) -> Collection[str]:
        """The steps, what stands before them, and what the document is called."""
        return ("step_info", "summary_info", "title", "data_id", "dataset_type")

    def shows(self) -> Collection[str]:
        """The steps."""
        return ("step_info",)

    def page(self, row: Mapping[str, Any]) -> Page:
        """The document. Raises UnreadableRow: a step is no list of parts, or nothing is in them."""
        steps = row.get("step_info")
        if not isinstance(steps, list):
            raise UnreadableRow(f"step_info is {type(steps).__name__}, expected a list of steps")
        nodes, pictures = list[Node](), list[Picture]()
        title = row.get("title")
        if isinstance(title, str) and title.strip():
            nodes.append(Node("text", supervised=True, text=title.strip()))
        summary = _list_parts("summary_info", row.get("summary_info") or [])
        parts = chain(summary, *(_list_parts(f"step {number}", step) for number, step in enumerate(steps)))
        for part in parts:
            if isinstance(part, Picture):
                nodes.append(Node("image", image=len(pictures), url=part.url))
                pictures.append(part)
            elif part.strip():
                nodes.append(Node("text", supervised=True, text=part.strip()))
        if not pictures and len(nodes) <= 1:
            raise UnreadableRow("no steps with a text or an image", Reason.EMPTY_ROW)
        return Page(tuple(nodes), tuple(pictures))


def _list_parts(place: str, step: Any) -> Iterator[str | Picture]:
    """The texts and images of a step. Raises UnreadableRow."""
    if not isinstance(step, list):
        raise UnreadableRow(f"{place} is {type(step).__name__}, expected a list of parts")
    for number, part in enumerate(step):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("content"), str):
            yield part["content"]
        elif kind == "image":
            yield _make_picture(f"part {number} of {place}", part)
        else:
            raise UnreadableRow(f"part {number} of {place} is {kind!r}, expected a text with its content, or an image")


def _make_picture(place: str, part: Mapping[str, Any]) -> Picture:
    """The image at its address, or lost alone where it has none."""
    url = part.get("url")
    if isinstance(url, str) and url.strip():
        return Picture(url=url.strip())
    return Picture(reason=Reason.BAD_URL, detail=f"{place} has no url")
