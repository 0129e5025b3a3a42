"""Builds beside img2dataset, Ray Data and Data-Juicer on the same documents: `python -m benchmarks.peers FILE`.

FILE is a Parquet file in OBELICS' columns, of which the first `--rows` are taken; `--mirror FROM=TO` says where its
images really are. Three jobs, each by the peer and by a recipe, one after the other, on `--workers` cores:

- `download`: all images as they came. img2dataset 1.47 without resizing, into tars. The recipe also decodes and
  measures each.
- `curate`: English documents, each text once, images at 384 x 384 with borders as JPEG, in tars of WebDataset. Ray Data
  as its documentation writes it: requests in threads, fastText, a set of texts. The recipe also measures images and
  keeps a verdict for each loss.
- `near`: English documents with images of 64 pixels and more, no near duplicates of texts, no images twice.
  Data-Juicer's operators, from files that were downloaded before; the recipe downloads them. Runs with
  `--data-juicer PYTHON`, the interpreter of an environment that has py-data-juicer, and `--lid`, a model of fastText.

CPU and memory are of all processes of a job, which are known by a variable of their environment: what each used when it
was last looked at, four times a second, and the largest sum of their proportional set sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

MARK = "VLMILL_BENCHMARK_JOB"
SIDE = 384
SMALLEST = 64
SCRIPTS = Path(__file__).with_name("peer_scripts")


@dataclass
class Used:
    """What the processes of a job took."""

    wall: float = 0
    cpu: dict[int, float] = field(default_factory=dict)  # seconds, by process
    memory: int = 0  # bytes, at most

    def look(self, mark: str) -> None:
        """Look at all processes of the job."""
        total = 0
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get(MARK) == mark:
                    times = process.cpu_times()
                    self.cpu[process.pid] = times.user + times.system
                    total += process.memory_full_info().pss
        self.memory = max(self.memory, total)


def run_measured(command: Sequence[str], mark: str, more: Mapping[str, str] | None = None) -> Used:
    """Run a command to its end. Ends this process with what it printed last where it fails."""
    used, ended = Used(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            used.look(mark)

    watcher, began = threading.Thread(target=watch), time.perf_counter()
    environment = {**os.environ, **(more or {}), MARK: mark, "RAY_AUTH_MODE": "disabled"}
    watcher.start()
    try:
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    finally:
        used.wall = time.perf_counter() - began
        ended.set()
        watcher.join()
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return used


def write_recipe(folder: Path, mirror: Mapping[str, str], **sections: Any) -> Path:
    """A recipe over `documents.parquet`; images wait for the filter of languages where it has one."""
    fetch = {"mirrors": dict(mirror), "user_agent": "benchmark", "honour_hosts": False, "honour_robots": False}
    recipe = {
        "name": folder.name,
        "sources": {"web": {"kind": "obelics", "files": "documents.parquet"}},
        "fetch": fetch | ({"after": "language"} if "filters" in sections else {}),
        "filters": [],
        "dedupe": None,
        "stages": [],
        **sections,
    }
    path = folder / f"{len(list(folder.glob('*.yaml')))}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def build(folder: Path, recipe: Path, workers: int) -> Used:
    """`vlmill build` of a recipe into `<name of the recipe>-run`."""
    out = folder / f"{recipe.stem}-run"
    command = [sys.executable, "-m", "vlmill.pipeline.cli", "build", str(recipe), "--out", str(out)]
    return run_measured([*command, "--workers", str(workers)], str(out))


def count_run(root: Path) -> str:
    """Samples and images that a run keeps."""
    told = subprocess.run(
        [sys.executable, "-m", "vlmill.pipeline.cli", "report", str(root), "--json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    funnel = json.loads(told.stdout)["funnel"]["counts"]["web"]
    return f"{funnel['samples']['kept']:,} / {funnel['images']['kept']:,}"


def list_addresses(documents: Path, mirror: Mapping[str, str]) -> list[str]:
    """The images of all documents, each once, where they really are."""
    found = dict.fromkeys(
        url for images in pq.read_table(documents, columns=["images"])["images"].to_pylist() for url in images if url
    )
    return [_replace_start(url, mirror) for url in found]


def _replace_start(url: str, mirror: Mapping[str, str]) -> str:
    for start, real in mirror.items():
        if url.startswith(start):
            return real + url.removeprefix(start)
    return url


def run_img2dataset(folder: Path, addresses: Sequence[str], workers: int) -> tuple[Used, str]:
    """img2dataset's own command over a list of addresses."""
    (folder / "addresses.txt").write_text("\n".join(addresses))
    out = folder / "img2dataset"
    command = [
        str(Path(sys.executable).with_name("img2dataset")), "--url_list", str(folder / "addresses.txt"),
        "--output_folder", str(out), "--output_format", "webdataset", "--resize_mode", "no",
        "--processes_count", str(workers), "--thread_count", "64", "--number_sample_per_shard", "1000",
    ]  # fmt: skip
    used = run_measured(command, str(out))
    kept = sum(json.loads(path.read_text())["successes"] for path in out.glob("*_stats.json"))
    return used, f"- / {kept:,}"


def run_script(folder: Path, python: str, script: str, *arguments: str, **environment: str) -> tuple[Used, str]:
    """A script of `peer_scripts`, which writes what it kept into `kept.txt` of its output folder."""
    out = folder / script
    out.mkdir()
    used = run_measured([python, str(SCRIPTS / f"{script}.py"), str(out), *arguments], str(out), environment)
    return used, (out / "kept.txt").read_text()


def write_juicer_input(folder: Path, mirror: Mapping[str, str]) -> Path:
    """The documents in Data-Juicer's form, their images as files; those that cannot be had or opened are left out."""
    images, rows = folder / "images", pq.read_table(folder / "documents.parquet").to_pylist()
    images.mkdir()
    addresses = list_addresses(folder / "documents.parquet", mirror)

    def download(numbered: tuple[int, str]) -> str:
        number, url = numbered
        path = images / f"{number}{Path(url).suffix[:5]}"
        with suppress(OSError), urlopen(url, timeout=10) as answer:
            path.write_bytes(answer.read())
            return str(path)
        return ""

    with ThreadPoolExecutor(16) as pool:
        files = dict(zip(addresses, pool.map(download, enumerate(addresses)), strict=True))
    path = folder / "documents.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            parts, shown = [], []
            for text, url in zip(row["texts"], row["images"], strict=True):
                file = files[_replace_start(url, mirror)] if url else ""
                parts += [text] if text else ["<__dj__image>"] if file else []
                shown += [file] if file else []
            lines.write(json.dumps({"text": "\n\n".join(parts), "images": shown}) + "\n")
    return path


def main() -> None:
    """Print a line for each job and who did it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--mirror", action="append", default=[], metavar="FROM=TO")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data-juicer", metavar="PYTHON")
    parser.add_argument("--lid", type=Path, help="a model of fastText, for Ray Data and Data-Juicer")
    parser.add_argument("--jobs", nargs="+", default=["download", "curate", "near"])
    options = parser.parse_args()
    mirror = dict(one.split("=", 1) for one in options.mirror)
    english = {"filters": [{"language": {"keep": ["en"]}}]}
    policies = {"square": {"kind": "letterbox", "side": SIDE, "patch": 14}}
    table = Table("job", "by", "documents / images", "wall s", "CPU s", "memory MB")

    def add(job: str, by: str, used: Used, kept: str) -> None:
        figures = (f"{used.wall:.1f}", f"{sum(used.cpu.values()):.1f}", f"{used.memory / 2**20:,.0f}")
        table.add_row(job, by, kept, *figures)
        print(job, by, kept, *figures, flush=True)

    with tempfile.TemporaryDirectory(prefix="vlmill-peers-") as name:
        folder = Path(name)
        documents = folder / "documents.parquet"
        pq.write_table(pa.table(pq.read_table(options.file)).slice(0, options.rows), documents)

        def add_ours(job: str, **sections: Any) -> None:
            recipe = write_recipe(folder, mirror, **sections)
            used = build(folder, recipe, options.workers)
            add(job, "vlmill", used, count_run(folder / f"{recipe.stem}-run"))

        if "download" in options.jobs:
            add("download", "img2dataset", *run_img2dataset(folder, list_addresses(documents, mirror), options.workers))
            add_ours("download")
        if "curate" in options.jobs:
            settings = json.dumps({"mirror": mirror, "side": SIDE, "lid": str(options.lid), "cores": options.workers})
            add("curate", "Ray Data", *run_script(folder, sys.executable, "ray_data", str(documents), settings))
            add_ours("curate", **english, dedupe={"text": 1.0, "image": 1.0}, policies=policies)
        if "near" in options.jobs and options.data_juicer:
            made, cache = write_juicer_input(folder, mirror), folder / "cache"
            (cache / "models").mkdir(parents=True)
            shutil.copy(options.lid, cache / "models/lid.176.bin")
            settings = json.dumps({"smallest": SMALLEST, "cores": options.workers})
            environment = {"DATA_JUICER_CACHE_HOME": str(cache), "HF_DATASETS_CACHE": str(cache / "datasets")}
            peer = run_script(folder, options.data_juicer, "data_juicer_job", str(made), settings, **environment)
            add("near", "Data-Juicer", *peer)
            add_ours(
                "near",
                filters=[*english["filters"], {"shape": {"min_side": SMALLEST}}],
                dedupe={"text": 0.8, "image": 0.97, "near_images": True},
            )
    Console().print(table)


if __name__ == "__main__":
    main()
