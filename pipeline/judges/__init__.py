"""Judges: each looks at samples and says what to drop and why; none changes anything.

STEPS names them for recipes. To add one, write a file with a frozen dataclass that has `name`, `version`, `facts`, `made_by` and
`judge` (see `Judge`), and a line in STEPS. One that is yours alone stays in a file of yours: see `own`.
"""

from __future__ import annotations

from pipeline.judges.image_quality import ImageQuality
from pipeline.judges.judging import Doubt, Finding, Judge, Judging, ReadsLists
from pipeline.judges.language import Language
from pipeline.judges.opt_out import OptOut
from pipeline.judges.own import Drop, Own
from pipeline.judges.shape import Shape
from pipeline.judges.text_quality import TextQuality

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
