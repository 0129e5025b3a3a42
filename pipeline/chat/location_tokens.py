"""Location tokens: what models write in texts for a place in an image, each one token of their tokenizers.

Special tokens are marks of a chat, and a text that spells one is encoded as its letters (encode.py). Some published
tokenizers hold location tokens as special ones as well, though they stand in texts. They open no turn and end none, so
`load_tokenizer` makes them common ones, and a text that holds them has the tokens that the model was trained with.
"""

from __future__ import annotations

import json
import re

from tokenizers import Tokenizer

LOCATION = re.compile(
    r"<loc\d{4}>|<seg\d{3}>"  # PaliGemma
    r"|<loc_\d+>"  # Florence-2
    r"|<patch_index_\d{4}>|</?(phrase|object)>|</delimiter_of_multi_objects/>"  # Kosmos-2
    r"|<\|(box|quad|object_ref|point)_(start|end)\|>"  # Qwen2-VL
    r"|</?(ref|box|quad|point)>"  # Qwen-VL, InternVL
    r"|<\|/?(ref|det)\|>"  # DeepSeek-VL2
)
"""All of such a token."""


def make_locations_common(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, or one in which no location token is special; ids stay."""
    added = tokenizer.get_added_tokens_decoder().values()
    if not any(token.special and LOCATION.fullmatch(token.content) for token in added):
        return tokenizer
    held = json.loads(tokenizer.to_str())
    for token in held["added_tokens"]:
        if LOCATION.fullmatch(token["content"]):
            token["special"] = False
    return Tokenizer.from_str(json.dumps(held, ensure_ascii=False))


def list_lacking(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """The location tokens in texts that a tokenizer has no token for, in order."""
    found = dict.fromkeys(match[0] for text in texts for match in LOCATION.finditer(text))
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return [name for name in found if name not in known and len(tokenizer.encode(name, add_special_tokens=False)) > 1]
