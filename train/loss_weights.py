"""Weights of the loss: how much each supervised token counts in the mean that a step minimises.

`data.py` weighs the tokens of a document, the loop divides by the weight of the whole step, and `loss_shares.py` says
what share of it each source has. Held-out samples are scored without weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmill.train.settings import LossWeights

POWERS = {"tokens": 0.0, "square_root": 0.5, "samples": 1.0}
"""Of a segment's length, by which a token's weight is divided."""


def weigh_tokens(weights: LossWeights, source: str, taught: int, answers: Sequence[int] = ()) -> np.ndarray:
    """The weights of a segment's supervised tokens (float64), in their order; pure.

    Args:
        weights: the settings.
        source: what the recipe calls the segment's entry of the mixture.
        taught: how many tokens are supervised.
        answers: the number of the answer that each token is of, ascending; nothing: turns do not count.
    """
    turns = weigh_answers(weights, np.asarray(answers), answers[-1]) if len(answers) else np.ones(taught)
    length = turns.sum()
    scale = weights.sources.get(source, 1.0) / (length ** POWERS[weights.average] if length else 1.0)
    return np.asarray(turns * scale)


def weigh_answers(weights: LossWeights, answers: np.ndarray, last: int | np.ndarray) -> np.ndarray:
    """The weights (float64) of answers with these numbers, from 0; `last` is the number of a conversation's last."""
    if weights.turns == "all":
        return np.ones(answers.size)
    if weights.turns == "last":
        return np.asarray(answers == last, np.float64)
    listed = np.array(weights.turns, np.float64)
    return np.asarray(listed[np.minimum(answers, len(weights.turns) - 1)])
