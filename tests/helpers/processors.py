"""Our image policies beside transformers' image processors: sizes, pixels, tokens.

Tests and benchmarks compare with it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.fuyu.image_processing_pil_fuyu import FuyuImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.crop import Crop
from vlmill.pipeline.images.internvl import InternVL
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.native import Native
from vlmill.pipeline.images.navit import NaViT
from vlmill.pipeline.images.patches import Patches
from vlmill.pipeline.images.pooled import Pooled
from vlmill.pipeline.images.resize import Resize
from vlmill.pipeline.images.tiles import Tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vlmill.pipeline.images import Layout, Policy

Size = tuple[int, int]
RAW = {"do_rescale": False, "do_normalize": False}  # pixels as they are before normalising
CLIP_GREY = (122, 116, 104)
PLACEHOLDER, LINE_END = 7, 8
"""Ids of Fuyu's |SPEAKER| and |NEWLINE| here."""


@dataclass(frozen=True)
class Case:
    """A policy, the processor that it equals, and what that processor's model consumes for an image of a size."""

    policy: Policy
    processor: Any
    tokens: Callable[[Size], int]

    def processed(self, image: Image.Image) -> Any:
        """What the processor makes of one image."""
        return self.processor(image, return_tensors="np")

    def ours(self, image: Image.Image, layout: Layout) -> list[np.ndarray]:
        """The policy's encoder inputs, by way of the stored parts."""
        return self.policy.tiles(self.policy.render(image, layout), layout)


def inputs(processed: Any) -> list[np.ndarray]:
    """A processor's encoder inputs for one image, each (height, width, 3), without what pads a batch."""
    if "image_grid_thw" in processed:
        return [_join_patches(processed["pixel_values"], processed["image_grid_thw"][0])]
    if "image_patches" in processed:
        return [_join_lines(processed["image_patches"][0][0].numpy(), processed["image_input_ids"][0][0])]
    tiles = np.asarray(processed["pixel_values"])
    tiles = tiles.reshape(-1, *tiles.shape[-3:]).transpose(0, 2, 3, 1)
    if "pixel_attention_mask" not in processed:
        return list(tiles)
    masks = processed["pixel_attention_mask"][0]
    return [tile[: mask[:, 0].sum(), : mask[0].sum()] for tile, mask in zip(tiles, masks, strict=True)]


def _join_patches(patches: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The image (height, width, 3) of patches that stand in groups of 2 x 2, each with its twin of the next frame."""
    frames, rows, columns = grid.tolist()
    side = round((patches.shape[1] / 6) ** 0.5)
    apart = patches.reshape(rows // 2, columns // 2, 2, 2, 3, 2, side, side)
    assert frames == 1
    assert np.array_equal(apart[..., 0, :, :], apart[..., 1, :, :])
    return apart[:, :, :, :, :, 0].transpose(0, 2, 5, 1, 3, 6, 4).reshape(rows * side, columns * side, 3)


def _join_lines(patches: np.ndarray, ids: torch.Tensor) -> np.ndarray:
    """The image (height, width, 3) of patches in lines, each of which a newline (LINE_END) ends."""
    rows, side = int((ids == LINE_END).sum()), round((patches.shape[1] / 3) ** 0.5)
    lines = ids.reshape(rows, -1)
    assert (lines[:, :-1] == PLACEHOLDER).all()
    assert (lines[:, -1] == LINE_END).all()
    apart = patches.reshape(rows, lines.shape[1] - 1, side, side, 3)
    return apart.transpose(0, 2, 1, 3, 4).reshape(rows * side, -1, 3)


def same(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> bool:
    """Whether all inputs are equal in every pixel."""
    return len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def cases() -> dict[str, Case]:
    """All pairs, by the name of the model whose processor it is."""
    llava = {"do_pad": True, "do_center_crop": False}
    idefics3, internvl = (
        Idefics3ImageProcessorPil(**RAW),
        GotOcr2ImageProcessorPil(size=_square(448), crop_to_patches=True, **RAW),
    )
    smolvlm = SmolVLMImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}, **RAW)
    return {
        "llava": Case(
            Letterbox(side=336, fill=CLIP_GREY),
            LlavaImageProcessorPil(size=_square(336), **llava, **RAW),
            lambda _: 576,
        ),
        "prismatic": Case(
            Letterbox(),
            LlavaImageProcessorPil(size=_square(384), image_mean=[0.5] * 3, **llava, **RAW),
            lambda _: 729,
        ),
        "siglip": Case(Resize(), SiglipImageProcessorPil(size=_square(384), **RAW), lambda _: 729),
        "clip": Case(
            Crop(),
            CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=_square(336), **RAW),
            lambda _: 576,
        ),
        "llava_next": _llava_next(AnyRes()),
        "llava_next 2x2": _llava_next(AnyRes(pinpoints=((672, 672),))),
        "llava_onevision": _onevision(),
        "idefics2": Case(NaViT(), Idefics2ImageProcessorPil(**RAW), lambda _: 64),
        "idefics2 split": Case(
            NaViT(split=True), Idefics2ImageProcessorPil(do_image_splitting=True, **RAW), lambda _: 320
        ),
        "idefics3": Case(
            Tiles(), idefics3, lambda size: 169 * max(1, idefics3.get_number_of_image_patches(*size[::-1])[0])
        ),
        "smolvlm": Case(
            Tiles(side=512, longest=2048, patch=16, shuffle=4),
            smolvlm,
            lambda size: 64 * max(1, smolvlm.get_number_of_image_patches(*size[::-1])[0]),
        ),
        "internvl": Case(InternVL(), internvl, lambda size: 256 * internvl.get_number_of_image_patches(*size[::-1])),
        "fuyu": _fuyu(Patches()),
        "fuyu, small patches": _fuyu(Patches(width=322, height=210, patch=14)),
        "gemma3": Case(Pooled(), Gemma3ImageProcessorPil(size=_square(896), **RAW), lambda _: 256),
        "paligemma": Case(
            Resize(side=224), SiglipImageProcessorPil(size=_square(224), image_seq_length=256, **RAW), lambda _: 256
        ),
        "qwen2_5_vl": _native(Native()),
        "qwen3_vl": _native(Native(patch=16, min_pixels=1 << 16, max_pixels=1 << 20)),
    }


def _native(policy: Native) -> Case:
    bounds = {"shortest_edge": policy.min_pixels, "longest_edge": policy.max_pixels}
    images = Qwen2VLImageProcessorPil(size=bounds, patch_size=policy.patch, merge_size=policy.merge, **RAW)
    return Case(policy, images, lambda size: images.get_number_of_image_patches(*size[::-1]) // 4)


def _fuyu(policy: Patches) -> Case:
    bounds, patch = {"height": policy.height, "width": policy.width}, {"height": policy.patch, "width": policy.patch}
    images = FuyuImageProcessorPil(size=bounds, patch_size=patch, **RAW)

    def cut(padded: torch.Tensor, unpadded: Any) -> Any:
        """What the processor makes of a padded image (channels, height, width) and its unpadded height and width."""
        down, across = (torch.tensor([[side]]) for side in unpadded)
        there = torch.ones(1, 1, 1)
        return images.preprocess_with_tokenizer_info(
            padded[None, None], there, down, across, PLACEHOLDER, LINE_END, variable_sized=True
        )

    def process(image: Image.Image, return_tensors: str) -> Any:
        made = images(image, return_tensors=return_tensors)
        unpadded = [int(made[f"image_unpadded_{side}"][0][0]) for side in ("heights", "widths")]
        return cut(torch.from_numpy(made["images"][0][0]), unpadded)

    def count(size: Size) -> int:
        """By the arithmetic of FuyuProcessor's `_get_num_multimodal_tokens`, without the newlines."""
        scale = min(policy.height / size[1], policy.width / size[0])
        unpadded = [min(int(side * scale), side) for side in size[::-1]]
        made = cut(torch.zeros(1, policy.height, policy.width, dtype=torch.uint8), unpadded)
        return int((made["image_input_ids"][0][0] == PLACEHOLDER).sum())

    return Case(policy, process, count)


def _llava_next(policy: AnyRes) -> Case:
    pinpoints = [list(pinpoint) for pinpoint in policy.pinpoints]
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 336}, crop_size=_square(336), image_grid_pinpoints=pinpoints, **RAW
    )
    counting = object.__new__(LlavaNextProcessor)  # its constructor wants a tokenizer
    counting.image_processor, counting.patch_size, counting.num_additional_image_tokens = images, 14, 0
    return Case(policy, images, lambda size: counting._get_number_of_features(*size[::-1], 336, 336))


def _onevision() -> Case:
    images = LlavaOnevisionImageProcessorPil(**RAW)
    counting = object.__new__(LlavaOnevisionProcessor)
    counting.image_processor, counting.num_image_tokens, counting.vision_aspect_ratio = (
        images,
        729,
        "anyres_max_9",
    )
    policy = AnyRes(side=384, pinpoints=images.image_grid_pinpoints, cap=9, many="letterbox", fill=CLIP_GREY)
    return Case(policy, images, lambda size: counting._get_number_of_features(*size[::-1], 384, 384))


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def sizes(number: int, seed: int = 0) -> Iterator[Size]:
    """Tiny, common, tall, wide and nearly square sizes in turn, and now and then a huge one."""
    generator = random.Random(seed)
    for index in range(number):
        shapes = (
            (generator.randint(1, 40), generator.randint(1, 40)),
            (generator.randint(40, 1500), generator.randint(40, 1500)),
            (generator.randint(1, 80), generator.randint(400, 3000)),
            (generator.randint(400, 3000), generator.randint(1, 80)),
            (side := generator.randint(100, 1200), side + generator.randint(-1, 1)),
            (generator.randint(1500, 4500), generator.randint(1500, 4500)),
        )
        yield shapes[5 if index % 25 == 24 else index % 5]


def picture(size: Size, seed: int) -> Image.Image:
    """A picture with both smooth and sharp places, so that every rounding of a resize shows."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (max(1, size[1] // 7), max(1, size[0] // 7), 3), np.uint8)
    smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray(np.asarray(smooth) ^ generator.integers(0, 32, (size[1], size[0], 1), np.uint8))
