"""For `check` and the end of a build: settings of a recipe that apply to nothing in it, or find less than they say."""

from __future__ import annotations

from collections.abc import Iterator

from vlmill.pipeline.dedupe.text import find_probability
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.sources import show_captions

SURE = 0.9
"""Of pairs that have just the similarity of a threshold, the share that should be found."""


def warn_of_odd_settings(recipe: Recipe) -> Iterator[str]:
    """A line for each of them."""
    pairs = recipe.dedupe and recipe.dedupe.pairs == "image"
    if pairs and not any(show_captions(one.options) for one in recipe.sources.values()):
        yield (
            "dedupe.pairs: image is about pairs of an image and a caption, and no source has any: kinds pairs and "
            "pairs_wds do, table and web_table with the option caption, and sources in code that say `captions`"
        )
    if recipe.dedupe and (found := find_probability(recipe.dedupe.text)) < SURE:
        yield (
            f"dedupe.text: {recipe.dedupe.text:g}: of texts with this similarity about {found:.0%} are found, of those "
            f"with 0.7 {find_probability(0.7):.0%} and with 0.8 nearly all (docs/curation.md, Dedupe)"
        )
