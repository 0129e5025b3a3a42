"""Which filters are asked before images are fetched: `fetch.after`, and what it may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.filters import reads_tables
from vlmill.pipeline.filters.custom import CustomFilter

if TYPE_CHECKING:
    from vlmill.pipeline.filters import Filter
    from vlmill.pipeline.recipe.schema import Recipe


def list_filters_before_fetch(recipe: Recipe, source: str) -> tuple[Filter, ...]:
    """The filters that images of a source wait for, in the recipe's order: those up to `fetch.after`.

    Raises:
        RecipeError: there is no such filter, or one of these has to see images; the message says what is allowed.
    """
    last = recipe.fetch_step(source).after
    if not last or not recipe.source(source).fetches:
        return ()
    names = [filter_.name for filter_ in recipe.filters]
    where = "fetch.after" if "after" not in recipe.sources[source].fetch else f"sources.{source}.fetch.after"
    if last not in names:
        raise RecipeError(f"{where}: the recipe has no filter {last!r}; {suggest_names(last, names)}")
    before = recipe.filters[: names.index(last) + 1]
    for filter_ in before:
        if why := _find_obstacle(filter_):
            raise RecipeError(
                f"{where}: images are to be fetched after {last!r}, and {filter_.name!r} {why}; put filters that look "
                "at texts alone first, and name the last of them"
            )
    if writers := recipe.list_writers():
        raise RecipeError(
            f"{where}: filters look at texts that {writers[0]!r} writes of images, so these have to be fetched before; "
            "leave `after` out"
        )
    return before


def _find_obstacle(filter_: Filter) -> str | None:
    """Why a filter cannot be asked before images are there; None if it can. Code that is not trusted is not run."""
    if reads_tables(filter_):
        return "looks at what models say of them"
    if isinstance(filter_, CustomFilter) and filter_.code is None:
        return None
    return f"looks at them ({', '.join(filter_.image_stats)})" if filter_.image_stats else None
