"""Fetch: from addresses of images to their bytes, each address once per partition, kept exactly as they came.

The only step that reads the internet. `Fetch` follows read; `Retry` tries again what failed for a reason that may have
passed, into a supplement. The work is done by img2dataset's Downloader in a child process:

    address   spelling, mirrors, and where a connection may go
    opt_outs  what is not asked for, since its owner does not want it used
    hosts     asks each host once what it says of the use of its files; host_files has the answers
    host_counts  how hosts answered, for who looks at a run
    reservations  what robots.txt, tdmrep.json and headers mean
    answers   what an HTTP answer is worth
    message   reads an answer, within bounds
    opener    one address, within bounds
    politeness  how many addresses of a host are open at once, fewer where it fails
    host_limits  what processes tell each other of hosts that fail
    child     the process that downloads
    download_process  starts it, and keeps it for the next partition
    process   gives it addresses and holds it to account
    earlier   what was fetched before for rows that another partition has now
"""

from __future__ import annotations

import heapq
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from importlib.metadata import version as installed
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount
from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.core.names import (
    FETCHED_SUFFIX,
    HOST_COUNTS_FILE,
    HOST_FILES_SUFFIX,
    IMAGES_FILE,
    SAMPLES_FILE,
    SKIPPED_IMAGES_FILE,
    SUPPLEMENT_FILE,
)
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import IMAGES, read_rows, write_rows
from vlmill.pipeline.core.step import RUNTIME, Count, Counts, Inputs, match_names
from vlmill.pipeline.fetch.address import FetchFailed, parse_address
from vlmill.pipeline.fetch.earlier import read_earlier_outcomes, spell_address
from vlmill.pipeline.fetch.host_counts import HostTally
from vlmill.pipeline.fetch.host_files import HostRules, list_origins, read_host_files
from vlmill.pipeline.fetch.opt_outs import ADDRESSES, OptOuts, find_listed_images
from vlmill.pipeline.fetch.process import FetchOutcome, download_images

Row = dict[str, Any]

PASSING = frozenset(
    {
        Reason.NAME_LOOKUP,
        Reason.CONNECTION,
        Reason.TIMED_OUT,
        Reason.HTTP_SERVER_ERROR,
        Reason.TRUNCATED_BODY,
        Reason.OUT_OF_MEMORY,
        Reason.FETCH_ERROR,
    }
)
"""Reasons that may be gone another day, or with another release; so are HTTP 408, 425 and 429."""

HOST_FILES = f"*{HOST_FILES_SUFFIX}"
SIDE_INPUT = (SAMPLES_FILE, SKIPPED_IMAGES_FILE, *ADDRESSES, HOST_FILES)
"""What says which images are not asked for: lists of opt-outs, which documents show an image, what filters dropped, and
what hosts said. In no key: see `HasSideInputs`."""
FETCHED = f"*{FETCHED_SUFFIX}"
"""Tables of what was fetched before for rows that are in this partition now. In no key either: what an address gave is
what it would be asked for."""


@dataclass(frozen=True, config=STRICT)
class Fetch:
    """Give every row of images.parquet that has an address alone its bytes, or the reason why there are none.

    What was asked before for rows that are in this partition now is taken over, with bytes or reason.
    What the recipe's lists of opt-outs name is not asked for, nor what only documents show that they name. The version
    is that of the form of images.parquet. It is not raised where an answer comes to be taken otherwise, nor for the
    table beside it: that would fetch again what was fetched.
    """

    name: ClassVar[str] = "fetch"
    version: ClassVar[int] = 2
    pure: ClassVar[bool] = False

    max_bytes: Amount = 20 << 20  # of one body, packed or unpacked
    allow_hosts: tuple[str, ...] = ()  # `host` or `host:port` that may be in a private network
    honour_robots: bool = True  # whether X-Robots-Tag, Content-Usage and TDM-Reservation of an answer keep an image out
    mirrors: Mapping[str, str] = field(default_factory=dict, metadata=RUNTIME)  # URL prefixes; may be private
    timeout_s: Annotated[float, pydantic.Field(gt=0, le=3600)] = field(
        default=10.0, metadata=RUNTIME
    )  # seconds of one wait on the network
    deadline_s: Annotated[float, pydantic.Field(gt=0, le=86400)] = field(
        default=60.0, metadata=RUNTIME
    )  # seconds for one address in all, retries included
    retries: Annotated[int, pydantic.Field(ge=0, le=100)] = field(
        default=2, metadata=RUNTIME
    )  # how often one address is tried again
    threads: Annotated[int, pydantic.Field(ge=1, le=1024)] = field(
        default=64, metadata=RUNTIME
    )  # each may hold four bodies in memory
    per_host: Annotated[int, pydantic.Field(ge=1, le=1024)] = field(
        default=32, metadata=RUNTIME
    )  # addresses of a host that are open at once, over all processes of a build
    user_agent: str = field(default="vlmill/0.1", metadata=RUNTIME)  # robots.txt names us by what stands before the /
    honour_hosts: bool = field(
        default=True, metadata=RUNTIME
    )  # whether robots.txt and tdmrep.json of a host are asked for, once, and keep its images out
    unknown_hosts: Literal["allow", "refuse"] = field(
        default="allow", metadata=RUNTIME
    )  # whose robots.txt could not be had: 5xx, a time-out
    after: str = field(
        default="", metadata=RUNTIME
    )  # a filter: what it and those before it drop is not fetched; they may look at texts alone

    def __post_init__(self) -> None:
        """Refuse what a request could not be made with. Pydantic turns ValueError into an error of the recipe."""
        if not (self.user_agent.isascii() and self.user_agent.isprintable() and self.user_agent.strip()):
            raise ValueError(
                f"user_agent {self.user_agent!r}: printable ASCII in one line, such as 'vlmill/0.1 (you@example.org)'"
            )
        for prefix in (*self.mirrors, *self.mirrors.values()):
            try:
                parse_address(prefix)
            except FetchFailed as failed:
                raise ValueError(f"mirrors: {prefix!r}: {failed.detail}") from None
            if not prefix.endswith("/"):
                raise ValueError(f"mirrors: {prefix!r} must end in '/', or it would reach beyond its host")
        for host in self.allow_hosts:
            if "/" in host:
                raise ValueError(f"allow_hosts: {host!r} must be a host or host:port")

    @property
    def agent(self) -> str:
        """What hosts call us: the first word of `user_agent`, in lower case."""
        return self.user_agent.partition("/")[0].strip().lower()

    @property
    def reads(self) -> tuple[str, ...]:
        """See Step."""
        return (IMAGES_FILE,)

    @property
    def side_inputs(self) -> tuple[str, ...]:
        """See HasSideInputs."""
        return (*SIDE_INPUT, FETCHED)

    def made_by(self) -> Mapping[str, str]:
        """See Step."""
        return {name: installed(name) for name in ("img2dataset", "pillow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write images.parquet: the same rows in the same order, none left without bytes or a reason.

        And host_counts.parquet: how the hosts of these addresses answered.

        Counts `fetched`: rows that had an address alone. Memory is flat: bytes wait on disk, whatever the order they
        came in.

        Raises:
            VlmillError: the downloading process failed as a process, or a mirror has gone; an entry of a list is none.
        """
        count, hosts = Count(), HostTally()
        images, refused = inputs[IMAGES_FILE], _refuse_images(inputs, self)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            asked = read_rows(images, columns=["image", "url", "reason", "bytes"], batch=32)
            waiting = [(row["image"], row["url"]) for row in asked if _is_open(row)]
            known = _read_known(inputs, waiting, refused, Path(scratch))
            wanted = (url for image, url in waiting if image not in refused)
            outcome = _download_addresses(wanted, self, Path(scratch), _list_lists(inputs), known)

            def rows() -> Iterator[Row]:
                for row in read_rows(images, batch=32):
                    found = refused.get(row["image"]) or outcome(row["url"]) if _is_open(row) else None
                    if found and found.reason != Reason.NOT_FETCHED:
                        hosts.add(row["url"], found.reason, found.size)
                    yield _add_outcome(row, found, count) if found else row

            write_rows(folder / IMAGES_FILE, IMAGES, rows())
        hosts.write(folder / HOST_COUNTS_FILE)
        return {"fetched": count}


@dataclass(frozen=True, config=STRICT)
class SharedFetch(Fetch):
    """The same in a build, whose downloading processes tell each other of hosts that fail."""

    limits_folder: str = field(
        default="", metadata=RUNTIME
    )  # the folder where they do, of this machine or object storage


@dataclass(frozen=True, config=STRICT)
class Retry:
    """Try once more, and for each `round` once, the addresses that failed for a reason that may have passed.

    Two of these are a list of opt-outs that names an image no more, and a filter that keeps what shows it.
    """

    name: ClassVar[str] = "retry"
    version: ClassVar[int] = 2
    pure: ClassVar[bool] = False

    fetch: Fetch
    round: pydantic.PositiveInt = 1  # each is a separate task; it reads what the round before it left

    @property
    def reads(self) -> tuple[str, ...]:
        """See Step."""
        return (IMAGES_FILE, SUPPLEMENT_FILE)

    @property
    def side_inputs(self) -> tuple[str, ...]:
        """See HasSideInputs."""
        return SIDE_INPUT

    def next_round(self) -> Self:
        """The same step, one round later."""
        return replace(self, round=self.round + 1)

    def made_by(self) -> Mapping[str, str]:
        """See Step."""
        return self.fetch.made_by()

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write supplement.parquet: rows of images.parquet that have bytes now, those of earlier rounds included.

        They are in image order.

        Counts `retried`: the addresses tried, and their outcomes.

        Raises:
            VlmillError: the downloading process failed as a process, or a mirror has gone; an entry of a list is none.
        """
        count, refused = Count(), _refuse_images(inputs, self.fetch)
        images, before = inputs[IMAGES_FILE], inputs.get(SUPPLEMENT_FILE)
        had = {row["image"] for row in read_rows(before, columns=["image"])} if before else set()
        passed = refused.keys() | had

        def failed() -> Iterator[Row]:
            columns = [name for name in IMAGES.names if name != "bytes"]
            return (row for row in read_rows(images, columns) if row["image"] not in passed and _may_have_passed(row))

        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            outcome = _download_addresses(
                (row["url"] for row in failed()), self.fetch, Path(scratch), _list_lists(inputs)
            )
            tried = (_add_outcome(row, outcome(row["url"]), count) for row in failed())
            gained = (row for row in tried if row["reason"] is None)
            earlier = read_rows(before, batch=32) if before else iter(())
            write_rows(
                folder / SUPPLEMENT_FILE,
                IMAGES,
                heapq.merge(earlier, gained, key=lambda row: row["image"]),
            )
        return {"retried": count}


def _is_open(row: Row) -> bool:
    """Whether an address is all that the row has."""
    return row["url"] is not None and row["reason"] is None and row["bytes"] is None


def _may_have_passed(row: Row) -> bool:
    return row["url"] is not None and (
        row["reason"] in {*PASSING, Reason.OPT_OUT_LIST, Reason.NOT_FETCHED}
        or row["detail"] in {"HTTP 408", "HTTP 425", "HTTP 429"}
    )


def _list_opt_outs(inputs: Inputs) -> dict[str, Path]:
    """The lists of addresses that are opted out."""
    return {name: inputs[name] for name in match_names(inputs, ADDRESSES)}


def _list_lists(inputs: Inputs) -> dict[str, Path]:
    """All that a redirect must not lead past: lists, and what hosts said."""
    return {name: inputs[name] for name in match_names(inputs, (*ADDRESSES, HOST_FILES))}


def _refuse_images(inputs: Inputs, fetch: Fetch) -> dict[int, FetchOutcome]:
    """The images that are not asked for, with the outcome of each: on lists, dropped, or as their hosts want it."""
    listed = OptOuts.given(_list_opt_outs(inputs))
    rows = list(read_rows(inputs[IMAGES_FILE], columns=["image", "url"]))
    found = find_listed_images(listed, rows, inputs.get(SAMPLES_FILE))
    refused = {image: FetchOutcome(Reason.OPT_OUT_LIST, why) for image, why in found.items()}
    for row in read_rows(inputs[SKIPPED_IMAGES_FILE]) if SKIPPED_IMAGES_FILE in inputs else ():
        why = f"all that shows it was dropped before images were fetched ({row['reason']})"
        refused.setdefault(row["image"], FetchOutcome(Reason.NOT_FETCHED, why))
    if hosts := read_host_rules(inputs, (row["url"] for row in rows), fetch):
        for row in rows:
            if row["image"] not in refused and row["url"] and (kept := hosts.find(row["url"])):
                refused[row["image"]] = FetchOutcome(*kept)
    return refused


def read_host_rules(inputs: Inputs, urls: Iterable[str | None], fetch: Fetch) -> HostRules | None:
    """What the hosts of addresses said; None where none was asked."""
    paths = [inputs[name] for name in match_names(inputs, (HOST_FILES,))]
    if not (paths and fetch.honour_hosts):
        return None
    origins = {*list_origins(urls, fetch.mirrors)}
    return HostRules(read_host_files(paths, origins), fetch.agent, fail_closed=fetch.unknown_hosts == "refuse")


def _read_known(
    inputs: Inputs, waiting: Sequence[tuple[int, str]], refused: dict[int, FetchOutcome], scratch: Path
) -> dict[str, FetchOutcome]:
    """What addresses gave that were asked before. Such an image is no longer `refused` where filters alone dropped it.

    Args:
        inputs: of the step.
        waiting: images that have an address alone, with that.
        refused: images that are not asked for.
        scratch: where bytes may lie.
    """
    tables = [inputs[name] for name in match_names(inputs, (FETCHED,))]
    dropped = {image for image, outcome in refused.items() if outcome.reason is Reason.NOT_FETCHED}
    wanted = {spell_address(url) for image, url in waiting if image not in refused or image in dropped}
    known = read_earlier_outcomes(tables, wanted, scratch) if tables else {}
    for image, url in waiting:
        if image in dropped and spell_address(url) in known:
            del refused[image]
    return known


def _download_addresses(
    urls: Iterator[str],
    fetch: Fetch,
    scratch: Path,
    lists: Mapping[str, Path],
    known: Mapping[str, FetchOutcome] = MappingProxyType({}),
) -> Callable[[str], FetchOutcome]:
    """Download all addresses, each once however it is spelled; what comes back knows the outcome of each.

    Those are not asked whose outcome is known.
    """
    distinct = dict[str, None]()
    for url in urls:
        with suppress(FetchFailed):  # raised again for whoever asks for its outcome
            distinct[parse_address(url).url] = None
    found = download_images([url for url in distinct if url not in known], fetch, scratch, lists)
    _check_mirrors(found, fetch)
    found |= known

    def outcome(url: str) -> FetchOutcome:
        try:
            return found[parse_address(url).url]
        except FetchFailed as failed:
            return FetchOutcome.of(failed)

    return outcome


def _check_mirrors(found: Mapping[str, FetchOutcome], fetch: Fetch) -> None:
    """Keep no outcome where a mirror has gone.

    What fails then says nothing about addresses, and it would never be tried again.

    Raises:
        VlmillError: something that was asked of a mirror failed, and it takes no connection any more.
    """
    for prefix, mirror in fetch.mirrors.items():
        start, place = parse_address(prefix).url, parse_address(mirror)
        if any(outcome.reason in PASSING and url.startswith(start) for url, outcome in found.items()):
            try:
                socket.create_connection((place.host, place.port), fetch.timeout_s).close()
            except OSError as error:
                raise VlmillError(
                    f"fetch: the mirror {mirror} of {prefix} takes no connection any more ({error}); "
                    "run the same build again when it does: nothing that failed meanwhile is kept"
                ) from error


def _add_outcome(row: Row, outcome: FetchOutcome, count: Count) -> Row:
    """The row with its outcome; enters that in `count`."""
    if outcome.reason is None:
        count.keep()
    else:
        count.lose(outcome.reason)
    return {**row, **outcome.columns()}
