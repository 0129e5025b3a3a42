"""The lineage of a mixture's shards by segment: where each sample and each of its nodes came from.

Read by traces of training steps and by exports.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from vlmill.mixtures import get_lineage_path
from vlmill.mixtures.reader import PlannedMixture, Segment, read_columns
from vlmill.pipeline.engine.chain import read_manifest

TABLES = 64
"""Lineage tables in memory."""


class LineageTables:
    """The lineage tables of a mixture's shards, a few in memory."""

    def __init__(self, mixture: PlannedMixture, tables: int = TABLES) -> None:
        self.mixture = mixture
        self._table = lru_cache(tables)(self._read_table)
        self._digests = cache(self._read_digests)

    def find(self, segment: Segment) -> dict[str, Any]:
        """Of the whole sample that a segment is of: `id`, `url`, `upstream_id` and its `nodes`, see docs/formats.md.

        Raises:
            StoreError: the table is missing, or not the one that the run has a receipt of.
        """
        shard = self.mixture.lock["sources"][segment.source]["shards"][segment.shard]["path"]
        row: dict[str, Any] = self._table(get_lineage_path(shard)).slice(segment.row, 1).to_pylist()[0]
        return {"upstream_id": "", **row}  # which earlier versions of `render` did not keep

    def _read_table(self, path: str) -> Any:
        sha256 = self._digests(path.rpartition("/")[0])[path]
        return read_columns(self.mixture.root / path, sha256, ["id", "url", "upstream_id", "nodes"])

    def _read_digests(self, folder: str) -> dict[str, str]:
        """The sha256 of all files of a step, by path."""
        receipts = read_manifest(self.mixture.root, folder)
        return {file.path: file.sha256 for receipt in receipts for file in receipt.files}
