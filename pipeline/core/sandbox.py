"""One function in a child process: for decoders that may hang, crash or eat memory over a hostile file.

The child is a fresh interpreter, so it neither repeats the caller's `__main__` nor shares its threads; it is reused
from call to call and replaced when it dies. It cannot outlive its caller by more than the time limit: idle, it ends
with the pipe; at work, an alarm of the kernel ends it, even inside C code.
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from vlmill.pipeline.core.reasons import Reason

MEMORY = 4 << 30
"""Bytes of address space for a child: to composite the largest RGBA picture within Pillow's own limit takes 1.4 GB."""

START = 60.0
"""Seconds in which a new interpreter has to be ready; it takes about 0.1 on an idle machine."""

GRACE = 2.0
"""Seconds after the limit at which the kernel ends a child whose caller did not."""

P = ParamSpec("P")
T = TypeVar("T")


class ChildCrashed(Exception):  # noqa: N818 - a verdict about the arguments, not a programming error
    """The child died over its arguments; the message says of what."""

    reason = Reason.CRASHED


class ChildTimedOut(Exception):  # noqa: N818 - as above
    """The child took longer than it may for one item."""

    reason = Reason.TIMED_OUT


class Sandbox(Generic[P, T]):
    """Calls a generator function in a child process, under a time limit for each item it yields.

    Arguments and items travel between the processes, so keep them small and plain.

        with Sandbox(render_pages, seconds=30) as worker:
            for page in worker.run(data):
                ...
    """

    def __init__(self, function: Callable[P, Iterator[T]], seconds: float) -> None:
        """Start nothing yet. `function` must be importable by its module and name."""
        self._name = f"{function.__module__}:{function.__qualname__}"
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, *arguments: P.args, **named: P.kwargs) -> Iterator[T]:
        """What `function` yields, in order. The next call works whatever the outcome of this one.

        Raises:
            ChildCrashed: the child died, or ran out of memory.
            ChildTimedOut: an item took longer than `seconds`.
            RuntimeError: `function` raised, or the child could not be started.
        """
        pipe, finished = self._ready(), False
        try:
            pipe.send((arguments, named))
            while not finished:
                if not pipe.poll(self._seconds):
                    raise ChildTimedOut(f"no answer in {self._seconds:g} s")
                what, value = pipe.recv()
                finished = what != "item"
                if what == "error":
                    raise RuntimeError(f"{self._name} failed in its child process:\n{value}")
                if what == "item":
                    yield value
        except (EOFError, OSError):
            raise ChildCrashed(self._epitaph()) from None
        finally:
            if not finished:
                self.close()

    def close(self) -> None:
        """End the child, whatever it does."""
        if self._child is not None and self._pipe is not None:
            self._pipe.close()
            self._child.kill()
            self._child.wait()
        self._child = self._pipe = None

    def _ready(self) -> Connection[Any, Any]:
        """The pipe to a living child."""
        if self._child is not None and self._child.poll() is not None:
            self.close()
        if self._pipe is None:
            self._pipe = self._start()
        return self._pipe

    def _start(self) -> Connection[Any, Any]:
        ours, theirs = Pipe()
        # -P: not the working directory, where a user may keep a module of the same name, but the caller's own path.
        command = [sys.executable, "-P", "-c", "import vlmill.pipeline.core.sandbox as i; i.serve_calls()"]
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - "" stands for it
        # One thread: what BLAS reserves for each core of a large machine would use up the address space.
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and code
                [*command, str(theirs.fileno()), self._name, str(self._seconds)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        self._pipe = ours
        try:
            if ours.poll(START) and ours.recv() == "ready":
                return ours
        except (EOFError, OSError):
            pass
        self.close()
        raise RuntimeError(f"the child process for {self._name} did not start; its error stands above")

    def _epitaph(self) -> str:
        """What the child died of.

        Its end of the pipe is closed, so it is dead or about to be, unless it wrote nonsense.
        """
        assert self._child is not None
        try:
            code = self._child.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "its pipe broke"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def serve_calls() -> None:
    """The child's life: calls in, items out, until the caller closes the pipe."""
    descriptor, name, seconds = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt from the keyboard is the caller's business
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    module, _, function = name.partition(":")
    called = getattr(importlib.import_module(module), function)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe: Connection[Any, Any] = Connection(int(descriptor))
    try:
        pipe.send("ready")
        while True:
            arguments, named = pipe.recv()
            for message in _make_messages(called(*arguments, **named), float(seconds) + GRACE):
                pipe.send(message)
    except (EOFError, ConnectionError):
        pass  # the caller is done, or gone


def _make_messages(items: Iterator[Any], limit: float) -> Iterator[tuple[str, Any]]:
    """What goes over the pipe for one call. The alarm is set only while an item is made."""
    while True:
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            message = ("item", next(items))
        except StopIteration:
            message = ("end", None)
        except MemoryError:
            os._exit(os.EX_OSERR)  # what is left of the process is not to be trusted
        except Exception:  # noqa: BLE001 - it is raised again by the caller
            message = ("error", traceback.format_exc())
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        yield message
        if message[0] != "item":
            return
