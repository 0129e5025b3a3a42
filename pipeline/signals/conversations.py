"""Conversations as a published model's chat template writes them, with the places of the supervised answers.

The answers are put between two marks that no text holds, the template writes the conversation, and the tokenizer takes
the marks out again: what is left is what the template writes without them, or the conversation is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Literal

from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Node, Sample
from vlmill.pipeline.signals.base import Unit

BEGIN, END = "\ufdd0", "\ufdd1"
"""Around an answer: noncharacters, which Unicode keeps for programs."""

MARKS = re.compile(f"[{BEGIN}{END}]")

Level = Literal["samples", "turns"]

Message = Mapping[str, Any]
"""As transformers' chat templates take them: `role`, and `content` as a text or as parts."""

Span = tuple[int, int]
"""Where an answer begins and ends in a text, in characters."""


def list_conversations(sample: Sample, level: Level) -> Iterator[Unit]:
    """The conversations of a sample that have a supervised answer, and no image that is lost. Pure.

    Args:
        sample: Of turns; documents, pages and pairs have no roles, and give nothing.
        level: The whole sample, or each supervised answer with its question alone: the system's text and the images
            before it stay, other turns do not.
    """
    nodes = sample.nodes
    if any(node.role == "none" or (node.kind == "image" and node.image is None) for node in nodes):
        return
    answers = [place for place, node in enumerate(nodes) if _is_answer(node)]
    if level == "samples" and answers:
        yield _make_unit(WHOLE_SAMPLE, nodes)
    elif level == "turns":
        yield from (_make_unit(place, tuple(_cut_turn(nodes, place))) for place in answers)


def _make_unit(place: int, nodes: tuple[Node, ...]) -> Unit:
    return Unit(place, images=tuple(node.image for node in nodes if node.image is not None), nodes=nodes)


def _is_answer(node: Node) -> bool:
    return node.role == "assistant" and node.supervised and bool(node.text)


def _cut_turn(nodes: Sequence[Node], answer: int) -> Iterator[Node]:
    """The nodes that a question and its answer need; the last is the only supervised one."""
    turn = nodes[answer].turn
    for place, node in enumerate(nodes[: answer + 1]):
        if node.turn == turn or node.role == "system":
            yield replace(node, supervised=place == answer)
        elif node.image is not None:  # shown before: it goes to the question
            yield replace(node, turn=turn, role="user")


def list_messages(
    nodes: Sequence[Node], *, parts: bool, images: bool = True, mark: bool = False, strip: bool = False
) -> list[Message]:
    """A conversation for a chat template. Pure.

    Args:
        nodes: In order; a run of one role and turn is a message.
        parts: Contents as parts, as processors take them; else as texts, joined by line feeds.
        images: Whether images are in it. A message of images alone becomes an empty text without them.
        mark: Put supervised answers between BEGIN and END.
        strip: Take the space around answers away.
    """
    messages = list[Message]()
    for (_, role), run in groupby(nodes, key=lambda node: (node.turn, node.role)):
        shown = list[dict[str, str]]()
        for node in run:
            if node.kind == "image":
                shown += [{"type": "image"}] if images else []
                continue
            text = node.text or ""
            if _is_answer(node):
                text = text.strip() if strip else text
                text = f"{BEGIN}{text}{END}" if mark else text
            shown.append({"type": "text", "text": text})
        flat = "\n".join(part["text"] for part in shown if part["type"] == "text")
        messages.append({"role": role, "content": (shown or [{"type": "text", "text": ""}]) if parts else flat})
    return messages


def split_marks(text: str) -> tuple[str, list[Span]]:
    """A text without marks, and where what was between them stands in it. Pure."""
    spans, clean, begin = list[Span](), list[str](), 0
    length = 0
    for piece in re.split(f"({MARKS.pattern})", text):
        if piece == BEGIN:
            begin = length
        elif piece == END:
            spans.append((begin, length))
        else:
            clean.append(piece)
            length += len(piece)
    return "".join(clean), spans


def write_conversation(template: Any, nodes: Sequence[Node], *, parts: bool, images: bool) -> str | None:
    """What a chat template writes, with marks around supervised answers.

    Args:
        template: `apply_chat_template` of a tokenizer or processor.
        nodes: The conversation.
        parts: See `list_messages`.
        images: See `list_messages`.

    Returns:
        The text; None where a text of it holds marks, or the template refuses the conversation or changes an answer.
    """
    from jinja2 import TemplateError  # noqa: PLC0415 - with the model, not with the command line

    if any(MARKS.search(node.text or "") for node in nodes):
        return None
    try:
        for strip in (False, True):
            plain, marked = (
                template(list_messages(nodes, parts=parts, images=images, mark=mark, strip=strip), tokenize=False)
                for mark in (False, True)
            )
            if split_marks(marked)[0] == plain:
                return str(marked)
    except TemplateError:
        return None
    return None


def find_answer_tokens(offsets: Sequence[Span], spans: Sequence[Span]) -> list[int]:
    """The tokens that hold a character of an answer, by the characters that each token stands for. Pure."""
    return [
        place
        for place, (start, stop) in enumerate(offsets)
        if start < stop and any(start < end and begin < stop for begin, end in spans)
    ]
