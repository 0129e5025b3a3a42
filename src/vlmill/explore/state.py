"""The run that a server shows: opened once, its index made in the background, and all that is read through it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from vlmill.api.runs import Run, open_run
from vlmill.explore.crossfilter import Crossfilter
from vlmill.explore.duplicates import Duplicates
from vlmill.explore.find import Finder
from vlmill.explore.index import Index, digest_manifests, open_index
from vlmill.explore.samples import SampleReader
from vlmill.explore.thresholds import Sliders


class StoppedError(Exception):
    """The server is ending, so work in the background is given up."""


class NotReadyError(Exception):
    """The index is being made; `state` says how far it is."""

    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__("the tables are being read")
        self.state = state


@dataclass(frozen=True)
class Opened:
    """A run as it stood when its index was made."""

    run: Run
    index: Index
    digest: str

    @cached_property
    def filter(self) -> Crossfilter:
        """What fits what was asked."""
        return Crossfilter(self.index)

    @cached_property
    def reader(self) -> SampleReader:
        """Samples and pictures."""
        return SampleReader(self.run.folder, self.run.recipe, self.index)

    @cached_property
    def finder(self) -> Finder:
        """Words and neighbours."""
        return Finder(self.run.folder, self.run.recipe, self.index)

    @cached_property
    def sliders(self) -> Sliders:
        """Bounds that can be moved."""
        return Sliders(self.run.folder, self.run.recipe, self.index)

    @cached_property
    def duplicates(self) -> Duplicates:
        """What dedupe dropped for what."""
        return Duplicates(self.run, self.index, self.reader)


class Explorer:
    """A run folder that is shown."""

    def __init__(self, root: Path) -> None:
        """Open the run. Raises StoreError where the folder holds none."""
        self.root = root
        self.run = open_run(root)
        self.run.recipe  # noqa: B018 - says at once what is wrong with the folder
        self._opened: Opened | None = None
        self._lock, self._making = Lock(), Lock()
        self._done, self._of, self._error, self._busy, self._stopped = 0, 0, "", False, False
        self._thread: Thread | None = None

    def open_run(self) -> Run:
        """The run with its recipe as it stands now: a build may have changed it."""
        return open_run(self.root)

    def begin_index(self) -> None:
        """Make or open the index in the background, unless that is under way."""
        with self._lock:
            if self._busy:
                return
            self._busy, self._error = True, ""
            self._thread = Thread(target=self.make_index, daemon=True)
            self._thread.start()

    def make_index(self) -> None:
        """Make or open the index, and put it in the place of an older one."""

        def tell(done: int, of: int) -> None:
            self._done, self._of = done, of
            if self._stopped:
                raise StoppedError

        try:
            with self._making:
                run, digest = self.open_run(), digest_manifests(self.root)
                self._opened = Opened(run, open_index(self.root, run.recipe, tell), digest)
        except Exception as error:  # noqa: BLE001 - the page says it
            self._error = f"{type(error).__name__}: {error}"
        finally:
            self._busy = False

    def stop(self, seconds: float) -> None:
        """Give up an index that is being made, and wait so long for that at most."""
        self._stopped = True
        if self._thread is not None:
            self._thread.join(seconds)

    def describe_index(self) -> dict[str, Any]:
        """How far the index is, and whether the run has changed since."""
        opened = self._opened
        return {
            "ready": opened is not None,
            "busy": self._busy,
            "done": self._done,
            "of": self._of,
            "error": self._error,
            "changed": opened is not None and not self._busy and opened.digest != digest_manifests(self.root),
            "samples": opened.index.size if opened else None,
        }

    @property
    def opened(self) -> Opened:
        """The run with its index.

        Raises:
            NotReadyError: it is not there yet.
        """
        if self._opened is None:
            raise NotReadyError(self.describe_index())
        return self._opened
