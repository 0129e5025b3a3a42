"""The texts of a segment that is cut between tokens: of its first and last node, what belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tokenizers import Tokenizer

from vlmill.mixtures.reader import Found
from vlmill.pipeline.chat.encode import WHOLE, ChatFormat, count_nodes, locate_tokens
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.images import Layout


def cut_texts(found: Found, layouts: Sequence[Layout], tokenizer: Tokenizer, chat: ChatFormat) -> tuple[Node, ...]:
    """The nodes of a segment with the text alone that its tokens cover; pure.

    A document is cut where its tokens begin and end in its text. Of an answer that is truncated the text ends with the
    last token that is kept whole; where a published template joins its own text with an answer's in one token, that is
    to within a token.

    Args:
        found: The segment.
        layouts: Of its images.
        tokenizer: From `load_tokenizer`.
        chat: The format that it was measured in.
    """
    nodes, cut = list(found.nodes), found.cut
    if cut.end != WHOLE:  # first: begin and end may lie in the same text, and both count from its beginning
        nodes[-1] = _end_text(nodes, layouts, tokenizer, chat, cut.end)
    if cut.begin:
        text = found.nodes[0].text or ""
        (spans,) = locate_tokens([text], tokenizer, chat)
        start = min(spans[cut.begin][0], len(text)) if cut.begin < len(spans) else len(text)
        nodes[0] = replace(nodes[0], text=(nodes[0].text or "")[start:])
    return tuple(nodes)


def _end_text(
    nodes: Sequence[Node], layouts: Sequence[Layout], tokenizer: Tokenizer, chat: ChatFormat, end: int
) -> Node:
    node = nodes[-1]
    text = node.text or ""
    if node.role == "none":
        (spans,) = locate_tokens([text], tokenizer, chat)
        return replace(node, text=text[: spans[end - 1][1]] if end else "")
    kept = end - count_nodes(nodes, layouts, tokenizer, chat)[-1].lead
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    return replace(node, text=text[: offsets[min(kept, len(offsets)) - 1][1]] if kept > 0 else "")
