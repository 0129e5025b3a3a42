"""What makes a recipe one, beyond its form: every block can be built, names are free, and each source says which files are its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import hub
from pipeline.errors import RecipeError

if TYPE_CHECKING:
    from pipeline.decontaminate import Benchmark
    from pipeline.recipe import Recipe, SourceSettings

RESERVED = ("benchmarks", "dedupe", "mixtures")
"""Folders under steps/ that belong to no source."""


def check(recipe: Recipe) -> None:
    """Build every block once, so that a mistake shows before any work begins.

    Raises:
        RecipeError: names what is wrong and what was allowed.
    """
    for name, settings in recipe.sources.items():
        _check_name(f"sources.{name}", name)
        if name in RESERVED:
            raise RecipeError(f"sources.{name}: this name is taken by a folder of our own; choose another")
        recipe.source(name)
        recipe.fetching(name)
        _check_files("sources", name, settings)
    if not recipe.sources:
        raise RecipeError("sources: a recipe needs at least one")
    recipe.inspecting()
    recipe.judging()
    recipe.deduping()
    _check_benchmarks(recipe)
    names = [stage.name for stage in recipe.stages]
    if len(set(names)) != len(names):
        raise RecipeError(f"stages: each name may stand once, not {', '.join(names)}")
    for policy in {*recipe.policies, *(stage.policy for stage in recipe.stages)}:
        recipe.policy(policy)
    if recipe.stages and recipe.tokenizer is None:
        raise RecipeError("tokenizer: stages need one; give the path of a tokenizer.json")


def _check_name(where: str, name: str) -> None:
    """Names become folders."""
    if not name.replace("-", "").replace("_", "").isalnum() or name.startswith(("-", "_")):
        raise RecipeError(f"{where}: {name!r} is no name; one may hold letters, digits, - and _")


def _check_files(block: str, name: str, settings: SourceSettings | Benchmark) -> None:
    """One way or the other, a source or benchmark says which files are its own."""
    where, named = f"{block}.{name}", settings.subset is not None or settings.split is not None
    if settings.files is None and not named:
        raise RecipeError(
            f"{where}.files: is missing; give a pattern below root (or, of a dataset on the Hugging Face Hub, `split`)"
        )
    if settings.files is not None and named:
        raise RecipeError(f"{where}: `files` says which files to read, and so do `subset` and `split`; leave one out")
    if named and not settings.split:
        raise RecipeError(f"{where}.split: is missing beside `subset`; say which split, such as train")
    if named and not hub.is_hub(settings.root):
        raise RecipeError(
            f"{where}: `subset` and `split` are those of a dataset on the Hugging Face Hub, and root {settings.root!r} is "
            f"none; give `files`, or --source {name}=hf://datasets/OWNER/NAME"
        )


def _check_benchmarks(recipe: Recipe) -> None:
    block, held = "decontaminate.against", recipe.decontaminating()
    for name, settings in held.against.items() if held else ():
        _check_name(f"{block}.{name}", name)
        if name in recipe.sources or name == "index":
            raise RecipeError(f"{block}.{name}: this name is taken; choose another")
        _check_files(block, name, settings)
        for source in settings.splits(name):
            _check_name(f"{block}.{name}", source.removeprefix(f"{name}."))
        recipe.benchmark(name)
