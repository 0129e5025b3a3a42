"""Signals: what models say of images and texts, computed once and stored beside the data.

SIGNALS names them for recipes. To add one, write a file with a frozen dataclass that has what `Signal` in base.py asks
for, and a line in SIGNALS. A signal of a user stays in a file of its own: see `custom.py`.
"""

from __future__ import annotations

from vlmill.pipeline.signals.answer_loss import AnswerLoss
from vlmill.pipeline.signals.ask import Ask
from vlmill.pipeline.signals.base import Signal, SignalBatch, Unit
from vlmill.pipeline.signals.brought import Brought
from vlmill.pipeline.signals.classifier import ImageClassifier, OnnxClassifier
from vlmill.pipeline.signals.clusters import Clusters
from vlmill.pipeline.signals.faces import Faces
from vlmill.pipeline.signals.perplexity import Perplexity
from vlmill.pipeline.signals.similarity import ImageEmbedding, ImageScore, ImageTextSimilarity, TextEmbedding
from vlmill.pipeline.signals.text_in_image import TextInImage

SIGNALS: dict[str, type[Signal]] = {
    "image_text_similarity": ImageTextSimilarity,
    "image_embedding": ImageEmbedding,
    "text_embedding": TextEmbedding,
    "image_classifier": ImageClassifier,
    "image_score": ImageScore,
    "onnx_classifier": OnnxClassifier,
    "perplexity": Perplexity,
    "answer_loss": AnswerLoss,
    "text_in_image": TextInImage,
    "faces": Faces,
    "brought": Brought,
    "ask": Ask,
}

DERIVED: dict[str, type[Clusters]] = {"clusters": Clusters}
"""Signals whose values follow from those of another one, over the whole run."""

__all__ = ["DERIVED", "SIGNALS", "Clusters", "Signal", "SignalBatch", "Unit"]
