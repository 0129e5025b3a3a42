"""One sample on its way out: messages and pictures, which every format writes in its own way.

What a conversation of messages cannot say is counted under one of REMARKS, which the export's receipt and card repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from vlmill.pipeline.core.sample import Node, Role

MARK = "<image>"
"""Where a picture stands in formats whose messages are strings."""

SPLIT_MARK = "<image >"
"""What stands in these for the letters of MARK in a text."""

SEPARATOR = "\n\n"
"""Between the texts of a document, as the chat formats have it."""

REMARKS = {
    "documents": "Web documents, pages and captions have no turns. Each is one message of the assistant, without a "
    "question or behind an empty one, so a trainer's chat template writes the marks of turns around it.",
    "unsupervised_answers": "Answers that are not trained on have `loss: false` in their message; a trainer that "
    "does not read it trains on them.",
    "partly_supervised": "Messages of which a part alone is trained on are marked as trained on.",
    "merged_messages": "Messages behind others of the same role are joined to these.",
    "continued": "A document that is cut goes on in another record; a trainer writes an end behind it all the same.",
    "truncated": "Answers are cut at the length of a sequence, as the plan has them; a trainer writes an end behind "
    "them all the same.",
    "marks_in_texts": f"The letters {MARK} in a text are written {SPLIT_MARK}, since they would stand for a picture.",
    "system_prompts": "System prompts are turns `from: system`, which the code of LLaVA leaves out.",
    "weights": "Samples that the plan shows several times stand once here, with `weight`, and no list of this format "
    "says how often to show them: a trainer that passes over the files mixes by their sizes and not by the shares of "
    "the recipe. An export in the order of the plan has each as often as the plan does.",
    "other_pictures": "Images of which the image policy has several pictures are exported as the one from which tiles "
    "are cut; the others are the same image, smaller, or quarters of it.",
}
"""What is written otherwise than vlmill trains on it. Counted in records, messages or images."""


TEXTS = ("id", "source", "licence", "url", "upstream_id", "kind")
NUMBERS = ("sequence", "weight")
"""What every format says of a record beside its messages and pictures."""


@dataclass(frozen=True, slots=True)
class ExportMessage:
    """What one role says at once."""

    role: Role  # system, user or assistant
    parts: tuple[str | None, ...]  # texts; None where the next picture stands
    supervised: bool = False

    def join(self) -> str:
        """The message as one string, with MARK where pictures stand."""
        return "".join(MARK if part is None else part.replace(MARK, SPLIT_MARK) for part in self.parts)

    @property
    def has_mark(self) -> bool:
        """Whether a text of it has the letters of MARK."""
        return any(part is not None and MARK in part for part in self.parts)


@dataclass(frozen=True, slots=True)
class ExportPicture:
    """A picture as it is exported."""

    data: bytes
    sha256: str  # of these bytes
    extension: str  # `jpg`, `png` ...

    @property
    def name(self) -> str:
        """The name of a file that holds it and nothing else."""
        return f"{self.sha256}.{self.extension}"


@dataclass(frozen=True, slots=True)
class Record:
    """A sample, or the segment of it that a packed sequence holds."""

    id: str
    source: str
    licence: str
    url: str
    upstream_id: str  # of its row in the input file; empty where it had none
    document: bool  # of nodes without roles
    messages: tuple[ExportMessage, ...]
    pictures: tuple[ExportPicture, ...]
    sequence: int | None = None  # of the plan, that holds it
    weight: int | None = None  # how many times the plan shows it
    remarks: tuple[str, ...] = ()  # of REMARKS, once for each thing that they are about

    @property
    def kind(self) -> str:
        """What it was before it became messages."""
        return "document" if self.document else "conversation"

    @property
    def size(self) -> int:
        """Bytes of its texts and pictures."""
        texts = sum(len(part.encode()) for message in self.messages for part in message.parts if part is not None)
        return texts + sum(len(picture.data) for picture in self.pictures)


def compose_messages(nodes: Sequence[Node]) -> tuple[tuple[ExportMessage, ...], list[str]]:
    """Nodes in reading order as messages, and what of REMARKS is to be said of them. Pure."""
    if all(node.role == "none" for node in nodes):
        return (_compose_document(nodes),), ["documents"]
    messages, remarks = list[ExportMessage](), list[str]()
    for (_, role), found in groupby(nodes, key=lambda node: (node.turn, node.role)):
        run = list(found)
        texts = [node for node in run if node.text is not None]
        supervised = {node.supervised for node in texts}
        message = ExportMessage("user" if role == "none" else role, tuple(node.text for node in run), any(supervised))
        if len(supervised) > 1:
            remarks.append("partly_supervised")
        if role == "assistant" and supervised == {False}:
            remarks.append("unsupervised_answers")
        if messages and messages[-1].role == message.role:
            remarks.append("merged_messages")
            message = _merge_messages(messages.pop(), message)
        messages.append(message)
    return tuple(messages), remarks


def _merge_messages(one: ExportMessage, other: ExportMessage) -> ExportMessage:
    return ExportMessage(one.role, (*one.parts, *other.parts), one.supervised or other.supervised)


def _compose_document(nodes: Iterable[Node]) -> ExportMessage:
    """All nodes in one message, texts divided by SEPARATOR."""
    return ExportMessage("assistant", tuple(_separate_texts([node.text for node in nodes])), supervised=True)


def _separate_texts(parts: Sequence[str | None]) -> Iterator[str | None]:
    last = len(parts) - 1
    for place, part in enumerate(parts):
        yield part if part is None or place == last else part + SEPARATOR
