"""Exports of chats: messages that were withdrawn or hidden, and messages that are out of order."""

import pytest

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.conversation import read_text_page

ASKED, SAID = {"role": "user", "content": "Why is it red?"}, {"role": "assistant", "content": "It has no power."}


@pytest.mark.parametrize(
    "key",
    [
        *({"public": False}, {"isDeleted": True}, {"internal": "true"}, {"is_private": 1}, {"was_hidden": True}),
        *({"subtype": "channel_join"}, {"part_type": "note_and_reopen"}, {"type": "Note"}, {"subtype": "tombstone"}),
    ],
)
def test_a_message_that_was_withdrawn_or_hidden_is_not_learned(key):
    with pytest.raises(UnreadableRow, match="message 1 is not part of the conversation") as caught:
        read_text_page([ASKED, {"role": "assistant", "content": "He is a nuisance.", **key}, SAID])
    assert caught.value.reason is Reason.UNSUPPORTED_CONTENT


@pytest.mark.parametrize(
    "key",
    [
        *({"public": True}, {"deleted": False}, {"hidden": None}, {"private": 0}, {"removed": "no"}),
        *({"subtype": "file_share"}, {"part_type": "comment"}, {"type": "message"}, {"subtype": "bot_message"}),
    ],
)
def test_a_message_that_says_it_was_seen_is_read(key):
    assert len(read_text_page([ASKED, {**SAID, **key}]).nodes) == 2


def talk(key, *times):
    return [{**(ASKED, SAID)[place % 2], key: time} for place, time in enumerate(times)]


OUT_OF_ORDER = [
    talk("ts", "1760000300.000100", "1760000360.000100", "1760000000.000100", "1760000060.000100"),
    talk("created_at", "2026-04-02T10:00:00Z", "2026-04-02T10:01:00Z", "2026-04-01T10:00:00Z", "2026-04-01T10:01:00Z"),
    talk("createTime", 1760000300000, 1760000000000),
    talk("date", "2026-04-02", "2026-04-01"),
    talk("at", "2026-04-02T08:00:00Z", "2026-04-01T08:00:00Z"),
    talk("sent_at", "2026-04-02T10:00:00", None, "2026-04-01T10:00:00", None),
]


@pytest.mark.parametrize("messages", OUT_OF_ORDER)
def test_messages_that_are_out_of_order_by_their_times_lose_the_row(messages):
    with pytest.raises(UnreadableRow, match="messages are out of order") as caught:
        read_text_page(messages)
    assert caught.value.reason is Reason.BAD_ROW


IN_ORDER = [
    talk("ts", "1760000000.000100", "1760000000.000100", "1760000060.000100", "1760000060.000200"),
    talk("time", 12.5, 3.2),  # seconds that something took
    talk("timestamp", "23:59", "00:01"),
    talk("date", "2026-04-02", "yesterday"),
    talk("created", "2026-04-02T10:00:00Z", "2026-04-01T10:00:00"),  # no common clock
    talk("ts", "nan", 1e999),
    talk("age", 2e9, 1e9),
    [{"role": "system", "content": "Be brief.", "ts": 1760000900}, *talk("ts", 1760000000, 1760000060)],
]


def test_the_time_of_a_message_is_not_said_to_be_unread():
    messages = [{**message, "mood": "calm"} for message in talk("sentAt", "2026-04-01", "2026-04-02")]
    assert read_text_page(messages).unread == ("message.mood",)


@pytest.mark.parametrize("messages", IN_ORDER)
def test_messages_in_order_or_without_times_that_compare_are_read(messages):
    assert len(read_text_page(messages).nodes) == len(messages)


def test_a_speaker_that_is_a_number_is_asked_for_in_quotes():
    options = {"turns": "t", "speaker": "by", "speakers": {380: "user"}}
    with pytest.raises(RecipeError, match=r"A name should be a text, in quotes: '380'"):
        parse_block(SOURCES["table"], options, "options")
