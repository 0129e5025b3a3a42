"""The log of what commands do to a run: `logs/events.jsonl`, a JSON line for each event, for people and for monitors.

Commands write it as they work (src/vlmill/api, core/progress.py), and nothing reads it back: it holds times, so no
receipt, lock or check knows of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import append_text
from vlmill.pipeline.core.run_path import put_logs
from vlmill.pipeline.core.termination import explain_interrupt

EVENTS = "logs/events.jsonl"

LONGEST = 2000
"""Characters of a message that are kept."""


class EventLog:
    """Appends events. Each stands on a line by itself, so a line that a kill cut spoils no other."""

    def __init__(self, root: Path) -> None:
        """The log of the run in the folder `root`, which is made where it is not there."""
        self.path = root / EVENTS

    def write(self, event: str, **fields: Any) -> None:
        """Append an event with the time in UTC, this process and `fields` of JSON. On a full disk it is lost."""
        fields = {name: value[:LONGEST] if isinstance(value, str) else value for name, value in fields.items()}
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "pid": os.getpid(), "event": event}
        try:
            append_text(self.path, json.dumps({**line, **fields}, ensure_ascii=False) + "\n")
        except (OSError, StoreError):  # the work itself will say more
            return

    @contextmanager
    def span(self, command: str, **fields: Any) -> Iterator[None]:
        """Events for the begin and the end of a command; of one that fails or is interrupted, with the cause."""
        self.write("begin", command=command, **fields)
        try:
            yield
        except BaseException as error:
            said = explain_interrupt()[0] if isinstance(error, KeyboardInterrupt) else str(error)
            self.write("failed", command=command, error=type(error).__name__, message=said)
            put_logs()
            raise
        self.write("end", command=command)
        put_logs()
