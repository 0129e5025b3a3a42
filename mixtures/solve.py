"""The solver: declared shares, a budget and caps -> how often each source is passed through.

Where caps do not let the shares be met, the answer is the nearest mixture that they allow, and what binds is said. Of all
mixtures within the caps it is the one of least Kullback-Leibler divergence from the declared shares: sources at their cap stay
there, and what they leave is divided among the others in the proportions declared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mixtures.mixture import Mixture, Totals
from pipeline.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Binding:
    """A constraint that kept a mixture from being what was declared."""

    constraint: Literal["max_repetition", "empty", "budget"]
    part: str  # its label; empty for the budget
    wanted: float  # passes, or tokens for the budget
    allowed: float

    def __str__(self) -> str:
        """One sentence."""
        if self.constraint == "budget":
            return f"the caps allow {self.allowed:,.0f} tokens of a budget of {self.wanted:,.0f}"
        if self.constraint == "empty":
            return f"{self.part} holds nothing of the unit that shares count, so it gets no share"
        return f"{self.part} may be passed {self.allowed:g} times, its share asks for {self.wanted:.3g}"


@dataclass(frozen=True, slots=True)
class Solution:
    """Passes over each part, what binds, and the largest budget at which the declared shares can be met."""

    repetition: tuple[float, ...]
    binding: tuple[Binding, ...]
    exact_up_to: float | None  # tokens; None: no cap would ever bind


def solve(mixture: Mixture, available: Sequence[Totals], fill: float = 1.0) -> Solution:
    """The nearest feasible mixture; pure.

    Args:
        mixture: the settings.
        available: what one pass over each part holds, by unit.
        fill: how full rows will be, for a budget of rows.

    Raises:
        RecipeError: the mixture is strict and cannot be met; or no part holds anything.
    """
    parts, labels = mixture.resolved(), mixture.labels()
    tokens = [float(totals["tokens"]) for totals in available]
    rates = [
        (part.repeat or 1.0 if part.share is None else part.share / totals[mixture.unit])
        if _usable(mixture, totals)
        else 0.0
        for part, totals in zip(parts, available, strict=True)
    ]
    caps = [part.max_repetition for part in parts]
    if not any(rates):
        raise RecipeError(
            f"mixture: none of {', '.join(labels)} holds any {mixture.unit}; look at the losses with: vlmill status DIR"
        )
    steady = sum(
        rate * amount for rate, amount in zip(rates, tokens, strict=True)
    )  # tokens per unit of level, without caps
    budget = _budget(mixture, tokens, rates, steady, fill)
    level = _level(rates, caps, tokens, budget) if mixture.by_share else budget / steady
    repetition = tuple(_passes(rate, cap, level) for rate, cap in zip(rates, caps, strict=True))
    binding = [
        Binding("empty", label, 1.0, 0.0)
        if not rate
        else Binding("max_repetition", label, rate * budget / steady, cap or 0.0)
        for label, rate, cap in zip(labels, rates, caps, strict=True)
        if not rate or (cap is not None and rate * level > cap * (1 + 1e-9))
    ]
    reached = sum(passes * amount for passes, amount in zip(repetition, tokens, strict=True))
    if reached < budget * (1 - 1e-9):
        binding.append(Binding("budget", "", budget, reached))
    limits = [cap / rate * steady for rate, cap in zip(rates, caps, strict=True) if rate and cap is not None]
    solution = Solution(repetition, tuple(binding), min(limits, default=None))
    if mixture.strict and binding:
        raise RecipeError(refusal(solution))
    return solution


def refusal(solution: Solution) -> str:
    """Why a strict mixture is refused, and what could be done instead."""
    ways = ["drop `strict` for the nearest mixture"]
    if solution.exact_up_to is not None:
        ways.append(f"lower the budget to `tokens: {solution.exact_up_to:.0f}`, up to which the shares can be met")
    return f"mixture: {'; '.join(map(str, solution.binding))}. Raise the caps, or {', or '.join(ways)}"


def _usable(mixture: Mixture, totals: Totals) -> bool:
    return totals["tokens"] > 0 and (not mixture.by_share or totals[mixture.unit] > 0)


def _budget(mixture: Mixture, tokens: Sequence[float], rates: Sequence[float], steady: float, fill: float) -> float:
    """The budget in tokens."""
    if mixture.tokens is not None:
        return mixture.tokens
    if mixture.rows is not None:
        return mixture.rows * mixture.sequence_length * fill
    epochs = mixture.epochs or 1.0
    if not mixture.by_share:
        return epochs * steady
    return epochs * sum(amount for amount, rate in zip(tokens, rates, strict=True) if rate)


def _passes(rate: float, cap: float | None, level: float) -> float:
    return rate * level if cap is None else min(rate * level, cap)


def _level(rates: Sequence[float], caps: Sequence[float | None], tokens: Sequence[float], budget: float) -> float:
    """The level at which sources, filled at their rates and each up to its cap, hold `budget` tokens; else that of the last cap."""
    filled = [
        (math.inf if cap is None else cap / rate, rate * amount)
        for rate, cap, amount in zip(rates, caps, tokens, strict=True)
        if rate
    ]
    filled.sort()
    for number, (bend, _) in enumerate(filled):
        capped = sum(full * inflow for full, inflow in filled[:number])
        level = (budget - capped) / sum(inflow for _, inflow in filled[number:])
        if level <= bend:
            return level
    return filled[-1][0]
