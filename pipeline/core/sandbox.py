"""One function in a child process: for decoders that may hang, crash, eat memory or be taken over by a hostile file.

The child is a fresh interpreter, so it neither repeats the caller's `__main__` nor shares its threads; it is reused
from call to call and replaced when it dies. It cannot outlive its caller by more than the time limit: idle, it ends
with the socket; at work, an alarm of the kernel ends it, even inside C code. What it says is data: bytes or JSON,
bounded in size and time, so that a decoder that was taken over runs nothing in its caller. What decoders print is not
shown.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from vlmill.pipeline.core.reasons import Reason

MEMORY = 2 << 30
"""Bytes of address space that a child may take beyond what it has when it is ready: to composite the largest RGBA
picture within `images.decode.MAX_PIXELS` takes 1.4 GB."""

START = 60.0
"""Seconds in which a new interpreter has to be ready; it takes about 0.1 on an idle machine."""

GRACE = 2.0
"""Seconds after the limit at which the kernel ends a child whose caller did not."""

LARGEST = 1 << 29
"""Bytes of one answer: a page of 89 Mpx as PNG that cannot be compressed has 0.36 GB."""

HEAD = 9
"""Bytes ahead of a message: its kind, then its length as 8 bytes, the highest first."""

READY, ITEM, DATA, END, FAILURE, CALL = b"rjbefc"
"""Kinds of messages: ready; an item as JSON or as bytes; the end of a call, or its error; a call."""

P = ParamSpec("P")
T = TypeVar("T")


class ChildCrashed(Exception):  # noqa: N818 - a verdict about the arguments, not a programming error
    """The child died over its arguments, or said what cannot be read; the message and the reason say of what."""

    def __init__(self, detail: str, reason: Reason = Reason.CRASHED) -> None:
        super().__init__(detail)
        self.reason = reason


class ChildTimedOut(Exception):  # noqa: N818 - as above
    """The child took longer than it may for one item."""

    reason = Reason.TIMED_OUT


class Sandbox(Generic[P, T]):
    """Calls a generator function in a child process, under limits of time for each item it yields, and of memory.

    Items are bytes, or what JSON holds; whoever takes them checks what they say. Arguments are pickled on their way to
    the child. Both travel between the processes, so keep them small.

        with Sandbox(render_pages, seconds=30) as worker:
            for page in worker.run(data):
                ...
    """

    def __init__(self, function: Callable[P, Iterator[T]], seconds: float, memory: int = MEMORY) -> None:
        """Start nothing yet. `function` must be importable by its module and name."""
        self._name = f"{function.__module__}:{function.__qualname__}"
        self._seconds, self._memory = seconds, memory
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, *arguments: P.args, **named: P.kwargs) -> Iterator[T]:
        """What `function` yields, in order. The next call works whatever the outcome of this one.

        Raises:
            ChildCrashed: the child died, ran out of memory, or said what cannot be read.
            ChildTimedOut: an item took longer than `seconds`.
            RuntimeError: `function` raised, or the child could not be started.
        """
        wire, kind = self._ready(), ITEM
        try:
            send_message(wire, CALL, pickle.dumps((arguments, named)), self._seconds)
            while kind in {ITEM, DATA}:
                kind, body = receive_message(wire, self._seconds, LARGEST)
                if kind not in {ITEM, DATA, END, FAILURE}:
                    raise ChildCrashed("its answer cannot be read")
                if kind == FAILURE:
                    raise RuntimeError(f"{self._name} failed in its child process:\n{body.decode(errors='replace')}")
                if kind in {ITEM, DATA}:
                    yield _read_item(kind, body)
        except TimeoutError:
            raise ChildTimedOut(f"no answer in {self._seconds:g} s") from None
        except (EOFError, OSError):
            raise self._explain_death() from None
        finally:
            if kind not in {END, FAILURE}:
                self.close()

    def close(self) -> None:
        """End the child, whatever it does."""
        if self._child is not None and self._socket is not None:
            self._socket.close()
            self._child.kill()
            self._child.wait()
        self._child = self._socket = None

    def _ready(self) -> socket.socket:
        """The socket to a living child."""
        if self._child is not None and self._child.poll() is not None:
            self.close()
        if self._socket is None:
            self._socket = self._start()
        return self._socket

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        # -P: not the working directory, where a user may keep a module of the same name, but the caller's own path.
        command = [sys.executable, "-P", "-c", "import vlmill.pipeline.core.sandbox as i; i.serve_calls()"]
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - "" stands for it
        # One thread: what BLAS reserves for each core of a large machine would use up the address space.
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and code
                [*command, str(theirs.fileno()), self._name, str(self._seconds), str(self._memory)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        self._socket = ours
        try:
            if receive_message(ours, START, 0)[0] == READY:
                return ours
        except (EOFError, OSError, ChildCrashed):
            pass
        self.close()
        raise RuntimeError(f"the child process for {self._name} did not start; its error stands above")

    def _explain_death(self) -> ChildCrashed:
        """What the child died of.

        Its end of the socket is closed, so it is dead or about to be, unless it wrote nonsense.
        """
        assert self._child is not None
        try:
            code = self._child.wait(GRACE)
        except subprocess.TimeoutExpired:
            return ChildCrashed("its socket broke")
        if code == os.EX_OSERR:
            return ChildCrashed(f"more than {self._memory:,} bytes of memory", Reason.OUT_OF_MEMORY)
        return ChildCrashed(f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}")


IDLE: dict[tuple[str, float, int, int], list[Sandbox[Any, Any]]] = {}
"""Children that wait for their next borrower: by function, limits, and the process whose children they are."""


@contextmanager
def borrow_sandbox(function: Callable[P, Iterator[T]], seconds: float, memory: int = MEMORY) -> Iterator[Sandbox[P, T]]:
    """A sandbox that this process keeps from one partition to the next: to start a child takes as long as 50 images.

    Nobody else has it meanwhile, in whatever thread.
    """
    idle = IDLE.setdefault((f"{function.__module__}:{function.__qualname__}", seconds, memory, os.getpid()), [])
    try:
        sandbox = idle.pop()
    except IndexError:
        sandbox = Sandbox(function, seconds, memory)
        atexit.register(sandbox.close)
    try:
        yield sandbox
    finally:
        idle.append(sandbox)


def send_message(wire: socket.socket, kind: int, body: bytes, seconds: float | None) -> None:
    """Send a message whole. Raises OSError, TimeoutError among them."""
    wire.settimeout(seconds)
    wire.sendall(bytes([kind]) + len(body).to_bytes(HEAD - 1, "big"))
    wire.sendall(body)


def receive_message(wire: socket.socket, seconds: float | None, largest: int) -> tuple[int, bytes]:
    """Kind and body of the next message, which has to be there whole in time.

    Raises:
        EOFError: the other end is closed.
        OSError: the socket is broken; TimeoutError after `seconds`.
        ChildCrashed: it is said to be larger than `largest` bytes.
    """
    end = None if seconds is None else time.monotonic() + seconds
    head = _receive_bytes(wire, HEAD, end)
    size = int.from_bytes(head[1:], "big")
    if size > largest:
        raise ChildCrashed(f"its answer has {size:,} bytes, allowed {largest:,}")
    return head[0], bytes(_receive_bytes(wire, size, end))


def _receive_bytes(wire: socket.socket, size: int, end: float | None) -> bytearray:
    found = bytearray()
    while len(found) < size:
        left = None if end is None else end - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        wire.settimeout(left)
        piece = wire.recv(min(size - len(found), 1 << 20))
        if not piece:
            raise EOFError
        found += piece
    return found


def _read_item(kind: int, body: bytes) -> Any:
    """The item in a message: bytes, or JSON."""
    if kind == DATA:
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ChildCrashed(f"its answer cannot be read: {type(error).__name__}") from None


def serve_calls() -> None:
    """The child's life: calls in, items out, until the caller closes the socket."""
    descriptor, name, seconds, memory = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt from the keyboard is the caller's business
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    module, _, function = name.partition(":")
    called = getattr(importlib.import_module(module), function)
    _set_limits(int(memory))
    wire = socket.socket(fileno=int(descriptor))
    try:
        send_message(wire, READY, b"", None)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write to it what a file makes them
        while True:
            arguments, named = pickle.loads(receive_message(wire, None, 1 << 62)[1])  # noqa: S301 - of our caller
            for kind, body in _make_messages(called(*arguments, **named), float(seconds) + GRACE):
                send_message(wire, kind, body, None)
    except (EOFError, ConnectionError):
        pass  # the caller is done, or gone


def _set_limits(memory: int) -> None:
    """No core files, and so many bytes of address space beyond what is taken."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    taken = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = taken + memory if hard == resource.RLIM_INFINITY else min(taken + memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _make_messages(items: Iterator[Any], limit: float) -> Iterator[tuple[int, bytes]]:
    """What goes to the caller for one call. The alarm is set only while an item is made."""
    while True:
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            item = next(items)
            message = (DATA, item) if isinstance(item, bytes) else (ITEM, json.dumps(item).encode())
        except StopIteration:
            message = (END, b"")
        except MemoryError:
            os._exit(os.EX_OSERR)  # what is left of the process is not to be trusted
        except Exception:  # noqa: BLE001 - it is raised again by the caller
            message = (FAILURE, traceback.format_exc().encode(errors="replace"))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        yield message
        if message[0] not in {ITEM, DATA}:
            return
