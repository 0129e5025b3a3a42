"""Object storage as the store's contract needs it: whole objects, conditional creation, listings, and reads by range.

`RunPath` makes paths of it. The package obstore asks the service; keys, endpoint and region come from the environment
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_ENDPOINT_URL, AWS_REGION) or from the machine's role,
and nothing here repeats them: of a refusal only its code is told.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from vlmill.pipeline.core.errors import StoreError

T = TypeVar("T")

SCHEME = "s3"
"""The scheme of addresses that a run's folder may have."""

AT_ONCE = 32
"""Parts of objects that are read at a time."""

PART = 16 << 20
"""Bytes of a part of a large object, as it is written and read."""

CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")
STATUS = re.compile(r"status code: (\d{3})")

CUT = "response body error"
"""What obstore says of an answer that was cut in its body."""

RETRIES: dict[str, Any] = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=90),
    "backoff": {"init_backoff": timedelta(milliseconds=500), "max_backoff": timedelta(seconds=10), "base": 4},
}
"""Of 5xx answers, time-outs and cut connections: nine requests in about 40 s, then an error.

obstore draws each pause between the first one and `base` times the one before, so a base of 2 hardly grows.
"""

REFUSED_KEYS = (
    "the service refuses the keys of this process, or they may not do it: set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or give the role the right to list, read, write and delete objects there"
)
CURES = {
    "RequestTimeTooSkewed": "the clock of this machine is wrong, and the service refuses requests for it: set the "
    "clock, then run the same command again",
    "NoSuchBucket": "there is no such bucket: make it, or correct the address",
    "AccessDenied": "the keys or the role of this process may not do it: it needs to list, read, write and delete "
    "objects there",
    "InvalidAccessKeyId": "the service does not know the key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "SignatureDoesNotMatch": "the secret key is wrong: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "status 401": REFUSED_KEYS,
    "status 403": REFUSED_KEYS,
    "NoSuchUpload": "the service has forgotten a large file that was being written: run the same command again",
}
"""Codes of S3 -> what to do."""

LATER = "run the same command again when the storage can be had: what is committed is kept"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing has it."""

    key: str
    size: int
    etag: str


class ObjectStore:
    """The objects of one bucket. Safe to share among threads, not among forked processes.

    Args:
        bucket: Its address: `s3://bucket`.

    Raises:
        StoreError: obstore is not installed.
    """

    def __init__(self, bucket: str) -> None:
        try:
            import obstore  # noqa: PLC0415 - runs on local disks need no such package
            from obstore.store import from_url  # noqa: PLC0415
        except ImportError as error:
            raise StoreError(
                f"{bucket}: a run's folder there needs the package obstore; run, in the clone of vlmill: pip install "
                "'.[s3]'"
            ) from error
        self.bucket, self._obstore = bucket, obstore
        self._store: Any = from_url(bucket, **describe_client())

    def find(self, key: str) -> StoredObject | None:
        """An object without its bytes; None where there is none."""
        try:
            return _describe_object(self._ask("look for", key, lambda: self._obstore.head(self._store, key)))
        except FileNotFoundError:
            return None

    def read(self, key: str) -> bytes:
        """All of a small object.

        Raises:
            FileNotFoundError: there is none.
        """
        return self._ask("read", key, lambda: bytes(self._obstore.get(self._store, key).bytes()))

    def download(self, found: StoredObject, target: Path) -> None:
        """All of an object into a new file, part by part.

        Raises:
            FileNotFoundError: it is not there any more.
            StoreError: it was replaced meanwhile, or less came than it has.
        """

        def read(start: int) -> Any:
            wanted = {"range": (start, min(start + PART, found.size)), "if_match": found.etag or None}
            return self._obstore.get(self._store, found.key, options=wanted).bytes()

        with target.open("wb") as file:
            for start in range(0, found.size, PART):
                file.write(self._ask("read", found.key, partial(read, start)))
            came = file.tell()
        if came != found.size:
            raise StoreError(f"{self.bucket}/{found.key}: {came} of {found.size} bytes came; {LATER}")

    def cat_ranges(
        self, paths: Sequence[str], starts: Sequence[int], ends: Sequence[int], on_error: str = "return"
    ) -> list[bytes | Exception]:
        """Parts of objects, several at a time, as fsspec's method of this name gives them: bytes or why there are none.

        Args:
            paths: Bucket and key of each part's object.
            starts: Where each part begins.
            ends: Where it ends.
            on_error: What fsspec calls it; errors are returned.
        """
        assert on_error == "return"

        def read(path: str, start: int, end: int) -> bytes | Exception:
            key = path.partition("/")[2]
            ask = partial(self._obstore.get_range, self._store, key, start=start, end=end)
            try:
                return bytes(self._ask("read", key, ask)) if end > start else b""
            except (StoreError, OSError) as error:
                return error

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(read, paths, starts, ends))

    def write(self, key: str, data: bytes | Path) -> str:
        """Put an object, whole or in parts, in the place of what is there. Returns its tag."""
        return _get_tag(self._ask("write", key, lambda: self._obstore.put(self._store, key, data, chunk_size=PART)))

    def create(self, key: str, data: bytes) -> bool:
        """Put an object only if there is none (`If-None-Match: *`). Says whether this call has put it.

        A connection that is cut after the service has put it makes the answer False, so compare what is there.
        """

        def put() -> bool:
            try:
                self._obstore.put(self._store, key, data, mode="create")
            except self._obstore.exceptions.AlreadyExistsError:
                return False
            return True

        return self._ask("write", key, put)

    def list_folder(self, folder: str) -> tuple[list[str], list[StoredObject]]:
        """The folders and the objects right in a folder, ordered by name."""
        found = self._ask("list", folder, lambda: self._obstore.list_with_delimiter(self._store, folder))
        return sorted(found["common_prefixes"]), sorted(
            (_describe_object(meta) for meta in found["objects"]), key=lambda one: one.key
        )

    def list_below(self, folder: str, after: str | None = None) -> Iterator[StoredObject]:
        """All objects below a folder in the order of their keys, a thousand a request."""
        pages = None

        def turn() -> Any:
            nonlocal pages
            pages = iter(self._obstore.list(self._store, folder, offset=after)) if pages is None else pages
            try:
                return next(pages, None)
            except self._obstore.exceptions.BaseError:
                pages = None  # go on behind what has come
                raise

        while found := self._ask("list", folder, turn):
            yield from map(_describe_object, found)
            after = found[-1]["path"]

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are passed over."""
        if keys:
            self._ask("delete", keys[0], lambda: self._obstore.delete(self._store, list(keys)))

    def _ask(self, verb: str, key: str, request: Callable[[], T]) -> T:
        """What a request comes to, which is made again where its answer was cut in the body.

        obstore does that for objects alone, not for refusals, listings and what it has written.

        Raises:
            FileNotFoundError: there is no such object.
            StoreError: the service failed, told without what it answered: that may name keys.
        """
        pauses = iter(list_pauses())
        while True:
            try:
                return request()
            except (self._obstore.exceptions.BaseError, OSError) as error:
                if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
                    raise FileNotFoundError(f"{self.bucket}/{key} is not there") from None
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the local disk
                if CUT in str(error) and (pause := next(pauses, None)) is not None:
                    time.sleep(pause)
                    continue
                code = find_code(str(error))
                cure = CURES.get(code, LATER)
                raise StoreError(f"cannot {verb} {self.bucket}/{key} ({code}): {cure}") from None


def list_pauses() -> list[float]:
    """Seconds between one request and the next, as RETRIES has them."""
    first, most, base = (RETRIES["backoff"][name] for name in ("init_backoff", "max_backoff", "base"))
    return [min(first * base**number, most).total_seconds() for number in range(RETRIES["max_retries"])]


def find_code(answer: str) -> str:
    """What a service has said, in a word; nothing else of its answer."""
    if found := CODE.search(answer):
        return found[1]
    if found := STATUS.search(answer):
        return f"status {found[1]}"
    for words in ("timed out", "connection closed", CUT, "Connection refused", "connection error", "dns error"):
        if words.lower() in answer.lower():
            return words
    return "no answer"


def _describe_object(meta: Any) -> StoredObject:
    return StoredObject(meta["path"], meta["size"], _get_tag(meta))


def _get_tag(meta: Any) -> str:
    return str(meta["e_tag"] or "")


def describe_client() -> dict[str, Any]:
    """How this process asks a service: time limits and retries; plain HTTP only where the environment says so."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", ""))
    client = {"timeout": "120s", "connect_timeout": "10s", "allow_http": endpoint.startswith("http://")}
    return {"client_options": client, "retry_config": RETRIES}


@lru_cache(64)
def open_bucket(bucket: str, process: int) -> ObjectStore:  # noqa: ARG001 - a forked process needs its own
    """The store of a bucket that this process uses."""
    return ObjectStore(bucket)
