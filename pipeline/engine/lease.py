"""Leases: one build at a time in a run's folder on object storage, where no lock of a file system reaches.

A lease is an object `.lease/<number>` that only one process can create (`If-None-Match: *`). Its holder puts it again
every few seconds. Who finds one watches it: one that changes is held, one that does not change for a while is left by a
dead process, and whoever creates the next number has the folder. No clock of another machine is read or believed.
A holder that was so slow that it lost its lease is told when it asks. A build does before each phase and before it
removes files that no manifest names. What it commits meanwhile is sound all the same: committing needs no lease.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.run_path import RunPath

FOLDER = ".lease"

BEAT = 5.0
"""Seconds between two puts of a lease."""

PATIENCE = 30.0
"""Seconds without a change after which a lease counts as left."""


class Lease:
    """A lease of this process, kept by a thread until it is released."""

    def __init__(self, path: RunPath) -> None:
        self._path, self._stop, self._told = path, threading.Event(), {**_describe_process(), "ended": False}
        self._beats = 0
        self._thread = threading.Thread(target=self._keep, name="vlmill lease", daemon=True)

    def begin(self) -> bool:
        """Create it and begin to keep it; False where another process was first."""
        if not self._path.create(self._text()):
            return False
        self._thread.start()
        return True

    def check(self) -> None:
        """Make sure that no other process has taken the folder over.

        Raises:
            StoreError: one has.
        """
        number = int(self._path.name)
        if any(int(path.name) > number for path in _list_leases(self._path.parent.parent)):
            raise StoreError(
                f"{self._path.parent.parent}: this build could not be heard of for {PATIENCE:.0f} s, and another one "
                "has taken the folder over; what is committed is kept. Wait for the other one"
            )

    def release(self) -> None:
        """Say that it has ended."""
        self._stop.set()
        self._thread.join()
        self._told["ended"] = True
        self._path.write_bytes(self._text())

    def _text(self) -> bytes:
        self._beats += 1
        return json.dumps({**self._told, "beats": self._beats}).encode()

    def _keep(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                self._path.write_bytes(self._text())
            except StoreError:  # the work itself will say more
                continue


@contextmanager
def hold_lease(root: RunPath) -> Iterator[Lease]:
    """Hold the folder against a second build.

    Raises:
        StoreError: another build holds it, or the storage does not create objects only if they are absent.
    """
    for path in _list_leases(root)[-1:]:
        if is_lease_held(path):
            raise StoreError(
                f"{root}: another build is at work in this folder; wait for it, or give this one another --out"
            )
    left = _list_leases(root)
    lease = Lease(root / FOLDER / f"{int(left[-1].name) + 1 if left else 1:08d}")
    if not lease.begin():
        raise StoreError(f"{root}: another build began in this folder at the same time; wait for it")
    try:
        _check_creation(root)
        for path in left:
            path.unlink(missing_ok=True)
        yield lease
    finally:
        lease.release()


def refuse_held_lease(root: RunPath) -> None:
    """Make sure that no build is at work.

    Raises:
        StoreError: one is.
    """
    for path in _list_leases(root)[-1:]:
        if is_lease_held(path):
            raise StoreError(f"{root}: a build is at work in this folder; call again when it has ended")


def is_lease_held(path: RunPath) -> bool:
    """Whether the process of a lease is alive: at once where it says so or runs here, else by watching it."""
    before = _read_lease(path)
    if before is None or before["ended"]:
        return False
    here = _describe_process()
    if before["machine"] == here["machine"]:
        return bool(_find_start(before["pid"]) == before["start"])
    watched = time.monotonic()
    while time.monotonic() - watched < PATIENCE:
        time.sleep(min(1.0, PATIENCE / 10))
        now = _read_lease(path)
        if now is None or now["ended"]:
            return False
        if now != before:
            return True
    return False


def _list_leases(root: Path) -> list[RunPath]:
    """The leases of a folder, the newest last."""
    assert isinstance(root, RunPath)
    return [path for path in (root / FOLDER).iterdir() if path.name.isdecimal()]


def _read_lease(path: RunPath) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return found


def _describe_process() -> dict[str, Any]:
    """This process, so that others on this machine, or in this container of it, can tell whether it is alive."""
    boot, numbers = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    machine = f"{socket.gethostname()} {boot.read_text().strip() if boot.exists() else uuid.getnode()}"
    machine += f" {numbers.readlink()}" if numbers.exists() else ""
    return {"machine": machine, "pid": os.getpid(), "start": _find_start(os.getpid())}


def _find_start(process: int) -> str:
    """When a process of this machine began, in ticks since the machine did; empty where there is none."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def _check_creation(root: RunPath) -> None:
    """Make sure that the storage creates an object only once: all of the contract hangs on it.

    Raises:
        StoreError: it put a second one in its place.
    """
    probe = root / FOLDER / f"probe-{uuid.uuid4().hex}"
    try:
        if not probe.create(b"1") or probe.create(b"2"):
            raise StoreError(
                f"{root}: this storage does not heed `If-None-Match: *`, so two workers could overwrite each other's "
                "receipts; use one that does (Amazon S3 does), or a folder on a file system"
            )
    finally:
        probe.unlink(missing_ok=True)
