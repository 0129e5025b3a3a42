"""Step `settle`: the books of a partition where no shards are made of it, so that a run without policies knows what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vlmill.pipeline.core.step import Counts, Inputs
from vlmill.pipeline.engine.chain import Link
from vlmill.pipeline.verdicts.audit import recount

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Run


@dataclass(frozen=True)
class Settling:
    """Counts samples, nodes and images as render would, but for what a policy cannot draw. Leaves no file."""

    name: ClassVar[str] = "settle"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    judges: tuple[str, ...]  # whose verdicts count, in the order in which they are heard

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples, the facts of their images, and every verdict."""
        return ("samples.parquet", "facts.parquet", *(f"{judge}.verdicts.parquet" for judge in self.judges))

    def made_by(self) -> Mapping[str, str]:
        """Nothing that could differ."""
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Count."""
        del folder
        return recount(inputs, self.judges).books


def settle(run: Run, until: str | None) -> dict[str, str]:
    """Source -> the folder whose books say what was kept. Where a build makes no shards, samples are settled without, as far as it came."""
    recipe = run.recipe
    if recipe.policies and until in (None, "shard", "mixture"):
        return {source: f"shards/{source}/{next(iter(recipe.policies))}" for source in recipe.sources}
    early = until == "curate"
    step = Settling(recipe.deciding() if early else recipe.voices())
    verdicts, lanes = {} if early else run.dedupe_verdicts(), []
    for part in run.all_parts():
        lane, source = run.lane(part), part.origin.source
        links = (*lane.links, Link(f"steps/{source}/settle", step))
        lanes.append(replace(lane, links=links, files=(*lane.files, *verdicts.get(f"{source}/{part.name}", ()))))
    for _ in run.walk("settle", lanes):
        pass
    return {source: f"steps/{source}/settle" for source in recipe.sources}
