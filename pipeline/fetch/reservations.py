"""What a host says of the use of its files, and whether that keeps an address from us. Pure.

Part of fetch. Read are, in this order:

    robots.txt       RFC 9309, by protego: the group of our name, else that of all
    Content-Usage    lines of that group (draft-ietf-aipref-attach): `train-ai=n` and what it is a part of
    tdmrep.json      TDM Reservation Protocol (W3C community group, 2024): `tdm-reservation` 1 for a path

Headers of an answer say the same of one file: `X-Robots-Tag`, `Content-Usage`, `TDM-Reservation`. TDMRep's third form,
a `meta` of the page, is none of images, and pages themselves are not fetched.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch.answers import find_opt_out

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vlmill.pipeline.fetch.host_files import HostFiles
    from vlmill.pipeline.fetch.message import AnswerHead

USES = ("train-ai", "train-genai", "ai", "tdm", "bots")
"""Categories of draft-ietf-aipref-vocab, and those of its earlier versions, that training of models falls under."""
_PREFERENCE = re.compile(r"([a-z][a-z0-9-]*)\s*=\s*([yn])(?![a-z0-9])")


Reservation = tuple[Reason, str]
"""Why an address is not used, and in which words."""


def find_reservation(files: HostFiles, path: str, agent: str, *, fail_closed: bool = False) -> Reservation | None:
    """Whether a host keeps one of its addresses from us.

    Args:
        files: What it answered.
        path: Of the address in its one spelling, with the query.
        agent: Our name: the first word of the user agent, in lower case.
        fail_closed: Whether robots.txt that could not be had forbids everything, as RFC 9309, 2.3.1.4 asks of crawlers.
    """
    if files.failure and fail_closed:
        return Reason.ROBOTS_UNKNOWN, f"robots.txt of {files.origin}: {files.failure}"
    if files.robots is not None:
        if not _read_robots(files.robots).can_fetch(files.origin + path, agent):
            return Reason.ROBOTS_TXT, f"robots.txt of {files.origin}, asked {files.asked}"
        if words := _find_usage(files.robots, path, agent):
            return Reason.AI_PREFERENCE, f"robots.txt of {files.origin}, Content-Usage: {words}"
    if files.tdmrep is not None and (place := _find_tdm(files.tdmrep, path)):
        return Reason.TDM_RESERVED, f"tdmrep.json of {files.origin}, location {place}"
    return None


def find_header_reservation(head: AnswerHead, agent: str) -> Reservation | None:
    """The same of the headers of an answer."""
    if word := find_opt_out(head.get_all("x-robots-tag"), agent):
        return Reason.OPTED_OUT, f"X-Robots-Tag: {word}"
    for said in head.get_all("content-usage"):
        if _forbids_training(said):
            return Reason.AI_PREFERENCE, f"Content-Usage: {said}"
    if head.get("tdm-reservation").strip() == "1":
        return Reason.TDM_RESERVED, "TDM-Reservation: 1"
    return None


@lru_cache(4096)
def _read_robots(text: str) -> Any:
    from protego import Protego  # noqa: PLC0415 - of the extra `fetch`

    return Protego.parse(text)


def _find_usage(robots: str, path: str, agent: str) -> str:
    """The Content-Usage line that forbids training on a path; empty where none does.

    The longest path that fits a path counts, as for `Allow`; without one, the line is for the whole host.
    """
    best, found = -1, ""
    for said in _list_usages(robots, agent):
        place, rest = said.split(None, 1) if said.startswith("/") and " " in said else ("/", said)
        if len(place) > best and _fits_pattern(place, path):
            best, found = len(place), rest if _forbids_training(rest) else ""
    return found


@lru_cache(4096)
def _list_usages(robots: str, agent: str) -> tuple[str, ...]:
    """The values of the Content-Usage lines of the group of `agent`, or of that of all where it has none."""
    if "content-usage" not in robots.lower():
        return ()
    groups: dict[str, list[str]] = {}
    names, open_ = list[str](), False
    for line in robots.splitlines():
        key, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
        key = key.lower()
        if key == "user-agent":
            names = [*names, value.lower()] if open_ else [value.lower()]
            open_ = True
            for name in names:
                groups.setdefault(name, [])
        elif key:
            open_ = False
            if key == "content-usage":
                for name in names:
                    groups[name].append(value)
    return tuple(groups.get(agent, groups.get("*", [])))


def _forbids_training(said: str) -> bool:
    """Whether preferences such as `train-ai=n, search=y` forbid training: the first of USES that is named says so."""
    named = dict(_PREFERENCE.findall(said.lower()))
    return next((named[use] == "n" for use in USES if use in named), False)


def _find_tdm(tdmrep: str, path: str) -> str:
    """The location that reserves a path; empty where none does. The first that fits counts.

    A file that is no such JSON reserves nothing.
    """
    try:
        listed = json.loads(tdmrep)
    except (ValueError, RecursionError):
        return ""
    for entry in _list_entries(listed):
        place = entry.get("location")
        if isinstance(place, str) and _fits_pattern(place, path):
            return place if str(entry.get("tdm-reservation")) == "1" else ""
    return ""


def _list_entries(listed: Any) -> Iterable[dict[str, Any]]:
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def _fits_pattern(pattern: str, path: str) -> bool:
    """Whether a path begins as a pattern of robots.txt says: `*` is anything, a `$` at its end the end of the path.

    Without regular expressions, which patterns of a stranger could make slow.
    """
    pattern, path = unquote(pattern), unquote(path)
    ends = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    place = len(first)
    for number, piece in enumerate(rest):
        if ends and number == len(rest) - 1:
            return len(path) - len(piece) >= place and path.endswith(piece)
        found = path.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return not ends or place == len(path)
