"""Taking things down: what may not be in a run, and raw tables without it.

    rules      the list (`takedowns.yaml` in the run's folder), applied by every later build there
    steps      match: what of a partition falls under the list; redact: its raw tables without that
    forecast   what a list would change in a finished run, and what it would not

`pipeline/engine/table_history.py` has both steps as parts of a chain: a chain matches after image stats, where the list
is not empty, and starts anew where something was redacted. Most partitions hold nothing of the list, and nothing else
happens to them.
"""

from __future__ import annotations

from vlmill.pipeline.takedown.rules import TakedownList
from vlmill.pipeline.takedown.steps import (
    TABLES,
    Match,
    Matches,
    Redact,
    make_redaction,
    name_record,
)

__all__ = ["TABLES", "Match", "Matches", "Redact", "TakedownList", "make_redaction", "name_record"]
