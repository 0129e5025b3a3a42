"""Conversations: from upstream's turns to nodes, with images where they belong. What every instruction set shares.

A question and its answer have one turn number, and answers alone are supervised, as LLaVA, Idefics2 and nanoVLM train. Images are
required: an answer about an image that is not there teaches to make things up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.reasons import Reason
from pipeline.sample import Node, Role
from pipeline.sources.source import Unfit

MARK = "<image>"
"""Where an image stands in a turn (LLaVA's `DEFAULT_IMAGE_TOKEN`)."""

SPEAKERS: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""Who speaks, as ShareGPT, LLaVA and OpenAI's messages call them."""


def marked(messages: Any, images: Sequence[str | None]) -> tuple[Node, ...]:
    """The nodes of a conversation whose images stand where `<image>` does, in their order; `images` are their addresses.

    The mark keeps its place in the turn; line breaks beside it, which only set it apart, go.

    Raises:
        Unfit: the turns are out of order or empty, or there are not as many marks as images.
    """
    nodes, shown = list[Node](), 0
    for turn, role, text in _spoken(messages):
        for place, piece in enumerate(text.split(MARK)):
            if place:
                url = images[shown] if shown < len(images) else None
                nodes.append(Node("image", role, turn, image=shown, required=True, url=url))
                shown += 1
            if piece.strip():
                nodes.append(_text(role, turn, piece.strip("\r\n") if MARK in text else piece))
    if shown != len(images):
        raise Unfit(f"{shown} times {MARK} for {len(images)} images")
    return tuple(nodes)


def plain(messages: Any) -> tuple[Node, ...]:
    """The nodes of a conversation without images, in which `<image>` is a word like others. Raises Unfit as `marked`."""
    return tuple(_text(role, turn, text) for turn, role, text in _spoken(messages))


def answered(texts: Any, images: Sequence[str | None]) -> tuple[Node, ...]:
    """The nodes of rows of `user` and `assistant`; the images, with these addresses, stand before the first question.

    The `url` of a text is the set that upstream took it from, where it says so.

    Raises:
        Unfit: a turn has no question or no answer.
    """
    nodes = [Node("image", "user", image=place, required=True, url=url) for place, url in enumerate(images)]
    for turn, text in enumerate(_listed(texts)):
        question, answer = (text.get(role) if isinstance(text, dict) else None for role in ("user", "assistant"))
        shown = bool(images) and not turn  # an image may be all that is asked
        if question is None or not (question.strip() or shown) or not (answer or "").strip():
            raise Unfit(f"turn {turn} has no question or no answer")
        origin = text.get("source") or None
        if question.strip():
            nodes.append(Node("text", "user", turn, text=question, url=origin))
        nodes.append(Node("text", "assistant", turn, supervised=True, text=answer, url=origin))
    return tuple(nodes)


def _spoken(messages: Any) -> Iterator[tuple[int, Role, str]]:
    """(turn, role, text) of messages: perhaps a system prompt, then questions and answers by turns. Raises Unfit."""
    turn, before = -1, "assistant"
    for place, message in enumerate(_listed(messages)):
        role, text = _said(place, message)
        if role == "system" and not place:
            if text.strip():
                yield 0, role, text
            continue
        if role in {before, "system"}:
            raise Unfit(f"message {place} is out of order: {role} after {before if turn >= 0 else 'nothing'}")
        if not text.strip():
            raise Unfit(f"message {place} of {role} is empty")
        turn, before = turn + (role == "user"), role
        yield turn, role, text
    if before == "user" or turn < 0:
        raise Unfit("the last question has no answer" if turn >= 0 else "nobody asks anything")


def _said(place: int, message: Any) -> tuple[Role, str]:
    """Who says what in a message of `from` and `value`, or of `role` and `content`. Raises Unfit."""
    if not isinstance(message, dict):
        raise Unfit(f"message {place} is {type(message).__name__}, expected from and value, or role and content")
    speaker, text = message.get("from", message.get("role")), message.get("value", message.get("content"))
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise Unfit(f"message {place} is spoken by {speaker!r}; known are {', '.join(SPEAKERS)}")
    if not isinstance(text, str):
        raise Unfit(f"message {place} of {speaker} has no text")
    return SPEAKERS[speaker], text


def _text(role: Role, turn: int, text: str) -> Node:
    return Node("text", role, turn, supervised=role == "assistant", text=text)


def _listed(turns: Any) -> list[Any]:
    """The turns of a row. Raises Unfit where there are none."""
    if not turns:
        raise Unfit("no turns", Reason.EMPTY_ROW)
    if not isinstance(turns, list):
        raise Unfit(f"its turns are {type(turns).__name__}, expected a list")
    return turns
