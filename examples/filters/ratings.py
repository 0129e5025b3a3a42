"""A custom filter: drops samples by a number that came with the data, such as an annotator's score.

vlmill build RECIPE --filter examples/filters/ratings.py --set ratings.signal=score --set ratings.least=3

The source of the recipe names the column: `options: {..., signals: [score]}`. A sample without the number is kept and
counted as undecided.
"""

from dataclasses import dataclass

from vlmill import WHOLE_SAMPLE, Drop, Undecided


@dataclass(frozen=True)
class Ratings:
    """Drops samples whose number is below `least` or above `most`; those without it are undecided."""

    name = "ratings"
    signal: str = "score"
    least: float = float("-inf")
    most: float = float("inf")

    def decide(self, samples, image_stats):
        """Yield what has to go."""
        for row, sample in samples:
            rating = sample.signals.get(self.signal)
            if rating is None:
                yield Undecided(row, WHOLE_SAMPLE)
            elif not self.least <= rating <= self.most:
                yield Drop(row, score=rating)
