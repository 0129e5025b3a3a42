"""Tokens of texts that touch, as a processor reads them: as one text, whichever node each of its tokens belongs to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from tokenizers import Tokenizer

Content = Sequence[str | list[int]]
"""What a node becomes: texts, and the ids of special tokens, which keep texts apart."""


def encode_stretches(contents: Sequence[Content], tokenizer: Tokenizer) -> list[list[int]]:
    """The token ids of each content, in order; pure.

    Texts between two special tokens are encoded as one, be they of several contents. A token belongs to the content of
    its last character.
    """
    found: list[list[int]] = [[] for _ in contents]
    touching: list[tuple[int, str]] = []
    for place, content in enumerate(contents):
        for piece in content:
            if isinstance(piece, str):
                touching.append((place, piece))
                continue
            _encode_touching(touching, tokenizer, found)
            touching.clear()
            found[place] += piece
    _encode_touching(touching, tokenizer, found)
    return found


def _encode_touching(texts: Sequence[tuple[int, str]], tokenizer: Tokenizer, found: list[list[int]]) -> None:
    """Encode texts that stand one behind the other, and give each token to the content that it belongs to."""
    starts = [0]
    for _, text in texts[:-1]:
        starts.append(starts[-1] + len(text))
    encoded = tokenizer.encode("".join(text for _, text in texts), add_special_tokens=False)
    for token, (start, stop) in zip(encoded.ids, encoded.offsets, strict=True):
        found[texts[bisect_right(starts, max(start, stop - 1)) - 1][0]].append(token)
