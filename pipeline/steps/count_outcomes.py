"""Step `outcomes`: the counts of a partition of which no shards are made.

A run without policies so knows what it keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE, name_verdicts
from vlmill.pipeline.core.step import Counts, Inputs
from vlmill.pipeline.verdicts.audit import recount_partition


@dataclass(frozen=True)
class CountOutcomes:
    """Counts samples, nodes and images as render would, but for what a policy cannot draw. Leaves no file."""

    name: ClassVar[str] = "outcomes"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    filters: tuple[str, ...]  # whose verdicts count, in the order in which they count

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples, the image stats of their images, and every verdict."""
        return (SAMPLES_FILE, IMAGE_STATS_FILE, *(name_verdicts(filter_) for filter_ in self.filters))

    def made_by(self) -> Mapping[str, str]:
        """Nothing that could differ."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Count."""
        del folder
        return recount_partition(inputs, self.filters).counts
