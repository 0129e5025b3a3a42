"""Which filters a preview asks: those that need no more than the rows at hand, bounds of numbers that rows bring too.

Of the others it is said why not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vlmill.pipeline.checks.sample_costs import SourceWork
from vlmill.pipeline.filters import Filter, Threshold
from vlmill.pipeline.filters.custom import CustomFilter
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.signals.brought import Brought
from vlmill.pipeline.steps.score import ScoreSignal


@dataclass(frozen=True)
class AskedFilters:
    """What a preview asks."""

    filters: tuple[Filter, ...]  # in the recipe's order
    scores: tuple[ScoreSignal, ...]  # steps that write the numbers which bounds of them look at
    notes: tuple[str, ...]  # what is not asked, and why


def choose_filters(recipe: Recipe, work: SourceWork) -> AskedFilters:
    """The filters that a preview of a source asks; pure."""
    brought = {name: signal for name, signal in recipe.signals.items() if isinstance(signal, Brought)}
    filters, scores, notes = list[Filter](), list[ScoreSignal](), list[str]()
    for filter_ in recipe.filters:
        if filter_ in work.filters:
            filters.append(filter_)
        elif isinstance(filter_, Threshold):
            known = _choose_bounds(filter_, frozenset(brought))
            filters += [known] if known.groups else []
            scores = [ScoreSignal(name, brought[name]) for name in known.columns]
            notes += _explain_bounds(filter_, known, frozenset(brought), work.name)
        elif isinstance(filter_, CustomFilter):
            notes.append(f"{filter_.name} is not asked: its code was not named (--filter FILE)")
        else:
            notes.append(f"{filter_.name} is not asked: a list that it reads is not there, or cannot be read")
    return AskedFilters(tuple(filters), tuple(scores), tuple(notes))


def _choose_bounds(threshold: Threshold, known: frozenset[str]) -> Threshold:
    """The threshold with the bounds and groups alone that numbers at hand decide: no quantile, which is of all rows."""
    return replace(
        threshold,
        any={column: bound for column, bound in threshold.any.items() if column in known and not bound.quantiles},
        all=tuple(
            group
            for group in threshold.all
            if all(column in known and not bound.quantiles for column, bound in group.items())
        ),
    )


def _explain_bounds(threshold: Threshold, asked: Threshold, known: frozenset[str], source: str) -> Iterator[str]:
    """Why some of its bounds are not asked of a source of which a build asks them."""
    here = (group for group in threshold.groups if all(bound.asks(source) for bound in group.values()))
    left = [group for group in here if group not in asked.groups]
    models = _name_columns(column for group in left for column in group if column not in known)
    quantiles = _name_columns(column for group in left if known.issuperset(group) for column in group)
    if models:
        yield f"threshold: bounds of {models} are not asked: a preview asks no model"
    if quantiles:
        yield f"threshold: bounds of {quantiles} are not asked: a quantile is one of all rows"


def _name_columns(columns: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(columns))
