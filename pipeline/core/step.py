"""What a step is: parameters, the files it reads, and a function from files to files that counts what it did.

A step sees only the files that it is given and an empty folder. It knows neither the runner, the executor, the
store nor other steps, so it is tested by calling it. The store names, hashes and commits what it leaves behind.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vlmill.pipeline.core.reasons import Reason

Inputs = Mapping[str, Path]
"""The files a step reads, by the name their step gave them: `samples.parquet`, `language.verdicts.parquet`."""


@dataclass(slots=True)
class Count:
    """One line of the funnel: in = kept + dropped + failed."""

    came: int = 0
    kept: int = 0
    lost: Counter[Reason] = field(default_factory=Counter)

    def lose(self, reason: Reason, number: int = 1) -> None:
        """Count `number` things that came and were lost for `reason`."""
        self.came += number
        self.lost[reason] += number

    def keep(self, number: int = 1) -> None:
        """Count `number` things that came and stay."""
        self.came += number
        self.kept += number

    def add(self, other: Count) -> None:
        """Add another line to this one."""
        self.came += other.came
        self.kept += other.kept
        self.lost.update(other.lost)

    def balanced(self) -> bool:
        """Whether everything that came is accounted for."""
        return self.came == self.kept + sum(self.lost.values())

    def to_json(self) -> dict[str, Any]:
        """`{"in", "kept", "dropped": {reason: n}, "failed": {reason: n}}` with sorted reasons."""
        split: dict[str, dict[str, int]] = {"dropped": {}, "failed": {}}
        for reason, number in sorted(self.lost.items()):
            if number:
                split["failed" if reason.failed else "dropped"][str(reason)] = number
        return {"in": self.came, "kept": self.kept, **split}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Count:
        """The line that `to_json` wrote."""
        lost = {
            Reason(reason): number for partition in ("dropped", "failed") for reason, number in data[partition].items()
        }
        return cls(data["in"], data["kept"], Counter(lost))


Counts = dict[str, Count]
"""Lines by level. `rows`, `samples`, `nodes` and `images` are added up over the run; a step may count other things
too."""


class Step(Protocol):
    """A frozen dataclass whose fields are its parameters, with a `run`.

    A field with `metadata=RUNTIME` does not shape the result (threads, time-outs, mirrors) and stays out of the key.
    """

    @property
    def name(self) -> str:
        """What receipts and folders call it."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the same inputs and parameters give other bytes."""
        ...

    @property
    def pure(self) -> bool:
        """False where network or time limits influence the result; then the first one is kept."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the files it reads, or patterns (`*.tar`); their sha256 are in the key, and no others."""
        ...

    def made_by(self) -> Mapping[str, str]:
        """What else decides its bytes: library versions, the sha256 of a model. Recorded, not in the key."""
        ...

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Read `inputs`, leave files in the empty `folder`, and count the outcomes of what came in.

        For the same inputs and parameters the same bytes, if `pure`. Trouble with data is counted; an exception
        means that the machine failed or the recipe is wrong.
        """
        ...


@runtime_checkable
class HasSideInputs(Step, Protocol):
    """An impure step that looks at more than its key knows of: what it left stays, whatever those files say later."""

    @property
    def side_inputs(self) -> tuple[str, ...]:
        """Names or patterns of files that are among the inputs of `run`, and not in the key."""
        ...


RUNTIME: Mapping[str, Any] = {"shapes_result": False}


def get_parameters(step: Any) -> dict[str, Any]:
    """The fields of a step that shape its result, for the key."""
    return {f.name: getattr(step, f.name) for f in fields(step) if f.metadata.get("shapes_result", True)}


def match_names(names: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """The names that are among `wanted` or match a pattern there (`*.tar`), sorted; pure.

    Takes time for names and `wanted` added, not multiplied: a mixture reads the files of each shard by name.
    """
    exact, matches = _compile_names(tuple(wanted))
    return sorted(name for name in names if name in exact or (matches and matches(name)))


@lru_cache(1024)
def _compile_names(wanted: tuple[str, ...]) -> tuple[frozenset[str], Callable[[str], object] | None]:
    """The names, and what says whether another one matches a pattern among them."""
    patterns = sorted({want for want in wanted if _WILD.search(want)})
    return frozenset(wanted), re.compile("|".join(map(fnmatch.translate, patterns))).match if patterns else None


_WILD = re.compile(r"[*?\[]")
