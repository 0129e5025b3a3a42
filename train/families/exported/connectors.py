"""What makes visual tokens of a tile's patches, around LLaVA's projector: one module for each kind of connector.

Each takes features (tiles, patches, width) of square tiles in reading order and returns (tiles, tokens, its `width`).
Those of BEHIND get what the projector has made, as wide as the language model.
This file travels with an export, so it imports nothing of ours. To add a kind: a class here, a line in CONNECTORS, and
its number of tokens in pipeline/images/connector.py.
"""

# mypy: disable-error-code="misc, no-untyped-call, no-any-return"
# torch's modules return Any
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Settings = Mapping[str, Any]
"""A recipe's `connector` block: kind, side, factor, latents, depth."""


def make_square(features: torch.Tensor) -> torch.Tensor:
    """(tiles, patches, width) -> (tiles, width, rows, columns)."""
    across = round(features.shape[1] ** 0.5)
    return features.transpose(1, 2).unflatten(2, (across, across))


def make_sequence(square: torch.Tensor) -> torch.Tensor:
    """(tiles, width, rows, columns) -> (tiles, tokens, width)."""
    return square.flatten(2).transpose(1, 2)


class Keep(nn.Module):
    """Every patch is a token: `mlp` and `linear`, which are the projector alone."""

    def __init__(self, width: int, *_: Any) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the module."""
        return features


class Pool(Keep):
    """Average pooling to side x side (DeCo: Yao et al. 2024, arXiv 2405.20985; MM1: McKinzie et al. 2024)."""

    def __init__(self, width: int, across: int, settings: Settings) -> None:
        super().__init__(width, across, settings)
        self.side: int = settings["side"]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the module."""
        return make_sequence(functional.adaptive_avg_pool2d(make_square(features), self.side))


class Bilinear(Pool):
    """Bilinear interpolation to side x side, as LLaVA-OneVision's class does it behind its projector.

    Li et al. 2024, arXiv 2408.03326. Without antialiasing: beyond a factor of 2 some patches are not looked at.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the module."""
        square = functional.interpolate(make_square(features), (self.side, self.side), mode="bilinear")
        return make_sequence(square)


class Shuffle(nn.Module):
    """Pixel shuffle (space to depth): factor x factor patches become one token, one behind the other in its channels.

    InternVL 1.5: Chen et al. 2024, arXiv 2404.16821. The projector's first layer is as much wider.
    """

    def __init__(self, width: int, across: int, settings: Settings) -> None:
        super().__init__()
        del across
        self.factor: int = settings["factor"]
        self.width = width * self.factor**2

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the module."""
        return make_sequence(functional.pixel_unshuffle(make_square(features), self.factor))


class Attention(nn.Module):
    """Latents look at features and at themselves (Flamingo: Alayrac et al. 2022, arXiv 2204.14198)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_features, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, latents: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(tiles, latents, width) and (tiles, patches, width) -> (tiles, latents, width)."""
        latents = self.norm_latents(latents)
        seen = torch.cat([self.norm_features(features), latents], dim=1)
        queries, keys, values = (
            made.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for made in (self.q_proj(latents), self.k_proj(seen), self.v_proj(seen))
        )
        found = functional.scaled_dot_product_attention(queries, keys, values)
        return self.o_proj(found.transpose(1, 2).flatten(2))


class Perceiver(nn.Module):
    """Perceiver resampler: `latents` learned vectors look at all patches, `depth` times (6 in Flamingo, 3 in Idefics2).

    Layers as in Flamingo, with a network of four times the width. Its features get no positions of their own: those of
    a vision transformer have theirs. The projector comes behind it.
    """

    def __init__(self, width: int, across: int, settings: Settings) -> None:
        super().__init__()
        del across
        self.width = width
        self.latents = nn.Parameter(torch.randn(settings["latents"], width) * 0.02)
        heads = 1 if width % 64 else width // 64
        depth = settings["depth"] or 3
        self.looks = nn.ModuleList(Attention(width, heads) for _ in range(depth))
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 4 * width, bias=False),
                nn.GELU(),
                nn.Linear(4 * width, width, bias=False),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the module."""
        latents = self.latents.expand(len(features), -1, -1).to(features)
        for look, network in zip(self.looks, self.networks, strict=True):
            latents = latents + look(latents, features)
            latents = latents + network(latents)
        return self.norm(latents)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of (tiles, width, rows, columns)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, square: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        return self.norm(square.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class RegBlock(nn.Module):
    """A block of RegNet-Y (Radosavovic et al. 2020, arXiv 2003.13678) as Honeybee sets it up.

    1 x 1, depthwise 3 x 3 and 1 x 1 convolutions, each with a layer normalisation; squeeze and excitation behind the
    second, of a quarter of the channels; SiLU.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.begin = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), ChannelNorm(width), nn.SiLU())
        self.look = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), ChannelNorm(width), nn.SiLU()
        )
        less = max(1, round(width / 4))
        self.squeeze, self.excite = nn.Conv2d(width, less, 1), nn.Conv2d(less, width, 1)
        self.end = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), ChannelNorm(width))

    def forward(self, square: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        made = self.look(self.begin(square))
        gate = self.excite(functional.silu(self.squeeze(made.mean((2, 3), keepdim=True)))).sigmoid()
        return functional.silu(square + self.end(made * gate))


class CAbstractor(nn.Module):
    """Honeybee's C-Abstractor: convolutions, average pooling to side x side, convolutions (`depth` blocks each, 3).

    Cha et al. 2023, arXiv 2312.06742. Positions are added to the features first, as there. Blocks are as
    wide as the vision tower, where Honeybee's are 1,024 (CLIP ViT-L/14's own width); its last two layers are LLaVA's
    projector, with SiLU.
    """

    def __init__(self, width: int, across: int, settings: Settings) -> None:
        super().__init__()
        self.width, self.side = width, settings["side"]
        self.positions = nn.Parameter(torch.randn(across**2, width) * 0.02)
        depth = settings["depth"] or 3
        self.before = nn.Sequential(*(RegBlock(width) for _ in range(depth)))
        self.behind = nn.Sequential(*(RegBlock(width) for _ in range(depth)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the module."""
        square = self.before(make_square(features + self.positions.to(features)))
        return make_sequence(self.behind(functional.adaptive_avg_pool2d(square, self.side)))


class DepthwiseBlock(nn.Module):
    """An inverted residual block of MobileNetV3 (Howard et al. 2019, arXiv 1905.02244) that widens nothing.

    Depthwise 3 x 3 convolution of a stride, squeeze and excitation of a quarter of the channels (in eights), 1 x 1
    convolution; layer normalisations, hard swish behind the first. What comes in is added where the stride is 1.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.look = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.norm_look = ChannelNorm(width)
        less = max(8, (width // 4 + 4) // 8 * 8)
        less += 8 * (less < 0.9 * (width // 4))
        self.squeeze, self.excite = nn.Conv2d(width, less, 1), nn.Conv2d(less, width, 1)
        self.end, self.norm_end = nn.Conv2d(width, width, 1, bias=False), ChannelNorm(width)

    def forward(self, square: torch.Tensor) -> torch.Tensor:
        """(tiles, width, rows, columns) -> the same, divided by the stride."""
        made = functional.hardswish(self.norm_look(self.look(square)))
        gate = functional.hardsigmoid(self.excite(self.squeeze(made.mean((2, 3), keepdim=True)).relu()))
        made = self.norm_end(self.end(made * gate))
        return made + square if self.stride == 1 else made


class Downsample(nn.Module):
    """MobileVLM's LDP behind its two layers: two depthwise blocks, the second of stride 2.

    Chu et al. 2023, arXiv 2312.16886; `LDPBlock` of github.com/Meituan-AutoML/MobileVLM.
    """

    def __init__(self, width: int, *_: Any) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.Sequential(DepthwiseBlock(width, 1), DepthwiseBlock(width, 2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the module."""
        return make_sequence(self.blocks(make_square(features)))


class PooledDownsample(nn.Module):
    """MobileVLM V2's LDPv2 behind its two layers: average pooling to side x side, and positions by a convolution.

    The latter is a depthwise one of 3 x 3 that is added (PEG: Chu et al. 2021, arXiv 2102.10882). Chu et al. 2024,
    arXiv 2402.03766; `LDPNetV2Projector` of github.com/Meituan-AutoML/MobileVLM.
    """

    def __init__(self, width: int, across: int, settings: Settings) -> None:
        super().__init__()
        del across
        self.width, self.side = width, settings["side"]
        self.positions = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the module."""
        square = functional.adaptive_avg_pool2d(make_square(features), self.side)
        return make_sequence(square + self.positions(square))


CONNECTORS: Mapping[str, Callable[[int, int, Settings], Any]] = {
    "mlp": Keep,
    "linear": Keep,
    "pool": Pool,
    "bilinear": Bilinear,
    "shuffle": Shuffle,
    "perceiver": Perceiver,
    "c_abstractor": CAbstractor,
    "ldp": Downsample,
    "ldp_v2": PooledDownsample,
}
"""By kind: (width of features, features along a side of a tile, settings) -> module."""

BEHIND = ("ldp", "ldp_v2")
"""Kinds that come behind the projector."""
