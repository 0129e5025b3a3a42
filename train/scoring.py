"""Scores a stage's held-out samples on all ranks, a batch on each at a time; a killed scoring goes on where it was.

Which samples are computed together is a function of the mixture, so what comes does not depend on the number of ranks.
The first rank keeps what each batch gave in a file. A line of it counts where weights, samples and settings are the
same.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from transformers import PreTrainedModel

from vlmill.mixtures.reader import PlannedMixture, Segment
from vlmill.pipeline.core.keys import DIGITS, hash_file, hash_value
from vlmill.pipeline.core.progress import Watcher
from vlmill.train.data import Reader
from vlmill.train.digests import SCORING
from vlmill.train.distributed import ProcessGroup
from vlmill.train.evaluate import HeldOut, score_samples, split_batches

VERSION = 1
"""Raise it when the same weights, samples and settings come to other answers or losses."""

SAMPLES = TypeAdapter(list[HeldOut])


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Held-out samples of one source that are scored together."""

    key: str  # what their results are a function of
    source: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Scorer:
    """A whole model on every rank, in the arithmetic that it was trained in."""

    model: PreTrainedModel
    reader: Reader
    device: torch.device
    dtype: torch.dtype  # of the arithmetic
    group: ProcessGroup

    def keep_scores(self, weights: Path, folder: Path) -> PartialScores:
        """Where in `folder` what this finds is kept, on every rank; every rank has to call it.

        Args:
            weights: the file with the model's weights, or the folder of an export.
            folder: of the stage; nothing is kept where it cannot be written.
        """
        (identity, *_) = self.group.gather(self._describe(weights) if self.group.leads else "")
        return PartialScores(folder / f"{SCORING}{identity[:DIGITS]}.jsonl", identity)

    def score_held_out(self, limit: int, kept: PartialScores, watcher: Watcher | None = None) -> list[HeldOut]:
        """What the model makes of up to `limit` held-out samples of each source, in their order, on every rank.

        Every rank has to call it, and none waits for another longer than a batch takes. Leaves the model in evaluation
        mode.

        Args:
            limit: samples of a source at most.
            kept: what was scored before, to which the first rank adds.
            watcher: is told on the first rank of the samples that were not scored before.
        """
        self.model.to(self.device).eval()
        leads = self.group.leads
        (found, *_) = self.group.gather(kept.read() if leads else {})
        batches = list_batches(self.reader.mixture, limit, kept.identity)
        left = [batch for batch in batches if batch.key not in found]
        scored = self.group.share(left, self._score)
        for batch, samples in _tell_progress(scored, left, self.reader.mixture.stage, watcher if leads else None):
            found[batch.key] = samples
            if leads:
                kept.add(batch.key, samples)
        return [sample for batch in batches for sample in found[batch.key]]

    def _score(self, batch: SampleBatch) -> list[HeldOut]:
        return score_samples(self.model, self.reader, self.device, batch.segments, self.dtype)

    def _describe(self, weights: Path) -> str:
        """What results are a function of, beside the samples."""
        files = sorted(path for path in weights.iterdir() if path.is_file()) if weights.is_dir() else [weights]
        hashes = {path.name: hash_file(path) for path in files}
        settings = [str(self.dtype), self.reader.loss, VERSION]
        return hash_value([hashes, self.reader.mixture.sha256, settings])


@dataclass(frozen=True, slots=True)
class PartialScores:
    """A file with a JSON line for each batch that is scored: its key, its samples, and the sha256 of both."""

    path: Path
    identity: str  # sha256 of all that results are a function of, beside the samples

    def read(self) -> dict[str, list[HeldOut]]:
        """Samples by the key of their batch. A line that a kill has cut, or that is damaged, does not count."""
        found: dict[str, list[HeldOut]] = {}
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            try:
                sha256, key, samples = json.loads(line)
            except ValueError:
                continue
            if hash_value([key, samples]) == sha256:
                found[key] = SAMPLES.validate_python(samples)
        return found

    def add(self, key: str, samples: Sequence[HeldOut]) -> None:
        """Append a batch, and have it on disk. Nothing is kept in a folder that cannot be written."""
        if not os.access(self.path.parent if self.path.parent.exists() else self.path.parents[1], os.W_OK):
            return
        self.path.parent.mkdir(exist_ok=True)
        listed = json.loads(json.dumps([asdict(sample) for sample in samples]))
        line = json.dumps([hash_value([key, listed]), key, listed], ensure_ascii=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")  # the line before may be cut
            file.flush()
            os.fsync(file.fileno())


def remove_partial_scores(folder: Path) -> None:
    """Remove what scorings have kept in `folder`."""
    for path in folder.glob(f"{SCORING}*.jsonl"):
        path.unlink(missing_ok=True)


def list_batches(mixture: PlannedMixture, limit: int, identity: str) -> list[SampleBatch]:
    """Up to `limit` held-out samples of each source, in batches, in their order.

    Keys are made of `identity` and samples.
    """
    by_source: dict[int, list[Segment]] = defaultdict(list)
    for segment in mixture.held_out():
        by_source[segment.source].append(segment)
    return [
        SampleBatch(
            hash_value([identity, [[segment.source, segment.shard, segment.row] for segment in some]]),
            mixture.sources[source],
            tuple(some),
        )
        for source, segments in sorted(by_source.items())
        for some in split_batches(segments[:limit])
    ]


def _tell_progress(
    scored: Iterable[tuple[SampleBatch, list[HeldOut]]],
    left: Sequence[SampleBatch],
    stage: str,
    watcher: Watcher | None,
) -> Iterator[tuple[SampleBatch, list[HeldOut]]]:
    """`scored` as it comes; the watcher is told of each source and how many of its samples are done."""
    totals: Mapping[str, int] = sum((Counter({batch.source: len(batch.segments)}) for batch in left), Counter())
    source = None
    for batch, samples in scored:
        if watcher and batch.source != source:
            watcher.phase(f"{stage}: {batch.source}", totals[batch.source])
        source = batch.source
        if watcher:
            watcher.done(len(samples))
        yield batch, samples
