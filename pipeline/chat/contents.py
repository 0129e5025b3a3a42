"""Nodes as the messages of a chat template: their form, and what a template does to the space around their texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from vlmill.pipeline.chat.outline import HOLES, Form, Renderer, TemplateRefused
from vlmill.pipeline.core.sample import Node, Role

Trim = Callable[[str], str]
TRIMS: tuple[Trim, ...] = (str, str.strip, str.lstrip, str.rstrip)
"""What templates do to a text."""


class Trimming(NamedTuple):
    """What a template does to the texts of a role's message."""

    trim: Trim
    whole: bool  # to the message as one text, not to each text


def list_form(nodes: Sequence[Node]) -> Form:
    """The form of a conversation: a run of nodes of one role and turn is a message."""
    runs = groupby(nodes, key=lambda node: (node.turn, node.role))
    return tuple((role, tuple(node.kind for node in run)) for (_, role), run in runs)


def find_taught(nodes: Sequence[Node]) -> set[int]:
    """The messages whose last text is supervised: what a template writes of their answers is so as well."""
    taught = set[int]()
    for message, (_, run) in enumerate(groupby(nodes, key=lambda node: (node.turn, node.role))):
        texts = [node for node in run if node.kind == "text"]
        if texts and texts[-1].supervised:
            taught.add(message)
    return taught


def trim_texts(nodes: Sequence[Node], trimmings: Mapping[Role, Trimming]) -> dict[int, str]:
    """The texts of a conversation by node, as a template writes them."""
    texts = {place: node.text or "" for place, node in enumerate(nodes) if node.kind == "text"}
    place = 0
    for (_, role), run in groupby(nodes, key=lambda node: (node.turn, node.role)):
        mine = [node.kind for node in run]
        places = range(place, place + len(mine))
        place += len(mine)
        trim, whole = trimmings[role]
        if not whole:
            texts |= {at: trim(texts[at]) for at in places if at in texts}
            continue
        for side, order in ((str.lstrip, places), (str.rstrip, places[::-1])):
            if trim in (str.strip, side):
                _trim_side(texts, order, side)
    return texts


def _trim_side(texts: dict[int, str], order: Sequence[int], side: Trim) -> None:
    """Trim one end of a message in place, over texts of nothing but space and up to an image."""
    for at in order:
        if at not in texts:
            return
        texts[at] = side(texts[at])
        if texts[at]:
            return


def find_trimming(renderer: Renderer, role: Role) -> Trimming:
    """What a template does to the space around a role's texts; where it does something else, nothing is assumed."""
    before = [Node("text", "user", text="x")] if role == "assistant" else []
    behind = [Node("text", "user", text="x")] if role == "system" else []
    plain: dict[Role, Trimming] = dict.fromkeys(("system", "user", "assistant"), Trimming(str, whole=False))
    for texts in (("\t one \n", "\t two \n"), ("\t one \n",)):
        nodes = [*before, *(Node("text", role, text=text) for text in texts), *behind]
        form = list_form(nodes)
        try:
            outline, written = renderer.render(form), renderer.render(form, [node.text or "" for node in nodes])
        except TemplateRefused:
            continue
        for trimming in (Trimming(trim, whole) for trim in TRIMS for whole in (True, False)):
            if _fill_holes(outline, trim_texts(nodes, {**plain, role: trimming})) == written:
                return trimming
    return plain[role]


def _fill_holes(outline: str, texts: Mapping[int, str]) -> str:
    """What a template wrote over holes, with texts in them."""
    return HOLES.sub(lambda found: texts[int(found[1])], outline)
