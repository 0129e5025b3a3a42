"""Conversations: from upstream's turns to nodes, with images where they belong. What every instruction set shares.

A question and its answer have one turn number, and answers alone are supervised, as LLaVA, Idefics2 and nanoVLM train;
one that is marked as not to be supervised (`loss`, `train`, `weight`) is not. Messages of one speaker in a row are one,
with a line break between their texts. Images are required: an answer about an image that is not there teaches to make
things up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node, Role
from vlmill.pipeline.sources.base import Page, Picture, UnreadableRow
from vlmill.pipeline.sources.data_uris import is_base64_file, is_base64_picture, is_data_uri, read_base64, read_data_uri
from vlmill.pipeline.sources.known_keys import (
    AUDIO,
    VIDEO,
    check_withheld,
    classify_key,
    get_given,
    has_value,
    list_unread,
)
from vlmill.pipeline.sources.marks import MARK, NEXT, Named, Places, find_medium, split_text
from vlmill.pipeline.sources.message_times import check_times, is_time
from vlmill.pipeline.sources.nested import join_columns

WEB, ON_WEB = ("http://", "https://"), "lies on the web, and this kind fetches nothing; web_llava and web_table do"

SPEAKERS: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
}
"""Who speaks, in lower case, as ShareGPT, LLaVA, Gemma and OpenAI's messages call them."""

TOOL = re.compile(r"(tool|function|observation|ipython)([_-]?(call|response|result|output)s?)?")
"""Who speaks as a tool, or to one."""

TURNS, SYSTEM = ("conversations", "messages"), ("system", "system_prompt")
"""What rows of JSON call their turns, and the system prompt beside them."""

FROM, VALUE = ("from", "role"), ("value", "content")
MARKS = ("loss", "loss_weight", "loss_scale", "loss_mask", "weight", "train", "training", "trainable", "train_on_turn")
"""Keys of an answer that say whether it is supervised: true or 1, false or 0 (ms-swift, OpenAI and ShareGPT,
Axolotl)."""

PLAIN = frozenset({*FROM, *VALUE})
SAID = frozenset({*PLAIN, *MARKS})

TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
IMAGE_PARTS = frozenset({"image", "image_url", "input_image"})
KNOWN_PARTS = TEXT_PARTS | IMAGE_PARTS
"""Types of parts (OpenAI, transformers); Qwen leaves the type out, and names the value by it."""


UNSUPERVISED = "all its answers are marked as not to be supervised"


class ConversationImage(NamedTuple):
    """A picture of a conversation, and the address that its node names."""

    picture: Picture
    url: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    pieces: tuple[str | ConversationImage | int, ...]  # a text, a picture, the number of one beside the turns or NEXT
    supervised: bool = True  # if it is an answer
    unread: tuple[str, ...] = ()
    follows: bool = False  # one of the same speaker, and is a part of that

    @property
    def empty(self) -> bool:
        """Whether it says and shows nothing."""
        return all(isinstance(piece, str) and not piece.strip() for piece in self.pieces)


def read_marked_page(
    messages: Any,
    beside: Sequence[ConversationImage | None] = (),
    system: Any = None,
    *,
    web: bool = False,
    mark: str = MARK,
) -> Page:
    """The page of a conversation whose images stand where `<image>`, `mark` or a part of type image does.

    Images that no text names are `beside`; None is a place in the list of the row without one.

    The mark keeps its place in the turn; line breaks beside it, which only set it apart, go. `system` is a prompt
    beside the turns. `web` says whether images are addresses; else they are files.

    Raises:
        UnreadableRow: the turns are out of order or empty, marks and images do not fit together (marks.py), images are
            the other of files and addresses, or something cannot be read.
    """
    nodes, shown, parts = list[Node](), list[ConversationImage](), 0
    places = Places(tuple(one is not None for one in beside), mark)
    said = _read_messages(messages, system)
    for turn, message in said:
        before = len(nodes)
        for piece in _split_message(message, mark):
            if isinstance(piece, str):
                nodes.append(_make_text(message, turn, piece, nodes[before - 1 :] if message.follows else ()))
                continue
            if isinstance(piece, ConversationImage):
                _check_place(piece.picture, web=web)
                one, number, parts = piece, len(shown), parts + 1
            else:
                place = places.find_place(piece, answer=message.role == "assistant")
                one = (beside[place] if place < len(beside) else None) or ConversationImage(Picture(), None)
                number = places.shown.setdefault(place, len(shown))
            shown += [one] if number == len(shown) else []
            nodes.append(Node("image", message.role, turn, image=number, required=True, url=one.url))
    places.check_all(parts)
    return Page(tuple(nodes), tuple(one.picture for one in shown), unread=_list_unread(said))


def get_turns(row: Mapping[str, Any], names: Sequence[str] = TURNS) -> Any:
    """The turns of a row, which may have them under several names: one of these that has any.

    Raises:
        UnreadableRow: several have, and say different things.
    """
    found = {name: row[name] for name in names if has_value(row.get(name))}
    said = [
        [(message.role, message.pieces, message.supervised) for message in map(_read_message, range(len(turns)), turns)]
        for turns in (found.values() if len(found) > 1 else ())
        if isinstance(turns, list)
    ]
    if any(one != said[0] for one in said):
        raise UnreadableRow(f"{' and '.join(found)} hold different conversations", Reason.UNSUPPORTED_CONTENT)
    return next(iter(found.values()), None)


def read_text_page(messages: Any, system: Any = None) -> Page:
    """The page of a conversation without images, in which `<image>` is a word like others.

    Raises UnreadableRow as `read_marked_page`.
    """
    said = _read_messages(messages, system)
    nodes = list[Node]()
    for turn, message in said:
        before = len(nodes)
        for piece in message.pieces:
            if not isinstance(piece, str):
                raise UnreadableRow(f"a message of {message.role} shows an image", Reason.UNSUPPORTED_MEDIA)
            if piece.strip():
                nodes.append(_make_text(message, turn, piece, nodes[before - 1 :] if message.follows else ()))
    return Page(tuple(nodes), unread=_list_unread(said))


def read_answers(texts: Any, images: Sequence[str | None]) -> tuple[Node, ...]:
    """The nodes of rows of `user` and `assistant`; the images, with these addresses, stand before the first question.

    The `url` of a text is the set that upstream took it from, where it says so.

    Raises:
        UnreadableRow: a turn has no question or no answer, or something that is not read.
    """
    nodes = [Node("image", "user", image=place, required=True, url=url) for place, url in enumerate(images)]
    for turn, text in enumerate(_list_turns(texts)):
        question, answer = (text.get(role) if isinstance(text, dict) else None for role in ("user", "assistant"))
        shown = bool(images) and not turn  # an image may be all that is asked
        if question is None or not (question.strip() or shown) or not (answer or "").strip():
            raise UnreadableRow(f"turn {turn} has no question or no answer")
        list_unread(text, ("user", "assistant", "source", *MARKS), pictured=True)
        input_file = text.get("source") or None
        if question.strip():
            nodes.append(Node("text", "user", turn, text=question, url=input_file))
        nodes.append(
            Node("text", "assistant", turn, supervised=_is_supervised(turn, text), text=answer, url=input_file)
        )
    if not any(node.supervised for node in nodes):
        raise UnreadableRow(UNSUPERVISED, Reason.EMPTY_ROW)
    return tuple(nodes)


def read_picture(place: str, address: Any, *, web: bool = False) -> ConversationImage:
    """The picture at a path, in a data URI, or in an object that holds one of these; with `web` at an address as well.

    Raises UnreadableRow for anything else.
    """
    if isinstance(address, dict):
        if (held := _read_bytes(place, address)) is not None:
            return ConversationImage(held, address.get("path") or None)
        address = get_given(address, ("path", "url"))
    if not isinstance(address, str) or not address.strip():
        raise UnreadableRow(f"{place} is {address!r}, expected a path")
    if is_data_uri(address):
        return ConversationImage(read_data_uri(address), None)
    if is_base64_picture(address) or is_base64_file(address):
        return ConversationImage(read_base64(address), None)
    if web and address.lower().startswith(WEB):
        return ConversationImage(Picture(url=address.strip()), address.strip())
    if address.lower().startswith(WEB):
        raise UnreadableRow(f"{place} {ON_WEB}: {address}", Reason.UNSUPPORTED_MEDIA)
    if address.rpartition(".")[2].lower() in VIDEO | AUDIO:
        raise UnreadableRow(f"{place} is {address}", Reason.UNSUPPORTED_MEDIA)
    return ConversationImage(Picture(path=address), address)


def _read_bytes(place: str, held: Mapping[str, Any]) -> Picture | None:
    """The picture in the bytes of an object, as base64 where it comes from JSON; None where it has none."""
    data = held.get("bytes")
    if isinstance(data, str) and is_base64_picture(data):
        return read_base64(data)
    if not has_value(data) or (data == b"" and any(has_value(held.get(name)) for name in ("path", "url"))):
        return None
    if not isinstance(data, bytes):
        raise UnreadableRow(f"{place} has bytes that are a {type(data).__name__}, expected bytes or base64")
    return Picture(data=data)


def _check_place(picture: Picture, *, web: bool) -> None:
    """Raise UnreadableRow where a picture lies on the web and should not, or does not and should."""
    if picture.url is not None and not web:
        raise UnreadableRow(f"a part {ON_WEB}: {picture.url}", Reason.UNSUPPORTED_MEDIA)
    if picture.path is not None and web:
        raise UnreadableRow(f"a part is no address: {picture.path}; kind llava reads files", Reason.UNSUPPORTED_MEDIA)


def _split_message(message: Message, mark: str) -> Iterator[str | ConversationImage | int | Named]:
    """The pieces of a message, its texts cut where images stand; blank texts are left out.

    Raises UnreadableRow at `<video>` and `<audio>`.
    """
    for piece in message.pieces:
        if not isinstance(piece, str):
            yield piece
            continue
        if message.role == "user" and (medium := find_medium(piece)):
            raise UnreadableRow(f"it asks about a {medium}", Reason.UNSUPPORTED_MEDIA)
        yield from split_text(piece, mark)


def _list_unread(said: Sequence[tuple[int, Message]]) -> tuple[str, ...]:
    """The keys of messages that were not read."""
    return tuple(f"message.{key}" for key in sorted({key for _, message in said for key in message.unread}))


def _make_text(message: Message, turn: int, text: str, joined: Sequence[Node]) -> Node:
    """A text of a message; `joined` are the last node of the message before it and its own so far, if they are one."""
    answer = message.role == "assistant"
    if len(joined) == 1 and joined[0].kind == "text" and not (joined[0].text or "").endswith("\n"):
        text = f"\n{text}"
    return Node("text", message.role, turn, supervised=answer and message.supervised, text=text)


def _read_messages(messages: Any, system: Any) -> list[tuple[int, Message]]:
    """(turn, message) of a conversation: perhaps a system prompt, then questions and answers by turns.

    Messages of one speaker in a row have one turn.

    Raises UnreadableRow.
    """
    spoken, turn, before = list[tuple[int, Message]](), -1, ""
    listed = [_read_message(place, message) for place, message in enumerate(_list_turns(messages))]
    check_times([said for said, one in zip(messages, listed, strict=True) if one.role != "system"])
    if has_value(system):
        prompt = Message("system", _read_content("the system prompt", system))
        if listed[0].role == "system" and not listed[0].empty and listed[0].pieces != prompt.pieces:
            raise UnreadableRow(
                "a system prompt stands beside the turns, another among them", Reason.UNSUPPORTED_CONTENT
            )
        listed = [prompt, *(listed[1:] if listed[0].role == "system" else listed)]
    for place, message in enumerate(listed):
        role = message.role
        if role == "system" and turn < 0 and message.empty:
            continue
        if (role == "system" and turn >= 0) or (role == "assistant" and turn < 0):
            raise UnreadableRow(f"message {place} is out of order: {role} after {before or 'nothing'}")
        if message.empty:
            raise UnreadableRow(f"message {place} of {role} is empty")
        turn += role == "user" and before != role
        spoken.append((max(turn, 0), replace(message, follows=True) if role == before else message))
        before = role
    if before == "user" or turn < 0:
        raise UnreadableRow("the last question has no answer" if turn >= 0 else "nobody asks anything")
    if not any(message.supervised for _, message in spoken if message.role == "assistant"):
        raise UnreadableRow(UNSUPERVISED, Reason.EMPTY_ROW)
    return spoken


def _read_message(place: int, message: Any) -> Message:
    """A message of `from` and `value`, or of `role` and `content`. Raises UnreadableRow."""
    if not isinstance(message, dict):
        raise UnreadableRow(
            f"message {place} is {type(message).__name__}, expected from and value, or role and content"
        )
    speaker, *others = [message[key] for key in FROM if message.get(key) is not None] or [None]
    role = SPEAKERS.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None or any(not isinstance(other, str) or SPEAKERS.get(other.lower()) != role for other in others):
        tool = isinstance(speaker, str) and TOOL.fullmatch(speaker.lower())
        reason = Reason.UNSUPPORTED_CONTENT if tool else Reason.BAD_ROW
        mapped = (
            f"what its option speakers maps: speakers: {{{speaker}: ROLE}}, where ROLE is user, assistant or system"
        )
        advice = mapped if isinstance(speaker, str) else "what its option speaker finds under another key"
        known = f"known are {', '.join(SPEAKERS)}, and in kind table {advice}"
        raise UnreadableRow(f"message {place} is spoken by {speaker!r}; {known}", reason)
    more = len(message) > 2 or not message.keys() <= PLAIN
    left = tuple(key for key in list_unread(message, SAID, pictured=False) if not is_time(key)) if more else ()
    if more:
        check_withheld(place, message)
    supervised = _is_supervised(place, message) if more else True
    content = get_given(message, VALUE) if more else None
    if content is None:
        content = next((message[key] for key in VALUE if message.get(key) is not None), None)
    if not isinstance(content, str | list):
        raise UnreadableRow(f"message {place} of {speaker} has no text")
    if role == "user" and message.get("train", message.get("training")) is True:
        raise UnreadableRow(f"message {place} is a question that is to be supervised", Reason.UNSUPPORTED_CONTENT)
    return Message(role, _read_content(f"message {place}", content), supervised, left)


def _is_supervised(place: int, message: Mapping[str, Any]) -> bool:
    """Whether an answer is to be supervised, as far as it says.

    Raises UnreadableRow where it says neither yes nor no.
    """
    told = {key: value for key, value in message.items() if value is not None and classify_key(key) == "mark"}
    for key, value in told.items():
        if key not in MARKS or not isinstance(value, bool | int | float) or value not in {0, 1}:
            detail = f"{key} of message {place} is {value!r}; read are {', '.join(MARKS)} that are 0 or 1"
            raise UnreadableRow(detail, Reason.UNSUPPORTED_CONTENT)
    return all(told.values())


def _read_content(place: str, content: Any) -> tuple[str | ConversationImage | int, ...]:
    """The texts and pictures of a content, which is a string or a list of parts. Raises UnreadableRow."""
    if isinstance(content, str):
        return (content,)
    if not isinstance(content, list):
        raise UnreadableRow(f"{place} is {type(content).__name__}, expected a text")
    return tuple(_read_part(f"part {number} of {place}", part) for number, part in enumerate(content))


def _read_part(place: str, part: Any) -> str | ConversationImage | int:
    """A text, a picture, or the number of one beside the turns. Raises UnreadableRow."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise UnreadableRow(f"{place} is {type(part).__name__}, expected a text or an object")
    said = {key: value for key, value in part.items() if value is not None}
    kind = said.get("type") or next((key for key in said if key in KNOWN_PARTS or classify_key(key) == "media"), None)
    if kind in TEXT_PARTS:
        list_unread(said, ("type", "text", "index"), pictured=False)
        if not isinstance(said.get("text"), str):
            raise UnreadableRow(f"{place} has no text")
        return str(said["text"])
    if kind in IMAGE_PARTS:
        return _read_image(place, said)
    media = isinstance(kind, str) and classify_key(kind) == "media"
    raise UnreadableRow(f"{place} is a {kind!r}", Reason.UNSUPPORTED_MEDIA if media else Reason.UNSUPPORTED_CONTENT)


def _read_image(place: str, part: Mapping[str, Any]) -> ConversationImage | int:
    """The picture of a part, by its address or its bytes in base64; else the number of one beside the turns.

    Raises UnreadableRow.
    """
    source = part.get("source")  # Anthropic's
    held = source if isinstance(source, Mapping) else part
    if has_value(data := get_given(held, ("base64", "data"))):
        if not isinstance(data, str):
            raise UnreadableRow(f"{place} is {type(data).__name__}, expected base64")
        return ConversationImage(read_base64(data.rpartition("base64,")[2]), None)
    if has_value(address := get_given(held, (*sorted(IMAGE_PARTS), "path", "url"))):
        return read_picture(place, address, web=True)
    index = part.get("index")
    return index if isinstance(index, int) else NEXT


def _list_turns(turns: Any) -> list[Any]:
    """The turns of a row. Raises UnreadableRow where there are none."""
    if not (turns := join_columns(turns)):
        raise UnreadableRow("no turns", Reason.EMPTY_ROW)
    if not isinstance(turns, list):
        said = f"a text that is no list in JSON: {turns[:60]!r}" if isinstance(turns, str) else type(turns).__name__
        raise UnreadableRow(f"its turns are {said}, expected a list")
    return turns
