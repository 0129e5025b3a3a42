"""What every command that reads a run takes, for `python -m benchmarks.flat --commands`.

Builds a run of 2,000 pairs of a picture and a caption to its shards, in one partition, then lists that partition as
often as the samples ask for, under other names, in the manifests and receipts of every step: so a folder of a million
samples is as long to read as one that was built, and takes the disk of 2,000. Each command is a process of its own.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from vlmill.pipeline.core.keys import DIGITS
from vlmill.pipeline.core.names import name_resolved_verdicts
from vlmill.pipeline.engine.chain import read_manifest, write_manifest
from vlmill.pipeline.engine.store import File, Receipt

ROWS = 2_000
PARTITION = "00000-0000"
COMMAND = """
import atexit, pathlib, sys
status = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: status.write_text(pathlib.Path("/proc/self/status").read_text()))
from vlmill.pipeline import cli
cli.main()
"""
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("report",),
    ("trace", "pairs/pairs.parquet#1999"),
    ("clean",),
    ("verify", "--workers", "0"),
    ("what-if", "--set", "filters.shape.min_side=70"),
    ("what-if", "--set", "dedupe.image=0.99"),
)


def write_pairs(path: Path) -> None:
    """Pictures and captions that stay."""
    images, texts = [], []
    for number in range(ROWS):
        data = io.BytesIO()
        Image.frombytes("RGB", (16, 16), os.urandom(768)).resize((64, 64)).save(data, "PNG")
        images.append({"bytes": data.getvalue(), "path": f"{number}.png"})
        texts.append(f"A caption with the number {number} of a picture that was drawn from noise for a benchmark.")
    pq.write_table(pa.table({"image": images, "caption": texts}), path)


def write_recipe(folder: Path) -> Path:
    """The recipe of the run."""
    options = {"image": "image", "caption": "caption"}
    recipe = {
        "name": "flat",
        "sources": {"pairs": {"kind": "table", "files": "pairs.parquet", "options": options}},
        "filters": [{"shape": {"min_side": 32}}],
        "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
        "stages": [],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def repeat_partitions(root: Path, times: int) -> None:
    """List the run's partition so often, in every manifest and with its receipts."""
    for path in sorted(root.glob("steps/**/manifest.json")):
        folder = str(path.parent.relative_to(root))
        receipts = read_manifest(root, folder)
        if folder == "steps/dedupe/resolve":
            (receipt,) = receipts
            counts = {level: _multiply_line(line, times) for level, line in receipt.counts.items()}
            made = [replace(receipt, files=tuple(_repeat_verdicts(receipt.files, times)), counts=counts)]
        elif PARTITION in {receipt.partition for receipt in receipts}:
            made = [replace(each, partition=f"00000-{n:04d}") for n in range(times) for each in receipts]
        else:
            continue
        for each in made:
            _write_receipt(root / folder, each)
        write_manifest(root, folder, made)


def _multiply_line(line: Mapping[str, Any], times: int) -> dict[str, Any]:
    """A line of counts, so many times."""
    return {
        name: {reason: times * number for reason, number in value.items()} if isinstance(value, dict) else times * value
        for name, value in line.items()
    }


def _repeat_verdicts(files: tuple[File, ...], times: int) -> Iterator[File]:
    own = name_resolved_verdicts(f"pairs/{PARTITION}")
    for file in files:
        if file.name != own:
            yield file
        else:
            yield from (replace(file, name=name_resolved_verdicts(f"pairs/00000-{n:04d}")) for n in range(times))


def _write_receipt(folder: Path, receipt: Receipt) -> None:
    path = folder / f"{receipt.partition}.{receipt.key[:DIGITS]}.receipt.json"
    path.write_text(json.dumps(receipt.to_json()))


def run_command(status: Path, *arguments: str) -> tuple[float, float, int]:
    """Wall seconds, the most MiB of the process, and the exit status of a command.

    The memory is what the process itself says at its end: what the kernel tells of a child counts its parent as well.
    """
    began = time.perf_counter()
    ended = subprocess.run([sys.executable, "-c", COMMAND, status, *arguments], stdout=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began, read_peak(status), ended.returncode


def read_peak(status: Path = Path("/proc/self/status")) -> float:
    """The most MiB that a process has taken, by what Linux says of it."""
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def print_commands(samples: int, folder: Path | None) -> None:
    """Print a line for each command."""
    with tempfile.TemporaryDirectory(prefix="vlmill-flat-", dir=folder) as name:
        base, root = Path(name), Path(name) / "run"
        write_pairs(base / "pairs.parquet")
        run_command(
            base / "status", "build", str(write_recipe(base)), "--out", str(root), "--workers", "0", "--until", "dedupe"
        )
        for number in (1, samples // ROWS):
            repeat_partitions(root, number)
            print(f"{number * ROWS:,} samples in {number:,} partitions", flush=True)
            for command in COMMANDS:
                wall, most, status = run_command(base / "status", command[0], str(root), *command[1:])
                ended = f", ended with {status}" if status else ""
                print(f"  {' '.join(command):<52} {wall:7.1f} s {most:6.0f} MiB{ended}", flush=True)
