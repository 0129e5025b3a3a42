"""The readers that `benchmarks.loader` compares with ours, and the data that they need beside a run.

`python -m benchmarks.loader_peers RUN`.

The command writes litdata's copy of a run. A reader yields the number of samples and of tiles of every batch that it
has.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.loader_run import STAGE
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.images import Policy
from vlmill.pipeline.shards.writer import parse_members
from vlmill.train.data import decode_stored

Tiles = list[np.ndarray]


def tiles_of(policy: Policy, record: Mapping[str, Any], members: Mapping[str, bytes]) -> Tiles:
    """The encoder inputs of a whole sample, from its members by what stands behind their key."""
    images = [node for node in record["nodes"] if node["kind"] == "image"]
    layouts = policy.layout([(node["width"], node["height"]) for node in images])
    tiles: Tiles = []
    for node, layout in zip(images, layouts, strict=True):
        parts = {name.split(".")[1]: decode_stored(members[name]) for name in node["parts"]}
        tiles += policy.tiles(parts, layout)
    return tiles


def as_it_is(tiles: Tiles) -> Tiles:
    """Arrays leave a worker through its pipe.

    That takes a third less processor time than tensors in shared memory, torch's default.
    """
    return tiles


def webdataset(run: Path, workers: int) -> Iterator[tuple[int, int]]:
    """WebDataset's pipeline, a sample at a time."""
    import webdataset as wds  # noqa: PLC0415 - of the reader that is measured

    policy, tars = PlannedMixture(run, STAGE).policy, sorted(map(str, run.glob("shards/**/*.tar")))

    def tiles(sample: dict[str, Any]) -> Tiles:
        return tiles_of(policy, json.loads(sample["json"]), sample)

    data = wds.WebDataset(tars, shardshuffle=False, empty_check=False).map(tiles)
    for found in wds.WebLoader(data, batch_size=None, num_workers=workers, collate_fn=as_it_is):
        yield 1, len(found)


def energon(run: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Megatron-Energon's savable loader over a prepared folder."""
    from megatron.energon import (  # noqa: PLC0415 - of the reader that is measured
        Cooker,
        DefaultTaskEncoder,
        WorkerConfig,
        get_savable_loader,
        get_train_dataset,
        stateless,
    )

    policy = PlannedMixture(run, STAGE).policy

    @stateless  # type: ignore[misc] - untyped here
    def cook(sample: Any) -> dict[str, Any]:
        members = {name: value for name, value in sample.items() if not name.startswith("_")}
        known = {"__key__": sample["__key__"], "__restore_key__": sample["__restore_key__"]}
        return known | {"tiles": tiles_of(policy, json.loads(members["json"]), members)}

    class Encoder(DefaultTaskEncoder):  # type: ignore[misc, type-arg] - untyped here
        decoder = None
        cookers = (Cooker(cook),)

    config = WorkerConfig(rank=0, world_size=1, num_workers=workers)
    dataset = get_train_dataset(
        run / "energon",
        worker_config=config,
        batch_size=None,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        repeat=False,
        task_encoder=Encoder(),
    )
    for found in get_savable_loader(dataset):
        yield 1, len(found["tiles"])


def litdata(run: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Litdata's loader over an optimised copy."""
    from litdata import StreamingDataLoader, StreamingDataset  # noqa: PLC0415 - of the reader that is measured

    policy = PlannedMixture(run, STAGE).policy

    class Data(StreamingDataset):  # type: ignore[misc] - untyped here
        def __getitem__(self, index: Any) -> Tiles:
            members = dict(parse_members(bytes(super().__getitem__(index))))
            return tiles_of(policy, json.loads(members["json"]), members)

    loader = StreamingDataLoader(
        Data(str(run / "litdata")), batch_size=1, num_workers=workers, collate_fn=lambda items: as_it_is(items[0])
    )
    for found in loader:
        yield 1, len(found)


def prepare(run: Path, python: str) -> None:
    """What all of them need; says which of them is not there."""
    for preparing in (prepare_energon, prepare_litdata):
        try:
            preparing(run, python)
        except subprocess.CalledProcessError as error:
            print(f"{preparing.__name__}: {error.stderr.decode().strip().splitlines()[-1]}")


def prepare_energon(run: Path, python: str) -> None:
    """A folder of the same tars with Energon's index beside them."""
    folder = run / "energon"
    folder.mkdir()
    for tar in sorted(run.glob("shards/**/*.tar")):
        (folder / tar.name).hardlink_to(tar)
    command = [
        python,
        "-c",
        "from megatron.energon.cli.main import main; main()",
        "prepare",
        str(folder),
        "--non-interactive",
        "--split-ratio",
        "1,0,0",
    ]
    subprocess.run([*command, "--sample-type", "CrudeWebdataset"], check=True, capture_output=True)


def prepare_litdata(run: Path, python: str) -> None:
    """A copy in litdata's format: the span of every sample in its tar, as it is."""
    subprocess.run([python, "-m", "benchmarks.loader_peers", str(run)], check=True, capture_output=True)


def spans(run: Path) -> Iterator[bytes]:
    """The part of its tar that is a sample's, of every sample in order."""
    for tar in sorted(run.glob("shards/**/*.tar")):
        index = pq.read_table(tar.with_suffix(".index.parquet"), columns=["offset", "size"]).to_pylist()
        data = tar.read_bytes()
        yield from (data[row["offset"] : row["offset"] + row["size"]] for row in index)


def optimise(run: Path) -> None:
    """Write the copy for litdata."""
    from litdata.streaming.writer import BinaryWriter  # noqa: PLC0415 - of the reader that is measured

    writer = BinaryWriter(str(run / "litdata"), chunk_bytes="64MB")
    for number, span in enumerate(spans(run)):
        writer.add_item(number, span)
    writer.done()
    writer.merge()


if __name__ == "__main__":
    optimise(Path(sys.argv[1]))
