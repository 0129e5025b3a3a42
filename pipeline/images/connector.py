"""Connectors: what makes visual tokens of a vision tower's patches, as far as lengths of samples depend on it.

The recipe's `model.connector` is read here, below the trainer, since the build counts tokens. An image policy counts a
token for each patch; under a connector that makes fewer (or more) of them, the same layouts have other numbers of
tokens, and the same shards other lengths. Pictures stay as they were rendered. What a connector computes is the
trainer's (train/families/exported/connectors.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount, parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.crop import Crop
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.policy import Layout, Policy, Side, Size
from vlmill.pipeline.images.resize import Resize

NUMBERS = {
    "pool": "side",
    "bilinear": "side",
    "c_abstractor": "side",
    "ldp": "side",
    "ldp_v2": "side",
    "shuffle": "factor",
    "perceiver": "latents",
}
"""The key that says of a kind how many tokens it makes."""

NUMBERED = ("side", "factor", "latents", "upsample")
"""All keys that say how many tokens there are."""

REDUCED = ("pool", "bilinear", "c_abstractor", "ldp", "ldp_v2")
"""Kinds that no class of transformers has: what they make of a tile is the recipe's to say."""

TILE_TOKENS = "tile_tokens"
"""What a stage's lock calls `TileTokens`, among the keys of its image policy."""


@dataclass(frozen=True, config=STRICT)
class Connector:
    """What stands between the towers, where a family leaves a choice.

    In the LLaVA families `pool`, `bilinear`, `shuffle`, `perceiver` and `c_abstractor` come before the two-layer
    projector, and `ldp` and `ldp_v2` behind it; `side`, `factor` or `latents` says how many tokens they leave
    (docs/models.md, Connectors). In the other families that number is the image policy's.
    """

    kind: (
        Literal[
            "mlp",
            "linear",
            "fused_mlp",
            "pool",
            "bilinear",
            "shuffle",
            "perceiver",
            "c_abstractor",
            "ldp",
            "ldp_v2",
            "direct",
            "merger",
        ]
        | None
    ) = None  # None: the first that the family has
    depth: Annotated[int, Field(ge=1, le=1024)] | None = (
        None  # layers of a perceiver, or blocks of c_abstractor on each side of its pooling; None: as the paper has it
    )
    interval: Amount = 1  # a gated cross-attention layer before every so many layers of the language model
    side: Side | None = None  # of pool, bilinear, c_abstractor, ldp, ldp_v2: a tile becomes side x side visual tokens
    factor: Annotated[int, Field(ge=2, le=64)] | None = None  # of shuffle: factor x factor patches become one token
    latents: Side | None = None  # of perceiver: visual tokens of an image
    upsample: Literal[2, 4, 8, 16] | None = (
        None  # features get so many times as many rows and columns first, guided by the picture (FeatUp)
    )

    def __post_init__(self) -> None:
        """Refuse numbers that the kind does not have, and a reduction to no number."""
        wanted = NUMBERS.get(self.kind or "")
        for name in ("side", "factor", "latents"):
            if getattr(self, name) is not None and name != wanted:
                kinds = [kind for kind, number in NUMBERS.items() if number == name]
                raise ValueError(f"{name}: {self.kind or 'no kind'} has none; it is of {', '.join(kinds)}")
        if self.kind in REDUCED and self.side is None:
            raise ValueError(f"side is missing: a tile becomes side x side visual tokens of {self.kind}")
        if self.upsample is not None and self.kind in {"fused_mlp", "direct", "merger"}:
            raise ValueError(f"upsample: {self.kind} has none; it is of mlp, linear, {', '.join(NUMBERS)}")

    @property
    def counts(self) -> bool:
        """Whether it says how many tokens there are, and not the image policy."""
        return self.counting is not None

    @property
    def counting(self) -> dict[str, Any] | None:
        """The block of a connector that makes as many tokens, the same for all that do; None where it does not say."""
        numbers = {name: number for name in NUMBERED if (number := getattr(self, name)) is not None}
        kind = next((kind for kind, number in NUMBERS.items() if number in numbers), "mlp")
        return {"kind": kind, **numbers} if numbers else None


@dataclass(frozen=True, config=STRICT)
class TileTokens:
    """Visual tokens that a connector makes of a tile: `side` x `side` with places, or `latents` without."""

    side: Side | None = None
    latents: Side | None = None

    def __str__(self) -> str:
        """As messages have it."""
        return f"{self.latents} visual tokens" if self.latents else f"{self.side} x {self.side} visual tokens"

    @property
    def number(self) -> int:
        """Of all."""
        return self.latents or (self.side or 0) ** 2


def count_tile_tokens(connector: Connector, policy: Policy) -> TileTokens | None:
    """What a connector makes of each tile under an image policy; None: a token of each patch, as the policy counts.

    Raises:
        RecipeError: the policy's tiles have no square of patches, or the square cannot be reduced so.
    """
    if not connector.counts:
        return None
    if not isinstance(policy, Letterbox | Resize | Crop | AnyRes) or getattr(policy, "whole", False):
        raise RecipeError(
            f"model.connector: the visual tokens of image policy {policy.kind} are its own; a connector that says how "
            "many there are wants a policy of square tiles: letterbox, resize, crop or anyres"
        )
    if connector.latents is not None:
        if isinstance(policy, AnyRes):
            raise RecipeError(
                "model.connector.kind: latents of a perceiver have no rows and columns, so padding of the canvas "
                "cannot be cut from them nor newlines be put between; under anyres take pool, bilinear, shuffle or "
                "c_abstractor, or a policy of one tile"
            )
        return TileTokens(latents=connector.latents)
    patches = policy.side // policy.patch
    side = _count_side(connector, patches)
    return None if side == patches else TileTokens(side=side)


def read_tile_tokens(model: Mapping[str, Any], policy: Policy) -> TileTokens | None:
    """The same from the `model` block of a recipe.

    Raises:
        RecipeError: its connector is wrong, or does not fit the policy.
    """
    return count_tile_tokens(parse_block(Connector, model.get("connector") or {}, "model.connector"), policy)


def _count_side(connector: Connector, patches: int) -> int:
    """Tokens along a side of a tile that has so many patches there."""
    across = patches * (connector.upsample or 1)
    if connector.upsample and patches < 2:
        raise RecipeError(f"model.connector.upsample: the features of a tile are {patches} x {patches}; take 2 or more")
    if connector.factor is not None:
        if across % connector.factor:
            fitting = [number for number in range(2, across + 1) if across % number == 0]
            raise RecipeError(
                f"model.connector.factor: {across} x {across} features of a tile cannot be cut into squares of "
                f"{connector.factor} x {connector.factor}; take one of {', '.join(map(str, fitting))}"
            )
        return across // connector.factor
    if connector.side is not None and connector.side > across:
        raise RecipeError(
            f"model.connector.side: a tile has {across} x {across} features, which cannot be reduced to "
            f"{connector.side} x {connector.side}; take at most {across}, or upsample first"
        )
    if connector.kind == "ldp" and connector.side != (half := -(-across // 2)):
        raise RecipeError(
            f"model.connector.side: ldp halves the {across} x {across} features of a tile by a convolution of stride "
            f"2; write side: {half}, or take ldp_v2, which pools to any side"
        )
    return connector.side or across


def lay_out_images(policy: Policy, tile: TileTokens | None, sizes: Sequence[Size]) -> tuple[Layout, ...]:
    """The policy's layouts of the images of one sample, with the tokens that a connector makes of them. Pure.

    Args:
        policy: of the images.
        tile: what the connector makes of each tile; None: the policy's own number.
        sizes: (width, height) of the images.

    Raises:
        Unrenderable: as `Policy.layout`.
    """
    layouts = policy.layout(sizes)
    if tile is None:
        return layouts
    return tuple(replace(layout, tokens=_count_tokens(policy, tile, layout)) for layout in layouts)


def _count_tokens(policy: Policy, tile: TileTokens, layout: Layout) -> int:
    if isinstance(policy, AnyRes) and tile.side is not None:
        return policy.count_tokens(layout, tile.side)
    return tile.number
