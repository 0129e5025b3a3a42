"""The build's wall time over the time of its bare work: `python -m benchmarks.build [--images 1000]`.

The bare work is plain loops in as many processes against the same server: the same downloader, both decodes, hashes,
resize, encode, tar; no receipts, tables, samples or Ray. Both run one after the other, for N and for 10 N generated
images, and the peak memory of each whole process tree is sampled.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.fetch.process import download_images
from vlmill.pipeline.images import POLICIES
from vlmill.pipeline.images.decode import decode_image
from vlmill.pipeline.images.pixels import encode_image
from vlmill.pipeline.steps.image_stats import compute_image_stats

PER_DOCUMENT = 5
POLICY = {"kind": "letterbox", "side": 384, "patch": 14}
MAX_PIXELS = 178_956_970


def picture(number: int) -> bytes:
    """A JPEG of about 640 x 480 and 60 kB: smooth shapes and noise, none like another."""
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    size = (int(generator.integers(500, 800)), int(generator.integers(380, 600)))
    pixels = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
    noisy = np.clip(pixels + generator.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=85)
    return file.getvalue()


def make(folder: Path, images: int) -> None:
    """The images, and documents of PER_DOCUMENT images each in OBELICS' columns."""
    (folder / "images").mkdir()
    for number in range(images):
        (folder / "images" / f"{number}.jpg").write_bytes(picture(number))
    rows = []
    for start in range(0, images, PER_DOCUMENT):
        urls = [
            f"http://images.example.test/{number}.jpg" for number in range(start, min(images, start + PER_DOCUMENT))
        ]
        texts = [f"Paragraph {start} about the picture that follows it." for _ in urls]
        rows.append(
            {
                "images": [url if turn else None for url in urls for turn in (0, 1)],
                "texts": [None if turn else text for text in texts for turn in (0, 1)],
                "metadata": json.dumps([None] * (2 * len(urls))),
                "general_metadata": json.dumps({"url": f"http://documents.example.test/{start}"}),
            }
        )
    strings = pa.list_(pa.string())
    schema = pa.schema(
        [("images", strings), ("texts", strings), ("metadata", pa.string()), ("general_metadata", pa.string())]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "documents.parquet")
    recipe = {
        "name": "benchmark",
        "sources": {"web": {"kind": "obelics", "files": "documents.parquet"}},
        "partition": {"rows": 20},
        "filters": [],
        "dedupe": None,
        "policies": {"large": POLICY},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


def bare(numbers: list[int], port: int, target: str) -> None:
    """Download, look, decode again, resize, encode and tar, as fast as plain loops do it; 1,000 images at a time."""
    policy = POLICIES[POLICY["kind"]](**{name: value for name, value in POLICY.items() if name != "kind"})
    with tarfile.open(target, "w") as tar:
        for start in range(0, len(numbers), 1000):
            urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in numbers[start : start + 1000]]
            with tempfile.TemporaryDirectory() as scratch:
                found = download_images(urls, Fetch(allow_hosts=("127.0.0.1",)), Path(scratch))
                for place, url in enumerate(urls):
                    data = found[url].columns()["bytes"]
                    compute_image_stats(place, data)
                    image = decode_image(data, MAX_PIXELS)
                    (layout,) = policy.layout([image.size])
                    for part, rendered in policy.render(image, layout).items():
                        extension, encoded = encode_image(rendered, policy.quality)
                        member = tarfile.TarInfo(f"{start + place:09d}.{part}.{extension}")
                        member.size = len(encoded)
                        tar.addfile(member, io.BytesIO(encoded))


def run_bare(folder: Path, images: int, port: int, workers: int) -> None:
    """The bare work in `workers` processes."""
    spawn = multiprocessing.get_context("spawn")
    numbers = list(range(images))
    processes = [
        spawn.Process(target=bare, args=(numbers[w::workers], port, str(folder / f"bare-{w}.tar")))
        for w in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0, "the bare work failed"


def run_build(folder: Path, port: int, workers: int) -> None:
    """The same through `vlmill build`."""
    mirror = json.dumps({"http://images.example.test/": f"http://127.0.0.1:{port}/"})
    command = [
        sys.executable,
        "-m",
        "vlmill.pipeline.cli",
        "build",
        str(folder / "recipe.yaml"),
        "--out",
        str(folder / "out"),
        "--workers",
        str(workers),
        "--set",
        f"fetch.mirrors={mirror}",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def measured(work: Callable[[], None]) -> tuple[float, float, float]:
    """Wall and CPU seconds, and the peak memory (proportional set size, MB) of this process and its children."""
    peak, stop, cpu = [0.0], Event(), dict[tuple[int, float], float]()
    base = _note_processes(cpu)
    before = sum(cpu.values())

    def watch() -> None:
        while not stop.wait(0.25):
            peak[0] = max(peak[0], _note_processes(cpu) - base)

    watcher = Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        work()
    finally:
        spent = time.perf_counter() - began
        stop.set()
        watcher.join()
    return spent, sum(cpu.values()) - before, peak[0]


def _note_processes(cpu: dict[tuple[int, float], float]) -> float:
    """The memory of this process and all below it, and in `cpu` the CPU seconds of each so far.

    Nobody waits for processes of Ray, so they are in no sum of the system; what one does in its last quarter of a
    second is not counted.
    """
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_full_info().pss
            times = process.cpu_times()
            cpu[process.pid, process.create_time()] = times.user + times.system
    return total / 2**20


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Takes many connections at once."""

    request_queue_size = 512
    daemon_threads = True


def serve(folder: str, ready: multiprocessing.Queue[int]) -> None:
    """Serve a folder on loopback until this process is killed."""
    server = Server(("127.0.0.1", 0), partial(Quiet, directory=folder))
    ready.put(server.server_address[1])
    server.serve_forever()


def compare(images: int, workers: int) -> list[str]:
    """One row of the table: both ways of doing `images` images."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="vlmill-benchmark-") as name:
        folder = Path(name)
        make(folder, images)
        ready: multiprocessing.Queue[int] = spawn.Queue()
        server = spawn.Process(target=serve, args=(str(folder / "images"), ready), daemon=True)
        server.start()
        port = ready.get()
        try:
            plain, plain_cpu, plain_memory = measured(lambda: run_bare(folder, images, port, workers))
            built, built_cpu, built_memory = measured(lambda: run_build(folder, port, workers))
        finally:
            server.kill()
            server.join()
    return [
        f"{images:,}",
        f"{plain:.1f}",
        f"{built:.1f}",
        f"{built / plain:.2f}",
        f"{plain_cpu:.1f}",
        f"{built_cpu:.1f}",
        f"{built_cpu / plain_cpu:.2f}",
        f"{plain_memory:.0f}",
        f"{built_memory:.0f}",
    ]


def main() -> None:
    """Print the table for both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="the smaller of the two sizes")
    parser.add_argument("--times", type=int, default=10, help="how much larger the other is")
    parser.add_argument("--workers", type=int, default=2, help="processes of both")
    arguments = parser.parse_args()
    table = Table("images", "bare s", "build s", "ratio", "bare CPU s", "build CPU s", "ratio", "bare MB", "build MB")
    for images in sorted({arguments.images, arguments.times * arguments.images}):
        table.add_row(*compare(images, arguments.workers))
    Console().print(table)


if __name__ == "__main__":
    main()
