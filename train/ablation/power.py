"""Which differences an ablation can show: before it is run, of an assumed variation, and after it, of the found one.

Arithmetic alone. The model is that of `paired.py`: the difference of two variants on a held-out sample, of trainings
with one seed, is the difference that is looked for, plus what varies with the seed, plus what varies with the sample,
plus what varies with both. Whether it is seen is that module's own test, whose statistic is then noncentral t.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.optimize import brentq
from scipy.stats import nct
from scipy.stats import t as student

from vlmill.pipeline.core.config import STRICT
from vlmill.train.ablation.paired import LEVEL, Table, compute_mean_squares, count_degrees

POWER = 0.8
"""How often a difference is to be seen that is there."""

Spread = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class Variation:
    """Standard deviations of what a difference between two variants is made of beside itself, in the metric's unit."""

    seeds: Spread  # by pair of trainings, over all samples there are
    samples: Spread  # by sample, over all trainings there are
    answers: Spread  # of a sample by pair of trainings, beyond both


MEASURED = Variation(seeds=0.043, samples=0.1, answers=0.25)
"""What is assumed of shares of right answers: found in a pilot on `quickstart_ablations` (docs/findings.md), but for
what varies by sample, which one recipe alone does not show."""


def estimate_variation(table: Table) -> Variation:
    """The variation of a table of differences (seeds, samples), two of each at least, by its mean squares.

    What comes out below 0 is 0.

    Raises:
        ValueError: there are fewer than two seeds or samples.
    """
    seeds, samples = table.shape
    if min(seeds, samples) < 2:
        raise ValueError(f"a table of {seeds} x {samples}; two seeds and two samples at least show a variation")
    by_seed, by_sample, residual = compute_mean_squares(table)
    return Variation(
        math.sqrt(max(by_seed - residual, 0.0) / samples),
        math.sqrt(max(by_sample - residual, 0.0) / seeds),
        math.sqrt(residual),
    )


def compute_power(difference: float, variation: Variation, seeds: int, samples: int) -> float:
    """How often a difference comes out with p below 0.05 (`compare_variants`), of so many seeds and samples.

    With one seed what is looked for is the difference between these very trainings.

    Raises:
        ValueError: there is no seed, or fewer than two samples.
    """
    if seeds < 1 or samples < 2:
        raise ValueError(f"{seeds} seeds and {samples} samples; at least 1 and 2 are needed")
    error, degrees = _expect_error(variation, seeds, samples)
    if error == 0:
        return float(difference != 0)
    least, shift = float(student.ppf((1 + LEVEL) / 2, degrees)), abs(difference) / error
    other_way = float(nct.cdf(-least, degrees, shift))
    return float(nct.sf(least, degrees, shift)) + (0.0 if math.isnan(other_way) else other_way)  # NaN where next to 0


def find_detectable(variation: Variation, seeds: int, samples: int, power: float = POWER) -> float:
    """The smallest difference that is seen with this power, in the metric's unit.

    Raises:
        ValueError: see `compute_power`.
    """
    error, _ = _expect_error(variation, seeds, samples)
    if error == 0:
        return 0.0
    most = error
    while compute_power(most, variation, seeds, samples) < power:
        most *= 2
    return float(brentq(lambda tried: compute_power(tried, variation, seeds, samples) - power, 0.0, most, xtol=1e-6))


def find_samples(difference: float, variation: Variation, seeds: int, power: float = POWER) -> int | None:
    """How many samples it takes to see a difference; None where no number is enough, and only more seeds would help."""
    most = 1 << 24
    if compute_power(difference, variation, seeds, most) < power:
        return None
    few, enough = 1, most
    while enough - few > 1:
        tried = (few + enough) // 2
        few, enough = (few, tried) if compute_power(difference, variation, seeds, tried) >= power else (tried, enough)
    return enough


def _expect_error(variation: Variation, seeds: int, samples: int) -> tuple[float, float]:
    """The standard error of a mean difference, and its degrees of freedom, at the expected mean squares."""
    if seeds == 1:
        return math.sqrt((variation.samples**2 + variation.answers**2) / samples), samples - 1.0
    residual = variation.answers**2
    by_seed, beyond = residual + samples * variation.seeds**2, seeds * variation.samples**2
    return math.sqrt((by_seed + beyond) / (seeds * samples)), count_degrees(by_seed, beyond, seeds, samples)
