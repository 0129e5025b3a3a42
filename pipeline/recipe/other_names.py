"""A name that is known as something else: a filter where a source is wanted, or a source where a stage is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.recipe.schema import Recipe


def offer_names(recipe: Recipe, name: str, allowed: Iterable[str], meant: Sequence[str] = ()) -> str:
    """`suggest_names`, behind what the recipe calls by that name: `shape is a filter; did you mean ...`.

    Args:
        recipe: The recipe.
        name: What was given.
        allowed: What can be given.
        meant: Those of them that are sure to be meant, in place of the nearest.
    """
    said = " and ".join(_list_sorts(recipe, name))
    near = f"did you mean {' or '.join(map(repr, meant))}? allowed: {', '.join(sorted(allowed))}" if meant else ""
    return (f"{name} is {said}; " if said else "") + (near or suggest_names(name, allowed))


def _list_sorts(recipe: Recipe, name: str) -> Iterator[str]:
    """What a recipe calls by this name."""
    if name in recipe.sources:
        yield "a source"
    if kin := [source for source, settings in recipe.sources.items() if settings.kind == name]:
        yield f"the kind of {', '.join(kin)}"
    if name in {*recipe.all_verdict_steps()} - {*recipe.signals}:
        yield "a filter" if name in {filter_.name for filter_ in recipe.filters} else "a step"
    if name in recipe.signals:
        yield "a signal"
    elif name in recipe.list_values():
        yield "a value of a signal"
    if name in recipe.policies:
        yield "an image policy"
    if name in (stage.name for stage in recipe.stages):
        yield "a stage"
    if name in {str(reason) for reason in Reason}:
        yield "a reason"
