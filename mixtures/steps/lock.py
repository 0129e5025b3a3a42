"""The lock step, the last of a stage.

It records which samples of which bytes were planned under which settings, and the result.

`mixture.lock.json` is all that a trainer needs beside the files it names; `verify_lock` derives it again from them.
"""

from __future__ import annotations

import json
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.mixtures import Shard, get_source
from vlmill.mixtures.algorithms.budget import ImageBudget
from vlmill.mixtures.config import MixtureEntry
from vlmill.mixtures.report.stats import describe_stage, to_json
from vlmill.mixtures.steps.hold_out import HELD_OUT
from vlmill.mixtures.steps.select import Select
from vlmill.pipeline.core.arrays import read_array
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.seal import seal_json
from vlmill.pipeline.core.step import Count, Counts, Inputs

LOCK_VERSION = 2
"""Of the form of lock and plan."""

HELD_OUT_ROWS = pa.schema(
    [
        pa.field("source", pa.int16(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Lock:
    """Locks a stage.

    Reads the mix, the entries' held-out rows behind their labels, and the blocks as `plan/00000.parquet`.
    """

    shards: Mapping[str, tuple[Shard, ...]]  # by source
    policy: Mapping[str, Any]
    tokenizer: Mapping[str, str]  # path and sha256
    chat: Any  # as describe_chat has it
    overhead: int

    name: ClassVar[str] = "lock"
    version: ClassVar[int] = 4
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The mix, all blocks, the held-out rows."""
        return ("mix.json", "*/held_out.npy", "plan/*.parquet")

    def made_by(self) -> Mapping[str, str]:
        """The table writer."""
        return {"pyarrow": version("pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write `mixture.lock.json`, `stats.json` and `held_out.parquet`; counts samples and packed sequences."""
        mix = json.loads(inputs["mix.json"].read_text(encoding="utf-8"))
        blocks, packing = _describe_blocks(inputs)
        held_out = _list_held_out(inputs, mix["entries"])
        pq.write_table(held_out, folder / "held_out.parquet", compression="zstd")
        settings = mix["mixture"]
        lock = {
            "version": LOCK_VERSION,
            "stage": mix["stage"],
            "seed": mix["seed"],
            **{
                name: settings[name]
                for name in ("unit", "sequence_length", "tiles_per_sequence", "truncate", "shard_window", "pack_window")
            },
            **({"visual_per_sequence": mix["visual_per_sequence"]} if "visual_per_sequence" in mix else {}),
            "epochs": _compute_epochs(mix["entries"]),
            "policy": dict(self.policy),
            "tokenizer": dict(self.tokenizer),
            "chat": self.chat,
            "overhead": self.overhead,
            "sources": [self._source(entry, settings["unit"]) for entry in mix["entries"]],
            "plan": {"sequences": packing["sequences"], "blocks": blocks},
            "held_out": {
                "path": "held_out.parquet",
                "samples": held_out.num_rows,
                "sha256": hash_file(folder / "held_out.parquet"),
            },
        }
        (folder / "mixture.lock.json").write_text(seal_json(lock), encoding="utf-8")
        (folder / "stats.json").write_text(to_json(describe_stage(mix, packing)), encoding="utf-8")
        return {
            "samples": Count(mix["samples"], mix["samples"]),
            "packed_sequences": Count(packing["sequences"], packing["sequences"]),
        }

    def _source(self, entry: Mapping[str, Any], unit: str) -> dict[str, Any]:
        """An entry as the lock lists it."""
        settings = entry["entry"]
        shards = self.shards[settings["source"]]
        names = ["path", "index", "index_sha256", "lengths", "sha256", "samples"]
        names += ["signals"] if any(shard.signals for shard in shards) else []
        return {
            "name": settings["source"],
            "label": entry["label"],
            "share": settings["share"],
            "unit": unit,
            "settings": settings,
            "held_out": entry["held_out"],
            "near": entry["near"],
            "repetition": entry["repetition"],
            "planned": entry["planned"],
            "available": entry["available"],
            "ids_sha256": entry["ids_sha256"],
            "shards": [{name: getattr(shard, name) for name in names} for shard in shards],
        }


def _compute_epochs(entries: Sequence[Mapping[str, Any]]) -> float:
    """Tokens planned over tokens there are."""
    available: int = sum(entry["available"]["tokens"] for entry in entries)
    planned: int = sum(entry["planned"]["tokens"] for entry in entries)
    return round(planned / available, 6)


def _describe_blocks(inputs: Inputs) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The blocks in order, `first` being the number of a block's first sequence; and what all sequences add up to."""
    blocks: list[dict[str, Any]] = []
    packing = {"sequences": 0, "tokens": 0, "tiles": 0, "most_tiles": 0, "most_visual": 0}
    for name in sorted(name for name in inputs if name.startswith("plan/")):
        sums = pq.read_table(inputs[name], columns=["tokens", "tiles"])
        blocks.append(
            {
                "path": name,
                "first": packing["sequences"],
                "sequences": sums.num_rows,
                "sha256": hash_file(inputs[name]),
            }
        )
        tokens, tiles = (sums[column].to_numpy() for column in ("tokens", "tiles"))
        packing["sequences"] += sums.num_rows
        packing["tokens"] += int(tokens.sum(dtype=np.int64))
        packing["tiles"] += int(tiles.sum(dtype=np.int64))
        packing["most_tiles"] = max(packing["most_tiles"], int(tiles.max(initial=0)))
        if "visual" in pq.read_schema(inputs[name]).names:
            visual = pq.read_table(inputs[name], columns=["visual"])["visual"].to_numpy()
            packing["most_visual"] = max(packing["most_visual"], int(visual.max(initial=0)))
    return blocks, packing


def _list_held_out(inputs: Inputs, entries: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The held-out samples of every source, once where a source stands in several entries."""
    seen: set[str] = set()
    columns: dict[str, list[np.ndarray]] = {"source": [], "shard": [], "row": []}
    for number, entry in enumerate(entries):
        if entry["entry"]["source"] in seen:
            continue
        seen.add(entry["entry"]["source"])
        places = read_array(inputs[f"{entry['label']}/held_out.npy"], mapped=False)
        columns["source"].append(np.full(places.size, number))
        for name in HELD_OUT.names or ():
            columns[name].append(places[name])
    return pa.table({name: np.concatenate(arrays) for name, arrays in columns.items()}).cast(HELD_OUT_ROWS)


def locate_shards(lock: Mapping[str, Any], sequence: int) -> tuple[int, int]:
    """The block that holds a sequence of the plan, and its number there; in time logarithmic in the number of blocks.

    Raises:
        IndexError: the plan has no such sequence.
    """
    if not 0 <= sequence < lock["plan"]["sequences"]:
        raise IndexError(
            f"the plan of stage {lock['stage']!r} has sequences 0 to {lock['plan']['sequences'] - 1}, not {sequence}"
        )
    block = bisect_right(lock["plan"]["blocks"], sequence, key=lambda block: block["first"]) - 1
    return block, sequence - lock["plan"]["blocks"][block]["first"]


def verify_lock(lock: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """What a lock says that its files do not bear out, a sentence each; nothing for a sound one.

    Args:
        lock: of a stage.
        inputs: the files it names: blocks and held-out rows by their `path`, tables by the shards' `index` and
            `lengths`, lineage and dedupe's pairs of images.
    """
    for block in lock["plan"]["blocks"]:
        yield from _verify_block(lock, block, inputs[block["path"]])
    if hash_file(inputs[lock["held_out"]["path"]]) != lock["held_out"]["sha256"]:
        yield f"{lock['held_out']['path']} is not the file that was locked"
    for source in lock["sources"]:
        yield from _verify_selection(lock, source, inputs)


def _verify_block(lock: Mapping[str, Any], block: Mapping[str, Any], path: Path) -> Iterator[str]:
    """A block's bytes, its number of sequences, and the budgets of each."""
    if hash_file(path) != block["sha256"]:
        yield f"{block['path']} is not the file that was locked"
        return
    sequences = pq.read_table(path)
    if sequences.num_rows != block["sequences"]:
        yield f"{block['path']} has {sequences.num_rows} sequences, the lock says {block['sequences']}"
    segments = sequences["segments"].combine_chunks()
    parents = segments.value_parent_indices().to_numpy()
    most = lock.get("visual_per_sequence")
    if most is not None and np.any(sequences["visual"].to_numpy() > most):
        yield f"{block['path']}: visual tokens of its sequences exceed {most}"
    for name, budget in (("tokens", lock["sequence_length"]), ("tiles", lock["tiles_per_sequence"])):
        sums = np.bincount(parents, segments.flatten().field(name).to_numpy(), sequences.num_rows)
        if np.any(sums != sequences[name].to_numpy()) or np.any(sums > budget):
            yield f"{block['path']}: {name} of its sequences do not add up, or exceed {budget}"


def restore_select(lock: Mapping[str, Any], source: Mapping[str, Any]) -> Select:
    """The select step of an entry, as a lock has it."""
    shards = tuple(Shard(get_source(shard["path"]), "", **shard) for shard in source["shards"])
    return Select(
        entry=MixtureEntry(**source["settings"]),
        shards=shards,
        seed=lock["seed"],
        unit=lock["unit"],
        sequence_length=lock["sequence_length"],
        budget=ImageBudget(lock["tiles_per_sequence"], lock.get("visual_per_sequence")),
        overhead=lock["overhead"],
        held_out=source["held_out"],
        near=source["near"],
        truncate=lock["truncate"],
    )


def _verify_selection(lock: Mapping[str, Any], source: Mapping[str, Any], inputs: Inputs) -> Iterator[str]:
    """The ids that an entry may use, derived again from the tables beside its shards."""
    select = restore_select(lock, source)
    with tempfile.TemporaryDirectory() as folder:
        select.run(inputs, Path(folder))
        selected = json.loads((Path(folder) / "selection.json").read_text(encoding="utf-8"))
    if any(selected[name] != source[name] for name in ("ids_sha256", "available")):
        yield f"{source['label']}: the samples that the tables yield now are not those that were locked"
