"""The counts of what a build kept, whether or not it makes shards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vlmill.pipeline.engine.chain import ChainStep
from vlmill.pipeline.steps.count_outcomes import CountOutcomes

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build


def count_outcomes(run: Build, until: str | None) -> dict[str, str]:
    """Source -> the folder whose books say what was kept. Where a build makes no shards, samples are settled without, as far as it came."""
    recipe = run.recipe
    if recipe.policies and until in (None, "shard", "mixture"):
        return {source: f"shards/{source}/{next(iter(recipe.policies))}" for source in recipe.sources}
    early = until == "curate"
    step = CountOutcomes(recipe.deciding() if early else recipe.voices())
    verdicts, lanes = {} if early else run.dedupe_verdicts(), []
    for part in run.all_parts():
        lane, source = run.lane(part), part.origin.source
        links = (*lane.links, ChainStep(f"steps/{source}/settle", step))
        lanes.append(replace(lane, links=links, files=(*lane.files, *verdicts.get(f"{source}/{part.name}", ()))))
    for _ in run.walk("settle", lanes):
        pass
    return {source: f"steps/{source}/settle" for source in recipe.sources}
