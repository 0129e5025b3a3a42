"""What leaves a run for other trainers: `Run.export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlmill.api.boundary import guard_methods
from vlmill.api.run_tables import RunTables
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.places import take_local_path

if TYPE_CHECKING:
    from vlmill.mixtures.export.run_export import ExportResult


@guard_methods
class RunExports(RunTables):
    """The tables of a run, and its exports."""

    def export(
        self,
        to: str,
        out: str | Path,
        *,
        stage: str | None = None,
        order: str = "plan",
        images: str = "original",
        shard_samples: int = 10_000,
        shard_bytes: int = 512 << 20,
        tell: Callable[[str], None] | None = None,
    ) -> ExportResult:
        """Write the mixture of a stage, or all that was kept, for other trainers.

        An interrupted export goes on, a complete one is checked, and one of a run that has changed since is replaced.
        One of another run, stage, format or order is left, with an error.

        Args:
            to: `parquet`, `llava`, `messages` or `webdataset`.
            out: A new folder, or one that holds an export.
            stage: None is all samples that filters and dedupe kept, by source.
            order: `plan`, as the trainer reads them, or `samples`, each once with its weight.
            images: `original`, as they came, or `policy`, as the image policy of the stage drew them.
            shard_samples: Records of a file, at most.
            shard_bytes: Bytes of a file before compression, about.
            tell: Is told of every file that is done.

        Raises:
            RecipeError: an unknown format, order or kind of images, or images of a policy without a stage.
            StoreError: the run has no such stage, has not come so far or is at work; or `out` holds something else.
        """
        from vlmill.mixtures.export.run_export import ExportSettings, export_run

        settings = parse_block(
            ExportSettings,
            {
                "to": to,
                "stage": stage,
                "order": order,
                "images": images,
                "shard_samples": shard_samples,
                "shard_bytes": shard_bytes,
            },
            "export",
        )
        return export_run(self.folder, settings, take_local_path(out), tell or (lambda _: None))
