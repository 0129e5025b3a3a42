"""A chat format of ours: how a sample becomes tokens and labels.

Below the formats of published models and of PaliGemma, and above what is written for images (image_tokens.py).

A sample is encoded node by node. An encoded node depends on the node and on whether its neighbours belong to the same
run (the nodes of one turn and role), so counts per node add up exactly, and a segment cut at the border of a
run has the tokens that it has inside its sample; so has one that is cut between tokens of a text. Each segment is
wrapped in one BOS and one EOS, its overhead.

Texts are data: a text that contains a special token is encoded as the letters it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from tokenizers import AddedToken, Tokenizer

from vlmill.pipeline.chat.image_tokens import BARE, ImageLayout, ImageTokenTemplate
from vlmill.pipeline.chat.stretches import Content, encode_stretches
from vlmill.pipeline.chat.template import write_template
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import Node, Role

Loss = Literal["answers", "text"]
"""What is supervised: the supervised nodes alone, or every token but the image placeholders and BOS."""

IGNORE = -100
"""The label of a token that nothing is supervised from, as PyTorch's cross entropy has it."""

WHOLE = -1
"""In place of a number of tokens: all of them."""


class Cut(NamedTuple):
    """Where a segment begins and ends inside its first and last node."""

    begin: int = 0  # tokens of the first node that belong to segments before
    end: int = WHOLE  # tokens of the last node up to which this segment goes; they count from that node's beginning
    continued: bool = False  # whether a text goes on behind the segment, so that it teaches no end


UNCUT = Cut()


class NodeCount(NamedTuple):
    """Tokens of a node. Those that are supervised stand together, behind `lead` others."""

    tokens: int
    supervised: int
    lead: int


@dataclass(frozen=True)
class ChatFormat:
    """How turns become tokens: the formats of ours; published.py has the others.

    Each mark is one special token, so no tokenizer can merge it with the text beside it.

    A run with a role is its role's mark, its nodes, and `end`. Nodes without a role (web documents, pages) stand bare,
    and each text is followed by `separator`. An image is `image`, repeated, in the marks that `image_tokens` puts
    around it.

    Fuyu differs: no mark opens a question or ends it, and an image that a segment begins with stands before BOS.
    """

    roles: tuple[tuple[Role, str], ...] = (
        ("system", "<|system|>"),
        ("user", "<|user|>"),
        ("assistant", "<|assistant|>"),
    )
    end: str = "<|end|>"
    bos: str = "<|start|>"
    eos: str = "<|stop|>"
    pad: str = "<|pad|>"
    image: str = "<image>"
    separator: str = "\n\n"
    image_tokens: ImageTokenTemplate = BARE
    ended: tuple[Role, ...] = ("system", "user", "assistant")  # whose runs `end` ends
    leading: bool = False  # whether BOS comes behind an image that a segment begins with

    @property
    def specials(self) -> tuple[str, ...]:
        """All special tokens, in the order in which a tokenizer that lacks them is given them."""
        marks = (mark for _, mark in self.roles if mark)
        return (self.bos, self.eos, self.pad, self.image, *marks, self.end, *self.image_tokens.specials)

    @property
    def placeholder(self) -> str:
        """What a chat template writes for an image, without what the format adds around it."""
        return self.image_tokens.placeholder or self.image

    @property
    def overhead(self) -> int:
        """Tokens of a segment that belong to none of its nodes: BOS and EOS."""
        return 2

    @property
    def template(self) -> str:
        """The format as a chat template of transformers (Jinja), for messages of strings or of text and image parts.

        The part between the generation tags is what "answers" supervises.
        """
        image = self.image_tokens.before + self.placeholder + self.image_tokens.after
        ends = {role: self.end if role in self.ended else "" for role, _ in self.roles}
        return write_template(self.roles, ends, image, self.bos, self.eos, leading=self.leading)

    @property
    def stops(self) -> tuple[str, ...]:
        """The tokens that end an answer when a model is asked."""
        return (self.end, self.eos)

    @property
    def tokens(self) -> dict[str, str]:
        """What transformers' tokenizer is told: programs that read no generation settings stop at its `eos_token`."""
        return {"bos_token": self.bos, "eos_token": self.end, "pad_token": self.pad}

    def prepare(self, tokenizer: Tokenizer, where: Path) -> None:
        """Make a tokenizer ready, in place; see `load_tokenizer` in encode.py."""
        tokenizer.post_processor = None
        tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in self.specials])
        probe = "colour"
        inside = tokenizer.encode(self.end + probe, add_special_tokens=False).ids[1:]
        tokenizer.encode_special_tokens = True
        if inside != tokenizer.encode(probe, add_special_tokens=False).ids:
            raise RecipeError(
                f"{where}: {probe!r} has other tokens after a special token than on its own, so nodes cannot be "
                "counted one by one; take a tokenizer whose pre-tokenizer adds no prefix to the first word alone "
                "(prepend_scheme: never or always)"
            )

    def encode_nodes(
        self, nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer, loss: Loss
    ) -> list[Encoded]:
        """See the function of that name in encode.py."""
        texts = [
            (node.text or "") + ("" if node.role != "none" else self.separator) for node in nodes if node.kind == "text"
        ]
        bodies = (_encode_joined if self.image_tokens.joined else _encode_apart)(nodes, texts, images, tokenizer, self)
        end = get_mark_id(tokenizer, self.end)
        marks = {role: [get_mark_id(tokenizer, mark)] if mark else [] for role, mark in self.roles}
        done = []
        for before, node, after, body in zip((None, *nodes), nodes, (*nodes[1:], None), bodies, strict=False):
            opens, closes = (
                node.role != "none" and not _belong_together(before, node),
                node.role in self.ended and not _belong_together(node, after),
            )
            supervised = node.supervised or loss == "text"
            head = marks[node.role] if opens else []
            tail = [end] if closes else []
            done.append(
                Encoded(
                    [*head, *body, *tail],
                    [
                        *(head if loss == "text" else [IGNORE] * len(head)),
                        *(body if supervised and node.kind == "text" else [IGNORE] * len(body)),
                        *(tail if supervised else [IGNORE] * len(tail)),
                    ],
                )
            )
        return done

    def join_segment(
        self,
        nodes: Sequence[Node],
        images: Sequence[ImageLayout],
        tokenizer: Tokenizer,
        loss: Loss,
        cut: Cut = UNCUT,
    ) -> Encoded:
        """BOS, the nodes, EOS. EOS is supervised only if all text is, and ends there."""
        bos, eos = get_mark_id(tokenizer, self.bos), get_mark_id(tokenizer, self.eos)
        parts = cut_parts(self.encode_nodes(nodes, images, tokenizer, loss), cut)
        parts.insert(int(self.leading and bool(nodes) and nodes[0].kind == "image"), Encoded([bos], [IGNORE]))
        parts.append(Encoded([eos], [eos if loss == "text" and not cut.continued else IGNORE]))
        ids = [*chain.from_iterable(part.ids for part in parts)]
        return Encoded(ids, [*chain.from_iterable(part.labels for part in parts)])

    def encode_prompt(self, nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer) -> list[int]:
        """No EOS, but the mark that the assistant begins with."""
        begun = self.join_segment(nodes, images, tokenizer, "answers").ids[:-1]
        return [*begun, get_mark_id(tokenizer, dict(self.roles)["assistant"])]

    def count_nodes(
        self, nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer
    ) -> list[NodeCount]:
        """See the function of that name in encode.py."""
        return [part.count() for part in self.encode_nodes(nodes, images, tokenizer, "answers")]

    def locate_tokens(self, texts: Sequence[str], tokenizer: Tokenizer) -> list[list[tuple[int, int]]]:
        """See the function of that name in encode.py."""
        found = tokenizer.encode_batch([text + self.separator for text in texts], add_special_tokens=False)
        return [encoded.offsets for encoded in found]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids, and per token its own id where it is supervised (predicted from the token before) or IGNORE."""

    ids: list[int]
    labels: list[int]

    @property
    def supervised(self) -> int:
        """How many tokens are supervised."""
        return sum(label != IGNORE for label in self.labels)

    def count(self) -> NodeCount:
        """Its tokens, as those of a node."""
        lead = next((place for place, label in enumerate(self.labels) if label != IGNORE), 0)
        return NodeCount(len(self.ids), self.supervised, lead)


def get_mark_id(tokenizer: Tokenizer, mark: str) -> int:
    """The id of a special token. Raises ValueError if the tokenizer did not come from `load_tokenizer`."""
    found = tokenizer.token_to_id(mark)
    if found is None:
        raise ValueError(f"the tokenizer has no token {mark!r}; load it with load_tokenizer")
    return int(found)


def cut_parts(parts: Sequence[Encoded], cut: Cut) -> list[Encoded]:
    """The encoded nodes of a segment without what is cut off at its ends."""
    spans = [[0, len(part.ids)] for part in parts]
    if spans and cut.end != WHOLE:
        spans[-1][1] = cut.end
    if spans:
        spans[0][0] = cut.begin
    return [Encoded(part.ids[slice(*span)], part.labels[slice(*span)]) for part, span in zip(parts, spans, strict=True)]


def tokenize_image(image: ImageLayout, tokenizer: Tokenizer, chat: ChatFormat) -> list[int]:
    """The tokens of an image, alone."""
    ids: list[int] = []
    for piece in _list_image(image, tokenizer, chat):
        ids += tokenizer.encode(piece, add_special_tokens=False).ids if isinstance(piece, str) else piece
    return ids


def _list_image(image: ImageLayout, tokenizer: Tokenizer, chat: ChatFormat) -> Content:
    """What is written for an image: texts, and the ids of special tokens."""
    found: list[str | list[int]] = []
    for said, times in chat.image_tokens.write(image):
        if said is None or said in chat.image_tokens.specials:
            found.append([get_mark_id(tokenizer, said or chat.image)] * times)
        else:
            found += [said] * times
    return found


def _encode_apart(
    nodes: Sequence[Node], texts: Sequence[str], images: Sequence[ImageLayout], tokenizer: Tokenizer, chat: ChatFormat
) -> list[list[int]]:
    """The tokens of each node's content, encoded on its own."""
    encoded = iter(tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    shown = iter(images)
    return [
        next(encoded).ids if node.kind == "text" else tokenize_image(next(shown), tokenizer, chat) for node in nodes
    ]


def _encode_joined(
    nodes: Sequence[Node], texts: Sequence[str], images: Sequence[ImageLayout], tokenizer: Tokenizer, chat: ChatFormat
) -> list[list[int]]:
    """The same, with texts that touch inside a run encoded as one. Nodes of documents may be cut, and stand alone."""
    coming, shown = iter(texts), iter(images)
    contents: list[Content] = [
        [next(coming)] if node.kind == "text" else _list_image(next(shown), tokenizer, chat) for node in nodes
    ]
    found: list[list[int]] = []
    for start, node in enumerate(nodes):
        if start < len(found):
            continue
        stop = start + 1
        while stop < len(nodes) and node.role != "none" and _belong_together(node, nodes[stop]):
            stop += 1
        found += encode_stretches(contents[start:stop], tokenizer)
    return found


def _belong_together(one: Node | None, other: Node | None) -> bool:
    """Whether two neighbours belong to one run."""
    return one is not None and other is not None and (one.turn, one.role) == (other.turn, other.role)
