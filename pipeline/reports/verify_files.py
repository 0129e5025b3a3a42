"""Receipts, manifests and the files that they name: that all are as they were written. Part of `verify`.

Receipts are looked at in workers, RECEIPTS at a time; what is said does not depend on where.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.keys import DIGITS, hash_file
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.engine.chain import read_manifest_counts
from vlmill.pipeline.engine.executor import Executor
from vlmill.pipeline.engine.store import Receipt, total_counts
from vlmill.pipeline.reports.ordered import map_in_order

RECEIPTS = 16
"""Receipts of a task."""


@dataclass(frozen=True)
class VerifyReceipts:
    """Checks receipts of one folder: their files are unchanged, what was taken down is gone, counts balance."""

    root: Path
    folder: Path
    purged: frozenset[str]  # paths of files that must be gone

    def __call__(self, receipts: tuple[Receipt, ...]) -> list[str]:
        """A line per broken promise, in the order of the receipts."""
        return [line for receipt in receipts for line in self._list_faults(receipt)]

    def _list_faults(self, receipt: Receipt) -> Iterator[str]:
        root = self.root
        for file in receipt.files:
            if file.path not in self.purged:
                yield from verify_file(
                    root, file.path, file.sha256, f" {receipt.partition}.{receipt.key[:DIGITS]}.receipt.json"
                )
            elif (root / file.path).exists():
                yield f"{file.path}: holds what was taken down; the next build deletes it"
        for level, line in receipt.counts.items():
            if not Count.from_json(line).balanced():
                yield f"{self.folder.relative_to(root)} {receipt.partition}: {level} does not balance: {line}"
        written = self.folder / f"{receipt.partition}.{receipt.key[:DIGITS]}.receipt.json"
        if not _holds_json(written, receipt.to_json()):
            yield f"{written.relative_to(root)}: differs from the manifest or is missing"


def verify_manifest(root: Path, path: Path, purged: frozenset[str], executor: Executor) -> Iterator[str]:
    """Check a manifest: its files are unchanged, what was taken down is gone, receipts balance and add up."""
    receipts, counts = read_manifest_counts(path)
    chunks = [tuple(receipts[start : start + RECEIPTS]) for start in range(0, len(receipts), RECEIPTS)]
    named = {file.path for receipt in receipts for file in receipt.files}
    work = VerifyReceipts(root, path.parent, purged & named)
    for lines in map_in_order(executor, work, chunks):
        yield from lines
    made_by = path.parent / "made_by.json"
    if made_by.exists() and receipts and not any(_holds_json(made_by, dict(receipt.made_by)) for receipt in receipts):
        yield f"{made_by.relative_to(root)}: is not what made the files beside it"
    if {level: count.to_json() for level, count in total_counts(receipts).items()} != counts:
        yield f"{path.relative_to(root)}: its counts are not the sum of its receipts"


def _holds_json(path: Path, value: Mapping[str, Any]) -> bool:
    """Whether a file holds this JSON."""
    try:
        return bool(read_json(path) == value)
    except (StoreError, FileNotFoundError):
        return False


def verify_file(root: Path, path: str, sha256: str, receipt: str = "") -> Iterator[str]:
    """A file is there and unchanged. `receipt` names the one to delete, where there is one."""
    if not (root / path).exists():
        yield f"{path}: is missing; its receipt is{receipt}" if receipt else f"{path}: is missing"
    elif hash_file(root / path) != sha256:
        yield f"{path}: its sha256 is not the one in its receipt{receipt}"
