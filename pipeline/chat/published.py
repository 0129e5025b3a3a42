"""A published model's own chat as a chat format: its template and special tokens, encoded as its processor does.

A conversation is written by the template (outline.py says around what), and encoded as a whole, as transformers does
it: `processor.apply_chat_template` gives the same tokens. Two things differ on purpose. A text that spells a special
token stays text. And what a template would leave out or change is refused, not trained on.

Nodes without a role (web documents) know no template: they stand bare between BOS and EOS, as under formats of ours.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer

from vlmill.pipeline.chat.contents import Trimming, find_taught, find_trimming, list_form, trim_texts
from vlmill.pipeline.chat.encode import (
    IGNORE,
    UNCUT,
    WHOLE,
    ChatFormat,
    Cut,
    Encoded,
    Loss,
    NodeCount,
    cut_parts,
    get_mark_id,
)
from vlmill.pipeline.chat.image_tokens import ImageLayout
from vlmill.pipeline.chat.outline import Form, Outline, Part, Renderer, TemplateRefused
from vlmill.pipeline.chat.rendering import accept_parts
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node, Role

GUARD = "\ufdd2{}\ufdd3"
"""The name of a special token before the tokenizer, so that no text is taken for one."""

GUARDS = re.compile("[\ufdd0-\ufdd3]")

OUTLINES = 4096
"""Forms of conversations whose outlines are kept."""


class Piece(NamedTuple):
    """A part with what goes into it."""

    text: str
    node: int
    labelled: bool = False  # an answer that is supervised
    mark: str = ""  # the special token that it is, alone
    times: int = 1  # that this stands there
    visual: bool = False  # of an image


class EncodedConversation(NamedTuple):
    """An encoded conversation: tokens, labels, and the node of each token."""

    ids: list[int]
    labels: list[int]
    owners: list[int]


@dataclass(frozen=True, eq=False)
class PublishedFormat(ChatFormat):
    """A chat format that a template describes. `bos` is empty where the tokenizer has none."""

    source: str = ""  # the template
    flat: bool = False  # it takes contents as texts
    named: dict[str, str] = field(default_factory=dict)  # tokens that the template may name: bos_token ...
    marks: tuple[str, ...] = ()  # special tokens that it writes
    ends: tuple[str, ...] = ()  # tokens that end an answer, as the model says

    @property
    def specials(self) -> tuple[str, ...]:
        """All special tokens, in the order in which a tokenizer that lacks them is given them."""
        wanted = (
            *self.named.values(),
            self.bos,
            self.eos,
            self.pad,
            self.image,
            *self.marks,
            *self.image_tokens.specials,
        )
        return tuple(dict.fromkeys(mark for mark in wanted if mark))

    @property
    def overhead(self) -> int:
        """Tokens of a document that belong to none of its nodes; of a conversation the first so many."""
        return 1 + bool(self.bos)

    @property
    def template(self) -> str:
        """The template as the export has it: it takes contents as processors give them."""
        image = self.image_tokens.before + self.placeholder + self.image_tokens.after
        return accept_parts(self.source, image) if self.flat else self.source

    @property
    def stops(self) -> tuple[str, ...]:
        """What the model says, and what ends an answer here."""
        return tuple(dict.fromkeys((*self.ends, self.end)))

    @property
    def tokens(self) -> dict[str, str]:
        """Those that the template names keep their names."""
        return {**self.named, "pad_token": self.pad}

    @cached_property
    def renderer(self) -> Renderer:
        """The template with its tokens."""
        return Renderer(self.source, self.named, self.specials, self.placeholder, self.flat)

    @cached_property
    def _outline(self) -> Callable[[Form], Outline]:
        return lru_cache(OUTLINES)(self.renderer.outline)

    @cached_property
    def _prompt_outline(self) -> Callable[[Form], Outline]:
        return lru_cache(OUTLINES)(partial(self.renderer.outline, prompt=True))

    @cached_property
    def _trimmings(self) -> dict[Role, Trimming]:
        return {role: find_trimming(self.renderer, role) for role in ("system", "user", "assistant")}

    @cached_property
    def _guarded(self) -> Callable[[Tokenizer], tuple[Tokenizer, dict[str, str], dict[int, int]]]:
        return lru_cache(8)(self._guard_marks)

    def prepare(self, tokenizer: Tokenizer, where: Path) -> None:
        """Add the special tokens that a tokenizer lacks, in place; those that it has keep their rows and their manners.

        Raises:
            RecipeError: it adds tokens behind a text, or has special tokens that the template would write as text.
        """
        known = {token.content: token.special for token in tokenizer.get_added_tokens_decoder().values()}
        lacking = [mark for mark in self.specials if not known.get(mark)]
        tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in lacking])
        bare = tokenizer.encode("", add_special_tokens=True).ids
        if bare not in ([], [tokenizer.token_to_id(self.bos)] if self.bos else []):
            raise RecipeError(
                f"{where}: it writes {bare} of its own around a text; under a published chat template a tokenizer may "
                "put its BOS before a text, and nothing else"
            )
        written = self.renderer.render(PROBE)
        other = [mark for mark, special in known.items() if special and mark in written and mark not in self.specials]
        if other:
            raise RecipeError(
                f"{where}: {', '.join(other)} is a special token there, and text to the chat template; take the "
                "tokenizer that the template was published with"
            )
        tokenizer.encode_special_tokens = True

    def encode_nodes(
        self, nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer, loss: Loss
    ) -> list[Encoded]:
        """The tokens of each node, without the first `overhead` ones of a conversation."""
        if all(node.role == "none" for node in nodes):
            return list(self._encode_bare(nodes, images, tokenizer, loss))
        ids, labels, owners = self._encode_conversation(nodes, images, tokenizer, loss)
        found = [Encoded([], []) for _ in nodes]
        for token, label, node in list(zip(ids, labels, owners, strict=True))[self.overhead :]:
            found[node].ids.append(token)
            found[node].labels.append(label)
        return found

    def join_segment(
        self,
        nodes: Sequence[Node],
        images: Sequence[ImageLayout],
        tokenizer: Tokenizer,
        loss: Loss,
        cut: Cut = UNCUT,
    ) -> Encoded:
        """A conversation as the template has it; a document between BOS, where there is one, and EOS."""
        if any(node.role != "none" for node in nodes):
            ids, labels, _ = self._encode_conversation(nodes, images, tokenizer, loss)
            end = len(ids)
            if cut.end != WHOLE:
                counts = self.count_nodes(nodes, images, tokenizer)
                end = self.overhead + sum(count.tokens for count in counts[:-1]) + cut.end
            return Encoded(ids[:end], labels[:end])
        parts = cut_parts(self.encode_nodes(nodes, images, tokenizer, loss), cut)
        begin = [get_mark_id(tokenizer, self.bos)] if self.bos else []
        eos = get_mark_id(tokenizer, self.eos)
        ids = [*begin, *(token for part in parts for token in part.ids), eos]
        last = eos if loss == "text" and not cut.continued else IGNORE
        labels = [*begin, *(label for part in parts for label in part.labels), last]
        return Encoded(ids, [IGNORE, *labels[1:]])

    def encode_prompt(self, nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer) -> list[int]:
        """What the template writes before an answer."""
        return self._encode_conversation(nodes, images, tokenizer, "answers", prompt=True).ids

    def count_nodes(
        self, nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer
    ) -> list[NodeCount]:
        """See the function of that name in encode.py.

        Where the first turns have other tokens alone than before further ones, the last node of a turn has the
        difference, and the `lead` of the next turn's nodes is as much less.
        """
        parts = self.encode_nodes(nodes, images, tokenizer, "answers")
        counts = [part.count() for part in parts]
        borders = [at for at in range(1, len(nodes)) if nodes[at].turn != nodes[at - 1].turn]
        if all(node.role == "none" for node in nodes):
            borders = []
        before = 0
        for at in borders:
            counted = self.overhead + sum(len(part.ids) for part in parts[:at])
            extra = self._count_extra(nodes, at, images, tokenizer, counted)
            counts[at - 1] = counts[at - 1]._replace(tokens=counts[at - 1].tokens + extra - before)
            counts[at:] = [count._replace(lead=count.lead + before - extra) for count in counts[at:]]
            before = extra
        if before:
            counts[-1] = counts[-1]._replace(tokens=counts[-1].tokens - before)
        return counts

    def locate_tokens(self, texts: Sequence[str], tokenizer: Tokenizer) -> list[list[tuple[int, int]]]:
        """See the function of that name in encode.py."""
        guarded, names, _ = self._guarded(tokenizer)
        before = names[BARE]
        given = [before + text + self.separator for text in texts]
        found = guarded.encode_batch(given, add_special_tokens=False)
        return [[(start - len(before), stop - len(before)) for start, stop in encoded.offsets[1:]] for encoded in found]

    def _count_extra(
        self, nodes: Sequence[Node], at: int, images: Sequence[ImageLayout], tokenizer: Tokenizer, counted: int
    ) -> int:
        """How many tokens more the first nodes have alone than in their conversation, where they have `counted`."""
        first = nodes[:at]
        whole, alone = (self._outline(list_form(some)).parts for some in (nodes, first))
        self._fill(first, prompt=False)
        if whole[: len(alone)] == alone and "mark" in {alone[-1].kind, whole[len(alone)].kind}:
            return 0
        shown = sum(node.kind == "image" for node in first)
        return len(self._encode_conversation(first, images[:shown], tokenizer, "answers").ids) - counted

    def _encode_bare(
        self, nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer, loss: Loss
    ) -> Iterator[Encoded]:
        """Nodes of a document, each as it is behind a special token."""
        shown = iter(images)
        for node in nodes:
            text = (node.text or "") + self.separator
            _refuse_guards([text])
            body = [Piece(text, 0)] if node.kind == "text" else list(self._list_image(next(shown), 0))
            found = self._encode_pieces([Piece("", 0, mark=BARE), *body], tokenizer)
            ids = [token for token, piece in found if piece.mark != BARE]
            taught = node.kind == "text" and (node.supervised or loss == "text")
            yield Encoded(ids, ids if taught else [IGNORE] * len(ids))

    def _encode_conversation(
        self,
        nodes: Sequence[Node],
        images: Sequence[ImageLayout],
        tokenizer: Tokenizer,
        loss: Loss,
        *,
        prompt: bool = False,
    ) -> EncodedConversation:
        parts, texts, written = self._fill(nodes, prompt=prompt)
        pieces = self._merge(list(self._list_pieces(nodes, parts, texts, images)))
        starts_itself = bool(self.bos) and written.startswith(self.bos)
        found = self._encode_pieces(pieces, tokenizer, own=not starts_itself)
        labels = [
            token if piece.labelled or (loss == "text" and not piece.visual) else IGNORE for token, piece in found
        ]
        return EncodedConversation(
            [token for token, _ in found], [IGNORE, *labels[1:]], [piece.node for _, piece in found]
        )

    def _fill(self, nodes: Sequence[Node], *, prompt: bool) -> tuple[tuple[Part, ...], dict[int, str], str]:
        """The parts of a conversation, the text in each hole, and all that the template writes.

        Raises:
            TemplateRefused: the template has no form for it, or makes something else of it.
        """
        if any(node.role == "none" for node in nodes):
            raise TemplateRefused(Reason.TEMPLATE_REFUSED, "texts without a role stand among turns")
        given = [node.text or "" for node in nodes if node.kind == "text"]
        _refuse_guards(given)
        form = list_form(nodes)
        outline = (self._prompt_outline if prompt else self._outline)(form)
        texts = trim_texts(nodes, self._trimmings)
        ours = "".join(
            texts[part.node] if part.kind == "hole" else self.placeholder if part.kind == "image" else part.text
            for part in outline.parts
        )
        written = self.renderer.render(form, given, prompt=prompt)
        if ours != written:
            raise TemplateRefused(
                Reason.TEMPLATE_CHANGED, "it writes something else around these texts than around others"
            )
        return outline.parts, texts, written

    def _list_pieces(
        self, nodes: Sequence[Node], parts: Sequence[Part], texts: dict[int, str], images: Sequence[ImageLayout]
    ) -> Iterator[Piece]:
        taught = find_taught(nodes)
        shown = dict(zip((place for place, node in enumerate(nodes) if node.kind == "image"), images, strict=True))
        for part in parts:
            if part.kind == "image":
                yield from self._list_image(shown[part.node], part.node, inside=not self.flat)
            elif part.kind == "hole":
                supervised = part.answer >= 0 and nodes[part.node].supervised
                yield Piece(texts[part.node], part.node, labelled=supervised)
            else:
                mark = part.text if part.kind == "mark" else ""
                yield Piece("" if mark else part.text, part.node, labelled=part.answer in taught, mark=mark)

    def _list_image(self, image: ImageLayout, node: int, *, inside: bool = False) -> Iterator[Piece]:
        """The pieces of an image; `inside`: without what the template itself writes around it."""
        for said, times in self.image_tokens.write_inside(image) if inside else self.image_tokens.write(image):
            if said is None or said in self.image_tokens.specials:
                many = times if said is None else 1
                for _ in range(times if said is not None else 1):
                    yield Piece("", node, mark=said or self.image, times=many, visual=True)
            else:
                yield Piece(said * times, node, visual=True)

    def _merge(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Drop empty pieces; merge the marks of neighbours and part them from words, as Idefics2's processor does."""
        kept: list[Piece] = []
        for piece in pieces:
            if not piece.mark and not piece.text:
                continue
            behind = bool(kept) and bool(self.image_tokens.merged) and kept[-1].mark == self.image_tokens.merged
            if behind and piece.mark == self.image_tokens.merged:
                continue
            if behind and piece.text and not piece.text[0].isspace() and piece.text[0] != "<":
                kept.append(Piece(" ", kept[-1].node, visual=True))
            kept.append(piece)
        return kept

    def _encode_pieces(
        self, pieces: Sequence[Piece], tokenizer: Tokenizer, *, own: bool = False
    ) -> list[tuple[int, Piece]]:
        """Tokens of pieces as one text, each with its piece; `own`: with what the tokenizer puts before a text."""
        guarded, names, ids = self._guarded(tokenizer)
        texts = [names[piece.mark] if piece.mark else piece.text for piece in pieces]
        starts = [0]
        for text in texts[:-1]:
            starts.append(starts[-1] + len(text))
        marked = (piece for piece in pieces if piece.mark)
        found = list[tuple[int, Piece]]()
        encoded = guarded.encode("".join(texts), add_special_tokens=own)
        for token, (start, stop), added in zip(encoded.ids, encoded.offsets, encoded.special_tokens_mask, strict=True):
            if token in ids:
                piece = next(marked)
                found += [(ids[token], piece)] * piece.times
            elif added:
                found.append((token, Piece("", pieces[0].node)))
            else:
                found.append((token, pieces[bisect_right(starts, max(start, stop - 1)) - 1]))
        return found

    def _guard_marks(self, tokenizer: Tokenizer) -> tuple[Tokenizer, dict[str, str], dict[int, int]]:
        """A copy that knows special tokens by other names, these names, and the tokens by those that stand for them."""
        guarded = Tokenizer.from_str(tokenizer.to_str())
        guarded.encode_special_tokens = True
        known = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
        names = {mark: GUARD.format(place) for place, mark in enumerate((BARE, *self.specials))}
        manners = dict.fromkeys(self.specials, ("lstrip", "rstrip", "single_word"))
        guarded.add_tokens(
            [
                AddedToken(
                    text, normalized=False, **{name: getattr(known[mark], name) for name in manners.get(mark, ())}
                )
                for mark, text in names.items()
            ]
        )
        real = {mark: get_mark_id(tokenizer, mark) for mark in self.specials} | {BARE: -1}
        return guarded, names, {get_mark_id(guarded, text): real[mark] for mark, text in names.items()}


BARE = "bare"
"""Stands before texts of documents, and becomes no token."""

PROBE: Form = (("user", ("text",)), ("assistant", ("text",)), ("user", ("text",)), ("assistant", ("text",)))
"""Every template has a form for it."""


def _refuse_guards(texts: Sequence[str]) -> None:
    """Refuse texts that hold what stands for special tokens here: noncharacters, which no text that is read has."""
    if any(GUARDS.search(text) for text in texts):
        raise TemplateRefused(
            Reason.TEMPLATE_REFUSED, "a text holds U+FDD0 to U+FDD3, which Unicode keeps for programs"
        )
