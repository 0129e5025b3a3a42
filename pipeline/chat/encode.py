"""Tokens and labels of a sample: what the step `token_lengths` counts before training, and the trainer reads again.

FORMATS names the formats of ours; `vlmill.pipeline.chat.settings` finds these and those of published models. The
functions are the same for all of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from vlmill.pipeline.chat.format import (
    IGNORE,
    UNCUT,
    WHOLE,
    ChatFormat,
    Cut,
    Encoded,
    Loss,
    NodeCount,
    cut_parts,
    get_mark_id,
    tokenize_image,
)
from vlmill.pipeline.chat.image_tokens import BRACKETED, FENCED, LINES, SOFT, TAGGED, VISION, ImageLayout
from vlmill.pipeline.chat.location_tokens import make_locations_common
from vlmill.pipeline.chat.prefix import PrefixFormat
from vlmill.pipeline.core.sample import Node

__all__ = [
    "FORMATS",
    "IGNORE",
    "UNCUT",
    "WHOLE",
    "ChatFormat",
    "Cut",
    "Encoded",
    "Loss",
    "NodeCount",
    "count_nodes",
    "cut_parts",
    "encode_nodes",
    "encode_prompt",
    "get_mark_id",
    "join_segment",
    "load_tokenizer",
    "locate_tokens",
    "tokenize_image",
]

FORMATS: dict[str, ChatFormat] = {
    "vlmill": ChatFormat(),
    "gemma3": ChatFormat(image_tokens=SOFT, image="<image_soft_token>"),
    "idefics": ChatFormat(image_tokens=FENCED),
    "idefics3": ChatFormat(image_tokens=TAGGED),
    "internvl": ChatFormat(image_tokens=BRACKETED, image="<IMG_CONTEXT>"),
    "paligemma": PrefixFormat(),
    "qwen": ChatFormat(image_tokens=VISION, image="<|image_pad|>"),
    "fuyu": ChatFormat(
        (("system", ""), ("user", ""), ("assistant", "<0x04>")), "|ENDOFTEXT|", "<s>", "</s>", "<unk>", "|SPEAKER|",
        image_tokens=LINES, ended=("system", "assistant"), leading=True,
    ),
}  # fmt: skip
"""Images as the processor of a model family writes them; one set of turn marks, but for Fuyu and PaliGemma."""


def load_tokenizer(path: Path, chat: ChatFormat) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, made ready for `join_segment`.

    The special tokens of `chat` that it lacks come behind its vocabulary. Truncation, padding and, for a format of
    ours, automatic special tokens of the file are switched off. Special tokens written in a text are not recognised,
    but for location tokens (location_tokens.py).

    Raises:
        RecipeError: the tokenizer treats a text at the start differently from one after a special token; or it does
            not fit a published format.
    """
    tokenizer = Tokenizer.from_file(os.fspath(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer = make_locations_common(tokenizer)
    chat.prepare(tokenizer, path)
    return tokenizer


def encode_nodes(
    nodes: Sequence[Node],
    images: Sequence[ImageLayout],
    tokenizer: Tokenizer,
    chat: ChatFormat,
    loss: Loss = "answers",
) -> list[Encoded]:
    """The piece of each node, in the order of the nodes; pure.

    Args:
        nodes: of a sample, or of a segment cut at borders of runs.
        images: the layout of each image among `nodes`, in order.
        tokenizer: from `load_tokenizer`.
        chat: the format.
        loss: what is supervised.

    Raises:
        TemplateRefused: see `join_segment`.
    """
    return chat.encode_nodes(nodes, images, tokenizer, loss)


def join_segment(
    nodes: Sequence[Node],
    images: Sequence[ImageLayout],
    tokenizer: Tokenizer,
    chat: ChatFormat,
    loss: Loss = "answers",
    cut: Cut = UNCUT,
) -> Encoded:
    """A segment: the `encode_nodes` of its nodes, as far as it is not cut, and what stands around them; pure.

    Raises:
        TemplateRefused: the format is a published one, which has no form for these nodes.
    """
    return chat.join_segment(nodes, images, tokenizer, loss, cut)


def encode_prompt(
    nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer, chat: ChatFormat
) -> list[int]:
    """The tokens before an answer, `nodes` being all before it; pure.

    Raises:
        TemplateRefused: see `join_segment`.
    """
    return chat.encode_prompt(nodes, images, tokenizer)


def count_nodes(
    nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer, chat: ChatFormat
) -> list[NodeCount]:
    """Tokens of each node; pure.

    Those of a sample's first turns, and `chat.overhead`, are the tokens of the segment that holds these turns alone.

    Raises:
        TemplateRefused: see `join_segment`.
    """
    return chat.count_nodes(nodes, images, tokenizer)


def locate_tokens(texts: Sequence[str], tokenizer: Tokenizer, chat: ChatFormat) -> list[list[tuple[int, int]]]:
    """Where the tokens of each text of a document stand in it, [start, stop) in characters; pure.

    What the format writes behind a text counts as text.
    """
    return chat.locate_tokens(texts, tokenizer)
