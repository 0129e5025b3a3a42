"""What a model family is: from the layouts of an image policy to the inputs of a model class of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from vlmill.pipeline.chat.encode import ChatFormat
    from vlmill.pipeline.images import Layout, Policy
    from vlmill.train.batch import Batch
    from vlmill.train.settings import Component, ModelSettings


class Processor(Protocol):
    """A processor of transformers, as far as an export needs one."""

    def save_pretrained(self, save_directory: Path) -> object:
        """Write what `AutoProcessor.from_pretrained` reads."""


class Family(Protocol):
    """A frozen dataclass of the model's settings and a stage's image policy."""

    model_type: ClassVar[str]  # of transformers; with the policy it names the image processor (processors.py)
    new: ClassVar[tuple[str, ...]]  # parameters that a stage before, under another policy of the family, need not have

    def __init__(self, settings: ModelSettings, policy: Policy) -> None:
        """Raises RecipeError if the vision tower cannot take what the policy makes."""

    def build(self, tokenizer: Tokenizer, chat: ChatFormat) -> PreTrainedModel:
        """The model: new weights drawn from torch's generator, pretrained ones read. In float32, on the CPU."""
        ...

    def visual_tokens(self, layout: Layout) -> int:
        """Features per image by transformers' own arithmetic; a policy must count the same."""
        ...

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
        """What the model's forward takes besides tokens, from a batch on its device.

        An image is seen by its own document alone. An attention mask is among them only if the class needs one for
        that, and `position_ids` only if they are others than places in documents. Generation leaves out the latter: the
        class itself then computes the same ones, which the harness compares.
        """
        ...

    def processor(self, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat) -> Processor:
        """The processor of transformers, set to give of an image what the policy and `inputs` give.

        Its image processor is that of `make_image_processor`.
        """
        ...

    def component(self, parameter: str) -> Component:
        """Which component of the model a parameter belongs to, by its name."""
        ...
