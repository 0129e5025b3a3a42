"""What objects in the rows of a table hold, in dotted names, and how turns name their keys and speakers.

For `vlmill new` (proposal.py), where the columns at the top of a row are not enough. Speakers are known by what people
call them; where two are left, the one who begins every conversation asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlmill.pipeline.core.sample import Role
from vlmill.pipeline.sources.conversation import FROM, SPEAKERS, VALUE
from vlmill.pipeline.sources.known_keys import has_value
from vlmill.pipeline.sources.nested import find_place, parse_object

DEPTH, MOST = 3, 64
"""How many keys a name has at most beside its column, and how many names of a table are looked at."""

SPEAKER_KEYS = ("speaker", "by", "sender", "author", "who", "participant", "party", "user_type", "name", "type")
VAGUE = frozenset({"name", "type"})  # which say who speaks only where people call speakers so
SAID_KEYS = ("text", "said", "message", "msg", "body", "utterance", "words", "say", "data")
"""Keys of turns that say who speaks, and what, beside those of trainers, the usual first."""

ASKING = frozenset(
    {
        *(
            "client",
            "customer",
            "person",
            "asker",
            "questioner",
            "annotator",
            "visitor",
            "caller",
            "student",
            "patient",
        ),
        *(
            "q",
            "question",
            "prompter",
            "guest",
            "buyer",
            "kunde",
            "nutzer",
            "cliente",
            "utilisateur",
            "用户",
            "ユーザー",
        ),
    }
)
ANSWERING = frozenset(
    {
        *("agent", "ai", "expert", "answerer", "support", "operator", "chatbot", "llm", "system_answer", "teacher"),
        *("a", "answer", "response", "doctor", "seller", "staff", "helper", "assistent", "asistente", "助手"),
        *("technician", "techniker", "engineer", "advisor", "consultant", "specialist", "representative", "helpdesk"),
    }
)
"""What people call who asks and who answers, in lower case."""

SHORT = 40  # characters of what names a speaker
WORD = re.compile(r"[^\W_]+")


def list_dotted(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dotted names of what lies within the objects of rows, and within lists of objects, in their order."""
    names = dict[str, None]()
    for row in rows:
        for column, value in row.items():
            names.update(dict.fromkeys(_list_within(column, value, DEPTH)))
    return [*names][:MOST]


def recognise_turns(turns: Sequence[Any], shows: Callable[[Sequence[Any]], bool]) -> dict[str, Any] | None:
    """The options of kind `table` that say how turns are read, beyond what trainers call things.

    None where no key names speakers, or none what they say.

    Args:
        turns: the cells of their column.
        shows: whether values are pictures or their places, as far as they are any.
    """
    talks = [[turn for turn in read_list(one) if isinstance(turn, Mapping)] for one in turns]
    listed = [turn for talk in talks for turn in talk]
    names = list(dict.fromkeys((*(key for turn in listed for key in turn), *list_dotted(listed))))
    held = {name: [find_place(turn, name) for turn in listed] for name in names}
    shown = [name for name, values in held.items() if any(map(has_value, values)) and shows(values)]
    texts = [name for name in names if name not in shown and _count_texts(listed, name)]
    texts = [
        name for name in texts if name.rpartition(".")[2].lower() not in VAGUE or all(map(_guess_role, held[name]))
    ]
    speaker = _find_key(texts, FROM, SPEAKER_KEYS, [name for name in texts if _name_speakers(listed, name)])
    said = _find_key([name for name in texts if name != speaker], VALUE, SAID_KEYS, _order_by_length(listed, texts))
    if not speaker or not said:
        return None
    found: dict[str, Any] = {} if speaker in FROM else {"speaker": speaker}
    found |= {} if said in VALUE else {"said": said}
    if named := _find_roles([[find_place(turn, speaker) for turn in talk] for talk in talks]):
        found["speakers"] = named
    return found | ({"turn_image": shown[0] if len(shown) == 1 else shown} if shown else {})


def recognise_parts(
    rows: Sequence[Mapping[str, Any]],
    shows: Callable[[Sequence[Any]], bool],
    is_shown: Callable[[Sequence[Any]], bool],
) -> dict[str, Any]:
    """The options of kind `web_documents` for rows whose document is one list of objects; none where none is.

    Args:
        rows: the first ones.
        shows: whether values are addresses, or paths, as far as they are any.
        is_shown: whether values are images of any form.
    """
    names = list_dotted(rows)
    for place in dict.fromkeys((*(name for row in rows for name in row), *names)):
        cells = [read_list(find_place(row, place)) for row in rows]
        within = [name for name in names if name.rpartition(".")[0] == place]
        if not within or not any(cells) or recognise_turns(cells, lambda _: False) is not None:
            continue
        values = {name: [find_place(row, name) for row in rows] for name in within}
        images = list[str]()  # keys of which a part has one
        for name in within:
            others = any(stand_together(values[image], values[name]) for image in images)
            if not others and any(map(has_value, values[name])) and shows(values[name]):
                images.append(name)
        apart = [
            name
            for name in within
            if not is_shown(values[name]) and not any(stand_together(values[image], values[name]) for image in images)
        ]
        texts = max(apart, key=lambda name: measure_texts(values[name]), default="")
        if images and texts and measure_texts(values[texts]):
            return {"images": images[0] if len(images) == 1 else images, "texts": texts}
    return {}


def stand_together(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two lists of a row hold something in the same place."""
    both = [pair for one, other in zip(ones, others, strict=True) for pair in zip(read_list(one), read_list(other))]  # noqa: B905
    return any(has_value(one) and has_value(other) for one, other in both)


def measure_texts(values: Sequence[Any]) -> int:
    """Characters of the texts in lists; 0 where something else is in them."""
    listed = [item for one in values for item in (one if isinstance(one, list) else [one]) if item is not None]
    return sum(map(len, listed)) if all(isinstance(item, str) for item in listed) else 0


def _list_within(name: str, value: Any, depth: int) -> Iterator[str]:
    """The names within a value; none within a picture of bytes and path."""
    value = parse_object(value) if isinstance(value, str) and value.lstrip()[:1] in {"{", "["} else value
    held = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Mapping)]
    if not depth or any({"bytes", "path"} <= item.keys() for item in held):
        return
    for item in held:
        for key, inner in item.items():
            if not key or "." in key:
                continue
            yield f"{name}.{key}"
            yield from _list_within(f"{name}.{key}", inner, depth - 1)


def read_list(value: Any) -> list[Any]:
    """The value if it is a list, also one in JSON; else an empty one."""
    value = parse_object(value)
    return value if isinstance(value, list) else []


def _count_texts(turns: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether most turns hold a text at a name, or a list of texts."""
    values = [find_place(turn, name) for turn in turns]
    texts = [
        one for one in values if isinstance(one, str) or (isinstance(one, list) and one and isinstance(one[0], str))
    ]
    return 2 * len(texts) > len(turns)


def _name_speakers(turns: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether a few short texts stand there, again and again, of which one is what people call a speaker."""
    values = [find_place(turn, name) for turn in turns]
    texts = {one for one in values if isinstance(one, str)}
    again = len(texts) in {2, 3} and 2 * len(texts) <= len(values)
    return again and all(len(one) <= SHORT for one in texts) and any(map(_guess_role, texts))


def _order_by_length(turns: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: -sum(len(str(find_place(turn, name) or "")) for turn in turns))


def _find_key(names: Sequence[str], *wanted: Sequence[str]) -> str:
    """The name that is wanted first, by the whole of it or by its last key in lower case."""
    for one in (one for group in wanted for one in group):
        for name in names:
            if name == one or name.rpartition(".")[2].lower() == one:
                return name
    return ""


def _find_roles(talks: Sequence[Sequence[Any]]) -> dict[str, Role]:
    """Speakers that trainers have no name for -> role; none where one of them cannot be told."""
    said = list(dict.fromkeys(str(who).casefold() for talk in talks for who in talk if who is not None))
    found = {who: role for who in said if (role := _guess_role(who))}
    left = [who for who in said if who not in found]
    spoken = {role for role in found.values() if role != "system"}
    if len(left) == 1 and len(spoken) == 1:
        found[left[0]] = "assistant" if "user" in spoken else "user"
    elif len(left) == 2 and not spoken:
        first = {
            next((str(who).casefold() for who in talk if str(who).casefold() in left), "") for talk in talks if talk
        }
        if len(first) == 1 and (begins := first.pop()):
            found |= {who: "user" if who == begins else "assistant" for who in left}
    return {who: role for who, role in found.items() if who not in SPEAKERS}


def _guess_role(who: Any) -> Role | None:
    """The role of a speaker by what people call it: the whole of it, or one of its words."""
    who = str(who).casefold()
    for word in (who, *WORD.findall(who)):
        if word in SPEAKERS:
            return SPEAKERS[word]
        if word in ASKING or word in ANSWERING:
            return "user" if word in ASKING else "assistant"
    return None
