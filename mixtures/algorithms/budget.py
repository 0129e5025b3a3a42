"""What the images of a packed sequence may cost: a number of encoder inputs, and of visual tokens if inputs differ.

An image at native resolution is one encoder input, be it of 4 patches or of 16,384. Its patches are a fixed multiple of
its visual tokens, so a bound of patches is one of these. The packer knows one budget besides tokens: where both are
bounded, a segment takes the larger of its two shares, so no sequence exceeds either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COARSE = 1 << 8
"""Parts of a budget that the packer counts in, rounded up: it looks at every amount that waits."""

FINE = 1 << 20
"""Parts of a budget that single samples are measured in."""


@dataclass(frozen=True, slots=True)
class ImageBudget:
    """Of a packed sequence."""

    tiles: int  # encoder inputs at most
    visual: int | None = None  # visual tokens at most; None: any number

    def measure(self, tiles: np.ndarray, visual: np.ndarray, parts: int) -> tuple[np.ndarray, int]:
        """What each segment or node takes of the budget (int64), and all of it; pure.

        In tiles where these alone are bounded, else in `parts` of the budget, rounded up. What fits alone takes no
        more than all of it.
        """
        if self.visual is None:
            return tiles, self.tiles
        amounts = ((tiles, self.tiles), (visual, self.visual))
        shares = [-(-amount.astype(np.int64) * parts // budget) for amount, budget in amounts]
        return np.maximum(*shares), parts
