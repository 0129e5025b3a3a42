"""How fast `vlmill explore` answers: `python -m benchmarks.explore [--samples 1000000]`.

Writes a run folder of so many pairs of an image and a text, in partitions of 10,000: tables and manifests as a build
leaves them, with image stats, one signal, the verdicts of `language` and of a threshold, and no picture. Then
explores it as a browser does, over a real connection: makes the index, starts again with the index that is there, and
times what the page asks for. Prints seconds, and the most memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import uvicorn
import yaml

from vlmill.explore.app import make_app
from vlmill.explore.state import Explorer
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE, name_scores, name_verdicts
from vlmill.pipeline.core.sample import (
    ImageStats,
    Node,
    Sample,
    SampleId,
    write_image_stats,
    write_samples,
    write_verdicts,
)
from vlmill.pipeline.core.scores import Scores, write_scores
from vlmill.pipeline.engine.chain import write_manifest
from vlmill.pipeline.engine.store import File, Receipt
from vlmill.pipeline.filters import FilterStep, Threshold
from vlmill.pipeline.filters.threshold import Bound

ROWS = 10_000
LEAST = 0.1
TOKEN = "benchmark"
WORDS = [
    "a",
    "an",
    "the",
    "red",
    "blue",
    "green",
    "old",
    "new",
    "small",
    "large",
    "bridge",
    "river",
    "boat",
    "house",
    "tree",
    "cat",
    "dog",
    "street",
    "market",
    "lamp",
]
RECIPE = {
    "name": "pairs",
    "sources": {"web": {"kind": "pairs_wds", "root": "/nowhere", "files": "*.tar", "licence": "CC0-1.0"}},
    "signals": {"fit": {"kind": "image_text_similarity", "model": "nowhere"}},
    "filters": [{"threshold": {"any": {"fit": {"min": LEAST}}}}],
    "dedupe": None,
    "policies": {},
    "stages": [],
}


def write_run(root: Path, samples: int) -> None:
    """A run's folder as a build leaves it, without pictures and shards."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "recipe.lock.yaml").write_text(yaml.safe_dump(RECIPE))
    receipts: dict[str, list[Receipt]] = {step: [] for step in ("read", "image_stats", "fit", "threshold", "outcomes")}
    for number in range(samples // ROWS):
        name = f"{number:05d}-0000"
        tables, kept = write_partition(root, name, number), 0
        kept = ROWS - tables.pop("dropped")
        counted = {"in": ROWS, "kept": kept, "dropped": {"signal:fit": ROWS - kept}, "failed": {}}
        whole = {"in": ROWS, "kept": ROWS, "dropped": {}, "failed": {}}
        nodes = {"in": 2 * ROWS, "kept": 2 * kept, "dropped": {"signal:fit": 2 * (ROWS - kept)}, "failed": {}}
        counts = {
            "read": {
                "rows": whole,
                "pages": whole,
                "samples": whole,
                "nodes": {**nodes, "kept": 2 * ROWS, "dropped": {}},
            },
            "outcomes": {"samples": counted, "nodes": nodes, "images": counted},
        }
        for step, found in receipts.items():
            files = tuple(File(**file) for file in tables.get(step, ()))
            found.append(Receipt(f"{number:064x}", name, files, counts.get(step, {}), {}))
    for step, found in receipts.items():
        (root / f"steps/web/{step}").mkdir(parents=True, exist_ok=True)
        write_manifest(root, f"steps/web/{step}", found)


def write_partition(root: Path, name: str, number: int) -> dict[str, Any]:
    """The tables of a partition: step -> its files, and how many samples the threshold drops."""
    random = np.random.default_rng(number)
    values = random.random((ROWS, 1), np.float32)
    sizes = np.exp(random.normal(6.2, 0.5, (ROWS, 2))).astype(int) + 1
    words = random.integers(0, len(WORDS), (ROWS, 24))
    lengths = random.integers(3, 24, ROWS)
    samples = (
        Sample(
            SampleId("web", f"{number}.parquet", row),
            (
                Node("image", image=row, required=True),
                Node("text", text=" ".join(WORDS[word] for word in words[row, : lengths[row]])),
            ),
            licence="CC0-1.0",
        )
        for row in range(ROWS)
    )
    stats = (
        ImageStats(
            row,
            None,
            sha256=f"{row:064x}",
            format="JPEG",
            width=int(sizes[row, 0]),
            height=int(sizes[row, 1]),
            contrast=float(40 * values[row, 0]),
            sharpness=float(sizes[row, 1]),
        )
        for row in range(ROWS)
    )
    rows = np.arange(ROWS, dtype=np.int32)
    write_samples(_place(root, "read", name, SAMPLES_FILE), samples)
    write_image_stats(_place(root, "image_stats", name, IMAGE_STATS_FILE), stats)
    scores = Scores(rows, np.zeros_like(rows), (None,) * ROWS, values)
    write_scores(_place(root, "fit", name, name_scores("fit")), scores, ["fit"])
    write_verdicts(_place(root, "fit", name, name_verdicts("fit")), ())  # no picture was beyond the model
    inputs = {
        SAMPLES_FILE: _place(root, "read", name, SAMPLES_FILE),
        IMAGE_STATS_FILE: _place(root, "image_stats", name, IMAGE_STATS_FILE),
        name_scores("fit"): _place(root, "fit", name, name_scores("fit")),
    }
    with tempfile.TemporaryDirectory(dir=root) as folder:
        FilterStep(Threshold(any={"fit": Bound(min=LEAST)})).run(inputs, Path(folder))
        verdicts = _place(root, "threshold", name, name_verdicts("threshold"))
        (Path(folder) / name_verdicts("threshold")).rename(verdicts)
    found = {
        "read": [SAMPLES_FILE],
        "image_stats": [IMAGE_STATS_FILE],
        "fit": [name_scores("fit"), name_verdicts("fit")],
        "threshold": [name_verdicts("threshold")],
    }
    files = {
        step: [_describe_file(root, _place(root, step, name, file), file) for file in listed]
        for step, listed in found.items()
    }
    return {**files, "dropped": int((values < LEAST).sum())}


def _place(root: Path, step: str, name: str, file: str) -> Path:
    folder = root / f"steps/web/{step}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.{file}"


def _describe_file(root: Path, path: Path, name: str) -> dict[str, Any]:
    return {"name": name, "path": str(path.relative_to(root)), "sha256": hash_file(path), "size": path.stat().st_size}


@contextmanager
def serve_app(explorer: Explorer) -> Iterator[httpx2.Client]:
    """A server in this process, and a client that holds its token."""
    server = uvicorn.Server(uvicorn.Config(make_app(explorer, TOKEN), port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"x-vlmill-token": TOKEN}, timeout=3600
        ) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def time_requests(client: httpx2.Client, path: str, *queries: dict[str, Any]) -> None:
    """Print the median and the slowest of some requests of one kind, and the CPU time of both ends."""
    spent, worked = list[float](), list[float]()
    for query in queries:
        began, busy = time.perf_counter(), time.process_time()
        client.get(path, params=query).raise_for_status()
        spent.append(time.perf_counter() - began)
        worked.append(time.process_time() - busy)
    wall, cpu = (f"median {statistics.median(times):.3f} s, most {max(times):.3f} s" for times in (spent, worked))
    print(f"{path:<16} {len(spent):>3} requests: {wall}; CPU {cpu}")


def paint_page(client: httpx2.Client) -> None:
    """What the first view needs, one after the other."""
    began, busy = time.perf_counter(), time.process_time()
    files = ("style.css", "card.css", "explore.css", "views.css", "app.js", "dom.js", "card.js", "overview.js")
    for path in ("/", *(f"/static/{name}" for name in files), "/api/overview"):
        client.get(path).raise_for_status()
    wall, cpu = time.perf_counter() - began, time.process_time() - busy
    print(f"page and overview, {2 + len(files)} requests: {wall:.3f} s; CPU {cpu:.3f} s")


def explore_run(client: httpx2.Client, explorer: Explorer) -> None:
    """Ask what a person asks."""
    random = np.random.default_rng(1)
    dimensions = [one["name"] for one in client.get("/api/dimensions").json()["dimensions"]]
    lows = random.random(20)
    shown = ",".join(dimensions)
    brushes = [{"show": shown, "range": [f"fit:{low:.3f}..", "characters:40.."]} for low in lows]
    time_requests(client, "/api/counts", {"show": shown}, *brushes)
    orders = [{"order": order, "number": 36} for order in ("mixed", "as read", "-fit", "fit", "-characters")]
    time_requests(client, "/api/samples", *orders)
    time_requests(client, "/api/counts", {"text": "old bridge"})
    time_requests(client, "/api/counts", {"text": "old bridge", "show": shown})
    began = time.perf_counter()
    while not client.get("/api/prepare", params={"key": "threshold.any.fit.min"}).json()["ready"]:
        time.sleep(0.1)
    print(f"slider prepared, once: {time.perf_counter() - began:.1f} s")
    time_requests(client, "/api/slide", {"key": "threshold.any.fit.min", "value": 0.5})
    moves = [{"key": "threshold.any.fit.min", "value": round(float(value), 4)} for value in random.random(40)]
    time_requests(client, "/api/slide", *moves)
    found = client.get("/api/slide", params={"key": "threshold.any.fit.min", "value": 0.2}).json()["levels"]["samples"]
    print(f"at 0.2: {found['then']:,} of {found['came']:,} samples are kept, {found['now']:,} are now")
    print(f"the index has {sum(path.stat().st_size for path in explorer.opened.index.folder.iterdir()) / 1e6:.0f} MB")


def main() -> None:
    """Print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the run is written, and kept; else a temporary one"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vlmill-explore-") as temporary:
        root = (arguments.folder or Path(temporary)) / "run"
        os.environ["XDG_CACHE_HOME"] = str(root.parent / "cache")
        if not root.exists():
            write_run(root, arguments.samples)
        explorer = Explorer(root)
        with serve_app(explorer) as client:
            paint_page(client)
            began = time.perf_counter()
            explorer.make_index()
            print(f"index made: {time.perf_counter() - began:.1f} s; {explorer.opened.index.size:,} samples")
        again = Explorer(root)
        began = time.perf_counter()
        again.make_index()
        print(f"index opened again: {time.perf_counter() - began:.3f} s")
        with serve_app(again) as client:
            paint_page(client)
            explore_run(client, again)
    print(f"most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
