"""Turns whose keys and speakers have other names than trainers give them, and images that turns bring.

`{"by": "client", "said": "What is it?", "shows": ["a.jpg"]}` becomes the question that it is, once options say that
`by` names the speaker, that `said` is the text and that a client is a user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vlmill.pipeline.core.config import suggest_nearest
from vlmill.pipeline.sources.base import UnreadableRow
from vlmill.pipeline.sources.conversation import FROM, VALUE
from vlmill.pipeline.sources.known_keys import has_value
from vlmill.pipeline.sources.marks import MARK
from vlmill.pipeline.sources.nested import check_lists, find_place, list_beside

Speaker = Literal["system", "user", "assistant"]


def lift_turns(turns: Any, named: Sequence[str], shown: Sequence[str]) -> Any:
    """Turns with what lies at dotted names as keys of their own, in place of the objects that it lies in.

    What else has a value in these objects stays as a key, under its dotted name, to be noted.

    Args:
        turns: of a row.
        named: the keys that are read of a turn, those of images among them.
        shown: the keys of images.

    Raises:
        UnreadableRow: what else is in these objects carries meaning, or one in a list has no image.
    """
    if not isinstance(turns, list) or not any("." in name for name in named):
        return turns
    return [_lift_turn(turn, named, shown) if isinstance(turn, Mapping) else turn for turn in turns]


def rename_turns(
    turns: Any, speaker: str, said: str, speakers: Mapping[str, Speaker], shown: Sequence[str] = ()
) -> Any:
    """Turns as messages of role and content; what is no list of objects is left to who reads it.

    Args:
        turns: of a row, lifted.
        speaker: the key of who speaks; empty: as trainers call it.
        said: the key of what is said; empty: as trainers call it. Both may be dotted.
        speakers: who speaks -> role, in any case; others are left as they are.
        shown: the keys of images; a turn that has some needs no text.

    Raises:
        UnreadableRow: a turn has no such key.
    """
    if not isinstance(turns, list) or not (speaker or said or speakers):
        return turns
    roles = {name.casefold(): role for name, role in speakers.items()}
    return [
        _rename_turn(place, turn, speaker, said, roles, shown) if isinstance(turn, Mapping) else turn
        for place, turn in enumerate(turns)
    ]


def show_turn_images(turns: Any, columns: Sequence[str]) -> tuple[Any, list[Any]]:
    """Lifted turns with `<image>` for each image that they name under these keys, and those images in order.

    Images stand before a turn's text, unless it says where: then it has as many `<image>`.
    """
    if not isinstance(turns, list):
        return turns, []
    shown, images = list[Any](), list[Any]()
    for turn in turns:
        if not isinstance(turn, Mapping):
            shown.append(turn)
            continue
        found = [find_place(turn, column) for column in columns]
        listed = [one for held in found for one in (held if isinstance(held, list) else [held])]
        listed = [one for one in listed if one not in (None, "")]
        images += listed
        rest = {key: value for key, value in turn.items() if key not in columns}
        shown.append({**rest, "content": _mark_images(rest.get("content"), len(listed))})
    return shown, images


def _lift_turn(turn: Mapping[str, Any], named: Sequence[str], shown: Sequence[str]) -> dict[str, Any]:
    dotted = [name for name in named if "." in name and turn.get(name) is None]
    found = {name: value for name in dotted if (value := find_place(turn, name)) is not None}
    pictured = any(has_value(find_place(turn, one)) for one in shown)
    beside = dict.fromkeys(list_beside(turn, dotted, pictured=pictured), True)
    check_lists(turn, shown, named)
    around = {name.partition(".")[0] for name in dotted} - {*named}
    return {**{key: value for key, value in turn.items() if key not in around}, **beside, **found}


def _rename_turn(
    place: int, turn: Mapping[str, Any], speaker: str, said: str, roles: Mapping[str, Speaker], shown: Sequence[str]
) -> dict[str, Any]:
    pictured = any(has_value(find_place(turn, one)) for one in shown)
    for name, key in (("speaker", speaker), *(() if pictured else (("said", said),))):
        if key and find_place(turn, key) is None:
            there = "has null under" if key in turn else "has no"
            own = [one for one in turn if "." not in one]  # others were lifted out of objects
            has = f"{suggest_nearest([key], own)}it has {', '.join(own)}"
            raise UnreadableRow(f"turn {place} {there} {key}, which the option {name} names; {has}")
    who = find_place(turn, speaker) if speaker else _get_first(turn, FROM)
    text = find_place(turn, said) if said else _get_first(turn, VALUE)
    used = {speaker, said, *FROM, *VALUE}
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
