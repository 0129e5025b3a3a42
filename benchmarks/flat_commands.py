"""What every command that reads a run takes, for `python -m benchmarks.flat --commands`.

Builds a run of 2,000 pairs of a picture and a caption to its shards, in one partition, then lists that partition as
often as the samples ask for, under other names, in the manifests and receipts of every step: so a folder of a million
samples is as long to read as one that was built, and takes the disk of 2,000. That is `tables`; `stage` is a complete
run with a stage and shards (flat_stage.py). Each command is a process of its own.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from benchmarks.flat_stage import write_linked_inputs
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
STAGE_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("build", "RECIPE", "--out", "RUN", "--workers", "0"),
    ("preview", "RECIPE"),
    ("stats", "RUN"),
    ("stats", "RUN", "--html", "NEW.html"),
    ("explore", "RUN"),
    ("disclose", "RUN", "--out", "NEW"),
    ("takedown", "RUN", "--id", "pairs/pairs-00000.parquet#1999", "--dry-run", "--workers", "0"),
    ("train", "RUN", "--threads", "1"),
    ("evaluate", "RUN", "--threads", "1"),
    ("export", "RUN", "--stage", "align", "--order", "samples", "--to", "parquet", "--out", "NEW"),
    ("export", "RUN", "--stage", "align", "--order", "samples", "--to", "messages", "--out", "NEW"),
    ("takedown", "RUN", "--id", "pairs/pairs-00000.parquet#1999", "--workers", "0"),
)
"""Of a run with a stage (flat_stage.py). A stage is exported to its end, since `export` knows no part of one. The last
command changes the run."""

LONGEST = 900.0
"""Seconds after which a command is interrupted."""


def write_pairs(path: Path) -> None:
    """Pictures and captions that stay, the same in every run: which are held out hangs on them."""
    images, texts, rng = [], [], random.Random(0)
    for number in range(ROWS):
        data = io.BytesIO()
        Image.frombytes("RGB", (16, 16), rng.randbytes(768)).resize((64, 64)).save(data, "PNG")
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


def run_command(status: Path, *arguments: str) -> tuple[float, float, str]:
    """Wall seconds, the most MiB of the process, and how a command ended where that was not well.

    The memory is what the process itself says at its end: what the kernel tells of a child counts its parent as well.
    One that takes longer than LONGEST is interrupted.
    """
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", COMMAND, status, *arguments], stdout=subprocess.DEVNULL)
    try:
        code = process.wait(LONGEST)
        ended = f"ended with {code}" if code else ""
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
        ended = f"interrupted after {LONGEST:.0f} s"
    return time.perf_counter() - began, read_peak(status), ended


def explore_run(status: Path, root: str) -> tuple[float, float, str]:
    """The same of the viewer, whose server is asked for the overview, and for samples as soon as its index is there."""
    began = time.perf_counter()
    command = [sys.executable, "-c", COMMAND, status, "explore", root]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "XDG_CACHE_HOME": str(status.parent)}
    ) as server:
        try:
            assert server.stdout
            address = urlsplit(server.stdout.readline().split()[-1])
            ((token, *_),) = parse_qs(address.query).values()
            for path in ("overview", "samples?number=36"):
                request = Request(f"http://{address.netloc}/api/{path}", headers={"x-vlmill-token": token})
                while not _is_answered(request):
                    time.sleep(0.5)
            most = read_peak(Path(f"/proc/{server.pid}/status"))
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()
    return time.perf_counter() - began, most, ""


def _is_answered(request: Request) -> bool:
    try:
        with urlopen(request) as answer:
            answer.read()
    except HTTPError:  # the index is being made
        return False
    return True


def read_peak(status: Path = Path("/proc/self/status")) -> float:
    """The most MiB that a process has taken, by what Linux says of it."""
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def measure_commands(samples: int, base: Path, what: str) -> None:
    """Print a line for each command over a run of so many samples below the empty folder `base`."""
    root, status, times = base / "run", base / "status", samples // ROWS
    write_pairs(base / "pairs.parquet")
    print(f"{times * ROWS:,} samples in {times:,} partitions, {what}", flush=True)
    if what == "tables":
        run_command(status, "build", str(write_recipe(base)), "--out", str(root), "--workers", "0", "--until", "dedupe")
        repeat_partitions(root, times)
        runs = [(command[0], str(root), *command[1:]) for command in COMMANDS]
    else:
        recipe = str(write_linked_inputs(base / "in", base / "pairs.parquet", times))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.flat_stage", recipe, str(root)], stdout=subprocess.DEVNULL, check=True
        )
        assert done.returncode == 0
        names = {"RECIPE": recipe, "RUN": str(root), "NEW": str(base / "new"), "NEW.html": str(base / "new.html")}
        runs = [tuple(names.get(word, word) for word in command) for command in STAGE_COMMANDS]
    for run in runs:
        wall, most, ended = run_command(status, *run) if run[0] != "explore" else explore_run(status, run[1])
        told = " ".join(word for word in run if str(base) not in word)
        print(f"  {told:<52} {wall:7.1f} s {most:6.0f} MiB  {ended}".rstrip(), flush=True)
        shutil.rmtree(base / "new", ignore_errors=True)
        (base / "new.html").unlink(missing_ok=True)


def print_commands(sizes: Iterable[int], folder: Path | None, what: Iterable[str]) -> None:
    """Print a table for each kind of run and each size, and for a run of one partition."""
    for kind in what:
        for samples in (ROWS, *sizes):
            with tempfile.TemporaryDirectory(prefix="vlmill-flat-", dir=folder) as name:
                measure_commands(samples, Path(name), kind)
