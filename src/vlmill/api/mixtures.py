"""Mixtures beside each other, and those that others published: `vlmill diff` and `vlmill mixtures` in Python."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from vlmill.api.boundary import guard_call
from vlmill.api.runs import Run
from vlmill.api.stages import StageMixture
from vlmill.mixtures.compare import make_difference, pair_stages
from vlmill.mixtures.config import UNITS
from vlmill.mixtures.published import catalogue
from vlmill.mixtures.published.import_llava import read_mixture

DIFFERENCE: dict[str, pl.DataType] = {
    **dict.fromkeys(("before", "after", "source"), pl.String()),
    **dict.fromkeys(UNITS, pl.Int64()),
}
PUBLISHED = {
    "name": pl.String,
    "stage": pl.String,
    "unit": pl.String,
    "entries": pl.Int64,
    "samples": pl.Float64,
    "claimed": pl.Int64,
}
SHARES = {
    "stage": pl.String,
    "entry": pl.String,
    "given": pl.String,
    "samples": pl.Int64,
    "published": pl.Float64,
    "realised": pl.Float64,
}


@guard_call
def compare_mixtures(before: str | Path | Run | StageMixture, after: str | Path | Run | StageMixture) -> pl.DataFrame:
    """What one mixture holds more than another, by source; negative: less.

        vlmill.compare_mixtures("prismatic:llava-v15", "prismatic:llava-lrv")
        vlmill.compare_mixtures(run.stage("align"), run.stage("tune"))

    Args:
        before: A run, a stage of one, or text as the command `diff` takes: `DIR`, `DIR:STAGE`, a mixture.lock.json or
            stats.json, `NAME` or `NAME:STAGE` of a published mixture. Of two whole runs all stages that both have are
            compared.
        after: The same.

    Returns:
        Columns `before after source samples images text visual supervised tokens`, a row for each source of either;
        a source that one of them lacks counts as empty there. Null: a publication does not say how much it held.

    Raises:
        RecipeError: one is nothing of these, or there are no two stages to compare.
        StoreError: a stage is not mixed yet.
    """
    rows = (
        {"before": one["stage"], "after": other["stage"], "source": source, **amounts}
        for one, other in pair_stages(_name_side(before), _name_side(after))
        for source, amounts in make_difference(one, other).items()
        if source != "total"
    )
    return pl.DataFrame(list(rows), DIFFERENCE)


def _name_side(side: str | Path | Run | StageMixture) -> str:
    """A side of a comparison as the command takes it."""
    if isinstance(side, StageMixture):
        return f"{side.folder}:{side.name}"
    return str(side.folder if isinstance(side, Run) else side)


@guard_call
def list_published() -> pl.DataFrame:
    """The published mixtures that ship: `name stage unit entries samples claimed`.

    `samples` is what the published counts come to, `claimed` what the publication says; null where it says nothing.
    """
    return pl.DataFrame([asdict(line) for line in catalogue.list_stages()], PUBLISHED)


@guard_call
def load_published(name: str | Path) -> catalogue.PublishedMixture:
    """A published mixture: title, reference, stages, and where the publication contradicts itself.

    Args:
        name: One of `list_published`, or a file of the same form.

    Raises:
        RecipeError: there is none of that name, or the file has another form.
    """
    return catalogue.load_published(str(name))


@guard_call
def compare_published(name: str | Path, stage: str | None = None) -> pl.DataFrame:
    """Published percentages beside what the published counts make: `stage entry given samples published realised`.

    `given` is the share or repeat that the entry was declared with; `published` and `realised` are percent of the
    stage's unit. Null: nothing was published of it.

        vlmill.compare_published("the_cauldron").filter((pl.col("published") - pl.col("realised")).abs() > 0.05)

    Raises:
        RecipeError: as `load_published`, or there is no such stage.
    """
    lines = catalogue.list_shares(load_published(name), stage)
    return pl.DataFrame([{"stage": label, **asdict(line)} for label, line in lines], SHARES)


@guard_call
def import_mixture(file: str | Path, sequence_length: int = 32768) -> dict[str, Any]:
    """The YAML that LLaVA-NeXT and LLaVA-OneVision are trained with, as the plain data of a published mixture.

    What stands under `stages`, a name and `mixture` goes into a stage of a recipe whose sources have the same names.
    Written as YAML, `load_published` reads it.

    Args:
        file: YAML with `datasets`, each with `json_path` and `sampling_strategy`.
        sequence_length: Tokens of a packed sequence.

    Raises:
        RecipeError: there is no such file, or it has another form.
    """
    return read_mixture(Path(file), sequence_length)
