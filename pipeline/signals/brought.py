"""Signal `brought`: a number that rows bring along, such as a rating of upstream, as a value of the whole sample.

No model is asked. As a signal the number has bounds in `threshold`, columns that a mixture's `where` sees, a histogram
and quantiles, as values of models have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.resources import Resources
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Sample
from vlmill.pipeline.signals.base import Of, SignalBatch, Unit


@dataclass(frozen=True, config=STRICT)
class Brought:
    """A number that came with the row. A sample whose row has none has no value."""

    kind: ClassVar[str] = "brought"
    version: ClassVar[int] = 1
    of: ClassVar[Of] = "samples"
    batch: ClassVar[int] = 4096
    threads: ClassVar[int] = 1
    seconds: ClassVar[float] = 600.0
    resources: ClassVar[Resources] = Resources()

    number: str  # its name among the `signals` of sources, as `vlmill trace` shows it, such as relevance_min

    def columns(self, name: str) -> tuple[str, ...]:
        """The number."""
        return (name,)

    def view(self) -> None:
        """No picture."""
        return

    def list_units(self, sample: Sample) -> Iterator[Unit]:
        """The sample, where its row brought the number."""
        if self.number in sample.signals:
            yield Unit(WHOLE_SAMPLE, numbers=(sample.signals[self.number],))

    def made_by(self) -> Mapping[str, str]:
        """Nothing that could differ."""
        return {}

    def load(self) -> None:
        """No model."""
        return

    def score(self, model: None, batch: SignalBatch) -> np.ndarray:
        """The numbers (size, 1)."""
        del model
        return np.array([numbers or (np.nan,) for numbers in batch.numbers], np.float64).reshape(batch.size, 1)
