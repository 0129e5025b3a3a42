"""What every command says before it reads a run whose accepted recipe is not built to its end.

It is said here for all of them. A command that takes a run's folder as `directory` warns unless it is in SILENT.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlmill.pipeline.cli.arguments import console
from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.recipe.lock import UNBUILT_MESSAGE, explain_unbuilt

SILENT = frozenset({"takedown", "clean", "disclose"})
"""Commands over a run that show nothing of an earlier one: they build it to its end, look at the names of files, or
refuse."""


def warn_unbuilt(command: str, options: Mapping[str, Any]) -> None:
    """Print a warning for each run that a command is about to read and that is not built to its end.

    JSON stays alone on standard output: with `--json` the warning goes to standard error.
    """
    warnings.filterwarnings("ignore", message=UNBUILT_MESSAGE)  # of Python's open_run, which says the same
    if command in SILENT or os.environ.get("RANK", "0") != "0":  # set by torchrun; only the first rank prints
        return
    shown = make_console(stderr=True, quiet=console.quiet) if options.get("as_json") else console
    for root in dict.fromkeys(_list_runs(command, options)):
        if said := explain_unbuilt(root):
            shown.print(f"warning: {said}", markup=False, soft_wrap=True)


def _list_runs(command: str, options: Mapping[str, Any]) -> Iterator[Path]:
    """The folders of runs that a command reads, by its arguments; what it will refuse is left out."""
    if "directory" in options:
        yield options["directory"]
    elif command == "check" and options["from_run"]:
        yield options["from_run"]
    elif command == "what_if":
        from vlmill.pipeline.recipe.mapping import find_run

        with suppress(VlmillError, OSError):
            yield find_run(options["recipe"], options["out"])
    elif command == "diff":
        from vlmill.mixtures.compare import find_side_run

        sides = (find_side_run(options[name]) for name in ("before", "after"))
        yield from (side for side in sides if side is not None)
