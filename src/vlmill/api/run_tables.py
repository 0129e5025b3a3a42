"""The tables and pictures of a run: what `open_run` gives of its samples, images, facts and verdicts.

Files are read when they are asked for, the recipe once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl
from PIL import Image

from vlmill.api import tables
from vlmill.api.boundary import guard_methods
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.sample import read_images
from vlmill.pipeline.engine.partition_tables import PartitionTables, list_raw_tables
from vlmill.pipeline.images.decode import Undecodable, decode_image
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.other_names import offer_names
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.contamination import check_decontaminated
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.signals.detector import ImageDetector


@dataclass(frozen=True, slots=True)
class DecodedPicture:
    """One image of a run as it came, decoded."""

    source: str  # its name in the recipe
    partition: str  # that holds it, as tables name it
    image: int  # its number in the partition, as samples name it
    sha256: str  # of the bytes as they came: what lists of the filter `opt_out` and takedowns name
    url: str | None  # None where the bytes came with the rows
    picture: Image.Image  # RGB, upright, of the original size


@guard_methods
@dataclass(frozen=True)
class RunTables:
    """The tables of a run: of the folder that a build fills.

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
        """All samples, also those that are dropped later, with the texts that servers wrote: what filters are asked of.

        Which of them and of their nodes were kept is in the shards: `Run.stage`. `raw_samples` has them as they were
        read, which differs only where a signal of kind `ask` writes (the phase `write`).

        Columns: `source partition sample id file row page group licence url signals nodes`. `sample` is the number of
        the row in its partition, by which verdicts and scores name it, and the place in `nodes` is the number of a
        node; `signals` is JSON. A sample that was taken down has nodes that hold nothing. Where texts were written,
        nodes also have `after`, the node behind which such a text is read, and `origin`, JSON of signal, model and
        prompt.

        Args:
            source: One source only.

        Raises:
            StoreError: the run has no such source, or it is not read to its end.
            NotBuiltError: the build has not come to the end of its phase `write`.
        """
        return tables.scan_samples(self.folder, self.recipe, self._chosen(source))

    def raw_samples(self, source: str | None = None) -> pl.LazyFrame:
        """All samples as they were read, without the texts that servers wrote. Columns as those of `samples`.

        Args:
            source: One source only.

        Raises:
            StoreError: the run has no such source, or it is not read to its end.
        """
        return tables.scan_samples(self.folder, self.recipe, self._chosen(source), raw=True)

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
        thumbnail content margins`.

        Raises:
            StoreError: the run has no such source, or the build has not come to its image stats.
        """
        return tables.scan_image_stats(self.folder, self.recipe, self._chosen(source))

    def scores(self, signal: str, source: str | None = None) -> pl.LazyFrame:
        """What the model of a signal says: `source partition sample node reason`, and its values or vectors.

        `node` is -1 where a value is of the whole sample; `reason` says why there is none.

            run.scores("similarity").join(run.samples(), on=["source", "partition", "sample"]).collect()

        Args:
            signal: As the recipe calls it.
            source: One source only.

        Raises:
            StoreError: the run has no such source or signal, or the build has not come to its end.
        """
        self._check_signal(signal, self.recipe.signals)
        return tables.scan_scores(self.folder, self._chosen(source), signal)

    def detections(self, signal: str, source: str | None = None) -> pl.LazyFrame:
        """What a signal finds in images: `source partition sample node left top right bottom confidence text`.

        The sides of a box are shares of the image's width and height, from the upper left corner. `text` is what was
        read there, and empty of faces.

            run.detections("ocr").filter(pl.col("text").str.contains("shutterstock")).collect()

        Args:
            signal: As the recipe calls it: one of kind `text_in_image` or `faces`.
            source: One source only.

        Raises:
            StoreError: the run has no such source or signal, or the build has not come to its end.
        """
        finding = [name for name, one in self.recipe.signals.items() if isinstance(one, ImageDetector)]
        self._check_signal(signal, finding, "signal with boxes")
        return tables.scan_detections(self.folder, self._chosen(source), signal)

    def _check_signal(self, signal: str, known: Collection[str], what: str = "signal") -> None:
        if signal not in known:
            raise StoreError(f"{self.folder}: no {what} {signal!r}; {offer_names(self.recipe, signal, known)}")

    def verdicts(self, source: str | None = None, *, step: str | None = None) -> pl.LazyFrame:
        """What filters, decontamination and dedupe drop: `source partition sample node filter reason score other`.

        `node` is -1 where the whole sample is dropped. What an image policy cannot draw is not here, for it differs by
        policy.

            verdicts = run.verdicts(step="my_filter")  # after `vlmill build ... --until curate`
            verdicts.join(run.samples(), on=["source", "partition", "sample"]).collect()

        Args:
            source: One source only.
            step: Those of one filter, of `decontaminate` or of `dedupe` only, which are there when it is done.

        Raises:
            StoreError: the run has no such source or step, or the build has not come to the end of dedupe, or of the
                step.
        """
        steps = self.recipe.all_verdict_steps()
        if step is not None and step not in steps:
            raise StoreError(f"{self.folder}: no step {step!r} drops anything; {offer_names(self.recipe, step, steps)}")
        wanted = steps if step is None else (step,)
        return tables.scan_verdicts(self.folder, self.recipe, self._chosen(source), wanted)

    def findings(self, source: str | None = None) -> pl.LazyFrame:
        """What decontamination found, a row for each finding.

        Columns: `source partition sample node kind benchmark item score id`.

        `id` is that of the training sample, `item` that of the benchmark's; `kind` is image or text.

        Raises:
            StoreError: the run has no such source, its recipe no decontaminate block, or the build has not come so far.
        """
        check_decontaminated(self.folder, self.recipe)
        return tables.scan_findings(self.folder, self._chosen(source))

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

    def _chosen(self, source: str | None) -> tuple[str, ...]:
        if source is None:
            return self.sources
        if source not in self.sources:
            raise StoreError(
                f"{self.folder}: there is no source {source!r}; {offer_names(self.recipe, source, self.sources)}"
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
