"""Keys of rows that were not read, by source: what an input file says beyond what a sample holds.

Read from what `read` noted of each partition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.names import UNREAD_FILE
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
        rest = f" and {'more than ' if self.beyond else ''}{more:,} more" if more or self.beyond else ""
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
