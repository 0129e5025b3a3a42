"""From the sequences of a plan to the batches of a rank.

Samples are read, encoded and packed in threads, a bounded number of steps ahead.

The loader's whole state is the number of the step. A packed sequence is several documents that must not see each other:
transformers' classes infer their borders from position ids that start again at 0, if they get no attention mask and no
cache (`_preprocess_mask_arguments` in masking_utils). All else goes by the numbers of documents that a batch carries.
What is not document is padding, one more document.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from vlmill.mixtures.reader import PlannedMixture, Segment, Stored
from vlmill.pipeline.chat.encode import IGNORE, Loss, encode_nodes, get_mark_id, join_segment, load_tokenizer
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.images import Layout, Policy, Size, Unrenderable
from vlmill.pipeline.images.connector import count_tile_tokens
from vlmill.train.balance import deal_sequences
from vlmill.train.batch import PADDING, Batch, Document, collect_batches
from vlmill.train.families import find_family
from vlmill.train.families.base import Family
from vlmill.train.flops import count_family_flops
from vlmill.train.loss_weights import weigh_tokens
from vlmill.train.settings import LossWeights, ModelSettings, Training
from vlmill.train.steps import StepSequences

TYPICAL = 448
"""Pixels of the side of a tile, where an image policy has none."""


@dataclass(frozen=True)
class Reader:
    """Makes documents of segments. Pure but for reading files; safe to share among threads."""

    mixture: PlannedMixture
    tokenizer: Tokenizer
    family: Family
    loss: Loss
    weights: LossWeights | None = None

    def sequence(self, number: int) -> tuple[Document, ...]:
        """The documents of a sequence of the plan, in order."""
        segments = self.mixture.sequence(number)
        return tuple(self.document(*found) for found in zip(segments, self.mixture.read(segments), strict=True))

    def document(self, segment: Segment, stored: Stored | None = None) -> Document:
        """A segment, encoded and rendered; `stored` is its sample if it was read before.

        Raises:
            StoreError: shard, policy, tokenizer or chat format are not those that the plan was made with.
        """
        if stored is None:
            (stored,) = self.mixture.read([segment])
        layouts = self._layouts(segment, stored)
        nodes, mine, cut = stored.find(segment)
        encoded = join_segment(nodes, layouts[mine], self.tokenizer, self.mixture.chat, self.loss, cut)
        if segment.tokens is not None and len(encoded.ids) != segment.tokens:
            raise StoreError(
                f"{self._name(segment)} has {len(encoded.ids)} tokens, the plan says {segment.tokens}; run the "
                "build again, so that its lengths are measured anew"
            )
        tiles = tuple(self._tiles(segment, *image) for image in zip(stored.parts[mine], layouts[mine], strict=True))
        weights = None
        if self.weights is not None:
            taught = sum(label != IGNORE for label in encoded.labels)
            answers = self._number_answers(nodes, layouts[mine])[:taught] if self.weights.turns != "all" else ()
            weights = weigh_tokens(self.weights, self._entries[segment.source], taught, answers)
        return Document(segment.source, encoded.ids, encoded.labels, tiles, layouts[mine], weights)

    @cached_property
    def blank(self) -> Document:
        """A black image that belongs to no source, of the smallest that the image policy makes."""
        policy, shapes = self.mixture.policy, ((2, 2), (2, 200), (200, 2))
        layouts = [layout for shape in shapes for layout in _try_layout(self.mixture, shape)]
        layout = min(layouts, key=lambda layout: layout.tokens)
        drawn = policy.render(Image.new("RGB", layout.size), layout)
        tiles = policy.tiles({name: np.asarray(picture) for name, picture in drawn.items()}, layout)
        ids = [get_mark_id(self.tokenizer, self.mixture.chat.image)] * layout.tokens
        return Document(PADDING, ids, [IGNORE] * len(ids), (tiles,), (layout,))

    @cached_property
    def _entries(self) -> tuple[str, ...]:
        """What the recipe calls each entry."""
        return tuple(source["name"] for source in self.mixture.lock["sources"])

    def _number_answers(self, nodes: Sequence[Node], layouts: Sequence[Layout]) -> list[int]:
        """Of each supervised token of a conversation the number of its answer, from 0; nothing of a document."""
        if all(node.role == "none" for node in nodes):
            return []
        parts = encode_nodes(nodes, layouts, self.tokenizer, self.mixture.chat, self.loss)
        turns = [node.turn for node, part in zip(nodes, parts, strict=True) for _ in range(part.supervised)]
        numbers = {turn: number for number, turn in enumerate(dict.fromkeys(turns))}
        return [numbers[turn] for turn in turns]

    def _layouts(self, segment: Segment, stored: Stored) -> tuple[Layout, ...]:
        """Layouts of all images of a sample. Index, policy and model class must agree about their tokens.

        Under a connector that makes another number of them, the plan's layouts and the model class must.
        """
        layouts, connected = self.mixture.lay_out(stored.sizes), self.mixture.tile_tokens is not None
        for layout, tokens in zip(layouts, stored.tokens, strict=True):
            counts = {
                **({} if connected else {"its shard": tokens}),
                "the plan" if connected else "the image policy": layout.tokens,
                "the model class": self.family.visual_tokens(layout),
            }
            if len(set(counts.values())) > 1:
                said = ", ".join(f"{who} counts {count}" for who, count in counts.items())
                raise StoreError(
                    f"{self._name(segment)}: an image of {layout.size[0]} x {layout.size[1]} px has no agreed "
                    f"number of tokens: {said}"
                )
        return layouts

    def _tiles(self, segment: Segment, parts: Mapping[str, bytes], layout: Layout) -> Sequence[np.ndarray]:
        try:
            pictures = {name: decode_stored(data) for name, data in parts.items()}
        except ValueError as error:
            raise StoreError(f"{self._name(segment)}: {error}; the shard is damaged, see: vlmill verify DIR") from error
        return self.mixture.policy.tiles(pictures, layout)

    def _name(self, segment: Segment) -> str:
        source = self.mixture.lock["sources"][segment.source]
        return f"{source['shards'][segment.shard]['path']} row {segment.row}"


def open_reader(
    mixture: PlannedMixture, model: ModelSettings, loss: Loss, weights: LossWeights | None = None
) -> Reader:
    """The reader of a mixture for a model.

    Raises:
        RecipeError: the model's family cannot take the mixture's image policy or chat format.
        StoreError: the tokenizer is not the one that lengths were measured with.
    """
    family = find_family(model, mixture.policy, mixture.chat_settings)
    if (wanted := count_tile_tokens(model.connector, mixture.policy)) != mixture.tile_tokens:
        raise RecipeError(
            f"model.connector: a tile becomes {wanted or 'a token of each patch'}, and the plan of stage "
            f"{mixture.stage!r} was made for {mixture.tile_tokens or 'a token of each patch'}; run the build again, "
            "which counts anew and draws no picture: vlmill build RECIPE --out DIR --accept-changes"
        )
    return Reader(mixture, load_tokenizer(mixture.tokenizer, mixture.chat), family, loss, weights)


def decode_stored(data: bytes) -> np.ndarray:
    """The pixels (height, width, 3) of a stored picture, uint8; other threads go on meanwhile.

    By OpenCV: of what `vlmill.pipeline.images.pixels.encode_image` writes its pixels are Pillow's, to the bit, in three
    quarters of the time (Pillow goes through four channels and two copies).

    Raises:
        ValueError: they cannot be decoded.
    """
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if picture is None:
        raise ValueError(f"a picture of {len(data)} bytes cannot be decoded")
    return picture


def load_step_batches(
    reader: Reader, training: Training, steps: range, rank: int, ranks: int, threads: int, ahead: int
) -> Generator[tuple[Batch, ...]]:
    """The micro-batches of a rank in each of these steps of a stage; `threads`, `ahead` as in `load_batches`.

    The sequences of a step are dealt so that ranks have the same to do.
    """
    sequences, price = StepSequences(reader.mixture, training), price_sequences(reader, training, ranks)
    pad = get_mark_id(reader.tokenizer, reader.mixture.chat.pad)

    def deal(step: int) -> list[list[int]]:
        numbers = sequences.list_numbers(step)
        dealt = deal_sequences(price(numbers), ranks, training.accumulation)
        return [[numbers[place] for place in micro] for micro in dealt[rank].tolist()]

    return load_batches(reader.sequence, map(deal, steps), pad, threads, ahead, reader.blank)


def _try_layout(mixture: PlannedMixture, size: Size) -> tuple[Layout, ...]:
    """The layout of an image, or none where the policy has no answer for its size."""
    try:
        return mixture.lay_out([size])
    except Unrenderable:
        return ()


def price_sequences(reader: Reader, training: Training, ranks: int = 2) -> Callable[[Sequence[int]], np.ndarray]:
    """What sequences of the plan cost, as a function of their numbers: (sequences, 2) FLOPs of vision and of text.

    One rank deals nothing, so to it all cost the same, and no model is built to find out.
    """
    mixture, policy = reader.mixture, reader.mixture.policy
    if ranks == 1:
        return lambda numbers: np.ones((len(numbers), 2))
    cost = count_family_flops(reader.family, reader.tokenizer, mixture.chat, tuple(training.learning_rate))
    side = get_tile_side(policy)
    return lambda numbers: cost.estimate(mixture.measure(numbers), side)


def get_tile_side(policy: Policy) -> int:
    """Pixels of a tile's side; of tiles of many sizes the longest, to which they are padded."""
    return int(getattr(policy, "side", 0) or getattr(policy, "longest", TYPICAL))


def load_batches(
    sequence: Callable[[int], Sequence[Document]],
    steps: Iterable[list[list[int]]],
    pad: int,
    threads: int,
    ahead: int,
    blank: Document | None = None,
) -> Generator[tuple[Batch, ...]]:
    """The micro-batches of each step, in order.

    Args:
        sequence: gives the documents of a sequence of the plan.
        steps: the sequences of each micro-batch of each step.
        pad: the padding token.
        threads: that read sequences.
        ahead: steps that are being read before they are asked for; more are never held.
        blank: see `pack`.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
    waiting: deque[list[list[Future[Sequence[Document]]]]] = deque()
    try:
        for step in steps:
            waiting.append([[pool.submit(sequence, number) for number in micro] for micro in step])
            if len(waiting) > ahead:
                yield collect_batches(waiting.popleft(), pad, blank)
        while waiting:
            yield collect_batches(waiting.popleft(), pad, blank)
    finally:
        pool.shutdown(cancel_futures=True)
