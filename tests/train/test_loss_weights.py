"""Loss weights: by source, length and turn, the same on any micro-batches, and what `stats` says of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.chats import PUBLISHED
from tests.helpers.stages import MACHINE, article, lock_recipe, model_settings, picture, question, write_run
from vlmill.mixtures.reader import PlannedMixture
from vlmill.mixtures.steps.plan import SEQUENCES
from vlmill.pipeline.chat.encode import IGNORE, join_segment, load_tokenizer
from vlmill.pipeline.chat.reading import fill_chat
from vlmill.pipeline.chat.settings import PublishedChat, find_format
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.core.seal import read_sealed_json, seal_json
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.train.batch import pad_sequences
from vlmill.train.data import Reader, open_reader
from vlmill.train.evaluate import score_samples
from vlmill.train.loss_shares import count_loss_shares
from vlmill.train.loss_weights import weigh_tokens
from vlmill.train.model import compute_token_losses, create_model, make_optimizer
from vlmill.train.run import train_stage
from vlmill.train.settings import LossWeights, Training
from vlmill.train.validate import validate_training

CPU = torch.device("cpu")
TRAIN = {"steps": 2, "sequences": 4, "learning_rate": {"text": 1e-3, "vision": 1e-3, "projector": 1e-3}, "evaluate": 2}
AVERAGES = ["tokens", "square_root", "samples"]


def dialogue(number, turns=3):
    """A picture, and several questions; answers grow from turn to turn."""
    nodes = [Node("image", "user", image=0, required=True)]
    for turn in range(turns):
        nodes.append(Node("text", "user", turn, text=f"Question {turn} of {number}?"))
        nodes.append(Node("text", "assistant", turn, supervised=True, text="blue " * (turn + 1 + number % 3)))
    return tuple(nodes), [picture("blue", number)]


def page(number):
    """A supervised document of texts and pictures, as sources make them."""
    nodes, pictures = article(number)
    return tuple(replace(node, supervised=node.kind == "text") for node in nodes), pictures


SOURCES = {
    "quiz": [question(number) for number in range(12)],
    "chat": [dialogue(number, 1 + number % 4) for number in range(12)],
    "web": [page(number) for number in range(8)],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), SOURCES, length=200, hold_out=2)


def parse(**settings):
    return parse_block(LossWeights, settings, "loss_weights")


def rewrite_block(root, rows):
    """Put other sequences in place of those of a plan's only block."""
    folder = root / "mixtures" / "align"
    pq.write_table(pa.Table.from_pylist(rows, SEQUENCES), folder / "plan/00000.parquet")
    lock = read_sealed_json(folder / "mixture.lock.json", "")
    lock["plan"]["blocks"][0]["sha256"] = hash_file(folder / "plan/00000.parquet")
    (folder / "mixture.lock.json").write_text(seal_json(lock))


def open_weighted(root, weights, loss="answers"):
    return open_reader(PlannedMixture(root, "align"), model_settings(), loss, weights)


# -- what a token weighs


@given(st.sampled_from(AVERAGES), st.integers(1, 40), st.floats(0.01, 100))
def test_a_segment_weighs_what_its_average_says(average, taught, factor):
    weights = weigh_tokens(parse(average=average, sources={"web": factor}), "web", taught)
    expected = {"tokens": taught, "square_root": taught**0.5, "samples": 1}[average]
    assert weights.sum() == pytest.approx(factor * expected)
    assert weights.size == taught
    assert np.ptp(weights) == 0
    other = weigh_tokens(parse(average=average, sources={"web": factor}), "quiz", taught)
    assert other.sum() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("turns", "expected"),
    [("all", [1, 1, 1, 1, 1]), ("last", [0, 0, 0, 1, 1]), ([1, 0.5], [1, 1, 0.5, 0.5, 0.5]), ([0, 3], [0, 0, 3, 3, 3])],
)
@pytest.mark.parametrize("average", AVERAGES)
def test_turns_weigh_answers_and_their_sum_is_the_length(turns, expected, average):
    weights = weigh_tokens(parse(average=average, turns=turns), "chat", 5, [0, 0, 1, 2, 2])
    power = {"tokens": 0, "square_root": 0.5, "samples": 1}[average]
    np.testing.assert_allclose(weights, np.array(expected) / sum(expected) ** power)


def test_an_answer_of_no_weight_is_nothing_to_divide_by():
    weights = weigh_tokens(parse(average="samples", turns=[0, 1]), "chat", 3, [0, 0, 0])
    assert weights.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"turns": [0, 0]}, "turns: at least one answer"),
        ({"average": "sample"}, "average"),
        ({"sources": {"web": 0}}, "sources.web.*greater than 0"),
        ({"turns": "first"}, "turns"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(settings, said):
    with pytest.raises(RecipeError, match=said):
        parse(**settings)


def test_questions_have_no_turns_to_weigh():
    with pytest.raises(RecipeError, match="loss: text learns questions"):
        parse_block(Training, {**TRAIN, "loss": "text", "loss_weights": {"turns": "last"}}, "train")


def test_a_source_that_the_mixture_lacks_is_refused_before_any_work(tmp_path):
    root = lock_recipe(tmp_path, {**TRAIN, "loss_weights": {"sources": {"quizz": 2}}})
    with pytest.raises(RecipeError, match="loss_weights.sources: 'quizz' is no entry .*did you mean 'quiz'"):
        validate_training(read_locked_recipe(root))


# -- documents and plans


@pytest.mark.parametrize("turns", ["all", "last", [1, 0.25]])
def test_answers_of_a_conversation_are_weighed_and_documents_are_no_answers(run, turns):
    reader = open_weighted(run, parse(turns=turns))
    seen = set()
    for number in range(reader.mixture.sequences):
        for segment, document in zip(reader.mixture.sequence(number), reader.sequence(number), strict=True):
            (nodes,) = reader.mixture.nodes([segment])
            taught = [label for label in document.labels if label != IGNORE]
            assert document.weights.size == len(taught)
            if nodes[0].role == "none" or turns == "all":
                assert set(document.weights) == {1.0}
                continue
            texts = [node.text for node in nodes if node.supervised]
            sizes = [len(reader.tokenizer.encode(text, add_special_tokens=False).ids) + 1 for text in texts]
            answers = np.repeat(np.arange(len(texts)), sizes)  # each with the mark that ends it
            last = len(texts) - 1
            expected = answers == last if turns == "last" else np.where(answers == 0, 1, 0.25)
            assert document.weights.tolist() == expected.tolist()
            seen.add(last)
    assert seen == ({0, 1, 2, 3} if turns != "all" else set())


def test_the_answers_of_a_published_chat_are_found_too(tmp_path):
    root = tmp_path / "model"
    data = fill_chat({"chat": PUBLISHED["qwen2"].recipe(root)}, tmp_path)
    chat = find_format(parse_block(PublishedChat, data["chat"], "chat"))
    tokenizer = load_tokenizer(root / "tokenizer.json", chat)
    nodes, _ = dialogue(1, 3)
    reader = Reader(SimpleNamespace(chat=chat), tokenizer, None, "answers", parse(turns="last"))
    answers = reader._number_answers(nodes[1:], ())
    taught = join_segment(nodes[1:], (), tokenizer, chat).supervised
    assert len(answers) == taught
    assert sorted(set(answers)) == [0, 1, 2]
    assert answers == sorted(answers)


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(
    ("turns", "loss"), [("all", "answers"), ("last", "answers"), ([1, 0.25], "answers"), ("all", "text")]
)
def test_the_shares_of_the_loss_are_those_that_the_trainer_weighs(run, average, turns, loss):
    weights = parse(average=average, turns=turns, sources={"chat": 3, "web": 0.5})
    reader = open_weighted(run, weights, loss)
    held = np.zeros(3)
    for number in range(reader.mixture.sequences):
        for document in reader.sequence(number):
            held[document.source] += document.weights.sum()
    found = count_loss_shares(reader.mixture, weights, loss)
    assert list(found) == list(SOURCES)
    assert list(found.values()) == pytest.approx((held / held.sum()).tolist(), abs=1e-9 if loss == "answers" else 1e-2)


def test_the_share_of_a_text_that_is_cut_is_that_of_its_segments(tmp_path):
    long = [((Node("text", supervised=True, text="It is the colour of the picture. " * 40),), [])]
    root = write_run(tmp_path, {"quiz": SOURCES["quiz"], "long": long}, length=600)
    mixture = PlannedMixture(root, "align")
    cut = pl.read_parquet(mixture.folder / "plan/00000.parquet").to_dicts()
    (at, segment), *_ = [(at, one) for at, row in enumerate(cut) for one in row["segments"] if one["source"] == 1]
    parts = [{**segment, "end": 100, "tokens": 102}, {**segment, "begin": 100, "tokens": segment["tokens"] - 100}]
    cut[at]["segments"] = [one for one in cut[at]["segments"] if one["source"] != 1] + parts
    cut[at]["tokens"] += 2
    rewrite_block(root, cut)
    mixture, weights = PlannedMixture(root, "align"), parse(average="square_root")
    reader = open_weighted(root, weights)
    held = np.zeros(2)
    for number in range(mixture.sequences):
        for document in reader.sequence(number):
            held[document.source] += document.weights.sum()
    assert list(count_loss_shares(mixture, weights).values()) == pytest.approx((held / held.sum()).tolist())


# -- training


def lines(root):
    return [json.loads(line) for line in (root / "train" / "align" / "log.jsonl").read_text().splitlines()]


def train(root, **changes):
    settings = parse_block(Training, {**TRAIN, **changes}, "train")
    return train_stage(root, "align", settings, model_settings(), machine=MACHINE)


def test_a_step_minimises_the_weighted_mean_whatever_its_micro_batches(run, tmp_path):
    weights = {"average": "square_root", "sources": {"chat": 3, "web": 0.5}, "turns": [1, 0.5]}
    courses = []
    for accumulation in (1, 4):
        root = tmp_path / str(accumulation)
        shutil.copytree(run, root)
        train(root, accumulation=accumulation, loss_weights=weights)
        courses.append(lines(root))
    for one, other in zip(*courses, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)
        together = sum(source["loss"] * source["weight"] for source in one["sources"].values())
        assert one["loss"] == pytest.approx(together)
        assert sum(source["weight"] for source in one["sources"].values()) == pytest.approx(1)

    settings = parse_block(Training, {**TRAIN, "loss_weights": weights}, "train")
    reader = open_weighted(run, settings.loss_weights)
    model = create_model(reader.family, reader.tokenizer, reader.mixture.chat, settings.seed).train()
    lost, whole = 0.0, 0.0
    for number in range(settings.sequences):  # one document at a time, each weighed by hand
        for document in reader.sequence(number):
            losses, _ = compute_token_losses(model, reader.family, pad_sequences([[document]], 0), CPU, torch.float32)
            lost, whole = lost + (losses * torch.tensor(document.weights)).sum(), whole + document.weights.sum()
    assert courses[0][0]["loss"] == pytest.approx(lost.item() / whole, rel=1e-5)
    make_optimizer(model, reader.family, settings)
    (lost / whole).backward()
    gradients = [weights.grad.square().sum() for weights in model.parameters() if weights.grad is not None]
    assert courses[0][0]["gradient_norm"] == pytest.approx(sum(gradients).sqrt().item(), rel=1e-4)


def test_weights_of_one_change_nothing_and_held_out_samples_have_none(run, tmp_path):
    found = []
    for number, weights in enumerate([None, {"average": "tokens"}]):
        root = tmp_path / str(number)
        shutil.copytree(run, root)
        result = train(root, loss_weights=weights)
        found.append(([line["loss"] for line in lines(root)], result.scores))
    assert found[0] == found[1]
    readers = [open_weighted(run, weights) for weights in (None, parse(average="samples", turns="last"))]
    model = create_model(readers[0].family, readers[0].tokenizer, readers[0].mixture.chat, 0).eval()
    held = readers[0].mixture.held_out()
    one, other = (score_samples(model, reader, CPU, held, torch.float32) for reader in readers)
    assert one == other
