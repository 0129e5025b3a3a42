"""What is in cells, in the words that `vlmill new` has for it: pictures, paths and addresses of them, texts, lists."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlmill.pipeline.sources.data_uris import is_base64_picture, is_data_uri
from vlmill.pipeline.sources.known_keys import AUDIO, LONGEST, PICTURES, VIDEO, has_value, is_number
from vlmill.pipeline.sources.nested import join_columns

PATH = re.compile(rf"[^\n]+\.({'|'.join(PICTURES)})", re.IGNORECASE)
MEDIA = re.compile(rf"[^\n]+\.({'|'.join(sorted(VIDEO | AUDIO))})", re.IGNORECASE)
ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)
IN_ROW = ("picture", "path of a picture", "list of pictures", "list of paths of pictures")
"""What cells of images hold for `table`."""
LINKED = ("address", "list of addresses")
"""What they hold for `web_table`."""
TEXTS = ("text", "list written as text")
"""What cells of texts hold: one may begin and end with brackets, as answers in JSON do."""
PLURALS = {"address": "addresses", "path of a picture": "paths of pictures"}
PLURALS |= {"path of a video": "paths of videos", "path of a sound": "paths of sounds"}


def describe_values(values: Sequence[Any]) -> list[str]:
    """What values are, for people; empty ones are none."""
    return list(dict.fromkeys(name_value(value) for value in values if has_value(value) or is_number(value)))


def hold_mostly(values: Sequence[Any], kinds: Sequence[str]) -> bool:
    """Whether most of what stands in cells, each item of a list by itself, is of these kinds."""
    items = [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]
    found = [name_value(item) in kinds for item in items if has_value(item)]
    return 2 * sum(found) > len(found)


def name_value(value: Any) -> str:
    """What a value is, for people."""
    if isinstance(value, bytes):
        return "picture"
    if isinstance(value, Mapping):
        whole = join_columns(value)
        return "picture" if {"bytes", "path"} <= value.keys() else "object" if whole is value else "list of objects"
    if isinstance(value, list | tuple):
        kinds = list(dict.fromkeys(name_value(item) for item in value if item is not None))
        return f"list of {_name_several(kinds[0])}" if len(kinds) == 1 else "list"
    if isinstance(value, bool):
        return "true or false"
    return "number" if is_number(value) else _name_text(str(value).strip())


def _name_several(kind: str) -> str:
    """A kind of values in the plural; of a list within a list, `lists of numbers`."""
    if kind.startswith("list"):
        return f"lists{kind.removeprefix('list')}"
    return PLURALS.get(kind, f"{kind}s")


def _name_text(text: str) -> str:
    """What a text is, for people."""
    if is_data_uri(text) or is_base64_picture(text):
        return "picture"
    if ADDRESS.fullmatch(text):
        return "address"
    if PATH.fullmatch(text):
        return "path of a picture"
    if (found := MEDIA.fullmatch(text)) and len(text) <= LONGEST:
        return "path of a video" if found[1].lower() in VIDEO else "path of a sound"
    return "list written as text" if text.startswith("[") and text.endswith("]") else "text"
