"""What `check --show` prints: the effective recipe with the origin of every value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer


def show_recipe(
    recipe: str,
    sources: Mapping[str, str],
    limit: int | None,
    sets: Mapping[str, str],
    filters: Sequence[str] | None,
    trust_code: Sequence[str] | None,
) -> None:
    """Print the effective recipe as YAML. Nothing that it names is opened, but what subsets are listed from.

    Raises:
        RecipeError: it is wrong.
    """
    from vlmill.mixtures.config import MixtureSettings
    from vlmill.pipeline.filters.custom import find_named_code
    from vlmill.pipeline.recipe.load import compose_recipe
    from vlmill.pipeline.recipe.mapping import find_recipe, read_held_code
    from vlmill.pipeline.recipe.show import format_effective
    from vlmill.train.settings import ModelSettings, Training
    from vlmill.train.validate import validate_whole_recipe

    code = find_named_code(list(filters or ()), list(trust_code or ()), read_held_code(find_recipe(recipe)))
    found = compose_recipe(recipe, sources, limit, sets, code)
    blocks = {"model": ModelSettings, "mixture": MixtureSettings, "train": Training}
    typer.echo(format_effective(found, blocks), nl=False)
    validate_whole_recipe(found.recipe)
