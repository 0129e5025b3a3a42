"""How long ranks would wait for each other in the steps of a planned stage, before it is trained.

Read by `vlmill stats --ranks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vlmill.train.balance import deal_sequences, measure_time
from vlmill.train.data import open_reader, price_sequences
from vlmill.train.steps import StepSequences, check_shares

if TYPE_CHECKING:
    from vlmill.mixtures.reader import PlannedMixture
    from vlmill.train.settings import ModelSettings, Training

BOUND = 1.1
"""The imbalance from which on the line says what helps."""

ADVICE = "Give each rank more sequences of a micro-batch, or name the ranks in the recipe (train.ranks)"

STEPS = 64
"""Steps that are looked at, evenly over the training."""


@dataclass(frozen=True, slots=True)
class Imbalance:
    """The time of a stage's steps over what it would be if all ranks had the same to do; 1 at best."""

    stage: str  # its name
    ranks: int  # that share the sequences of a step
    sequences: int  # of a step
    bucket: int  # steps that are filled together
    looked_at: int  # steps
    steps: int  # of the stage
    dealt: float  # as sequences are dealt to ranks
    in_order: float  # if each rank took the next sequences of the plan
    vision: float  # share of vision in the FLOPs of a step

    def __str__(self) -> str:
        """A line for a person."""
        return (
            f"{self.stage} on {self.ranks:,} ranks: a step of {self.sequences:,} sequences takes {self.dealt:.3f} "
            f"times what it would if all ranks had the same to do (in the plan's order {self.in_order:.3f}); "
            f"{self.looked_at} of {self.steps:,} steps, in buckets of {self.bucket}; {self.vision:.0%} of the FLOPs "
            "are vision" + (f". {ADVICE}" if self.dealt > BOUND and self.bucket == 1 else "")
        )


def measure_stage(mixture: PlannedMixture, model: ModelSettings, training: Training, ranks: int) -> Imbalance:
    """Deal some of a stage's steps over so many ranks; nothing is read but the plan.

    Raises:
        RecipeError: the sequences of a step cannot be shared out.
    """
    check_shares(training, ranks)
    sequences = StepSequences(mixture, training)
    price = price_sequences(open_reader(mixture, model, training.loss), training)
    looked_at = sorted({sequences.steps * number // STEPS for number in range(STEPS)})
    times, before, vision = [], [], []
    for step in looked_at:
        numbers = sequences.list_numbers(step)
        costs = price(numbers)
        times.append(measure_time(costs, deal_sequences(costs, ranks, training.accumulation)))
        plain = [sequences.order.sequence(step * sequences.size + place) for place in range(sequences.size)]
        before.append(measure_time(price(plain), np.arange(len(plain)).reshape(ranks, training.accumulation, -1)))
        vision.append(costs.sum(axis=0))
    dealt, in_order = (float(np.divide(*np.sum(some, axis=0))) for some in (times, before))
    total = np.sum(vision, axis=0)
    return Imbalance(
        mixture.stage,
        ranks,
        sequences.size,
        sequences.bucket,
        len(looked_at),
        sequences.steps,
        dealt,
        in_order,
        float(total[0] / total.sum()),
    )
