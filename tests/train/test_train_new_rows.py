"""Rows of tokens that a pretrained language model lacks: which, where they start, and that nothing else moves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, GenerationConfig, LlamaForCausalLM

from tests.helpers.stages import (
    LETTERBOX,
    MACHINE,
    model_settings,
    question,
    write_run,
    write_tokenizer,
)
from tests.train.test_families import CASES, document, logits, made
from vlmill.pipeline.chat.encode import FORMATS, get_mark_id, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.train import new_rows
from vlmill.train.families import find_family
from vlmill.train.model import create_model, make_optimizer
from vlmill.train.new_rows import NewRows
from vlmill.train.run import train_stage
from vlmill.train.settings import ModelSettings, Training

CHAT = FORMATS["vlmill"]
ROOM = 300
"""Rows of the pretrained embedding: some more than its tokenizer has tokens, some less than that and the marks."""

ADAPTER = {"components": ["text"], "rank": 4}
STAGES = {
    "LoRA": {"learning_rate": {"text": 1e-2, "projector": 1e-2}, "adapter": ADAPTER},
    "DoRA": {"learning_rate": {"text": 1e-2, "projector": 1e-2}, "adapter": ADAPTER | {"dora": True}},
    "frozen text": {"learning_rate": {"projector": 1e-2}},
}


def training(stage="LoRA", **changes):
    return parse_block(
        Training, {"steps": 2, "sequences": 2, "evaluate": 0, "weight_decay": 0.1, **STAGES[stage], **changes}, "train"
    )


def write_language_model(folder: Path, *, tied: bool = False) -> Path:
    """A Llama whose tokenizer has an end of text and none of the chat format's marks."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer.from_file(str(write_tokenizer(folder / "tokenizer.json")))
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    assert size < ROOM < size + len(CHAT.specials)
    config = AutoConfig.for_model(
        "llama", vocab_size=ROOM, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        eos_token_id=tokenizer.token_to_id("<eos>"), tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.add_(0.05 * torch.randn(64))
        model.model.embed_tokens.weight[size:] = 0.0  # as padding often is
    model.save_pretrained(folder)
    return folder


def settings(path: Path, family: str = "llava") -> ModelSettings:
    plain = model_settings(family)
    return parse_block(
        ModelSettings,
        {"family": family, "vision": vars(plain.vision), "text": {"kind": "pretrained", "path": str(path)}},
        "model",
    )


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def pretrained(request, tmp_path_factory):
    return write_language_model(tmp_path_factory.mktemp("pretrained") / "lm", tied=request.param)


def lacking(path, source=None):
    """What the model in `path` lacks of the tokenizer in `source`."""
    source = source or path
    own = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab()
    tokenizer = load_tokenizer(source / "tokenizer.json", CHAT)
    return tokenizer, new_rows.find_new_rows(settings(path), tokenizer, CHAT, own)


def run_of(root: Path, path: Path, stages=("align",)) -> Path:
    root.mkdir()
    shutil.copy(path / "tokenizer.json", root / "tokenizer.json")
    for number, stage in enumerate(stages):
        rows = [question(n) for n in range(24)]
        write_run(root, {f"quiz{number}": rows}, LETTERBOX, stage=stage, epochs=4)
    return root


def matrices(state):
    """Embedding and head of a model's weights."""
    found = {
        name: weights for name, weights in state.items() if name.endswith(("embed_tokens.weight", "lm_head.weight"))
    }
    assert found
    return found


# -- which they are


def test_marks_that_the_published_tokenizer_lacks_are_new_wherever_the_embedding_ends(pretrained):
    tokenizer, new = lacking(pretrained)
    marks = sorted(get_mark_id(tokenizer, mark) for mark in CHAT.specials)
    assert (list(new.trained), list(new.drawn)) == (marks, marks)
    assert marks[0] < ROOM <= marks[-1]
    assert (new.end, new.eos) == (get_mark_id(tokenizer, CHAT.end), tokenizer.token_to_id("<eos>"))


def test_what_a_published_model_knows_is_not_new_whichever_tokenizer_the_recipe_has(pretrained, tmp_path):
    tokenizer, _ = lacking(pretrained)
    knows = tmp_path / "knows"
    shutil.copytree(pretrained, knows)
    tokenizer.save(str(knows / "tokenizer.json"))
    config = AutoConfig.from_pretrained(knows)
    config.vocab_size = 320
    config.save_pretrained(knows)
    assert lacking(knows, pretrained)[1].trained == ()
    assert lacking(knows)[1].trained == ()
    (knows / "tokenizer.json").unlink()  # the recipe's is all there is
    assert lacking(knows, pretrained)[1] == lacking(pretrained)[1]


def test_a_mark_in_the_place_of_a_reserved_token_learns_from_the_row_that_is_there(pretrained, tmp_path):
    renamed = (pretrained / "tokenizer.json").read_text().replace('"<eos>"', '"<|end|>"')
    (tmp_path / "tokenizer.json").write_text(renamed)
    tokenizer, new = lacking(pretrained, tmp_path)
    assert get_mark_id(tokenizer, CHAT.end) in set(new.trained) - set(new.drawn)
    assert new.end is None


def test_a_language_model_with_new_weights_lacks_nothing(pretrained):
    tokenizer, _ = lacking(pretrained)
    assert new_rows.find_new_rows(model_settings("llava"), tokenizer, CHAT, {}) == NewRows()


# -- where they start


def test_new_rows_start_as_far_apart_as_other_tokens_and_are_the_same_for_a_seed(pretrained):
    tokenizer, new = lacking(pretrained)
    family = find_family(settings(pretrained), LETTERBOX)
    model, again, other = (create_model(family, tokenizer, CHAT, seed, new=new) for seed in (0, 0, 1))
    published = LlamaForCausalLM.from_pretrained(pretrained).get_input_embeddings().weight
    trained, old = torch.tensor(new.trained), torch.arange(new.trained[0])
    for (name, weights), same, differs in zip(
        matrices(model.state_dict()).items(),
        *(matrices(each.state_dict()).values() for each in (again, other)),
        strict=True,
    ):
        assert torch.equal(weights, same)
        assert not torch.equal(weights[trained], differs[trained])
        usual = torch.pdist(weights[old]).mean()
        assert 0.6 * usual < torch.pdist(weights[trained]).min() <= torch.pdist(weights[trained]).max() < 1.6 * usual
        assert torch.equal(weights[new.end], weights[new.eos])
        if "embed" in name:
            assert torch.equal(weights[old], published[old])


# -- what learns


@pytest.mark.parametrize("stage", STAGES)
def test_their_rows_alone_learn_of_embedding_and_head(pretrained, tmp_path, stage):
    pytest.importorskip("peft")
    tokenizer, new = lacking(pretrained)
    family = find_family(settings(pretrained), LETTERBOX)
    before = matrices(create_model(family, tokenizer, CHAT, 0, new=new).state_dict())
    done = train_stage(
        run_of(tmp_path / "run", pretrained), "align", training(stage), settings(pretrained), machine=MACHINE
    )
    after = matrices(AutoModelForImageTextToText.from_pretrained(done.export).state_dict())
    handed = matrices(load_file(done.checkpoint / "model.safetensors"))
    assert any("lm_head" in name for name in after)
    old = torch.tensor([row for row in range(len(next(iter(before.values())))) if row not in new.trained])
    trained = [get_mark_id(tokenizer, mark) for mark in (CHAT.end, dict(CHAT.roles)["assistant"])]
    for name, weights in after.items():
        assert torch.equal(weights[old], before[name][old])
        assert (weights[trained] != before[name][trained]).any(1).all()
        assert name not in handed or torch.equal(weights, handed[name])
    image = get_mark_id(tokenizer, CHAT.image)
    for name, weights in after.items():  # never an input, since features stand in its place; in a head it is unlearnt
        moved = not torch.equal(weights[image], before[name][image])
        assert moved == ("lm_head" in name or torch.equal(weights, after["lm_head.weight"]))


def test_moments_are_kept_of_new_rows_alone_and_they_do_not_decay(pretrained):
    tokenizer, new = lacking(pretrained)
    family = find_family(settings(pretrained), LETTERBOX)
    model = create_model(family, tokenizer, CHAT, 0, new=new)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    new_rows.insert_rows(model, new)
    groups = make_optimizer(model, family, training("frozen text")).param_groups
    (mine,) = [group for group in groups if group["component"] == new_rows.NAME]
    assert sum(weights.numel() for weights in mine["params"]) == (1 if tied else 2) * len(new.trained) * 64
    assert (mine["peak"], mine["weight_decay"]) == (1e-2, 0.0)
    assert {group["component"] for group in groups} == {new_rows.NAME, "projector"}
    rates = {"text": 1e-3, "vision": 1e-4}
    assert new_rows.choose_rate(training(learning_rate=rates)) == 1e-3
    assert new_rows.choose_rate(training("frozen text", learning_rate={"vision": 1e-4})) == 1e-4


@pytest.mark.parametrize("stage", ["LoRA", "frozen text"])
def test_an_answer_that_is_supervised_ends(tmp_path, stage):
    pytest.importorskip("peft")
    pretrained = write_language_model(tmp_path / "lm", tied=stage == "LoRA")
    run = run_of(tmp_path / "run", pretrained)
    ours = training(stage, steps=None, epochs=10, sequences=4)
    done = train_stage(run, "align", ours, settings(pretrained), machine=MACHINE)
    tokenizer = AutoTokenizer.from_pretrained(done.export)
    model = AutoModelForImageTextToText.from_pretrained(done.export).eval()
    asked = [{"role": "user", "content": "What colour is it?"}]
    given = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**given, max_new_tokens=12)[0, given["input_ids"].shape[1] :]
    assert tokenizer.decode(said[-1]) == CHAT.end
    assert tokenizer.eos_token == CHAT.end
    ends = [tokenizer.convert_tokens_to_ids(mark) for mark in (CHAT.end, CHAT.eos)]
    assert GenerationConfig.from_pretrained(done.export).eos_token_id == ends
    assert model.config.text_config.eos_token_id == ends


def test_stages_hand_new_rows_on_whatever_they_train(pretrained, tmp_path):
    pytest.importorskip("peft")
    _, new = lacking(pretrained)
    run, before = run_of(tmp_path / "run", pretrained, ("one", "two", "three")), None
    trained = torch.tensor(new.trained)
    still = {"steps": 1, "learning_rate": {"text": 1e-12, "projector": 1e-12}, "weight_decay": 0.0}
    plans = (training("frozen text"), training(**still), training(**still, adapter=None))
    weights = []
    for stage, plan in zip(("one", "two", "three"), plans, strict=True):
        done = train_stage(run, stage, plan, settings(pretrained), start_from=before, machine=MACHINE)
        before = done.checkpoint
        weights.append(matrices(load_file(before / "model.safetensors")))
    for later in weights[1:]:
        for name, found in later.items():
            torch.testing.assert_close(found[trained], weights[0][name][trained], rtol=0, atol=1e-9)


# -- how they stand in


@pytest.mark.parametrize(
    "name",
    ["llava", "llava_next", "llava_onevision", "idefics", "idefics2", "idefics3", "internvl", "idefics2, qwen2, tied"],
)
def test_rows_that_stand_in_are_the_rows_that_are_merged_in_every_family(tmp_path, name):
    path = write_tokenizer(tmp_path / "tokenizer.json")
    tokenizers = {chat: load_tokenizer(path, form) for chat, form in FORMATS.items()}
    case = CASES[name]
    family, model = made(case, tokenizers)
    chat = FORMATS[case.chat]
    ids = tuple(sorted(get_mark_id(tokenizers[case.chat], mark) for mark in chat.specials))
    rows = [[document(case, tokenizers, 1), document(case, tokenizers, 2, ((90, 30), (20, 70)))]]
    plain, names = logits(family, model, rows), set(model.state_dict())
    new_rows.insert_rows(model, NewRows(ids, ids))
    torch.testing.assert_close(logits(family, model, rows), plain, atol=1e-6, rtol=0)
    mine = {place: weights for place, weights in model.named_parameters() if new_rows.MARK in place}
    assert {family.component(place) for place in mine} == {"text"}
    assert len(mine) == (1 if "tied" in name else 2)
    with torch.no_grad():
        for weights in mine.values():
            weights.add_(torch.rand_like(weights))
    standing = logits(family, model, rows)
    assert (standing - plain).abs().max() > 1e-2
    new_rows.merge_rows(model)
    assert set(model.state_dict()) == names
    torch.testing.assert_close(logits(family, model, rows), standing, atol=1e-5, rtol=0)
