"""What a chat format puts around an image's placeholders, as the processors of transformers' model classes write it.

The placeholders become features, the rest is text that is read and never supervised. An image is spelt by its layout
alone, so measure counts and the trainer reads the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

FENCE, OVERVIEW = "<fake_token_around_image>", "<global-img>"
UTTERANCE, VIDEO = "<end_of_utterance>", "<video>"  # processors add these to tokenizers that lack them
MOST = 6  # rows and columns that Idefics3's processor has tags for


class ImageLayout(Protocol):
    """What spelling an image needs of its layout."""

    @property
    def tokens(self) -> int:
        """Placeholders of the whole image."""

    @property
    def tiles(self) -> int:
        """Encoder inputs, which have equally many placeholders wherever they are spelt apart."""

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tiles, the overview not among them."""


class IndexedImage(NamedTuple):
    """An image as a shard's index has it; see `ImageLayout`."""

    tokens: int
    tiles: int = 1
    grid: tuple[int, int] = (1, 1)


Spelling = Sequence[tuple[str | None, int]]
"""Marks and texts in order, each with how often it is said; None is the placeholder."""


@dataclass(frozen=True, slots=True)
class ImageTokenTemplate:
    """How images are spelt."""

    spell: Callable[[ImageLayout], Spelling]  # pure
    specials: tuple[str, ...] = ()  # marks of a spelling, and of its processor besides
    after: str = ""  # text that a spelling ends with, and that a processor has to be given behind its placeholder
    merged: str = ""  # a mark of which two that touch become one, and which a space keeps from a word behind it


def _bare(image: ImageLayout) -> Spelling:
    return [(None, image.tokens)]


def _fenced(image: ImageLayout) -> Spelling:
    tile = [(None, image.tokens // image.tiles), (FENCE, 1)]
    return [(FENCE, 1), *tile * image.tiles, ("\n", 1)]


def _fenced_alone(image: ImageLayout) -> Spelling:
    return _fenced(image)[:-1]


def _tagged(image: ImageLayout) -> Spelling:
    (rows, columns), tile = image.grid, (None, image.tokens // image.tiles)
    if max(image.grid) > MOST:
        raise ValueError(f"an image of {rows} x {columns} tiles: Idefics3's processor has tags for {MOST} x {MOST}")
    overview: Spelling = [(FENCE, 1), (OVERVIEW, 1), tile, (FENCE, 1)]
    if image.tiles == 1:
        return overview
    spelt: list[tuple[str | None, int]] = []
    for row in range(rows):
        for column in range(columns):
            spelt += [(FENCE, 1), (_tag(row, column), 1), tile]
        spelt.append(("\n" if row + 1 < rows else "\n\n", 1))
    return [*spelt, *overview]


def _bracketed(image: ImageLayout) -> Spelling:
    return [("<img>", 1), (None, image.tokens), ("</img>", 1)]


def _tag(row: int, column: int) -> str:
    return f"<row_{row + 1}_col_{column + 1}>"


BARE = ImageTokenTemplate(_bare)
"""Nothing but placeholders: LLaVA and its kin."""

FENCED = ImageTokenTemplate(_fenced, (FENCE, UTTERANCE), after="\n")
"""A mark before, between and behind the tiles: `IdeficsProcessor` and `Idefics2Processor`.

Both processors merge the marks of two images that touch, and the second puts a space between mark and word. The line
break keeps neighbours out of an image's spelling: a segment may be cut beside it.
"""

FENCED_ALONE = ImageTokenTemplate(_fenced_alone, (FENCE, UTTERANCE), merged=FENCE)
"""The same under a published chat template, which is read as a whole: no line break, marks of neighbours merged."""

TAGS = tuple(_tag(row, column) for row in range(MOST) for column in range(MOST))
TAGGED = ImageTokenTemplate(_tagged, (FENCE, OVERVIEW, *TAGS, UTTERANCE))
"""A mark and the place in the grid before each tile: `Idefics3Processor` and `SmolVLMProcessor`."""

BRACKETED = ImageTokenTemplate(_bracketed, ("<img>", "</img>", VIDEO))
"""A mark before and one behind: `InternVLProcessor`."""
