"""What a server answered about a partition, kept as it comes: nothing that was answered is asked again after a kill.

A line of JSON for each answer, appended to `steps/<source>/<signal>/<partition>.journal.jsonl`. When the partition's
values are committed, the answers stand in their table and the journal goes. A line that a kill cut is no JSON, and is
passed over. What earlier commits of the partition hold is known as well: of a partition that has changed, by a takedown
or a retry, only what is new is asked.

On object storage, where nothing grows, it is objects `<partition>.<uuid>.journal.jsonl`, each with the answers of some
seconds: so many a kill may take.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from vlmill.pipeline.core.answers import Answer, make_answer, read_answers
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import explain_full_disk
from vlmill.pipeline.core.keys import DIGITS, hash_file
from vlmill.pipeline.core.names import JOURNAL_SUFFIX, name_answers
from vlmill.pipeline.core.run_path import RunPath

FLUSHED = 64
"""Answers after which a journal is put on disk: a kill of the process takes none, a power cut the last of them."""

PUT_EVERY = 5.0
"""Seconds after which answers are put on object storage with the next one that comes."""


class Journal:
    """The answers of one partition by their request. Without a folder they are kept in memory alone."""

    def __init__(self, folder: Path | None, partition: str, signal: str) -> None:
        self.known, self.file, self.written = dict[str, Answer](), -1, 0
        self._waiting, self._put = bytearray(), time.monotonic()  # what is not on object storage yet
        self.path = folder / f"{partition}{JOURNAL_SUFFIX}" if folder is not None else None
        if folder is None or self.path is None:
            return
        for path in sorted(folder.glob(f"{partition}.*.{name_answers(signal)}")):
            self.known |= {answer.request: answer for answer in _read_committed(path)}
        if isinstance(folder, RunPath):
            pieces = sorted(folder.glob(f"{partition}.*{JOURNAL_SUFFIX}"))
            for answer in _read_lines(b"\n".join(piece.read_bytes() for piece in pieces)):
                self.known.setdefault(answer.request, answer)
            return
        found = self.path.read_bytes() if self.path.exists() else b""
        for answer in _read_lines(found):
            self.known.setdefault(answer.request, answer)
        folder.mkdir(parents=True, exist_ok=True)
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if found and not found.endswith(b"\n"):
            self._write(b"\n")

    def add(self, answer: Answer) -> None:
        """Keep an answer; the first to a request stays."""
        self.known.setdefault(answer.request, answer)
        if self.path is None:
            return
        line = json.dumps(asdict(answer), ensure_ascii=False).encode() + b"\n"
        self.written += 1
        if isinstance(self.path, RunPath):
            self._waiting += line
            if self.written % FLUSHED == 0 or time.monotonic() - self._put >= PUT_EVERY:
                self.flush()
        elif self.file >= 0:
            self._write(line)
            if self.written % FLUSHED == 0:
                self.flush()

    def flush(self) -> None:
        """Put it on disk, or what is new of it on object storage."""
        if isinstance(self.path, RunPath) and self._waiting:
            name = self.path.name.removesuffix(JOURNAL_SUFFIX)
            (self.path.parent / f"{name}.{uuid.uuid4().hex}{JOURNAL_SUFFIX}").write_bytes(bytes(self._waiting))
            self._waiting.clear()
        self._put = time.monotonic()
        if self.file >= 0:
            os.fsync(self.file)

    def close(self) -> None:
        """Put it there, and let go of the file."""
        self.flush()
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def _write(self, line: bytes) -> None:
        """Append in one call, so that lines of two processes do not mix."""
        try:
            if os.write(self.file, line) < len(line):
                raise StoreError(f"{self.path}: an answer could not be written whole; is the disk full?")
        except OSError as error:
            if hint := explain_full_disk(error, self.path):
                raise StoreError(hint) from error
            raise


def _read_committed(path: Path) -> Iterator[Answer]:
    """The answers in a committed table; of one that is not what its name says, none."""
    digits = path.name.split(".")[1]
    if hash_file(path)[:DIGITS] == digits:
        yield from (placed.answer for placed in read_answers(path))


def _read_lines(data: bytes) -> Iterator[Answer]:
    for line in data.split(b"\n"):
        try:
            yield make_answer(json.loads(line))
        except (ValueError, KeyError, TypeError):
            continue


def remove_journals(folder: Path) -> None:
    """Remove the journals of a signal over a source: what they hold is committed, or nothing asks for it."""
    for path in sorted(folder.glob(f"*{JOURNAL_SUFFIX}")):
        path.unlink(missing_ok=True)
