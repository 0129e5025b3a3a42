"""moondream1: SigLIP in front of a small Phi, in the form of LLaVA (a class of ours, moondream_model.py).

Transformers' LLaVA carries its tower, its 729 bare tokens of an image and its Phi, but not the bias of Phi's head, nor
a projector four times as wide as the language model. moondream2 reads crops besides, which nothing here does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from tokenizers import Tokenizer
from transformers import AutoConfig, PreTrainedModel

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.train.families import towers
from vlmill.train.families.llava import LlavaFamily, describe_projector
from vlmill.train.families.moondream_model import MoondreamConfig, MoondreamLlava

AutoConfig.register(MoondreamConfig.model_type, MoondreamConfig, exist_ok=True)  # so that an export can be trained on


@dataclass(frozen=True)
class Moondream(LlavaFamily):
    """moondream under a policy of one tile per image."""

    model_type: ClassVar[str] = "llava"  # its image processors are LLaVA's

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        config = describe_projector(self.settings, self._vision) | {"image_seq_length": self._patches}
        MoondreamConfig.register_for_auto_class()
        MoondreamLlava.register_for_auto_class("AutoModelForImageTextToText")
        classes = (MoondreamLlava, MoondreamConfig)
        return cast("PreTrainedModel", towers.assemble_model(classes, self.settings, tokenizer, chat, config))
