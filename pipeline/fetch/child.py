"""The child process that downloads: img2dataset's Downloader with our own opener, resizer and writer.

    python -m vlmill.pipeline.fetch.child

Part of fetch; `download_process.py` starts it, and names one folder after another on standard input, each as JSON on a
line. A folder holds `job.json`, the fields of the fetch step and where lists of opt-outs lie, and `urls.arrow`; what is
found out about address number `key` is appended to `answers.jsonl`, and its bytes to `bodies`, as it comes. A byte on
standard output says that all is there, and whether the process takes another folder. The process ends when its standard
input does, so it cannot outlive whoever started it, and may hold no more memory than it needs
(`process.compute_memory_limit`).

img2dataset has no entry point below its command line. What is relied on, of 1.47's `downloader.py`: the arguments of
`Downloader` and `download_shard`; that `download_image` goes through `urllib.request.urlopen` and hands on
`str(error)`; that the resizer and the writer are called from one thread. What it would do by itself: open any scheme
and the environment's proxies, read without bound, take `Mozilla/5.0` for a name, misread X-Robots-Tag, and drop a
sample with a line of print when a writer raises.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import queue
import resource
import sys
import threading
import types
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.fetch import Fetch, read_host_rules
from vlmill.pipeline.fetch.download_process import IDLE_S, LEAVES, STAYS
from vlmill.pipeline.fetch.host_limits import HostLimit
from vlmill.pipeline.fetch.opener import Opener
from vlmill.pipeline.fetch.opt_outs import OptOuts
from vlmill.pipeline.fetch.politeness import NameCache, Politeness
from vlmill.pipeline.fetch.process import LIMITS, STACK

KEPT = 128 << 20
"""Bytes by which the process may have grown, over all its jobs, to be given another. One job with 64 threads leaves 70
MiB: stacks and what the C library keeps for each thread."""


class DownloadHooks(urllib.request.BaseHandler):
    """What img2dataset is given: what opens an address, what resizes an image, what writes a sample."""

    def __init__(self, opener: Opener, folder: Path) -> None:
        self.opener, self.media_types = opener, dict[str, str]()
        self.bodies, self.answers = (
            (folder / "bodies").open("xb"),
            (folder / "answers.jsonl").open("x", encoding="utf-8"),
        )

    def default_open(self, request: urllib.request.Request) -> io.BytesIO:
        """Open an address of any scheme, in one of many threads. Raises FetchFailed."""
        answer = self.opener.open(request.full_url)
        self.media_types[request.full_url] = answer.media_type
        return io.BytesIO(answer.data)

    def resize(self, image: io.BytesIO, _boxes: None) -> tuple[bytes, None, None, None, None, None]:
        """The bytes as they came; there are no sizes, and no trouble either."""
        return image.getvalue(), None, None, None, None, None

    def write(self, data: bytes | None, key: str, _caption: None, meta: dict[str, Any]) -> None:
        """Append an answer. Its bytes reach the file before the line that speaks of them."""
        line = {
            "key": int(key),
            "failure": meta["error_message"],
            "offset": self.bodies.tell(),
            "size": len(data or b""),
        }
        if data is not None:
            line["media_type"] = self.media_types.pop(meta["url"])
            self.bodies.write(data)
            self.bodies.flush()
        self.answers.write(json.dumps(line) + "\n")
        self.answers.flush()

    def close(self) -> None:
        """Close the files. img2dataset calls it when all is written; urllib never does."""
        self.bodies.close()
        self.answers.close()


def load_downloader() -> Any:
    """The class `Downloader`, without img2dataset's `__init__` and without wandb.

    Those import Ray, torch and albumentations (which asks the network for news of itself) for a command line that is
    not used here: 2.8 s of CPU and 410 MB, against 0.2 s and 70 MB.
    """
    package = importlib.util.find_spec("img2dataset")
    assert package is not None, "download_images asks for it first"
    sys.modules["img2dataset"] = importlib.util.module_from_spec(package)
    sys.modules["wandb"] = types.ModuleType("wandb")
    return importlib.import_module("img2dataset.downloader").Downloader


def run_job(folder: Path) -> None:
    """Do the job that `folder` holds."""
    job = json.loads((folder / "job.json").read_bytes())
    fetch = parse_block(Fetch, job["fetch"], "job.json")
    lists = {name: Path(path) for name, path in job["lists"].items()}
    urls = pa.ipc.open_file(str(folder / "urls.arrow")).read_all()["url"].to_pylist()
    hosts = read_host_rules(lists, urls, fetch)
    politeness = Politeness(fetch.per_host, {host: HostLimit(*said) for host, said in job["limits"].items()})
    opener = Opener(fetch, NameCache().look_up, OptOuts.given(lists), hosts, politeness)
    hooks = DownloadHooks(opener, folder)
    director = urllib.request.OpenerDirector()  # not by build_opener(), which adds proxies, files and FTP
    director.add_handler(hooks)
    urllib.request.install_opener(director)
    drive = load_downloader()(
        sample_writer_class=lambda *_: hooks,
        resizer=hooks.resize,
        thread_count=fetch.threads,
        save_caption=False,
        extract_exif=False,
        output_folder=str(folder),
        column_list=["url"],
        timeout=fetch.timeout_s,
        number_sample_per_shard=1,  # how many digits a key is padded to
        oom_shard_count=1,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="",
        retries=0,  # the opener's business: it knows what is worth a second try
        user_agent_token=None,
        disallowed_header_directives=None,
    )
    with LimitWriter(politeness, folder / LIMITS):
        _bound_memory(job["memory"])
        drive.download_shard((0, str(folder / "urls.arrow")))


class LimitWriter:
    """Writes down every second what is learned of hosts, for the process that started this one, and at the end."""

    EVERY = 1.0

    def __init__(self, politeness: Politeness, path: Path) -> None:
        self._politeness, self._path, self._ended = politeness, path, threading.Event()
        self._thread = threading.Thread(target=self._write_often, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._write_limits()

    def _write_often(self) -> None:
        while not self._ended.wait(self.EVERY):
            with suppress(OSError, MemoryError):
                self._write_limits()

    def _write_limits(self) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(self._politeness.list_limits()), encoding="utf-8")
        temporary.replace(self._path)


def _bound_memory(more: int) -> None:
    """Let the process hold `more` bytes beyond what it holds now; further requests for memory get MemoryError.

    Linux bounds the memory that the process may write to and does not share (RLIMIT_DATA); elsewhere none is bounded.
    """
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = measure_memory() + more
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def measure_memory() -> int:
    """Bytes of memory that the process may write to and does not share; 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))


def serve_jobs() -> None:
    """Do the jobs of the folders that standard input names, until none has come for `IDLE_S` seconds."""
    jobs, answers = queue.SimpleQueue[Path](), os.dup(1)
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own takes a GiB of addresses ahead
    threading.stack_size(STACK)
    held, said = 0, STAYS
    with suppress(queue.Empty):
        while said == STAYS:
            folder = jobs.get(timeout=IDLE_S)
            _print_into(folder / "log")
            held = held or measure_memory()
            run_job(folder)
            sys.stdout.flush()
            said = STAYS if measure_memory() - held <= KEPT else LEAVES
            os.write(answers, said)


def _read_jobs(jobs: queue.SimpleQueue[Path]) -> None:
    """Read the names of folders. Leave at once, in the middle of whatever it is, when standard input ends."""
    unread = b""
    while read := os.read(0, 1 << 16):  # not sys.stdin, whose lock a thread must not hold when the interpreter ends
        *lines, unread = (unread + read).split(b"\n")
        for line in lines:
            jobs.put(Path(json.loads(line)))
    os._exit(1)


def _print_into(path: Path) -> None:
    """Send what is printed to the end of a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


if __name__ == "__main__":
    serve_jobs()
