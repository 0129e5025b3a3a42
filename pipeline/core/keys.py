"""Keys: what decides the bytes of a task, and nothing else.

key = sha256 over canonical JSON of (step, version, parameters, sha256 of the inputs).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.step import Step, get_parameters

DIGITS = 12
"""Digits of a key or a sha256 that stand in a file name; the receipt holds all 64."""


def canonicalise_value(value: Any) -> Any:
    """`value` in a form whose JSON is the same in every process, on every machine.

    Raises:
        StoreError: for what has no stable form (a set, a path, an object, NaN).
    """
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise StoreError(f"{value!r} cannot be part of a key: only finite numbers can")
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise StoreError(f"{value!r} cannot be part of a key: names must be strings")
        return {str(name): canonicalise_value(value[name]) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [canonicalise_value(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _canonicalise_record(value)
    raise StoreError(f"{value!r} of {type(value).__name__} cannot be part of a key: it has no stable form")


def _canonicalise_record(value: Any) -> dict[str, Any]:
    """Fields that shape the result, and what the class calls itself."""
    identity = {name: getattr(type(value), name) for name in ("kind", "name", "version") if hasattr(type(value), name)}
    shaping = {f.name: getattr(value, f.name) for f in fields(value) if f.metadata.get("shapes_result", True)}
    named = {f"class.{name}": item for name, item in identity.items() if name not in shaping}
    return {name: canonicalise_value(item) for name, item in sorted({**named, **shaping}.items())}


def to_json(value: Any) -> str:
    """Canonical JSON: sorted names, no spaces, no NaN."""
    return json.dumps(
        canonicalise_value(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def hash_value(value: Any) -> str:
    """sha256, in hexadecimal, of the canonical JSON of `value`."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def make_key(step: Step, inputs: Mapping[str, str]) -> str:
    """The key of `step` over inputs given as name -> sha256.

    The canonical JSON of the step is made once for each object: a chain of every partition holds the same ones.
    """
    known = _KNOWN.get(id(step))
    if known is None or known[0] is not step:
        parts = (("parameters", get_parameters(step)), ("step", step.name), ("version", step.version))
        known = step, ",".join(f'"{name}":{to_json(value)}' for name, value in parts)
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[id(step)] = known
    read = json.dumps(dict(inputs), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f'{{"inputs":{read},{known[1]}}}'.encode()).hexdigest()


_MOST_KNOWN = 1000
_KNOWN = dict[int, tuple[Step, str]]()
"""By the id of a step, which is held so that no other gets its id."""


def hash_file(path: Path) -> str:
    """sha256, in hexadecimal, of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
