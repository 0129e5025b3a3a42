"""Step `token_lengths`: how many tokens and encoder inputs each sample of a shard has, for a tokenizer and chat format.

Comes after render; mixing, packing and the statistics read its tables instead of texts. It reads the shard's JSON
members by the offsets in its index, and no image.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar

import pyarrow as pa
import pydantic
from pydantic.dataclasses import dataclass
from tokenizers import Tokenizer

from vlmill.pipeline.chat.breaks import STRETCH, Breaks, find_breaks
from vlmill.pipeline.chat.encode import ChatFormat, NodeCount, count_nodes, load_tokenizer, locate_tokens
from vlmill.pipeline.chat.image_tokens import IndexedImage
from vlmill.pipeline.chat.outline import TemplateRefused
from vlmill.pipeline.chat.settings import Chat, ChatField, find_format
from vlmill.pipeline.core.at_work import AT_WORK
from vlmill.pipeline.core.config import STRICT, OneOf
from vlmill.pipeline.core.meter import note_work
from vlmill.pipeline.core.names import INDEX_SUFFIX, LENGTHS_SUFFIX
from vlmill.pipeline.core.sample import Node, read_rows, write_rows
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.images import POLICIES, Policy
from vlmill.pipeline.images.connector import TileTokens, lay_out_images, read_tile_tokens
from vlmill.pipeline.shards.writer import BLOCK, read_nodes

NODE_LENGTHS = pa.struct(
    [
        pa.field("text", pa.int32(), nullable=False),
        pa.field("visual", pa.int32(), nullable=False),
        pa.field("supervised", pa.int32(), nullable=False),
        pa.field("tiles", pa.int32(), nullable=False),
        pa.field("image", pa.bool_(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("lead", pa.int32(), nullable=False),  # tokens before the first supervised one
        pa.field("ends", pa.list_(pa.int32()), nullable=False),  # see Breaks; of texts of documents
        pa.field("words", pa.list_(pa.int32()), nullable=False),
    ]
)
LENGTHS = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("text", pa.int32(), nullable=False),
        pa.field("visual", pa.int32(), nullable=False),
        pa.field("supervised", pa.int32(), nullable=False),
        pa.field("tiles", pa.int32(), nullable=False),
        pa.field("images", pa.int32(), nullable=False),
        pa.field("nodes", pa.list_(NODE_LENGTHS), nullable=False),
        pa.field("reason", pa.string()),  # why the chat format has no form for it; then its lengths are 0
    ]
)

Image = Mapping[str, int]
"""An image of a sample as a shard's index has it: width, height, tokens, tiles, rows, columns."""

NO_IMAGE = {"tokens": 0, "tiles": 0}
NONE = Breaks([], [])
EMPTY = NodeCount(0, 0, 0)


@dataclass(frozen=True, config=STRICT)
class CountTokens:
    """Counts the tokens of every node under a chat format; `tokenizer.json` among its inputs says which tokens."""

    chat: ChatField = "vlmill"

    name: ClassVar[str] = "token_lengths"
    version: ClassVar[int] = 4
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """All shards of a partition, their indices, and the tokenizer."""
        return ("*.tar", f"*{INDEX_SUFFIX}", "tokenizer.json")

    def made_by(self) -> Mapping[str, str]:
        """The tokenizer library, the table writer, and the renderer of published templates."""
        return {name: version(name) for name in ("tokenizers", "pyarrow", "jinja2")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `<nn>.lengths.parquet` for every shard, in the shard's order; counts samples and nodes."""
        chat = find_format(self.chat)
        tokenizer = load_tokenizer(inputs["tokenizer.json"], chat)
        samples, nodes = Count(), Count()
        for number in sorted(name.removesuffix(INDEX_SUFFIX) for name in inputs if name.endswith(INDEX_SUFFIX)):
            shard, index = inputs[f"{number}.tar"], inputs[f"{number}{INDEX_SUFFIX}"]
            rows = _count_lengths(shard, index, tokenizer, chat, nodes, self.count_images)
            samples.keep(write_rows(folder / f"{number}{LENGTHS_SUFFIX}", LENGTHS, rows))
        return {"samples": samples, "nodes": nodes}

    def count_images(self, images: Sequence[Image]) -> Sequence[Image]:
        """The images of a sample, as its shard's index has them: a visual token for each patch, as the policy counts.

        Pure.
        """
        return images


@dataclass(frozen=True, config=STRICT)
class CountConnectedTokens(CountTokens):
    """The same for a model whose connector makes another number of visual tokens of each tile."""

    policy: Annotated[Policy, OneOf(POLICIES)] = pydantic.Field(kw_only=True)  # that the shards were rendered under
    tile: TileTokens = pydantic.Field(kw_only=True)

    def count_images(self, images: Sequence[Image]) -> Sequence[Image]:
        """The images of a sample with the tokens that the connector makes of them. Pure."""
        layouts = lay_out_images(self.policy, self.tile, [(image["width"], image["height"]) for image in images])
        return [{**image, "tokens": layout.tokens} for image, layout in zip(images, layouts, strict=True)]


def make_length_step(chat: Chat, policy: Policy, model: Mapping[str, Any]) -> CountTokens:
    """The step for samples that were rendered under a policy, and the recipe's `model` block.

    Raises:
        RecipeError: the model's connector is wrong, or does not fit the policy.
    """
    tile = read_tile_tokens(model, policy)
    return CountTokens(chat) if tile is None else CountConnectedTokens(chat, policy=policy, tile=tile)


def read_record(file: BinaryIO, offset: int) -> dict[str, Any]:
    """The JSON of the sample at `offset` of a shard, which is the first member of its span; its images are not read."""
    file.seek(offset)
    size = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "strict").size
    record: dict[str, Any] = json.loads(file.read(size))
    return record


def _count_lengths(
    shard: Path,
    index: Path,
    tokenizer: Tokenizer,
    chat: ChatFormat,
    counted: Count,
    count_images: Callable[[Sequence[Image]], Sequence[Image]],
) -> Iterator[dict[str, Any]]:
    """Rows of LENGTHS for the samples of a shard, in order; their nodes are added to `counted`."""
    with shard.open("rb") as file:
        for row in read_rows(index, ["row", "offset", "images", "id"]):
            AT_WORK.note(row["id"])
            found = read_nodes(read_record(file, row["offset"]))
            try:
                nodes, reason = list(_count_nodes(found, count_images(row["images"]), tokenizer, chat)), None
            except TemplateRefused as error:
                nodes, reason = [_describe_node(node) for node in found], str(error.reason)
            counted.keep(len(nodes))
            note_work(rows=1, failed=reason is not None)
            sums = {name: sum(node[name] for node in nodes) for name in ("text", "visual", "supervised", "tiles")}
            yield {"row": row["row"], **sums, "images": len(row["images"]), "nodes": nodes, "reason": reason}


def _count_nodes(
    nodes: Sequence[Node], images: Sequence[Image], tokenizer: Tokenizer, chat: ChatFormat
) -> Iterator[dict[str, Any]]:
    """Lengths of a sample's nodes; what opens and closes a turn counts as text of the nodes it stands at."""
    shown = iter(images)
    pictured = [IndexedImage(image["tokens"], image["tiles"], (image["rows"], image["columns"])) for image in images]
    counts = count_nodes(nodes, pictured, tokenizer, chat)
    breaks = _find_breaks(nodes, counts, tokenizer, chat)
    for place, (node, count) in enumerate(zip(nodes, counts, strict=True)):
        yield _describe_node(node, count, next(shown) if node.kind == "image" else NO_IMAGE, breaks.get(place, NONE))


def _find_breaks(
    nodes: Sequence[Node], counts: Sequence[NodeCount], tokenizer: Tokenizer, chat: ChatFormat
) -> dict[int, Breaks]:
    """Where the longer texts of a document may be cut, by node; a conversation is cut between turns alone."""
    if any(node.role != "none" for node in nodes):
        return {}
    long = [place for place, node in enumerate(nodes) if node.kind == "text" and counts[place].tokens > STRETCH]
    texts = [nodes[place].text or "" for place in long]
    spans = locate_tokens(texts, tokenizer, chat)
    return dict(zip(long, map(find_breaks, texts, spans), strict=True))


def _describe_node(
    node: Node, count: NodeCount = EMPTY, image: Image = NO_IMAGE, breaks: Breaks = NONE
) -> dict[str, Any]:
    """The entry of a node in NODE_LENGTHS."""
    return {
        "text": count.tokens - image["tokens"],
        "visual": image["tokens"],
        "supervised": count.supervised,
        "tiles": image["tiles"],
        "image": node.kind == "image",
        "turn": node.turn,
        "role": node.role,
        "lead": count.lead,
        "ends": breaks.ends,
        "words": breaks.words,
    }
