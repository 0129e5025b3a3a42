"""PaliGemma: the prompt is seen in both directions, in packed documents, in second turns, and when it answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoModelForImageTextToText, Gemma2Config

from tests.helpers.chats import PUBLISHED
from tests.helpers.stages import MACHINE, question, write_run, write_tokenizer
from tests.train import test_families
from tests.train.test_families import CASES, TEXT, logits, made, picture
from tests.train.test_published_chat import TEXT as TEXTS
from tests.train.test_published_chat import messages_of
from vlmill.mixtures.reader import PlannedMixture, Segment
from vlmill.pipeline.chat.encode import (
    FORMATS,
    IGNORE,
    count_nodes,
    encode_prompt,
    get_mark_id,
    join_segment,
    load_tokenizer,
)
from vlmill.pipeline.chat.outline import TemplateRefused
from vlmill.pipeline.chat.settings import parse_chat
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import Node
from vlmill.train.batch import Document, pad_sequences
from vlmill.train.data import Reader
from vlmill.train.evaluate import make_prompt
from vlmill.train.export import to_transformers
from vlmill.train.families import find_family
from vlmill.train.families.blocks import find_prompts
from vlmill.train.model import create_model
from vlmill.train.new_rows import find_new_rows
from vlmill.train.run import train_stage
from vlmill.train.settings import ModelSettings, Training

tokenizers = test_families.tokenizers
CASE, CHAT = CASES["paligemma"], FORMATS["paligemma"]


@pytest.fixture(scope="module")
def tokenizer(tokenizers):
    return tokenizers["paligemma"]


def talk(*turns, images=1):
    """A conversation of questions and answers about images."""
    nodes = [Node("image", "user", 0, image=place) for place in range(images)]
    for turn, (asked, said) in enumerate(turns):
        nodes += [Node("text", "user", turn, text=asked), Node("text", "assistant", turn, True, said)]
    return nodes


def document(nodes, tokenizer, seed=0, loss="answers"):
    sizes = [(30 + seed, 20) for node in nodes if node.kind == "image"]
    layouts = CASE.policy.layout(sizes)
    encoded = join_segment(nodes, layouts, tokenizer, CHAT, loss)
    tiles = tuple(
        tuple(CASE.policy.tiles(CASE.policy.render(picture(*size, seed + place), layout), layout))
        for place, (size, layout) in enumerate(zip(sizes, layouts, strict=True))
    )
    return Document(0, encoded.ids, encoded.labels, tiles, tuple(layouts))


@st.composite
def conversations(draw):
    turns = draw(st.integers(1, 3))
    nodes = []
    for place in range(draw(st.integers(1, 3))):
        nodes.append(Node("image", "user", 0, image=place))
        nodes += [Node("text", "user", 0, text=draw(TEXTS)) for _ in range(draw(st.integers(0, 1)))]
    for turn in range(turns):
        nodes.append(Node("text", "user", turn, text=draw(TEXTS)))
        nodes.append(Node("text", "assistant", turn, True, draw(TEXTS)))
    if draw(st.booleans()):
        nodes.insert(0, Node("text", "system", 0, text=draw(TEXTS)))
    return nodes


# -- what is written


@given(nodes=conversations())
@settings(max_examples=40, deadline=None)
def test_a_processor_gives_our_prompts_and_answers_and_says_which_is_which(tokenizer, nodes):
    processor = CASE.found.processor(to_transformers(tokenizer, CHAT), CHAT)
    nodes = [node for node in nodes if node.turn == 0]
    pictures = [Image.new("RGB", (9, 9)) for node in nodes if node.kind == "image"]
    layouts = CASE.policy.layout([(9, 9)] * len(pictures))
    text = processor.apply_chat_template(messages_of(nodes, pictures)[:-1], add_generation_prompt=True)
    said = processor(images=[pictures], text=[text], suffix=[nodes[-1].text])
    ours = join_segment(nodes, layouts, tokenizer, CHAT)
    assert list(said["input_ids"][0]) == ours.ids
    assert list(said["labels"][0]) == ours.labels
    asked = list(processor(images=[pictures], text=[text])["input_ids"][0])
    assert asked == encode_prompt(nodes[:-1], layouts, tokenizer, CHAT)


@given(nodes=conversations())
@settings(max_examples=40, deadline=None)
def test_lengths_are_known_of_any_first_turns(tokenizer, nodes):
    layouts = CASE.policy.layout([(9, 9)] * sum(node.kind == "image" for node in nodes))
    counts = count_nodes(nodes, layouts, tokenizer, CHAT)
    whole = join_segment(nodes, layouts, tokenizer, CHAT)
    assert sum(count.supervised for count in counts) == whole.supervised
    for turns in range(1, nodes[-1].turn + 2):
        first = [node for node in nodes if node.turn < turns]
        alone = join_segment(first, layouts, tokenizer, CHAT)
        assert len(alone.ids) == CHAT.overhead + sum(count.tokens for count in counts[: len(first)])
        assert alone.ids == whole.ids[: len(alone.ids)]


def spell(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


def test_a_sample_is_images_then_prompts_and_answers(tokenizer):
    nodes = talk(("What?", "red"), ("Sure?", "yes"), images=2)
    nodes.insert(0, Node("text", "system", 0, text="Be brief."))
    layouts = CASE.policy.layout([(9, 9)] * 2)
    encoded = join_segment(nodes, layouts, tokenizer, CHAT)
    images = "<image>" * sum(layout.tokens for layout in layouts)
    assert spell(tokenizer, encoded.ids) == f"{images}<bos>Be brief.\nWhat?\nred<eos>Sure?\nyes<eos>"
    assert spell(tokenizer, [label for label in encoded.labels if label != IGNORE]) == "red<eos>yes<eos>"
    page = [Node("image"), Node("text", text="A"), Node("image"), Node("text", text="B")]
    image = "<image>" * layouts[0].tokens
    assert spell(tokenizer, join_segment(page, layouts, tokenizer, CHAT).ids) == f"{image}<bos>A\n\n{image}B\n\n<eos>"
    text = spell(tokenizer, join_segment([Node("text", text="A")], [], tokenizer, CHAT).ids)
    assert text == "<bos>A\n\n<eos>"


def test_places_and_shapes_are_words_and_marks_are_letters(tokenizer):
    ids = join_segment(
        talk(("detect", "<loc0012><seg007> cat<eos>")), CASE.policy.layout([(9, 9)]), tokenizer, CHAT
    ).ids
    assert {tokenizer.token_to_id("<loc0012>"), tokenizer.token_to_id("<seg007>")} <= set(ids)
    assert ids.count(get_mark_id(tokenizer, "<eos>")) == 1
    assert tokenizer.decode(ids).endswith("<loc0012><seg007> cat<eos>")


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([*talk(("a", "b")), Node("image", "user", 1), Node("text", "assistant", 1, True, "c")], "behind an answer"),
        ([Node("text", "assistant", 0, True, "b")], "without a prompt"),
        ([Node("text", text="a"), *talk(("a", "b"))], "without a role"),
    ],
)
def test_what_the_processor_has_no_form_for_is_lost_with_a_reason(tokenizer, nodes, said):
    with pytest.raises(TemplateRefused, match=said):
        join_segment(nodes, CASE.policy.layout([(9, 9)] * 2), tokenizer, CHAT)


# -- what is seen


def first_change(family, model, one, place):
    """The first token whose logits change with the token at a place."""
    other = replace(one, ids=[token + (at == place) for at, token in enumerate(one.ids)])
    return int((logits(family, model, [[one]]) - logits(family, model, [[other]]))[0].abs().amax(-1).nonzero()[0])


def test_a_prompt_is_seen_in_both_directions_and_all_behind_it_from_behind(tokenizers, tokenizer):
    family, model = made(CASE, tokenizers)
    one = document(talk(("What colour?", "red or blue"), ("Are you sure?", "yes")), tokenizer)
    begins = next(place for place, label in enumerate(one.labels) if label != IGNORE)
    second = one.ids.index(get_mark_id(tokenizer, "<eos>")) + 1
    assert first_change(family, model, one, begins - 2) == 0  # a word of the prompt reaches the first patch
    for place in (begins, begins + 1, second, second + 2, len(one.ids) - 2):  # answers, and the second prompt
        assert first_change(family, model, one, place) == place


def test_prompts_of_packed_documents_do_not_see_each_other(tokenizers, tokenizer):
    family, model = made(CASE, tokenizers)
    documents = [
        document(talk(("What colour?", "red"), ("Are you sure?", "yes")), tokenizer, 1),
        document(talk(("Where is it, and what?", "here"), images=2), tokenizer, 2),
        document([Node("text", text="One"), Node("text", text="two")], tokenizer, 3, "text"),
        document(talk(("Who?", "you")), tokenizer, 4),
    ]
    packed, start = logits(family, model, [documents])[0], 0
    for one in documents:
        batch = pad_sequences([[one]], 0)
        inputs = {key: value for key, value in family.inputs(model, batch).items() if key != "attention_mask"}
        del inputs["position_ids"]  # the class has its own
        with torch.no_grad():
            expected = model(input_ids=batch.ids, use_cache=False, **inputs).logits[0]
        assert (packed[start : start + len(one.ids)] - expected).abs().max() <= 1e-5
        start += len(one.ids)
    other = replace(documents[1], ids=[*documents[1].ids[:-5], *[7] * 5])
    changed = logits(family, model, [[documents[0], other, *documents[2:]]])[0]
    before, behind = len(documents[0].ids), len(documents[0].ids) + len(documents[1].ids)
    assert torch.equal(packed[:before], changed[:before])
    assert torch.equal(packed[behind:], changed[behind:])


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=4))
def test_what_stands_before_the_first_label_of_a_document_is_its_prompt(taught):
    labels = torch.tensor([[1 if one else IGNORE for document in taught for one in document]])
    documents = torch.tensor([[number for number, document in enumerate(taught) for _ in document]])
    expected = [place < (one.index(True) if True in one else len(one)) for one in taught for place in range(len(one))]
    ids = torch.zeros_like(labels)
    batch = replace(pad_sequences([[Document(0, [0], [IGNORE])]], 0), ids=ids, labels=labels, documents=documents)
    found = find_prompts(None, batch)[0]
    assert (found >= 0).tolist() == expected
    prompts = [sorted(set(found[documents[0] == number].tolist()) - {-1}) for number in range(len(taught))]
    assert sum(map(len, prompts)) == len({place for each in prompts for place in each})  # none has two documents


def test_a_second_question_is_asked_as_it_was_trained(tmp_path, tokenizers):
    nodes, pictures = question(0)
    nodes = [*nodes, Node("text", "user", 1, text="Sure?"), Node("text", "assistant", 1, True, "yes")]
    write_run(tmp_path, {"quiz": [(nodes, pictures)]}, CASE.policy, chat="paligemma", length=400)
    mixture = PlannedMixture(tmp_path, "align")
    family, model = made(CASE, tokenizers)
    reader = Reader(mixture, load_tokenizer(mixture.tokenizer, mixture.chat), family, "answers")
    document = reader.document(Segment(0, 0, 0))
    trained = logits(family, model, [[document]])[0]
    for before in (2, 4):
        prompt = make_prompt(reader, document, nodes[:before])
        asked = logits(family, model, [[prompt]])[0]
        assert list(document.ids[: len(prompt.ids)]) == prompt.ids
        assert (asked - trained[: len(prompt.ids)]).abs().max() <= 1e-5
    batch = pad_sequences([[prompt]], 0)
    inputs = {key: value for key, value in family.inputs(model, batch).items() if key != "position_ids"}
    said = model.generate(
        **{**inputs, "attention_mask": torch.ones_like(batch.ids)},
        input_ids=batch.ids,
        max_new_tokens=1,
        do_sample=False,
    )
    assert int(said[0, -1]) == int(trained[len(prompt.ids) - 1].argmax())


# -- what fits


def test_a_published_chat_and_a_language_model_of_paligemma_2_are_refused(tmp_path, tokenizers):
    chat = parse_chat({"template": PUBLISHED["llama 3"].template, "tokens": {"eos_token": "a"}, "images": "paligemma"})
    with pytest.raises(RecipeError, match="paligemma was published without a chat template; write chat: paligemma"):
        find_family(CASE.settings, CASE.policy, chat)
    with pytest.raises(RecipeError, match="has the layers of gemma, not of llama"):
        made(replace(CASE, text=TEXT), tokenizers)
    Gemma2Config(hidden_size=32).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="has the layers of gemma, not of gemma2"):
        made(replace(CASE, text={"kind": "pretrained", "path": str(tmp_path)}), tokenizers)
    with pytest.raises(RecipeError, match="PaliGemma reads every patch"):
        _ = replace(CASE, policy=replace(CASE.policy, whole=True)).found


def test_a_published_checkpoint_is_trained_on_and_nothing_of_it_is_new(tmp_path, tokenizer):
    folder, run = tmp_path / "published", tmp_path / "run"
    run.mkdir()
    whole = create_model(CASE.found, tokenizer, CHAT, 7)
    rows = len(tokenizer.get_vocab()) + 3  # as published: more rows than tokens
    whole.resize_token_embeddings(rows)
    whole.to(torch.bfloat16).save_pretrained(folder)
    for place in (folder, run):
        tokenizer.save(str(place / "tokenizer.json"))
    model = parse_block(
        ModelSettings, {"family": "paligemma", "checkpoint": {"kind": "pretrained", "path": str(folder)}}, "model"
    )
    assert find_new_rows(model, tokenizer, CHAT, {}).trained == ()
    write_run(
        run, {"quiz": [question(number) for number in range(9)]}, CASE.policy, chat="paligemma", length=60, epochs=3
    )
    rates = {"text": 1e-3, "vision": 1e-3, "projector": 1e-3}
    training = parse_block(Training, {"steps": 2, "sequences": 1, "learning_rate": rates, "evaluate": 0}, "train")
    result = train_stage(run, "align", training, model, machine=MACHINE)
    exported = AutoModelForImageTextToText.from_pretrained(result.export)
    assert (exported.dtype, exported.get_input_embeddings().num_embeddings) == (torch.bfloat16, rows)
    assert load_tokenizer(result.export / "tokenizer.json", CHAT).get_vocab() == tokenizer.get_vocab()


def test_marks_that_a_published_tokenizer_has_are_its_own(tmp_path):
    published = load_tokenizer(write_tokenizer(tmp_path / "tokenizer.json"), CHAT)
    published.save(str(tmp_path / "published.json"))
    again = load_tokenizer(tmp_path / "published.json", CHAT)
    assert again.get_vocab() == published.get_vocab()
    assert len(published.get_vocab()) > 1024 + 128
