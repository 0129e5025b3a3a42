"""What a recipe says about training: the `model` block, and the `train` block of each stage.

Read before any work begins, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.chat.encode import Loss
from vlmill.pipeline.core.config import STRICT, Amount, Seed, parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images.connector import Connector

if TYPE_CHECKING:
    from vlmill.pipeline.recipe.schema import Recipe, Stage

Component = Literal["projector", "vision", "text"]
"""What a model is made of, as learning rates and freezing name it."""

Positive = Amount
Rate = Annotated[float, Field(gt=0)]
Width = Annotated[int, Field(ge=1, le=1 << 20)]
"""Of vectors, images and sequences of a model with new weights."""
Layers = Annotated[int, Field(ge=1, le=1024)]
Beta = Annotated[float, Field(ge=0, lt=1)]
ExportDtype = Literal["float32", "bfloat16", "float16"]
Positions = Literal["flat", "mrope", "rope_tie", "rope_tie_v2"]
"""How tokens are placed for rotary embeddings of three axes (train/families/exported/positions.py)."""


@dataclass(frozen=True, config=STRICT)
class Adapter:
    """LoRA: low-rank updates of the linear layers of some components, in place of all their weights. Needs peft."""

    components: tuple[Component, ...] = ("text",)  # whose linear layers get updates
    layers: Annotated[str, Field(pattern=r"^(all|last:[1-9][0-9]*)$")] = "all"  # last:N: of each stack of layers
    rank: Positive = 16  # of the two matrices whose product is an update
    alpha: Rate | None = None  # updates are scaled by alpha / rank; None: not at all
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of an update's inputs that are left out of a step
    dora: bool = False  # directions and magnitudes apart (Liu et al., 2024), as Idefics2 was trained
    at: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of several: from this fraction of the stage's steps on
    continued: bool = False  # with the adapters that the stage before ended with, in place of what they were merged to

    @property
    def depth(self) -> int | None:
        """How many layers of each stack are adapted, from the last; None: all."""
        return None if self.layers == "all" else int(self.layers.partition(":")[2])


@dataclass(frozen=True, config=STRICT)
class LossWeights:
    """How much each supervised token counts in a step's loss, which is a weighted mean over all of them.

    A token of an answer with `turns` weight t, in a segment of a source of weight s, counts s * t / L**p: L is the sum
    of t over the segment's supervised tokens, and p is 0, 0.5 or 1 by `average` (InternVL 2.5, arXiv 2412.05271).
    """

    average: Literal["tokens", "square_root", "samples"] = "tokens"  # samples: each segment counts alike
    sources: Mapping[str, Rate] = field(default_factory=dict)  # entry of the mixture -> its weight; 1 for others
    turns: Literal["all", "last"] | tuple[Annotated[float, Field(ge=0)], ...] = (
        "all"  # a list weighs the answers of a conversation from its first on, the last number all further ones
    )

    def __post_init__(self) -> None:
        """Refuse weights under which nothing is learned."""
        if not isinstance(self.turns, str) and not any(self.turns):
            raise ValueError("turns: at least one answer has to have a weight above 0")


@dataclass(frozen=True, config=STRICT)
class Training:
    """One stage of training. A component without a learning rate is frozen."""

    learning_rate: dict[Component, Rate]  # of AdamW at its peak, by component; one without a rate is frozen
    sequences: Positive = 8  # packed sequences in a step, over all ranks
    steps: Positive | None = None  # updates of the weights; either these or epochs
    epochs: Positive | None = None  # over the plan, in place of steps; each in another order
    accumulation: Positive = 1  # micro-batches that a rank makes of its sequences
    ranks: Positive | None = None  # that steps are balanced for; any number may train
    warm_up: Annotated[int, Field(ge=0)] = 0  # steps until the peak, linear
    schedule: Literal["cosine", "constant"] = "cosine"  # of learning rates after warm_up: down to 0, or constant
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # not of norms, biases and single vectors
    betas: tuple[Beta, Beta] = (0.9, 0.999)  # of AdamW: decay of its means of gradients and of their squares
    clip: Rate | None = 1.0  # the norm that gradients are clipped to; null: they are not
    loss: Loss = "answers"  # what is learned: supervised texts alone, or every token but those of images
    loss_weights: LossWeights | None = None  # None: every supervised token counts alike
    adapter: Adapter | tuple[Adapter, ...] | None = (
        None  # what is trained of some components in place of their weights, and merged at the end; a list: in turn
    )
    neftune: Rate | None = None  # alpha of noise on the embeddings of tokens (Jain et al., 2023)
    seed: Seed = 0  # of new weights, dropout and noise
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the arithmetic; weights are always kept in float32
    checkpoint_every: Positive = 100  # steps from one checkpoint to the next
    keep_last: Positive = 2  # checkpoints that stay; older ones are deleted
    evaluate: Annotated[int, Field(ge=0)] = 200  # held-out samples per source that the trained stage is scored on

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if (self.steps is None) == (self.epochs is None):
            both = ", not both: set the other to null, such as train.epochs: null" if self.steps else ""
            raise ValueError(f"give either steps or epochs{both}")
        if not self.learning_rate:
            raise ValueError("learning_rate: at least one of projector, vision and text must be trained")
        if idle := [component for component in self.adapted if component not in self.learning_rate]:
            raise ValueError(f"adapter.components: {', '.join(idle)} has no learning_rate")
        self._check_adapters()
        if self.loss == "text" and self.loss_weights and self.loss_weights.turns != "all":
            raise ValueError("loss_weights.turns weighs answers, and loss: text learns questions as well")
        if self.sequences % self.accumulation:
            raise ValueError(
                f"sequences: {self.sequences} cannot be cut into {self.accumulation} micro-batches (accumulation)"
            )
        if self.ranks is not None and self.sequences % (self.accumulation * self.ranks):
            raise ValueError(
                f"sequences: {self.sequences} cannot be cut into {self.accumulation} micro-batches (accumulation) for "
                f"each of {self.ranks} ranks"
            )

    def _check_adapters(self) -> None:
        """Refuse adapters in turn under which what was learned could not go on."""
        if self.adapter == ():
            raise ValueError("adapter: an empty list; leave it out to train whole weights")
        if self.adapters and self.adapters[0].at:
            raise ValueError(f"adapter: the first begins at {self.adapters[0].at:g}; the first begins at 0")
        for before, after in pairwise(self.adapters):
            if after.at <= before.at:
                raise ValueError(f"adapter.at: {after.at:g} comes behind {before.at:g}; each begins later")
            if after.continued:
                raise ValueError("adapter.continued is of the first; the others go on with the one before in any case")
            check_succession(before, after)

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The adapters in turn; none where whole weights are trained."""
        return self.adapter if isinstance(self.adapter, tuple) else (self.adapter,) if self.adapter else ()

    @property
    def adapted(self) -> tuple[Component, ...]:
        """Components that adapters stand for at any time; their weights are frozen throughout the stage."""
        return tuple(dict.fromkeys(component for adapter in self.adapters for component in adapter.components))


def check_succession(before: Adapter, after: Adapter) -> None:
    """Refuse adapters that cannot take over from others without a change of what the model computes.

    Raises:
        ValueError: ranks fall, or DoRA's magnitudes would have to be divided.
    """
    if before.dora != after.dora:
        raise ValueError(
            "adapter.dora changes; adapters that go on keep it, and a stage that merges first may change it"
        )
    if after.rank < before.rank:
        raise ValueError(f"adapter.rank falls from {before.rank} to {after.rank}; ranks stay or grow")
    if after.dora and after.rank > before.rank:
        raise ValueError(
            f"adapter.rank grows from {before.rank} to {after.rank} with dora; a magnitude belongs to one update, so "
            "add layers or components, or let the rank grow without dora"
        )


@dataclass(frozen=True, config=STRICT)
class VisionTower:
    """A vision transformer with new weights, of transformers' class for `kind`."""

    kind: Literal["siglip", "clip", "dinov2", "internvit", "qwen2_5_vl", "qwen3_vl"]  # its class in transformers
    hidden_size: Width  # width of a patch's vector
    layers: Layers  # of attention, one above the other
    heads: Layers  # of attention in a layer; they divide hidden_size
    patch_size: Width  # side of a patch, in pixels; the image policy has the same
    image_size: Width | None = None  # side of its input, in pixels; of qwen3_vl, side of its table of positions

    def __post_init__(self) -> None:
        """Refuse a tower of no size, but where it takes images of any."""
        if self.image_size is None and self.kind != "qwen2_5_vl":
            raise ValueError(f"image_size is missing: {self.kind} has positions for an input of one size")


@dataclass(frozen=True, config=STRICT)
class RawPatches:
    """No vision tower: the pixels of patches reach the language model through one linear layer (Fuyu)."""

    kind: Literal["patches"]  # no tower: pixels of patches
    patch_size: Width = 30  # side of a patch, in pixels; the image policy has the same


@dataclass(frozen=True, config=STRICT)
class TextModel:
    """A language model with new weights, of transformers' class for `kind`.

    SmolLM and SmolLM2 are Llamas with tied embeddings.
    """

    kind: Literal[
        "gemma", "gemma3", "llama", "mistral", "persimmon", "phi", "phi3", "qwen2", "qwen3", "smollm3"
    ]  # fmt: skip # its class in transformers
    hidden_size: Width  # width of a token's vector
    layers: Layers  # of attention, one above the other
    heads: Layers  # of attention in a layer; they divide hidden_size
    kv_heads: Layers | None = None  # of keys and values; None: as many as heads
    positions: Annotated[int, Field(ge=1, le=1 << 24)] = 8192  # tokens of the longest sequence
    tied: bool = False  # one matrix embeds tokens and predicts them


@dataclass(frozen=True, config=STRICT)
class Pretrained:
    """What transformers' `from_pretrained` reads: a folder, or a name on the Hub."""

    kind: Literal["pretrained"]  # with published weights
    path: str  # folder (relative to the recipe), or a name on the Hub
    revision: str | None = None  # of a name on the Hub: the commit, so that the same recipe is the same model


@dataclass(frozen=True, config=STRICT)
class FusedTower:
    """Two towers over one image, their patches side by side (Prismatic: DINOv2 and SigLIP)."""

    kind: Literal["fused"]  # two towers over one image
    first: Annotated[VisionTower | Pretrained, Field(discriminator="kind")]  # its features come first in a patch
    second: Annotated[
        VisionTower | Pretrained, Field(discriminator="kind")
    ]  # its features stand behind those of the first


@dataclass(frozen=True, config=STRICT)
class ModelSettings:
    """The model of all stages of a recipe: two towers and a connector with new weights, or a whole checkpoint."""

    family: str  # one of those in docs/models.md
    vision: Annotated[VisionTower | Pretrained | FusedTower | RawPatches, Field(discriminator="kind")] | None = (
        None  # what looks at images; not beside checkpoint
    )
    text: Annotated[TextModel | Pretrained, Field(discriminator="kind")] | None = (
        None  # the language model; not beside checkpoint
    )
    connector: Connector = Connector()  # what makes visual tokens of the vision tower's patches
    checkpoint: Pretrained | None = None  # a whole published model of the family's class, in place of both towers
    positions: Positions | None = None  # of tokens; None: as the family, or the checkpoint, has them
    export_dtype: ExportDtype | None = None  # None: what the pretrained language model or checkpoint was published in

    def __post_init__(self) -> None:
        """Refuse half a model, or two."""
        towers = (self.vision is None) + (self.text is None)
        if towers != (0 if self.checkpoint is None else 2):
            raise ValueError("give either vision and text, or a checkpoint of both")


@dataclass(frozen=True, config=STRICT)
class Machine:
    """What only runs a training, and shapes nothing but speed."""

    device: str = "auto"  # a GPU if there is one
    threads: Annotated[int, Field(ge=0)] = (
        0  # of torch on a CPU, 0: all cores but one, which reads and decodes; the same bits want the same number
    )
    readers: Positive = 2  # threads that read and decode
    recompute: bool = (
        False  # activations of layers in the backward pass in place of keeping them: less memory, more time
    )
    compile: bool = False  # layers by torch.compile: faster steps after some minutes, and other last digits
    ahead: Positive = 4  # steps that are read ahead
    reduce_after: Literal["auto", "step", "micro-batch"] = "auto"  # when ranks add up gradients; auto: see memory.py
    shards: str | None = None  # where copies of the run's shards lie; None: in its folder
    wandb: str | None = None  # the project of Weights & Biases that gets the log as well; None: none

    @property
    def on_gpu(self) -> bool:
        """Whether it trains on a GPU, as far as this process can see."""
        import torch  # noqa: PLC0415 - recipes are read without it

        return self.device.startswith("cuda") or (self.device == "auto" and torch.cuda.is_available())


def read_model_settings(recipe: Recipe) -> ModelSettings:
    """The `model` block of a recipe.

    Raises:
        RecipeError: it is missing or wrong.
    """
    if not recipe.model:
        raise RecipeError("model: the recipe has none, and its stages need one to train")
    return parse_block(ModelSettings, dict(recipe.model), "model")


def read_training_settings(stage: Stage, scale: float) -> Training:
    """The `train` block of a stage, with steps and warm-up at the scale of its recipe, rounded down; one step at least.

    Raises:
        RecipeError: it is missing or wrong.
    """
    if not stage.train:
        raise RecipeError(f"stages.{stage.name}: it has no train block, so nothing is trained on its mixture")
    training = parse_block(Training, dict(stage.train), f"stages.{stage.name}.train")
    steps = None if training.steps is None else max(1, int(training.steps * scale))
    return replace(training, steps=steps, warm_up=int(training.warm_up * scale))
