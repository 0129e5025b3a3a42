"""Judges: each looks at samples and says what to drop and why; none changes anything.

STEPS names them for recipes. To add one, write a file with a frozen dataclass that has `name`, `version`, `facts`, `made_by` and
`judge` (see `Judge`), and a line in STEPS. One that is yours alone stays in a file of yours: see `own`.
"""

from __future__ import annotations

from vlmill.pipeline.filters.base import Doubt, Finding, Judge, Judging, ReadsLists
from vlmill.pipeline.filters.custom import Drop, Own
from vlmill.pipeline.filters.image_quality import ImageQuality
from vlmill.pipeline.filters.language.filter import Language
from vlmill.pipeline.filters.opt_out import OptOut
from vlmill.pipeline.filters.shape import Shape
from vlmill.pipeline.filters.text_quality import TextQuality

STEPS: dict[str, type[Judge]] = {
    "language": Language,
    "shape": Shape,
    "text_quality": TextQuality,
    "image_quality": ImageQuality,
    "opt_out": OptOut,
}

__all__ = [
    "STEPS",
    "Doubt",
    "Drop",
    "Finding",
    "ImageQuality",
    "Judge",
    "Judging",
    "Language",
    "OptOut",
    "Own",
    "ReadsLists",
    "Shape",
    "TextQuality",
]
