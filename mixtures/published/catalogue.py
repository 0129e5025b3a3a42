"""Mixtures that others published: what they declared, the result that they state, and the result here.

Each YAML beside this file is one of them, and says where its publication contradicts itself. `compute_shares` solves a
stage over the published counts, so a paper's claims can be compared with what its own numbers give;
`describe_published` puts it into the form of `stats.json`, so that `make_difference` compares it with any other
mixture; `make_published_tables` is what `vlmill mixtures show` prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from importlib.resources import files
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass
from rich.table import Table

from vlmill.mixtures.algorithms.solve import solve_mixture
from vlmill.mixtures.config import UNITS, MixtureEntry, MixtureSettings, Totals, Unit
from vlmill.mixtures.report.stats import make_grid, shorten_number
from vlmill.pipeline.core.config import STRICT, parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.yaml_format import read_yaml

AGREE = 0.05
"""Points by which a published percentage may be off what its own counts make before it is said to disagree."""


@dataclass(frozen=True, config=STRICT)
class Known:
    """What was published of one source: one pass over it, and the percentage it was given."""

    samples: int | None = None  # in one pass, as the next four
    images: int | None = None  # shown
    text: int | None = None  # tokens of text
    supervised: int | None = None  # tokens that are trained on
    tokens: int | None = None  # all of them
    percent: float | None = None  # of the stage's unit

    def counts(self, unit: Unit) -> bool:
        """Whether an amount of a unit was published."""
        return getattr(self, unit, None) is not None

    def totals(self, entry: MixtureEntry) -> dict[str, int]:
        """One pass over what `take` leaves, 0 for what was not published.

        Tokens, where unknown, are the best known instead.
        """
        counts: dict[str, int] = {unit: getattr(self, unit, None) or 0 for unit in UNITS}
        counts["tokens"] = self.tokens or self.supervised or self.text or counts["samples"]
        if entry.take == "all":
            return counts
        fraction = entry.taken(counts["samples"]) / max(counts["samples"], 1)
        return {unit: round(count * fraction) for unit, count in counts.items()}


@dataclass(frozen=True, config=STRICT)
class PublishedStage:
    """One training stage of a published mixture."""

    mixture: MixtureSettings  # as a recipe would have it
    published: Mapping[str, Known]  # by the entry's label
    claimed: Mapping[str, int] = field(default_factory=dict)  # totals as stated, by unit
    disagree: tuple[str, ...] = ()  # labels whose percentage does not follow from their counts

    def available(self) -> tuple[Totals, ...]:
        """One pass over every entry."""
        known = zip(self.mixture.labels(), self.mixture.resolved(), strict=True)
        return tuple(self.published.get(label, Known()).totals(entry) for label, entry in known)


@dataclass(frozen=True, config=STRICT)
class PublishedMixture:
    """A published mixture."""

    title: str  # of the publication
    stages: Mapping[str, PublishedStage]  # by name, in order
    reference: str = ""  # where it was published
    contradictions: tuple[str, ...] = ()  # in what was published


def list_names() -> list[str]:
    """All published mixtures that ship."""
    return sorted(
        Path(str(item)).stem for item in files("vlmill.mixtures.published").iterdir() if str(item).endswith(".yaml")
    )


def load_published(name: str) -> PublishedMixture:
    """A published mixture by name, or any file of the same form.

    Raises:
        RecipeError: there is none of that name, or the file has another form.
    """
    if name in list_names():
        path = Path(str(files("vlmill.mixtures.published") / f"{name}.yaml"))
    elif Path(name).is_file():
        path = Path(name)
    else:
        raise RecipeError(f"{name!r} is neither a file nor a published mixture; {suggest_names(name, list_names())}")
    data = read_yaml(path)
    if isinstance(data, Mapping) and isinstance(data.get("datasets"), list):
        raise RecipeError(
            f"{name} has the form of LLaVA-NeXT's files; make it one of ours with: vlmill mixtures import {name} > FILE"
        )
    return parse_block(PublishedMixture, data, Path(name).name)


def compute_shares(stage: PublishedStage) -> dict[str, float]:
    """The percentage of the stage's unit that each entry comes to, from its published counts; pure."""
    amounts = [plan[stage.mixture.unit] for plan in _compute_planned(stage)]
    return {label: 100 * amount / sum(amounts) for label, amount in zip(stage.mixture.labels(), amounts, strict=True)}


def _compute_planned(stage: PublishedStage) -> list[dict[str, float]]:
    """What each entry comes to in every unit, as far as its counts say.

    Raises:
        RecipeError: they say nothing of any entry.
    """
    available, unit = stage.available(), stage.mixture.unit
    if not any(totals[unit] for totals in available):
        labels = stage.mixture.labels()
        raise RecipeError(
            f"mixture: `published` says of none of {', '.join(labels)} how many {unit} it has, so there are no shares "
            f"to compute; write them beside `mixture`, such as published: {{{labels[0]}: {{{unit}: 1000}}}}"
        )
    repetition = solve_mixture(stage.mixture, available).repetition
    return [
        {unit: epochs * count for unit, count in totals.items()}
        for epochs, totals in zip(repetition, available, strict=True)
    ]


def describe_published(stage: PublishedStage, name: str = "") -> dict[str, Any]:
    """What the stage would hold of every unit, in the form of `stats.json`; pure.

    None where nothing was published of a unit.

    `total` adds up what was published.
    """
    labels, planned = stage.mixture.labels(), _compute_planned(stage)
    known = [stage.published.get(label, Known()) for label in labels]
    return {
        "stage": name,
        "unit": stage.mixture.unit,
        "sources": [
            {"name": label, "planned": {unit: plan[unit] if counts.counts(unit) else None for unit in UNITS}}
            for label, counts, plan in zip(labels, known, planned, strict=True)
        ],
        "total": {unit: sum(plan[unit] for plan in planned) for unit in UNITS},
    }


@dataclass(frozen=True)
class PublishedLine:
    """A stage of a published mixture, summed up."""

    name: str
    stage: str
    unit: str
    entries: int
    samples: float  # that its counts come to
    claimed: int | None  # samples that the publication says


def list_stages() -> Iterator[PublishedLine]:
    """The stages of all published mixtures that ship."""
    for name in list_names():
        for stage, found in load_published(name).stages.items():
            samples = describe_published(found)["total"]["samples"]
            entries, claimed = len(found.mixture.labels()), found.claimed.get("samples")
            yield PublishedLine(name, stage, found.mixture.unit, entries, samples, claimed)


def make_listing() -> Table:
    """What ships: a line per stage, with what its counts add up to beside what was claimed."""
    table = make_grid("Published mixtures")
    for name in ("name", "stage", "shares in"):
        table.add_column(name, no_wrap=True)
    for name in ("entries", "counted", "claimed"):
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for line in list_stages():
        sums = shorten_number(line.samples), shorten_number(line.claimed) if line.claimed else "-"
        table.add_row("" if line.name == before else line.name, line.stage, line.unit, str(line.entries), *sums)
        before = line.name
    return table


@dataclass(frozen=True)
class ShareLine:
    """An entry of a published stage: its percentage as published, and as its counts make it."""

    entry: str
    given: str  # share or repeat, take and where
    samples: int | None
    published: float | None  # percent of the stage's unit
    realised: float | None


def list_shares(published: PublishedMixture, only: str | None = None) -> Iterator[tuple[str, ShareLine]]:
    """Stage and entry, of one stage or of all.

    Raises:
        RecipeError: there is no stage `only`.
    """
    if only is not None and only not in published.stages:
        raise RecipeError(f"--stage {only}: {suggest_names(only, list(published.stages))}")
    for name, stage in published.stages.items():
        if only in {None, name}:
            shares = compute_shares(stage)
            for entry, label in zip(stage.mixture.resolved(), stage.mixture.labels(), strict=True):
                known = stage.published.get(label, Known())
                realised = None if known == Known() else shares[label]
                yield name, ShareLine(label, _describe_entry(entry), known.samples, known.percent, realised)


def make_published_tables(published: PublishedMixture, only: str | None = None) -> Iterator[Table]:
    """A table per stage: what each entry was given, the percentage published, and what its own counts make.

    Raises:
        RecipeError: there is no stage `only`.
    """
    for name, lines in groupby(list_shares(published, only), key=itemgetter(0)):
        stage = published.stages[name]
        table = make_grid(
            f"{published.title}, {name}: shares in {stage.mixture.unit}", "\n".join(_describe_totals(stage))
        )
        table.add_column("entry", overflow="fold")
        table.add_column("given", no_wrap=True)
        for column in ("samples", "published", "realised", "off by"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("")
        for _, line in lines:
            samples = "-" if line.samples is None else shorten_number(line.samples)
            table.add_row(line.entry, line.given, samples, *_compare_percent(line.published, line.realised))
        yield table


def _describe_entry(entry: MixtureEntry) -> str:
    """What an entry was declared with."""
    points = ", ".join(f"{share:g} at {point:g}" if entry.moves else f"{share:g}" for point, share in entry.points)
    how = f"share {points}" if entry.share is not None else f"x {entry.repeat or 1:g}"
    return how + ("" if entry.take == "all" else f", {entry.take}") + (f" where {entry.where}" if entry.where else "")


def _compare_percent(published: float | None, realised: float | None) -> tuple[str, str, str, str]:
    """A published percentage, what its counts make of it, their difference, and a mark where they disagree."""
    if realised is None:
        return "-", "-", "-", ""
    if published is None:
        return "-", f"{realised:.2f}%", "-", ""
    gap = realised - published
    return (
        f"{published:.2f}%",
        f"{realised:.2f}%",
        f"{gap:+.2f}" if abs(gap) >= 0.005 else "0.00",
        "disagrees" if abs(gap) > AGREE else "",
    )


def _describe_totals(stage: PublishedStage) -> Iterator[str]:
    """What the counts add up to, and what was claimed."""
    totals = describe_published(stage)["total"]
    for unit, claimed in stage.claimed.items():
        yield f"{unit}: counts make {totals[unit]:,.0f}, claimed are {claimed:,}"
    uncounted = [label for label in stage.mixture.labels() if label not in stage.published]
    if uncounted:
        yield f"without a published count, and so without a share here: {', '.join(uncounted)}"
