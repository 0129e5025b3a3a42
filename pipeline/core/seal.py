"""Files that carry their own sha256, so that a later reader knows that no byte of them has changed.

For small files that no receipt lists: locks, results and lists of digests. JSON has the digest under `sha256`, YAML in
a comment at its end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import read_json

CHANGED = "is not as it was written: its sha256 is another"
COMMENT = "# sha256 of all above: "


def seal_json(value: Mapping[str, Any]) -> str:
    """JSON with sorted names of a mapping that has no `sha256`, and its digest under that name."""
    return _format_json({**value, "sha256": _hash_text(_format_json(value))})


def read_sealed_json(path: Path, cure: str) -> dict[str, Any]:
    """What was given to `seal_json`.

    Raises:
        StoreError: the file is missing, or not as it was written; `cure` says what to do.
    """
    try:
        data, text = read_json(path), path.read_text(encoding="utf-8")
        value = {name: item for name, item in data.items() if name != "sha256"}
    except (StoreError, OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{path} cannot be read ({error}). {cure}") from error
    if seal_json(value) != text:
        raise StoreError(f"{path} {CHANGED}. {cure}")
    return value


def seal_yaml(text: str) -> str:
    """A YAML text with its digest in a comment behind it."""
    return f"{text}{COMMENT}{_hash_text(text)}\n"


def find_seal_fault(path: Path) -> str | None:
    """What is wrong with a file of `seal_yaml`: nothing, that it has no digest, or another than that of its text."""
    text, found, sha256 = path.read_bytes().decode(errors="replace").rpartition(COMMENT)
    if not found:
        return "has no sha256 at its end"
    return None if f"{_hash_text(text)}\n" == sha256 else CHANGED


def _format_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
