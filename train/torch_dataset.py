"""A stage's batches for the loops of others: a `torch.utils.data.IterableDataset` whose state is a place in them.

Packing, order and dealing over ranks are those of the trainer (data.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

from torch.nn import Module
from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedModel

from vlmill.pipeline.core.errors import StoreError
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
        ranks: That share each of them.
        course: What decides the sequences of each step, such as the stage and its plan; it is part of the state.
    """

    def __init__(
        self,
        batches: Batches,
        family: Family,
        model: PreTrainedModel,
        start: int = 0,
        accumulation: int = 1,
        ranks: int = 1,
        course: Mapping[str, Any] | None = None,
    ) -> None:
        self._batches, self._family, self._model = batches, family, model
        self._next, self._accumulation, self._ranks, self._course = start, accumulation, ranks, dict(course or {})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """From where the state says to the end of the stage's training.

        Raises:
            ValueError: a worker of a DataLoader asks. Each would give out everything, and keep the state to itself.
        """
        if (worker := get_worker_info()) is not None:
            raise ValueError(
                f"num_workers={worker.num_workers}: each worker of a DataLoader would give out every batch, and the "
                "state would stay in it; use DataLoader(dataset, batch_size=None, num_workers=0), and readers=N of "
                "torch_dataset to read with more threads"
            )
        step, inside = divmod(self._next, self._accumulation)
        with closing(self._batches(step)) as steps:
            for micro in steps:
                for batch in micro[inside:]:
                    self._next += 1
                    yield make_inputs(self._family, self._model, batch)
                inside = 0

    def state_dict(self) -> dict[str, Any]:
        """How many micro-batches were given out, over how many ranks, and of what."""
        return {"batches": self._next, "ranks": self._ranks, **self._course}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind those that were given out when `state_dict` was asked. Any rank may load the state of any other.

        Raises:
            StoreError: it is of another stage, plan or kind of steps, it lacks something, or it lies within a step
                that another number of ranks shares out in another way.
        """
        here = self.state_dict()
        if lacking := sorted(here.keys() - state.keys()):
            raise StoreError(
                f"this state has no {', '.join(lacking)}: it is not what state_dict() of this dataset gives; "
                "torch_dataset(model, start=N) goes on behind N micro-batches without a state"
            )
        differing = [
            f"{name}: {state[name]!r} there, {here[name]!r} here" for name in self._course if state[name] != here[name]
        ]
        if differing:
            raise StoreError(
                f"this state is of other batches ({'; '.join(differing)}), so its place means nothing here; load it "
                "where it was made, or begin without a state"
            )
        if state["ranks"] != self._ranks and state["batches"] % self._accumulation:
            raise StoreError(
                f"this state lies within a step ({state['batches']} micro-batches, {self._accumulation} to a step), "
                f"which {state['ranks']} ranks share out otherwise than {self._ranks}; give ranks={state['ranks']}, or "
                "load a state that was asked for at the end of a step"
            )
        self._next = state["batches"]


def check_model(model: Any, family: Family) -> None:
    """Refuse what is no model of the family, such as the name of one.

    Wrapped ones (`module` of DistributedDataParallel, adapters of PEFT) pass by what they wrap. Classes of ours have
    the name of transformers' own at the end of theirs.

    Raises:
        TypeError: with what is allowed.
    """
    inside = getattr(model, "module", model)
    kind = getattr(getattr(inside, "config", None), "model_type", "")
    if not (isinstance(model, Module) and str(kind).endswith(family.model_type)):
        name = f"{type(model).__name__} of {kind}" if kind else f"{type(model).__name__}"
        raise TypeError(
            f"model={repr(model).partition(chr(10))[0]:.80}: is a {name}; give the model that is to be trained, a "
            f"module of torch with transformers' model_type {family.model_type!r}, which the recipe names"
        )


def make_inputs(family: Family, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
    """The arguments of forward for a batch. Without a cache, beside which borders are not inferred from positions."""
    places = {"position_ids": batch.positions, **family.inputs(model, batch)}
    return {"input_ids": batch.ids, "labels": batch.labels, "use_cache": False, **places}
