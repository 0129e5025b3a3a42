"""A run's folder, opened for reading and training: its tables, pictures and stages.

Files are read when they are asked for, the recipe once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml
from PIL import Image
from rich.console import Console

from vlmill.api import tables
from vlmill.api.stages import StageMixture
from vlmill.mixtures.build import is_mixed, verify_locks
from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.sample import read_images
from vlmill.pipeline.engine.partition_tables import PartitionTables, list_raw_tables
from vlmill.pipeline.filters.custom import find_named_code
from vlmill.pipeline.images.decode import Undecodable, decode_image
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK, read_held_code
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.ledger import read_funnel
from vlmill.pipeline.reports.trace import Traced, trace_sample
from vlmill.pipeline.reports.verify import verify_run
from vlmill.pipeline.reports.what_if import WhatIfAnswer, answer_what_if

if TYPE_CHECKING:
    from vlmill.train.evaluate import Score
    from vlmill.train.run import Result
    from vlmill.train.settings import Machine


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """One image of a run as it came, decoded."""

    source: str
    partition: str
    image: int  # its number in the partition, as samples name it
    sha256: str  # of the bytes as they came: what lists of the filter `opt_out` and takedowns name
    url: str | None  # None where the bytes came with the rows
    picture: Image.Image  # RGB, upright, of the original size


@dataclass(frozen=True)
class Run:
    """A run: the folder that a build fills.

    Attributes:
        folder: The run's folder, as it was given.
    """

    folder: Path

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that the folder is locked to.

        Its custom filters are known by name, and none of their code runs.
        """
        return read_locked_recipe(self.folder)

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the sources, sorted: the order of every table."""
        return tuple(sorted(self.recipe.sources))

    # -- tables ----------------------------------------------------------------------------------------------------

    def samples(self, source: str | None = None) -> pl.LazyFrame:
        """All samples that were read, also those that are dropped later: what was kept is in the shards of a stage.

        Columns: `source partition sample id file row page group licence url signals nodes`. `sample` is the number of
        the row in its partition, by which verdicts name it; `signals` is JSON. A sample that was taken down has nodes
        that hold nothing.

        Args:
            source: One source only.

        Raises:
            StoreError: the run has no such source, or it is not read to its end.
        """
        return tables.scan_samples(self.folder, self.recipe, self._chosen(source))

    def images(self, source: str | None = None) -> pl.LazyFrame:
        """All images, with their bytes as they came.

        The bytes are large: select other columns where they are not needed.

        Columns: `source partition image url reason detail media_type bytes`. `image` is the number by which nodes name
        it; `reason` says why there are no bytes. See `pictures` for decoded ones.

        Raises:
            StoreError: as `samples`.
        """
        return tables.scan_images(self.folder, self.recipe, self._chosen(source))

    def image_stats(self, source: str | None = None) -> pl.LazyFrame:
        """What one decode found out about each image.

        Columns: `source partition image reason sha256 format mode width height frames contrast sharpness phash
        thumbnail`.

        Raises:
            StoreError: the run has no such source, or the build has not come to its image stats.
        """
        return tables.scan_image_stats(self.folder, self.recipe, self._chosen(source))

    def verdicts(self, source: str | None = None) -> pl.LazyFrame:
        """What filters, decontamination and dedupe drop: `source partition sample node filter reason score other`.

        `node` is -1 where the whole sample is dropped. What an image policy cannot draw is not here, for it differs by
        policy.

        Raises:
            StoreError: the run has no such source, or the build has not come to the end of dedupe.
        """
        return tables.scan_verdicts(self.folder, self.recipe, self._chosen(source))

    def refused(self, source: str | None = None) -> pl.LazyFrame:
        """Rows and pages of which no sample could be made: `source partition id file row page reason detail excerpt`.

        `page` is -1 for a whole row.

        Raises:
            StoreError: as `samples`.
        """
        return tables.scan_refused(self.folder, self.recipe, self._chosen(source))

    def funnel(self) -> pl.DataFrame:
        """How many rows, samples, nodes and images were kept, dropped and failed, by source and reason.

        Columns: `source level outcome reason count`; `outcome` is kept, dropped or failed, and `reason` is null of what
        was kept. The counts of one source and level add up to what came in. Empty before anything is read.
        """
        return tables.make_funnel(read_funnel(self.folder))

    def trace(self, sample: str) -> Traced:
        """Everything about one sample: its nodes, verdicts, outcome and shards.

        Args:
            sample: Its id, such as `web/part-0.parquet#12`, or `SHARD.tar:KEY`.

        Raises:
            StoreError: the run has no such sample.
        """
        return trace_sample(self.folder, sample)

    # -- pictures --------------------------------------------------------------------------------------------------

    def picture(self, source: str, partition: str, image: int) -> Image.Image:
        """One image as it came: RGB, upright, of its original size. The three arguments stand in every table.

        Raises:
            StoreError: there is no such image, or it has no bytes, or they cannot be decoded; the message says why.
        """
        where = f"image {image} of {source}/{partition}"
        for at in self._partitions(source):
            if at.partition == partition:
                frame = tables.scan_partition_images(at.paths(self.folder)).filter(pl.col("image") == image)
                for row in frame.select("reason", "bytes").collect().iter_rows(named=True):
                    if row["bytes"] is None:
                        raise StoreError(f"{where} was not had: {row['reason']}")
                    return self._decode(row["bytes"], where)
        raise StoreError(f"{self.folder} has no {where}; run.images() lists all")

    def pictures(self, source: str | None = None) -> Iterator[DecodedPicture]:
        """All images that can be decoded, in the order of `images`; a few in memory at a time.

        Each is decoded when it is asked for.

        Raises:
            StoreError: as `samples`.
        """
        for name in self._chosen(source):
            for at in self._partitions(name):
                for row in read_images(at.paths(self.folder)):
                    if row["bytes"] is None:
                        continue
                    try:
                        picture = decode_image(row["bytes"], self._most_pixels)
                    except Undecodable:  # image_stats() has the reason
                        continue
                    sha256 = hashlib.sha256(row["bytes"]).hexdigest()
                    yield DecodedPicture(name, at.partition, row["image"], sha256, row["url"], picture)

    # -- stages ----------------------------------------------------------------------------------------------------

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the recipe's stages, in the order of their training."""
        return tuple(stage.name for stage in self.recipe.stages)

    def stage(self, name: str) -> StageMixture:
        """The mixture of one stage.

        Raises:
            StoreError: the recipe has no such stage, or it is not mixed yet.
        """
        if name not in self.stages:
            raise StoreError(f"{self.folder}: there is no stage {name!r}; {suggest_names(name, list(self.stages))}")
        return StageMixture(self.folder, name)

    @property
    def mixtures(self) -> dict[str, StageMixture]:
        """The mixtures of all stages that are mixed, by name."""
        return {name: self.stage(name) for name in self.stages if is_mixed(self.folder, name)}

    # -- questions and work ----------------------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """A line for each sha256, count or lock that is not as it was written; none where the run is sound."""
        return list(verify_run(self.folder)) or list(verify_locks(self.folder))

    def what_if(
        self,
        settings: Mapping[str, Any] | None = None,
        *,
        recipe: str | Path | None = None,
        filters: Sequence[str | Path] = (),
        trust_code: Sequence[str] = (),
    ) -> WhatIfAnswer:
        """What other settings of filters and dedupe would keep, from the tables that are there; nothing is written.

        Args:
            settings: Dotted key -> value, such as `{"language.sample_share": 0.5}`; a string is read as YAML.
            recipe: A recipe whose filters and dedupe count in place of the run's.
            filters: Files with custom filters, whose code may run.
            trust_code: The sha256 of code that the run's lock holds, and that may run.

        Raises:
            RecipeError: a change that only a build can answer, or code that would have to run and was not named.
            StoreError: the run has not come to the filters.
        """
        code = find_named_code(list(map(str, filters)), trust_code, read_held_code(self.folder / LOCK))
        asked = str(self.folder) if recipe is None else str(recipe)
        return answer_what_if(asked, self.folder, format_settings(settings), code)[1]

    def train(
        self,
        stage: str | None = None,
        machine: Machine | None = None,
        *,
        ranks: int | None = None,
        ray: str | None = None,
        console: Console | None = None,
    ) -> list[Result]:
        """Train one stage, or all in order, from the newest checkpoint where training was interrupted.

        Args:
            stage: One stage only, which starts from the stage before it.
            machine: Device, threads and readers; None takes a GPU if there is one.
            ranks: So many processes share the model, started by Ray; None trains in this process.
            ray: The cluster for `ranks`; None is this machine.
            console: Where progress and scores are shown; None shows nothing.

        Returns:
            What each stage left behind: checkpoint, export for transformers, log, and scores on held-out samples.

        Raises:
            StoreError: the recipe has no such stage, or a mixture or the weights of the stage before are missing.
        """
        from vlmill.api.training import train_run

        return train_run(self.folder, stage, machine, ranks, ray, console)

    def evaluate(
        self,
        stage: str | None = None,
        *,
        samples: int | None = None,
        export: str | Path | None = None,
        machine: Machine | None = None,
    ) -> dict[str, Score]:
        """Score a trained stage on its held-out samples; nothing is written.

        Args:
            stage: None is the last one.
            samples: Of each source at most; None is what the recipe says.
            export: A folder with an exported model, scored in place of the trained stage.
            machine: What it runs on.

        Returns:
            Source -> its scores; none where nothing is held out.

        Raises:
            StoreError: the stage is not trained yet, or the export holds another kind of model.
        """
        from vlmill.train.run import evaluate_stage

        return evaluate_stage(self.folder, stage, samples, Path(export) if export else None, machine)[1]

    # ----------------------------------------------------------------------------------------------------------------

    def _chosen(self, source: str | None) -> tuple[str, ...]:
        if source is None:
            return self.sources
        if source not in self.sources:
            raise StoreError(
                f"{self.folder}: there is no source {source!r}; {suggest_names(source, list(self.sources))}"
            )
        return (source,)

    def _partitions(self, source: str) -> list[PartitionTables]:
        (name,) = self._chosen(source)
        return list_raw_tables(self.folder, self.recipe, name)

    @property
    def _most_pixels(self) -> int:
        return self.recipe.image_stats.max_pixels

    def _decode(self, data: bytes, where: str) -> Image.Image:
        try:
            return decode_image(data, self._most_pixels)
        except Undecodable as error:
            raise StoreError(f"{where}: {error}") from error


def open_run(folder: str | Path) -> Run:
    """Open the folder of a run, as given to `build`.

    Raises:
        StoreError: it holds no run.
    """
    run = Run(Path(folder))
    _ = run.recipe  # a folder without one is no run
    return run


def format_settings(settings: Mapping[str, Any] | None) -> dict[str, str]:
    """Values as the command line writes them after `--set`: strings as they are, everything else as YAML."""
    return {
        key: value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True)
        for key, value in (settings or {}).items()
    }
