"""Filters: each looks at samples and yields verdicts; none changes anything.

FILTERS names them for recipes. To add one, write a file with a frozen dataclass that has `name`, `version`,
`image_stats`, `made_by` and `decide` (see `Filter`), and a line in FILTERS. A filter of a user stays in a file of its
own: see `custom.py`.
"""

from __future__ import annotations

from vlmill.pipeline.filters.base import Filter, FilterStep, Finding, ReadsLists, ReadsTables, Undecided, reads_tables
from vlmill.pipeline.filters.custom import CustomFilter, Drop
from vlmill.pipeline.filters.image_quality import ImageQuality
from vlmill.pipeline.filters.language.filter import Language
from vlmill.pipeline.filters.opt_out import OptOut
from vlmill.pipeline.filters.shape import Shape
from vlmill.pipeline.filters.text_quality import TextQuality
from vlmill.pipeline.filters.threshold import Threshold

FILTERS: dict[str, type[Filter]] = {
    "language": Language,
    "shape": Shape,
    "text_quality": TextQuality,
    "image_quality": ImageQuality,
    "opt_out": OptOut,
    "threshold": Threshold,
}

__all__ = [
    "FILTERS",
    "CustomFilter",
    "Drop",
    "Filter",
    "FilterStep",
    "Finding",
    "ImageQuality",
    "Language",
    "OptOut",
    "ReadsLists",
    "ReadsTables",
    "Shape",
    "TextQuality",
    "Threshold",
    "Undecided",
    "reads_tables",
]
