"""Positions of tokens on three axes (time, rows, columns), for language models whose rotary embedding turns with them.

What trains places tokens by `place_tokens`, and so do the classes here. Transformers' own compute M-RoPE, so an export
of a model under another scheme brings this file along: `from_pretrained(folder, trust_remote_code=True)` reads its copy
there. It therefore imports nothing of ours.

`flat`: a token's place in its document, on all axes. `mrope`: Wang et al. 2024 (Qwen2-VL), section 2.1. `rope_tie` and
`rope_tie_v2`: Su 2024, https://kexue.fm/archives/10040 and 10352.
"""

# mypy: disable-error-code="misc, no-untyped-call"
# transformers' classes have no types
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

Grid = tuple[int, int]
"""Rows and columns of an image's visual tokens."""


def place_image(scheme: str, grid: Grid) -> tuple[torch.Tensor, int]:
    """Positions of an image's tokens, and how many positions the image takes of the text's; pure.

    Args:
        scheme: see SCHEMES.
        grid: of the image.

    Returns:
        (3, rows * columns) in reading order, counted from the position that a text token would have in the place of
        the first; and the number.
    """
    return SCHEMES[scheme](*grid)


def _place_flat(rows: int, columns: int) -> tuple[torch.Tensor, int]:
    return torch.arange(rows * columns).expand(3, -1), rows * columns


def _place_mrope(rows: int, columns: int) -> tuple[torch.Tensor, int]:
    """The text goes on behind the largest position: at as many as the longer side has."""
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(down), down, across]).flatten(1), max(rows, columns)


def _place_tie(rows: int, columns: int) -> tuple[torch.Tensor, int]:
    """The image is stretched over the room of its tokens: patch i of n stands at i * (room + 1) / (n + 1) behind L.

    L is the position of the last text token, so the next one stands at L + room + 1.
    """
    room = rows * columns
    return _lay_out([(1 + torch.arange(n)) * ((room + 1) / (n + 1)) for n in (rows, columns)], room)


def _place_tie_v2(rows: int, columns: int) -> tuple[torch.Tensor, int]:
    """Patches are one apart, in the middle of the room: patch i of n stands at i + (room - n) / 2 behind L."""
    room = rows * columns
    return _lay_out([(1 + torch.arange(n)) + (room - n) / 2 for n in (rows, columns)], room)


def _lay_out(axes: list[torch.Tensor], room: int) -> tuple[torch.Tensor, int]:
    """The grid of positions behind L on two axes; time, which no frequency turns with, stands in the middle."""
    down, across = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([torch.full_like(down, (room + 1) / 2), down, across]).flatten(1) - 1, room


SCHEMES: dict[str, Callable[[int, int], tuple[torch.Tensor, int]]] = {
    "flat": _place_flat,
    "mrope": _place_mrope,
    "rope_tie": _place_tie,
    "rope_tie_v2": _place_tie_v2,
}
TIED = ("rope_tie", "rope_tie_v2")
"""Schemes of two axes, with which all frequencies turn; in the others the class's own sections say which turn with
what."""


def place_tokens(scheme: str, shown: torch.Tensor, documents: torch.Tensor, grids: Sequence[Grid]) -> torch.Tensor:
    """Positions (3, sequences, length) of the tokens of packed documents: from 0 in each, text equal on all axes.

    Args:
        scheme: see SCHEMES.
        shown: (sequences, length) bool, where the tokens of images stand; those of one stand together.
        documents: (sequences, length), the number of each token's document in its sequence, ascending.
        grids: of all images, in reading order.

    Returns:
        int64; float32 under a scheme of TIED.

    Raises:
        ValueError: there are other images than tokens of images.
    """
    length = documents.shape[1]
    places = torch.arange(length, device=documents.device)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents.diff(dim=1) != 0
    first = torch.where(begins, places, 0).cummax(1).values
    positions = (places - first).expand(3, -1, -1).to(torch.float32 if scheme in TIED else torch.int64).clone()
    coming = iter(grids)
    for sequence, numbers in enumerate(documents.tolist()):
        tokens, at = shown[sequence].nonzero().flatten().tolist(), 0
        while at < len(tokens):
            rows, columns = next(coming, (0, 0))
            start, end = tokens[at], tokens[at] + rows * columns
            at += rows * columns
            if start == end or at > len(tokens) or tokens[at - 1] != end - 1:
                raise ValueError(f"{len(tokens)} tokens of images, and images of {list(grids)}, do not agree")
            placed, taken = place_image(scheme, (rows, columns))
            positions[:, sequence, start:end] = positions[:, sequence, start, None] + placed.to(positions)
            if taken != rows * columns:
                stop = length - numbers[::-1].index(numbers[start])
                positions[:, sequence, end:stop] -= rows * columns - taken
    if next(coming, None) is not None:
        raise ValueError(f"there are more images than tokens of images: {list(grids)}")
    return positions


def use_scheme(model: Any, scheme: str) -> Any:
    """Let a model of transformers' class place tokens by a scheme, in place, as one of the classes below; returns it.

    Its weights, and what it makes of text alone, stay as they are.
    """
    config_class, model_class = CLASSES[type(model).__name__]
    model.config.__class__, model.config.positions = config_class, scheme
    model.__class__ = model_class
    vars(model).pop("_weight_conversions", None)  # to names of old checkpoints, which only transformers' classes read
    _change_parts(model)
    return model


def _change_parts(model: Any) -> None:
    """What a whole model of one of the classes below is made of, in place."""
    model.model.__class__ = PARTS[type(model.model)]
    rotary = model.model.language_model.rotary_emb
    if model.config.positions in TIED:
        rotary.__class__ = PARTS[type(rotary)]


class _TwoAxes:
    """A rotary embedding that turns its frequencies with rows and columns in turns, highest first, and not with time.

    So a token at the same position on both turns as in one dimension.
    """

    def recomposition_frequencies(self, freq: torch.Tensor) -> torch.Tensor:
        """(3, sequences, length, frequencies) -> (sequences, length, 2 * frequencies)."""
        mixed = freq[1].clone()
        mixed[..., 1::2] = freq[2][..., 1::2]
        return torch.cat((mixed, mixed), dim=-1)


class TwoAxesQwen2_5_VLRotaryEmbedding(_TwoAxes, Qwen2_5_VLRotaryEmbedding):  # noqa: N801 - as transformers has it
    """Qwen2.5-VL's."""


class TwoAxesQwen3VLTextRotaryEmbedding(_TwoAxes, Qwen3VLTextRotaryEmbedding):
    """Qwen3-VL's."""


class _Placing:
    """A model that places tokens by the scheme of its configuration, where its forward is not given positions."""

    config: Any

    def get_rope_index(
        self,
        input_ids: torch.Tensor,
        mm_token_type_ids: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions (3, sequences, length), and what the next tokens' differ by from their places (sequences, 1)."""
        if video_grid_thw is not None:
            raise ValueError(f"positions {self.config.positions!r} are of texts and images, not of videos")
        merge = self.config.vision_config.spatial_merge_size
        frames = [] if image_grid_thw is None else image_grid_thw.tolist()
        grids = [(rows // merge, columns // merge) for _, rows, columns in frames]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        shown = (mm_token_type_ids == 1) & mask.bool()
        positions = place_tokens(self.config.positions, shown, mask.long(), grids)
        return positions, torch.zeros(len(input_ids), 1, dtype=torch.long, device=input_ids.device)

    def compute_3d_position_ids(
        self, input_ids: torch.Tensor | None = None, mm_token_type_ids: torch.Tensor | None = None, **others: Any
    ) -> Any:
        """As the class does it; which tokens are an image's is seen from them where it is not said."""
        if input_ids is not None and mm_token_type_ids is None:
            mm_token_type_ids = (input_ids == self.config.image_token_id).int()
        parent: Any = super()
        return parent.compute_3d_position_ids(input_ids=input_ids, mm_token_type_ids=mm_token_type_ids, **others)


class PositionedQwen2_5_VLConfig(Qwen2_5_VLConfig):  # noqa: N801 - as transformers has it
    """Qwen2.5-VL's, with a scheme of positions."""

    model_type = "positioned_qwen2_5_vl"

    positions: str = "flat"


class PositionedQwen2_5_VLModel(_Placing, Qwen2_5_VLModel):  # noqa: N801 - as transformers has it
    """Qwen2.5-VL without its head."""


class PositionedQwen2_5_VL(Qwen2_5_VLForConditionalGeneration):  # noqa: N801 - as transformers has it
    """Qwen2.5-VL whose tokens are placed by `positions` of its configuration."""

    config_class = PositionedQwen2_5_VLConfig

    def __init__(self, config: PositionedQwen2_5_VLConfig) -> None:
        super().__init__(config)
        _change_parts(self)


class PositionedQwen3VLConfig(Qwen3VLConfig):
    """Qwen3-VL's, with a scheme of positions."""

    model_type = "positioned_qwen3_vl"

    positions: str = "flat"


class PositionedQwen3VLModel(_Placing, Qwen3VLModel):
    """Qwen3-VL without its head."""


class PositionedQwen3VL(Qwen3VLForConditionalGeneration):
    """Qwen3-VL whose tokens are placed by `positions` of its configuration."""

    config_class = PositionedQwen3VLConfig

    def __init__(self, config: PositionedQwen3VLConfig) -> None:
        super().__init__(config)
        _change_parts(self)


CLASSES: dict[str, tuple[type, type]] = {
    "Qwen2_5_VLForConditionalGeneration": (PositionedQwen2_5_VLConfig, PositionedQwen2_5_VL),
    "PositionedQwen2_5_VL": (PositionedQwen2_5_VLConfig, PositionedQwen2_5_VL),
    "Qwen3VLForConditionalGeneration": (PositionedQwen3VLConfig, PositionedQwen3VL),
    "PositionedQwen3VL": (PositionedQwen3VLConfig, PositionedQwen3VL),
}
PARTS: dict[type, type] = {
    Qwen2_5_VLModel: PositionedQwen2_5_VLModel,
    Qwen3VLModel: PositionedQwen3VLModel,
    Qwen2_5_VLRotaryEmbedding: TwoAxesQwen2_5_VLRotaryEmbedding,
    Qwen3VLTextRotaryEmbedding: TwoAxesQwen3VLTextRotaryEmbedding,
}
