"""PaliGemma's form of a sample: images, BOS, a prompt and a line break, an answer and EOS; turns have no marks.

So `PaliGemmaProcessor` writes a prompt for its images. It has no form for more, so images behind an answer are refused.
Further turns follow as prompts and answers. What a document begins with is its images, too, in front of BOS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path

from tokenizers import Tokenizer

from vlmill.pipeline.chat.format import (
    IGNORE,
    UNCUT,
    ChatFormat,
    Cut,
    Encoded,
    Loss,
    cut_parts,
    get_mark_id,
    tokenize_image,
)
from vlmill.pipeline.chat.image_tokens import ImageLayout
from vlmill.pipeline.chat.outline import TemplateRefused
from vlmill.pipeline.chat.stretches import encode_stretches
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node, Role

WORDS = (*(f"<loc{place:04}>" for place in range(1024)), *(f"<seg{code:03}>" for code in range(128)))
"""Places and shapes in answers: no marks but words, which the processor adds to a tokenizer that lacks them."""

BREAK = "\n"
"""Ends a prompt."""


@dataclass(frozen=True)
class PrefixFormat(ChatFormat):
    """Of a conversation, BOS and the last token of the first prompt are the overhead; of a document, BOS and EOS."""

    roles: tuple[tuple[Role, str], ...] = ()
    end: str = "<eos>"
    bos: str = "<bos>"
    eos: str = "<eos>"
    pad: str = "<pad>"

    @property
    def specials(self) -> tuple[str, ...]:
        """See `ChatFormat`."""
        return (self.bos, self.eos, self.pad, self.image)

    @property
    def template(self) -> str:
        """Writes what the processor takes: it adds BOS behind the images, and the last line break.

        Without images it writes both, for the tokenizer alone, since the processor takes no text without an image.
        """
        texts = (
            "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
            "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
        )
        return (
            "{% set found = namespace(images=0) %}{% for message in messages %}{% if message.content is not string %}"
            "{% for part in message.content %}{% if part.type == 'image' %}{% set found.images = found.images + 1 %}"
            f"{self.image}{{% endif %}}{{% endfor %}}{{% endif %}}{{% endfor %}}"
            f"{{% if not found.images %}}{self.bos}{{% endif %}}{{% for message in messages %}}"
            f"{{% if message.role == 'assistant' %}}{{% generation %}}{texts}{self.eos}{{% endgeneration %}}"
            f"{{% else %}}{texts}{{% if not loop.last or not found.images %}}{{{{ {BREAK!r} }}}}{{% endif %}}"
            "{% endif %}{% endfor %}"
        )

    @property
    def stops(self) -> tuple[str, ...]:
        """See `ChatFormat`."""
        return (self.eos,)

    def prepare(self, tokenizer: Tokenizer, where: Path) -> None:
        """See `ChatFormat`."""
        super().prepare(tokenizer, where)
        tokenizer.add_tokens(list(WORDS))

    def encode_nodes(
        self, nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer, loss: Loss
    ) -> list[Encoded]:
        """See the function of that name in encode.py. The overhead's token is left out of the first prompt."""
        if all(node.role == "none" for node in nodes):
            return super().encode_nodes(nodes, images, tokenizer, loss)
        parts = self._encode_turns(nodes, images, tokenizer, loss)
        last = next(place for place in range(len(nodes)) if _closes_run(nodes, place))
        parts[last] = Encoded(parts[last].ids[:-1], parts[last].labels[:-1])
        return parts

    def join_segment(
        self,
        nodes: Sequence[Node],
        images: Sequence[ImageLayout],
        tokenizer: Tokenizer,
        loss: Loss,
        cut: Cut = UNCUT,
    ) -> Encoded:
        """See `ChatFormat`. The EOS of a document is supervised as there."""
        conversation = any(node.role != "none" for node in nodes)
        encode = self._encode_turns if conversation else super().encode_nodes
        parts = cut_parts(encode(nodes, images, tokenizer, loss), cut)
        pairs = list(chain.from_iterable(zip(part.ids, part.labels, strict=True) for part in parts))
        image, bos, eos = (get_mark_id(tokenizer, mark) for mark in (self.image, self.bos, self.eos))
        first = [pair for pair in pairs if pair[0] == image]
        if not conversation:
            first = list(takewhile(lambda pair: pair[0] == image, pairs))
            pairs.append((eos, eos if loss == "text" and not cut.continued else IGNORE))
        rest = [pair for pair in pairs if pair[0] != image] if conversation else pairs[len(first) :]
        ids, labels = zip(*first, (bos, IGNORE), *rest, strict=True)
        return Encoded(list(ids), list(labels))

    def encode_prompt(self, nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer) -> list[int]:
        """See `ChatFormat`."""
        return self.join_segment(nodes, images, tokenizer, "answers").ids

    def _encode_turns(
        self, nodes: Sequence[Node], images: Sequence[ImageLayout], tokenizer: Tokenizer, loss: Loss
    ) -> list[Encoded]:
        """All tokens of a conversation but BOS. Texts of a prompt that touch, images left aside, are one text.

        Raises:
            TemplateRefused: an image or nothing at all stands where the processor has no form for it.
        """
        _check_order(nodes)
        eos, shown = get_mark_id(tokenizer, self.eos), iter(images)
        contents: list[list[str | list[int]]] = []
        for place, node in enumerate(nodes):
            answers, closes = node.role == "assistant", _closes_run(nodes, place)
            end: list[str | list[int]] = [[eos] if answers else BREAK] if closes else []
            begin: list[str | list[int]] = [[]] if answers else []  # keeps an answer apart from its prompt
            contents.append([*begin, *([node.text or ""] if node.kind == "text" else []), *end])
        parts = []
        for node, ids in zip(nodes, encode_stretches(contents, tokenizer), strict=True):
            if node.kind == "image":
                found = [*tokenize_image(next(shown), tokenizer, self), *ids]
                parts.append(Encoded(found, [IGNORE] * len(found)))
            else:
                parts.append(Encoded(ids, ids if node.supervised or loss == "text" else [IGNORE] * len(ids)))
        return parts


def _check_order(nodes: Sequence[Node]) -> None:
    """Refuse what stands where PaliGemma's processor has no form for it."""
    answers = [place for place, node in enumerate(nodes) if node.role == "assistant"]
    first = min(answers, default=len(nodes))
    faults = {
        "texts without a role stand among turns": any(node.role == "none" for node in nodes),
        "an answer stands without a prompt or an image": first == 0,
        "an image stands behind an answer, and PaliGemma has all in front of the first prompt": any(
            node.kind == "image" for node in nodes[first:]
        ),
    }
    for fault, found in faults.items():
        if found:
            raise TemplateRefused(Reason.TEMPLATE_REFUSED, fault)


def _closes_run(nodes: Sequence[Node], place: int) -> bool:
    """Whether the node at a place is the last of its run."""
    node, after = nodes[place], nodes[place + 1] if place + 1 < len(nodes) else None
    return after is None or (node.turn, node.role) != (after.turn, after.role)
