"""What the keys of a row mean, whatever source reads it: which may be left unread, and which may not.

Trainers and exports put more into a row than turns and pictures: a video, tools, a second answer that is worse. A row
of which such a thing is not read would teach something else than its writer meant, so it fails with a reason. The names
are those of LLaVA, ShareGPT, OpenAI's fine-tuning, ms-swift, LLaMA-Factory, Axolotl and TRL. Any other key is noted,
once per source.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from typing import Any, Literal

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources.base import UnreadableRow

VIDEO = frozenset({"avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ogv", "webm", "wmv"})
AUDIO = frozenset({"aac", "flac", "m4a", "mp3", "ogg", "opus", "wav", "wma"})
PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "avif", "bmp", "tif", "tiff")
"""Suffixes of pictures, the usual first."""

HOLDER = r"([_-]?(path|file|file[_-]?name|name|url|uri|src|clip|frame|byte|data|base64|b64|list)s?)?"
"""How the key of a thing goes on that holds it, or says where it lies."""

Meaning = Literal["media", "image", "address", "content", "verdict", "mark", "none", "unknown"]

ID_KEYS = (
    *("id", "uuid", "uid", "key", "__key__", "idx", "index"),
    *("sample_id", "conversation_id", "question_id", "example_id", "item_id", "document_id", "doc_id", "data_id"),
)
"""Keys of the id of a row, in lower case; the first that a row has counts."""
PANDAS_INDEX = "__index_level_0__"

MEANINGS: tuple[tuple[str, Meaning], ...] = (
    (rf"(input[_-]?)?(video|audio|sound|speech|movie|wav|mp3|mp4)s?{HOLDER}", "media"),
    (r"images?([_-]?\d+)?", "image"),  # one of its own, also beside another
    (rf"(input[_-]?)?(image|img|picture|photo)s?([_-]?\d+)?{HOLDER}|pixel[_-]?values", "address"),  # or the same again
    (r"system([_-]?(prompt|message|instruction)s?)?", "content"),
    (r"tools|functions|(tool|function)[_-]?(call|response|result)s?([_-]?id)?", "content"),
    (r"history|reasoning([_-]?content)?|thinking|refusal|attachments?", "content"),
    (r"(chosen|rejected)([_-].*)?", "content"),  # answers of which one is better
    (r"objects", "content"),  # the boxes that `<bbox>` in the turns stands for (ms-swift)
    (r"label|kto[_-]?tag", "verdict"),  # false: not to be answered like this (KTO)
    (r"loss([_-]?(mask|scale|weight))?|(sample[_-]?)?weight|train(ing|able|_on_turn)?([_-]detail)?|mask", "mark"),
    (rf"{'|'.join(ID_KEYS)}|{PANDAS_INDEX}", "none"),
)
"""What a key is, in lower case, by the first pattern that fits the whole of it."""

WITHHELD = re.compile(r"((is|was)[_-]?)?(deleted|hidden|internal|private|removed|retracted|cancell?ed)([_-]?note)?")
"""Keys of a message, in lower case, that say with true that it was withdrawn, or that the other side never saw it."""
SHOWN = re.compile(r"((is|was)[_-]?)?(public|visible)")
"""Keys that say so with false."""
SORT = re.compile(r"((message|part|event)[_-]?)?(sub)?type")
"""Keys of a message, in lower case, that say of what sort it is."""
ASIDE = re.compile(
    r"((internal|private)[_-]?)?note([_-]and[_-]\w+)?|internal([_-]?(comment|message|reply))?|lineitem|tombstone"
    r"|message_deleted|bot_(add|remove)|(un)?pinned_item|reminder_add"
    r"|(channel|group)_(archive|convert_to_private|join|leave|name|posting_permissions|purpose|topic|unarchive)"
)
"""Sorts, in lower case, that are notes of Intercom, Help Scout and Crisp, or what Slack says of a channel."""

REASONS: Mapping[Meaning, Reason] = {
    "media": Reason.UNSUPPORTED_MEDIA,
    "image": Reason.UNSUPPORTED_MEDIA,
    "address": Reason.UNSUPPORTED_MEDIA,
    "content": Reason.UNSUPPORTED_CONTENT,
    "verdict": Reason.UNSUPPORTED_CONTENT,
    "mark": Reason.UNSUPPORTED_CONTENT,
}

LONGEST = 4096
"""Characters of a path."""

FILE = re.compile(rf"\S.*\.({'|'.join([*sorted(VIDEO | AUDIO), *PICTURES])})(\?\S*)?", re.IGNORECASE)
"""A path or address of a picture, a video or a sound."""


@cache
def _compile_patterns() -> tuple[tuple[re.Pattern[str], Meaning], ...]:
    return tuple((re.compile(pattern), meaning) for pattern, meaning in MEANINGS)


@lru_cache(maxsize=4096)
def classify_key(key: str) -> Meaning:
    """What a key is, by its name."""
    return next((found for pattern, found in _compile_patterns() if pattern.fullmatch(key.lower())), "unknown")


NOTHING = frozenset({"", "[]", "{}"})


def has_value(value: Any) -> bool:
    """Whether a value says anything.

    Null, false, zero and blank do not, nor lists and objects of these, nor a list written as `[]`. Bytes do, also none
    of them: a picture should be there.
    """
    if isinstance(value, bytes):
        return True
    if isinstance(value, str):
        return (value if len(value) > LONGEST else value.strip()) not in NOTHING
    if isinstance(value, dict):
        return any(map(has_value, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_value, value))
    return bool(value)


def get_given(row: Mapping[str, Any], names: Collection[str]) -> Any:
    """The value that a row has under one of several names of the same thing; None where it has none.

    Raises:
        UnreadableRow: it has several, and they differ.
    """
    found = [name for name in names if has_value(row.get(name))]
    for other in found[1:]:
        if _strip_value(row[other]) != _strip_value(row[found[0]]):
            reason = REASONS.get(classify_key(other), Reason.UNSUPPORTED_CONTENT)
            raise UnreadableRow(f"{found[0]} and {other} say different things", reason)
    return row[found[0]] if found else None


def list_unread(
    row: Mapping[str, Any], reads: Collection[str], *, pictured: bool, kept: str | None = None
) -> tuple[str, ...]:
    """The keys of a row that have a value and are not among those that its source reads, sorted.

    Args:
        row: A row, or a message of one.
        reads: The keys that are read.
        pictured: Whether what is read has pictures; then a further address may be that of the same picture.
        kept: The id that the row keeps; by default that under the first of ID_KEYS.

    Raises:
        UnreadableRow: one of them carries meaning, so that without it the row would be another.
    """
    left = sorted(key for key in row if key not in reads)
    for key in left:
        found = classify_key(key)
        if found in REASONS and _carries_meaning(found, row[key], pictured=pictured):
            advice = (
                "; kinds llava and interleaved read pictures" if found in {"image", "address"} and not pictured else ""
            )
            raise UnreadableRow(f"{key} is not read: {_show_value(row[key])}{advice}", REASONS[found])
        if found == "unknown" and not pictured and names_file(row[key]):
            raise UnreadableRow(f"{key} is not read: {_show_value(row[key])}", Reason.UNSUPPORTED_MEDIA)
    kept = read_upstream_id(row) if kept is None else kept
    return tuple(
        key
        for key in left
        if has_value(row[key])
        and not (classify_key(key) == "none" and (key == PANDAS_INDEX or format_id(row[key]) == kept != ""))
    )


def read_upstream_id(row: Mapping[str, Any]) -> str:
    """The id of a row: a text or a whole number under the first of ID_KEYS that has one; else nothing."""
    named = {key.lower(): value for key, value in row.items() if key.lower() in ID_KEYS}
    return next(filter(None, (format_id(named.get(key)) for key in ID_KEYS)), "")


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_withheld(place: int, message: Mapping[str, Any]) -> None:
    """Raise UnreadableRow for a message that was deleted, or is a note among colleagues, and would be learned."""
    for key, value in message.items():
        said = value.strip().lower() if isinstance(value, str) else value
        withheld = said in (True, "true", "yes") and WITHHELD.fullmatch(key.lower())
        withheld = withheld or (isinstance(said, str) and SORT.fullmatch(key.lower()) and ASIDE.fullmatch(said))
        if withheld or (said in (False, "false", "no") and SHOWN.fullmatch(key.lower())):
            detail = f"message {place} is not part of the conversation, as {key} is {value}: leave it out of the row"
            raise UnreadableRow(detail, Reason.UNSUPPORTED_CONTENT)


def format_id(value: Any) -> str:
    """The text of a value that can name a row: a text, or a whole number, also as 7.0; else an empty one."""
    if is_number(value):
        return str(int(value)) if value == value // 1 else ""
    return value.strip() if isinstance(value, str) else ""


def _carries_meaning(found: Meaning, value: Any, *, pictured: bool) -> bool:
    """Whether a key of a meaning says something with this value. CSV has false and 0 as texts."""
    no = value is False or (isinstance(value, str) and value.strip().lower() == "false")
    if found == "verdict":
        return no
    if found == "mark":  # a loss that was measured, or a weight in kilograms, is a number like others
        return (
            no or value == "0" or (isinstance(value, int | float) and value == 0) or isinstance(value, list | Mapping)
        )
    return has_value(value) and not (found == "address" and pictured)


def names_file(value: Any) -> bool:
    """Whether a value is a file of a picture, a video or a sound, or a list of them, or of objects that name one."""
    listed = isinstance(value, list | tuple) and bool(value)
    values = value if listed else [value]
    return all(
        any(map(_is_file, item.values())) if listed and isinstance(item, Mapping) else _is_file(item) for item in values
    )


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and len(value) < LONGEST and FILE.fullmatch(value.strip()) is not None


def _strip_value(value: Any) -> Any:
    """A value without what says nothing in it, one in a list as the list."""
    if isinstance(value, Mapping):
        return {key: _strip_value(item) for key, item in value.items() if has_value(item) or item is False}
    if isinstance(value, list | tuple):
        return [_strip_value(item) for item in value]
    return value


def _show_value(value: Any) -> str:
    """A value as details quote it."""
    said = str(value)
    return said if len(said) <= 60 else f"{said[:60]} ..."
