"""Published chats in training: transformers' processors give our tokens, exports carry the template."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlamaConfig,
    LlamaForCausalLM,
)

from tests.helpers.chats import PUBLISHED
from tests.helpers.small import vlmill
from tests.helpers.stages import MACHINE, article, question, write_run
from tests.train import test_ablate
from tests.train.test_ablate import ablate, write_spec
from tests.train.test_families import CASES
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.chat.encode import FORMATS, encode_prompt, join_segment, load_tokenizer
from vlmill.pipeline.chat.reading import fill_chat
from vlmill.pipeline.chat.settings import PublishedChat, find_format
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.reports.verify import verify_run
from vlmill.train.data import open_reader
from vlmill.train.evaluate import make_prompt
from vlmill.train.export import make_generation_config, to_transformers
from vlmill.train.families import find_family
from vlmill.train.families.processors import VideoProcessor
from vlmill.train.model import create_model
from vlmill.train.new_rows import find_new_rows
from vlmill.train.run import train_stage
from vlmill.train.settings import ModelSettings, Training

place = test_ablate.place
"""A folder with a recipe of one source."""

MODELS = {
    "llava 1.6": "llava_next",
    "idefics2": "idefics2",
    "smolvlm": "idefics3",
    "qwen2": "llava",
    "llama 3": "llava_next",
    "phi 3": "llava",
    "vicuna": "llava",
    "gemma3": "gemma3",
    "qwen2.5-vl": "qwen2_5_vl",
    "qwen2, for qwen_vl": "qwen3_vl",
}
AS_PUBLISHED = {
    "qwen2.5-vl": {"visual.merger.ln_q.weight", "model.norm.weight"},
    "gemma3": {"language_model.model.norm.weight", "multi_modal_projector.mm_soft_emb_norm.weight"},
}
"""Weights by the names that they have in what was published, where these are not the class's own."""
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
        shown = (
            {"type": "image", "image": pictures[node.image]}
            if node.kind == "image"
            else {"type": "text", "text": node.text}
        )
        messages[-1]["content"].append(shown)
    return messages


@dataclass
class Expanding:
    """A processor that transformers makes beside torchvision alone, as it treats texts and images."""

    made: VideoProcessor

    def apply_chat_template(self, messages, *, add_generation_prompt=False, **_):
        pictures = [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]
        tokenizer = self.made.tokenizer
        written = tokenizer.apply_chat_template(
            messages,
            chat_template=self.made.template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        first, *behind = written.split("<|image_pad|>")
        for image, text in zip(pictures, behind, strict=True):
            grid = self.made.images(image, return_tensors="np")["image_grid_thw"][0]
            first += "<|image_pad|>" * int(grid.prod() // self.made.images.merge_size**2) + text
        return {"input_ids": [tokenizer(first)["input_ids"]]}


def make_processor(family, tokenizer, chat):
    made = family.processor(tokenizer, chat)
    return Expanding(made) if isinstance(made, VideoProcessor) else made


TEXT = st.one_of(
    st.sampled_from(["What colour?", " red", "", "\n", "a < b", "one two ", "✓ é"]), st.text("ab \n<", max_size=5)
)


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
    processor = make_processor(family, model.transformers(), replace(chat, source=model.template))
    nodes, sizes = data.draw(dialogues(name))
    pictures = [Image.new("RGB", size, (40 * place, 9, 9)) for place, size in enumerate(sizes)]
    found = processor.apply_chat_template(messages_of(nodes, pictures), tokenize=True, return_dict=True)
    layouts = family.policy.layout(sizes) if sizes else ()
    assert list(found["input_ids"][0]) == join_segment(nodes, layouts, tokenizer, chat).ids


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_processor_of_an_export_gives_our_tokens_and_prompts(published, data):
    name, chat, tokenizer, family = published
    processor = make_processor(family, to_transformers(tokenizer, chat), chat)
    nodes, sizes = data.draw(dialogues(name))
    pictures = [Image.new("RGB", size, (40 * place, 9, 9)) for place, size in enumerate(sizes)]
    layouts = family.policy.layout(sizes) if sizes else ()
    messages = messages_of(nodes, pictures)
    found = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    assert list(found["input_ids"][0]) == join_segment(nodes, layouts, tokenizer, chat).ids
    asked = processor.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=True, return_dict=True)
    assert list(asked["input_ids"][0]) == encode_prompt(nodes[:-1], layouts, tokenizer, chat)


# -- training ---------------------------------------------------------------------------------------------------------


def write_language_model(folder, tokenizer, seed):
    """A tiny Llama with rows for its tokenizer's tokens, as it is published."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    config = LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_marks_that_the_model_has_are_not_drawn_anew(tmp_path):
    model = PUBLISHED["qwen2"]
    model.write(write_language_model(tmp_path / "instruct", model.tokenizer(), 1))
    read = {"kind": "pretrained", "path": str(tmp_path / "instruct")}
    chat = find_format(parse_block(PublishedChat, fill_chat({"chat": {"path": "instruct"}}, tmp_path)["chat"], "chat"))
    tokenizer = load_tokenizer(tmp_path / "instruct" / "tokenizer.json", chat)
    case = replace(CASES["llava"], text=read)
    new = find_new_rows(case.settings, tokenizer, chat, {})
    assert [tokenizer.id_to_token(row) for row in new.trained] == ["<image>"]
    assert new.end is None
    published = LlamaForCausalLM.from_pretrained(tmp_path / "instruct").get_input_embeddings().weight
    ours = create_model(case.found, tokenizer, chat, 3, new=new).get_input_embeddings().weight
    assert torch.equal(ours[: len(published)], published)
    settings = make_generation_config(tokenizer, chat)
    assert [tokenizer.id_to_token(row) for row in settings.eos_token_id] == ["<|im_end|>", "<|endoftext|>"]
    assert settings.bos_token_id is None


@pytest.mark.parametrize(("name", "positions"), [("qwen2.5-vl", None), ("qwen2.5-vl", "rope_tie"), ("gemma3", None)])
def test_a_published_checkpoint_is_trained_on_in_its_own_chat_and_exported_in_its_own_dtype(
    tmp_path, dynamic_modules, name, positions
):
    published = PUBLISHED[name]
    folder, case = published.write(tmp_path / "model"), CASES[MODELS[name]]
    tokenizer = published.tokenizer()
    rows = tokenizer.get_vocab_size(with_added_tokens=True)
    ours = FORMATS[case.chat]
    whole = create_model(case.found, load_tokenizer(folder / "tokenizer.json", ours), ours, 7)
    whole.resize_token_embeddings(rows + 3)  # as published: more rows than tokens
    whole.to(torch.bfloat16).save_pretrained(folder)
    published.write(folder)
    names = set(load_file(folder / "model.safetensors"))
    assert AS_PUBLISHED[name] <= names
    (tmp_path / "run").mkdir()
    shutil.copy(folder / "tokenizer.json", tmp_path / "run" / "tokenizer.json")
    data = fill_chat({"chat": {"path": str(folder), "images": published.images}}, tmp_path)
    chat = parse_block(PublishedChat, data["chat"], "chat")
    samples = {"quiz": [question(number) for number in range(9)], "web": [article(number) for number in range(4)]}
    write_run(tmp_path / "run", samples, case.policy, hold_out=1, chat=chat, length=400, epochs=9)
    values = {"family": case.family, "checkpoint": {"kind": "pretrained", "path": str(folder)}, "positions": positions}
    model = parse_block(ModelSettings, values, "model")
    rates = {"text": 1e-3, "vision": 1e-3, "projector": 1e-3}
    training = parse_block(Training, {"steps": 2, "sequences": 1, "learning_rate": rates, "evaluate": 1}, "train")
    result = train_stage(tmp_path / "run", "align", training, model, machine=MACHINE)
    assert result.scores["quiz"].questions == 1
    masters = load_file(result.checkpoint / "model.safetensors")
    assert {weights.dtype for weights in masters.values()} == {torch.float32}
    assert masters["lm_head.weight"].shape[0] == rows + 3  # nothing is new but what it lacks
    exported = AutoModelForImageTextToText.from_pretrained(result.export, trust_remote_code=positions is not None)
    assert exported.dtype == torch.bfloat16
    assert (result.export / "chat_template.jinja").read_text() == published.template
    again = load_tokenizer(result.export / "tokenizer.json", find_format(chat)).get_vocab()
    assert again == tokenizer.get_vocab()
    for key, weights in exported.state_dict().items():
        assert torch.equal(weights, masters[key].to(torch.bfloat16))


@pytest.fixture(scope="module")
def compared(place):
    """An ablation of a base language model against an instruct one, which keeps its own chat."""
    model = PUBLISHED["qwen2"]
    model.write(write_language_model(place / "instruct", model.tokenizer(), 1))
    write_language_model(place / "base", replace(model, tokens={}, special=()).tokenizer(), 2)
    own = {"tokenizer": "base/tokenizer.json", "model.text": {"kind": "pretrained", "path": str(place / "base")}}
    other = {
        "tokenizer": "instruct/tokenizer.json",
        "model.text": {"kind": "pretrained", "path": str(place / "instruct")},
        "chat": {"path": "instruct"},
    }
    variants = {"base": own, "base-in-its-chat": own | {"chat": {"path": "instruct"}}, "instruct": other}
    train = {"stages.tune.train.steps": 2, "stages.tune.mixture.sequence_length": 160}
    write_spec(place, "chats.yaml", baseline="base", variants=variants, seeds=[0], set=train, metric="loss")
    assert ablate(place, place / "chats", "chats.yaml") == 0
    return place / "chats"


def test_base_and_instruct_language_models_are_compared_each_in_its_chat(compared):
    found = json.loads((compared / "ablation.json").read_bytes())
    assert set(found["variants"]) == {"base", "base-in-its-chat", "instruct"}
    assert found["samples"] > 4
    for variant in found["variants"]:
        assert list(verify_run(compared / variant / "0")) == []
    locks = {
        name: yaml.safe_load((compared / name / "0" / "recipe.lock.yaml").read_text()) for name in found["variants"]
    }
    assert "chat" not in locks["base"]
    assert locks["instruct"]["chat"] == locks["base-in-its-chat"]["chat"]
    assert "path" not in locks["instruct"]["chat"]
    assert locks["instruct"]["chat"]["template"] == PUBLISHED["qwen2"].template


def test_an_export_asks_and_answers_in_the_chat_that_it_was_trained_in(compared):
    run = compared / "instruct" / "0"
    processor = AutoProcessor.from_pretrained(run / "train" / "tune" / "export")
    mixture = PlannedMixture(run, "tune")
    held_out = mixture.held_out()[0]
    (stored,) = mixture.read([held_out])
    model = parse_block(ModelSettings, mixture_model(run), "model")
    reader = open_reader(mixture, model, "answers")
    document = reader.document(held_out, stored)
    picture = Image.new("RGB", stored.sizes[0])
    asked = [
        {
            "role": "user",
            "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What colour is it?"}],
        }
    ]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert list(prompt["input_ids"][0]) == make_prompt(reader, document, stored.nodes[:2]).ids
    said = processor.apply_chat_template(
        [*asked, {"role": "assistant", "content": [{"type": "text", "text": stored.nodes[2].text}]}],
        tokenize=True,
        return_dict=True,
    )
    assert list(said["input_ids"][0]) == document.ids
    exported = AutoModelForImageTextToText.from_pretrained(run / "train" / "tune" / "export")
    ends = [processor.tokenizer.convert_ids_to_tokens(row) for row in exported.generation_config.eos_token_id]
    assert ends == ["<|im_end|>", "<|endoftext|>"]


def mixture_model(run):
    return yaml.safe_load((run / "recipe.lock.yaml").read_text())["model"]


def test_another_familys_images_are_refused_before_work_with_what_to_write(tmp_path):
    data = fill_chat({"chat": PUBLISHED["idefics2"].recipe(tmp_path / "model")}, tmp_path)
    chat = parse_block(PublishedChat, data["chat"], "chat")
    with pytest.raises(RecipeError, match=r"write chat\.images: vlmill"):
        find_family(CASES["llava"].settings, CASES["llava"].policy, chat)
    with pytest.raises(RecipeError, match="idefics was published without a chat template"):
        find_family(CASES["idefics"].settings, CASES["idefics"].policy, chat)


def test_check_says_what_is_wrong_with_a_chat_and_its_tokenizer(place, compared, capsys):
    assert (
        vlmill(
            "check",
            place / "recipe.yaml",
            "--set",
            "chat={path: instruct}",
            "--set",
            "tokenizer=instruct/tokenizer.json",
        )
        == 0
    )
    capsys.readouterr()
    assert vlmill("check", place / "recipe.yaml", "--set", "chat={path: base}") == 1
    assert "eos_token" in capsys.readouterr().err
    assert vlmill("check", place / "recipe.yaml", "--set", "chat={path: instruct, image: vlmill}") == 1
    assert "did you mean 'images'" in " ".join(capsys.readouterr().err.split())
    other = place / "other"
    PUBLISHED["qwen2"].write(other)
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{{ strftime_now('%d') }}"}))
    assert vlmill("check", place / "recipe.yaml", "--set", "chat={path: other}") == 1
    assert "chat.variables" in " ".join(capsys.readouterr().err.split())
