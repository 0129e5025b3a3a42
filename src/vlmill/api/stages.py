"""The mixture of one stage, for reading.

Its statistics, shards and plan, its samples in the order of training, and the trainer's batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from PIL import Image

from vlmill.api.boundary import guard_methods
from vlmill.mixtures.build import LOCK as MIXTURE
from vlmill.mixtures.reader import PlannedMixture, Segment, Stored
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.images import Policy
from vlmill.pipeline.images.decode import decode_image
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.train.loss_shares import read_weighted_stats
from vlmill.train.settings import read_model_settings, read_training_settings
from vlmill.train.steps import check_share, count_steps, describe_steps
from vlmill.train.trace import SeenSegment, list_seen

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmill.pipeline.recipe.schema import Recipe
    from vlmill.train.batch import Batch
    from vlmill.train.imbalance import Imbalance
    from vlmill.train.settings import Training
    from vlmill.train.torch_dataset import StageDataset

AHEAD = 2
"""Steps that `batches` reads before they are asked for."""

SHARDS = {
    "source": pl.String,
    "path": pl.String,
    "index": pl.String,
    "lengths": pl.String,
    "sha256": pl.String,
    "samples": pl.Int64,
}


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """A sample, or the nodes of it that one packed sequence holds, as the mixture has it."""

    sequence: int | None  # the packed sequence of the plan that holds it; None of what is held out
    source: str  # the mixture's name of it
    id: str  # as tables name it
    licence: str  # as the recipe or the row says
    nodes: tuple[Node, ...]  # texts and images in reading order
    tokens: int | None  # as planned, with BOS and EOS; None of what is held out
    images: tuple[
        Mapping[str, bytes], ...
    ]  # per image node, in order: encoded pictures by name, as the policy rendered them
    begin: int = 0  # from this token of the first node
    end: int = -1  # to this token of the last node; -1: all of it

    def pictures(self) -> list[dict[str, Image.Image]]:
        """The images, decoded: per image node its pictures by name."""
        return [{name: decode_image(data) for name, data in image.items()} for image in self.images]


@guard_methods
@dataclass(frozen=True)
class StageMixture:
    """The planned and locked mixture of one stage.

    Attributes:
        folder: The run's folder.
        name: The stage.
    """

    folder: Path
    name: str

    def __post_init__(self) -> None:
        """Refuse a stage that is not mixed yet (StoreError)."""
        _ = self._mixture

    @cached_property
    def _mixture(self) -> PlannedMixture:
        return PlannedMixture(self.folder, self.name)

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Refuse to read where the stage was mixed anew since it was opened, also while it is read.

        Raises:
            StoreError: with the call that opens it again.
        """
        self._refuse_change()
        try:
            yield
        except StoreError:
            self._refuse_change()
            raise

    def _refuse_change(self) -> None:
        path = self._mixture.folder / MIXTURE
        if not path.exists() or hash_file(path) != self._mixture.sha256:
            raise StoreError(
                f"{self.folder}: a build or a takedown has mixed stage {self.name!r} anew since it was opened; open it "
                f"again: vlmill.open_run({str(self.folder)!r}).stage({self.name!r})"
            )

    @property
    def lock(self) -> Mapping[str, Any]:
        """`mixture.lock.json`: what was decided, over which bytes."""
        return self._mixture.lock

    @property
    def policy(self) -> Policy:
        """The image policy that its shards were rendered under."""
        return self._mixture.policy

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of its sources, in the order in which the plan numbers them."""
        return self._mixture.sources

    @property
    def sequences(self) -> int:
        """How many packed sequences the plan has."""
        return self._mixture.sequences

    @cached_property
    def stats(self) -> dict[str, Any]:
        """Its statistics, as `vlmill stats --json` shows them; `notes` are what a person should look at."""
        found: dict[str, Any] = read_weighted_stats(self.folder, self.name)[self.name]
        return found

    def shards(self) -> pl.DataFrame:
        """Its shards, with paths relative to the run's folder: `source path index lengths sha256 samples`."""
        rows = [
            {"source": source["label"], **{name: shard[name] for name in SHARDS if name != "source"}}
            for source in self.lock["sources"]
            for shard in source["shards"]
        ]
        return pl.DataFrame(rows, SHARDS)

    def plan(self) -> pl.LazyFrame:
        """The packed sequences in the order of training: `sequence tokens tiles segments`.

        A segment is nodes [first, last) of row `row` of shard number `shard` of source number `source`, both as the
        lock numbers them.

        Raises:
            StoreError: the stage was mixed anew since it was opened.
        """
        self._refuse_change()
        blocks = [
            pl.scan_parquet(self._mixture.folder / block["path"], glob=False) for block in self.lock["plan"]["blocks"]
        ]
        return pl.concat(blocks).with_row_index("sequence")

    def webdataset(self, **options: Any) -> Any:
        """A `webdataset.WebDataset` over its shards: each sample once, decoded; `options` go to it.

        See `open_webdataset`.
        """
        from vlmill.mixtures.webdataset import open_webdataset

        return open_webdataset(self.folder, self.name, **options)

    def samples(self, start: int = 0, stop: int | None = None) -> Iterator[PlannedSample]:
        """What the packed sequences [start, stop) hold, in the order of training; one sequence in memory at a time.

        Raises:
            StoreError: a shard is damaged or missing, or the stage was mixed anew since it was opened.
        """
        with self._unchanged():
            for sequence in range(start, self.sequences if stop is None else min(stop, self.sequences)):
                segments = self._mixture.sequence(sequence)
                for segment, stored in zip(segments, self._mixture.read(segments), strict=True):
                    yield self._sample(sequence, segment, stored)

    def held_out(self) -> Iterator[PlannedSample]:
        """The samples that are kept for evaluation, whole, in their order.

        Raises:
            StoreError: a shard is damaged or missing, or the stage was mixed anew since it was opened.
        """
        with self._unchanged():
            for segment in self._mixture.held_out():
                (stored,) = self._mixture.read([segment])
                yield self._sample(None, segment, stored)

    def list_seen(self, step: int) -> list[SeenSegment]:
        """Everything that a training step sees, on all ranks, in the order of the plan: ids, nodes, tokens, images.

        Raises:
            RecipeError: the recipe says nothing of the stage's training, or it has no such step.
        """
        return list(list_seen(self.folder, self.name, step))

    def batches(
        self, start: int = 0, stop: int | None = None, *, rank: int = 0, ranks: int = 1, readers: int = 2
    ) -> Iterator[tuple[Batch, ...]]:
        """What the trainer sees in the steps [start, stop): the micro-batches of each step, in order. Imports torch.

        Args:
            start: The first step.
            stop: The step to end before; None is the end of the stage's training.
            rank: Of the processes that share the sequences of a step.
            ranks: How many there are.
            readers: Threads that read and decode.

        Raises:
            RecipeError: the recipe says nothing of the stage's training, the plan has too few sequences for it, or
                the ranks do not divide the sequences of a step.
            StoreError: shards, tokenizer or policy are not those that the plan was made with, or the stage was mixed
                anew since it was opened.
            ValueError: there is no such rank or step, or there are no readers.
            TypeError: one of them is no whole number.
        """
        self._refuse_change()
        recipe = read_locked_recipe(self.folder)
        training = self._read_training(recipe)
        check_share(training, rank, ranks, readers)
        most = count_steps(training, self.sequences)
        last = most if stop is None else min(stop, most)
        if not 0 <= start <= most:
            raise ValueError(f"start={start}: stage {self.name!r} has steps 0 to {most - 1}; {most} is behind them all")
        return self._load(recipe, training, range(start, last), rank, ranks, readers)

    def _read_training(self, recipe: Recipe) -> Training:
        stage = next(stage for stage in recipe.stages if stage.name == self.name)
        return read_training_settings(stage, recipe.scale)

    def _load(
        self, recipe: Recipe, training: Training, steps: range, rank: int, ranks: int, readers: int
    ) -> Iterator[tuple[Batch, ...]]:
        from vlmill.train.data import load_step_batches, open_reader

        reader = open_reader(self._mixture, read_model_settings(recipe), training.loss, training.loss_weights)
        loaded = load_step_batches(reader, training, steps, rank, ranks, readers, AHEAD)
        with self._unchanged(), closing(loaded):
            yield from loaded

    def torch_dataset(
        self, model: PreTrainedModel, start: int = 0, *, rank: int = 0, ranks: int = 1, readers: int = 2
    ) -> StageDataset:
        """The same as a torch IterableDataset of arguments of a model's forward, for the loops of others.

        Imports torch. `state_dict` and `load_state_dict` resume it exactly; examples/train_elsewhere.py trains with it
        under transformers' Trainer and under Accelerate.

        Args:
            model: That is to be trained: of the class that the recipe names, with the embeddings of its tokenizer.
            start: The first micro-batch.
            rank: As in `batches`, as all below.
            ranks: How many there are.
            readers: Threads that read and decode.

        Raises:
            RecipeError: as `batches`.
            StoreError: as `batches`.
            TypeError: as `batches`; or the model is none of that class.
            ValueError: as `batches`; or a worker of a DataLoader asks for batches, of which each would give out all.
        """
        from vlmill.train.families import find_family
        from vlmill.train.torch_dataset import StageDataset, check_model

        self._refuse_change()
        recipe = read_locked_recipe(self.folder)
        training = self._read_training(recipe)
        check_share(training, rank, ranks, readers)
        most = count_steps(training, self.sequences) * training.accumulation
        if not 0 <= start <= most:
            raise ValueError(
                f"start={start}: stage {self.name!r} has micro-batches 0 to {most - 1}; {most} is behind them all"
            )
        family = find_family(read_model_settings(recipe), self.policy, self._mixture.chat_settings)
        check_model(model, family)
        batches = partial(self.batches, rank=rank, ranks=ranks, readers=readers)
        course = {"stage": self.name, "mixture": self._mixture.sha256, **describe_steps(training)}
        return StageDataset(batches, family, model, start, training.accumulation, ranks, course)

    def measure_imbalance(self, ranks: int) -> Imbalance:
        """How long so many ranks would wait for each other in the steps of the stage's training. Imports torch.

        Raises:
            RecipeError: the recipe says nothing of the stage's training, or its steps cannot be dealt over them.
            StoreError: the stage was mixed anew since it was opened.
        """
        from vlmill.train.imbalance import measure_stage

        recipe = read_locked_recipe(self.folder)
        self._refuse_change()
        return measure_stage(self._mixture, read_model_settings(recipe), self._read_training(recipe), ranks)

    def _sample(self, sequence: int | None, segment: Segment, stored: Stored) -> PlannedSample:
        nodes, images, cut = stored.find(segment)
        source, about = self.sources[segment.source], self._mixture.about(segment)
        shown = stored.parts[images]
        return PlannedSample(
            sequence, source, about["id"], about["licence"], nodes, segment.tokens, shown, cut.begin, cut.end
        )
