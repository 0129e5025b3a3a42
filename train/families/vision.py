"""Vision towers: from settings, local folders or the Hub; how each kind is fed and read; pixels as they take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    MODEL_MAPPING,
    CLIPVisionConfig,
    Dinov2Config,
    InternVLVisionConfig,
    SiglipVisionConfig,
)
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig

from vlmill.pipeline.core.errors import RecipeError
from vlmill.train.batch import Batch
from vlmill.train.device import move_tensor
from vlmill.train.families import FAMILIES
from vlmill.train.families.exported.fused import FusedVisionConfig
from vlmill.train.families.pretrained import read_config
from vlmill.train.settings import FusedTower, ModelSettings, Pretrained, RawPatches, VisionTower

WHOLE_MODELS = {r"^(model\.)?(visual|vision_tower)\.": ""}
"""How names of weights begin in checkpoints of whole models (Qwen-VL, LLaVA), from which the tower is taken alone."""

MERGERS = ("merger.", "deepstack_merger_list.")
"""Projectors that stand in a tower."""

POSITIONS = "position_embedding"
"""Begins the last part of the name of position embeddings in every kind of tower."""


@dataclass(frozen=True, slots=True)
class TowerReading:
    """How a kind of vision tower is fed and read."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layer: int  # of hidden states that the projector gets
    others: int  # tokens besides the patches (CLS), left out

    @property
    def strategy(self) -> str:
        """What transformers calls leaving out the first token, or none."""
        return "default" if self.others else "full"

    @property
    def fill(self) -> tuple[int, ...]:
        """The mean as a colour, which a letterbox is filled with."""
        return tuple(int(255 * mean) for mean in self.mean)


_HALF = (tuple(IMAGENET_STANDARD_MEAN), tuple(IMAGENET_STANDARD_STD))
RAW = TowerReading(*_HALF, 0, 0)
"""Pixels without a tower (Fuyu)."""

_CLIP = (tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD))
_IMAGENET = (tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD))
READINGS = {
    "siglip_vision_model": TowerReading(*_HALF, -1, 0),
    "clip_vision_model": TowerReading(*_CLIP, -2, 1),
    "dinov2": TowerReading(*_IMAGENET, -2, 1),
    "internvl_vision": TowerReading(*_IMAGENET, -1, 1),
    "fused_vision": TowerReading(*_HALF, -1, 0),
    "idefics_vision": TowerReading(*_CLIP, -1, 0),
    "idefics2_vision": TowerReading(*_HALF, -1, 0),
    "idefics3_vision": TowerReading(*_HALF, -1, 0),
    "qwen2_5_vl_vision": TowerReading(*_CLIP, -1, 0),
    "qwen3_vl_vision": TowerReading(*_HALF, -1, 0),
}
"""By transformers' model type. As the papers read them: SigLIP's and InternViT's last layer, CLIP's last but one
(LLaVA) and DINOv2's (Prismatic, which reads both towers of a fused one there), without their CLS token. The last five
stand in one model class each, which reads all of them."""

CONFIGS = {
    "siglip": SiglipVisionConfig,
    "clip": CLIPVisionConfig,
    "dinov2": Dinov2Config,
    "internvit": InternVLVisionConfig,
}


def _configure_qwen2_5(source: VisionTower) -> Qwen2_5_VLVisionConfig:
    """Four layers see the whole image, the others windows of 8 x 8 patches, as published (every eighth of 32)."""
    every = max(1, source.layers // 4)
    return Qwen2_5_VLVisionConfig(
        hidden_size=source.hidden_size,
        intermediate_size=8 * source.hidden_size // 3,
        depth=source.layers,
        num_heads=source.heads,
        patch_size=source.patch_size,
        window_size=8 * source.patch_size,
        fullatt_block_indexes=list(range(every - 1, source.layers, every)),
    )


def _configure_qwen3(source: VisionTower) -> Qwen3VLVisionConfig:
    """Features of three layers, a quarter of all apart, reach the first layers of the language model, as published.

    Qwen3-VL-2B has layers 5, 11 and 17 of 24.
    """
    assert source.image_size is not None  # see VisionTower
    return Qwen3VLVisionConfig(
        hidden_size=source.hidden_size,
        intermediate_size=4 * source.hidden_size,
        depth=source.layers,
        num_heads=source.heads,
        patch_size=source.patch_size,
        num_position_embeddings=(source.image_size // source.patch_size) ** 2,
        deepstack_visual_indexes=sorted({max(0, source.layers * part // 4 - 1) for part in (1, 2, 3)}),
    )


NATIVE = {"qwen2_5_vl": _configure_qwen2_5, "qwen3_vl": _configure_qwen3}
"""Towers that take images of any size, each in the family of its name alone."""


def get_reading(config: Any) -> TowerReading:
    """How the tower of a configuration is fed and read."""
    return READINGS[config.model_type]


def get_side(config: Any) -> int:
    """Pixels of a side of the tower's input."""
    return _get_length(config.image_size)


def get_patch(config: Any) -> int:
    """Pixels of a side of a patch."""
    return _get_length(config.patch_size)


def _get_length(length: Any) -> int:
    """Of (height, width), as InternViT has them."""
    return int(length[0] if isinstance(length, (list, tuple)) else length)


def configure_vision(settings: ModelSettings, wanted: int | None = None) -> Any:
    """The configuration of a model's vision tower.

    Args:
        settings: of the model.
        wanted: side of the input; a pretrained DINOv2, which interpolates its positions, takes any.

    Raises:
        RecipeError: there is no tower that READINGS knows, or two in a family that has one, or two that do not fit.
    """
    source = settings.checkpoint or settings.vision
    if not isinstance(source, FusedTower):
        assert source is not None
        return _configure_tower(source, wanted)
    towers = [_configure_tower(each, wanted) for each in (source.first, source.second)]
    first, second = ((get_side(tower), get_side(tower) // get_patch(tower)) for tower in towers)
    if settings.family != "llava" or first != second:
        raise RecipeError(
            "model.vision: fused towers are for family llava, and must have one side and as many patches; here are "
            f"{first[0]} px of {first[1]} patches and {second[0]} px of {second[1]} in family {settings.family}"
        )
    hows, given = [get_reading(tower) for tower in towers], READINGS["fused_vision"]
    return FusedVisionConfig(
        first=towers[0].to_dict(),
        second=towers[1].to_dict(),
        mean=list(given.mean),
        std=list(given.std),
        means=[list(how.mean) for how in hows],
        stds=[list(how.std) for how in hows],
        layers=[-2, -2],
        others=[how.others for how in hows],
        image_size=first[0],
        patch_size=get_patch(towers[0]),
    )


def _configure_tower(source: VisionTower | Pretrained | RawPatches, wanted: int | None) -> Any:
    if isinstance(source, RawPatches):
        raise RecipeError(
            "model.vision: kind patches is no vision tower, and stands in family fuyu alone; towers are "
            f"{', '.join((*CONFIGS, *NATIVE))}, pretrained and fused"
        )
    if isinstance(source, VisionTower) and source.kind in NATIVE:
        config = NATIVE[source.kind](source)
    elif isinstance(source, VisionTower):
        config = CONFIGS[source.kind](
            hidden_size=source.hidden_size,
            intermediate_size=4 * source.hidden_size,
            num_hidden_layers=source.layers,
            num_attention_heads=source.heads,
            image_size=source.image_size,
            patch_size=source.patch_size,
        )
    else:
        config = _read_tower_config(source)
        if config.model_type == "dinov2" and wanted:
            config.image_size = wanted
    if config.model_type == "siglip_vision_model":
        config.vision_use_head = False  # its pooling is never read
    return config


def _read_tower_config(source: Pretrained) -> Any:
    """The configuration of a tower in a folder or on the Hub, or of the one in a model there."""
    config = read_config(source)
    config = getattr(config, "vision_config", config)
    if config.model_type not in READINGS:
        raise RecipeError(
            f"model: {source.path} holds a {config.model_type}; a vision tower must be one of {', '.join(READINGS)}"
        )
    return config


def check_form(config: Any, wanted: str, settings: ModelSettings) -> None:
    """Refuse a tower of another model type than the one that a family's class is made for.

    Raises:
        RecipeError: names both, and the families whose tower may be any.
    """
    if config.model_type != wanted:
        raise RecipeError(
            f"model.vision: family {settings.family} has a tower of the form of {wanted}, not {config.model_type}; "
            f"families whose tower may be any: {', '.join(name for name in FAMILIES if name.startswith('llava'))}"
        )


def convert_config(settings: ModelSettings, like: str, config_class: Any, **changes: Any) -> Any:
    """The configuration of a model class's own form of a tower, from that of the tower whose weights it can take.

    Args:
        settings: of the model.
        like: the model type of that tower.
        config_class: of the class's own.
        changes: what differs.

    Raises:
        RecipeError: the settings name a tower of another form.
    """
    config = configure_vision(settings)
    if config.model_type == config_class.model_type:
        return config
    check_form(config, like, settings)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")
    kept = {name: getattr(config, name) for name in (*names, "layer_norm_eps", "image_size", "patch_size")}
    kept |= changes
    if config_class.model_type == "idefics_vision":
        kept["embed_dim"] = kept.pop("hidden_size")
    return config_class(**kept)


def load_vision(tower: Any, source: VisionTower | Pretrained | FusedTower | RawPatches | None) -> None:
    """Put pretrained weights, if any, into a tower of the same form.

    Position embeddings are interpolated to its grid (bicubic). Qwen's towers hold their projector, whose weights come
    along where the language model is as wide as theirs was.

    Raises:
        RecipeError: weights of the tower are missing there.
    """
    if isinstance(source, FusedTower):
        load_vision(tower.first, source.first)
        load_vision(tower.second, source.second)
    if not isinstance(source, Pretrained):
        return
    config = _read_tower_config(source)
    if config.model_type == "siglip_vision_model":
        config.vision_use_head = False
    found, report = MODEL_MAPPING[type(config)].from_pretrained(
        source.path,
        revision=source.revision,
        config=config,
        dtype=torch.float32,
        key_mapping=WHOLE_MODELS,
        output_loading_info=True,
    )
    if report["missing_keys"]:
        raise RecipeError(
            f"model.vision: {source.path} lacks weights of its vision tower ({config.model_type}): "
            f"{', '.join(sorted(report['missing_keys'])[:3])}"
        )
    weights = found.state_dict()
    other_width = getattr(config, "out_hidden_size", None) != getattr(tower.config, "out_hidden_size", None)
    for name, ours in tower.state_dict().items():
        if POSITIONS in name and weights[name].shape != ours.shape:
            weights[name] = _interpolate_positions(weights[name], ours.shape, get_reading(config).others)
        elif other_width and name.startswith(MERGERS):
            weights[name] = ours
    tower.load_state_dict(weights)


def _interpolate_positions(positions: torch.Tensor, shape: torch.Size, others: int) -> torch.Tensor:
    """Position embeddings (..., others + a square of patches, width) for the square that `shape` needs."""
    rows = positions.reshape(-1, shape[-1])
    first, grid = rows[:others], rows[others:]
    before, after = round(len(grid) ** 0.5), round((shape[-2] - others) ** 0.5)
    square = grid.T.reshape(1, -1, before, before)
    resized = functional.interpolate(square, (after, after), mode="bicubic", antialias=True)
    return torch.cat([first, resized.reshape(shape[-1], -1).T]).reshape(shape)


def check_encoder(config: Any, policy: Any, *, fill: bool = False) -> None:
    """Refuse a policy whose tiles are not what the vision tower takes.

    Raises:
        RecipeError: names what differs: the side, the patch, or if asked for the fill.
    """
    if config.model_type.removesuffix("_vision") in NATIVE:
        raise RecipeError(
            f"the image policy ({policy.kind}) makes squares, and the model's vision tower ({config.model_type}) is "
            f"for images of any size; it stands in family {config.model_type.removesuffix('_vision')}"
        )
    wants = {"side": get_side(config), "patch": get_patch(config)} | (
        {"fill": get_reading(config).fill} if fill else {}
    )
    for name, wanted in wants.items():
        has = getattr(policy, name)
        if has != wanted:
            raise RecipeError(
                f"the image policy ({policy.kind}) has {name} {has}, and the model's vision tower "
                f"({config.model_type}) takes {wanted}; make them equal in the recipe"
            )


def normalise_pixels(batch: Batch, config: Any) -> list[torch.Tensor]:
    """Each tile of each image, normalised: (3, height, width) float32 on the batch's device, in reading order.

    The arithmetic of `rescale` and `normalize` in transformers' image_transforms, in their order.
    """
    return scale_pixels(batch, get_reading(config))


def scale_pixels(batch: Batch, how: TowerReading) -> list[torch.Tensor]:
    """The same as a reading says it."""
    tiles = [tile for image in batch.tiles for tile in image]
    if len({tile.shape for tile in tiles}) == 1:
        return list(_scale_tiles(np.stack(tiles), how, batch.ids.device))
    return [_scale_tiles(np.stack([tile]), how, batch.ids.device)[0] for tile in tiles]


def _scale_tiles(tiles: np.ndarray, how: TowerReading, device: torch.device) -> torch.Tensor:
    raw = move_tensor(torch.from_numpy(tiles), device).permute(0, 3, 1, 2).float() * (1 / 255)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (how.mean, how.std))
    return (raw - mean) / std


def get_image_settings(config: Any) -> dict[str, Any]:
    """Settings of image processors: one tile is the encoder's square, if it has one; pixels are normalised."""
    how = get_reading(config)
    said = {"image_mean": list(how.mean), "image_std": list(how.std)}
    if config.model_type.removesuffix("_vision") in NATIVE:
        return said
    return said | {"size": {"height": get_side(config), "width": get_side(config)}}
