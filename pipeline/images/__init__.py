"""Image policies: how an image becomes the encoder inputs of a model family.

POLICIES names them for recipes. To add one, write a frozen dataclass with the methods of `Policy`, and a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.crop import Crop
from vlmill.pipeline.images.internvl import InternVL
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.native import Native
from vlmill.pipeline.images.navit import NaViT
from vlmill.pipeline.images.patches import Patches
from vlmill.pipeline.images.policy import Layout, Policy, Size, Unrenderable
from vlmill.pipeline.images.pooled import Pooled
from vlmill.pipeline.images.resize import Resize
from vlmill.pipeline.images.tiles import Tiles

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["POLICIES", "Layout", "Policy", "Size", "Unrenderable"]

POLICIES: Mapping[str, type[Policy]] = {
    "anyres": AnyRes,
    "crop": Crop,
    "internvl": InternVL,
    "letterbox": Letterbox,
    "native": Native,
    "navit": NaViT,
    "patches": Patches,
    "pooled": Pooled,
    "resize": Resize,
    "tiles": Tiles,
}
