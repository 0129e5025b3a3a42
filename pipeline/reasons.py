"""Why something was not kept: the closed list of codes that verdicts, receipts and the ledger use.

`failed` is trouble with the thing itself (it could not be had or read); `dropped` is a decision about it.
"""

from enum import StrEnum


class Reason(StrEnum):
    """One code for each way to lose a row, a sample, a node or an image."""

    # failed: a row of the origin
    BAD_ROW = "bad_row"  # the row has not the form of its source
    BAD_PAGE = "bad_page"  # the page of a document cannot be read
    EMPTY_ROW = "empty_row"  # nothing in it that a sample could be made of
    UNSUPPORTED_MEDIA = "unsupported_media"  # video or audio
    # failed: an address
    BAD_URL = "bad_url"  # no http or https, or no host
    FORBIDDEN_ADDRESS = "forbidden_address"  # private, loopback or link-local; a path out of the folder of images
    NAME_LOOKUP = "name_lookup"
    CONNECTION = "connection"
    TIMED_OUT = "timed_out"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    HTTP_CLIENT_ERROR = "http_client_error"  # 4xx
    HTTP_SERVER_ERROR = "http_server_error"  # 5xx
    TRUNCATED_BODY = "truncated_body"
    TOO_MANY_BYTES = "too_many_bytes"
    EMPTY_BODY = "empty_body"
    OPTED_OUT = "opted_out"  # X-Robots-Tag
    NOT_AN_IMAGE = "not_an_image"
    MISSING_FILE = "missing_file"  # an image file that a row names by its path
    # failed: an image
    UNDECODABLE = "undecodable"
    TOO_MANY_PIXELS = "too_many_pixels"
    UNRENDERABLE = "unrenderable"  # the image policy has no answer for this size
    CRASHED = "crashed"  # the decoder died of it
    # dropped: a decision of a judge
    LANGUAGE = "language"
    IMAGE_TOO_SMALL = "image_too_small"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_RATIO = "image_ratio"
    TOO_FEW_IMAGES = "too_few_images"
    TOO_MANY_IMAGES = "too_many_images"
    EXACT_TEXT = "exact_text"
    NEAR_TEXT = "near_text"
    EXACT_IMAGE = "exact_image"
    NEAR_IMAGE = "near_image"
    BOILERPLATE_IMAGE = "boilerplate_image"
    PAGE_CAP = "page_cap"  # past the number of pages that a source reads of one document
    # dropped: a consequence
    REQUIRED_LOST = "required_lost"  # a sample whose required image was dropped by a judge
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


FAILURES = frozenset(list(Reason)[: list(Reason).index(Reason.LANGUAGE)])
"""The codes that count as failed; all others count as dropped."""
