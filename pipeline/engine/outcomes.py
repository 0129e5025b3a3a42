"""The counts of what a build kept, whether or not it makes shards of a source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vlmill.pipeline.engine.chain import ChainStep
from vlmill.pipeline.engine.deduping import list_verdicts
from vlmill.pipeline.steps.count_outcomes import CountOutcomes

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build


def count_outcomes(run: Build, until: str | None) -> dict[str, str]:
    """Source -> the folder whose counts say what was kept.

    Where a build makes no shards of a source, verdicts are applied to its samples without, as far as it came.
    """
    recipe = run.recipe
    used = {source: recipe.list_policies(source) for source in recipe.sources if until in (None, "shard", "mixture")}
    folders = {source: f"shards/{source}/{policies[0]}" for source, policies in used.items() if policies}
    steps_by_phase = {"curate": recipe.unscored_verdict_steps(), "signals": recipe.verdict_steps()}
    step = CountOutcomes(steps_by_phase.get(until or "", recipe.all_verdict_steps()))
    verdicts, chains = {} if until in steps_by_phase else list_verdicts(run), []
    for partition in run.all_partitions():
        if partition.source in folders:
            continue
        chain, source = run.chain(partition, scored=until != "curate"), partition.source
        steps = (*chain.steps, ChainStep(f"steps/{source}/outcomes", step))
        chains.append(
            replace(chain, steps=steps, files=(*chain.files, *verdicts.get(f"{source}/{partition.name}", ())))
        )
    if chains:
        for _ in run.run_chains("outcomes", chains):
            pass
    return {source: folders.get(source, f"steps/{source}/outcomes") for source in recipe.sources}
