"""What a recipe says of its chat format: the name of one of ours, or a published model whose chat it keeps.

A published chat is read once, with the recipe: its template and special tokens become part of the recipe, of its lock
and of keys. After that nobody looks at the folder again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, replace
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from vlmill.pipeline.chat.encode import FORMATS, ChatFormat
from vlmill.pipeline.chat.image_tokens import FENCED_ALONE
from vlmill.pipeline.chat.outline import TemplateRefused
from vlmill.pipeline.chat.published import PROBE, PublishedFormat
from vlmill.pipeline.chat.rendering import LONGEST, set_variables
from vlmill.pipeline.core.config import STRICT, KindOf, parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.keys import to_json
from vlmill.pipeline.core.step import RUNTIME

PAD = "<pad>"
"""The padding token where a published tokenizer has none of its own that its chat does not use."""

Token = Literal["bos_token", "eos_token", "pad_token", "unk_token"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


@dataclass(frozen=True, config=STRICT)
class PublishedChat:
    """The chat of a published model. A recipe gives `path`; what is read there fills the keys from `template` on."""

    path: str | None = field(default=None, metadata=RUNTIME)  # folder (relative to the recipe), or a name on the Hub
    revision: str | None = field(default=None, metadata=RUNTIME)  # of a name on the Hub: the commit, 40 digits
    images: Annotated[str, KindOf(FORMATS)] = "vlmill"  # the format of ours that writes images as the family does
    variables: Mapping[Name, str | bool | int] = field(default_factory=dict)  # that the template leaves open
    template: Annotated[str, Field(max_length=LONGEST)] | None = None  # Jinja, as in chat_template.jinja
    tokens: Mapping[Token, str] = field(default_factory=dict)  # special tokens that the template may name
    marks: tuple[str, ...] = ()  # special tokens that the template writes
    stops: tuple[str, ...] = ()  # tokens that end an answer, of generation_config.json

    def __post_init__(self) -> None:
        """Refuse a chat that is nowhere, or half of one."""
        if self.path is None and self.template is None:
            raise ValueError("give the path of a published model's folder, or its name on the Hub")
        if self.template is not None and not self.tokens.get("eos_token"):
            raise ValueError("tokens.eos_token is missing: a tokenizer has a token that ends a text")


Chat = str | PublishedChat
"""The `chat` of a recipe: a name in FORMATS, or a published chat."""


class _ByForm:
    """Says of a field that a mapping is a published chat."""

    def choose(self, values: Any) -> Any:
        """The class of a value."""
        return PublishedChat if isinstance(values, Mapping) else str


def _tag_chat(value: Any) -> str:
    return "published" if isinstance(value, Mapping | PublishedChat) else "name"


ChatField = Annotated[
    Annotated[Annotated[str, KindOf(FORMATS)], Tag("name")] | Annotated[PublishedChat, Tag("published")],
    Discriminator(_tag_chat),
    _ByForm(),
]
"""How a recipe's class declares it."""


def find_format(chat: Chat) -> ChatFormat:
    """The chat format that a recipe names.

    Raises:
        RecipeError: a published template cannot be trained on; the message says why.
    """
    return FORMATS[chat] if isinstance(chat, str) else _make_format(to_json(chat))


def name_images(chat: Chat) -> str:
    """The format of ours that spells images as a chat does."""
    return chat if isinstance(chat, str) else chat.images


def describe_chat(chat: Chat) -> Any:
    """A chat as a lock holds it: a name, or a mapping of all that shapes it."""
    return chat if isinstance(chat, str) else json.loads(to_json(chat))


def parse_chat(described: Any, where: str = "chat") -> Chat:
    """What `describe_chat` described. Raises RecipeError if it is something else."""
    kind: Any = ChatField
    found: Chat = parse_block(kind, described, where)
    return found


@lru_cache(16)
def _make_format(described: str) -> PublishedFormat:
    chat = parse_chat(json.loads(described))
    assert isinstance(chat, PublishedChat)
    if chat.template is None:
        raise RecipeError(f"chat.path: {chat.path} was not read")
    source, faults = set_variables(chat.template, chat.variables), list[str]()
    for flat in (False, True):
        try:
            return _check_format(chat, source, flat=flat)
        except TemplateRefused as error:
            faults.append(str(error))
    said = faults[-1] if faults[0] == faults[-1] else f"{faults[0]}. With contents as texts: {faults[-1]}"
    raise RecipeError(f"chat: nothing can be trained under this template: {said}")


def _check_format(chat: PublishedChat, source: str, *, flat: bool) -> PublishedFormat:
    """The format of a template, if that writes conversations and images so that answers can be told apart.

    Raises:
        TemplateRefused: it does not.
    """
    ours, named = FORMATS[chat.images], {str(name): token for name, token in chat.tokens.items() if token}
    made = PublishedFormat(
        roles=(),
        bos=named.get("bos_token", ""),
        eos=named["eos_token"],
        pad=named.get("pad_token", ""),
        image=ours.image,
        image_tokens=FENCED_ALONE if chat.images == "idefics" else ours.image_tokens,
        source=source,
        flat=flat,
        named=named,
        marks=chat.marks,
        ends=chat.stops,
    )
    outline = made.renderer.outline(PROBE)
    made.renderer.outline((("user", ("image", "text")), ("assistant", ("text",))))
    used = {part.text for part in outline.parts if part.kind == "mark"} | {made.eos}
    pad = PAD if made.pad in {"", *used} else made.pad
    return replace(made, end=outline.end, pad=pad)
