"""Image files of rows that are still to come, loaded several at once where each costs a request to object storage."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vlmill.pipeline.sources.base import Picture, SourceRow
from vlmill.pipeline.sources.data_uris import is_data_uri
from vlmill.pipeline.sources.files import Files

Id = TypeVar("Id")

AT_ONCE, AHEAD = 16, 32
"""Files that are asked for at a time; rows, and files, that are waited with."""

HELD = 64 << 20
"""Bytes of files that wait for their rows, beyond which no more are asked for."""


class FilesAhead:
    """The files of a folder, loaded before they are asked for where that saves time; the pictures are the same."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._coming = dict[str, Future[Picture]]()

    def load(self, path: str) -> Picture:
        """The picture at a path, as `Files` has it. Raises what loading it has raised."""
        coming = self._coming.pop(path, None)
        return self._files.load(path) if coming is None else coming.result()

    def follow(self, rows: Iterable[tuple[Id, SourceRow]]) -> Iterator[tuple[Id, SourceRow]]:
        """The rows as they come, while the files of those behind them are loaded."""
        if not self._files.waits:
            yield from rows
            return
        waiting, coming_rows, seen = deque[tuple[Id, SourceRow]](), iter(rows), set[str]()
        pool = ThreadPoolExecutor(AT_ONCE, "load-ahead")
        try:
            while True:
                while self._has_room(waiting) and (found := next(coming_rows, None)) is not None:
                    new = [path for path in dict.fromkeys(_list_paths(found[1])) if path not in seen]
                    seen.update(new)
                    self._coming |= {path: pool.submit(self._files.load, path) for path in new}
                    waiting.append(found)
                if not waiting:
                    return
                given = waiting.popleft()
                yield given
                for path in _list_paths(given[1]):
                    self._coming.pop(path, None)  # of a page that is lost
        finally:
            pool.shutdown(cancel_futures=True)

    def _has_room(self, waiting: Collection[tuple[Id, SourceRow]]) -> bool:
        """Whether one more row is read, and its files are asked for."""
        if not waiting:
            return True
        done = (one.result() for one in self._coming.values() if one.done() and one.exception() is None)
        carried = (picture for _, row in waiting for page in row.pages for picture in page.pictures)
        held = sum(len(picture.data or b"") for picture in (*done, *carried))
        return len(waiting) < AHEAD and len(self._coming) < AHEAD and held < HELD


def _list_paths(row: SourceRow) -> list[str]:
    """The paths of files that a row names."""
    named = (picture.path for page in row.pages for picture in page.pictures)
    return [path for path in named if path is not None and not is_data_uri(path)]
