"""moondream1: SigLIP in front of a small Phi, in the form of LLaVA (a class of ours, exported/moondream_llava.py).

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
from vlmill.train.families.exported import bring_code
from vlmill.train.families.exported.moondream_llava import MoondreamConfig, MoondreamLlava
from vlmill.train.families.llava import LlavaFamily, describe_projector

AutoConfig.register(MoondreamConfig.model_type, MoondreamConfig, exist_ok=True)  # so that an export can be trained on


@dataclass(frozen=True)
class Moondream(LlavaFamily):
    """moondream under a policy of one tile per image."""

    model_type: ClassVar[str] = "llava"  # its image processors are LLaVA's

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """See `Family`."""
        config = describe_projector(self.settings, self._vision) | {"image_seq_length": self._tokens}
        classes = bring_code(MoondreamLlava, MoondreamConfig)
        return cast("PreTrainedModel", towers.assemble_model(classes, self.settings, tokenizer, chat, config))
