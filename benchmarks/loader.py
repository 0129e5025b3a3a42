"""Samples a second from shards, beside webdataset, Megatron-Energon and litdata.

`python -m benchmarks.loader [--pictures DIR]`.

Makes a run of samples with a text and one to three images, under a policy of one tile of 384 px or AnyRes of 336 px,
from the picture files in DIR, else from generated ones. Every reader then reads all of it in a separate process, on
the same number of cores, and hands the tiles of every sample to that process, uint8, cut by the same functions from the
same bytes. Ours alone encodes the texts, too, and packs. Files were read once before; imports are not counted. litdata
reads its own copy of the same bytes; to make that is not counted.

    samples/s, MB/s   of shards, after the first batch
    cpu ms/sample     of all processes, steadier than the clock on a machine that has other work
    first             seconds from the path of the run to the first batch: lock, tokenizer, indices
    load              the highest load average behind one of its turns: what else the machine had to do
    peak              the most memory of the reader's process and its workers (proportional set size)

Readers take turns, so a round is one comparison. Then ours once more at step 10^6 of a plan so long, its blocks
repeated. Readers that are not installed are left out: megatron-energon needs webdataset 1.0, so PYTHON (`--python`) is
best an interpreter of an environment that has both, litdata, and this project.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import psutil

from benchmarks.loader_peers import Tiles, energon, litdata, prepare, webdataset
from benchmarks.loader_run import FAR, PER_SHARD, POLICIES, ROWS, STAGE, make
from vlmill.mixtures.reader import PlannedMixture, Stored
from vlmill.pipeline.chat.encode import get_mark_id, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.images import Policy
from vlmill.train.batch import Document
from vlmill.train.data import Reader, decode_stored, load_batches
from vlmill.train.families import find_family
from vlmill.train.settings import ModelSettings


def stored_tiles(policy: Policy, stored: Stored) -> Tiles:
    """The encoder inputs of a whole sample that was read by its place; see `tiles_of` for the others."""
    tiles: Tiles = []
    for parts, layout in zip(stored.parts, policy.layout(stored.sizes), strict=True):
        tiles += policy.tiles({name: decode_stored(data) for name, data in parts.items()}, layout)
    return tiles


def ours(run: Path, threads: int, step: int = 0, *, text: bool = True) -> Iterator[tuple[int, int]]:
    """The trainer's loader, from a step to the end of the plan; without texts it does what the others do."""
    mixture = PlannedMixture(run, STAGE)
    tower = {"kind": "siglip", "hidden_size": 32, "layers": 1, "heads": 1, "patch_size": 14}
    family, side = POLICIES[mixture.policy.kind][1], mixture.lock["policy"]["side"]
    words = {"kind": "llama", "hidden_size": 32, "layers": 1, "heads": 1}
    settings = parse_block(
        ModelSettings, {"family": family, "vision": tower | {"image_size": side}, "text": words}, "model"
    )
    tokenizer = load_tokenizer(mixture.tokenizer, mixture.chat)
    reader = Reader(mixture, tokenizer, find_family(settings, mixture.policy), "text")
    starts = range(step * ROWS, mixture.sequences, ROWS)
    steps = ([list(range(start, min(start + ROWS, mixture.sequences)))] for start in starts)

    def bare(number: int) -> list[Document]:
        segments = mixture.sequence(number)
        return [
            Document(segment.source, [0], [0], (stored_tiles(mixture.policy, stored),))
            for segment, stored in zip(segments, mixture.read(segments), strict=True)
        ]

    for (batch,) in load_batches(
        reader.sequence if text else bare, steps, get_mark_id(tokenizer, mixture.chat.pad), threads, 4
    ):
        real = batch.sources >= 0
        yield int(((batch.positions == 0) & real).sum()), batch.shown


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
    for module in (
        ("vlmill.train.families.llava", "vlmill.train.families.llava_next") if "vlmill" in name else ("torch",)
    ):
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


def measure(run: Path, name: str, python: str) -> dict[str, float] | str:
    """One reader in a separate process, and the peak memory of it and its workers; or why there is no figure."""
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
    return result | {"peak": peak / 2**20, "load": os.getloadavg()[0]}


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_full_info().pss
    except psutil.Error:
        return total
    return total


def compare(run: Path, python: str, rounds: int) -> None:
    """Every reader in turns, `rounds` times; prints a line of each one's best, and how ours compares in each round."""
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
        load = max(result["load"] for result in results)
        print(
            f"{name:<30} {later / best['wall']:7.1f} samples/s {size / 1e6 * later / samples / best['wall']:6.1f} "
            f"MB/s, {1000 * best['cpu'] / samples:5.2f} cpu ms/sample, first {best['first']:.2f} s, peak "
            f"{best['peak']:.0f} MB, {samples:.0f} samples and {results[0]['tiles']:.0f} tiles, load {load:.1f}"
        )
    speeds = {name: [result["later"] / result["wall"] for result in results] for name, results in found.items()}
    peers = [values for name, values in speeds.items() if not name.startswith("vlmill")]
    for name, values in speeds.items():
        if name.startswith("vlmill") and "resumed" not in name and peers:
            ratios = (value / max(others) for value, *others in zip(values, *peers, strict=False))
            print(f"{name} over the best of the others, by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


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
    options = parser.parse_args()
    if options.only:
        print(json.dumps(read(options.run, options.only)))
        return
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if not run.exists():
            make(run, options.policy, options.quality, options.samples, options.pictures)
            prepare(run, options.python)
        size = sum(path.stat().st_size for path in run.glob("shards/**/*.tar"))
        policy = PlannedMixture(run, STAGE).policy
        print(f"{policy}, {size / 1e6:.0f} MB in shards of {PER_SHARD} samples, {os.cpu_count()} cores", flush=True)
        compare(run, options.python, options.rounds)


if __name__ == "__main__":
    main()
