"""Messages that say when they were sent, as exports of chats do: whether they stand in the order of these times.

An export may list the newest message first, or one thread behind another. Read as they stand, answers would be learned
for questions that came after them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from vlmill.pipeline.sources.base import UnreadableRow

TIMES = frozenset(
    {"ts", "time", "timestamp", "date", "datetime", "created", "createdat", "createdtime", "createtime"}
    | {
        "createdutc",
        "createdon",
        "sent",
        "sentat",
        "senton",
        "senttime",
        "at",
        "when",
        "posted",
        "postedat",
        "postedon",
    }
    | {"received", "receivedat", "writtenat", "messagetime"}
)
"""What the key of the time of a message is called, in lower case and without `_` and `-`."""

EPOCH = 1e8
"""Seconds since 1970 from which on a number is taken for a time; smaller ones are durations, or seconds of a video."""


def is_time(key: str) -> bool:
    """Whether a key of a message is called as the time that it was sent."""
    return key.lower().replace("_", "").replace("-", "") in TIMES


def check_times(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raise UnreadableRow where a message is older, by such a key, than the one before it that has the key.

    What cannot be read as a time, in any of the messages, says nothing.
    """
    for key in dict.fromkeys(key for message in messages for key in message):
        if not is_time(key):
            continue
        said = [message[key] for message in messages if message.get(key) not in (None, "")]
        times = [_read_time(value) for value in said]
        if None in times or len({_find_form(time) for time in times}) != 1:
            continue
        for place, (before, after) in enumerate(pairwise(times)):
            if after < before:  # type: ignore[operator]  # of one form, and none is None
                raise UnreadableRow(
                    f"messages are out of order: by {key} {said[place]} comes before {said[place + 1]}; sort them by it"
                )


def _read_time(value: Any) -> float | datetime | None:
    """A number of seconds or milliseconds since 1970, or a date with or without a time; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return number if (number := float(value)) >= EPOCH else None
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(str(value).strip())
    except ValueError:
        return None


def _find_form(time: float | datetime | None) -> tuple[type, bool]:
    """What times can be compared with: numbers with numbers, and dates with a zone with such dates."""
    return type(time), isinstance(time, datetime) and time.tzinfo is not None
