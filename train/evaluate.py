"""Scores of a trained stage on samples that it never saw.

Loss and answers of each, and scores per source beside the majority answer.

The majority answer to a question is the one most often given to the same words in the training split, or the source's
most frequent one where they were never asked. A model that does not beat it has learned the language, not the images.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

import torch
from rich.table import Table
from transformers import PreTrainedModel

from vlmill.mixtures import get_source
from vlmill.mixtures.reader import PlannedMixture, Segment
from vlmill.mixtures.report.stats import FEW, make_grid
from vlmill.pipeline.chat.encode import IGNORE, encode_prompt
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.sample import Node, SampleId
from vlmill.train.batch import PADDING, Document, pad_sequences
from vlmill.train.data import Reader
from vlmill.train.distributed import ProcessGroup
from vlmill.train.export import make_generation_config
from vlmill.train.metrics import METRICS
from vlmill.train.model import compute_token_losses

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
class Answered:
    """A question of a held-out sample, the right answer, and what the model said."""

    question: str
    reference: str
    answer: str


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The outcome of a held-out sample."""

    source: str
    id: str
    loss: float  # summed over its supervised tokens
    supervised: int
    answers: tuple[Answered, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """The scores of the held-out samples of a source, or of an entry of several.

    Shares and means are over the questions; None where there is nothing to divide by.
    """

    samples: int  # held out
    questions: int  # of these
    loss: float | None  # per supervised token
    exact: float | None  # answered word for word
    majority: float | None  # answered by the majority answer
    vqa: float | None = None  # see train/metrics.py for these
    anls: float | None = None  # for answers read in documents
    relaxed: float | None = None  # for numbers of charts


@torch.inference_mode()
def score_samples(
    model: PreTrainedModel, reader: Reader, device: torch.device, segments: Sequence[Segment], dtype: torch.dtype
) -> list[HeldOut]:
    """Losses and answers of a few held-out samples, computed together in arithmetic of `dtype`."""
    stored = list(reader.mixture.read(segments))
    documents = [reader.document(segment, sample) for segment, sample in zip(segments, stored, strict=True)]
    batch = pad_sequences([[document] for document in documents], 0)
    losses, _ = compute_token_losses(model, reader.family, batch, device, dtype)
    supervised = (batch.labels[:, 1:] != IGNORE).sum(1).tolist()
    lost = [float(losses_of.sum()) for losses_of in torch.split(losses, supervised)]
    prompts = [
        (number, turn, make_prompt(reader, document, sample.nodes[: turn.start]))
        for number, (document, sample) in enumerate(zip(documents, stored, strict=True))
        for turn in list_turns(sample.nodes)
    ]
    answered = defaultdict[int, list[Answered]](list)
    for few in split_batches(prompts):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            said = generate_answers(model, reader, device, [(turn, document) for _, turn, document in few])
        for (number, turn, _), text in zip(few, said, strict=True):
            answered[number].append(Answered(turn.question, turn.answer, text))
    return [
        HeldOut(
            reader.mixture.sources[segment.source],
            reader.mixture.about(segment)["id"],
            lost[number],
            supervised[number],
            tuple(answered[number]),
        )
        for number, segment in enumerate(segments)
    ]


def summarise_scores(
    found: Sequence[HeldOut], mixture: PlannedMixture, group: ProcessGroup | None = None
) -> dict[str, Score]:
    """The scores of each entry, in the mixture's order, and behind an entry of several sources those of each of them.

    Ranks divide them among themselves.
    """
    by_entry: dict[str, list[HeldOut]] = defaultdict(list)
    for sample in found:
        by_entry[sample.source].append(sample)
    asked = [
        (entry, member)
        for entry in mixture.sources
        if by_entry[entry]
        for member in ("", *_list_members(mixture, entry, by_entry[entry]))
    ]

    def score(wanted: tuple[str, str]) -> Score:
        entry, member = wanted
        samples = [sample for sample in by_entry[entry] if not member or _name_source(sample) == member]
        return _score_source(samples, mixture, mixture.sources.index(entry), member)

    shared = (group or ProcessGroup()).share(asked, score)
    return {member or entry: score_of for (entry, member), score_of in shared}


def _list_members(mixture: PlannedMixture, entry: str, samples: Iterable[HeldOut]) -> list[str]:
    """The sources of an entry's held-out samples, in the order of their names; none where it has no more than one."""
    shards = mixture.lock["sources"][mixture.sources.index(entry)]["shards"]
    several = len({get_source(shard["path"]) for shard in shards}) > 1
    return sorted({_name_source(sample) for sample in samples}) if several else []


def _name_source(sample: HeldOut) -> str:
    return SampleId.parse(sample.id).source


def _score_source(samples: Sequence[HeldOut], mixture: PlannedMixture, source: int, member: str) -> Score:
    answered = [turn for sample in samples for turn in sample.answers]
    supervised, means = sum(sample.supervised for sample in samples), dict[str, float | None](majority=None, exact=None)
    if answered:
        guess = find_majority(mixture, source, member)
        if guess is not None:
            means["majority"] = sum(guess(turn.question) == turn.reference for turn in answered) / len(answered)
        for name, metric in METRICS.items():
            means[name] = sum(metric(turn.answer, [turn.reference]) for turn in answered) / len(answered)
    lost = sum(sample.loss for sample in samples) / supervised if supervised else None
    return Score(samples=len(samples), questions=len(answered), loss=lost, **means)


def write_answers(path: Path, found: Sequence[HeldOut]) -> None:
    """A JSON line for each sample, in order."""
    lines = (json.dumps(asdict(sample), sort_keys=True, ensure_ascii=False) for sample in found)
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def read_answers(path: Path) -> list[HeldOut]:
    """What `write_answers` wrote."""
    return [parse_block(HeldOut, json.loads(line), path.name) for line in path.read_bytes().splitlines()]


def list_turns(nodes: Sequence[Node]) -> Iterator[Turn]:
    """The supervised answers of a conversation, in order. Texts are stripped."""
    start, said = 0, dict[tuple[int, str], str]()
    for (turn, role), run in groupby(nodes, key=lambda node: (node.turn, node.role)):
        found = list(run)
        said[turn, role] = "".join(node.text or "" for node in found).strip()
        if role == "assistant" and found[-1].supervised:
            yield Turn(said.get((turn, "user"), ""), said[turn, role], start)
        start += len(found)


def make_prompt(reader: Reader, document: Document, nodes: Sequence[Node]) -> Document:
    """The prompt of an answer, `nodes` being all before it: what the chat format begins an answer with is its end."""
    images = sum(node.kind == "image" for node in nodes)
    ids = encode_prompt(nodes, document.layouts[:images], reader.tokenizer, reader.mixture.chat)
    length = len(ids)  # labels say what a model takes for its prompt, and what for answers that it has given
    labels = document.labels[:length] if list(document.ids[:length]) == ids else [IGNORE] * length
    return Document(document.source, ids, labels, document.tiles[:images], document.layouts[:images])


def generate_answers(
    model: PreTrainedModel, reader: Reader, device: torch.device, asked: Sequence[tuple[Turn, Document]]
) -> list[str]:
    """What the model says, greedily and all at once; stripped.

    It may say one token more than the longest right answer has.
    """
    settings = make_generation_config(reader.tokenizer, reader.mixture.chat)
    settings.max_new_tokens = 1 + max(
        len(reader.tokenizer.encode(turn.answer, add_special_tokens=False).ids) for turn, _ in asked
    )
    batch = pad_sequences([[document] for _, document in asked], settings.pad_token_id, left=True).to(device)
    inputs = {name: value for name, value in reader.family.inputs(model, batch).items() if name != "position_ids"}
    said = model.generate(
        **{**inputs, "attention_mask": (batch.sources != PADDING).long()},
        input_ids=batch.ids,
        generation_config=settings,
    )
    length = batch.ids.shape[1]
    return [text.strip() for text in reader.tokenizer.decode_batch(said[:, length:].tolist(), skip_special_tokens=True)]


def find_majority(mixture: PlannedMixture, source: int, member: str = "") -> Callable[[str], str] | None:
    """A function from a question to its majority answer; of equally frequent ones the first in alphabetical order.

    None where no question of the source is trained on, as of one that is held out whole.

    `member` is one of the sources that an entry means; without it all of them count.
    """
    shards = [get_source(shard["path"]) for shard in mixture.lock["sources"][source]["shards"]]
    held_out = {(segment.source, segment.shard, segment.row) for segment in mixture.held_out()}
    by_question: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    training = (
        segment
        for segment in mixture.samples(source)
        if (segment.source, segment.shard, segment.row) not in held_out and member in {"", shards[segment.shard]}
    )
    for nodes in mixture.nodes(islice(training, LOOKED_AT)):
        for turn in list_turns(nodes):
            by_question[turn.question][turn.answer] += 1
            overall[turn.answer] += 1
    if not overall:
        return None
    best = {question: _find_most_common(counts) for question, counts in by_question.items()}
    return lambda question: best.get(question, _find_most_common(overall))


def make_score_table(scores: Mapping[str, Score], stage: str, metrics: Sequence[str] = tuple(METRICS)) -> Table:
    """The scores for a person; of the metrics those that are named."""
    shown = [column for name in metrics for column in ((name, "majority") if name == "exact" else (name,))]
    few = ", ".join(f"{name} {score.samples}" for name, score in scores.items() if score.samples < FEW)
    found = make_grid(f"{stage}: held-out samples", f"scores of so few samples say little: {few}" if few else "")
    found.add_column("source")
    for name in ("samples", "loss", "questions", *shown):
        found.add_column("majority answer" if name == "majority" else name, justify="right")
    for name, score in scores.items():
        means = (getattr(score, column) for column in shown)
        found.add_row(
            name,
            str(score.samples),
            "" if score.loss is None else f"{score.loss:.3f}",
            str(score.questions),
            *("" if mean is None else f"{mean:.1%}" for mean in means),
        )
    return found


def _find_most_common(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer)) if counts else ""


def split_batches(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in their order, BATCH at a time."""
    coming = iter(items)
    return iter(lambda: list(islice(coming, BATCH)), [])
