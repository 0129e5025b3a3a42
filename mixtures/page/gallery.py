"""The page's gallery: segments of a plan as the trainer sees them, a few of every entry, chosen by hash.

Tokens, labels and tiles come from the same functions that the trainer calls, so a card shows what the model is trained
on.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from vlmill.mixtures import get_source
from vlmill.mixtures.algorithms.order import make_order_key, permute_index
from vlmill.mixtures.reader import PlannedMixture, Stored, read_columns
from vlmill.pipeline.boxes.marks import mark_tiles
from vlmill.pipeline.chat.encode import (
    IGNORE,
    WHOLE,
    Encoded,
    Loss,
    cut_parts,
    encode_nodes,
    get_mark_id,
    join_segment,
    load_tokenizer,
)
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.images import Layout
from vlmill.pipeline.page import make_data_url

CARDS = 32
"""Of a stage, shared among its entries; each has one at least."""

BLOCKS = 2
"""Of a plan, that cards are chosen from."""

PICTURES = 4
LONGEST = 360  # pixels of a picture on the page
CHARACTERS = 1500  # of a node's text
NODES = 40
SEAM = (255, 0, 110)  # between tiles
SEAM_WIDTH = 2  # at least; of tiles of 112 px and more, enough to be seen when the picture is scaled down
BACKGROUND = 247  # where the overview is lower than the tiles

Card = dict[str, Any]


def make_cards(mixture: PlannedMixture, loss: Loss, seed: int) -> list[Card]:
    """Cards of a stage, its entries in turn; pure but for reading the run.

    Raises:
        StoreError: the tokenizer is not the one that the plan was made with.
    """
    tokenizer = load_tokenizer(mixture.tokenizer, mixture.chat)
    found = [list(_choose_segments(mixture, entry, seed)) for entry in range(len(mixture.sources))]
    turns = [each[turn] for turn in range(max(map(len, found), default=0)) for each in found if turn < len(each)]
    return [make_card(mixture, sequence, place, tokenizer, loss) for sequence, place in turns]


def _choose_segments(mixture: PlannedMixture, entry: int, seed: int) -> Iterator[tuple[int, int]]:
    """Sequences of the plan and places in them, of segments of one entry."""
    blocks = mixture.lock["plan"]["blocks"]
    near = sorted(blocks, key=lambda block: make_order_key(seed, "gallery", mixture.stage, block["path"]))[:BLOCKS]
    places = [np.empty((0, 2), np.int64)]
    for block in near:
        column = read_columns(mixture.folder / block["path"], block["sha256"], ["segments"])["segments"]
        column = column.combine_chunks()
        rows, starts = column.value_parent_indices().to_numpy(), column.offsets.to_numpy()
        mine = np.flatnonzero(column.flatten().field("source").to_numpy() == entry)
        places.append(np.stack([rows[mine] + block["first"], mine - starts[rows[mine]]], axis=1))
    every = np.concatenate(places)
    wanted = min(max(CARDS // len(mixture.sources), 1), len(every))
    if wanted:
        chosen = permute_index(np.arange(wanted), len(every), make_order_key(seed, "gallery", mixture.stage, entry))
        yield from ((int(sequence), int(place)) for sequence, place in every[chosen])


def make_card(mixture: PlannedMixture, sequence: int, place: int, tokenizer: Tokenizer, loss: Loss) -> Card:
    """A segment of a plan by its sequence and its place there, and what it is packed with; pure but for reading."""
    segments = mixture.sequence(sequence)
    segment = segments[place]
    (stored,) = mixture.read([segment])
    nodes, mine, cut = stored.find(segment)
    layouts = mixture.lay_out(stored.sizes)[mine]
    encoded = cut_parts(encode_nodes(nodes, layouts, tokenizer, mixture.chat, loss), cut)
    supervised = join_segment(nodes, layouts, tokenizer, mixture.chat, loss, cut).supervised
    return {
        "stage": mixture.stage,
        "sequence": sequence,
        "place": place,
        "id": mixture.about(segment)["id"],
        "entry": mixture.sources[segment.source],
        "source": get_source(mixture.lock["sources"][segment.source]["shards"][segment.shard]["path"]),
        "licence": mixture.about(segment)["licence"],
        "tokens": segment.tokens,
        "supervised": supervised,
        "length": mixture.lock["sequence_length"],
        "nodes": [segment.first, segment.first + len(nodes), len(stored.nodes)],
        "cut": cut.begin > 0 or cut.end != WHOLE,
        "pictures": _render_pictures(mixture, stored, layouts, mine, slice(segment.first, segment.first + len(nodes))),
        "text": list(_decode_runs(nodes, encoded, tokenizer, get_mark_id(tokenizer, mixture.chat.image))),
        "neighbours": [
            {"id": mixture.about(other)["id"], "entry": mixture.sources[other.source], "tokens": other.tokens}
            for other in segments
        ],
    }


def _render_pictures(
    mixture: PlannedMixture, stored: Stored, layouts: Sequence[Layout], mine: slice, texts: slice
) -> list[dict[str, Any]]:
    """The first images of a segment with their tiles and what its `texts` mark in them, and what each costs."""
    places = [place for place, node in enumerate(stored.nodes) if node.kind == "image"][mine]
    regions = [region for found in stored.boxes[texts] for region in found]
    marked = [[region for region in regions if region["image"] == place] for place in places]
    shown = zip(stored.parts[mine][:PICTURES], layouts, marked, strict=False)
    return [
        {
            "picture": make_data_url(draw_tiles(mixture, parts, layout, found), LONGEST),
            "size": list(layout.size),
            "tiles": layout.tiles,
            "tokens": layout.tokens,
        }
        for parts, layout, found in shown
    ]


def draw_tiles(
    mixture: PlannedMixture, encoded: Mapping[str, bytes], layout: Layout, regions: Sequence[Mapping[str, Any]] = ()
) -> Image.Image:
    """The encoder's inputs for an image: its tiles in their grid, seams between them, the overview on the left.

    Regions, as shards hold them, are drawn on all that show the whole view.
    """
    parts = {name: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for name, data in encoded.items()}
    tiles = mark_tiles(mixture.policy.tiles(parts, layout), layout, mixture.policy.view(layout), regions)
    rows, columns = layout.grid
    overview = [] if layout.overview is None else [tiles.pop(layout.overview)]
    if len(tiles) != rows * columns:  # a policy whose tiles are no grid: side by side
        rows, columns = 1, len(tiles)
    seam = max(SEAM_WIDTH, tiles[0].shape[0] // 56)
    grid = [tiles[row * columns : (row + 1) * columns] for row in range(rows)]
    return Image.fromarray(
        _join_beside([*overview, _join_below([_join_beside(line, seam) for line in grid], seam)], seam)
    )


def _join_beside(pictures: Sequence[np.ndarray], seam: int) -> np.ndarray:
    return _join_below([picture.swapaxes(0, 1) for picture in pictures], seam).swapaxes(0, 1)


def _join_below(pictures: Sequence[np.ndarray], seam: int) -> np.ndarray:
    """Pictures one below the other with a seam between them, the narrower ones filled up."""
    width = max(picture.shape[1] for picture in pictures)
    framed = []
    for number, picture in enumerate(pictures):
        filled = np.full((picture.shape[0], width, 3), BACKGROUND, np.uint8)
        filled[:, : picture.shape[1]] = picture
        framed += [filled] if not number else [np.full((seam, width, 3), SEAM, np.uint8), filled]
    return np.concatenate(framed)


def _decode_runs(
    nodes: Sequence[Node], encoded: Sequence[Encoded], tokenizer: Tokenizer, placeholder: int
) -> Iterator[dict[str, Any]]:
    """Runs of tokens that are supervised or not, as text; the placeholders of an image by their number."""
    for node, piece in zip(nodes[:NODES], encoded, strict=False):
        kinds = [
            (label != IGNORE, node.kind == "image" and token == placeholder)
            for token, label in zip(piece.ids, piece.labels, strict=True)
        ]
        place = 0
        for (supervised, image), run in groupby(kinds):
            ids = piece.ids[place : place + len(list(run))]
            place += len(ids)
            text = "" if image else tokenizer.decode(ids, skip_special_tokens=False)
            shown = {"text": text[:CHARACTERS] + (" ..." if len(text) > CHARACTERS else ""), "supervised": supervised}
            yield {"image": len(ids)} if image else shown
    if len(nodes) > NODES:
        yield {"text": f" ... and {len(nodes) - NODES} nodes more", "supervised": False}
