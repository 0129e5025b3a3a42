"""The counts of what a build kept, whether or not it makes shards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vlmill.pipeline.engine.chain import ChainStep
from vlmill.pipeline.steps.count_outcomes import CountOutcomes

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build


def count_outcomes(run: Build, until: str | None) -> dict[str, str]:
    """Source -> the folder whose counts say what was kept.

    Where a build makes no shards, samples are applied without, as far as it came.
    """
    recipe = run.recipe
    if recipe.policies and until in (None, "shard", "mixture"):
        return {source: f"shards/{source}/{next(iter(recipe.policies))}" for source in recipe.sources}
    steps_by_phase = {"curate": recipe.unscored_verdict_steps(), "signals": recipe.verdict_steps()}
    step = CountOutcomes(steps_by_phase.get(until or "", recipe.all_verdict_steps()))
    verdicts, chains = {} if until in steps_by_phase else run.dedupe_verdicts(), []
    for partition in run.all_partitions():
        chain, source = run.chain(partition, scored=until != "curate"), partition.input_file.source
        steps = (*chain.steps, ChainStep(f"steps/{source}/outcomes", step))
        chains.append(
            replace(chain, steps=steps, files=(*chain.files, *verdicts.get(f"{source}/{partition.name}", ())))
        )
    for _ in run.run_chains("outcomes", chains):
        pass
    return {source: f"steps/{source}/outcomes" for source in recipe.sources}
