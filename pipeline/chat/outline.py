"""What a published chat template writes around the contents of a conversation, apart from these contents themselves.

A template is a program. What it writes is found out by rendering it over messages whose contents are numbers that stand
nowhere else, once for each form of conversation (roles, and what is text and what image). Answers are found so as well:
one begins where the prompt for it ends, and ends with the first special token behind it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vlmill.pipeline.chat.rendering import TemplateFailed, render_template
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Kind, Role

HOLE = "\ufdd0{}\ufdd1"
"""A number in place of a text, between characters that no text may hold (Unicode, 23.7: noncharacters)."""

HOLES = re.compile(HOLE.format("([0-9]+)"))

Form = tuple[tuple[Role, tuple[Kind, ...]], ...]
"""The form of a conversation: role and contents of each message."""


class TemplateRefused(ValueError):  # noqa: N818 - what becomes of a sample, not what went wrong
    """A template has no form for a conversation (`template_refused`), or would change it (`template_changed`)."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of what a template writes."""

    kind: Literal["text", "mark", "hole", "image"]  # its own text, a special token; the place of a text, of an image
    text: str  # nothing where a text or an image goes
    node: int  # of the conversation, to which it belongs
    answer: int = -1  # the message whose answer it is part of


@dataclass(frozen=True, slots=True)
class Outline:
    """All parts in the order in which they are written, and the special token that ends the answers."""

    parts: tuple[Part, ...]
    end: str = ""


@dataclass(frozen=True, slots=True)
class _Item:
    """Where a text or an image stands in a rendered template."""

    start: int
    stop: int
    node: int
    message: int
    image: bool


@dataclass(frozen=True)
class Renderer:
    """A template with the tokens that it may name, and the special tokens that it may write."""

    source: str
    tokens: Mapping[str, str]
    marks: tuple[str, ...]
    image: str  # what it writes for an image, one of the marks
    flat: bool = False  # it takes contents as texts, with `image` in them, and no parts

    def render(self, form: Form, texts: Iterable[str] | None = None, *, prompt: bool = False) -> str:
        """What it makes of a conversation with these texts, or with holes in their place.

        Raises:
            TemplateRefused: it has no form for the conversation.
        """
        coming = iter(texts) if texts is not None else None
        messages: list[dict[str, Any]] = []
        node = 0
        for role, kinds in form:
            content: list[str | None] = []
            for kind in kinds:
                text = HOLE.format(node) if coming is None or kind == "image" else next(coming)
                content.append(text if kind == "text" else None)
                node += 1
            messages.append({"role": role, "content": self._put_content(content)})
        try:
            return render_template(self.source, messages, self.tokens, prompt=prompt)
        except TemplateFailed as error:
            raise TemplateRefused(Reason.TEMPLATE_REFUSED, str(error)) from error

    def _put_content(self, content: Sequence[str | None]) -> str | list[dict[str, str]]:
        """A content as a template takes it; None is an image."""
        if self.flat:
            return "".join(self.image if text is None else text for text in content)
        return [{"type": "image"} if text is None else {"type": "text", "text": text} for text in content]

    def outline(self, form: Form, *, prompt: bool = False) -> Outline:
        """The parts of a conversation of some form, and of what comes before an answer to it.

        Raises:
            TemplateRefused: it has no form for the conversation, leaves some of it out, or has no end for an answer.
        """
        written = self.render(form, prompt=prompt)
        marks = self._find_marks(written)
        items = self._find_items(written, form, marks)
        answers = {
            message: self._find_answer(written, form, message, items, marks)
            for message, (role, _) in enumerate(form)
            if role == "assistant"
        }
        borders = self._find_borders(written, form, items, marks)
        parts = _split_parts(written, items, marks, answers, borders)
        ends = {written[start:stop] for start, stop in marks if stop in {stop for _, stop in answers.values()}}
        if len(ends) > 1:
            raise _make_change_refusal(f"it ends answers in several ways, {' and '.join(sorted(ends))}")
        return Outline(parts, ends.pop() if ends else "")

    def _find_marks(self, written: str) -> list[tuple[int, int]]:
        """Where special tokens stand, the longest where several could."""
        if not self.marks:
            return []
        pattern = re.compile("|".join(map(re.escape, sorted(self.marks, key=len, reverse=True))))
        return [found.span() for found in pattern.finditer(written)]

    def _find_items(self, written: str, form: Form, marks: Sequence[tuple[int, int]]) -> list[_Item]:
        """The texts and images in the order in which they are written."""
        owners = [(kind, message) for message, (_, kinds) in enumerate(form) for kind in kinds]
        texts = [(*found.span(), int(found[1])) for found in HOLES.finditer(written)]
        if sorted(node for *_, node in texts) != [node for node, (kind, _) in enumerate(owners) if kind == "text"]:
            raise _make_change_refusal("it leaves texts out, or writes them twice")
        images = [node for node, (kind, _) in enumerate(owners) if kind == "image"]
        places = [span for span in marks if written[slice(*span)] == self.image]
        if len(places) != len(images):
            raise _make_change_refusal(f"it writes {self.image} {len(places)} times for {len(images)} images")
        shown = [(*span, node) for span, node in zip(places, images, strict=True)]
        items = [
            _Item(start, stop, node, owners[node][1], owners[node][0] == "image")
            for start, stop, node in sorted([*texts, *shown])
        ]
        if [item.message for item in items] != sorted(item.message for item in items):
            raise _make_change_refusal("it writes messages in another order")
        return items

    def _find_answer(
        self, written: str, form: Form, message: int, items: Sequence[_Item], marks: Sequence[tuple[int, int]]
    ) -> tuple[int, int]:
        """Where an answer begins and where it has ended, its mark included."""
        before = max((item.stop for item in items if item.message < message), default=0)
        first = min(item.start for item in items if item.message == message)
        last = max(item.stop for item in items if item.message == message)
        after = min((item.start for item in items if item.message > message), default=len(written))
        asked = self.render(form[:message], prompt=True)
        if not (written.startswith(asked) and before <= len(asked) <= first):
            raise _make_change_refusal("the prompt for an answer is not what stands before one")
        stop = next((stop for start, stop in marks if last <= start and stop <= after), None)
        if stop is None:
            raise _make_change_refusal("no special token follows an answer, so nothing would teach a model to end it")
        return len(asked), stop

    def _find_borders(
        self, written: str, form: Form, items: Sequence[_Item], marks: Sequence[tuple[int, int]]
    ) -> list[int]:
        """Where each message but the first begins: after what a conversation up to it has in common with this one."""
        borders = []
        for message in range(1, len(form)):
            last = max(item.stop for item in items if item.message < message)
            first = min(item.start for item in items if item.message >= message)
            try:
                common = _count_common(written, self.render(form[:message]))
            except TemplateRefused:
                common = last
            border = min(max(common, last), first)
            borders.append(next((start for start, stop in marks if start < border < stop), border))
        return borders


def _count_common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    differing = (place for place, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs)
    return next(differing, min(len(one), len(other)))


def _make_change_refusal(detail: str) -> TemplateRefused:
    return TemplateRefused(Reason.TEMPLATE_CHANGED, detail)


def _split_parts(
    written: str,
    items: Sequence[_Item],
    marks: Sequence[tuple[int, int]],
    answers: Mapping[int, tuple[int, int]],
    borders: Sequence[int],
) -> tuple[Part, ...]:
    """What was written, cut at texts, images, special tokens, answers and messages."""
    held = {(item.start, item.stop): item for item in items}
    special = {span for span in marks if not any(item.start <= span[0] < item.stop for item in items)}
    edges = {place for span in (*held, *special, *answers.values()) for place in span} | {0, len(written), *borders}
    inside = [(start, stop) for start, stop in (*held, *special)]
    cuts = sorted(edge for edge in edges if not any(start < edge < stop for start, stop in inside))
    parts = []
    for start, stop in itertools.pairwise(cuts):
        item = held.get((start, stop))
        answer = next((message for message, span in answers.items() if span[0] <= start and stop <= span[1]), -1)
        message = sum(border <= start for border in borders)
        node = item.node if item else _find_owner(items, message, start)
        if item is None:
            parts.append(Part("mark" if (start, stop) in special else "text", written[start:stop], node, answer))
        else:
            parts.append(Part("image" if item.image else "hole", "", node, answer))
    return tuple(parts)


def _find_owner(items: Sequence[_Item], message: int, place: int) -> int:
    """The node of a message before a place, or its first one."""
    mine = [item for item in items if item.message == message] or list(items)
    if not mine:
        return 0
    return max((item for item in mine if item.stop <= place), key=lambda item: item.stop, default=mine[0]).node
