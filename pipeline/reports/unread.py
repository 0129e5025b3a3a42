"""What was not read, by source: keys of rows beyond what a sample holds, and pages of a TIFF behind its first.

Read from what `read` and `image_stats` noted of each partition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.names import UNREAD_FILE
from vlmill.pipeline.core.sample import ImageStats, read_image_stats
from vlmill.pipeline.core.shown import describe_more
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import read_locked_recipe

SHOWN = 10
"""Keys that a line names, those of most rows first."""


@dataclass(frozen=True, slots=True)
class UnreadKeys:
    """The keys of one source that were not read, with the rows that had a value there, those of most rows first."""

    source: str  # its name
    rows: dict[str, int]  # key -> rows with a value there
    beyond: int = 0  # mentions of keys that were past counting

    def __str__(self) -> str:
        """A line for people."""
        names = [f"{key} ({rows:,})" for key, rows in [*self.rows.items()][:SHOWN]]
        if names:
            names[0] = f"{names[0][:-1]} row{'s' * (next(iter(self.rows.values())) != 1)})"
        more = len(self.rows) - len(names)
        rest = f" and more than {more:,} more keys" if self.beyond else describe_more(more, "key")
        return f"{self.source}: keys not read: {', '.join(names)}{rest}"


def list_unread_keys(root: Path) -> Iterator[UnreadKeys]:
    """What each source that is read to its end held beyond its samples, where it did."""
    for source in sorted(read_locked_recipe(root).sources):
        folder = f"steps/{source}/read"
        if not (root / folder / "manifest.json").exists():
            continue
        rows, beyond = Counter[str](), 0
        for receipt in read_manifest(root, folder):
            for file in receipt.files:
                if file.name == UNREAD_FILE:
                    found = read_json(root / file.path)
                    rows.update(found["keys"])
                    beyond += found["beyond"]
        if rows:
            yield UnreadKeys(source, dict(sorted(rows.items(), key=lambda item: (-item[1], item[0]))), beyond)


@dataclass(frozen=True, slots=True)
class UnreadPages:
    """Images of one source that have pages behind their first, which alone is shown."""

    source: str
    images: int
    pages: int  # of these images, those that are not shown

    def __str__(self) -> str:
        """A line for people."""
        one = self.images == 1
        return (
            f"{self.source}: {self.images:,} TIFF{'' if one else 's'} with several pages: the first is read, "
            f"{self.pages:,} behind {'it' if one else 'them'} {'is' if self.pages == 1 else 'are'} not"
        )


def count_unread_pages(source: str, found: Iterable[ImageStats]) -> UnreadPages:
    """The pages of TIFFs behind their first; frames of other formats are moving pictures or depth, and no pages."""
    behind = [stats.frames - 1 for stats in found if stats.format == "TIFF" and stats.frames > 1]
    return UnreadPages(source, len(behind), sum(behind))


def list_unread_pages(root: Path, sources: Iterable[str]) -> Iterator[UnreadPages]:
    """The same of these sources of a run, of those whose images were looked at and have some."""
    for source in sources:
        folder = f"steps/{source}/image_stats"
        if (root / folder / "manifest.json").exists():
            files = [file for receipt in read_manifest(root, folder) for file in receipt.files]
            tables = (read_image_stats(root / file.path, ("format", "frames")) for file in files)
            pages = count_unread_pages(source, (stats for table in tables for stats in table))
            if pages.images:
                yield pages
