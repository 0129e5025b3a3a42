"""Signal `perplexity`: how surprising a language model finds a text.

Perplexity is e to the mean loss of its tokens, as CCNet (Wenzek et al. 2020) and OBELICS (Laurencon et al. 2023,
arXiv:2306.16527) filter by it, with any causal model of transformers in the place of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.signals.base import Of, SignalBatch, Unit, list_units
from vlmill.pipeline.signals.published import PublishedSignal

MOST_LOSS = 80.0
"""Of a mean loss: e to more has no float32."""


@dataclass(frozen=True, config=STRICT)
class Perplexity(PublishedSignal):
    """Perplexity of each text, or of all texts of a sample as one. Texts of fewer than two tokens have none."""

    kind: ClassVar[str] = "perplexity"
    version: ClassVar[int] = 1
    of: ClassVar[Of] = "texts"
    auto: ClassVar[str] = "AutoModelForCausalLM"

    level: Literal["texts", "samples"] = "texts"  # a value for each text, or for all texts of a sample as one
    tokens: Annotated[int, Field(ge=2, le=1 << 20)] = 1024  # of a text that count at most, from its beginning

    def columns(self, name: str) -> tuple[str, ...]:
        """The perplexity."""
        return (name,)

    def list_units(self, sample: Sample) -> Iterator[Unit]:
        """Texts, or samples."""
        return list_units(sample, self.level)

    def score(self, model: Any, batch: SignalBatch) -> np.ndarray:
        """Perplexities (size, 1)."""
        from vlmill.pipeline.signals.torch_models import measure_losses  # noqa: PLC0415

        texts = [texts[0] if texts else "" for texts in batch.texts]
        losses = measure_losses(model, texts, self.batch, self.tokens)
        found: np.ndarray = np.exp(np.minimum(losses, MOST_LOSS))[:, None]
        return found
