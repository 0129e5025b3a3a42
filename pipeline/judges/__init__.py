"""Judges: each looks at samples and says what to drop and why; none changes anything.

STEPS names them for recipes. To add one, write a file with a frozen dataclass that has `name`, `version`, `facts`, `made_by` and
`judge` (see `Judge`), and a line in STEPS.
"""

from __future__ import annotations

from pipeline.judges.judging import Doubt, Finding, Judge, Judging
from pipeline.judges.language import Language
from pipeline.judges.shape import Shape

STEPS: dict[str, type[Judge]] = {"language": Language, "shape": Shape}

__all__ = ["STEPS", "Doubt", "Finding", "Judge", "Judging", "Language", "Shape"]
