"""The solver: declared shares, a budget and caps -> how often each source is passed through.

Where caps do not let the shares be met, the answer is the nearest mixture that they allow, and what binds is said. Of
all mixtures within the caps it is the one of least Kullback-Leibler divergence from the declared shares: sources at
their cap stay there, and what they leave is divided among the others in the proportions declared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlmill.mixtures.algorithms.schedule import find_schedule
from vlmill.mixtures.config import MAX_EPOCHS, MixtureEntry, MixtureSettings, Totals
from vlmill.pipeline.core.errors import RecipeError

SLACK = 1e-9
"""What sums of floats may be off by, as a fraction."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A constraint that kept a mixture from being what was declared."""

    constraint: Literal["max_repetition", "empty", "budget"]
    entry: str  # its label; empty for the budget
    wanted: float  # passes, before others left anything; tokens for the budget
    allowed: float

    def __str__(self) -> str:
        """One sentence."""
        if self.constraint == "budget":
            return f"the caps allow {self.allowed:,.0f} tokens of a budget of {self.wanted:,.0f}"
        if self.constraint == "empty":
            return f"{self.entry} holds nothing of the unit that shares count, so it gets no share"
        if self.wanted <= self.allowed:
            return f"{self.entry} may be passed {self.allowed:g} times, and comes to that with what others leave"
        return f"{self.entry} may be passed {self.allowed:g} times, the mixture asks for {format_epochs(self.wanted)}"


def format_epochs(epochs: float) -> str:
    """A number of passes in words for people: 0.25, 7.694, 2,683."""
    return f"{epochs:,.0f}" if epochs >= 1000 else f"{epochs:.4g}"


@dataclass(frozen=True, slots=True)
class Solution:
    """Passes over each entry, what binds, and the largest budget at which the declared shares can be met."""

    repetition: tuple[float, ...]
    binding: tuple[Binding, ...]
    exact_up_to: float | None  # tokens; None: nothing bounds them


def solve_mixture(mixture: MixtureSettings, available: Sequence[Totals], fill: float = 1.0) -> Solution:
    """The nearest feasible mixture; pure.

    Args:
        mixture: the settings.
        available: what one pass over each entry holds, by unit.
        fill: how full sequences will be, for a budget of sequences.

    Raises:
        RecipeError: the mixture is strict and cannot be met; or no entry holds anything.
    """
    labels = mixture.labels()
    tokens = [float(totals["tokens"]) for totals in available]
    schedule = find_schedule(mixture, available)
    shares = schedule.compute_means() if schedule else [entry.points[0][1] for entry in mixture.resolved()]
    rates = [
        _compute_rate(mixture, entry, share, totals)
        for entry, share, totals in zip(mixture.resolved(), shares, available, strict=True)
    ]
    caps = [entry.bound for entry in mixture.resolved()]
    if not any(rates):
        raise RecipeError(
            f"mixture: none of {', '.join(labels)} holds any {mixture.unit}; `vlmill report` on this run says what "
            "their samples were lost for"
        )
    slope = sum(rate * amount for rate, amount in zip(rates, tokens, strict=True))  # tokens of one level, without caps
    budget = _compute_budget(mixture, tokens, rates, slope, fill)
    level = _find_level(rates, caps, tokens, budget) if mixture.by_share else budget / slope
    repetition = tuple(min(rate * level, cap) for rate, cap in zip(rates, caps, strict=True))
    binding = []
    for entry, label, rate, cap in zip(mixture.resolved(), labels, rates, caps, strict=True):
        if mixture.keeps_whole(entry.source):
            continue
        if not rate:
            binding.append(Binding("empty", label, 1.0, 0.0))
        elif rate * level > cap * (1 + SLACK):
            binding.append(Binding("max_repetition", label, rate * budget / slope, cap))
    reached = sum(epochs * amount for epochs, amount in zip(repetition, tokens, strict=True))
    if reached < budget * (1 - SLACK):
        binding.append(Binding("budget", "", budget, reached))
    limits = [cap / rate * slope for rate, cap in zip(rates, caps, strict=True) if rate and cap < MAX_EPOCHS]
    solution = Solution(repetition, tuple(binding), min(limits, default=None))
    if mixture.strict and binding:
        raise RecipeError(explain_refusal(solution))
    return solution


def explain_refusal(solution: Solution) -> str:
    """Why a strict mixture is refused, and what could be done instead."""
    ways = ["drop `strict` for the nearest mixture"]
    if solution.exact_up_to is not None:
        ways.append(f"lower the budget to `tokens: {solution.exact_up_to:.0f}`, up to which the shares can be met")
    return f"mixture: {'; '.join(map(str, solution.binding))}. Raise the caps, or {', or '.join(ways)}"


def _compute_rate(mixture: MixtureSettings, entry: MixtureEntry, share: float, totals: Totals) -> float:
    """Passes over an entry per level; 0 for one that has nothing to give. `share` is its mean where shares move."""
    if not totals["tokens"] or (entry.share is not None and not totals[mixture.unit]):
        return 0.0
    return entry.repeat or 1.0 if entry.share is None else share / totals[mixture.unit]


def _compute_budget(
    mixture: MixtureSettings, tokens: Sequence[float], rates: Sequence[float], slope: float, fill: float
) -> float:
    """The budget in tokens."""
    if mixture.tokens is not None:
        return mixture.tokens
    if mixture.sequences is not None:
        return mixture.sequences * mixture.sequence_length * fill
    epochs = mixture.epochs or 1.0
    if not mixture.by_share:
        return epochs * slope
    return epochs * sum(amount for amount, rate in zip(tokens, rates, strict=True) if rate)


def _find_level(rates: Sequence[float], caps: Sequence[float], tokens: Sequence[float], budget: float) -> float:
    """The level at which entries, filled at their rates up to their caps, hold `budget` tokens.

    That of the last cap if they never do.
    """
    bends = sorted((cap / rate, rate * amount) for rate, cap, amount in zip(rates, caps, tokens, strict=True) if rate)
    for number, (bend, _) in enumerate(bends):
        capped = sum(full * inflow for full, inflow in bends[:number])
        level = (budget - capped) / sum(inflow for _, inflow in bends[number:])
        if level <= bend:
            return level
    return bends[-1][0]
