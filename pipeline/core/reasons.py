"""Why something was not kept: the closed list of codes that verdicts, receipts and the ledger use.

`failed` is trouble with the thing itself (it could not be had or read); `dropped` is a decision about it. One family stands beside the
list: `filter:<name>`, the reason of whatever a custom filter drops.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache

FILTER_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""What a custom filter may be called."""


class Reason(StrEnum):
    """One code for each way to lose a row, a sample, a node or an image."""

    # failed: a row of the input file
    BAD_ROW = "bad_row"  # the row has not the form of its source
    BAD_PAGE = "bad_page"  # the page of a document cannot be read
    EMPTY_ROW = "empty_row"  # nothing in it that a sample could be made of
    UNSUPPORTED_MEDIA = "unsupported_media"  # video or audio; pictures where its source reads none
    UNSUPPORTED_CONTENT = "unsupported_content"  # tools, preferences, marks of loss: what would be lost in silence
    # failed: an address
    BAD_URL = "bad_url"  # no http or https, or no host
    FORBIDDEN_ADDRESS = "forbidden_address"  # private, loopback or link-local; a path out of the folder of images
    NAME_LOOKUP = "name_lookup"
    CONNECTION = "connection"
    TIMED_OUT = "timed_out"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    HTTP_CLIENT_ERROR = "http_client_error"  # 4xx
    HTTP_SERVER_ERROR = "http_server_error"  # 5xx, and what no range knows (0xx, 6xx and on), as RFC 9110, 15 has it
    HTTP_UNEXPECTED = "http_unexpected"  # 101, or 3xx that leads nowhere
    TRUNCATED_BODY = "truncated_body"
    TOO_MANY_BYTES = "too_many_bytes"
    EMPTY_BODY = "empty_body"
    OPTED_OUT = "opted_out"  # X-Robots-Tag
    NOT_AN_IMAGE = "not_an_image"
    OUT_OF_MEMORY = "out_of_memory"  # the downloading process may hold no more
    FETCH_ERROR = "fetch_error"  # the downloader itself failed over what a server said
    MISSING_FILE = "missing_file"  # an image file that a row names by its path
    # failed: an image
    UNDECODABLE = "undecodable"
    TOO_MANY_PIXELS = "too_many_pixels"
    UNRENDERABLE = "unrenderable"  # the image policy has no answer for this size
    CRASHED = "crashed"  # the decoder died of it
    # dropped: a decision of a filter
    LANGUAGE = "language"
    IMAGE_TOO_SMALL = "image_too_small"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_RATIO = "image_ratio"
    TOO_FEW_IMAGES = "too_few_images"
    TOO_MANY_IMAGES = "too_many_images"
    WORDS_PER_IMAGE = "words_per_image"
    BLANK_IMAGE = "blank_image"  # one flat colour, or nearly
    BLURRED_IMAGE = "blurred_image"
    TOO_FEW_WORDS = "too_few_words"
    TOO_MANY_WORDS = "too_many_words"
    CHARACTER_REPETITION = "character_repetition"
    WORD_REPETITION = "word_repetition"
    SPECIAL_CHARACTERS = "special_characters"
    UNREADABLE_CHARACTERS = "unreadable_characters"  # controls, private use: what a broken extraction leaves
    STOP_WORDS = "stop_words"  # too few for running text
    FLAGGED_WORDS = "flagged_words"
    PUNCTUATION = "punctuation"  # too little for running text
    OPT_OUT_LIST = "opt_out_list"  # named in a list of the recipe
    EXACT_TEXT = "exact_text"
    NEAR_TEXT = "near_text"
    EXACT_IMAGE = "exact_image"
    NEAR_IMAGE = "near_image"
    BOILERPLATE_IMAGE = "boilerplate_image"
    SAME_ADDRESSES = "same_addresses"  # a document that shows the addresses that another shows
    REPEATED_PARAGRAPH = "repeated_paragraph"  # one that stands in many documents of a domain
    CONTAMINATED_IMAGE = "contaminated_image"  # an image of an evaluation set
    CONTAMINATED_TEXT = "contaminated_text"  # a question of an evaluation set
    PAGE_CAP = "page_cap"  # past the number of pages that a source reads of one document
    # dropped: by hand
    TAKEN_DOWN = "taken_down"  # by `vlmill takedown`; its text and bytes are gone from the folder
    # dropped: a consequence
    REQUIRED_LOST = "required_lost"  # a sample whose required image was dropped by a filter
    TURN_LOST = "turn_lost"  # the other half of a dropped turn
    NOTHING_LEFT = "nothing_left"  # all nodes are gone
    # dropped: a candidate of dedupe
    PAIR_CAP = "pair_cap"  # a pair that shares a place beyond the cap, and is not measured
    # dropped: by the mixture of a stage
    HELD_OUT = "held_out"  # kept for evaluation
    NOT_TAKEN = "not_taken"  # past the part's `where` or `take`
    TOO_LONG = "too_long"  # does not fit a row, and cannot be cut
    LATER_TURNS = "later_turns"  # turns after those that fit a row
    NO_TEXT = "no_text"  # a segment of images alone: nothing to learn

    def __reduce_ex__(self, protocol: object) -> tuple[type[Reason], tuple[str]]:
        """By value: before Python 3.11.4 it would be by name, which reasons of filters are not found by."""
        return Reason, (self.value,)

    @classmethod
    def _missing_(cls, value: object) -> Reason | None:
        kind, _, name = str(value).partition(":")
        return _of_filter(name) if kind == "filter" and FILTER_NAME.fullmatch(name) else None


@cache
def _of_filter(name: str) -> Reason:
    """One object for each name, so that `is` and pickling work as for the codes of the list."""
    reason = str.__new__(Reason, f"filter:{name}")
    reason._name_, reason._value_ = f"FILTER_{name.upper()}", f"filter:{name}"
    return reason


FAILURES = frozenset(list(Reason)[: list(Reason).index(Reason.LANGUAGE)])
"""The codes that count as failed; all others count as dropped."""
