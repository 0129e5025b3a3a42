"""What a recipe must satisfy beyond its form.

Names are folders, each source says which files are its own, and what blocks name exists.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vlmill.pipeline.chat.settings import find_format
from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import RecipeError, pass_all
from vlmill.pipeline.filters import FILTERS
from vlmill.pipeline.inputs.hub_files import is_hub
from vlmill.pipeline.recipe.fetch_order import list_filters_before_fetch
from vlmill.pipeline.recipe.overrides import STEP_NAMES
from vlmill.pipeline.signals.base import SIGNAL_NAME
from vlmill.pipeline.signals.brought import Brought
from vlmill.pipeline.sources import SOURCES

if TYPE_CHECKING:
    from vlmill.pipeline.decontaminate import Benchmark
    from vlmill.pipeline.recipe.schema import Recipe, SourceSettings, Stage

RESERVED = ("benchmarks", "dedupe", "hosts", "mixtures", "signals")
"""Folders under steps/ that belong to no source."""
EMBEDDINGS = ("image_embedding", "text_embedding")
"""Kinds of signals whose values are vectors."""
RATED_KINDS = ("finevision", "mmc4")
"""Kinds of sources whose rows bring numbers that no option names."""
NO_SIGNAL = "no signal of the recipe gives"
"""What is said of a value that a threshold names, where no signal has it."""
LONGEST = 100
"""Bytes of a name: it is a part of file names, which have 255."""


def check_name(where: str, name: str, taken: Collection[str] = (), *, dots: bool = True) -> None:
    """The rule for every name of a recipe, for each becomes a folder or a part of a file's name.

    Names of sources, benchmarks and splits have no `dots`: one stands between a benchmark and its split.

    Raises:
        RecipeError: it could lead elsewhere, could not be written, or is `taken`; the message says what is allowed.
    """
    bare = name.replace("-", "").replace("_", "").replace(".", "")
    if not bare.isalnum() or not name[0].isalnum() or len(name.encode()) > LONGEST:
        raise RecipeError(
            f"{where}: {name!r} is to name a folder: it may hold letters, digits, -, _ and ., with a letter or "
            f"digit first, {LONGEST} bytes at most"
        )
    if "." in name and not dots:
        raise RecipeError(f"{where}: {name!r} is no name here, where a dot stands before a split; take - or _ for it")
    if name in taken:
        raise RecipeError(f"{where}: {name!r}: this name is taken; choose another")


def check_names(recipe: Recipe) -> None:
    """Hold every name of a recipe against the rule. No filter is made.

    Raises:
        RecipeError: names the first that does not keep to it.
    """
    check_name("name", recipe.name)
    for name, source in recipe.sources.items():
        check_name("sources", name, RESERVED, dots=False)
        if source.group:
            check_name(f"sources.{name}.group", source.group, dots=False)
    held = recipe.decontaminate
    for name, settings in held.against.items() if held else ():
        where = "decontaminate.against"
        check_name(where, name, [*recipe.sources, "index"], dots=False)
        for split in settings.splits(name):
            check_name(where, split.removeprefix(f"{name}."), dots=False)
    for name in recipe.policies:
        check_name("policies", name)
    for stage in recipe.stages:
        check_name("stages.name", stage.name)
        check_name("stages.policy", stage.policy)
    for filter_ in recipe.filters:
        if filter_.name not in FILTERS:
            check_name("filters", filter_.name, STEP_NAMES)
    _check_signal_names(recipe)


def _check_signal_names(recipe: Recipe) -> None:
    """Hold the names of signals against the rule: they are folders beside those of steps, and columns."""
    taken = (*FILTERS, *STEP_NAMES, *(filter_.name for filter_ in recipe.filters))
    for name in recipe.signals:
        check_name("signals", name, taken)
        if not SIGNAL_NAME.fullmatch(name):
            raise RecipeError(f"signals: {name!r} is to name a column: it may hold small letters, digits and _")


def validate_recipe(recipe: Recipe) -> None:
    """Check what its types cannot say, so that a mistake shows before any work begins.

    The packages above have more to say of it.

    Raises:
        RecipeError: names all that is wrong, and what was allowed.
    """
    benchmarks = recipe.decontaminate.against if recipe.decontaminate else {}
    pass_all(
        partial(check_names, recipe),
        partial(_check_sources, recipe),
        partial(_check_filters, recipe),
        partial(_check_signals, recipe),
        partial(_check_brought, recipe),
        partial(_check_clusters, recipe),
        *(partial(_check_files, "sources", name, settings) for name, settings in recipe.sources.items()),
        *(partial(_check_boxes, recipe, name) for name in recipe.sources),
        *(partial(_check_fetch, recipe, name) for name in recipe.sources),
        *(partial(_check_files, "decontaminate.against", name, settings) for name, settings in benchmarks.items()),
        *(partial(_check_policy, recipe, stage) for stage in recipe.stages),
        partial(_check_stages, recipe),
        partial(find_format, recipe.chat),
    )


def _check_sources(recipe: Recipe) -> None:
    if not recipe.sources:
        raise RecipeError("sources: a recipe needs at least one")


def _check_filters(recipe: Recipe) -> None:
    """Each source that a filter is asked of is there, or a pattern would let all pass by mistake."""
    for filter_ in recipe.filters:
        for name in getattr(filter_, "sources", ()) if filter_.name in FILTERS else ():
            if not fnmatch.filter(recipe.sources, name):
                raise RecipeError(
                    f"filters.{filter_.name}.sources: the recipe has no source {name!r}; "
                    f"{suggest_names(name, recipe.sources)}"
                )


def describe_unrendered(recipe: Recipe) -> Iterator[str]:
    """What a person should know of a recipe with stages: policies and sources that none of them uses."""
    if not recipe.stages:
        return
    used = {source: recipe.list_policies(source) for source in recipe.sources}
    for name in recipe.policies:
        if not any(name in policies for policies in used.values()):
            yield f"policies.{name}: no stage uses it, so nothing is rendered under it"
    for source, policies in used.items():
        if not policies:
            yield f"sources.{source}: no stage's mixture names it, so it is curated and not rendered"


def _check_signals(recipe: Recipe) -> None:
    """Values of signals have names of their own, and those that a threshold names are given."""
    columns = recipe.list_values()
    if doubled := [column for column in dict.fromkeys(columns) if columns.count(column) > 1]:
        raise RecipeError(f"signals: two of them give a value {doubled[0]!r}; rename one")
    threshold = recipe.find_threshold()
    for column in threshold.columns if threshold else ():
        if column in recipe.list_labels():
            raise RecipeError(
                f"filters.threshold: {column!r} is the number of a cluster, not an amount; bound {column}_size or "
                f"{column}_similarity"
            )
        if column not in columns:
            rated = [name for name, one in recipe.sources.items() if column in getattr(one.options, "signals", ())]
            own = f". It comes with the rows of {rated[0]}: docs/sources.md has the filter for that" if rated else ""
            raise RecipeError(f"filters.threshold: {NO_SIGNAL} {column!r}; {suggest_names(column, columns)}{own}")
    if threshold is not None and not threshold.columns:
        raise RecipeError("filters.threshold: it has no bounds; give `any: {SIGNAL: {min: VALUE}}`, or leave it out")
    bounds = (bound for group in threshold.groups for bound in group.values()) if threshold else ()
    for name in dict.fromkeys(name for bound in bounds for name in bound.sources):
        if not fnmatch.filter(recipe.sources, name):
            raise RecipeError(
                f"filters.threshold: the recipe has no source {name!r}; {suggest_names(name, recipe.sources)}"
            )


def _check_brought(recipe: Recipe) -> None:
    """A number that a signal takes from the rows is one that some source brings, or its bounds would keep all."""
    if any(one.kind not in SOURCES or one.kind in RATED_KINDS for one in recipe.sources.values()):
        return
    places = [place for one in recipe.sources.values() for place in getattr(one.options, "signals", ())]
    numbers = sorted({*places, *(place.rpartition(".")[2] for place in places)})
    for name, signal in recipe.models.items():
        if not isinstance(signal, Brought) or signal.number in numbers or not recipe.sources:
            continue
        known = suggest_names(signal.number, numbers) if numbers else "none of them names any"
        raise RecipeError(
            f"signals.{name}: no source brings a number {signal.number!r}; name its column among the `signals` in "
            f"`options` of the source that has it: {known}"
        )


def _check_clusters(recipe: Recipe) -> None:
    """Clusters are those of an embedding that the recipe has, and semantic dedupe compares one of these within them."""
    embeddings = [name for name, signal in recipe.models.items() if signal.kind in EMBEDDINGS]
    for name, settings in recipe.clusters.items():
        _check_embedding(f"signals.{name}.of", settings.of, embeddings)
    semantic = recipe.dedupe and recipe.dedupe.semantic
    if not semantic:
        return
    _check_embedding("dedupe.semantic.of", semantic.of, embeddings)
    within = [name for name, settings in recipe.clusters.items() if settings.of == semantic.of]
    if semantic.within is not None and semantic.within not in within:
        raise RecipeError(
            f"dedupe.semantic.within: no signal of kind clusters of {semantic.of!r} is called {semantic.within!r}; "
            f"{suggest_names(semantic.within, within)}"
        )
    if semantic.within is None and len(within) != 1:
        raise RecipeError(
            f"dedupe.semantic: vectors are compared within clusters, and {len(within)} signals group {semantic.of!r}; "
            + (
                f"say which with `within`: {', '.join(within)}"
                if within
                else f"add one to `signals`: topic: {{kind: clusters, of: {semantic.of}, clusters: 1000}}"
            )
        )
    for name in semantic.sources:
        if not fnmatch.filter(recipe.sources, name):
            raise RecipeError(
                f"dedupe.semantic.sources: the recipe has no source {name!r}; {suggest_names(name, recipe.sources)}"
            )


def _check_embedding(where: str, name: str, embeddings: Sequence[str]) -> None:
    if name not in embeddings:
        raise RecipeError(
            f"{where}: the recipe has no signal {name!r} of kind {' or '.join(EMBEDDINGS)}; "
            + (suggest_names(name, embeddings) if embeddings else "add one to `signals`")
        )


def _check_stages(recipe: Recipe) -> None:
    names = [stage.name for stage in recipe.stages]
    if len(set(names)) != len(names):
        raise RecipeError(f"stages: each name may stand once, not {', '.join(names)}")
    if recipe.stages and recipe.tokenizer is None:
        raise RecipeError(
            "tokenizer: stages need one; give the path of a tokenizer.json, such as that of a model, or for a first "
            "look take the demo's: include: [{recipe: quickstart, take: [tokenizer]}]"
        )


def _check_policy(recipe: Recipe, stage: Stage) -> None:
    if stage.policy not in recipe.policies:
        raise RecipeError(
            f"stages.{stage.name}.policy: policy {stage.policy!r} does not stand in the recipe's policies; "
            + (suggest_names(stage.policy, recipe.policies) if recipe.policies else "none is there that can be read")
        )


def _check_fetch(recipe: Recipe, name: str) -> None:
    """The recipe's fetch block and the source's own may be wrong together alone."""
    try:
        recipe.fetch_step(name)
    except ValidationError as error:
        raise RecipeError(f"sources.{name}.fetch: {error.errors()[0]['msg']}") from None
    list_filters_before_fetch(recipe, name)


def _check_boxes(recipe: Recipe, name: str) -> None:
    """The form in which the model is to see coordinates is one that those of a source can be written in."""
    boxes = recipe.sources[name].boxes
    if boxes is not None and recipe.boxes is not None and (fault := recipe.boxes.find_misfit(boxes)):
        raise RecipeError(f"sources.{name}.boxes: {fault}")


def names_files(settings: SourceSettings | Benchmark) -> bool:
    """Whether a source or benchmark says which files are its own, where these can be asked for."""
    return settings.files is not None or bool(settings.split and is_hub(settings.root))


def _check_files(block: str, name: str, settings: SourceSettings | Benchmark) -> None:
    """One way or the other, a source or benchmark says which files are its own."""
    where, named = f"{block}.{name}", settings.subset is not None or settings.split is not None
    if settings.files is None and not (named or getattr(settings, "subsets", None)):
        raise RecipeError(
            f"{where}.files: is missing; give a pattern below root (or, of a dataset on the Hugging Face Hub, `split`)"
        )
    if settings.files is not None and named:
        raise RecipeError(f"{where}: `files` says which files to read, and so do `subset` and `split`; leave one out")
    if named and not settings.split:
        raise RecipeError(f"{where}.split: is missing beside `subset`; say which split, such as train")
    if named and not is_hub(settings.root):
        raise RecipeError(
            f"{where}: `subset` and `split` are those of a dataset on the Hugging Face Hub, and root "
            f"{settings.root!r} is none; give `files`, or --source {name}=hf://datasets/OWNER/NAME"
        )
