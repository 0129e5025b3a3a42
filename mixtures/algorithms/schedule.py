"""Shares that move within a stage: what they are at each point of its budget, and when each source's items are due.

Declared shares are points of (fraction of the budget, share), linear in between. They are made proportions at every
point that any entry declares, and are linear between those. So a source's total is the integral of its share, and
what it has had at any time is a piecewise quadratic curve, which `order.merge_sources` follows by its inverse.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Self

import numpy as np

from vlmill.mixtures.config import MixtureEntry, MixtureSettings, Totals
from vlmill.pipeline.core.errors import RecipeError

ROUNDING = 1e-12
"""What a sum of rates loses, as a share of it."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The shares of all entries at each point of the budget; they add up to 1 at every point."""

    at: tuple[float, ...]  # from 0 to 1
    shares: tuple[tuple[float, ...], ...]  # by entry, at these points

    @classmethod
    def of(cls, mix: Mapping[str, Any]) -> Self | None:
        """That of a `mix.json`; None where no share moves."""
        found = mix.get("schedule")
        return found and cls(tuple(found["at"]), tuple(map(tuple, found["shares"])))

    def compute_means(self) -> tuple[float, ...]:
        """The share of each entry over the whole budget: the integral."""
        return tuple(float(np.trapezoid(shares, self.at)) for shares in self.shares)

    def draw(self, totals: Sequence[int]) -> tuple[list[Curve], Curve]:
        """What each entry, and all of them, have had by each time, where entries come to `totals` in the end.

        Time goes from 0 to 1 and is the fraction of the budget where the shares are met. Where caps keep an entry
        from its share, it has less in proportion at any time.
        """
        paces = [total / mean if mean else 0.0 for total, mean in zip(totals, self.compute_means(), strict=True)]
        rates = [[share * pace for share in shares] for shares, pace in zip(self.shares, paces, strict=True)]
        curves = [Curve.of(self.at, rate, total) for rate, total in zip(rates, totals, strict=True)]
        return curves, Curve.of(self.at, [sum(rate) for rate in zip(*rates, strict=True)], sum(totals))


@dataclass(frozen=True, slots=True)
class Curve:
    """An amount over time that never falls: its rate is linear between points."""

    at: tuple[float, ...]
    rates: tuple[float, ...]
    amounts: tuple[float, ...]

    @classmethod
    def of(cls, at: Sequence[float], rates: Sequence[float], total: float) -> Self:
        """The curve of these rates; `total` is their integral but for rounding."""
        steps = zip(pairwise(at), pairwise(rates), strict=True)
        grown = [(here + there) / 2 * (end - begin) for (begin, end), (here, there) in steps]
        whole = total * (1 - ROUNDING)  # from here on nothing is left: no more comes, whatever the sum lost
        amounts = [float(total) if amount >= whole else amount for amount in accumulate(grown, initial=0.0)]
        return cls(tuple(at), tuple(rates), (*amounts[:-1], float(total)))

    def amount(self, time: float) -> float:
        """How much there is at a time."""
        place = min(bisect_right(self.at, time), len(self.at) - 1) - 1
        past, width = time - self.at[place], self.at[place + 1] - self.at[place]
        slope = (self.rates[place + 1] - self.rates[place]) / width
        return min(self.amounts[place] + past * (self.rates[place] + slope * past / 2), self.amounts[-1])

    def find_time(self, amount: float, *, last: bool = False) -> float:
        """The first time at which there is so much; the last, if asked: before more comes."""
        place = (bisect_right(self.amounts, amount) if last else bisect_left(self.amounts, amount)) - 1
        if place < 0:
            return 0.0
        if place >= len(self.at) - 1:
            return 1.0
        past, width = amount - self.amounts[place], self.at[place + 1] - self.at[place]
        here, slope = self.rates[place], (self.rates[place + 1] - self.rates[place]) / width
        root = here + max(here * here + 2 * slope * past, 0.0) ** 0.5  # of the quadratic that loses no digits
        return self.at[place] + (min(2 * past / root, width) if root else 0.0)


def list_points(mixture: MixtureSettings) -> list[float]:
    """The fractions of the budget at which a mixture says a share, ascending."""
    return sorted({point for entry in mixture.resolved() for point, _ in entry.points})


def interpolate_share(entry: MixtureEntry, at: Sequence[float]) -> np.ndarray:
    """The share that an entry declares at fractions of the budget (float64); before and behind its points as there."""
    points, shares = np.array(entry.points).T
    found: np.ndarray = np.interp(np.asarray(at), points, shares)
    return found


def find_schedule(mixture: MixtureSettings, available: Sequence[Totals]) -> Schedule | None:
    """The schedule of a mixture's shares over what there is; None where none of them moves. Pure.

    Raises:
        RecipeError: at some point no entry that holds anything has a share.
    """
    entries = mixture.resolved()
    if not any(entry.moves for entry in entries):
        return None
    at = sorted({0.0, 1.0, *list_points(mixture)})
    found = np.array([interpolate_share(entry, at) for entry in entries])
    found[[not (totals["tokens"] and totals[mixture.unit]) for totals in available]] = 0.0
    whole = found.sum(axis=0)
    if not whole.all():
        raise RecipeError(f"mixture: at {at[int(np.argmin(whole))]:g} of the budget no source has a share above 0")
    return Schedule(tuple(at), tuple(map(tuple, (found / whole).tolist())))
