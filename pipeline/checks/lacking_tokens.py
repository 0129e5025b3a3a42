"""Location tokens that a recipe's boxes are written with and its tokenizer lacks; said by `vlmill check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmill.pipeline.boxes import FORMS
from vlmill.pipeline.boxes.forms import Form
from vlmill.pipeline.chat.encode import load_tokenizer
from vlmill.pipeline.chat.location_tokens import LOCATION, list_lacking
from vlmill.pipeline.chat.settings import find_format
from vlmill.pipeline.checks.check import check_tokenizer
from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.recipe.schema import Recipe

LETTERS = frozenset({"qwen_vl"})
"""Forms whose marks are letters to most models that use them."""


def warn_of_lacking_tokens(recipe: Recipe, base: Path) -> Iterator[str]:
    """A line for each form that sources are written in and that the tokenizer has no tokens for.

    Nothing where the tokenizer is at fault itself, which `check_inputs` says.
    """
    used = dict[str, list[str]]()
    for name, source in recipe.sources.items():
        form = (recipe.boxes.form if recipe.boxes else None) or (source.boxes.form if source.boxes else None)
        if source.boxes is not None and form is not None and form not in LETTERS:
            used.setdefault(form, []).append(name)
    marked = {form: found for form in used if (found := list_marks(FORMS[form]))}
    if not marked or recipe.tokenizer is None:
        return
    try:
        check_tokenizer(recipe, base)
    except VlmillError:
        return
    tokenizer = load_tokenizer(base / recipe.tokenizer, find_format(recipe.chat))
    for form, marks in marked.items():
        if lacking := list_lacking(tokenizer, marks):
            count = len(tokenizer.encode(lacking[-1], add_special_tokens=False))
            yield (
                f"boxes: form {form} of {', '.join(used[form])} writes tokens such as {', '.join(lacking)}, and "
                f"{recipe.tokenizer} has none of that name: each becomes {count} tokens of letters, which no published "
                "model of this form has seen. Take that model's tokenizer, or have the model see numbers: "
                "boxes: {form: qwen3_vl}"
            )


def list_marks(form: Form) -> list[str]:
    """The first and the last location token that a form writes, and those around its numbers; pure."""
    ends = (0, int(form.unit) ** (2 if form.cells else 1) - 1) if form.bins or form.cells else (0,)
    wrote = form.write or "<loc_{}>" * form.bins
    written = (wrote.format(*[end] * wrote.count("{")) for end in ends)
    return list(dict.fromkeys(match[0] for text in written for match in LOCATION.finditer(text)))
