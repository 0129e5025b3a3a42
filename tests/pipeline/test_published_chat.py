"""Published chat templates: transformers gives the same tokens, answers are found, nothing changes in silence."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import groupby

import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.chats import CHATML, LLAMA3, PUBLISHED
from tests.helpers.hub import Hub
from tests.helpers.stages import ANYRES, write_shards
from vlmill.mixtures import Shard
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.steps.select import list_selects
from vlmill.pipeline.chat.encode import (
    IGNORE,
    count_nodes,
    encode_nodes,
    encode_prompt,
    join_segment,
    load_tokenizer,
)
from vlmill.pipeline.chat.image_tokens import IndexedImage
from vlmill.pipeline.chat.outline import TemplateRefused
from vlmill.pipeline.chat.reading import fill_chat, read_chat
from vlmill.pipeline.chat.settings import PublishedChat, describe_chat, find_format
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node, read_rows

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
    """What transformers' processors make of a conversation: the tokenizer puts BOS where the template has none."""
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
    st.text(st.characters(exclude_characters="\ufdd0\ufdd1\ufdd2\ufdd3", codec="utf-8"), max_size=8),
    st.sampled_from(
        [
            "red",
            " red",
            "red ",
            "\nred\n",
            "",
            " ",
            "\t",
            "  red  green",
            "Ünï ✓ 颜色",
            "\u2028",
            "a\u00a0",
            "<",
            "| x |",
        ]
    ),
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_supervised_belongs_to_the_nodes_of_answers(ready, name):
    chat, tokenizer = ready(name)
    nodes = talk("one", "two", "three", "four")
    parts = encode_nodes(nodes, [], tokenizer, chat)
    assert [part.supervised > 0 for part in parts] == [False, True, False, True]
    assert [count.supervised for count in count_nodes(nodes, [], tokenizer, chat)] == [
        part.supervised for part in parts
    ]
    ends = [tokenizer.decode(parts[place].ids, skip_special_tokens=False) for place in (1, 3)]
    assert all(chat.end in end for end in ends)
    whole = join_segment(nodes, [], tokenizer, chat)
    assert [token for part in parts for token in part.ids] == whole.ids[chat.overhead :]


def any_nodes(draw, name):
    """Conversations whose messages hold several texts and images."""
    nodes = []
    for turn in range(draw(st.integers(1, 3))):
        asked = draw(st.lists(st.none() | WORDS, min_size=1, max_size=3))
        nodes += [
            Node("image", "user", turn, image=0) if text is None else Node("text", "user", turn, text=text)
            for text in asked
        ]
        nodes.append(Node("text", "assistant", turn, draw(st.booleans()), draw(WORDS)))
    if name not in NO_SYSTEM and draw(st.booleans()):
        nodes.insert(0, Node("text", "system", 0, text=draw(WORDS)))
    return nodes


def shown_in(nodes):
    return [
        IndexedImage(2 * (1 + place % 2), 1 + place % 2, (1, 1 + place % 2))
        for place, node in enumerate(nodes)
        if node.kind == "image"
    ]


@pytest.mark.parametrize("name", PUBLISHED)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_counts_of_the_first_turns_are_the_tokens_of_a_segment_of_them(ready, name, data):
    chat, tokenizer = ready(name)
    nodes = any_nodes(data.draw, name)
    counts = count_nodes(nodes, shown_in(nodes), tokenizer, chat)
    assert all(count.tokens >= 0 for count in counts)
    for turn in range(1, 1 + nodes[-1].turn + 1):
        first = [node for node in nodes if node.turn < turn]
        whole = join_segment(first, shown_in(first), tokenizer, chat)
        assert chat.overhead + sum(count.tokens for count in counts[: len(first)]) == len(whole.ids)
    assert sum(count.supervised for count in counts) == join_segment(nodes, shown_in(nodes), tokenizer, chat).supervised


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
    answer = next(
        (place for place, label in enumerate(begun.labels) if label != IGNORE and place >= len(ids) - 1), len(ids)
    )
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
    guarded = (
        PUBLISHED[name]
        .transformers()
        .apply_chat_template(messages_of(nodes), tokenize=True, sanitize_control_tokens=True)
    )
    assert encoded.ids[-len(guarded["input_ids"]) :] == guarded["input_ids"]


# -- what cannot be trained on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nodes", "reason"),
    [
        ("gemma", talk("a", "b", system="Be brief."), Reason.TEMPLATE_REFUSED),
        ("mistral", talk("a", "b", system="Be brief."), Reason.TEMPLATE_REFUSED),
        (
            "mistral",
            [
                Node("text", "user", 0, text="a"),
                Node("text", "user", 1, text="b"),
                Node("text", "assistant", 1, True, "c"),
            ],
            Reason.TEMPLATE_REFUSED,
        ),
        ("qwen2", [Node("text", text="a page"), *talk("a", "b")], Reason.TEMPLATE_REFUSED),
        ("qwen2", talk("a \ufdd0 b", "c"), Reason.TEMPLATE_REFUSED),
        # the template takes the first text of an answer alone
        ("llava 1.6", [*talk("a", "b"), Node("text", "assistant", 0, True, "and c")], Reason.TEMPLATE_CHANGED),
    ],
)
def test_a_conversation_that_the_template_has_no_form_for_is_refused_with_a_reason(ready, name, nodes, reason):
    chat, tokenizer = ready(name)
    for encode in (join_segment, encode_nodes, count_nodes):
        with pytest.raises(TemplateRefused) as refused:
            encode(nodes, [], tokenizer, chat)
        assert refused.value.reason == reason


def test_a_template_that_writes_a_text_otherwise_when_it_says_something_is_not_followed_in_silence(tmp_path):
    marked = CHATML.replace(
        "{{ message['content'] + '<|im_end|>' }}{% endgen",
        "{{ message['content'].split('secret')[-1] + '<|im_end|>' }}{% endgen",
    )
    chat = make(tmp_path, template=template_of(marked))
    tokenizer = load_tokenizer(tmp_path / "model" / "tokenizer.json", chat)
    assert join_segment(talk("a", "open"), [], tokenizer, chat).supervised
    with pytest.raises(TemplateRefused) as refused:
        join_segment(talk("a", "a secret here"), [], tokenizer, chat)
    assert refused.value.reason == Reason.TEMPLATE_CHANGED


def template_of(marked):
    return marked.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def make(root, name="qwen2", **differs):
    """The format of a published chat of which something differs."""
    data = fill_chat({"chat": PUBLISHED[name].recipe(root / "model")}, root)
    return find_format(parse_block(PublishedChat, data["chat"] | differs, "chat"))


UNFIT = {
    "no end": (CHATML.replace("<|im_end|>", ""), "no special token follows an answer"),
    "no conversation": ("{{ raise_exception('not today') }}", "not today"),
    "no template": ("{% for %}", "TemplateSyntaxError"),
    "texts left out": ("{% for message in messages %}<|im_start|>{% endfor %}", "leaves texts out"),
    "a clock": ("{{ strftime_now('%d') }}" + CHATML, "chat.variables"),
    "a prompt that training has not": (
        CHATML.replace("<|im_start|>assistant\n' }}{% endif %}", "<|im_start|>assistant\n<think>\n' }}{% endif %}"),
        "the prompt for an answer is not what stands before one",
    ),
    "the last question before all others": (
        "{% for message in messages | reverse %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}",
        "in another order",
    ),
    "too much work": ("{% for n in range(999999999) %}{% endfor %}" + CHATML, "OverflowError"),
    "a way out": ("{{ messages.__class__.__mro__ }}" + CHATML, "SecurityError"),
    "files": ("{% include '/etc/passwd' %}" + CHATML, "TypeError"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_template_that_nothing_can_be_trained_under_is_an_error_of_the_recipe(tmp_path, what):
    marked, said = UNFIT[what]
    with pytest.raises(RecipeError, match=said):
        make(tmp_path, template=template_of(marked))


def test_variables_of_a_template_are_set_by_the_recipe_and_by_the_export(tmp_path):
    dated = "{% if day is not defined %}{% set day = strftime_now('%d') %}{% endif %}{{ day + '\n' }}" + template_of(
        CHATML
    )
    chat = make(tmp_path, template=dated, variables={"day": "26 \u00e9 \U0001f600 '\"\\n"})
    tokenizer = load_tokenizer(tmp_path / "model" / "tokenizer.json", chat)
    ours = join_segment(talk("a", "b"), [], tokenizer, chat).ids
    model = PUBLISHED["qwen2"].transformers(chat.template)
    assert model.apply_chat_template(messages_of(talk("a", "b")), tokenize=True)["input_ids"] == ours
    assert tokenizer.decode(ours, skip_special_tokens=False).startswith(
        "26 \u00e9 \U0001f600 '\"\\n\n<|im_start|>system"
    )


def test_a_template_begins_with_its_own_first_character_whatever_stands_before_it(tmp_path):
    chat = make(tmp_path, template="\n  \n" + template_of(CHATML), variables={"day": 1})
    tokenizer = load_tokenizer(tmp_path / "model" / "tokenizer.json", chat)
    ids = join_segment(talk("a", "b"), [], tokenizer, chat).ids
    model = PUBLISHED["qwen2"].transformers("\n  \n" + template_of(CHATML))
    assert model.apply_chat_template(messages_of(talk("a", "b")), tokenize=True)["input_ids"] == ids


# -- what a folder says ----------------------------------------------------------------------------------------------


def test_a_processors_template_comes_before_the_tokenizers_and_a_jinja_file_before_both(tmp_path):
    folder = PUBLISHED["qwen2"].write(tmp_path / "model")
    read = lambda: fill_chat({"chat": {"path": "model"}}, tmp_path)["chat"]["template"]  # noqa: E731
    other = template_of(CHATML).replace("helpful", "terse")
    assert read() == template_of(CHATML)
    listed = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": other}]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": listed}))
    assert read() == other
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template_of(LLAMA3)}))
    assert read() == template_of(LLAMA3)
    (folder / "chat_template.jinja").write_text(template_of(CHATML))
    assert read() == template_of(CHATML)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tokenizer_keeps_its_rows_and_gets_only_what_it_lacks(ready, name):
    chat, tokenizer = ready(name)
    own = PUBLISHED[name].tokenizer().get_vocab(with_added_tokens=True)
    now = tokenizer.get_vocab(with_added_tokens=True)
    assert {token: now[token] for token in own} == own
    assert set(now) - set(own) <= {chat.image, chat.pad, *chat.image_tokens.specials}
    assert chat.pad not in (chat.end, chat.eos)
    manners = {token.content: token.rstrip for token in tokenizer.get_added_tokens_decoder().values()}
    assert all(manners[token] == PUBLISHED[name].rstrip for token in PUBLISHED[name].special)


def test_a_base_models_tokenizer_gets_the_marks_of_the_chat_that_it_lacks(tmp_path):
    chat = make(tmp_path)
    bare = replace(PUBLISHED["qwen2"], special=(), tokens={})
    bare.tokenizer().save(str(tmp_path / "base.json"))
    tokenizer = load_tokenizer(tmp_path / "base.json", chat)
    text = tokenizer.decode(join_segment(talk("a", "b"), [], tokenizer, chat).ids, skip_special_tokens=False)
    assert text.endswith("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n")
    assert tokenizer.token_to_id("<|im_end|>") >= bare.tokenizer().get_vocab_size()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer_config.json", "{", "no JSON"),
        ("tokenizer_config.json", '{"chat_template": "x"}', "eos_token"),
        ("tokenizer_config.json", '{"eos_token": "</s>"}', "has no chat template"),
        ("generation_config.json", '{"eos_token_id": [123456]}', "123456"),
    ],
)
def test_a_folder_that_lacks_something_is_an_error_that_names_it(tmp_path, file, content, said):
    (PUBLISHED["qwen2"].write(tmp_path / "model") / file).write_text(content)
    with pytest.raises(RecipeError, match=said):
        fill_chat({"chat": {"path": "model"}}, tmp_path)


def test_a_name_that_is_no_folder_wants_a_commit(tmp_path):
    with pytest.raises(RecipeError, match=r"chat.revision: 40 digits"):
        fill_chat({"chat": {"path": "owner/model", "revision": "main"}}, tmp_path)


def test_a_tokenizer_with_special_tokens_that_are_text_to_the_chat_is_refused(tmp_path):
    chat = make(tmp_path, marks=["<|im_end|>"])
    with pytest.raises(RecipeError, match=r"<\|im_start\|> is a special token there"):
        load_tokenizer(tmp_path / "model" / "tokenizer.json", chat)


def test_what_a_key_holds_of_a_chat_is_its_template_and_not_its_place(tmp_path):
    here, there = (
        parse_block(
            PublishedChat, fill_chat({"chat": PUBLISHED["qwen2"].recipe(tmp_path / name)}, tmp_path)["chat"], "chat"
        )
        for name in ("here", "there")
    )
    assert describe_chat(here) == describe_chat(there)
    assert describe_chat(here)["template"] == template_of(CHATML)
    assert find_format(here) is find_format(there)


def test_documents_stand_bare_between_bos_and_eos(ready):
    nodes = [Node("text", text="One"), Node("image", image=0), Node("text", text="two")]
    for name in PUBLISHED:
        chat, tokenizer = ready(name)
        ids = join_segment(nodes, [IndexedImage(2)], tokenizer, chat, "text")
        begin = [tokenizer.token_to_id(chat.bos)] if chat.bos else []
        assert ids.ids[: len(begin)] == begin
        assert ids.ids[-1] == ids.labels[-1] == tokenizer.token_to_id(chat.eos)
        assert ids.labels[0] == IGNORE
        counts = count_nodes(nodes, [IndexedImage(2)], tokenizer, chat)
        assert chat.overhead + sum(count.tokens for count in counts) == len(ids.ids)


def test_a_model_on_the_hub_is_read_at_its_commit(tmp_path, monkeypatch):
    folder = PUBLISHED["llama 3"].write(tmp_path / "model")
    with Hub() as hub:
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        repository = hub.repository("owner/model", {path.name: path.read_bytes() for path in folder.iterdir()})
        commit = repository.commit("main")
        repository.push({"tokenizer_config.json": b"{}"})
        chat = {"path": "owner/model", "revision": commit}
        assert fill_chat({"chat": chat}, tmp_path)["chat"] == chat | read_chat("model", None, tmp_path) | {
            "marks": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        }
        with pytest.raises(RecipeError, match="owner/model on the Hub"):
            fill_chat({"chat": chat | {"revision": "0" * 40}}, tmp_path)


def test_lengths_say_why_a_sample_has_none_and_a_stage_loses_it_so(tmp_path):
    data = fill_chat({"chat": PUBLISHED["gemma"].recipe(tmp_path / "model")}, tmp_path)
    chat = parse_block(PublishedChat, data["chat"], "chat")
    (tmp_path / "tokenizer.json").write_bytes((tmp_path / "model" / "tokenizer.json").read_bytes())
    samples = [(talk("a", "b"), []), (talk("a", "b", system="Be brief."), []), (talk("c", "d"), [])]
    (file,) = write_shards(tmp_path, "quiz", ANYRES, samples, chat=chat)
    lengths = tmp_path / file["path"].replace(".tar", ".lengths.parquet")
    rows = list(read_rows(lengths))
    assert [row["reason"] for row in rows] == [None, "template_refused", None]
    assert [node["text"] for node in rows[1]["nodes"]] == [0, 0, 0]
    index, names = file["index"], str(lengths.relative_to(tmp_path))
    shard = Shard("quiz", "small", file["path"], file["sha256"], 3, index, hash_file(tmp_path / index), names)
    mixture = MixtureSettings(shares={"quiz": 1}, sequence_length=100, tiles_per_sequence=4, held_out={"quiz": 0.99})
    for settings_, kept in ((mixture, 0), (replace(mixture, held_out={}), 2)):
        (step,) = list_selects(settings_, {"quiz": [shard]}, 0, find_format(chat).overhead).values()
        folder = tmp_path / f"select-{kept}"
        folder.mkdir()
        counts = step.run({name: tmp_path / name for name in step.reads}, folder)
        assert counts["samples"].kept == kept
        assert counts["samples"].to_json()["dropped"]["template_refused"] == 1
        assert all(count.balanced() for count in counts.values())


def test_a_mark_belongs_to_the_message_that_it_begins(ready):
    chat, tokenizer = ready("phi 3")
    parts = encode_nodes(talk("a", "b", "c", "d"), [], tokenizer, chat)
    said = [tokenizer.decode(part.ids, skip_special_tokens=False).split("|>")[0] for part in parts[1:]]
    assert said == ["<|assistant", "<|user", "<|assistant"]
