"""Turns whose keys and speakers have other names than trainers give them, and images that turns bring.

`{"by": "client", "said": "What is it?", "shows": ["a.jpg"]}` becomes the question that it is, once options say that
`by` names the speaker, that `said` is the text and that a client is a user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.conversation import FROM, VALUE
from vlmill.pipeline.sources.marks import MARK
from vlmill.pipeline.sources.nested import find_place

Speaker = Literal["system", "user", "assistant"]


def rename_turns(turns: Any, speaker: str, said: str, speakers: Mapping[str, Speaker]) -> Any:
    """Turns as messages of role and content; what is no list of objects is left to who reads it.

    Args:
        turns: of a row.
        speaker: the key of who speaks; empty: as trainers call it.
        said: the key of what is said; empty: as trainers call it. Both may be dotted.
        speakers: who speaks -> role, in any case; others are left as they are.

    Raises:
        UnreadableRow: a turn has no such key.
    """
    if not isinstance(turns, list) or not (speaker or said or speakers):
        return turns
    roles = {name.casefold(): role for name, role in speakers.items()}
    return [
        _rename_turn(place, turn, speaker, said, roles) if isinstance(turn, Mapping) else turn
        for place, turn in enumerate(turns)
    ]


def show_turn_images(turns: Any, column: str) -> tuple[Any, list[Any]]:
    """Turns with `<image>` for each image that they name under this key, and those images in order.

    Images stand before a turn's text, unless it says where: then it has as many `<image>`.
    """
    if not isinstance(turns, list):
        return turns, []
    shown, images = list[Any](), list[Any]()
    for turn in turns:
        if not isinstance(turn, Mapping):
            shown.append(turn)
            continue
        found = find_place(turn, column)
        listed = [one for one in (found if isinstance(found, list) else [found]) if one not in (None, "")]
        images += listed
        rest = {key: value for key, value in turn.items() if key != column.partition(".")[0]}
        shown.append({**rest, "content": _mark_images(rest.get("content"), len(listed))})
    return shown, images


def _rename_turn(
    place: int, turn: Mapping[str, Any], speaker: str, said: str, roles: Mapping[str, Speaker]
) -> dict[str, Any]:
    for name, key in (("speaker", speaker), ("said", said)):
        if key and find_place(turn, key) is None:
            raise UnreadableRow(f"turn {place} has no {key}, which the option {name} names; it has {', '.join(turn)}")
    who = find_place(turn, speaker) if speaker else _get_first(turn, FROM)
    text = find_place(turn, said) if said else _get_first(turn, VALUE)
    used = {key.partition(".")[0] for key in (speaker, said) if key} | {*FROM, *VALUE}
    known = roles.get(str(who).casefold(), who)
    return {**{key: value for key, value in turn.items() if key not in used}, "role": known, "content": text}


def _get_first(turn: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((turn[name] for name in names if turn.get(name) is not None), None)


def _mark_images(content: Any, images: int) -> Any:
    """A content with `images` marks. A list of parts gets parts of type image."""
    if not images or (isinstance(content, str) and content.count(MARK) == images):
        return content
    if isinstance(content, list):
        return [*[{"type": "image"}] * images, *content]
    return f"{MARK * images}{content or ''}"
