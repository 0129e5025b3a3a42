"""Fuyu: what its processor writes, documents apart without a vision tower, exports, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer

from tests.helpers.stages import article, question, write_run
from tests.train import test_families
from tests.train.test_families import CASES, assert_all_in, document, logits, made, picture
from tests.train.test_train_distributed import lines, train, train_on
from vlmill.pipeline.chat.encode import FORMATS, IGNORE, encode_prompt, join_segment
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import Node
from vlmill.train.batch import Document, pad_sequences
from vlmill.train.export import export_model
from vlmill.train.families.exported.fuyu_processor import FuyuLinesProcessor
from vlmill.train.families.pretrained import choose_export_dtype

CASE, CHAT = CASES["fuyu"], FORMATS["fuyu"]
SIZES = [(50, 30), (14, 14), (84, 56), (200, 31), (31, 300), (1, 1)]
ASKED = (Node("image", "user", image=0), Node("text", "user", text="What colour is it?"))
tokenizers = test_families.tokenizers


def processed(tokenizer, size):
    """What FuyuProcessor makes of a question about a picture, with the parts that it needs.

    Its PIL image processor cuts patches of arrays, and is given tensors (5.23); its tokenizer writes a space in front
    of an image, which it cuts off.
    """
    from transformers import FuyuProcessor, PreTrainedTokenizerFast
    from transformers.models.fuyu.image_processing_pil_fuyu import FuyuImageProcessorPil

    class Mended(FuyuImageProcessorPil):
        def patchify_image(self, image, patch_size=None):
            return torch.from_numpy(super().patchify_image(image.numpy(), patch_size))[None]

    class Prefixing(PreTrainedTokenizerFast):
        def __call__(self, text, **settings):
            return super().__call__(" " * text.startswith("|SPEAKER|") + text, **settings)

    bounds, side = {"height": CASE.policy.height, "width": CASE.policy.width}, CASE.policy.patch
    images = Mended(size=bounds, patch_size={"height": side, "width": side})
    stock = Prefixing(tokenizer_object=Tokenizer.from_str(tokenizer.to_str()))
    return FuyuProcessor(images, stock)(images=picture(*size), text=ASKED[1].text, return_tensors="pt")


def shown(size):
    """The layout of a picture, and its encoder inputs."""
    (layout,) = CASE.policy.layout([size])
    return layout, CASE.policy.tiles(CASE.policy.render(picture(*size), layout), layout)


@pytest.mark.parametrize("size", SIZES)
def test_a_question_has_the_tokens_patches_and_logits_of_fuyus_processor(tokenizers, size):
    theirs = processed(tokenizers["fuyu"], size)
    layout, tiles = shown(size)
    ids = encode_prompt(ASKED, [layout], tokenizers["fuyu"], CHAT)
    assert ids == theirs["input_ids"][0].tolist()
    family, model = made(CASE, tokenizers)
    one = Document(0, ids, [IGNORE] * len(ids), (tiles,), (layout,))
    mine = family.inputs(model, pad_sequences([[one]], 0))["pixel_values"]
    assert (mine - theirs["image_patches"]).abs().max() <= 1e-6
    with torch.no_grad():
        expected = model(**theirs).logits[0]
    assert (logits(family, model, [[one]])[0] - expected).abs().max() <= 1e-5


def test_bos_stands_behind_an_image_that_a_segment_begins_with_and_answers_alone_are_supervised(tokenizers):
    (layout,) = CASE.policy.layout([(20, 30)])
    nodes = (*ASKED, Node("text", "assistant", supervised=True, text="red"))
    tokenizer = tokenizers["fuyu"]
    made_of = join_segment(nodes, [layout], tokenizer, CHAT)
    line = "|SPEAKER||SPEAKER||NEWLINE|"
    text = f"{line * 3}<s>What colour is it?<0x04>red|ENDOFTEXT|</s>"
    assert tokenizer.decode(made_of.ids, skip_special_tokens=False) == text
    taught = [label for label in made_of.labels if label != IGNORE]
    assert tokenizer.decode(taught, skip_special_tokens=False) == "red|ENDOFTEXT|"
    behind = join_segment((nodes[1], nodes[0], nodes[2]), [layout], tokenizer, CHAT)
    text = f"<s>What colour is it?{line * 3}<0x04>red|ENDOFTEXT|</s>"
    assert tokenizer.decode(behind.ids, skip_special_tokens=False) == text
    assert len(behind.ids) == len(made_of.ids)


TALK = (
    Node("text", "system", 0, text="Be brief."),
    *ASKED,
    Node("text", "assistant", 0, True, "red"),
    Node("image", "user", 1, image=1),
    Node("text", "user", 1, text="And this?"),
    Node("text", "assistant", 1, True, "blue"),
)


@pytest.mark.parametrize("nodes", [TALK, TALK[1:], TALK[2:4]])
def test_the_exports_processor_writes_a_conversation_as_training_reads_it(tokenizers, nodes):
    from vlmill.train.export import to_transformers

    family = CASE.found
    processor = family.processor(to_transformers(tokenizers["fuyu"], CHAT), CHAT)
    assert isinstance(processor, FuyuLinesProcessor)
    pictures = [picture(40, 20), picture(20, 50)][: sum(node.kind == "image" for node in nodes)]
    messages = []
    for node in nodes:
        if not messages or messages[-1]["role"] != node.role:
            messages.append({"role": node.role, "content": []})
        messages[-1]["content"].append(
            {"type": "image"} if node.kind == "image" else {"type": "text", "text": node.text}
        )
    text = processor.apply_chat_template(messages)
    inputs = processor(images=pictures or None, text=text, return_tensors="pt")
    layouts = CASE.policy.layout([one.size for one in pictures])
    assert inputs["input_ids"][0].tolist() == join_segment(nodes, layouts, tokenizers["fuyu"], CHAT).ids
    if pictures:
        assert len(inputs["pixel_values"]) == sum(layout.tokens for layout in layouts)


def test_a_pretrained_persimmon_of_a_tokenizer_without_marks_is_trained_from_and_exported_as_published(
    tmp_path, tokenizers, dynamic_modules
):
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PersimmonConfig

    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = AutoModelForCausalLM.from_config(PersimmonConfig(vocab_size=280, **sizes)).to(torch.bfloat16)
    text.save_pretrained(tmp_path / "text")
    case = replace(CASE, text={"kind": "pretrained", "path": str(tmp_path / "text")})
    family, model = made(case, tokenizers)
    assert {weights.dtype for weights in model.state_dict().values()} == {torch.float32}
    published = text.float().base_model.state_dict()
    found = model.model.language_model.state_dict()
    assert all(torch.equal(found[name][: len(weights)], weights) for name, weights in published.items())
    assert torch.equal(model.lm_head.weight[:280], text.lm_head.weight)
    assert len(found["embed_tokens.weight"]) == 1 + max(tokenizers["fuyu"].get_vocab().values())
    dtype = choose_export_dtype(case.settings)
    folder = export_model(tmp_path / "export", model, family, tokenizers["fuyu"], CHAT, dtype)
    assert_all_in(folder, torch.bfloat16)
    theirs = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    rounded = {key: weights.to(dtype).float() for key, weights in model.state_dict().items()}
    model.load_state_dict(rounded)
    one = document(CASE, tokenizers, 1)
    assert torch.equal(logits(family, theirs, [[one]]), logits(family, model, [[one]]))


def test_two_ranks_train_it_as_one_does_where_one_sees_no_image_and_one_goes_on_alone(tmp_path):
    only_text = [((node,), []) for nodes, _ in map(article, range(40)) for node in nodes if node.kind == "text"]
    roots = {}
    for name in ("alone", "two"):
        roots[name] = write_run(
            tmp_path / name, {"some": [*only_text[:6], *map(question, range(30))]}, CASE.policy, length=60, chat="fuyu"
        )
    train(roots["alone"], CASE.settings)
    said = json.dumps({"family": "fuyu", "vision": CASE.vision, "text": CASE.text})
    train_on(2, roots["two"], said, die_before=2)
    train(roots["two"], CASE.settings)
    for one, other in zip(*map(lines, roots.values()), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (replace(CASE, vision=test_families.VISION), "no vision tower; write vision: .kind: patches, patch_size: 14"),
        (replace(CASE, vision={"kind": "patches"}), "has patch 14, and the model's linear layer takes patches of 30"),
        (replace(CASES["llava"], vision={"kind": "patches"}), "is no vision tower, and stands in family fuyu alone"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(case, said):
    with pytest.raises(RecipeError, match=said):
        _ = case.found


def test_a_persimmon_has_as_many_key_heads_as_heads(tokenizers):
    with pytest.raises(RecipeError, match=r"kv_heads is 1; a persimmon has as many as heads \(2\)"):
        made(replace(CASE, text={**CASE.text, "kv_heads": 1}), tokenizers)
