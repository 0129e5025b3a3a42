"""What an export writes to prepare images: transformers' image processor of the same pixels as the image policy.

IMAGE_PROCESSORS is the one table. A pair that it does not have is refused before training, and never exported by guess.
To add a policy or a model class, add a line; tests/train/test_families.py compares the pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.fuyu.image_processing_pil_fuyu import FuyuImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import Policy
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
from vlmill.train.families import vision

MakeProcessor = Callable[[Any, dict[str, Any]], Any]
"""From the policy, and what processors get (mean, deviation; size of a tile if all have one), to an image processor."""


def to_pinpoints(policy: AnyRes) -> list[list[int]]:
    """As transformers has them: (height, width)."""
    return [list(pinpoint) for pinpoint in policy.pinpoints]


def _crop_middle(policy: Crop, settings: dict[str, Any]) -> CLIPImageProcessorPil:
    shortest = {"size": {"shortest_edge": policy.side}, "crop_size": settings["size"]}
    return CLIPImageProcessorPil(do_center_crop=True, **settings | shortest)


def _resize_whole(policy: Resize, settings: dict[str, Any]) -> IdeficsImageProcessorPil:
    others = {name: value for name, value in settings.items() if name != "size"}
    return IdeficsImageProcessorPil(image_size=policy.side, **others)


def _keep_shape(policy: NaViT, settings: dict[str, Any]) -> Idefics2ImageProcessorPil:
    bounds = {"size": {"shortest_edge": policy.shortest, "longest_edge": policy.longest}}
    return Idefics2ImageProcessorPil(do_image_splitting=policy.split, **settings | bounds)


def _tile_idefics3(policy: Tiles, settings: dict[str, Any]) -> Idefics3ImageProcessorPil:
    longest = {"size": {"longest_edge": policy.longest}, "max_image_size": {"longest_edge": policy.side}}
    return Idefics3ImageProcessorPil(**settings | longest)


def _keep_resolution(policy: Native, settings: dict[str, Any]) -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": policy.min_pixels, "longest_edge": policy.max_pixels},
        patch_size=policy.patch,
        merge_size=policy.merge,
        **settings,
    )


def _keep_pixels(policy: Patches, settings: dict[str, Any]) -> FuyuImageProcessorPil:
    return FuyuImageProcessorPil(
        size={"height": policy.height, "width": policy.width},
        patch_size={"height": policy.patch, "width": policy.patch},
        **settings,
    )


def _tile_internvl(policy: InternVL, settings: dict[str, Any]) -> GotOcr2ImageProcessorPil:
    return GotOcr2ImageProcessorPil(
        crop_to_patches=True, min_patches=policy.fewest, max_patches=policy.most, **settings
    )


IMAGE_PROCESSORS: Mapping[tuple[str, type[Policy]], MakeProcessor] = {
    ("llava", Letterbox): lambda _, settings: LlavaImageProcessorPil(
        do_pad=True, crop_size=settings["size"], **settings
    ),
    ("llava", Resize): lambda _, settings: SiglipImageProcessorPil(**settings),
    ("llava", Crop): _crop_middle,
    ("llava_next", AnyRes): lambda policy, settings: LlavaNextImageProcessorPil(
        image_grid_pinpoints=to_pinpoints(policy), crop_size=settings["size"], **settings
    ),
    ("llava_onevision", AnyRes): lambda policy, settings: LlavaOnevisionImageProcessorPil(
        image_grid_pinpoints=to_pinpoints(policy), **settings
    ),
    ("idefics", Resize): _resize_whole,
    ("idefics2", NaViT): _keep_shape,
    ("idefics3", Tiles): _tile_idefics3,
    ("internvl", InternVL): _tile_internvl,
    ("fuyu", Patches): _keep_pixels,
    ("gemma3", Pooled): lambda _, settings: Gemma3ImageProcessorPil(**settings),
    ("paligemma", Resize): lambda _, settings: SiglipImageProcessorPil(**settings),
    ("qwen2_5_vl", Native): _keep_resolution,
    ("qwen3_vl", Native): _keep_resolution,
}
"""By the model type of transformers and the class of the policy, which a class derived from it is not."""


def find_image_processor(model_type: str, policy: Policy) -> MakeProcessor:
    """The entry of IMAGE_PROCESSORS for a model type and a policy.

    Raises:
        RecipeError: there is none, so an export would not see what training saw.
    """
    made = IMAGE_PROCESSORS.get((model_type, type(policy)))
    if made is None:
        known = sorted(kind.kind for name, kind in IMAGE_PROCESSORS if name == model_type)
        raise RecipeError(
            f"no image processor of transformers is known that gives {model_type} the pixels of the image policy "
            f"{policy.kind}; it has one for {', '.join(known) or 'no policy'} (IMAGE_PROCESSORS in "
            "train/families/processors.py)"
        )
    return made


def make_image_processor(model_type: str, policy: Policy, tower: Any) -> Any:
    """The image processor of transformers that gives a model the pixels of a policy.

    They are normalised as its vision tower wants them.

    Raises:
        RecipeError: see `find_image_processor`.
    """
    return find_image_processor(model_type, policy)(policy, vision.get_image_settings(tower))


def name_tokens(tokenizer: PreTrainedTokenizerFast, names: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """The same tokenizer, which has attributes of these names for tokens; its files say so as well."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        padding_side=tokenizer.padding_side,
        **tokenizer.special_tokens_map,
        extra_special_tokens=dict(names),
    )


@dataclass(frozen=True)
class VideoProcessor:
    """A processor that transformers only makes beside a video processor, and so only where torchvision is installed.

    Its files are written without either. `AutoProcessor` needs torchvision to read them; `AutoImageProcessor` and
    `AutoTokenizer` read their parts without.
    """

    kind: str  # the processor's class without its last word
    images: Any  # an image processor
    tokenizer: PreTrainedTokenizerFast
    template: str  # of chats
    says: Mapping[str, Any]  # the processor's own settings
    videos: str | None = None  # the video processor's class without its last words, if its name is another

    def save_pretrained(self, save_directory: Path) -> object:
        """See `Processor`."""
        self.tokenizer._set_processor_class(f"{self.kind}Processor")  # noqa: SLF001 - so does ProcessorMixin
        self.tokenizer.save_pretrained(save_directory)
        images = self.images.to_dict()
        names = ("size", "image_mean", "image_std", "patch_size", "merge_size", "temporal_patch_size")
        same = {name: images[name] for name in names if name in images}
        config = {
            "processor_class": f"{self.kind}Processor",
            "image_processor": images,
            "video_processor": {"video_processor_type": f"{self.videos or self.kind}VideoProcessor", **same},
            **self.says,
        }
        (save_directory / "chat_template.jinja").write_text(self.template)
        path = save_directory / "processor_config.json"
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        return path
