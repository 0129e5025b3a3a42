"""What a step costs in floating point operations, and how much of a device's peak that is (MFU: Chowdhery et al.

2022, PaLM, appendix B).

Counted as the model needs it, whatever the hardware did: 2 per weight of a linear layer and token in the forward pass,
as many again for gradients of inputs wherever something before is trained, and again for those of weights that are.
Attention inside documents and images alone, causal in the language model but for blocks, and within the windows of
layers that have some; its head on supervised tokens alone; padding, norms and recomputed layers not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.train.batch import PADDING, Batch
from vlmill.train.families import vision
from vlmill.train.families.base import Family
from vlmill.train.families.blocks import BLOCKS, count_block_pairs
from vlmill.train.families.exported.connected import ConnectedProjector, count_across
from vlmill.train.families.exported.upsampler import COLOURS
from vlmill.train.settings import Component

ORDER: tuple[Component, ...] = ("vision", "projector", "text")
"""From the pixels to the loss: what is trained needs the gradients of all that comes after it."""

PEAK: Mapping[str, float] = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "L40S": 362e12}
"""Dense bfloat16 operations per second, from NVIDIA's data sheets (SXM where there are several)."""

QUERIES = {"q_proj": 1, "query": 1, "q": 1, "qkv": 3}
"""What transformers' classes call the layer that makes queries, and how many times the width of attention it has."""


MATRICES = ("mm_input_projection_weight",)
"""Parameters that tokens are multiplied by without a layer of their own."""


@dataclass(frozen=True)
class Cost:
    """What a token of each component costs, in multiply-adds of one pass."""

    linear: Mapping[Component, int]  # weights of linear layers, the head left out
    attention: Mapping[Component, int]  # per pair of tokens: widths of all layers, for scores and for values
    head: int
    passes: Mapping[Component, int]  # forward; gradients of inputs; gradients of weights
    patch: int  # pixels of a patch's side
    group: int = 1  # patches that the projector takes as one; of a connector of ours all of a tile
    windowed: int = 0  # attention of those layers of the vision tower that see windows alone
    window: int = 1  # patches of a window's side
    sliding: int = 0  # attention of those layers of the language model that see a window alone
    span: int = 0  # tokens of it
    find_blocks: Callable[[Batch], torch.Tensor] | None = None  # tokens that see one another in both directions

    def of(self, batch: Batch) -> float:
        """Floating point operations of a batch, forward and backward."""
        return sum(self.split(batch))

    def split(self, batch: Batch) -> tuple[float, float]:
        """Those of the vision tower with its projector, and those of the language model with its head."""
        real = batch.sources != PADDING
        tokens, supervised = int(real.sum()), batch.supervised
        seen = (batch.positions + 1)[real]  # a token sees those before it in its document, and itself
        pairs, within = int(seen.sum()), int(seen.clamp(max=self.span).sum())
        blocks = self.find_blocks and torch.where(real, self.find_blocks(batch), -1)
        more = 0 if blocks is None else count_block_pairs(blocks)
        shown = () if batch.blank else batch.tiles
        tiles = [tile for image in shown for tile in image]
        grids: list[tuple[int, int]] = [(tile.shape[0] // self.patch, tile.shape[1] // self.patch) for tile in tiles]
        sizes = [rows * columns for rows, columns in grids]
        patches, squares = sum(sizes), sum(size**2 for size in sizes)
        near = sum(self._count_near(rows) * self._count_near(columns) for rows, columns in grids)
        adds = {
            "vision": self.linear["vision"] * patches + self.attention["vision"] * squares + self.windowed * near,
            "projector": self.linear["projector"] * patches // self.group,
            "text": self.linear["text"] * tokens
            + self.attention["text"] * (pairs + more)
            + self.sliding * (within + more)
            + self.head * supervised,
        }
        vision, projector, text = (2.0 * adds[component] * self.passes[component] for component in ORDER)
        return vision + projector, text

    def estimate(self, shapes: np.ndarray, side: int) -> np.ndarray:
        """The same of sequences before they are read: (sequences, 2). The head is left out.

        Of blocks the images count alone, and a window as if all tokens saw a whole one.

        Args:
            shapes: (sequences, 3) of tokens, pairs of tokens and tiles, as `PlannedMixture.measure` has them.
            side: of a tile, in pixels.
        """
        tokens, pairs, tiles = shapes.T
        patches = side**2 // self.patch**2
        projected = self.linear["projector"] * self.passes["projector"] * patches / self.group
        looked = (self.linear["vision"] + self.attention["vision"] * patches) * self.passes["vision"] * patches
        visual = patches // self.group
        more = tiles * (visual * (visual - 1) // 2 if self.find_blocks else 0)
        seen = self.attention["text"] * (pairs + more)
        seen += self.sliding * (np.minimum(pairs, tokens * self.span) + more)
        text = (self.linear["text"] * tokens + seen) * self.passes["text"]
        return 2.0 * np.stack([(projected + looked) * tiles, text], axis=1)

    def _count_near(self, length: int) -> int:
        """Pairs of patches of a row of `length` that are in one window."""
        windows, rest = divmod(length, self.window)
        return windows * self.window**2 + rest**2


def count_flops(model: PreTrainedModel, family: Family, trained: Sequence[Component]) -> Cost:
    """What a model costs whose `trained` components learn."""
    linear = dict.fromkeys(ORDER, 0)
    attention, windowed = dict.fromkeys(ORDER, 0), 0
    head, whole = model.get_output_embeddings(), _list_whole_layers(model)
    for name, module in model.named_modules():
        component = family.component(f"{name}.weight")
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)) and module is not head:
            linear[component] += module.weight.numel()
            if component == "vision" and (times := QUERIES.get(name.rpartition(".")[2])):
                width = 2 * module.weight.shape[0] // times
                if whole is None or whole & {int(part) for part in name.split(".") if part.isdigit()}:
                    attention[component] += width
                else:
                    windowed += width
    linear["projector"] += sum(weights.numel() for name, weights in model.named_parameters() if name.endswith(MATRICES))
    text: Any = model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    narrow = _count_sliding_layers(text)
    attention["text"] = 2 * (text.num_hidden_layers - narrow) * text.num_attention_heads * width
    sliding = 2 * narrow * text.num_attention_heads * width
    find = BLOCKS.get(model.config.model_type)
    passes, before = dict[Component, int](), False
    for component in ORDER:
        passes[component] = 1 + (component in trained or before) + (component in trained)
        before |= component in trained
    if not linear["vision"]:
        passes["projector"] = 1 + ("projector" in trained)  # one layer behind the pixels (Fuyu), which have no gradient
    patch, tower = _find_patch(model), getattr(model.config, "vision_config", None)
    window = max(1, getattr(tower, "window_size", patch) // patch)
    group = _count_group(model.config)
    if getattr(model.config, "connector", None):
        linear["projector"], group = _count_connector(model.config, linear["projector"])
    return Cost(
        linear,
        attention,
        head.weight.numel(),
        passes,
        patch,
        group,
        windowed,
        window,
        sliding,
        text.sliding_window if narrow else 0,
        partial(find, model.config) if find else None,
    )


def _count_sliding_layers(text: Any) -> int:
    """The layers of a language model that see a window of tokens."""
    if not getattr(text, "sliding_window", None):
        return 0
    kinds = getattr(text, "layer_types", None)
    return int(text.num_hidden_layers if kinds is None else kinds.count("sliding_attention"))


def _list_whole_layers(model: PreTrainedModel) -> set[int] | None:
    """The layers of the vision tower that see whole images; None: all of them."""
    found = getattr(getattr(model.config, "vision_config", None), "fullatt_block_indexes", None)
    return None if found is None else set(found)


def _count_group(config: Any) -> int:
    """Patches that the projector takes as one: after pixel shuffle, Qwen's merging, or Gemma 3's pooling."""
    if tokens := getattr(config, "mm_tokens_per_image", None):
        return int((config.vision_config.image_size // config.vision_config.patch_size) ** 2 // tokens)
    tower = getattr(config, "vision_config", None)
    side = getattr(tower, "spatial_merge_size", None) or getattr(config, "scale_factor", None)
    return int(side or round(1 / getattr(config, "downsample_ratio", 1))) ** 2


def _count_connector(config: Any, weights: int) -> tuple[int, int]:
    """Multiply-adds of a connector of ours with its projector on a tile, and the tile's patches.

    They are what torch counts of one without weights, and an upsampler's products besides. Adapters in them, which are
    among the `weights` of the model's own, count for every patch.
    """
    across, side = count_across(config.vision_config), vision.get_side(config.vision_config)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        projector = ConnectedProjector(config)
        features = torch.empty(1, across**2, config.vision_config.hidden_size)
        projector(features, torch.empty(1, COLOURS, side, side))
    layers = [module for module in projector.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    adapters = weights - sum(layer.weight.numel() for layer in layers)
    upsampler = projector.upsampler
    products = 0 if upsampler is None else upsampler.count_products(across)
    return counter.get_total_flops() // 2 + products + adapters * across**2, across**2


def count_family_flops(family: Family, tokenizer: Tokenizer, chat: ChatFormat, trained: Sequence[Component]) -> Cost:
    """The same of a family's model before it is built; no weights are read."""
    with torch.device("meta"):
        model = family.build(tokenizer, chat)
    return count_flops(model, family, trained)


def _find_patch(model: PreTrainedModel) -> int:
    """The side of a patch: that of the first convolution; without a tower, of the patches that the model takes."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            return int(module.kernel_size[-1])
    return int(model.config.patch_size)


def find_peak(device: torch.device, dtype: str) -> float | None:
    """The operations per second that a device could do in `dtype`, where a data sheet says so."""
    if device.type != "cuda" or dtype != "bfloat16":
        return None
    name = torch.cuda.get_device_name(device)
    return next((value for model, value in PEAK.items() if model in name), None)
