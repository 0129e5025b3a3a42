"""The records of what a run kept, with or without stages: from the tables and verdicts, images as they came."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from vlmill.mixtures.export.base import ExportPart
from vlmill.mixtures.export.pictures import make_picture
from vlmill.mixtures.export.record import Record, compose_messages
from vlmill.mixtures.export.stage_records import name_folder
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.keys import hash_value
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE
from vlmill.pipeline.core.sample import Sample, order_nodes, read_image_stats, read_samples
from vlmill.pipeline.engine.partition_tables import PartitionTables, list_filtered_tables
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.steps.image_bytes import Pictures
from vlmill.pipeline.verdicts.apply import apply_verdicts, read_verdicts_by_sample


class KeptRecords:
    """What a run exports that no stage is named of: all samples that filters and dedupe kept, by source.

    Images that an image policy cannot draw are among them, since none is asked.

    Args:
        root: The run's folder.

    Raises:
        StoreError: a filter or dedupe has not come to its end.
    """

    def __init__(self, root: Path) -> None:
        self._root, self.recipe = root, read_locked_recipe(root)
        self.name = self.recipe.name
        self._tables = {name: list_filtered_tables(root, self.recipe, name) for name in sorted(self.recipe.sources)}
        files = [
            [str(at), name, file.sha256]
            for found in self._tables.values()
            for at in found
            for name, file in sorted(at.files.items())
        ]
        self.inputs = hash_value({"files": files, "steps": list(self.recipe.all_verdict_steps())})

    @property
    def parts(self) -> tuple[ExportPart, ...]:
        """Each source."""
        return tuple(ExportPart(name_folder(name), "train", name) for name in self._tables)

    def read(self, part: ExportPart, start: int, scratch: Path) -> Iterator[Record]:  # noqa: ARG002 - nothing is gathered
        """The samples of a source from number `start` on, in the order of its input files."""
        number = 0
        for at in self._tables[part.source]:
            paths = at.check(self._root) | at.paths(self._root)
            verdicts = read_verdicts_by_sample(paths, self.recipe.all_verdict_steps())
            stats = read_image_stats(paths[IMAGE_STATS_FILE], ("sha256",))
            digests = {one.image: one.sha256 for one in stats}
            pictures = Pictures(paths)
            for row, sample in enumerate(read_samples(paths[SAMPLES_FILE])):
                outcome = apply_verdicts(sample, verdicts.get(row, []), stats)
                if outcome.sample is not None:
                    continue
                if number >= start:
                    yield self._make_record(at, sample, outcome.kept, pictures, digests)
                number += 1

    def _make_record(
        self,
        at: PartitionTables,
        sample: Sample,
        kept: tuple[int, ...],
        pictures: Pictures,
        digests: dict[int, str],
    ) -> Record:
        nodes = [sample.nodes[index] for index in order_nodes(sample.nodes, kept)]
        messages, remarks = compose_messages(nodes)
        shown = []
        for node in nodes:
            if node.image is None:
                continue
            data = pictures.read(node.image)
            if hashlib.sha256(data).hexdigest() != digests[node.image]:
                raise StoreError(
                    f"{self._root}: image {node.image} of {at} is not the one that its image stats are of; vlmill "
                    f"verify {self._root} says what is damaged"
                )
            shown.append(make_picture(data))
        document = all(node.role == "none" for node in nodes)
        return Record(
            str(sample.id),
            sample.id.source,
            sample.licence,
            sample.url,
            sample.upstream_id,
            document,
            messages,
            tuple(shown),
            remarks=tuple(remarks),
        )
