"""What prepares texts and pictures for Fuyu without vlmill: lines of raw patches in the places of images.

`FuyuProcessor` of transformers 5.23 cannot cut the pictures of its own PIL image processor (it asks a tensor for what
arrays do), takes one image at the beginning of a text, and cuts off the first token of each image, which its tokenizer
puts there. So this file travels with an export: `AutoProcessor.from_pretrained(folder, trust_remote_code=True)` reads
its copy there. It therefore imports nothing of ours.
"""

# mypy: disable-error-code="misc, no-untyped-call"
# transformers' classes have no types
from __future__ import annotations

from typing import Any

import torch
from transformers import ProcessorMixin
from transformers.image_utils import make_flat_list_of_images


class FuyuLinesProcessor(ProcessorMixin):
    """Writes `|SPEAKER|` of a text as a line of them for each row of patches, with `|NEWLINE|` behind each."""

    image_token = "|SPEAKER|"  # noqa: S105 - no password
    newline_token = "|NEWLINE|"  # noqa: S105 - no password

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None = None) -> None:
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def _process_images(self, images: Any, **settings: Any) -> tuple[dict[str, Any], list[str]]:
        """Patches of all pictures (patches, patch * patch * 3), and what each says in a text."""
        found = [self._cut_patches(picture, settings) for picture in make_flat_list_of_images(images)]
        lines = ["".join(f"{self.image_token * columns}{self.newline_token}" * rows) for _, rows, columns in found]
        return {"pixel_values": torch.cat([patches for patches, _, _ in found])}, lines

    def _cut_patches(self, picture: Any, settings: dict[str, Any]) -> tuple[torch.Tensor, int, int]:
        """One picture's patches in reading order, each (row, column, channel) end to end; rows and columns of them."""
        made = self.image_processor(picture, **settings | {"return_tensors": "pt"})
        pixels = made["images"].reshape(3, *made["images"].shape[-2:])
        size = self.image_processor.patch_size
        patch = int(size["height"] if isinstance(size, dict) else size.height)
        shown = (int(made["image_unpadded_heights"].reshape(-1)[0]), int(made["image_unpadded_widths"].reshape(-1)[0]))
        rows, columns = (-(-side // patch) for side in shown)
        pixels = pixels[:, : rows * patch, : columns * patch]
        cut = pixels.reshape(3, rows, patch, columns, patch).permute(1, 3, 2, 4, 0)
        return cut.reshape(rows * columns, -1).float(), rows, columns
