"""Made-up shards for the tests of mixtures: index and lengths without the tars."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.mixtures import Shard
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.steps.lock import Lock
from vlmill.mixtures.steps.mix import Mix
from vlmill.mixtures.steps.plan import Plan
from vlmill.mixtures.steps.select import list_selects
from vlmill.pipeline.core.step import Counts
from vlmill.pipeline.shards.writer import INDEX, LINEAGE
from vlmill.pipeline.steps.token_lengths import LENGTHS

OVERHEAD = 2
Document = Mapping[str, Any]


NO_BREAKS = {"lead": 0, "ends": [], "words": []}


def text(tokens: int, role: str = "none", turn: int = 0, ends: Sequence[int] = ()) -> dict[str, Any]:
    """The lengths of a text node whose sentences end at `ends`."""
    supervised = tokens if role in {"none", "assistant"} else 0
    return {
        "text": tokens,
        "visual": 0,
        "supervised": supervised,
        "tiles": 0,
        "image": False,
        "turn": turn,
        "role": role,
        **NO_BREAKS,
        "ends": list(ends),
    }


def image(tokens: int = 16, tiles: int = 1, role: str = "none", turn: int = 0) -> dict[str, Any]:
    """The lengths of an image node."""
    lengths = {"text": 0, "visual": tokens, "supervised": 0, "tiles": tiles}
    return {**lengths, "image": True, "turn": turn, "role": role, **NO_BREAKS}


def web(seed: int, documents: int, most_nodes: int = 8, longest: int = 60) -> list[list[dict[str, Any]]]:
    """Interleaved documents, some longer than a short row."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(documents):
        nodes = [
            image() if random.random() < 0.3 else text(int(random.integers(1, longest)))
            for _ in range(random.integers(1, most_nodes + 1))
        ]
        made.append(nodes)
    return made


def quiz(seed: int, documents: int, most_turns: int = 3) -> list[list[dict[str, Any]]]:
    """An image and turns about it."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(documents):
        nodes = [image(role="user")]
        for turn in range(random.integers(1, most_turns + 1)):
            nodes += [
                text(int(random.integers(3, 15)), "user", turn),
                text(int(random.integers(1, 20)), "assistant", turn),
            ]
        made.append(nodes)
    return made


def lone(tokens: Sequence[int]) -> list[list[dict[str, Any]]]:
    """Documents of one text; `tokens` is what they cost in a row."""
    return [[text(length - OVERHEAD)] for length in tokens]


PATCHES = 4  # of a visual token


def bound_visual(mixture: MixtureSettings) -> int | None:
    """What a budget of patches leaves a sequence."""
    return None if mixture.patches_per_sequence is None else mixture.patches_per_sequence // PATCHES


class Store:
    """A folder of shards, over which the steps of a stage run as in a build: each sees the files it declares."""

    def __init__(self, root: Path, overhead: int = OVERHEAD) -> None:
        self.root, self.overhead = root, overhead
        self.shards: dict[str, tuple[Shard, ...]] = {}
        self.inputs: dict[str, Path] = {}

    def add(
        self,
        source: str,
        documents: Sequence[Sequence[Document]],
        per_shard: int = 50,
        groups: Sequence[str] | None = None,
        licence: str = "CC0-1.0",
        pictures: Sequence[Sequence[int]] | None = None,
        shown_by: str | None = None,
        topics: Sequence[float | None] | None = None,
    ) -> None:
        """Write a source; `pictures` are the numbers of those that each document shows, else all differ.

        Pictures of a number are other ones in each source, unless they are those that `shown_by` shows. `topics` are
        the clusters of documents.
        """
        shards = []
        for number, start in enumerate(range(0, len(documents), per_shard)):
            here = documents[start : start + per_shard]
            stem = f"shards/{source}/small/00000-0000.k.{number:02d}"
            (self.root / stem).parent.mkdir(parents=True, exist_ok=True)
            index, lengths = f"{stem}.index.parquet", f"{stem}.lengths.parquet"
            signals = f"{stem}.signals.parquet" if topics is not None else ""
            shard = Shard(source, "small", f"{stem}.tar", "0" * 64, len(here), index, "0" * 64, lengths, signals)
            if topics is not None:
                found = pa.array(topics[start : start + per_shard], pa.float32())
                rows = pa.array(range(len(here)), pa.int32())
                pq.write_table(pa.table({"row": rows, "topic": found}), self.root / signals)
                self.inputs[signals] = self.root / signals
            names = [groups[start + row] if groups else "" for row in range(len(here))]
            self._write(shard, here, start, names, licence)
            shown = pictures or [[1000 * row + node for node in range(row % 3)] for row in range(len(documents))]
            self._write_lineage(shard, shown[start : start + per_shard], shown_by or source)
            shards.append(shard)
        self.shards[source] = tuple(shards)

    def _write(
        self, shard: Shard, documents: Sequence[Sequence[Document]], start: int, groups: Sequence[str], licence: str
    ) -> None:
        rows = range(len(documents))
        index = {
            "id": [f"{shard.source}/a.parquet#{start + row}" for row in rows],
            "file": ["a.parquet"] * len(documents),
            "input_row": pa.array([start + row for row in rows], pa.int64()),
            "page": pa.array([-1] * len(documents), pa.int32()),
            "group": list(groups),
            "licence": [licence] * len(documents),
            "nodes": pa.array([len(nodes) for nodes in documents], pa.int32()),
            "written": pa.array([[] for _ in rows], INDEX.field("written").type),
        }
        pq.write_table(pa.table(index), self.root / shard.index)
        lengths = [
            {
                "row": row,
                **{name: sum(node[name] for node in nodes) for name in ("text", "visual", "supervised", "tiles")},
                "images": sum(node["image"] for node in nodes),
                "nodes": nodes,
            }
            for row, nodes in enumerate(documents)
        ]
        pq.write_table(pa.Table.from_pylist(lengths, schema=LENGTHS), self.root / shard.lengths)
        for name in (shard.index, shard.lengths):
            self.inputs[name] = self.root / name

    def key(self, source: str, picture: int) -> int:
        """The head of a picture's sha256, as dedupe has it."""
        return int(hashlib.sha256(f"{source} {picture}".encode()).hexdigest()[:16], 16)

    def _write_lineage(self, shard: Shard, pictures: Sequence[Sequence[int]], source: str) -> None:
        rows = [
            {
                "row": row,
                "id": str(row),
                "url": "",
                "upstream_id": "",
                "licence": "",
                "nodes": [
                    {
                        "node": node,
                        "url": None,
                        "sha256": hashlib.sha256(f"{source} {shown}".encode()).hexdigest(),
                    }
                    for node, shown in enumerate(numbers)
                ],
            }
            for row, numbers in enumerate(pictures)
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=LINEAGE), self.root / shard.lineage)
        self.inputs[shard.lineage] = self.root / shard.lineage

    def select(self, mixture: MixtureSettings, seed: int = 17, near: float | None = None) -> dict[str, Counts]:
        """Run the select step of every entry; a visual token has PATCHES patches."""
        counts, visual = {}, bound_visual(mixture)
        for label, step in list_selects(mixture, self.shards, seed, self.overhead, near, visual).items():
            counts[label], files = self._run(step, self.root / "select" / label)
            self.inputs |= {f"{label}/{path.name}": path for path in files}
        return counts

    def mix(self, mixture: MixtureSettings, seed: int = 17) -> dict[str, Any]:
        """Run select and mix; what the mix step wrote."""
        self.select(mixture, seed)
        _, files = self._run(Mix("align", mixture, seed, visual=bound_visual(mixture)), self.root / "mix")
        self.inputs |= {path.name: path for path in files}
        return json.loads(self.inputs["mix.json"].read_text())

    def plan(self, mixture: MixtureSettings, seed: int = 17) -> list[dict[str, Any]]:
        """Run everything up to the plan; its rows."""
        mix = self.mix(mixture, seed)
        self.inputs = {name: path for name, path in self.inputs.items() if not name.startswith("plan/")}
        rows = []
        for block in range(mix["blocks"]):
            _, files = self._run(Plan(block), self.root / "plan" / str(block))
            self.inputs |= {f"plan/{path.name}": path for path in files}
            rows += pq.read_table(files[0]).to_pylist()
        return rows

    def lock(self, mixture: MixtureSettings, seed: int = 17, **about: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run everything; the lock and the statistics. `about` are the lock's policy, tokenizer and chat."""
        self.plan(mixture, seed)
        made = {"policy": {"kind": "letterbox"}, "tokenizer": {"path": "tokenizer.json", "sha256": "0" * 64}}
        step = Lock(shards=self.shards, overhead=self.overhead, **{**made, "chat": "vlmill", **about})
        _, files = self._run(step, self.root / "lock")
        self.inputs |= {path.name: path for path in files}
        return tuple(json.loads(self.inputs[name].read_text()) for name in ("mixture.lock.json", "stats.json"))

    def _run(self, step: Any, folder: Path) -> tuple[Counts, list[Path]]:
        number = len(list(folder.parent.glob(f"{folder.name}*"))) if folder.parent.exists() else 0
        folder = folder.with_name(f"{folder.name}.{number}")
        folder.mkdir(parents=True)
        read = {name: path for name, path in self.inputs.items() if any(fnmatch(name, form) for form in step.reads)}
        counts = step.run(read, folder)
        assert all(count.balanced() for count in counts.values())
        return counts, sorted(folder.iterdir())
