"""Whether two recipes differ: paired over held-out samples and seeds, and corrected for how many were compared.

Arithmetic alone.

Scores lie in a table of seeds (trainings) and samples, both drawn from more than there are, and both crossed: every
training answers every sample. That is the design of readers and cases in diagnostic imaging, and its analysis is used:
Dorfman, Berbaum and Metz 1992, with the degrees of freedom of Hillis 2007. The variance of a mean difference is
(MS_seeds + max(MS_samples - MS_residual, 0)) / (seeds x samples), of mean squares of the table of differences.

Why not resample: of three seeds there are ten different draws, and their variance comes out a third too small, so such
intervals are too narrow where seeds matter. Why not a test on the seeds' means alone: it ignores that other samples
could have been held out. With one seed only the samples are left, and what is found holds for these very models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Table = NDArray[np.float64]
"""(seeds, samples)."""

LEVEL = 0.95
"""Of intervals."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What one recipe scores above another."""

    difference: float
    low: float  # of the interval, which is not corrected for other comparisons
    high: float
    degrees: float  # of freedom, of the t distribution that interval and p are taken from
    p: float  # of so large a difference, either way, if there were none


def linearise_ratios(sums: Table, weights: Table) -> Table:
    """What each sample contributes to the score of its seed, a ratio of sums, to first order.

    A row's mean is its seed's score.

    Args:
        sums: of a measure, such as right answers or the loss of all tokens.
        weights: what they are divided by, such as questions or tokens; no row is all zeros.
    """
    whole = weights.mean(axis=1, keepdims=True)
    score = sums.mean(axis=1, keepdims=True) / whole
    return np.asarray(score + (sums - score * weights) / whole)


def compare_variants(one: Table, other: Table) -> Difference:
    """How much `one` is above `other`: tables of contributions (`linearise_ratios`) of the same seeds and samples.

    Raises:
        ValueError: there are fewer than two samples.
    """
    table = one - other
    seeds, samples = table.shape
    if samples < 2:
        raise ValueError("a difference over one sample has no interval")
    mean = float(table.mean())
    between_seeds, between_samples, residual = compute_mean_squares(table)
    if seeds == 1:
        return _compute_difference(mean, between_samples / samples, samples - 1)
    beyond = max(between_samples - residual, 0.0)
    degrees = count_degrees(between_seeds, beyond, seeds, samples)
    return _compute_difference(mean, (between_seeds + beyond) / (seeds * samples), degrees)


def compute_mean_squares(table: Table) -> tuple[float, float, float]:
    """Mean squares of a table (seeds, samples): of seeds, of samples, and what both leave; of one seed the second."""
    seeds, samples = table.shape
    mean = table.mean()
    by_seed, by_sample = table.mean(axis=1) - mean, table.mean(axis=0) - mean
    between_samples = seeds * float((by_sample**2).sum()) / (samples - 1)
    if seeds == 1:
        return 0.0, between_samples, 0.0
    between_seeds = samples * float((by_seed**2).sum()) / (seeds - 1)
    rest = table - mean - by_seed[:, None] - by_sample[None, :]
    return between_seeds, between_samples, float((rest**2).sum()) / ((seeds - 1) * (samples - 1))


def count_degrees(between_seeds: float, beyond: float, seeds: int, samples: int) -> float:
    """Degrees of freedom (Hillis 2007), of the mean square of seeds and what that of samples is above the residual."""
    if between_seeds <= 0:
        return samples - 1.0
    return min(samples - 1.0, (seeds - 1) * ((between_seeds + beyond) / between_seeds) ** 2)


def _compute_difference(mean: float, variance: float, degrees: float) -> Difference:
    error = math.sqrt(variance)
    if error <= 1e-12 * max(1.0, abs(mean)):  # the same difference everywhere, but for rounding
        return Difference(mean, mean, mean, degrees, 1.0 if abs(mean) <= 1e-12 else 0.0)
    half = float(student.ppf((1 + LEVEL) / 2, degrees)) * error
    return Difference(mean, mean - half, mean + half, degrees, float(2 * student.sf(abs(mean) / error, degrees)))


def adjust_holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values (Holm 1979).

    To call those below alpha differences is wrong anywhere with a chance of at most alpha.

    The smallest is multiplied by how many there are, the next by one fewer, and so on; none comes out below a smaller
    one, or above 1.
    """
    corrected, least = dict[str, float](), 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        least = max(least, min(1.0, p_values[name] * (len(p_values) - place)))
        corrected[name] = least
    return {name: corrected[name] for name in p_values}


def compute_spread(scores: Sequence[float]) -> float | None:
    """The standard deviation over seeds, or None where there is one seed."""
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else None
