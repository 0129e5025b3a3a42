"""The `options` of a source or benchmark in a recipe, whose class the `kind` beside them names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

from vlmill.pipeline.core.config import SILENT


def add_kind(options: Any, kind: str | None) -> Any:
    """Options as the union over row shapes reads them; objects are returned as they are.

    Raises:
        PydanticCustomError: silent, where `kind` was wrong and an error says so already.
        ValueError: the options name a kind themselves.
    """
    if not isinstance(options, Mapping):
        return options
    if kind is None:
        raise PydanticCustomError(SILENT, "its kind is wrong")
    if "kind" in options:
        raise ValueError(f"unknown key 'kind'; it stands beside `options`: {kind}")
    return {"kind": kind, **options}
