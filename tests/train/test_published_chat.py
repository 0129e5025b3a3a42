"""Published chats in training: processors of transformers give our tokens, exports carry the template, marks keep their rows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer

from tests.helpers.chats import PUBLISHED
from tests.train.test_families import CASES
from vlmill.pipeline.chat.encode import encode_prompt, join_segment, load_tokenizer
from vlmill.pipeline.chat.reading import fill_chat
from vlmill.pipeline.chat.settings import PublishedChat, find_format
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import Node
from vlmill.train.export import to_transformers
from vlmill.train.families import find_family

MODELS = {
    "llava 1.6": "llava_next",
    "idefics2": "idefics2",
    "smolvlm": "idefics3",
    "qwen2": "llava",
    "llama 3": "llava_next",
    "phi 3": "llava",
    "vicuna": "llava",
}
SIZES = [(40, 20), (28, 28), (70, 84)]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=MODELS)
def published(request, tmp_path_factory):
    """A published chat, its settings, format and tokenizer, and a family that trains under it."""
    name, root = request.param, tmp_path_factory.mktemp("chat")
    data = fill_chat({"chat": PUBLISHED[name].recipe(root / "model")}, root)
    settings = parse_block(PublishedChat, data["chat"], "chat")
    chat = find_format(settings)
    case = CASES[MODELS[name]]
    family = find_family(case.settings, case.policy, settings)
    return name, chat, load_tokenizer(root / "model" / "tokenizer.json", chat), family


def messages_of(nodes, pictures):
    """As processors take them."""
    messages, last = [], None
    for node in nodes:
        if (node.turn, node.role) != last:
            messages.append({"role": node.role, "content": []})
            last = node.turn, node.role
        shown = {"type": "image", "image": pictures[node.image]} if node.kind == "image" else {"type": "text", "text": node.text}
        messages[-1]["content"].append(shown)
    return messages


TEXT = st.one_of(st.sampled_from(["What colour?", " red", "", "\n", "a < b", "one two ", "✓ é"]), st.text("ab \n<", max_size=5))


@st.composite
def dialogues(draw, name):
    nodes, shown = [], 0
    for turn in range(draw(st.integers(1, 2))):
        for text in draw(st.lists(st.none() | TEXT, min_size=1, max_size=4)):
            if text is None:
                nodes.append(Node("image", "user", turn, image=shown))
                shown += 1
            else:
                nodes.append(Node("text", "user", turn, text=text))
        nodes.append(Node("text", "assistant", turn, True, draw(TEXT)))
    if draw(st.booleans()):
        nodes.insert(0, Node("text", "system", 0, text=draw(TEXT)))
    return nodes, [SIZES[draw(st.integers(0, 2))] for _ in range(shown)]


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_processor_of_the_published_tokenizer_and_template_gives_our_tokens(published, data):
    name, chat, tokenizer, family = published
    model = PUBLISHED[name]
    if not model.processor:
        return
    processor = family.processor(model.transformers(), replace(chat, source=model.template))
    nodes, sizes = data.draw(dialogues(name))
    pictures = [Image.new("RGB", size, (40 * place, 9, 9)) for place, size in enumerate(sizes)]
    found = processor.apply_chat_template(messages_of(nodes, pictures), tokenize=True, return_dict=True)
    layouts = family.policy.layout(sizes) if sizes else ()
    assert list(found["input_ids"][0]) == join_segment(nodes, layouts, tokenizer, chat).ids


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_processor_of_an_export_gives_our_tokens_and_prompts(published, data):
    name, chat, tokenizer, family = published
    processor = family.processor(to_transformers(tokenizer, chat), chat)
    nodes, sizes = data.draw(dialogues(name))
    pictures = [Image.new("RGB", size, (40 * place, 9, 9)) for place, size in enumerate(sizes)]
    layouts = family.policy.layout(sizes) if sizes else ()
    messages = messages_of(nodes, pictures)
    found = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    assert list(found["input_ids"][0]) == join_segment(nodes, layouts, tokenizer, chat).ids
    asked = processor.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=True, return_dict=True)
    assert list(asked["input_ids"][0]) == encode_prompt(nodes[:-1], layouts, tokenizer, chat)
