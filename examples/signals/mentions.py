"""A signal without a model: how often each text matches a regular expression, here prices."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Mentions:
    """Matches of `pattern` in each text."""

    name = "mentions"
    of = "texts"
    pattern: str = r"[$€£] ?\d"

    def load(self):
        """The compiled expression."""
        return re.compile(self.pattern)

    def score(self, model, batch):
        """A number for each place of the batch."""
        return [sum(len(model.findall(text)) for text in texts) for texts in batch.texts]
