"""For `check` and the end of a build: settings of a recipe that apply to nothing in it."""

from __future__ import annotations

from collections.abc import Iterator

from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.sources import show_captions


def warn_of_idle_settings(recipe: Recipe) -> Iterator[str]:
    """A line for each of them."""
    pairs = recipe.dedupe and recipe.dedupe.pairs == "image"
    if pairs and not any(show_captions(one.options) for one in recipe.sources.values()):
        yield (
            "dedupe.pairs: image is about pairs of an image and a caption, and no source has any: kinds pairs and "
            "pairs_wds do, table and web_table with the option caption, and sources in code that say `captions`"
        )
