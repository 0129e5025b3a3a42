"""The steps of a recipe's mixtures, for the forecast of what a changed recipe makes of a run."""

from __future__ import annotations

from collections.abc import Iterator

from vlmill.mixtures.build import PAIRS, read_stage_mixture
from vlmill.mixtures.members import list_members
from vlmill.pipeline.checks.forecast import ForecastStep
from vlmill.pipeline.core.keys import canonicalise_value
from vlmill.pipeline.recipe.schema import Recipe, Stage

SELECTING = ("unit", "sequence_length", "tiles_per_sequence", "patches_per_sequence", "truncate", "held_out")
"""Keys of a mixture that select steps look at, beside its entries."""


def list_mixture_steps(recipe: Recipe) -> list[ForecastStep]:
    """The steps of every stage, each behind those that it reads from."""
    return [step for stage in recipe.stages for step in _list_stage(recipe, stage)]


def _list_stage(recipe: Recipe, stage: Stage) -> Iterator[ForecastStep]:
    folder, mixture = f"steps/mixtures/{stage.name}", read_stage_mixture(recipe, stage)
    policy = recipe.policies[stage.policy]
    members = list_members(recipe, mixture, f"stages.{stage.name}.mixture")
    shards = [f"shards/{source}/{stage.policy}" for sources in members.values() for source in sources]
    signals = [f"{shard}/signals" for shard in shards if recipe.list_values()]
    tables = (*(name for shard in shards for name in (shard, f"{shard}/lengths")), *signals)
    settings = {name: value for name, value in canonicalise_value(mixture).items() if name in SELECTING}
    select = {**settings, "entries": canonicalise_value(mixture.resolved()), "seed": recipe.seed, "chat": recipe.chat}
    if mixture.held_out and recipe.dedupe is not None:
        select["near"] = recipe.dedupe.image
        tables += (PAIRS,)
    mix = {"mixture": canonicalise_value(mixture), "scale": recipe.scale, "seed": recipe.seed}
    lock = {"policy": canonicalise_value(policy), "chat": recipe.chat}
    steps = {name: f"{folder}/{name}" for name in ("select", "mix", "plan", "lock", "repetition")}
    yield ForecastStep(steps["select"], select, direct=tables)
    yield ForecastStep(steps["mix"], mix, direct=(steps["select"],))
    yield ForecastStep(steps["plan"], {}, direct=(steps["mix"], steps["select"]))
    yield ForecastStep(steps["lock"], lock, direct=("tokenizer.json", steps["mix"], steps["plan"], *shards))
    yield ForecastStep(steps["repetition"], {}, direct=(steps["lock"], steps["plan"], *shards))
