"""A custom filter: drops texts in capitals.

vlmill build RECIPE --filter examples/filters/shouting.py --set shouting.share=0.8
"""

from dataclasses import dataclass

from vlmill import Drop


@dataclass(frozen=True)
class Shouting:
    """Drops text nodes most of whose letters are capitals; short ones are headings and abbreviations."""

    name = "shouting"
    share: float = 0.9
    letters: int = 20

    def decide(self, samples, image_stats):
        """Yield what has to go."""
        for row, sample in samples:
            for index, node in enumerate(sample.nodes):
                found = list(filter(str.isalpha, node.text or ""))
                share = sum(map(str.isupper, found)) / max(len(found), 1)
                if len(found) >= self.letters and share > self.share:
                    yield Drop(row, index, share)
