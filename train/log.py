"""The output of training: a JSON line per step in `log.jsonl`, the same for TensorBoard, a bar or plain lines."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event as BoardEvent
from tensorboardX.proto.event_pb2 import SessionLog
from tensorboardX.summary import scalar

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import explain_full_disk, write_atomically
from vlmill.train.wandb_run import WandbRun

LINE_EVERY = 15.0
"""Seconds between two plain lines where there is no terminal; the first step has one."""


class Board:
    """The events of TensorBoard, written by whoever adds them.

    `SummaryWriter` hands them to a thread: a full disk ends it, and who adds more then waits for it for ever.
    """

    def __init__(self, folder: Path, begins_at: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._add(step=begins_at, file_version="brain.Event:2")
        self._add(step=begins_at, session_log=SessionLog(status=SessionLog.START))  # what was behind it is void

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Add the numbers of a step, and have the file hold them. Raises OSError on a full disk."""
        for name, value in scalars.items():
            self._add(step=step, summary=scalar(name, value))
        self._writer.flush()

    def close(self) -> None:
        """Let go of the file. Raises OSError on a full disk."""
        self._writer.close()

    def _add(self, **what: Any) -> None:
        self._writer.write_event(BoardEvent(wall_time=time.time(), **what))


class Log:
    """Writes the lines of steps from `done` on.

    Lines that an interrupted run wrote beyond its last checkpoint are removed.
    """

    def __init__(
        self,
        path: Path,
        stage: str,
        done: int,
        steps: int,
        console: Console,
        peak: float | None = None,
        open_wandb: Callable[[], WandbRun] | None = None,
    ) -> None:
        self.stage, self.steps, self.console, self.said = stage, steps, console, float("-inf")
        self.peak = peak  # operations per second of all devices together
        self.path, self.done, self.open_wandb = path, done, open_wandb
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bars = Progress(*columns, console=console) if console.is_terminal else None
        self.bar = self.bars.add_task(stage, total=steps, completed=done, loss=float("nan")) if self.bars else None

    def count_lost(self) -> int:
        """Steps that an interrupted run logged beyond its last checkpoint."""
        return len(self._read_lines()[self.done :])

    def __enter__(self) -> Self:
        kept = self._read_lines()[: self.done]
        write_atomically(self.path, "".join(kept))
        self.file = self.path.open("a")
        self.board = Board(self.path.parent / "tensorboard", self.done)
        self.wandb = self.open_wandb() if self.open_wandb else None
        if self.bars:
            self.bars.start()
        return self

    def _read_lines(self) -> list[str]:
        return self.path.read_text().splitlines(keepends=True) if self.path.exists() else []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars:
            self.bars.stop()
        if self.wandb:
            self.wandb.close(failed=error is not None)
        try:
            with closing(self.board):
                self.file.close()
        except OSError:  # a full disk; where it has ended the steps, that error says more
            if error is None:
                raise

    def write(self, line: Mapping[str, Any], spent: float, waited: float) -> None:
        """Add and show the line of the next step, which took `spent` seconds, `waited` of them for data.

        Raises:
            StoreError: the disk is full.
        """
        times = {
            "tokens_per_second": round(line["tokens"] / spent, 1),
            "tiles_per_second": round(line["tiles"] / spent, 1),
            "flops_per_second": float(f"{line['flops'] / spent:.4g}"),
            "waited": round(waited / spent, 4),
            "memory": _measure_memory(),
            **({"mfu": round(line["flops"] / spent / self.peak, 4)} if self.peak else {}),
        }
        scalars = dict(_flatten_scalars({**line, **times}))
        try:
            self.file.write(json.dumps({**line, **times}, sort_keys=True) + "\n")
            self.file.flush()
            self.board.write(scalars, line["step"])
        except OSError as error:
            if hint := explain_full_disk(error, self.path):
                raise StoreError(hint) from error
            raise
        if self.wandb:
            self.wandb.write({**scalars, "step": line["step"]})
        done = line["step"] + 1
        if self.bars and self.bar is not None:
            self.bars.update(self.bar, completed=done, loss=line["loss"])
        elif done == self.steps or time.monotonic() - self.said >= LINE_EVERY:
            self.said = time.monotonic()
            self.console.print(
                f"{self.stage}: step {done} of {self.steps}, loss {line['loss']:.3f}, "
                f"{times['tokens_per_second']:.0f} tokens/s, waited for data {times['waited']:.0%} of the time"
                + (f", MFU {times['mfu']:.0%}" if self.peak else "")
            )


def tell_start(console: Console, stage: str, what: str) -> None:
    """A plain line on what a stage does before its first step is done."""
    console.print(f"{stage}: {what}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def follow_logs(folder: Path, console: Console) -> Iterator[None]:
    """Show now and then where the logs below a folder stand, that other processes write."""
    stop, began = Event(), time.time()

    def show() -> None:
        while not stop.wait(LINE_EVERY):
            for path in sorted(folder.glob("*/log.jsonl")):
                lines = path.read_text().splitlines() if path.stat().st_mtime >= began else []
                if lines and time.time() - path.stat().st_mtime < LINE_EVERY:
                    line = json.loads(lines[-1])
                    console.print(
                        f"{path.parent.name}: step {line['step'] + 1}, loss {line['loss']:.3f}, "
                        f"{line['tokens_per_second']:.0f} tokens/s"
                    )

    thread = Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _measure_memory() -> int:
    """Bytes: the most that torch has held on the GPU, else that this process has held."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _flatten_scalars(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a line, under its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten_scalars(value, f"{above}{name}/")
        elif name != "step":
            yield f"{above}{name}", value
