"""The signal `answer_loss` beside transformers' own processors and forward, and what has no value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from tests.helpers import models
from tests.helpers.signals import make_talk, write_partition
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Node, Sample, SampleId
from vlmill.pipeline.images.views import WholeView
from vlmill.pipeline.signals import SIGNALS
from vlmill.pipeline.signals.chunks import find_loss, list_asked, make_batch
from vlmill.pipeline.signals.conversations import (
    find_answer_tokens,
    list_conversations,
    list_messages,
    split_marks,
    write_conversation,
)
from vlmill.pipeline.signals.weights import resolve_weights
from vlmill.pipeline.steps.score import read_chunks

TALK = make_talk((0, "What is it?", " A red thing "), (1, "And here?", "blue"))
ANSWERS = ["A red thing", "blue"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    for name in ("llava", "idefics3", "language_model"):
        getattr(models, f"save_{name}")(place / name)
    (place / "language_model/chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.role }}: {{ message.content | trim }}</s>{% endfor %}"
    )
    return place


def make(place, name, **settings):
    return resolve_weights(parse_block(SIGNALS["answer_loss"], {"model": name, **settings}, "blind"), "blind", place)


def score(signal, tmp_path, samples):
    """The values of a partition by sample and node, asked in this process."""
    inputs, view = write_partition(tmp_path / "in", samples), signal.view()
    (chunk,) = read_chunks(inputs, [view] if view else [])
    asked = [item for item in list_asked(chunk, signal) if find_loss(chunk, item.unit, view) is None]
    values = signal.score(signal.load(), make_batch(chunk, [item.unit for item in asked], 8, view))
    columns = signal.columns("blind")
    rows = [dict(zip(columns, map(float, row), strict=True)) for row in values]
    return {(item.row, item.unit.node): row for item, row in zip(asked, rows, strict=False)}


def compute_loss(place, name, messages, answers, pictures):
    """The mean loss by transformers' apply_chat_template and forward with `labels`, of a model over characters."""
    processor = AutoProcessor.from_pretrained(place / name)
    text = processor.apply_chat_template(messages, tokenize=False)
    inputs = processor(text=[text], images=[pictures] if pictures else None, return_tensors="pt")
    ids = inputs["input_ids"][0]
    written = "".join(
        processor.tokenizer.decode([token])[:1] or "?" for token in ids
    )  # special tokens, and :, begin with <
    labels, begin = torch.full_like(ids, -100), 0
    for answer in answers:
        begin = written.index(f"assistant< {answer}<", begin) + len("assistant< ")
        labels[begin : begin + len(answer)] = ids[begin : begin + len(answer)]
    model = AutoModelForImageTextToText.from_pretrained(place / name).eval()
    with torch.no_grad():
        return float(model(**inputs, labels=labels[None]).loss)


@pytest.mark.parametrize("name", ["llava", "idefics3"])
def test_losses_are_those_of_a_direct_forward_with_and_without_the_pictures(place, tmp_path, name):
    (row,) = score(make(place, name), tmp_path, [TALK]).values()
    (chunk,) = read_chunks({path.name: path for path in (tmp_path / "in").iterdir()}, [WholeView(1536)])
    pictures = list(chunk.pictures[WholeView(1536)])
    text = [[{"type": "text", "text": thing.thing}] for thing in TALK if isinstance(thing.thing, str)]
    roles = ("user", "assistant", "user", "assistant")
    blind = [{"role": role, "content": parts} for role, parts in zip(roles, text, strict=True)]
    seen = [
        {**said, "content": [*([{"type": "image"}] if said["role"] == "user" else []), *said["content"]]}
        for said in blind
    ]
    assert row["blind"] == pytest.approx(compute_loss(place, name, seen, ANSWERS, pictures), abs=1e-4)
    assert row["blind_blind"] == pytest.approx(compute_loss(place, name, blind, ANSWERS, None), abs=1e-4)
    assert row["blind_gain"] == pytest.approx(row["blind_blind"] - row["blind"], abs=2e-4)
    assert abs(row["blind_gain"]) > 0.01  # the model tells them apart


def test_a_language_model_gives_the_loss_of_the_text_alone(place, tmp_path):
    table = score(make(place, "language_model", image=[False]), tmp_path, [TALK, ["no conversation"]])
    tokenizer = AutoTokenizer.from_pretrained(place / "language_model")
    text = "user: What is it?</s>assistant: A red thing</s>user: And here?</s>assistant: blue</s>"
    inputs = tokenizer([text], return_tensors="pt", add_special_tokens=False)
    ids, written = inputs["input_ids"][0], text.replace("</s>", "|")
    labels = torch.full_like(ids, -100)
    for answer in ANSWERS:
        begin = written.index(answer)
        labels[begin : begin + len(answer)] = ids[begin : begin + len(answer)]
    model = AutoModelForCausalLM.from_pretrained(place / "language_model").eval()
    with torch.no_grad():
        expected = float(model(input_ids=ids[None], labels=labels[None]).loss)
    assert table == {(0, WHOLE_SAMPLE): {"blind_blind": pytest.approx(expected, abs=1e-4)}}


def test_of_turns_each_answer_stands_alone_with_its_question_and_the_images_before_it(place, tmp_path):
    turns = score(make(place, "llava", level="turns"), tmp_path, [TALK])
    alone = [make_talk((0, "What is it?", " A red thing ")), make_talk((0, 1, "And here?", "blue"))]
    first, second = score(make(place, "llava"), tmp_path / "alone", [*alone]).values()
    assert second["blind"] != first["blind"]
    assert turns == {(0, 2): first, (0, 5): second}


def test_what_cannot_be_asked_has_no_value_and_what_shows_nothing_is_not_asked(place, tmp_path):
    samples = [
        make_talk((0, "Spell </s> for me", "no")),
        make_talk((0, "Hold \ufdd0 it", "no")),
        make_talk((0, "Too long", "no " * 200)),
        make_talk((0, "Fine", "yes")),
        make_talk(("No picture", "yes")),
        make_talk((None, "Damaged", "yes")),
        [0, "a document"],
    ]
    table = score(make(place, "llava", tokens=250), tmp_path, samples)
    assert {row: np.isfinite(values["blind_gain"]) for (row, _), values in table.items()} == {
        0: False,
        1: False,
        2: False,
        3: True,
    }


def test_what_the_settings_cannot_mean_is_refused(place):
    with pytest.raises(RecipeError, match=r"a language model, which takes no pictures; write `image: \[false\]`"):
        make(place, "language_model").load()
    with pytest.raises(RecipeError, match="is not one of"):
        make(place, "llava", image=[True, True])
    (place / "silent").mkdir()
    for path in (place / "llava").iterdir():
        (place / "silent" / path.name).symlink_to(path)
    (place / "silent/chat_template.jinja").unlink()
    (place / "silent/chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}{% endfor %}")
    with pytest.raises(RecipeError, match="its processor takes no conversation: .*0 <image> tokens and 1 images"):
        make(place, "silent").load()
    with pytest.raises(RecipeError, match="does not write a question and an answer as they are"):
        make(place, "silent", image=[False]).load()


# -- conversations -----------------------------------------------------------------------------------------------------


def sample(*nodes):
    return Sample(SampleId("a", "b", 0), nodes)


def test_only_conversations_with_a_supervised_answer_are_asked():
    question, answer = Node("text", "user", 0, text="Q"), Node("text", "assistant", 0, True, text="A")
    assert [unit.node for unit in list_conversations(sample(question, answer), "samples")] == [WHOLE_SAMPLE]
    silent = Node("text", "assistant", 0, text="A")
    for nodes in ((question,), (question, silent), (Node("text", text="A", supervised=True),)):
        assert not list(list_conversations(sample(*nodes), "samples"))
        assert not list(list_conversations(sample(*nodes), "turns"))


def test_a_picture_that_was_shown_before_goes_to_the_question():
    nodes = (
        Node("text", "system", 0, text="Be brief."),
        Node("image", "user", 1, image=7),
        Node("text", "user", 1, text="first"),
        Node("text", "assistant", 1, True, text="one"),
        Node("text", "user", 2, text="second"),
        Node("text", "assistant", 2, True, text="two"),
    )
    *_, last = list_conversations(sample(*nodes), "turns")
    assert (last.node, last.images) == (5, (7,))
    assert list_messages(last.nodes, parts=True) == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "second"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
    ]


def test_a_template_that_changes_an_answer_is_refused_and_one_that_trims_is_not():
    nodes = (Node("text", "user", 0, text="Q"), Node("text", "assistant", 0, True, text=" a b "))

    def write(change):
        def template(messages, tokenize):
            assert not tokenize
            return "".join(change(message["content"]) for message in messages)

        return write_conversation(template, nodes, parts=False, images=False)

    assert split_marks(write(str)) == ("Q a b ", [(1, 6)])
    assert split_marks(write(str.strip)) == ("Qa b", [(1, 4)])
    assert write(lambda text: text[:3]) is None


def test_a_token_of_an_answer_is_one_that_holds_a_character_of_it():
    offsets = [(0, 0), (0, 4), (4, 9), (9, 12), (12, 12), (12, 15)]
    assert find_answer_tokens(offsets, [(5, 9), (12, 13)]) == [2, 5]
    assert find_answer_tokens(offsets, [(4, 4)]) == []


def test_a_whole_view_keeps_the_shape_of_a_picture_and_never_enlarges_it():
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (30, 50, 3), np.uint8))
    assert np.array_equal(WholeView(50).draw(image), np.asarray(image))
    assert WholeView(25).draw(image).shape == (15, 25, 3)
    assert WholeView(1).draw(Image.new("RGB", (9000, 1))).shape == (1, 1, 3)
