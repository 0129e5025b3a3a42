"""Signal `answer_loss`: how well a vision-language model foresees the answers, with the pictures and without them.

The blind test: what a model answers as well without the picture teaches little about pictures. Chen et al. 2024
(MMStar, arXiv:2403.20330) found that models solve many questions of benchmarks with the picture left out, and Tong et
al. 2024 (Cambrian-1, arXiv:2406.16860, section 3) compared benchmarks with vision enabled and disabled. Here it is
asked of training data, by the loss of the answers in place of their correctness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.images.views import WholeView
from vlmill.pipeline.signals.base import Of, SignalBatch, Unit
from vlmill.pipeline.signals.conversations import Level, list_conversations
from vlmill.pipeline.signals.published import PublishedSignal, list_versions


@dataclass(frozen=True, config=STRICT)
class AnswerLoss(PublishedSignal):
    """Mean loss of the supervised answers' tokens, in nats.

    `NAME` is it with the pictures, `NAME_blind` without them, and `NAME_gain` by how much the pictures lower it.
    Language models alone give `NAME_blind`, with `image: [false]`. The model's own processor and template write the
    conversation. There is no value where the template refuses it, where it has more than `tokens` tokens, or where a
    text spells a special token of the model.
    """

    kind: ClassVar[str] = "answer_loss"
    version: ClassVar[int] = 1
    of: ClassVar[Of] = "samples"

    image: tuple[bool, ...] = (True, False)  # with the pictures, without them, or both
    level: Level = "samples"  # of a sample; or of each answer, with its question and the images before it alone
    tokens: Annotated[int, Field(ge=2, le=1 << 20)] = 4096  # of a conversation at most, images among them
    longest: Annotated[int, Field(ge=1, le=16_384)] = 1536  # pixels of a picture's longer side before the processor

    def __post_init__(self) -> None:
        if not self.image or len(set(self.image)) < len(self.image):
            raise ValueError(f"image {list(self.image)} is not one of [true, false], [true] and [false]")

    @property
    def conditions(self) -> tuple[bool, ...]:
        """What is asked: with pictures, then without."""
        return tuple(sorted(self.image, reverse=True))

    def columns(self, name: str) -> tuple[str, ...]:
        """The losses that are asked for; of both also their difference."""
        named = {True: name, False: f"{name}_blind"}
        found = tuple(named[condition] for condition in self.conditions)
        return (*found, f"{name}_gain") if len(found) == len(named) else found

    def view(self) -> WholeView | None:
        """Whole pictures: the model's own processor draws them."""
        return WholeView(self.longest) if True in self.image else None

    def list_units(self, sample: Sample) -> Iterator[Unit]:
        """Conversations with supervised answers; with pictures only those that show some."""
        units = list_conversations(sample, self.level)
        return (unit for unit in units if unit.images) if True in self.image else units

    def made_by(self) -> Mapping[str, str]:
        """What reads models, and what draws pictures."""
        return list_versions("torch", "transformers", "tokenizers", "pillow")

    def load(self) -> Any:
        """The model with its processor; of a language model with its tokenizer."""
        from vlmill.pipeline.signals.chat_models import load_chat_model  # noqa: PLC0415

        return load_chat_model(
            self.model.folder, gpu=self.resources.gpus > 0, threads=self.threads, images=True in self.image
        )

    def score(self, model: Any, batch: SignalBatch) -> np.ndarray:
        """Losses (size, columns). Each conversation is asked alone, so nothing else in the batch has a say."""
        from vlmill.pipeline.signals.chat_models import measure_answer_loss  # noqa: PLC0415

        found = np.full((batch.size, len(self.columns(""))), np.nan, np.float32)
        for place in range(batch.filled):
            pictures = batch.pictures[place]
            losses = [
                measure_answer_loss(model, batch.nodes[place], pictures if condition else None, self.tokens)
                for condition in self.conditions
            ]
            found[place] = [*losses, *([losses[1] - losses[0]] if len(losses) > 1 else [])]
        return found
