"""What texts hold that was hardly meant to be trained on as it stands: entities of HTML, and marks of images.

For `vlmill new` (text_notes.py), which has pages of rows, and `vlmill check` (sample_warnings.py), which has samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmill.pipeline.core.sample import Node, read_samples
from vlmill.pipeline.core.yaml_format import format_yaml_inline
from vlmill.pipeline.proposal.image_marks import READABLE, find_mark
from vlmill.pipeline.sources.entities import find_entities

MARKED = re.compile(
    rf"<image>|<img>[^<]+</img>|<\|vision_start\|>|\{{\{{?(?i:image|img|photo|picture)[ _-]?\d*\}}|{READABLE.pattern}"
)
"""How Qwen, Phi, MMMU, InternLM and others mark an image in a text. `<img>` alone is a word of HTML."""


@dataclass(frozen=True)
class SeenMarks:
    """In how many samples something stands, and the first of it."""

    samples: int
    of: int
    example: str

    def __str__(self) -> str:
        """As the beginning of a sentence."""
        return f"{self.samples} of {self.of} samples that were looked at hold"


def see_entities(samples: Sequence[Sequence[Node]]) -> SeenMarks:
    """Entities in the texts of samples that are no HTML themselves."""
    return _count_marks(find_entities(_list_texts(nodes)) for nodes in samples)


def see_images(samples: Sequence[Sequence[Node]]) -> SeenMarks:
    """Marks of images that stayed text."""
    return _count_marks(
        next((found[0] for text in _list_texts(nodes) if (found := MARKED.search(text))), "") for nodes in samples
    )


def warn_of_texts(path: Path, source: str, *, unescape: bool) -> tuple[str, ...]:
    """For `vlmill check`, of the samples in a table; with `unescape` nothing is said of entities."""
    samples = [sample.nodes for sample in read_samples(path)]
    found = list[str]()
    if (seen := see_entities(samples)).samples and not unescape:
        found.append(
            f"source {source}: {seen} HTML entities, such as {seen.example}, which are trained on as they are: "
            f"--set sources.{source}.unescape=true makes characters of them"
        )
    if (seen := see_images(samples)).samples:
        found.append(f"source {source}: {seen} marks of images that stay text, {advise_mark(seen.example)}")
    return tuple(found)


def advise_mark(example: str) -> str:
    """What to do about a mark that stays text, with the option that reads it."""
    mark = find_mark([{"": example}])
    told = f"the option `mark: {format_yaml_inline(mark)}` reads it" if mark else "name that"
    return (
        f"such as {example}: where the images have a column or key of their own, {told}; rows that mark images in "
        "another way are a source of their own (docs/conversations.md, Marks of images)"
    )


def _count_marks(found: Iterable[str]) -> SeenMarks:
    marks = [*found]
    held = [mark for mark in marks if mark]
    return SeenMarks(len(held), len(marks), held[0] if held else "")


def _list_texts(nodes: Sequence[Node]) -> Iterator[str]:
    return (node.text for node in nodes if node.text)
