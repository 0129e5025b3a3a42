"""The embedding and head rows of tokens that a pretrained language model lacks.

Those are above all the marks of the chat format.

Without them an answer cannot end, and nothing but training teaches them. So they start as far apart as other tokens
are, and they learn in every stage, if need be alone: beside adapters, which leave embedding and head as they are, and
where `text` is frozen. Then they are separate parameters, which stand in for the matrices' rows. No other row gets
a gradient, decays, or has moments in the optimizer. `merge_rows` writes them into the matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.train.deferred import read_columns
from vlmill.train.families.pretrained import read_config, read_vocabulary
from vlmill.train.settings import ModelSettings, Pretrained, Training

NAME = "new_rows"
"""Of the group of the optimizer, and of the module in embedding and head that holds them."""

MARK = f".{NAME}."
"""In the name of their parameters."""


BLOCK = 1 << 25
"""Elements of a matrix that are looked at together."""


@dataclass(frozen=True, slots=True)
class NewRows:
    """Token ids, in order."""

    trained: tuple[int, ...] = ()  # that no text has taught the pretrained model
    drawn: tuple[int, ...] = ()  # those of them that it has no row for, or a row of no token (padding)
    end: int | None = None  # the mark that ends a turn, if it is drawn
    eos: int | None = None  # the token with which the pretrained model ends a text


def find_new_rows(settings: ModelSettings, tokenizer: Tokenizer, chat: ChatFormat, own: Mapping[str, int]) -> NewRows:
    """Which tokens of a recipe the pretrained language model lacks: none if it has new weights.

    What it knows is what the `tokenizer.json` beside its weights says; an exported model knows the marks. A mark that
    stands in place of another token there, as a reserved one, is trained in the row that there is.

    Args:
        settings: of the model.
        tokenizer: of the recipe, with the marks.
        chat: the format, whose marks they are.
        own: ids by token of the recipe's tokenizer without the marks, taken where none lies beside the weights.

    Raises:
        RecipeError: the pretrained model cannot be found.
    """
    source = settings.checkpoint or settings.text
    if not isinstance(source, Pretrained):
        return NewRows()
    config, found = read_config(source).get_text_config(), read_vocabulary(source)
    known = {row: token for token, row in (own if found is None else found).items() if row < config.vocab_size}
    ours = tokenizer.get_vocab(with_added_tokens=True)
    drawn = {row for row in ours.values() if row not in known}
    renamed = {ours[mark] for mark in chat.specials if known.get(ours[mark], mark) != mark}
    end, ends = ours[chat.end], config.eos_token_id
    eos = next((token for token in (ends if isinstance(ends, list) else [ends]) if token in known), None)
    return NewRows(tuple(sorted(drawn | renamed)), tuple(sorted(drawn)), end if end in drawn else None, eos)


def draw_rows(model: PreTrainedModel, tokenizer: Tokenizer, new: NewRows) -> None:
    """Draw rows from torch's generator.

    They are normal, with the mean and deviation that the other tokens' rows have in each dimension.

    The mark that ends a turn starts as the token that ends a text, so that a model whose other weights are frozen, and
    which would say that, has little to learn.
    """
    if not new.drawn:
        return
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    others = torch.tensor(sorted({*ids} - {*new.drawn}))
    for weight in _list_matrices(model):
        with torch.no_grad():
            deviation, mean = _measure_rows(weight, others)
            for row, value in zip(
                new.drawn, mean + deviation * torch.randn(len(new.drawn), weight.shape[1]), strict=True
            ):
                weight[row] = value
            if new.end is not None and new.eos is not None:
                weight[new.end] = weight[new.eos]
    _set_biases(model, others, torch.tensor(new.drawn), new)


def _set_biases(model: PreTrainedModel, others: torch.Tensor, drawn: torch.Tensor, new: NewRows) -> None:
    """The bias of a head that has one: of drawn rows that of the mean token, not that of rows which no text has used.

    The mark that ends a turn starts as the token that ends a text.
    """
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is None:
        return
    with torch.no_grad():
        bias[drawn] = bias[others].mean()
        if new.end is not None and new.eos is not None:
            bias[new.end] = bias[new.eos]


def _measure_rows(weight: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Deviation and mean of some rows in each dimension; so many dimensions at a time as take BLOCK elements."""
    width = max(1, BLOCK // len(weight))
    found = [
        torch.std_mean(read_columns(weight, first, first + width)[rows], dim=0, correction=0)
        for first in range(0, weight.shape[1], width)
    ]
    return torch.cat([deviation for deviation, _ in found]), torch.cat([mean for _, mean in found])


def trains_rows_alone(training: Training) -> bool:
    """Whether a stage trains new rows as separate parameters, as it does not train their matrices."""
    return "text" in training.adapted or "text" not in training.learning_rate


def choose_rate(training: Training) -> float:
    """Their learning rate: that of the text, or of the component next to it that learns, to which they are as new."""
    return next(
        training.learning_rate[component]
        for component in ("text", "projector", "vision")
        if component in training.learning_rate
    )


def insert_rows(model: PreTrainedModel, new: NewRows) -> None:
    """Make rows separate parameters, in place; one for embedding and head if these are one matrix."""
    if not new.trained:
        return
    ids = torch.tensor(new.trained)
    rows = [
        nn.Parameter(torch.stack([weight.detach()[row] for row in new.trained])) for weight in _list_matrices(model)
    ]
    _StandIns(ids, rows[0]).enter(model.get_input_embeddings(), _embed_new_rows)
    _StandIns(ids, rows[-1]).enter(model.get_output_embeddings(), _predict_new_rows)


def merge_rows(model: PreTrainedModel) -> None:
    """Write rows that are separate parameters into the matrices, and take them away, in place."""
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows = getattr(module, NAME, None)
        if isinstance(rows, _StandIns):
            rows.leave(module)


def _list_matrices(model: PreTrainedModel) -> Iterator[torch.Tensor]:
    """Those of the embedding and of the head, or the one that both have."""
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    yield embedding.weight
    if head.weight is not embedding.weight:
        yield head.weight


class _StandIns(nn.Module):
    """Rows in an embedding or a head, whose results they change from outside, whatever the class of either."""

    ids: torch.Tensor

    def __init__(self, ids: torch.Tensor, rows: nn.Parameter) -> None:
        super().__init__()
        self.register_buffer("ids", ids, persistent=False)
        self.rows = rows

    def enter(self, module: nn.Module, change: Any) -> None:
        module.register_module(NAME, self)
        self.hook = module.register_forward_hook(change)

    def leave(self, module: Any) -> None:
        self.hook.remove()
        with torch.no_grad():
            module.weight[self.ids] = self.rows
        delattr(module, NAME)


def _embed_new_rows(module: Any, given: Sequence[torch.Tensor], result: torch.Tensor) -> torch.Tensor:
    """Embeddings of tokens (rows, length, width), those of new ones from their rows, which Gemma's class scales."""
    ids, rows = module.new_rows.ids, module.new_rows.rows * getattr(module, "embed_scale", 1.0)
    place = torch.searchsorted(ids, given[0]).clamp(max=len(ids) - 1)
    return torch.where((ids[place] == given[0])[..., None], functional.embedding(place, rows), result)


def _predict_new_rows(module: Any, given: Sequence[torch.Tensor], result: torch.Tensor) -> torch.Tensor:
    """Logits (..., tokens), those of new tokens from their rows."""
    ids, bias = module.new_rows.ids, module.bias
    logits = functional.linear(given[0], module.new_rows.rows, None if bias is None else bias[ids])
    return result.index_copy_(-1, ids, logits)
