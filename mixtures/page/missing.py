"""What a run's page cannot show (yet): sentences that say why, and what to do.

And the sources with what is counted of each so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmill.mixtures.build import is_mixed
from vlmill.mixtures.page import search
from vlmill.pipeline.chat.encode import Loss
from vlmill.pipeline.recipe.lock import explain_unbuilt
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import LEVELS, read_funnel

ON = "run the build to its end: vlmill build RECIPE --out DIR"


def list_unbuilt(root: Path) -> Iterator[str]:
    """The warning of a run that is not what its recipe makes, where it is not."""
    if unbuilt := explain_unbuilt(root):
        yield f"Warning: {unbuilt}"


def list_missing(root: Path, recipe: Recipe, wanted: Sequence[str] | None, losses: Mapping[str, Loss]) -> Iterator[str]:
    """A sentence for each thing that is not there.

    Args:
        root: the run's folder.
        recipe: that it is locked to.
        wanted: stages of the page; None for all.
        losses: what stages learn, of those with a `train` block.
    """
    unread = [source for source in recipe.sources if not search.is_source_read(root, recipe, source)]
    if unread:
        yield f"Nothing is shown of {', '.join(unread)}: not read to the end yet; {ON}"
    open_ = [name for name in recipe.sources if name not in unread and not search.has_all_verdicts(root, recipe, name)]
    if open_:
        yield f"The outcome of the samples of {', '.join(open_)} is not decided yet; {ON}"
    unsharded = [
        f"{source} ({policy})"
        for source in recipe.sources
        for policy in recipe.list_policies(source)
        if not (root / f"shards/{source}/{policy}/manifest.json").exists()
    ]
    if not recipe.policies:
        yield (
            "The recipe has no `policies`, so there are no shards, and samples, nodes and images are not counted. "
            "To have them, add for example `policies: {small: {kind: letterbox, side: 384, patch: 14}}` and build "
            "again."
        )
    elif unsharded:
        yield f"There are no shards yet of {', '.join(unsharded)}; {ON}"
    if not recipe.stages:
        yield (
            "The recipe has no `stages`, so nothing is mixed: there are no shares, no packed sequences, and no "
            "samples as the trainer sees them. To have them, add a stage with a `policy` and a `mixture`, and build "
            "again; `vlmill mixtures list` names published mixtures."
        )
    for stage in recipe.stages:
        if wanted is not None and stage.name not in wanted:
            continue
        if not is_mixed(root, stage.name):
            yield f"Stage {stage.name} is not mixed yet; {ON}"
        elif stage.name not in losses:
            yield (
                f"Stage {stage.name} has no `train` block, so what is supervised is not declared: answers are "
                "marked, the default. To say it, add `train: {loss: answers}` or `{loss: text}` with the steps "
                "of the training."
            )


def list_sources(root: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """The sources in the recipe's order: kind, licence, and of each level how much came in and was kept, or None."""
    counted, came = read_funnel(root), search.count_source_samples(root, recipe)
    found = []
    for name, settings in recipe.sources.items():
        levels = {level: _select_counts(counted[name].get(level)) for level in LEVELS}
        levels["samples"] = levels["samples"] or ({"in": came[name], "kept": None} if name in came else None)
        found.append({"name": name, "kind": settings.kind, "licence": settings.licence, "levels": levels})
    return found


def _select_counts(line: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if line is None else {"in": line["in"], "kept": line["kept"]}
