"""A stage's batches for the loops of others: a `torch.utils.data.IterableDataset` whose state is one number.

Packing, order and dealing over ranks are those of the trainer (data.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

from torch.utils.data import IterableDataset
from transformers import PreTrainedModel

from vlmill.train.batch import Batch
from vlmill.train.families.base import Family

Batches = Callable[[int], Any]
"""From a step to the generator of each step's micro-batches from there on."""


class StageDataset(IterableDataset):  # type: ignore[type-arg]
    """The micro-batches of a rank, each as the arguments of a model's forward, `labels` among them.

    Give it to `DataLoader(dataset, batch_size=None)` without workers: it reads ahead in threads. Documents of a packed
    sequence are told apart by `position_ids` that begin at 0 again, which transformers' attention understands when it
    gets no mask, as here.

    Args:
        batches: The steps of a rank.
        family: Of the model.
        model: That is to be trained; some classes make their inputs by its configuration.
        start: The first micro-batch.
        accumulation: Micro-batches of a step.
    """

    def __init__(
        self, batches: Batches, family: Family, model: PreTrainedModel, start: int = 0, accumulation: int = 1
    ) -> None:
        self._batches, self._family, self._model = batches, family, model
        self._next, self._accumulation = start, accumulation

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """From where the state says to the end of the stage's training."""
        step, inside = divmod(self._next, self._accumulation)
        with closing(self._batches(step)) as steps:
            for micro in steps:
                for batch in micro[inside:]:
                    self._next += 1
                    yield make_inputs(self._family, self._model, batch)
                inside = 0

    def state_dict(self) -> dict[str, int]:
        """How many micro-batches were given out."""
        return {"batches": self._next}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on behind those that were given out when `state_dict` was asked."""
        self._next = state["batches"]


def make_inputs(family: Family, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
    """The arguments of forward for a batch. Without a cache, beside which borders are not inferred from positions."""
    places = {"position_ids": batch.positions, **family.inputs(model, batch)}
    return {"input_ids": batch.ids, "labels": batch.labels, "use_cache": False, **places}
