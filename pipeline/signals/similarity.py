"""Signals `image_text_similarity`, `image_embedding`, `text_embedding` and `image_score`: what dual encoders say.

Similarity is the cosine of a picture's and a text's vector, as DataComp (Gadre et al. 2023, arXiv:2304.14108) and
OmniCorpus (Li et al. 2024, arXiv:2406.08418) filter by it. CLIP, SigLIP and SigLIP 2 are read by transformers' own
classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.signals.base import Of, PairText, SignalBatch, Unit, list_units
from vlmill.pipeline.signals.published import PublishedSignal
from vlmill.pipeline.signals.weights import WeightsField


@dataclass(frozen=True, config=STRICT)
class ImageTextSimilarity(PublishedSignal):
    """Cosine of an image's and a text's vector; the best over the texts that belong to the image, and their mean."""

    kind: ClassVar[str] = "image_text_similarity"
    version: ClassVar[int] = 1
    of: ClassVar[Of] = "pairs"

    text: PairText = "caption"  # all texts of the sample, those of the image's turn, or its neighbours in a document

    def columns(self, name: str) -> tuple[str, ...]:
        """The best; of neighbours also the mean."""
        return (name, f"{name}_mean") if self.text == "neighbours" else (name,)

    def list_units(self, sample: Sample) -> Iterator[Unit]:
        """Images with the texts that belong to them; an image without any has no similarity."""
        return (unit for unit in list_units(sample, "pairs", self.text) if unit.texts)

    def score(self, model: Any, batch: SignalBatch) -> np.ndarray:
        """Cosines (size, columns)."""
        from vlmill.pipeline.signals.torch_models import embed_images, embed_texts  # noqa: PLC0415

        assert batch.images is not None
        images, found = embed_images(model, batch.images), np.full((batch.size, 2), np.nan, np.float32)
        texts = iter(embed_texts(model, [text for texts in batch.texts for text in texts], self.batch))
        for place, belonging in enumerate(batch.texts):
            if belonging:
                cosines = np.stack([next(texts) for _ in belonging]) @ images[place]
                found[place] = cosines.max(), cosines.mean()
        return found[:, : len(self.columns(""))]


@dataclass(frozen=True, config=STRICT)
class ImageEmbedding(PublishedSignal):
    """A vector of length 1 for each image, of a dual encoder or an image encoder."""

    kind: ClassVar[str] = "image_embedding"
    version: ClassVar[int] = 1
    of: ClassVar[Of] = "images"

    def columns(self, name: str) -> tuple[str, ...]:
        """None: a vector."""
        del name
        return ()

    def score(self, model: Any, batch: SignalBatch) -> np.ndarray:
        """Vectors (size, length)."""
        from vlmill.pipeline.signals.torch_models import embed_images  # noqa: PLC0415

        assert batch.images is not None
        return embed_images(model, batch.images)


@dataclass(frozen=True, config=STRICT)
class TextEmbedding(PublishedSignal):
    """A vector of length 1 for each text, of a dual encoder or a text encoder (the mean of its states)."""

    kind: ClassVar[str] = "text_embedding"
    version: ClassVar[int] = 1
    of: ClassVar[Of] = "texts"

    def columns(self, name: str) -> tuple[str, ...]:
        """None: a vector."""
        del name
        return ()

    def score(self, model: Any, batch: SignalBatch) -> np.ndarray:
        """Vectors (size, length)."""
        from vlmill.pipeline.signals.torch_models import embed_texts  # noqa: PLC0415

        return embed_texts(model, [texts[0] if texts else "" for texts in batch.texts], self.batch)


@dataclass(frozen=True, config=STRICT)
class ImageScore(PublishedSignal):
    """A linear head on an image's vector, such as LAION's aesthetic predictor on CLIP.

    https://github.com/LAION-AI/aesthetic-predictor
    """

    kind: ClassVar[str] = "image_score"
    version: ClassVar[int] = 1
    of: ClassVar[Of] = "images"

    head: WeightsField = field(kw_only=True)  # a safetensors file with `weight` (length) or (1, length), and `bias`

    def columns(self, name: str) -> tuple[str, ...]:
        """The score."""
        return (name,)

    def load(self) -> Any:
        """The encoder, and the head's weight (length,) and bias."""
        return super().load(), *_read_head(self.head.folder)

    def score(self, model: Any, batch: SignalBatch) -> np.ndarray:
        """Scores (size, 1)."""
        from vlmill.pipeline.signals.torch_models import embed_images  # noqa: PLC0415

        assert batch.images is not None
        encoder, weight, bias = model
        vectors = embed_images(encoder, batch.images)
        if vectors.shape[1] != weight.size:
            raise RecipeError(
                f"head: {self.head.path} is for vectors of {weight.size}, the model's have {vectors.shape[1]}"
            )
        scores: np.ndarray = (vectors * weight).sum(1, keepdims=True) + bias
        return scores


def _read_head(path: Path) -> tuple[np.ndarray, float]:
    """Weight and bias of a linear head."""
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.numpy import load_file  # noqa: PLC0415

    try:
        found = load_file(path)
        return found["weight"].astype(np.float32).reshape(-1), float(np.sum(found.get("bias", np.zeros(1))))
    except (SafetensorError, OSError, KeyError) as error:
        raise RecipeError(f"head: {path} is no safetensors file with `weight` and `bias`: {error}") from None
