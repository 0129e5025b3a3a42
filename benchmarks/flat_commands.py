"""What every command that reads a run takes, for `python -m benchmarks.flat --commands`."""

from __future__ import annotations

from pathlib import Path


def print_commands(samples: int, folder: Path | None) -> None:
    """Print a line for each command."""
    raise NotImplementedError
