"""Processors of LLaVA and LLaVA-NeXT that write as many image tokens as a connector makes of a tile.

Transformers' count patches. This file travels with an export, so it imports nothing of ours.
"""

# mypy: disable-error-code="misc, no-untyped-call"
# transformers' classes have no types
from __future__ import annotations

from typing import Any

from transformers import LlavaNextProcessor, LlavaProcessor
from transformers.processing_utils import MultiModalData


class ConnectedLlavaProcessor(LlavaProcessor):
    """LLaVA's, with `tile_tokens` image tokens for each image."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int | None = None,
        vision_feature_select_strategy: str | None = None,
        chat_template: Any = None,
        image_token: str = "<image>",  # noqa: S107 - no password
        num_additional_image_tokens: int = 0,
        tile_tokens: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_processor,
            tokenizer,
            patch_size,
            vision_feature_select_strategy,
            chat_template,
            image_token,
            num_additional_image_tokens,
            **kwargs,
        )
        self.tile_tokens = tile_tokens

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
        """The tokens of an image."""
        del image_inputs, image_idx
        return str(self.image_token * self.tile_tokens)

    def _get_num_multimodal_tokens(self, image_sizes: Any = None, **_: Any) -> Any:
        number = len(image_sizes or ())
        return MultiModalData(num_image_tokens=[self.tile_tokens] * number, num_image_patches=[1] * number)


class ConnectedLlavaNextProcessor(LlavaNextProcessor):
    """LLaVA-NeXT's, with `tile_tokens` image tokens, a square, for each tile before padding is cut."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int | None = None,
        vision_feature_select_strategy: str | None = None,
        chat_template: Any = None,
        image_token: str = "<image>",  # noqa: S107 - no password
        num_additional_image_tokens: int = 0,
        tile_tokens: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_processor,
            tokenizer,
            patch_size,
            vision_feature_select_strategy,
            chat_template,
            image_token,
            num_additional_image_tokens,
            **kwargs,
        )
        self.tile_tokens = tile_tokens

    def _get_unpadded_features(
        self, height: int, width: int, patches_height: int, patches_width: int, scale_height: int, scale_width: int
    ) -> Any:
        del patches_height, patches_width
        across = round(self.tile_tokens**0.5)
        parent: Any = super()
        return parent._get_unpadded_features(  # noqa: SLF001 - as the class calls it
            height, width, across, across, scale_height, scale_width
        )

    def _get_number_of_features(self, orig_height: int, orig_width: int, height: int, width: int) -> int:
        parent: Any = super()
        patches = (height // self.patch_size) * (width // self.patch_size)
        counted = parent._get_number_of_features(orig_height, orig_width, height, width)  # noqa: SLF001 - as above
        return int(counted - patches + self.tile_tokens)
