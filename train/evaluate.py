"""What a trained stage makes of samples that it never saw: loss and exact answers per source, beside the majority answer.

The majority answer to a question is the one most often given to the same words in the training part, or the source's
most frequent one where they were never asked. A model that does not beat it has learnt the language, not the images.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeVar

import torch
from rich.table import Table
from transformers import PreTrainedModel

from mixtures.locked import Mixture, Segment
from pipeline.encode import IGNORE, encode, mark_id
from pipeline.sample import Node
from train.data import PADDING, Document, Reader, pack
from train.export import generation
from train.model import token_losses

T = TypeVar("T")

BATCH = 8
"""Samples that are scored, and questions that are answered, at a time."""

LOOKED_AT = 20_000
"""Samples of a source that majority answers are counted over, from its first shard on."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer, what was asked, and the index of the answer's first node."""

    question: str
    answer: str
    start: int


@dataclass(frozen=True, slots=True)
class Score:
    """What came of a source's held-out samples. Shares are of the questions; None where there is nothing to divide by."""

    samples: int
    questions: int
    loss: float | None  # per learnt token
    exact: float | None  # answered word for word
    majority: float | None  # answered by the majority answer


def evaluate(model: PreTrainedModel, reader: Reader, device: torch.device, limit: int) -> dict[str, Score]:
    """Score up to `limit` held-out samples of each source, in their order; with 0, none. Leaves the model in evaluation mode."""
    model.to(device).eval()
    by_source: dict[int, list[Segment]] = defaultdict(list)
    for segment in reader.mixture.held_out():
        by_source[segment.source].append(segment)
    with torch.inference_mode():
        return {
            reader.mixture.sources[source]: _score(model, reader, device, segments[:limit])
            for source, segments in sorted(by_source.items())
            if limit
        }


def _score(model: PreTrainedModel, reader: Reader, device: torch.device, segments: Sequence[Segment]) -> Score:
    lost, learnt, asked = 0.0, 0, list[tuple[Turn, str]]()
    for some in _batches(segments):
        stored = [reader.mixture.read(segment) for segment in some]
        documents = [reader.document(segment, sample) for segment, sample in zip(some, stored, strict=True)]
        losses, _ = token_losses(
            model, reader.family, pack([[document] for document in documents], 0), device, torch.float32
        )
        lost, learnt = lost + float(losses.sum()), learnt + len(losses)
        prompts = [
            (turn, prompt(reader, document, sample.nodes[: turn.start]))
            for document, sample in zip(documents, stored, strict=True)
            for turn in turns(sample.nodes)
        ]
        for few in _batches(prompts):
            asked += zip([turn for turn, _ in few], answers(model, reader, device, few), strict=True)
    guess = majority(reader.mixture, segments[0].source) if asked else str
    exact = sum(text == turn.answer for turn, text in asked)
    guessed = sum(guess(turn.question) == turn.answer for turn, _ in asked)
    shares = (exact / len(asked), guessed / len(asked)) if asked else (None, None)
    return Score(len(segments), len(asked), lost / learnt if learnt else None, *shares)


def turns(nodes: Sequence[Node]) -> Iterator[Turn]:
    """The supervised answers of a conversation, in order. Texts are stripped."""
    start, said = 0, dict[tuple[int, str], str]()
    for (turn, role), run in groupby(nodes, key=lambda node: (node.turn, node.role)):
        found = list(run)
        said[turn, role] = "".join(node.text or "" for node in found).strip()
        if role == "assistant" and found[-1].supervised:
            yield Turn(said.get((turn, "user"), ""), said[turn, role], start)
        start += len(found)


def prompt(reader: Reader, document: Document, nodes: Sequence[Node]) -> Document:
    """What stands before an answer, `nodes` being all before it: no EOS, but the mark that the assistant begins with."""
    images = sum(node.kind == "image" for node in nodes)
    chat = reader.mixture.chat
    begun = encode(nodes, document.layouts[:images], reader.tokenizer, chat).ids[:-1]
    ids = [*begun, mark_id(reader.tokenizer, dict(chat.roles)["assistant"])]
    return Document(document.source, ids, [IGNORE] * len(ids), document.tiles[:images], document.layouts[:images])


def answers(
    model: PreTrainedModel, reader: Reader, device: torch.device, asked: Sequence[tuple[Turn, Document]]
) -> list[str]:
    """What the model says, greedily and all at once; stripped. It may say one token more than the longest right answer has."""
    settings = generation(reader.tokenizer, reader.mixture.chat)
    settings.max_new_tokens = 1 + max(
        len(reader.tokenizer.encode(turn.answer, add_special_tokens=False).ids) for turn, _ in asked
    )
    batch = pack([[document] for _, document in asked], settings.pad_token_id, left=True).to(device)
    said = model.generate(
        **{**reader.family.inputs(model, batch), "attention_mask": (batch.sources != PADDING).long()},
        input_ids=batch.ids,
        generation_config=settings,
    )
    length = batch.ids.shape[1]
    return [text.strip() for text in reader.tokenizer.decode_batch(said[:, length:].tolist(), skip_special_tokens=True)]


def majority(mixture: Mixture, source: int) -> Callable[[str], str]:
    """A function from a question to its majority answer; of two as frequent ones the one that stands first in order of letters."""
    held_out = {(segment.source, segment.shard, segment.row) for segment in mixture.held_out()}
    by_question: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    training = (
        segment for segment in mixture.samples(source) if (segment.source, segment.shard, segment.row) not in held_out
    )
    for segment in islice(training, LOOKED_AT):
        for turn in turns(mixture.nodes(segment)):
            by_question[turn.question][turn.answer] += 1
            overall[turn.answer] += 1
    best = {question: _most(counts) for question, counts in by_question.items()}
    return lambda question: best.get(question, _most(overall))


def table(scores: Mapping[str, Score], stage: str) -> Table:
    """The scores for a person."""
    found = Table(
        "source",
        "samples",
        "loss",
        "questions",
        "exact",
        "majority answer",
        title=f"{stage}: held-out samples",
    )
    for name, score in scores.items():
        shares = ("" if share is None else f"{share:.1%}" for share in (score.exact, score.majority))
        found.add_row(
            name,
            str(score.samples),
            "" if score.loss is None else f"{score.loss:.3f}",
            str(score.questions),
            *shares,
        )
    return found


def _most(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer)) if counts else ""


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    coming = iter(items)
    return iter(lambda: list(islice(coming, BATCH)), [])
