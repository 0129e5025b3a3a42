"""Published chat templates: tokens are those of transformers' apply_chat_template, answers are found, and nothing changes in silence."""

from __future__ import annotations

import json
from functools import cache
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.chats import ALTERNATE, CHATML, LLAMA3, PUBLISHED
from vlmill.pipeline.chat.encode import (
    FORMATS,
    IGNORE,
    count_nodes,
    encode_nodes,
    encode_prompt,
    join_segment,
    load_tokenizer,
)
from vlmill.pipeline.chat.image_tokens import IndexedImage
from vlmill.pipeline.chat.outline import TemplateRefused
from vlmill.pipeline.chat.published import PublishedFormat
from vlmill.pipeline.chat.reading import fill_chat
from vlmill.pipeline.chat.settings import PublishedChat, find_format
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node

TEXTS = {name: chat for name, chat in PUBLISHED.items() if not chat.processor}
NO_SYSTEM = ("gemma", "mistral", "mistral, spaces before the first word alone")


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Of a published chat by name: the format, and the tokenizer loaded for it."""
    root = tmp_path_factory.mktemp("chats")

    @cache
    def read(name):
        folder = root / name
        data = fill_chat({"chat": PUBLISHED[name].recipe(folder)}, root)
        chat = find_format(parse_block(PublishedChat, data["chat"], "chat"))
        return chat, load_tokenizer(folder / "tokenizer.json", chat)

    return read


def talk(*said, system=None, unsupervised=()):
    """A conversation of questions and answers in turns."""
    nodes = [] if system is None else [Node("text", "system", 0, text=system)]
    for place, text in enumerate(said):
        answer = place % 2 == 1
        role = "assistant" if answer else "user"
        nodes.append(Node("text", role, place // 2, answer and place // 2 not in unsupervised, text))
    return nodes


def messages_of(nodes):
    """As tokenizers take them: contents are texts."""
    runs = groupby(nodes, key=lambda node: (node.turn, node.role))
    return [{"role": role, "content": "".join(node.text for node in run)} for (_, role), run in runs]


def theirs(chat, messages, **how):
    """What transformers' processors make of a conversation: BOS comes from the tokenizer where the template writes none."""
    tokenizer = chat.transformers()
    written = tokenizer.apply_chat_template(messages, tokenize=False, **how)
    bos = chat.tokens.get("bos_token")
    plain = tokenizer.apply_chat_template(messages, tokenize=True, **how)["input_ids"]
    if bos and not written.startswith(bos):
        return tokenizer(written)["input_ids"]
    return plain


def their_mask(chat, messages):
    """Which tokens transformers takes for an answer, by marks in the template."""
    found = chat.transformers(chat.marked).apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    return found["input_ids"], found["assistant_masks"]


WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["red", " red", "red ", "\nred\n", "", " ", "\t", "  red  green", "Ünï ✓ 颜色", "\u2028", "a\u00a0", "<", "| x |"]),
)


@st.composite
def conversations(draw, system=True):
    turns = draw(st.integers(1, 3))
    said = [draw(WORDS) for _ in range(2 * turns)]
    prompt = draw(st.none() | WORDS) if system else None
    return talk(*said, system=prompt, unsupervised=draw(st.sets(st.integers(0, turns - 1))))


@pytest.mark.parametrize("name", TEXTS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_tokens_are_those_of_apply_chat_template(ready, name, data):
    chat, tokenizer = ready(name)
    nodes = data.draw(conversations(name not in NO_SYSTEM))
    assert join_segment(nodes, [], tokenizer, chat).ids == theirs(PUBLISHED[name], messages_of(nodes))


@pytest.mark.parametrize("name", TEXTS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_supervised_are_the_answers_and_their_ends_alone(ready, name, data):
    chat, tokenizer = ready(name)
    nodes = data.draw(conversations(name not in NO_SYSTEM))
    # transformers counts a mark as answer that has taken the space with which an answer begins
    texts = [node.text.lstrip() if PUBLISHED[name].rstrip else node.text for node in nodes]
    everything = [
        Node("text", node.role, node.turn, node.role == "assistant", text)
        for node, text in zip(nodes, texts, strict=True)
    ]
    ids, mask = their_mask(PUBLISHED[name], messages_of(everything))
    encoded = join_segment(everything, [], tokenizer, chat)
    before = len(encoded.ids) - len(ids)
    assert encoded.ids[before:] == ids
    assert [label != IGNORE for label in encoded.labels[before:]] == [bool(one) for one in mask]


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_answer_without_loss_is_not_supervised(ready, name):
    chat, tokenizer = ready(name)
    both = join_segment(talk("one", "two", "three", "four"), [], tokenizer, chat)
    second = join_segment(talk("one", "two", "three", "four", unsupervised={0}), [], tokenizer, chat)
    end = tokenizer.token_to_id(chat.end)
    assert second.ids == both.ids
    assert both.labels.count(end) == 2
    assert second.labels.count(end) == 1
    assert second.labels.index(end) > both.labels.index(end)


def any_nodes(draw, name):
    """Conversations whose messages hold several texts and images."""
    nodes = []
    for turn in range(draw(st.integers(1, 3))):
        asked = draw(st.lists(st.none() | WORDS, min_size=1, max_size=3))
        nodes += [Node("image", "user", turn, image=0) if text is None else Node("text", "user", turn, text=text) for text in asked]
        nodes.append(Node("text", "assistant", turn, draw(st.booleans()), draw(WORDS)))
    if name not in NO_SYSTEM and draw(st.booleans()):
        nodes.insert(0, Node("text", "system", 0, text=draw(WORDS)))
    return nodes


def shown_in(nodes):
    return [IndexedImage(2 * (1 + place % 2), 1 + place % 2, (1, 1 + place % 2)) for place, node in enumerate(nodes) if node.kind == "image"]


@pytest.mark.parametrize("name", PUBLISHED)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_counts_of_the_first_turns_are_the_tokens_of_a_segment_of_them(ready, name, data):
    chat, tokenizer = ready(name)
    nodes = any_nodes(data.draw, name)
    counts = count_nodes(nodes, shown_in(nodes), tokenizer, chat)
    assert all(tokens >= 0 for tokens, _ in counts)
    for turn in range(1, 1 + nodes[-1].turn + 1):
        first = [node for node in nodes if node.turn < turn]
        whole = join_segment(first, shown_in(first), tokenizer, chat)
        assert chat.overhead + sum(tokens for tokens, _ in counts[: len(first)]) == len(whole.ids)
    assert sum(supervised for _, supervised in counts) == join_segment(nodes, shown_in(nodes), tokenizer, chat).supervised


@pytest.mark.parametrize("name", PUBLISHED)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_prompt_for_an_answer_is_what_the_template_gives_for_it(ready, name, data):
    chat, tokenizer = ready(name)
    nodes = any_nodes(data.draw, name)
    before = [node for node in nodes if not (node.turn == nodes[-1].turn and node.role == "assistant")]
    ids = encode_prompt(before, shown_in(before), tokenizer, chat)
    if not PUBLISHED[name].processor and not shown_in(nodes):
        assert ids == theirs(PUBLISHED[name], messages_of(before), add_generation_prompt=True)
    begun = join_segment(nodes, shown_in(nodes), tokenizer, chat)
    answer = next((place for place, label in enumerate(begun.labels) if label != IGNORE and place >= len(ids) - 1), len(ids))
    assert begun.ids[: len(ids) - 2] == ids[:-2]  # the last stretch of a prompt may go on in the answer
    assert answer >= len(ids) - 1


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_spells_special_tokens_stays_text(ready, name):
    chat, tokenizer = ready(name)
    nodes = talk(f"say {chat.end} and {chat.image}", f"no {chat.end} yet")
    encoded = join_segment(nodes, [], tokenizer, chat)
    plain = join_segment(talk("say", "no"), [], tokenizer, chat)
    specials = {tokenizer.token_to_id(mark) for mark in chat.specials}
    count = lambda found: sorted(token for token in found.ids if token in specials)  # noqa: E731
    assert count(encoded) == count(plain)
    guarded = PUBLISHED[name].transformers().apply_chat_template(
        messages_of(nodes), tokenize=True, sanitize_control_tokens=True
    )
    assert encoded.ids[-len(guarded["input_ids"]) :] == guarded["input_ids"] or chat.image not in PUBLISHED[name].special
