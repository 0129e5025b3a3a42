"""What a command says where the machine gives it no more: room on a disk, a place for files, or memory."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.files import explain_full_disk, explain_refused_write, find_refused_write

NO_MEMORY = re.compile(r"out of memory|can't allocate memory|Cannot allocate memory", re.IGNORECASE)
"""What torch says of a GPU and of a CPU, and the system."""

_GIVEN = dict[str, Any]()
"""The arguments and options of the command that runs, by their names."""


def note_options(options: Mapping[str, Any]) -> None:
    """Remember what the command was given."""
    _GIVEN.clear()
    _GIVEN.update(options)


def explain_place(error: BaseException) -> str:
    """What is wrong with a place that was to be written, and the way out; empty for any other error."""
    given = [value for value in _GIVEN.values() if isinstance(value, Path)]
    places = (*given, Path.cwd(), Path(tempfile.gettempdir()), *_list_caches())
    if said := explain_full_disk(error, maybe=places):
        return said
    said, refused = explain_refused_write(error), find_refused_write(error)
    return f"{said}{_suggest_option(refused)}" if refused else ""


def explain_lack_of_memory(error: BaseException) -> str:
    """What to do where a process, or a GPU, has no more memory to give; empty for any other error."""
    told = next((line for line in str(error).splitlines() if NO_MEMORY.search(line)), "")
    if not told and not isinstance(error, MemoryError):
        return ""
    if "recompute" not in _GIVEN:
        return f"out of memory ({told or type(error).__name__}); this command needs more than its process may have"
    return (
        f"out of memory ({told or type(error).__name__}); --recompute keeps less of a step, and so do a higher "
        "`accumulation` in the stage's `train`, which takes fewer sequences at a time, and more --ranks. The training "
        "goes on from its last checkpoint"
    )


def _list_caches() -> list[Path]:
    """Where packages keep what they download: the Hub's files and models."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return [Path(os.environ.get("HF_HOME", home / "huggingface"))]


def _suggest_option(refused: Path) -> str:
    """The option that names another place, where one has named this, or none was given."""
    place = refused.absolute()
    for name, value in _GIVEN.items():
        if isinstance(value, Path) and (place == value.absolute() or place.is_relative_to(value.absolute())):
            return "" if name in {"directory", "recipe"} else _name_option(name)
    return _name_option("out") if "out" in _GIVEN and _GIVEN["out"] is None else ""


def _name_option(name: str) -> str:
    return f"; name another place with --{name.strip('_').replace('_', '-')}"
