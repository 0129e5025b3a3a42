"""Texts that a processor writes around images and a tokenizer joins with those beside them (Gemma 3's blank lines)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.train.test_families import CASES
from tests.train.test_published_chat import dialogues, messages_of
from vlmill.pipeline.chat.encode import FORMATS, IGNORE, encode_nodes, encode_prompt, join_segment, load_tokenizer
from vlmill.pipeline.core.sample import Node
from vlmill.train.export import to_transformers

CHAT, FAMILY = FORMATS["gemma3"], CASES["gemma3"].found


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """One whose tokens reach over blank lines and words."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    texts = ["\n\nWhat colour?\n\n", "\n\n\n\n", " red\n\n", "\n\na < b\n\n\n", "\n\none two \n\n"] * 9
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False))
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return load_tokenizer(path, CHAT)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_processor_gives_our_tokens_and_prompts(tokenizer, data):
    processor = FAMILY.processor(to_transformers(tokenizer, CHAT), CHAT)
    nodes, sizes = data.draw(dialogues("gemma3"))
    pictures = [Image.new("RGB", size) for size in sizes]
    layouts = FAMILY.policy.layout(sizes)
    messages = messages_of(nodes, pictures)
    found = processor.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"][0]
    assert list(found) == join_segment(nodes, layouts, tokenizer, CHAT).ids
    asked = processor.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=True, return_dict=True)
    assert list(asked["input_ids"][0]) == encode_prompt(nodes[:-1], layouts, tokenizer, CHAT)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_nodes_add_up_and_first_turns_have_the_tokens_that_they_have_alone(tokenizer, data):
    nodes, sizes = data.draw(dialogues("gemma3"))
    layouts = FAMILY.policy.layout(sizes)
    parts = encode_nodes(nodes, layouts, tokenizer, CHAT)
    whole = join_segment(nodes, layouts, tokenizer, CHAT)
    assert [token for part in parts for token in part.ids] == whole.ids[1:-1]
    first = [node for node in nodes if node.turn == 0]
    shown = layouts[: sum(node.kind == "image" for node in first)]
    assert (
        join_segment(first, shown, tokenizer, CHAT).ids[:-1]
        == whole.ids[: 1 + sum(len(part.ids) for part in parts[: len(first)])]
    )
    for node, part in zip(nodes, parts, strict=True):
        assert node.kind == "text" or set(part.labels) == {IGNORE}


def test_blank_lines_become_one_token_with_the_text_that_touches_them(tokenizer):
    (layout,) = FAMILY.policy.layout([(9, 9)])
    nodes = [Node("image", "user", 0), Node("text", "user", 0, text="What colour?")]
    image, text = encode_nodes(nodes, [layout], tokenizer, CHAT)
    alone, apart = (encode_nodes([node], [layout] * (node.kind == "image"), tokenizer, CHAT)[0] for node in nodes)
    assert len(image.ids) + len(text.ids) < len(alone.ids) + len(apart.ids) - 2  # of the marks of a turn
    assert tokenizer.decode([token for token in text.ids if token not in alone.ids]).startswith("\n\nWhat")


def test_nodes_of_documents_stand_alone(tokenizer):
    nodes = [Node("text", text="a"), Node("image"), Node("text", text="b")]
    (layout,) = FAMILY.policy.layout([(9, 9)])
    parts = encode_nodes(nodes, [layout], tokenizer, CHAT, "text")
    alone = [encode_nodes([node], [layout] * (node.kind == "image"), tokenizer, CHAT, "text")[0] for node in nodes]
    assert parts == alone
