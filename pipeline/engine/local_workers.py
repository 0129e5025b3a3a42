"""Workers on this machine: processes that are forked off one that has imported everything.

So they are there in the time of one import, and share its memory. An item and its result travel pickled over a socket.
A worker ends with its driver, whose end of the socket closes, even at work: what it does is committed or not.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from vlmill.pipeline.core.at_work import AT_WORK
from vlmill.pipeline.core.errors import LackOfMemoryError
from vlmill.pipeline.core.meter import METER
from vlmill.pipeline.engine.flow import FlowEvent, WorkerFlow, run_flow_here
from vlmill.pipeline.engine.set_aside import ItemLost, ItemQueue, raise_heavy

Item = TypeVar("Item")
Result = TypeVar("Result")

PRELOADED = ("vlmill.pipeline.engine.build", "vlmill.mixtures.build", "pandas")
"""What workers import before they fork; pyarrow imports pandas with the first table that it makes of rows."""

SMALL = 100
"""Rows of all sources up to which a run stays in its process unless it takes longer than `PATIENCE`."""

PATIENCE = 3.0
"""Seconds of work in this process after which workers are worth their start, which takes about two."""


class LocalWorkers:
    """Runs items in `width` processes of this machine, and small runs in this one.

    Workers begin when they are asked for (`at_once`), when a run is known to have more than `SMALL` rows, or when
    several items are left after `PATIENCE`. What they note comes to this process's meter.
    """

    def __init__(self, width: int, variables: Mapping[str, str], *, at_once: bool) -> None:
        self.width, self.variables, self.at_once = width, variables, at_once
        self._workers, self._parents = list[_Process](), list[subprocess.Popen[bytes]]()
        self._spent = 0.0

    def expect(self, rows: int) -> None:
        """See Executor."""
        self.at_once |= rows > SMALL

    def each(
        self, function: Callable[[Item], Result], items: Sequence[Item], memory: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """See Executor."""
        heavy, done = list[str](), 0
        while done < len(items) and not self._is_worth(len(items) - done):
            begun = time.monotonic()
            try:
                result = function(items[done])
            except LackOfMemoryError as error:
                heavy.append(str(error))
            else:
                yield done, result
            self._spent += time.monotonic() - begun
            done += 1
        width = max(1, min(self.width, count_memory() // memory)) if memory else self.width
        yield from self._distribute(function, items, done, width, heavy)
        raise_heavy(heavy)

    def stream(self, flow: WorkerFlow, jobs: Sequence[Any]) -> Iterator[FlowEvent]:
        """See Executor. Workers of flows are opened in this process: such runs are given to Ray."""
        return run_flow_here(flow, jobs)

    def close(self) -> None:
        """End all workers, and wait until they have."""
        for worker in self._workers:
            worker.close()
        for parent in self._parents:
            parent.wait()
        self._workers, self._parents = [], []

    def _is_worth(self, left: int) -> bool:
        return self.at_once or bool(self._workers) or (left > 1 and self._spent > PATIENCE)

    def _fill(self) -> None:
        """Start as many workers as are missing. They may be given items before they are ready."""
        missing = self.width - len(self._workers)
        if missing:
            workers, parent = _start_workers(missing, self.variables)
            self._workers += workers
            self._parents.append(parent)

    def _distribute(
        self, function: Callable[[Item], Result], items: Sequence[Item], first: int, width: int, heavy: list[str]
    ) -> Iterator[tuple[int, Result]]:
        """Run the items from `first` on, `width` at once; those that could not be done are named in `heavy`."""
        queue, busy = ItemQueue(range(first, len(items))), dict[Any, tuple[_Process, int]]()  # by connection
        try:
            while queue.waiting or queue.aside or busy:
                self._fill()
                self._send_items(function, items, queue, busy, width)
                for connection in wait(list(busy)):
                    worker, number = busy[connection]
                    try:
                        answer = worker.receive()
                    except ItemLost as error:
                        del busy[connection]
                        if queue.lose(number):
                            heavy.append(str(error) if error.is_placed else f"{worker.place or items[number]}: {error}")
                        self._workers = [other for other in self._workers if not other.connection.closed]
                        continue
                    if answer is not None:
                        del busy[connection]
                        yield number, answer[0]
        finally:  # where an error ended it, what else is at work is nobody's any more
            for worker, _ in busy.values():
                worker.close()
            self._workers = [worker for worker in self._workers if not worker.connection.closed]

    def _send_items(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        queue: ItemQueue,
        busy: dict[Any, tuple[_Process, int]],
        width: int,
    ) -> None:
        """Give an item to each worker that is free, as long as there are any, to `width` in all."""
        for worker in [worker for worker in self._workers if worker.connection not in busy]:
            if len(busy) < width and (number := queue.take(alone=not busy)) is not None:
                worker.send(function, items[number], closely=queue.is_suspect(number))
                busy[worker.connection] = worker, number


class _Process:
    """The driver's side of a worker."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.place = ""  # that its item has come to, where it tells

    def send(self, function: Callable[[Any], Any], item: Any, *, closely: bool) -> None:
        """Give it an item. One that is dead is found to be when its answer is received."""
        self.place = ""
        data = pickle.dumps((function, item, closely))
        with suppress(OSError):
            self.connection.send_bytes(data)

    def receive(self) -> tuple[Any] | None:
        """What it says next: the result, or None for a note.

        Raises:
            ItemLost: it is dead, or lacks memory.
            Exception: what the function raised.
        """
        try:
            kind, said = pickle.loads(self.connection.recv_bytes())  # noqa: S301 - of our own process
        except (EOFError, OSError):
            self.connection.close()
            raise ItemLost("its process died") from None
        if kind == "work":
            METER.note(said)
        elif kind == "place":
            self.place = said
        elif kind == "error":
            if isinstance(said, LackOfMemoryError):
                raise ItemLost(str(said), is_placed=True)
            raise said
        return (said,) if kind == "done" else None

    def close(self) -> None:
        """Let it end."""
        self.connection.close()


def count_memory() -> int:
    """Bytes of memory of this machine, or of its control group where that may have less."""
    here, bound = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), Path("/sys/fs/cgroup/memory.max")
    with suppress(OSError, ValueError):  # it has no bound, or there is no such group
        return min(here, int(bound.read_text()))
    return here


def _start_workers(number: int, variables: Mapping[str, str]) -> tuple[list[_Process], subprocess.Popen[bytes]]:
    """Workers, and the process that they will be forked off."""
    pairs = [socket.socketpair() for _ in range(number)]
    theirs = [their.fileno() for _, their in pairs]
    # -P: not the working directory, where a user may keep a module of the same name, but the driver's own path
    command = [sys.executable, "-P", "-c", "import vlmill.pipeline.engine.local_workers as w; w.fork_workers()"]
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - "" stands for it
    parent = subprocess.Popen(  # noqa: S603 - our own interpreter and code
        [*command, *map(str, theirs)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=theirs,
        env={**os.environ, "PYTHONPATH": path, **variables},
    )
    for _, their in pairs:
        their.close()
    return [_Process(Connection(our.detach())) for our, _ in pairs], parent


def fork_workers() -> None:
    """The life of the process that workers are forked off: one for each socket of the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt from the keyboard is the driver's business
    for name in PRELOADED:
        import_module(name)
    descriptors = [int(text) for text in sys.argv[1:]]
    for place, own in enumerate(descriptors):
        if os.fork() == 0:
            for other in descriptors[place + 1 :]:  # those before it are closed already
                os.close(other)
            _serve_items(Connection(own))
        os.close(own)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def _serve_items(connection: Connection) -> None:
    """A worker's life: items in, results out, until the driver's end is closed."""
    items, lock = SimpleQueue[bytes](), threading.Lock()
    threading.Thread(target=_take_items, args=(connection, items), daemon=True).start()

    def say(kind: str, said: Any) -> None:
        with lock:
            connection.send_bytes(pickle.dumps((kind, said)))

    while True:
        function, item, closely = pickle.loads(items.get())  # noqa: S301 - of our driver
        try:
            with METER.told_to(partial(say, "work")), AT_WORK.told_to(partial(say, "place") if closely else None):
                result = function(item)
            say("done", result)
        except Exception as error:  # noqa: BLE001 - it is raised again by the driver
            say("error", _make_portable(error))


def _take_items(connection: Connection, items: SimpleQueue[bytes]) -> None:
    """Receive items as they come. Where the driver is gone, this process ends, whatever it is at."""
    try:
        while True:
            items.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _make_portable(error: Exception) -> Exception:
    """An error that can be pickled, with the place where it was raised."""
    said = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever its class does
        return RuntimeError(f"in a worker process:\n{said}")
    error.add_note(f"in a worker process:\n{said}")
    return error
