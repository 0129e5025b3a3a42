"""Paths of image files from what rows say, such as `{id}/{image}.jpg`. Kinds whose images are files, and `vlmill new`.

A field is a name in braces, `{image}`; `{image:012}` fills it up with zeros to so many characters, as COCO names files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

FIELD = re.compile(r"\{(\w+)(?::0(\d+))?\}")
"""A field, and how many characters it has at least."""


def list_fields(template: str) -> list[str]:
    """The names of the fields."""
    return [name for name, _ in FIELD.findall(template)]


def fill_template(template: str, values: Mapping[str, Any]) -> str:
    """The path that these values make; a number without a fraction is written without one."""
    return FIELD.sub(lambda field: _spell_part(values[field[1]]).rjust(int(field[2] or 0), "0"), template)


def _spell_part(value: str | float) -> str:
    """A part of a path; a whole number without a point."""
    return f"{value:.15g}" if isinstance(value, float) else str(value)
