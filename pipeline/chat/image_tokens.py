"""What a chat format puts around an image's placeholders, as the processors of transformers' model classes write it.

The placeholders become features, the rest is text that is read and never supervised. The tokens of an image depend on
its layout alone, so the step `token_lengths` counts the tokens that the trainer reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

FENCE, OVERVIEW = "<fake_token_around_image>", "<global-img>"
UTTERANCE, VIDEO = "<end_of_utterance>", "<video>"  # processors add these to tokenizers that lack them
NEWLINE = "|NEWLINE|"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
SOFT_START, SOFT_END = "<start_of_image>", "<end_of_image>"
MOST = 6  # rows and columns that Idefics3's processor has tags for


class ImageLayout(Protocol):
    """What an image-token template needs of a layout."""

    @property
    def tokens(self) -> int:
        """Placeholders of the whole image."""

    @property
    def tiles(self) -> int:
        """Encoder inputs, which have equally many placeholders wherever they are written apart."""

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tiles, the overview not among them; of patches where lines of them are written."""


class IndexedImage(NamedTuple):
    """An image as a shard's index has it; see `ImageLayout`."""

    tokens: int
    tiles: int = 1
    grid: tuple[int, int] = (1, 1)


ImageTokens = Sequence[tuple[str | None, int]]
"""Marks and texts in order, each with how often it is said; None is the placeholder."""


@dataclass(frozen=True, slots=True)
class ImageTokenTemplate:
    """The tokens that a chat format writes for an image of a given layout."""

    write: Callable[[ImageLayout], ImageTokens]  # pure
    specials: tuple[str, ...] = ()  # marks in it, and of its processor besides
    before: str = ""  # what it begins with, and a processor has to be given in front of its placeholder
    after: str = ""  # text that it ends with, and that a processor has to be given behind its placeholder
    merged: str = ""  # a mark of which two that touch become one, and which a space keeps from a word behind it
    placeholder: str = ""  # what a chat template writes for an image, if that is not the token that becomes features
    joined: bool = False  # its texts are read as one text with those of its turn that touch them

    def write_inside(self, image: ImageLayout) -> ImageTokens:
        """What a processor writes for its placeholder: all but `before` and `after`."""
        tokens = self.write(image)
        return tokens[bool(self.before) : len(tokens) - bool(self.after)]


def _write_bare(image: ImageLayout) -> ImageTokens:
    return [(None, image.tokens)]


def _write_fenced(image: ImageLayout) -> ImageTokens:
    tile = [(None, image.tokens // image.tiles), (FENCE, 1)]
    return [(FENCE, 1), *tile * image.tiles, ("\n", 1)]


def _write_fenced_alone(image: ImageLayout) -> ImageTokens:
    return _write_fenced(image)[:-1]


def _write_tagged(image: ImageLayout) -> ImageTokens:
    (rows, columns), tile = image.grid, (None, image.tokens // image.tiles)
    if max(image.grid) > MOST:
        raise ValueError(f"an image of {rows} x {columns} tiles: Idefics3's processor has tags for {MOST} x {MOST}")
    overview: ImageTokens = [(FENCE, 1), (OVERVIEW, 1), tile, (FENCE, 1)]
    if image.tiles == 1:
        return overview
    tokens: list[tuple[str | None, int]] = []
    for row in range(rows):
        for column in range(columns):
            tokens += [(FENCE, 1), (_name_tile(row, column), 1), tile]
        tokens.append(("\n" if row + 1 < rows else "\n\n", 1))
    return [*tokens, *overview]


def _write_bracketed(image: ImageLayout) -> ImageTokens:
    return [("<img>", 1), (None, image.tokens), ("</img>", 1)]


def _write_vision(image: ImageLayout) -> ImageTokens:
    return [(VISION_START, 1), (None, image.tokens), (VISION_END, 1)]


def _write_lines(image: ImageLayout) -> ImageTokens:
    rows, columns = image.grid
    return [(None, columns), (NEWLINE, 1)] * rows


def _write_soft(image: ImageLayout) -> ImageTokens:
    return [("\n\n", 1), (SOFT_START, 1), (None, image.tokens), (SOFT_END, 1), ("\n\n", 1)]


def _name_tile(row: int, column: int) -> str:
    return f"<row_{row + 1}_col_{column + 1}>"


BARE = ImageTokenTemplate(_write_bare)
"""Nothing but placeholders: LLaVA and its kin."""

FENCED = ImageTokenTemplate(_write_fenced, (FENCE, UTTERANCE), after="\n")
"""A mark before, between and behind the tiles: `IdeficsProcessor` and `Idefics2Processor`.

Both processors merge the marks of two images that touch, and the second puts a space between mark and word. The line
break keeps neighbours out of an image's tokens: a segment may be cut beside it.
"""

FENCED_ALONE = ImageTokenTemplate(_write_fenced_alone, (FENCE, UTTERANCE), merged=FENCE)
"""The same under a published chat template, which is read as a whole: no line break, marks of neighbours merged."""

TAGS = tuple(_name_tile(row, column) for row in range(MOST) for column in range(MOST))
TAGGED = ImageTokenTemplate(_write_tagged, (FENCE, OVERVIEW, *TAGS, UTTERANCE))
"""A mark and the place in the grid before each tile: `Idefics3Processor` and `SmolVLMProcessor`."""

BRACKETED = ImageTokenTemplate(_write_bracketed, ("<img>", "</img>", VIDEO))
"""A mark before and one behind: `InternVLProcessor`."""

VISION = ImageTokenTemplate(
    _write_vision, (VISION_START, VISION_END, "<|video_pad|>"), before=VISION_START, after=VISION_END
)
"""The same by other names, which chat templates write themselves: `Qwen2_5_VLProcessor` and `Qwen3VLProcessor`."""

LINES = ImageTokenTemplate(_write_lines, (NEWLINE,))
"""A mark behind each row of patches: `FuyuProcessor`."""

SOFT = ImageTokenTemplate(_write_soft, (SOFT_START, SOFT_END), placeholder=SOFT_START, joined=True)
"""Blank lines, which a tokenizer may join with the text beside them, and marks: `Gemma3Processor`."""
