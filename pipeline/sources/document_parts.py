"""Parts of a document that is one list of objects, which no option reads: whether they say something that is lost.

    [{"type": "text", "text": "Before"}, {"type": "image", "path": "a.jpg"}, {"type": "line"}]

With `images: content.pth` every image of this document would be left out, and its texts would be trained on alone. The
same goes for a part of another form, such as one with `base64` beside parts with `path`, a text without an object
around it, or one under a misspelt key. A part may have neither a text nor an image, as the line here; what it says is
noted as a key that is not read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from vlmill.pipeline.core.config import suggest_nearest
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.data_uris import is_base64_picture, is_data_uri
from vlmill.pipeline.sources.known_keys import SORT, has_value, is_number, names_file
from vlmill.pipeline.sources.nested import check_objects, find_place, group_keys, list_objects

IMAGE_SORT = re.compile(r"(input[_-]?)?(image|img|picture|photo)s?([_-]?(url|file|path))?", re.IGNORECASE)
"""What `type` says of a part that is an image."""
TEXT_SORT = re.compile(r"(input[_-]?)?text|paragraph|prose|markdown|heading|title|p|h[1-6]", re.IGNORECASE)
"""What `type` says of a part that is a text."""
LOCATION = re.compile(r"\S*[./:]\S*|\S{40,}")
"""What may be a path, an address or base64, whatever it is called."""


def check_parts(row: Mapping[str, Any], images: Collection[str], texts: Collection[str]) -> None:
    """Raise UnreadableRow where a part is no object, or holds an image or a text that is not read.

    A part without a key of texts holds one where no part has such a key, where it says so by its type, or where one of
    its keys is nearly called so.

    Args:
        row: A row.
        images: The dotted names of images.
        texts: The dotted names of texts.
    """
    for place, keys in group_keys(row, (*images, *texts)).items():
        check_objects(place, find_place(row, place), keys)
        parts = list(list_objects(find_place(row, place)))
        shown, said = _list_within(place, images), _list_within(place, texts)
        wordless = bool(said) and not any(key.partition(".")[0] in part for part in parts for key in said)
        for number, part in enumerate(parts):
            if any(has_value(part.get(key)) or is_number(part.get(key)) for key in keys):
                continue
            left = {key: value for key, value in part.items() if has_value(value) and key not in keys}
            if shown and _is_image(left):
                said_more = f"{_describe_part(place, number, left, shown)}; the option images may name several keys"
                raise UnreadableRow(said_more, Reason.UNSUPPORTED_MEDIA)
            words = [key for key, value in left.items() if isinstance(value, str) and " " in value.strip()]
            if words and (wordless or _is_text(part, said, words)):
                raise UnreadableRow(_describe_part(place, number, left, said))


def _list_within(place: str, names: Collection[str]) -> list[str]:
    """The rest of those names that lead into the objects at a place."""
    return [name.removeprefix(f"{place}.") for name in names if name.startswith(f"{place}.")]


def _is_image(part: Mapping[str, Any]) -> bool:
    """Whether a part is an image by its type and has something that may say where, or holds or names one."""
    sorts = {key for key, value in part.items() if SORT.fullmatch(key.lower()) and isinstance(value, str)}
    texts = [value.strip() for key, value in part.items() if key not in sorts and isinstance(value, str)]
    if any(IMAGE_SORT.fullmatch(part[key].strip()) for key in sorts):
        return any(map(LOCATION.fullmatch, texts)) or any(isinstance(value, Mapping | list) for value in part.values())
    return any(is_data_uri(text) or is_base64_picture(text) or names_file(text) for text in texts)


def _is_text(part: Mapping[str, Any], said: Collection[str], words: Collection[str]) -> bool:
    """Whether a part is a text that has none of the keys of texts: by its type, or by a key that is nearly one."""
    if not said or any(key.partition(".")[0] in part for key in said):
        return False
    sorts = [value.strip() for key, value in part.items() if SORT.fullmatch(key.lower()) and isinstance(value, str)]
    return any(map(TEXT_SORT.fullmatch, sorts)) or any(get_close_matches(key, said, n=1) for key in words)


def _describe_part(place: str, number: int, part: Mapping[str, Any], wanted: Collection[str]) -> str:
    """Why a part is not read; number: from 0."""
    there = f"{suggest_nearest(wanted, part)}it has {', '.join(part)}"
    return f"part {number} of {place} has no {' or '.join(wanted)}: {there}"
