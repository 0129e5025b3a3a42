"""What the forms of a disclosure are made of: figures of a run, with what its recipe says of sources and measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmill.mixtures.disclosure.figures import OPT_OUTS, compute_figures
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.yaml_format import read_yaml
from vlmill.pipeline.engine.workdir import PINS
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.takedown.rules import TakedownList

FOLLOWED = (*OPT_OUTS, Reason.TAKEN_DOWN)
"""Reasons by which wishes of right holders and of people are followed."""


@dataclass(frozen=True)
class SourceFacts:
    """One source of a run."""

    name: str
    kind: str
    content: str  # what rows of its kind are, in words
    licence: str  # of samples that name none; empty where the recipe names none
    homepage: str
    citation: str
    repository: str  # on the Hugging Face Hub, with the commit; empty for files from elsewhere
    fetches: bool  # whether images came from addresses of the web
    figures: Mapping[str, Any]  # of `SourceFigures.to_json`

    @property
    def public(self) -> bool:
        """Whether the recipe names a public origin."""
        return bool(self.homepage or self.citation or self.repository)

    @property
    def opt_outs(self) -> dict[str, int]:
        """`level.reason` -> how many were left out as somebody wished."""
        return {name: number for name, number in self.figures["lost"].items() if name.split(".", 1)[1] in FOLLOWED}

    def describe_origin(self) -> str:
        """Repository, homepage and citation, as far as they are named."""
        return ", ".join(filter(None, (self.repository, self.homepage, self.citation))) or "files of the provider"


@dataclass(frozen=True)
class RunFacts:
    """A complete run."""

    folder: str  # as commands name it
    name: str
    figures: Mapping[str, Any]  # of `compute_figures`
    sources: tuple[SourceFacts, ...]
    filters: tuple[str, ...]  # names, in their order
    signals: tuple[str, ...]  # values of models that have bounds
    base_models: str  # that training goes on from; empty for none
    user_agent: str
    reservations: str  # how wishes of right holders are asked for and followed, in words
    takedowns: int  # entries of the list

    def command(self, figure: str) -> str:
        """The command that computes a figure again."""
        return f"`vlmill disclose {self.folder} --figure {figure}`"

    def count_text_tokens(self) -> tuple[int, str]:
        """Text tokens of what stages train on, repetitions counted, and their figure; else characters over four."""
        stages = self.figures["stages"]
        if stages:
            largest = max(stages, key=lambda name: stages[name]["text"])
            return stages[largest]["text"], f"stages.{largest}.text"
        return self.figures["total"]["characters"] // 4, "total.characters"

    def describe_rebuilding(self) -> str:
        """How others get the same data."""
        return (
            f"The run's recipe with all settings is `{LOCK}`. `vlmill build {LOCK} --out run` makes the same bytes "
            "from the same inputs; `vlmill trace DIR SAMPLE` says where a sample came from and what was done to it."
        )


def read_facts(root: Path, shown: str) -> RunFacts:
    """The facts of a run.

    Args:
        root: Its folder.
        shown: How commands in the documents name it.

    Raises:
        StoreError: it is not complete.
    """
    recipe = read_locked_recipe(root)
    figures = compute_figures(root, recipe)
    pins = {name: pin["pinned"] for name, pin in read_yaml(root / PINS).items()} if (root / PINS).exists() else {}
    sources = tuple(
        SourceFacts(
            name,
            settings.kind,
            _describe_kind(settings.kind),
            settings.licence,
            settings.homepage,
            settings.citation,
            pins.get(name, ""),
            recipe.source(name).fetches,
            figures["sources"][name],
        )
        for name, settings in sorted(recipe.sources.items())
    )
    threshold = recipe.find_threshold()
    return RunFacts(
        folder=shown,
        name=recipe.name,
        figures=figures,
        sources=sources,
        filters=tuple(filter_.name for filter_ in recipe.filters),
        signals=threshold.columns if threshold else (),
        base_models=_name_base_models(recipe),
        user_agent=recipe.fetch.user_agent,
        reservations=_describe_reservations(recipe, [name for name in recipe.sources if recipe.source(name).fetches]),
        takedowns=len(TakedownList.read(root).labels()),
    )


def _describe_kind(kind: str) -> str:
    """The first sentence of what the row shape says of itself."""
    said = ((SOURCES[kind].__doc__ if kind in SOURCES else None) or kind).strip().splitlines()[0]
    return said.partition(";")[0].partition(",")[0].rstrip(".").lower()


def _name_base_models(recipe: Recipe) -> str:
    """The parts of the model that are read from published ones: `text: HuggingFaceTB/SmolLM2-135M@12fd25f`."""
    parts = {part: value for part, value in sorted(recipe.model.items()) if isinstance(value, Mapping)}
    return ", ".join(
        f"{part}: {value['path']}" + (f"@{value['revision']}" if value.get("revision") else "")
        for part, value in parts.items()
        if value.get("path")
    )


def _describe_reservations(recipe: Recipe, fetched: Sequence[str]) -> str:
    said = []
    for about, setting in (
        ("robots.txt and tdmrep.json of hosts", "honour_hosts"),
        ("The headers X-Robots-Tag, Content-Usage and TDM-Reservation", "honour_robots"),
    ):
        honoured = [name for name in fetched if getattr(recipe.fetch_step(name), setting)]
        ignored = sorted({*fetched} - {*honoured})
        if fetched:
            not_for = f"; not for: {', '.join(ignored)}" if ignored else ""
            said.append(f"{about} were honoured for: {', '.join(honoured) or 'no source'}{not_for}.")
    if "opt_out" in {filter_.name for filter_ in recipe.filters}:
        said.append("Lists of addresses, domains and files were left out (filter `opt_out`).")
    return (
        " ".join(said)
        or "The run asked for no reservation: it fetched nothing, and its recipe has no lists of opt-outs."
    )
