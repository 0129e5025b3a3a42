"""Has addresses downloaded in a child process: every one has an answer, or an error is raised.

Part of fetch. Bytes come back in files of a scratch folder, so what is held in memory is a line per address.
"""

from __future__ import annotations

import importlib.util
import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vlmill.pipeline.core.errors import RecipeError, VlmillError
from vlmill.pipeline.core.meter import note_work
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch.address import parse_address
from vlmill.pipeline.fetch.download_process import CAME_TO_ITS_END, DownloadProcess, borrow_process
from vlmill.pipeline.fetch.host_limits import HostLimit, HostLimits
from vlmill.pipeline.fetch.politeness import spread_hosts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vlmill.pipeline.fetch import Fetch
    from vlmill.pipeline.fetch.address import FetchFailed

ATTEMPTS = 3
"""Processes that may die before the step gives up. Each asks only for what is still open."""

STALL_S = 120.0
"""Beyond the deadline of one address, the longest time without a single answer; name lookups have their own
time-outs."""

LOOK_S = 1.0
"""Seconds between two looks at what the process has answered so far."""

TOLD_EVERY_S = 5.0
"""Seconds between two times that other processes are told of hosts that fail."""

LIMITS = "limits.json"
"""What the process has learned of hosts, in its folder: name -> share, time until which it rests."""

STACK = 1 << 20
"""Bytes of a thread's stack in the downloading process."""


def compute_memory_limit(fetch: Fetch, urls: Sequence[str]) -> int:
    """Bytes that a downloading process may hold beyond what it holds before it opens the first address.

    For each thread its stack and four bodies: one packed and one unpacked, one that waits to be written, and one for
    what growing buffers take ahead. For each address 1 KiB and eight times its length. 256 MiB for all else. By default
    that is 5.3 GiB and not what is used: an address that meets the limit, meets a defect, and no other ever should.
    """
    return (256 << 20) + fetch.threads * (STACK + 4 * fetch.max_bytes) + sum(1024 + 8 * len(url) for url in urls)


@dataclass(frozen=True, slots=True)
class FetchOutcome:
    """The outcome of one address: a reason with a detail, or where its bytes lie."""

    reason: Reason | None
    detail: str | None
    media_type: str | None = None
    file: Path | None = None
    offset: int = 0
    size: int = 0

    @classmethod
    def of(cls, failed: FetchFailed) -> FetchOutcome:
        """The outcome that a failure means."""
        return cls(failed.reason, failed.detail)

    def columns(self) -> dict[str, Any]:
        """The columns of images.parquet that say it, with the bytes read from the scratch folder."""
        return {
            "reason": self.reason,
            "detail": self.detail,
            "media_type": self.media_type,
            "bytes": self._data(),
        }

    def _data(self) -> bytes | None:
        if self.file is None:
            return None
        with self.file.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        assert len(data) == self.size, f"{self.file} ends before byte {self.offset + self.size}"
        return data


def download_images(
    urls: Sequence[str], fetch: Fetch, scratch: Path, lists: Mapping[str, Path] = MappingProxyType({})
) -> dict[str, FetchOutcome]:
    """The outcome of each of `urls`, downloaded in child processes one after the other.

    `urls` are distinct, in the spelling of `address.parse_address`.

    No redirect is followed to what `lists` keep from us: those of opt-outs, and what hosts said.

    Raises:
        RecipeError: there is an address, and img2dataset is not installed.
        VlmillError: `ATTEMPTS` processes died, stalled, or left addresses without an answer; no outcome is made up for
            those.
    """
    if urls and importlib.util.find_spec("img2dataset") is None:
        raise RecipeError(
            f"fetch: {len(urls)} images are named by their address, the first is {urls[0]}, and img2dataset, which "
            "downloads them, is not installed; run, in the clone of vlmill: pip install '.[fetch]'"
        )
    outcomes: dict[str, FetchOutcome] = {}
    limits_folder = getattr(fetch, "limits_folder", "")
    limits = HostLimits(limits_folder) if limits_folder else None
    missing, trouble = spread_hosts(urls), ""
    for attempt in range(ATTEMPTS):
        if not missing:
            break
        folder = scratch / f"attempt-{attempt}"
        folder.mkdir()
        trouble = _run_child(missing, fetch, folder, lists, limits)
        outcomes.update(_read_answers(missing, folder))
        missing = [url for url in missing if url not in outcomes]
    if missing:
        raise VlmillError(
            f"fetch: {len(missing)} of {len(urls)} addresses have no answer after {ATTEMPTS} downloading processes, "
            f"the first is {missing[0]}; the last process {trouble}\nRun the same build again; if it was killed for "
            f"memory, with fewer threads: --set fetch.threads={max(1, fetch.threads // 4)}"
        )
    return outcomes


def _run_child(
    urls: Sequence[str], fetch: Fetch, folder: Path, lists: Mapping[str, Path], limits: HostLimits | None
) -> str:
    """Let one process work on `urls`, and say how it ended. It works no more when this returns or raises."""
    rules = asdict(fetch)
    rules.pop("limits_folder", None)
    job = {
        "fetch": rules,
        "limits": limits.read(parse_address(url).host for url in urls) if limits else {},
        "lists": {name: str(path.absolute()) for name, path in lists.items()},
        "memory": compute_memory_limit(fetch, urls),
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    table = pa.table({"url": urls})
    with pa.OSFile(str(folder / "urls.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with borrow_process() as process:
        status = None
        try:
            (folder / "log").touch()
            process.begin(folder)
            status = _wait_for_child(process, folder / "answers.jsonl", STALL_S + fetch.deadline_s, limits)
        finally:
            if status != CAME_TO_ITS_END:
                process.close()
    last = (folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:].strip()
    return f"{status}; its last words: {last or 'none'}"


def _wait_for_child(process: DownloadProcess, answers: Path, stall_s: float, limits: HostLimits | None = None) -> str:
    """Wait until the process is done with a folder, or has answered nothing for `stall_s` seconds.

    Its answers are noted meanwhile. What it learns of hosts is told to others every few seconds.
    """
    place, answered = 0, time.monotonic()
    told = answered
    while True:
        status = process.wait(min(LOOK_S, stall_s))
        before, place = place, _note_answers(answers, place)
        if limits and (status is not None or time.monotonic() - told >= TOLD_EVERY_S):
            limits.write(_read_limits(answers.with_name(LIMITS)))
            told = time.monotonic()
        if status is not None:
            return status
        if place != before:
            answered = time.monotonic()
        elif time.monotonic() - answered >= stall_s:
            return f"answered nothing for {stall_s:g} s"


def _read_limits(path: Path) -> dict[str, HostLimit]:
    """What a process has learned of hosts; nothing where it has not said so yet, or not well."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        return {str(host): HostLimit(*map(float, limit)) for host, limit in json.loads(path.read_bytes()).items()}
    return {}


def _note_answers(answers: Path, place: int) -> int:
    """Note the whole lines behind byte `place` as work that is done, for who watches; returns where they end.

    Whether they can be believed is not asked here, but when they are read as answers.
    """
    if not answers.exists():
        return place
    with answers.open("rb") as file:
        file.seek(place)
        found = file.read()
    end = found.rfind(b"\n") + 1
    for line in found[:end].splitlines():
        with suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            note_work(images=1, size=int(said["size"]), failed=said["failure"] is not None)
    return place + end


def _read_answers(urls: Sequence[str], folder: Path) -> Iterator[tuple[str, FetchOutcome]]:
    """What a process wrote down, whole lines only: the last one may be cut where it died.

    Raises:
        VlmillError: a key that was not asked for or stands twice, or trouble that is not about an address.
    """
    path, bodies, seen = folder / "answers.jsonl", folder / "bodies", set[int]()
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            answer = json.loads(line)
            key = answer["key"]
            if key in seen or not 0 <= key < len(urls):
                expected = "again" if key in seen else f"asked for 0 to {len(urls) - 1}"
                raise VlmillError(f"fetch: img2dataset answered key {key}, {expected}")
            seen.add(key)
            yield urls[key], _parse_outcome(answer, urls[key], bodies)


def _parse_outcome(answer: dict[str, Any], url: str, bodies: Path) -> FetchOutcome:
    if answer["failure"] is None:
        return FetchOutcome(None, None, answer["media_type"] or None, bodies, answer["offset"], answer["size"])
    failure = answer["failure"] or "an exception without a text"
    code, _, detail = failure.partition(": ")
    try:
        return FetchOutcome(Reason(code), detail)
    except ValueError:
        raise VlmillError(f"fetch: trouble in the downloading process at {url}: {failure}") from None
