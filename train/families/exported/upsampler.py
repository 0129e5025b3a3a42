"""FeatUp's upsampler: features of a tile get twice the rows and columns, as often as asked, guided by its picture.

Joint bilateral upsampling with learned kernels, `JBUStack` of Fu et al. 2024 (FeatUp, ICLR, arXiv 2403.10516). This
file travels with an export, so it imports nothing of ours.
"""

# mypy: disable-error-code="misc, no-untyped-call, no-any-return"
# torch's modules return Any
from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

RADIUS, KEYS, COLOURS = 3, 32, 3
"""Of kernels, in pixels of what is made; channels that pictures are compared in; as published."""

PLACES = (2 * RADIUS + 1) ** 2
"""Of a kernel."""


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution that begins as torch has it: kernels of weights near 0 would see no picture."""

    def __init__(self, width: int, made: int) -> None:
        super().__init__(width, made, 1)


def list_neighbours(square: torch.Tensor) -> Iterator[torch.Tensor]:
    """(tiles, channels, rows, columns), mirrored at its edges, as each place of a kernel sees it: PLACES views of it.

    All are views of one padded copy, so that no array of PLACES times the features is ever held, in either pass.
    """
    rows, columns = square.shape[2:]
    padded = functional.pad(square, [RADIUS] * 4, mode="reflect")
    for down in range(2 * RADIUS + 1):
        for right in range(2 * RADIUS + 1):
            yield padded[:, :, down : down + rows, right : right + columns]


class Doubling(nn.Module):
    """Twice the rows and columns: each feature is a mean of those around it, of places that look alike in the picture.

    The kernel is the product of a softmax over likenesses in the picture and a Gaussian of distance, and a correction
    that a small network makes of kernel and picture.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys = nn.Sequential(Pointwise(COLOURS, KEYS), nn.GELU(), Pointwise(KEYS, KEYS))
        self.correct = nn.Sequential(Pointwise(COLOURS + PLACES, PLACES), nn.GELU(), Pointwise(PLACES, PLACES))
        self.temperature = nn.Parameter(torch.zeros(1))  # its logarithm
        self.spread = nn.Parameter(torch.ones(1))  # of the Gaussian, where the kernel reaches from -1 to 1

    def forward(self, square: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """(tiles, width, rows, columns) and (tiles, 3, any, any) -> (tiles, width, 2 * rows, 2 * columns)."""
        rows, columns = (2 * length for length in square.shape[2:])
        picture = functional.adaptive_avg_pool2d(picture, (rows, columns)).to(square)
        kernel = self.make_kernel(picture)
        enlarged = functional.interpolate(square, (rows, columns), mode="bicubic")
        made = torch.zeros_like(enlarged)
        for place, seen in enumerate(list_neighbours(enlarged)):
            made = made + seen * kernel[:, place, None]
        return made

    def make_kernel(self, picture: torch.Tensor) -> torch.Tensor:
        """(tiles, 3, rows, columns) -> (tiles, PLACES, rows, columns)."""
        keys = self.keys(picture)
        alike = torch.stack([(seen * keys).sum(1) for seen in list_neighbours(keys)], dim=1)
        likeness = (self.temperature.exp().clamp(1e-4, 1e4) * alike).softmax(1)
        steps = torch.linspace(-1, 1, 2 * RADIUS + 1, device=picture.device, dtype=picture.dtype)
        distances = (steps[:, None] ** 2 + steps[None] ** 2).flatten()
        kernel = likeness * (-distances / (2 * self.spread**2)).exp()[None, :, None, None]
        kernel = kernel / kernel.sum(1, keepdim=True).clamp(min=1e-7)
        return kernel + 0.1 * self.correct(torch.cat([kernel, picture.to(kernel)], dim=1))


class Upsampler(nn.Module):
    """Features `times` (a power of two) as many a side. FeatUp's dropout is left out: what follows regularises.

    Its kernels begin new and are trained with the rest, by the loss of the language model: FeatUp's own training, by
    consistency of views, is not part of this, nor are its published weights read.
    """

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Doubling() for _ in range(times.bit_length() - 1))
        self.correct = nn.Conv2d(width, width, 1)

    def count_products(self, across: int) -> int:
        """Multiply-adds of a tile of so many features a side that are no layer's: likenesses, and kernels on features.

        Each is of every place of a kernel and every channel.
        """
        sides = [across * 2**stage for stage in range(1, len(self.stages) + 1)]
        return sum(side**2 for side in sides) * PLACES * (KEYS + self.correct.in_channels)

    def forward(self, features: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        """(tiles, patches, width) and the pixels (tiles, 3, side, side) -> (tiles, times^2 * patches, width)."""
        across = round(features.shape[1] ** 0.5)
        square = features.transpose(1, 2).unflatten(2, (across, across))
        for stage in self.stages:
            square = stage(square, pictures)
        return (square + 0.1 * self.correct(square)).flatten(2).transpose(1, 2)
