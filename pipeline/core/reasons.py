"""Why something was not kept: the closed list of codes that verdicts, receipts and the funnel use.

Each says itself which it counts as: failed is trouble with the thing itself (it could not be had or read), dropped is a
decision about it. Two families stand beside the list: `filter:<name>`, the reason of whatever a custom filter drops,
and `signal:<value>`, of what lies beyond a bound of a signal.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache
from typing import Final, Literal, Self

FILTER_NAME = re.compile(r"[a-z][a-z0-9_]*")
"""What a custom filter, or a value of a signal, may be called."""

FAMILIES = ("filter", "signal")
"""What stands before the name in a reason that is not in the list."""

FAILED: Final = "failed"
DROPPED: Final = "dropped"


class Reason(StrEnum):
    """One code for each way to lose a row, a sample, a node or an image; each is a failure or a decision."""

    _value_: str
    failed: bool
    """Trouble with the thing itself. False: a decision about it."""

    def __new__(cls, code: str, kind: Literal["failed", "dropped"] | None = None) -> Self:
        """A member: its code, and which of the two it is. A look-up by code does not come here."""
        if kind is None:
            raise TypeError(f"reason {code!r} says neither FAILED nor DROPPED")
        reason = str.__new__(cls, code)
        reason._value_, reason.failed = code, kind == FAILED
        return reason

    # failed: an input file, or the rows of it that damage hides
    BAD_FILE = "bad_file", FAILED
    # failed: a row of the input file
    BAD_ROW = "bad_row", FAILED  # the row has not the form of its source
    BAD_PAGE = "bad_page", FAILED  # the page of a document cannot be read
    EMPTY_ROW = "empty_row", FAILED  # nothing in it that a sample could be made of
    TOO_MANY_CHARACTERS = "too_many_characters", FAILED  # in the texts and addresses of one sample
    UNSUPPORTED_MEDIA = "unsupported_media", FAILED  # video or audio; pictures where its source reads none
    UNSUPPORTED_CONTENT = (
        "unsupported_content",
        FAILED,
    )  # tools, preferences, marks of loss: what would be lost in silence
    # failed: an address
    BAD_URL = "bad_url", FAILED  # no http or https, or no host
    FORBIDDEN_ADDRESS = (
        "forbidden_address",
        FAILED,
    )  # private, loopback or link-local; a path out of the folder of images
    NAME_LOOKUP = "name_lookup", FAILED
    CONNECTION = "connection", FAILED
    TIMED_OUT = "timed_out", FAILED
    TOO_MANY_REDIRECTS = "too_many_redirects", FAILED
    HTTP_CLIENT_ERROR = "http_client_error", FAILED  # 4xx
    HTTP_SERVER_ERROR = (
        "http_server_error",
        FAILED,
    )  # 5xx, and what no range knows (0xx, 6xx and on), as RFC 9110, 15 has it
    HTTP_UNEXPECTED = "http_unexpected", FAILED  # 101, or 3xx that leads nowhere
    TRUNCATED_BODY = "truncated_body", FAILED
    TOO_MANY_BYTES = "too_many_bytes", FAILED
    EMPTY_BODY = "empty_body", FAILED
    OPTED_OUT = "opted_out", FAILED  # X-Robots-Tag
    ROBOTS_TXT = "robots_txt", FAILED  # its host's robots.txt forbids it
    ROBOTS_UNKNOWN = "robots_unknown", FAILED  # robots.txt could not be had, and the recipe wants it
    AI_PREFERENCE = "ai_preference", FAILED  # Content-Usage (AIPREF): not for training
    TDM_RESERVED = "tdm_reserved", FAILED  # TDMRep: tdmrep.json of its host, or the header
    NOT_AN_IMAGE = "not_an_image", FAILED
    OUT_OF_MEMORY = "out_of_memory", FAILED  # the process that downloads or decodes may hold no more
    FETCH_ERROR = "fetch_error", FAILED  # the downloader itself failed over what a server said
    MISSING_FILE = "missing_file", FAILED  # an image file that a row names by its path
    # failed: an image
    UNDECODABLE = "undecodable", FAILED
    TOO_MANY_PIXELS = "too_many_pixels", FAILED  # together, or on a side
    TOO_MANY_SCANS = "too_many_scans", FAILED  # of a JPEG: each is a pass over all pixels
    UNRENDERABLE = "unrenderable", FAILED  # the image policy has no answer for this size
    CRASHED = "crashed", FAILED  # the decoder died of it
    # failed: coordinates in a text
    BAD_BOX = "bad_box", FAILED  # outside of their frame, too many or too few numbers, corners the wrong way round
    BOX_WITHOUT_IMAGE = "box_without_image", FAILED  # no image that they are of, or several that they may be of
    # failed: a question to a server; what it refused is http_client_error
    BAD_ANSWER = "bad_answer", FAILED  # never of the declared form
    # dropped: a decision of a filter
    LANGUAGE = "language", DROPPED
    HAN_CHARACTERS = "han_characters", DROPPED  # some, in a text that is neither Japanese nor Korean
    IMAGE_TOO_SMALL = "image_too_small", DROPPED
    IMAGE_TOO_LARGE = "image_too_large", DROPPED
    IMAGE_RATIO = "image_ratio", DROPPED
    TOO_FEW_IMAGES = "too_few_images", DROPPED
    TOO_MANY_IMAGES = "too_many_images", DROPPED
    WORDS_PER_IMAGE = "words_per_image", DROPPED
    BLANK_IMAGE = "blank_image", DROPPED  # one flat colour, or nearly
    BLURRED_IMAGE = "blurred_image", DROPPED
    TOO_FEW_WORDS = "too_few_words", DROPPED
    TOO_MANY_WORDS = "too_many_words", DROPPED
    CHARACTER_REPETITION = "character_repetition", DROPPED
    WORD_REPETITION = "word_repetition", DROPPED
    SPECIAL_CHARACTERS = "special_characters", DROPPED
    UNREADABLE_CHARACTERS = "unreadable_characters", DROPPED  # controls, private use: what a broken extraction leaves
    STOP_WORDS = "stop_words", DROPPED  # too few for running text
    COMMON_WORDS = "common_words", DROPPED  # too few words that people write
    FLAGGED_WORDS = "flagged_words", DROPPED
    PUNCTUATION = "punctuation", DROPPED  # too little for running text
    OPT_OUT_LIST = "opt_out_list", DROPPED  # named in a list of the recipe
    NOT_FETCHED = "not_fetched", DROPPED  # an image that only documents show which filters of texts had dropped before
    EXACT_TEXT = "exact_text", DROPPED
    NEAR_TEXT = "near_text", DROPPED
    CONTAINED_TEXT = "contained_text", DROPPED  # stands in a longer one
    EXACT_IMAGE = "exact_image", DROPPED
    NEAR_IMAGE = "near_image", DROPPED
    BOILERPLATE_IMAGE = "boilerplate_image", DROPPED
    SEMANTIC_IMAGE = "semantic_image", DROPPED  # its vector is close to that of an image that is kept
    SEMANTIC_TEXT = "semantic_text", DROPPED  # the same of a text
    HOST_IMAGE = "host_image", DROPPED  # one that many documents of its host show
    SAME_ADDRESSES = "same_addresses", DROPPED  # a document that shows the addresses that another shows
    REPEATED_PARAGRAPH = "repeated_paragraph", DROPPED  # one that stands in many documents of a domain
    CONTAMINATED_IMAGE = "contaminated_image", DROPPED  # an image of an evaluation set
    CONTAMINATED_TEXT = "contaminated_text", DROPPED  # a question of an evaluation set
    PAGE_CAP = "page_cap", DROPPED  # past the number of pages that a source reads of one document
    BOX_CUT_AWAY = "box_cut_away", DROPPED  # coordinates of what the image policy does not show
    # dropped: by hand
    TAKEN_DOWN = "taken_down", DROPPED  # by `vlmill takedown`; its text and bytes are gone from the folder
    # dropped: a consequence
    REQUIRED_LOST = "required_lost", DROPPED  # a sample whose required image was dropped by a filter
    TURN_LOST = "turn_lost", DROPPED  # the other half of a dropped turn
    NOTHING_LEFT = "nothing_left", DROPPED  # all nodes are gone
    # dropped: a candidate of dedupe
    PAIR_CAP = "pair_cap", DROPPED  # a pair that shares a place beyond the cap, and is not measured
    # dropped: by the mixture of a stage
    HELD_OUT = "held_out", DROPPED  # kept for evaluation
    NOT_TAKEN = "not_taken", DROPPED  # past the part's `where` or `take`
    OVER_CAP = "over_cap", DROPPED  # past the cap of its group in an entry with `balance`
    TOO_LONG = "too_long", DROPPED  # does not fit a row, and cannot be cut
    LATER_TURNS = "later_turns", DROPPED  # turns after those that fit a row
    TRUNCATED = "truncated", DROPPED  # tokens of an answer behind those that fit a row, where the mixture says so
    TEMPLATE_REFUSED = "template_refused", DROPPED  # the chat template has no form for the conversation
    TEMPLATE_CHANGED = "template_changed", DROPPED  # the chat template would leave out or change some of it
    NO_TEXT = "no_text", DROPPED  # a segment of images alone: nothing to learn

    def __reduce_ex__(self, protocol: object) -> tuple[type[Reason], tuple[str]]:
        """By value: before Python 3.11.4 it would be by name, which reasons of filters are not found by."""
        return Reason, (self.value,)

    @classmethod
    def _missing_(cls, value: object) -> Reason | None:
        kind, _, name = str(value).partition(":")
        return _make_named_reason(kind, name) if kind in FAMILIES and FILTER_NAME.fullmatch(name) else None


@cache
def _make_named_reason(kind: str, name: str) -> Reason:
    """One object for each name, so that `is` and pickling work as for the codes of the list."""
    reason = str.__new__(Reason, f"{kind}:{name}")
    reason._name_, reason._value_ = f"{kind}_{name}".upper(), f"{kind}:{name}"
    reason.failed = False
    return reason
