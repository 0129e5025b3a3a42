"""MMC4: JSON Lines of sentences, and of images that were matched to sentences (arXiv 2304.06939).

All four forms (all, fewer faces, core, core fewer faces) have the same keys:

    {"text_list": ["First.", "Second."], "url": "http://...", "could_have_url_duplicate": 0,
     "image_info": [{"raw_url": "http://...", "matched_text_index": 1, "matched_sim": 0.28, "image_name": "b9.jpg"}],
     "similarity_matrix": [[0.24, 0.28]]}

An image stands before its sentence, where OpenFlamingo puts it. Sentences between two images are one text, with a
space between them. Which images belong to which sentences is decided by `matched_text_index`; the matrix is not read.
Upstream's files are zipped (`docs_no_face_shard_0_v2.jsonl.zip`): unpack them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, Picture, UnreadableRow
from vlmill.pipeline.sources.formats.json_rows import JsonSource

DUPLICATE = "could_have_url_duplicate"


@dataclass(frozen=True, config=STRICT)
class Mmc4(JsonSource):
    """Documents of sentences with images that have to be fetched."""

    kind: ClassVar[str] = "mmc4"
    fetches: ClassVar[bool] = True

    min_similarity: float = 0.0  # of an image to its sentence; OpenFlamingo takes those from 0.24

    def keys(self) -> tuple[tuple[str, ...], ...]:
        """The sentences and the images."""
        return (("text_list",), ("image_info",))

    def reads(self) -> Collection[str]:
        """These, the document's address, and what they were matched by."""
        return ("text_list", "image_info", "url", DUPLICATE, "similarity_matrix")

    def shows(self) -> Collection[str]:
        """The list of images."""
        return ("image_info",)

    def page(self, row: Mapping[str, Any]) -> Page:
        """The document.

        Its `signals` are `matched_sim`, the lowest of its images, and `could_have_url_duplicate`.

        Raises UnreadableRow: a list is none, an image belongs to no sentence, or there is no text.
        """
        sentences, images = row.get("text_list"), row.get("image_info")
        if not isinstance(sentences, list) or not all(isinstance(one, str) for one in sentences):
            raise UnreadableRow("text_list is no list of texts")
        if not isinstance(images, list) or not all(isinstance(one, Mapping) for one in images):
            raise UnreadableRow("image_info is no list of objects")
        if not any(one.strip() for one in sentences):
            raise UnreadableRow("no text", Reason.EMPTY_ROW)
        places = [_find_sentence(number, image, len(sentences)) for number, image in enumerate(images)]
        near = [number for number, image in enumerate(images) if _get_similarity(image) >= self.min_similarity]
        shown = sorted(near, key=lambda number: places[number])
        nodes = tuple(_order_nodes(sentences, [(places[number], images[number].get("raw_url")) for number in shown]))
        address, twice = row.get("url"), row.get(DUPLICATE)
        signals = {"matched_sim": min(map(_get_similarity, (images[number] for number in shown)), default=math.nan)}
        signals |= {DUPLICATE: float(twice)} if isinstance(twice, int | float) else {}
        return Page(
            nodes,
            tuple(_make_picture(number, images[number]) for number in shown),
            url=address if isinstance(address, str) else "",
            signals={name: value for name, value in signals.items() if math.isfinite(value)},
            unread=("image_info (below min_similarity)",) if len(near) < len(images) else (),
        )


def _find_sentence(number: int, image: Mapping[str, Any], sentences: int) -> int:
    """The number of an image's sentence. Raises UnreadableRow."""
    place = image.get("matched_text_index")
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < sentences:
        raise UnreadableRow(f"image {number} belongs to text {place!r}, of {sentences}")
    return place


def _get_similarity(image: Mapping[str, Any]) -> float:
    """Of an image to its sentence; infinite where none is given, so that no bound takes it away."""
    found = image.get("matched_sim")
    return float(found) if isinstance(found, int | float) and math.isfinite(found) else math.inf


def _make_picture(number: int, image: Mapping[str, Any]) -> Picture:
    """The image at its address, or lost alone where it has none."""
    url = image.get("raw_url")
    if isinstance(url, str) and url.strip():
        return Picture(url=url.strip())
    return Picture(reason=Reason.BAD_URL, detail=f"image {number} has no raw_url")


def _order_nodes(sentences: Sequence[str], images: Sequence[tuple[int, Any]]) -> Iterator[Node]:
    """The nodes of a document; `images` are places and addresses, ordered by place."""
    begin = 0
    for number, (place, url) in enumerate(images):
        yield from _join_sentences(sentences[begin:place])
        yield Node("image", image=number, url=url if isinstance(url, str) else None)
        begin = place
    yield from _join_sentences(sentences[begin:])


def _join_sentences(sentences: Sequence[str]) -> Iterator[Node]:
    text = " ".join(one.strip() for one in sentences if one.strip())
    if text:
        yield Node("text", supervised=True, text=text)
