"""How fast samples come from shards, beside webdataset, Megatron-Energon and litdata: `python -m benchmarks.loader [--pictures DIR]`.

Makes a run of samples with a text and one to three images, under a policy of one tile of 384 px or AnyRes of 336 px, from the picture files in
DIR, else from generated ones. Every reader then reads all of it in a process of its own, on the same number of cores, and hands
the tiles of every sample to that process, uint8, cut by the same functions from the same bytes. Ours alone encodes the texts, too, and packs. Files
were read once before; imports are not counted. litdata reads its own copy of the same bytes; to make that is not counted.

    samples/s, MB/s   of shards, after the first batch
    cpu ms/sample     of all processes, steadier than the clock on a machine that has other work
    first             seconds from the path of the run to the first batch: lock, tokenizer, indices
    peak              the most memory of the reader's process and its workers (proportional set size)

Then ours once more at step 10^6 of a plan so long, its blocks repeated. Readers that are not installed are left out: megatron-energon needs
webdataset 1.0, so PYTHON (`--python`) is best an interpreter of an environment that has both, litdata, and this project.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mixtures.locked import Mixture, Stored
from pipeline.encode import load_tokenizer, mark_id
from pipeline.images import Policy
from pipeline.images.anyres import AnyRes
from pipeline.images.letterbox import Letterbox
from pipeline.sample import Node
from pipeline.settings import build
from pipeline.shards import parse
from tests.stages import Made, write_run
from train.data import Document, Reader, decode, load
from train.families import find
from train.settings import ModelSettings

STAGE, LENGTH, PER_SHARD = "align", 8192, 250
ROWS = 4  # of a step
FAR = 1_000_000  # steps
POLICIES: dict[str, tuple[Policy, str]] = {
    "letterbox": (Letterbox(side=384, patch=14), "llava"),
    "anyres": (AnyRes(), "llava_next"),
}
WORDS = [
    "a",
    "picture",
    "of",
    "what",
    "stands",
    "before",
    "the",
    "house",
    "and",
    "how",
    "it",
    "came",
    "to",
    "be",
    "there",
    "in",
    "those",
    "years",
]

Tiles = list[np.ndarray]


# -- the run


def pictures(folder: Path | None) -> Iterator[Image.Image]:
    """Pictures without end: the files in a folder, in turns, or hills of noise at several scales, as photographs have them."""
    if folder is not None:
        for path in itertools.cycle(sorted(path for path in folder.rglob("*") if path.is_file())):
            try:
                with Image.open(path) as image:
                    found = image.convert("RGB")
            except (OSError, ValueError):
                continue
            if min(found.size) >= 64:
                yield found
    random = np.random.default_rng(0)
    while True:
        width, height = random.integers(240, 900, 2).tolist()
        layers = np.zeros((height, width, 3))
        for side, strength in ((4, 100), (24, 50), (96, 25), (400, 10)):
            small = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
            layers += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 255 * strength
        yield Image.fromarray(layers.clip(0, 255).astype(np.uint8))


def made(samples: int, folder: Path | None) -> list[Made]:
    """Documents of one to three pictures with some 60 words behind each."""
    random, source, found = np.random.default_rng(1), pictures(folder), list[Made]()
    for _ in range(samples):
        nodes, shown = list[Node](), list[Image.Image]()
        for image in range(int(random.integers(1, 4))):
            words = " ".join(random.choice(WORDS, int(random.integers(20, 100))).tolist())
            nodes += [Node("image", image=image), Node("text", text=words)]
            shown.append(next(source))
        found.append((tuple(nodes), shown))
    return found


# -- the readers: each yields the number of samples and of tiles of every batch that it has


def tiles_of(policy: Policy, record: Mapping[str, Any], members: Mapping[str, bytes]) -> Tiles:
    """The encoder inputs of a whole sample, from its members by what stands behind their key."""
    images = [node for node in record["nodes"] if node["kind"] == "image"]
    layouts = policy.layout([(node["width"], node["height"]) for node in images])
    tiles: Tiles = []
    for node, layout in zip(images, layouts, strict=True):
        parts = {name.split(".")[1]: decode(members[name]) for name in node["parts"]}
        tiles += policy.tiles(parts, layout)
    return tiles


def stored_tiles(policy: Policy, stored: Stored) -> Tiles:
    """The same of a sample that was read by its place."""
    tiles: Tiles = []
    for parts, layout in zip(stored.parts, policy.layout(stored.sizes), strict=True):
        tiles += policy.tiles({name: decode(data) for name, data in parts.items()}, layout)
    return tiles


def ours(run: Path, threads: int, step: int = 0, *, text: bool = True) -> Iterator[tuple[int, int]]:
    """The trainer's loader, from a step to the end of the plan; without its texts it does what the others do, and no more."""
    mixture = Mixture(run, STAGE)
    tower = {"kind": "siglip", "hidden_size": 32, "layers": 1, "heads": 1, "patch_size": 14}
    family, side = POLICIES[mixture.policy.kind][1], mixture.lock["policy"]["side"]
    words = {"kind": "llama", "hidden_size": 32, "layers": 1, "heads": 1}
    settings = build(ModelSettings, {"family": family, "vision": tower | {"image_size": side}, "text": words}, "model")
    tokenizer = load_tokenizer(mixture.tokenizer, mixture.chat)
    reader = Reader(mixture, tokenizer, find(settings, mixture.policy), "text")
    starts = range(step * ROWS, mixture.rows, ROWS)
    steps = ([list(range(start, min(start + ROWS, mixture.rows)))] for start in starts)

    def bare(row: int) -> list[Document]:
        segments = mixture.row(row)
        return [
            Document(segment.source, [0], [0], (stored_tiles(mixture.policy, stored),))
            for segment, stored in zip(segments, mixture.read(segments), strict=True)
        ]

    for (batch,) in load(reader.row if text else bare, steps, mark_id(tokenizer, mixture.chat.pad), threads, 4):
        real = batch.sources >= 0
        yield int(((batch.positions == 0) & real).sum()), batch.shown


def webdataset(run: Path, workers: int) -> Iterator[tuple[int, int]]:
    """WebDataset's pipeline, a sample at a time."""
    import webdataset as wds  # noqa: PLC0415 - of the reader that is measured

    policy, tars = Mixture(run, STAGE).policy, sorted(map(str, run.glob("shards/**/*.tar")))

    def tiles(sample: dict[str, Any]) -> Tiles:
        return tiles_of(policy, json.loads(sample["json"]), sample)

    data = wds.WebDataset(tars, shardshuffle=False, empty_check=False).map(tiles)
    for found in wds.WebLoader(data, batch_size=None, num_workers=workers):
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

    policy = Mixture(run, STAGE).policy

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

    policy = Mixture(run, STAGE).policy

    class Data(StreamingDataset):  # type: ignore[misc] - untyped here
        def __getitem__(self, index: Any) -> Tiles:
            members = dict(parse(bytes(super().__getitem__(index))))
            return tiles_of(policy, json.loads(members["json"]), members)

    loader = StreamingDataLoader(
        Data(str(run / "litdata")), batch_size=1, num_workers=workers, collate_fn=lambda items: items[0]
    )
    for found in loader:
        yield 1, len(found)


READERS: dict[str, Callable[[Path], Iterator[tuple[int, int]]]] = {
    **{f"vlmill, {count} threads": lambda run, count=count: ours(run, count) for count in (1, 2, 3, 4)},  # type: ignore[misc]
    **{f"webdataset, {count} workers": lambda run, count=count: webdataset(run, count) for count in (0, 2)},  # type: ignore[misc]
    **{f"energon, {count} workers": lambda run, count=count: energon(run, count) for count in (0, 2)},  # type: ignore[misc]
    **{f"litdata, {count} workers": lambda run, count=count: litdata(run, count) for count in (0, 2)},  # type: ignore[misc]
    "vlmill, 2 threads, no texts": lambda run: ours(run, 2, text=False),
    "vlmill, resumed at step 10^6": lambda run: itertools.islice(ours(run / "far", 2, FAR), 1),
}


def read(run: Path, name: str) -> dict[str, float]:
    """Read the run with one reader, in this process."""
    for module in ("train.families.llava", "train.families.llava_next") if "vlmill" in name else ("torch",):
        import_module(module)
    began, before = time.perf_counter(), _spent()
    counts, first = [], 0.0
    for count in READERS[name](run):
        first = first or time.perf_counter() - began
        counts.append(count)
    wall = time.perf_counter() - began - first
    samples, tiles = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    later = samples - counts[0][0] if counts else 0
    return {"samples": samples, "tiles": tiles, "wall": wall, "later": later, "first": first, "cpu": _spent() - before}


def _spent() -> float:
    """Seconds of processors that this process and its ended children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(who.ru_utime + who.ru_stime for who in used)


# -- what a reader needs of its own


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
    subprocess.run([python, "-m", "benchmarks.loader", "--optimise", str(run)], check=True, capture_output=True)


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


def make(run: Path, options: argparse.Namespace) -> None:
    """The run, and beside it what other readers need; says which of them is not there."""
    policy = replace(POLICIES[options.policy][0], quality=options.quality)  # type: ignore[type-var]
    write_run(run, {"web": made(options.samples, options.pictures)}, policy, STAGE, LENGTH, per_shard=PER_SHARD)
    lengthen(run)
    for prepare in (prepare_energon, prepare_litdata):
        try:
            prepare(run, options.python)
        except subprocess.CalledProcessError as error:
            print(f"{prepare.__name__}: {error.stderr.decode().strip().splitlines()[-1]}")


def lengthen(run: Path) -> None:
    """A run over the same files whose plan has as many rows as FAR steps need, and some more: its own as one block, again and again."""
    far = run / "far"
    far.mkdir()
    for name in ("shards", "tokenizer.json"):
        (far / name).symlink_to(run / name)
    lock = json.loads((run / "mixtures" / STAGE / "mixture.lock.json").read_bytes())
    folder = far / "mixtures" / STAGE
    folder.mkdir(parents=True)
    files = [run / "mixtures" / STAGE / block["path"] for block in lock["plan"]["blocks"]]
    block = pa.concat_tables([pq.read_table(path) for path in files])
    pq.write_table(block, folder / "block.parquet")
    firsts = range(0, (FAR + 9) * ROWS, block.num_rows)
    lock["plan"] = {
        "rows": len(firsts) * block.num_rows,
        "blocks": [{"path": "block.parquet", "first": first, "rows": block.num_rows} for first in firsts],
    }
    (folder / "mixture.lock.json").write_text(json.dumps(lock))


# -- the measurement


def measure(run: Path, name: str, python: str) -> dict[str, float] | str:
    """One reader in a process of its own, and the most memory that it and its workers had; or why there is no figure."""
    command = [python, "-m", "benchmarks.loader", "--only", name, "--run", str(run)]
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        process = psutil.Popen(command, stdout=said, stderr=wrong, text=True)
        peak, done = 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.3):
                peak = max(peak, _memory(process))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
        said.seek(0)
        wrong.seek(0)
        if code:
            return wrong.read().strip().splitlines()[-1]
        result: dict[str, float] = json.loads(said.read().splitlines()[-1])
    return result | {"peak": peak / 2**20}


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_full_info().pss
    except psutil.Error:
        return total
    return total


def compare(run: Path, python: str, rounds: int) -> None:
    """Every reader in turns, `rounds` times; prints a line of each one's best."""
    size = sum(path.stat().st_size for path in run.glob("shards/**/*.tar"))
    for path in run.glob("shards/**/*"):
        if path.is_file():
            path.read_bytes()
    found: dict[str, list[dict[str, float]]] = {}
    for name in [name for _ in range(rounds) for name in READERS]:
        result = measure(run, name, python)
        if isinstance(result, str) or not result["samples"]:
            print(f"{name:<30} {result or 'no sample'}", flush=True)
            continue
        found.setdefault(name, []).append(result)
    for name, results in found.items():
        best = {key: min(result[key] for result in results) for key in ("wall", "first", "cpu", "peak")}
        if "resumed" in name:
            print(f"{name:<30} first {best['first']:.2f} s, peak {best['peak']:.0f} MB")
            continue
        samples, later = results[0]["samples"], results[0]["later"]
        print(
            f"{name:<30} {later / best['wall']:7.1f} samples/s {size / 1e6 * later / samples / best['wall']:6.1f} MB/s, "
            f"{1000 * best['cpu'] / samples:5.2f} cpu ms/sample, first {best['first']:.2f} s, peak {best['peak']:.0f} MB, "
            f"{samples:.0f} samples and {results[0]['tiles']:.0f} tiles"
        )
    speeds = {name: results[0]["later"] / min(result["wall"] for result in results) for name, results in found.items()}
    peers = [speed for name, speed in speeds.items() if not name.startswith("vlmill")]
    for name in (name for name in speeds if name.startswith("vlmill") and "resumed" not in name and peers):
        print(f"{name} over the best of the others: {speeds[name] / max(peers):.2f}")


def main() -> None:
    """Print a line per reader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="a folder of picture files; generated ones without it")
    parser.add_argument("--policy", choices=POLICIES, default="letterbox")
    parser.add_argument("--quality", type=int, help="of JPEG; without it pictures are stored without loss")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="an interpreter that has the other readers, and this project's packages",
    )
    parser.add_argument("--run", type=Path, help="where the run is kept, and read again if it is there")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--optimise", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.optimise:
        optimise(options.optimise)
        return
    if options.only:
        print(json.dumps(read(options.run, options.only)))
        return
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if not run.exists():
            make(run, options)
        size = sum(path.stat().st_size for path in run.glob("shards/**/*.tar"))
        policy = Mixture(run, STAGE).policy
        print(f"{policy}, {size / 1e6:.0f} MB in shards of {PER_SHARD} samples, {os.cpu_count()} cores", flush=True)
        compare(run, options.python, options.rounds)


if __name__ == "__main__":
    main()
