"""Every model family: learns from shards, separates packed documents, agrees with transformers, exports."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.processors import cases
from tests.helpers.stages import MACHINE, article, question, write_run, write_tokenizer
from vlmill.mixtures.reader import PlannedMixture, Segment
from vlmill.pipeline.chat.encode import FORMATS, IGNORE, get_mark_id, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import POLICIES, Policy
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.connector import count_tile_tokens, lay_out_images
from vlmill.pipeline.images.crop import Crop
from vlmill.pipeline.images.internvl import InternVL
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.native import Native
from vlmill.pipeline.images.navit import NaViT
from vlmill.pipeline.images.patches import Patches
from vlmill.pipeline.images.pooled import Pooled
from vlmill.pipeline.images.resize import Resize
from vlmill.pipeline.images.tiles import Tiles
from vlmill.train.batch import PADDING, Document, pad_sequences
from vlmill.train.data import Reader
from vlmill.train.export import cast_model, export_model, load_export
from vlmill.train.families import FAMILIES, LLAVA, ONE_TILE, find_family, vision
from vlmill.train.families.idefics import find_last_seen, make_causal_mask
from vlmill.train.families.language import CONFIGS
from vlmill.train.families.pretrained import choose_export_dtype
from vlmill.train.families.processors import IMAGE_PROCESSORS
from vlmill.train.model import compute_features, compute_token_losses, create_model
from vlmill.train.run import train_stage
from vlmill.train.settings import ModelSettings, Training

TEXT = {"kind": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "positions": 2048}
VISION = {"kind": "siglip", "hidden_size": 32, "layers": 2, "heads": 2, "image_size": 28, "patch_size": 14}
FINE = {**VISION, "patch_size": 7}  # 4 x 4 patches: something to shuffle
GREY = (127, 127, 127)
CLIP_GREY = (122, 116, 104)
PINPOINTS = ((28, 56), (56, 28), (56, 56), (28, 84))
SIZES = [(28, 28), (40, 20), (17, 90), (200, 31), (6, 4), (100, 100)]


@dataclass(frozen=True)
class Case:
    """A model and the policy that it is trained under."""

    family: str
    policy: Policy
    vision: Any = None
    text: Any = None
    connector: Any = None
    positions: str | None = None
    video: bool = False  # whether its processor stands beside a video processor, which wants torchvision

    @property
    def chat(self) -> str:
        return FAMILIES[self.family].chat

    @property
    def code(self) -> bool:
        """Whether its export brings code along."""
        fused = self.vision is not None and self.vision["kind"] == "fused"
        ours = fused or self.family in {"fuyu", "moondream"} or self.settings.connector.counts
        return ours or self.positions not in {None, "mrope"}

    @property
    def components(self) -> set[str]:
        """Those that have weights."""
        return {"text", "projector"} | ({"vision"} if FAMILIES[self.family].tower else set())

    @property
    def settings(self) -> ModelSettings:
        values = {"family": self.family, "vision": self.vision or VISION, "text": self.text or TEXT}
        values |= {"positions": self.positions}
        return parse_block(ModelSettings, values | ({"connector": self.connector} if self.connector else {}), "model")

    @property
    def found(self):
        return find_family(self.settings, self.policy, self.chat)

    def lay_out(self, sizes):
        return lay_out_images(self.policy, count_tile_tokens(self.settings.connector, self.policy), sizes)


ONEVISION = AnyRes(side=28, patch=7, pinpoints=(*PINPOINTS, (84, 84)), cap=2, many="letterbox", fill=GREY)
NATIVE = Native(patch=7, min_pixels=28 * 28, max_pixels=70 * 84)
RAW = {"kind": "patches", "patch_size": 14}
QWEN = {**FINE, "kind": "qwen2_5_vl", "layers": 4}
CASES = {
    "llava": Case("llava", Letterbox(side=28, patch=14)),
    "llava, resized": Case("llava", Resize(side=28, patch=14), connector={"kind": "linear"}),
    "llava, cropped, CLIP": Case("llava", Crop(side=28, patch=14), {**VISION, "kind": "clip"}),
    "llava, DINOv2": Case(
        "llava", Letterbox(side=28, patch=14, fill=(123, 116, 103)), {**VISION, "kind": "dinov2"}
    ),
    "llava, InternViT": Case(
        "llava", Letterbox(side=28, patch=14, fill=(123, 116, 103)), {**VISION, "kind": "internvit"}
    ),
    "llava, fused": Case(
        "llava",
        Letterbox(side=28, patch=14),
        {"kind": "fused", "first": {**VISION, "kind": "dinov2"}, "second": VISION},
    ),
    "llava, fused, three layers": Case(
        "llava",
        Resize(side=28, patch=14),
        {"kind": "fused", "first": {**VISION, "kind": "dinov2"}, "second": VISION},
        connector={"kind": "fused_mlp"},
    ),
    "llava_next": Case("llava_next", AnyRes(side=28, patch=14, pinpoints=PINPOINTS)),
    "llava_next, CLIP": Case(
        "llava_next", AnyRes(side=28, patch=14, pinpoints=PINPOINTS), {**VISION, "kind": "clip"}
    ),
    "llava_onevision": Case("llava_onevision", ONEVISION, FINE, video=True),
    "llava_onevision, CLIP": Case(
        "llava_onevision", replace(ONEVISION, fill=CLIP_GREY), {**FINE, "kind": "clip"}, video=True
    ),
    "moondream": Case("moondream", Resize(side=28, patch=14), text=TEXT | {"kind": "phi"}),
    "moondream, letterbox": Case("moondream", Letterbox(side=28, patch=14), text=TEXT | {"kind": "phi"}),
    "moondream, cropped": Case("moondream", Crop(side=28, patch=14), text=TEXT | {"kind": "phi"}),
    "idefics": Case("idefics", Resize(side=28, patch=14, whole=True), {**VISION, "kind": "clip"}),
    "idefics, direct": Case(
        "idefics",
        Resize(side=28, patch=14, whole=True),
        {**VISION, "kind": "clip"},
        connector={"kind": "direct", "interval": 2},
    ),
    "idefics2": Case("idefics2", NaViT(shortest=28, longest=56, latents=4), VISION),
    "idefics2, split": Case("idefics2", NaViT(shortest=28, longest=56, latents=4, split=True), VISION),
    "idefics3": Case("idefics3", Tiles(side=28, longest=84, patch=7), FINE),
    "internvl": Case("internvl", InternVL(side=28, patch=7, most=4), {**FINE, "kind": "internvit"}, video=True),
    "fuyu": Case("fuyu", Patches(width=84, height=56, patch=14), RAW, TEXT | {"kind": "persimmon"}),
    "gemma3": Case("gemma3", Pooled(side=28, patch=7, pool=2), FINE, TEXT | {"kind": "gemma3", "kv_heads": 1}),
    "paligemma": Case("paligemma", Resize(side=28, patch=14), VISION, TEXT | {"kind": "gemma", "kv_heads": 1}),
    "qwen2_5_vl": Case("qwen2_5_vl", NATIVE, QWEN, TEXT | {"kind": "qwen2", "kv_heads": 1}, video=True),
    "qwen3_vl": Case("qwen3_vl", NATIVE, {**QWEN, "kind": "qwen3_vl"}, TEXT | {"kind": "qwen3"}, video=True),
}  # fmt: skip
CASES |= {
    "qwen2_5_vl, flat": replace(CASES["qwen2_5_vl"], positions="flat"),
    "qwen2_5_vl, RoPE-Tie": replace(CASES["qwen2_5_vl"], positions="rope_tie"),
    "qwen3_vl, RoPE-Tie v2": replace(CASES["qwen3_vl"], positions="rope_tie_v2"),
}
PLAIN = tuple(CASES)
LANGUAGES = {
    "gemma": {"kind": "gemma", "kv_heads": 1, "tied": True},
    "gemma3": {"kind": "gemma3", "kv_heads": 1, "tied": True},
    "mistral": {"kind": "mistral", "kv_heads": 1},
    "phi": {"kind": "phi"},
    "phi3": {"kind": "phi3"},
    "qwen2, tied": {"kind": "qwen2", "kv_heads": 1, "tied": True},
    "qwen3": {"kind": "qwen3"},
    "smollm2": {"kind": "llama", "kv_heads": 1, "tied": True},
    "smollm3": {"kind": "smollm3"},
    "llama": {"kind": "llama"},
}
CASES |= {
    f"{family}, {name}": replace(CASES[family], text=TEXT | text)
    for (name, text), family in zip(
        LANGUAGES.items(),
        ("llava", "llava", "llava", "llava", "llava", "idefics2", "idefics3", "internvl", "llava", "fuyu"),
        strict=True,
    )
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    path = write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")
    return {name: load_tokenizer(path, chat) for name, chat in FORMATS.items()}


def made(case, tokenizers, seed=0):
    """A family and a model whose images matter from the start: gates of new cross-attention are closed."""
    family = case.found
    model = create_model(family, tokenizers[case.chat], FORMATS[case.chat], seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if ".alpha_" in name:
                weights.fill_(1.0)
            elif name.endswith("mm_input_projection_weight"):  # which is zero as well
                weights.normal_(std=0.02, generator=torch.Generator().manual_seed(seed))
    return family, model.eval()


def picture(width, height, seed=0):
    """A picture in which every pixel matters."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def document(case, tokenizers, seed, sizes=((30, 20),)):
    """Random words around random images; everything but the first token and what spells images is supervised."""
    rng, tokenizer, chat = np.random.default_rng(seed), tokenizers[case.chat], FORMATS[case.chat]
    layouts = case.lay_out(list(sizes))
    image = get_mark_id(tokenizer, chat.image)
    ids = [get_mark_id(tokenizer, chat.bos), *rng.integers(0, 200, 6).tolist()]
    for layout in layouts:
        ids += [image] * layout.tokens + rng.integers(0, 200, 6).tolist()
    labels = [IGNORE if token == image or not place else token for place, token in enumerate(ids)]
    tiles = tuple(
        case.policy.tiles(case.policy.render(picture(*size, seed + place), layout), layout)
        for place, (size, layout) in enumerate(zip(sizes, layouts, strict=True))
    )
    return Document(seed, ids, labels, tiles, layouts)


def logits(family, model, rows, blank=None):
    return of_batch(family, model, pad_sequences(rows, 0, blank))


def of_batch(family, model, batch):
    with torch.no_grad():
        return model.get_output_embeddings()(compute_features(model, family, batch))


@pytest.mark.parametrize("name", CASES)
def test_packed_documents_have_the_logits_that_they_have_alone(tokenizers, name):
    case = CASES[name]
    family, model = made(case, tokenizers)
    model.train()
    alone = [
        document(case, tokenizers, 1),
        document(case, tokenizers, 2, ((90, 30), (20, 70), (33, 33))),
        document(case, tokenizers, 3, ()),
        document(case, tokenizers, 4, ((60, 60),)),
    ]
    packed = logits(family, model, [alone, [alone[2], alone[0]]])
    for row, documents in enumerate([alone, [alone[2], alone[0]]]):
        start = 0
        for one in documents:
            end = start + len(one.ids)
            assert (packed[row, start:end] - logits(family, model, [[one]])[0]).abs().max() <= 1e-5
            start = end


def of_shards(root, case, sizes, tokenizers):
    """A reader of shards whose samples ask about random pictures, and a model."""
    nodes, _ = question(0)
    root.mkdir(parents=True, exist_ok=True)
    made_of = {"quiz": [(nodes, [picture(*size)]) for size in sizes]}
    write_run(root, made_of, case.policy, chat=case.chat, length=4000, connector=case.connector)
    mixture = PlannedMixture(root, "align")
    family, model = made(case, tokenizers)
    return Reader(mixture, load_tokenizer(mixture.tokenizer, mixture.chat), family, "answers"), model


def processed(case, processor, size):
    """What transformers' processor makes of a question about a picture and its answer."""
    if case.family == "idefics":  # takes images between texts, and begins with BOS itself
        said = ["<|user|>", picture(*size), "\nWhat colour is it?<|end|><|assistant|>red<|end|><|stop|>"]
        return processor(text=[said], return_tensors="pt")
    asked: Any = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What colour is it?"}]},
        {"role": "assistant", "content": "red"},
    ]
    if case.family == "paligemma":  # takes an answer apart from its prompt
        prompt = processor.apply_chat_template(asked[:1], add_generation_prompt=True)
        return processor(images=picture(*size), text=prompt, suffix="red", return_tensors="pt")
    return processor(images=picture(*size), text=processor.apply_chat_template(asked), return_tensors="pt")


@pytest.mark.parametrize("name", PLAIN)
def test_transformers_processor_and_model_see_what_our_shards_show(tmp_path, tokenizers, dynamic_modules, name):
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

    case = CASES[name]
    reader, ours = of_shards(tmp_path / "run", case, SIZES, tokenizers)
    folder = export_model(tmp_path / "export", ours, reader.family, reader.tokenizer, reader.mixture.chat)
    trust = {"trust_remote_code": case.code}
    theirs = AutoModelForImageTextToText.from_pretrained(folder, **trust)
    assert type(theirs).__name__ == type(ours).__name__
    processor = (AutoImageProcessor if case.video else AutoProcessor).from_pretrained(folder, **trust)
    for row, size in enumerate(SIZES):
        batch = pad_sequences([[reader.document(Segment(0, 0, row))]], 0)
        if case.video:
            inputs = {"input_ids": batch.ids, **processor(picture(*size), return_tensors="pt")}
            inputs.pop("num_patches", None)
            if "image_grid_thw" in inputs:  # its processor says so, too
                inputs["mm_token_type_ids"] = (batch.ids == theirs.config.image_token_id).int()
        else:
            inputs = processed(case, processor, size)
        assert inputs["input_ids"][0].tolist() == batch.ids[0].tolist()
        with torch.no_grad():
            found = theirs(**inputs).logits[0]
        assert (found - of_batch(reader.family, ours, batch)[0]).abs().max() <= 1e-5


QUESTIONS = (
    "What colour is it?",
    "Is it?",
    "What is the colour of the picture, and what of the other picture beside it?",
)


def prompt(family, model, batch):
    """What a model is given to generate from, besides tokens."""
    return {name: value for name, value in family.inputs(model, batch).items() if name != "position_ids"}


def asked(case, processor, tokenizer, family, model, pictures, questions):
    """Questions about a picture each, as one batch of the processor; without torchvision, of its tokenizer."""
    if case.family == "idefics":
        prompts = [
            ["<|user|>", picture, f"\n{question}<|end|><|assistant|>"]
            for picture, question in zip(pictures, questions, strict=True)
        ]
        return processor(text=prompts, padding=True, return_tensors="pt")
    turns = [[{"type": "image"}, {"type": "text", "text": question}] for question in questions]
    if case.video:
        chat = FORMATS[case.chat]
        layouts = [case.policy.layout([picture.size])[0] for picture in pictures]
        ids = [
            [
                *tokenizer(question)["input_ids"][:3],
                *[get_mark_id(tokenizer.backend_tokenizer, chat.image)] * layout.tokens,
                *tokenizer(question)["input_ids"],
            ]
            for question, layout in zip(questions, layouts, strict=True)
        ]
        tiles = [
            case.policy.tiles(case.policy.render(*shown), shown[1]) for shown in zip(pictures, layouts, strict=True)
        ]
        shown = [
            [Document(0, words, [IGNORE] * len(words), (tile,), (layout,))]
            for words, tile, layout in zip(ids, tiles, layouts, strict=True)
        ]
        batch = pad_sequences(shown, tokenizer.pad_token_id, left=True)
        return {**tokenizer.pad({"input_ids": ids}, return_tensors="pt"), **prompt(family, model, batch)}
    texts = [
        processor.apply_chat_template([{"role": "user", "content": turn}], add_generation_prompt=True) for turn in turns
    ]
    return processor(images=[[picture] for picture in pictures], text=texts, padding=True, return_tensors="pt")


@pytest.mark.parametrize("name", PLAIN)
def test_an_export_answers_several_questions_at_once_as_each_alone(tmp_path, tokenizers, dynamic_modules, name):
    from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    case = CASES[name]
    family, ours = made(case, tokenizers, 3)
    folder = export_model(tmp_path / "export", ours, family, tokenizers[case.chat], FORMATS[case.chat])
    trust = {"trust_remote_code": case.code}
    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
    processor = None if case.video else AutoProcessor.from_pretrained(folder, **trust)
    assert {each.padding_side for each in (tokenizer, processor and processor.tokenizer) if each} == {"left"}
    model = AutoModelForImageTextToText.from_pretrained(folder, **trust)
    pictures = [picture(40, 20, 1), picture(30, 50, 2), picture(90, 30, 3)]

    def answers(*places):
        chosen = [pictures[place] for place in places], [QUESTIONS[place] for place in places]
        inputs = asked(case, processor, tokenizer, family, model, *chosen)
        said = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        return tokenizer.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    assert answers(0, 1, 2) == [answer for place in range(3) for answer in answers(place)]


@pytest.mark.parametrize("name", CASES)
def test_a_family_learns_from_shards_in_all_its_parts_and_is_scored(tmp_path, name):
    case = CASES[name]
    samples = {"quiz": [question(number) for number in range(9)], "web": [article(number) for number in range(4)]}
    write_run(
        tmp_path, samples, case.policy, hold_out=1, chat=case.chat, length=400, epochs=20, connector=case.connector
    )
    rates = {"text": 1e-2, "vision": 1e-2, "projector": 1e-2}
    training = parse_block(
        Training, {"steps": 6, "sequences": 1, "learning_rate": rates, "loss": "text", "evaluate": 1}, "train"
    )
    result = train_stage(tmp_path, "align", training, case.settings, machine=MACHINE)
    losses = [json.loads(line)["loss"] for line in result.log.read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert (result.scores["quiz"].questions, result.scores["web"].samples) == (1, 1)

    from safetensors.torch import load_file

    family, tokenizer = case.found, load_tokenizer(tmp_path / "tokenizer.json", FORMATS[case.chat])
    before = create_model(family, tokenizer, FORMATS[case.chat], training.seed).state_dict()
    after = load_file(result.checkpoint / "model.safetensors")
    changed = {family.component(name) for name, weights in after.items() if not torch.equal(before[name], weights)}
    assert changed == case.components


@pytest.mark.parametrize("name", PLAIN)
def test_every_image_matters_to_its_own_document_and_to_no_other(tokenizers, name):
    case = CASES[name]
    family, model = made(case, tokenizers)
    one, other = document(case, tokenizers, 1, ((40, 20), (30, 50))), document(case, tokenizers, 2)
    for place in range(2):
        dark = tuple(
            [255 - np.asarray(tile) for tile in tiles] if number == place else tiles
            for number, tiles in enumerate(one.tiles)
        )
        usual, changed = (logits(family, model, [[shown, other]])[0] for shown in (one, replace(one, tiles=dark)))
        end = len(one.ids)
        assert (usual[:end] - changed[:end]).abs().max() > 1e-4
        assert torch.equal(usual[end:], changed[end:])


@given(st.tuples(st.integers(2, 3000), st.integers(2, 3000)))
@settings(max_examples=30, deadline=None)
def test_policy_and_model_class_count_the_same_tokens(size):
    for case in (CASES[name] for name in PLAIN):
        for layout in (*case.policy.layout([size]), *case.policy.layout([size, (30, 30)])):
            assert case.found.visual_tokens(layout) == layout.tokens


# -- documents without images


@pytest.mark.parametrize("name", PLAIN)
def test_a_batch_without_images_runs_every_part_on_a_blank_that_changes_nothing(tmp_path, tokenizers, name):
    case = CASES[name]
    reader, model = of_shards(tmp_path, case, SIZES[:1], tokenizers)
    words = document(case, tokenizers, 3, ())
    usual, blank = pad_sequences([[words], [words]], 0), pad_sequences([[words], [words]], 0, reader.blank)
    assert (blank.blank, blank.shown, blank.tokens, blank.supervised) == (True, 0, usual.tokens, usual.supervised)
    expected, _ = compute_token_losses(model, reader.family, usual, torch.device("cpu"), torch.float32)
    losses, sources = compute_token_losses(model, reader.family, blank, torch.device("cpu"), torch.float32)
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=0)
    assert PADDING not in sources
    losses.sum().backward()
    for component in case.components - {"text"}:
        gradients = [
            weights.grad for name, weights in model.named_parameters() if reader.family.component(name) == component
        ]
        assert any(gradient is not None for gradient in gradients)  # all ranks meet in its layers
        if case.family != "idefics":  # whose gated layers change what they show no image, too
            assert not any(gradient.any() for gradient in gradients if gradient is not None)


def test_a_batch_with_an_image_gets_no_blank(tmp_path, tokenizers):
    case = CASES["llava"]
    reader, _ = of_shards(tmp_path, case, SIZES[:1], tokenizers)
    batch = pad_sequences([[document(case, tokenizers, 1)]], 0, reader.blank)
    assert not batch.blank
    assert batch.shown == 1


# -- LLaVA-OneVision


def test_an_image_that_a_cut_has_left_alone_keeps_the_tile_that_it_was_rendered_as(tokenizers):
    case = CASES["llava_onevision"]
    family, model = made(case, tokenizers)
    many = document(case, tokenizers, 1, ((60, 20), (20, 60)))
    alone = Document(1, many.ids[: 7 + many.layouts[0].tokens], many.labels, many.tiles[:1], many.layouts[:1])
    alone = replace(alone, labels=many.labels[: len(alone.ids)])
    tiled = document(case, tokenizers, 2, ((60, 20),))
    assert (alone.layouts[0].tiles, tiled.layouts[0].tiles > 1) == (1, True)
    found = logits(family, model, [[tiled, alone, tiled]])[0]
    start = len(tiled.ids)
    expected = logits(family, model, [[many]])[0, : len(alone.ids)]
    assert (found[start : start + len(alone.ids)] - expected).abs().max() <= 1e-5


# -- Idefics


def test_a_token_sees_the_last_image_of_its_document_and_its_own_document_alone():
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2]])
    shown = torch.tensor([[0, 1, 0, 1, 0, 1, 0, 0]]).bool()
    assert find_last_seen(shown, documents).tolist() == [[-1, 0, 0, 1, -1, 2, 2, -1]]
    assert (make_causal_mask(documents)[0, 0] == 0).int().tolist()[5] == [0, 0, 0, 0, 1, 1, 0, 0]


# -- weights from elsewhere


FORMS = {
    "gemma3": "siglip",
    "llava": "siglip",
    "moondream": "siglip",
    "idefics": "clip",
    "idefics2": "siglip",
    "idefics3": "siglip",
    "internvl": "internvit",
    "paligemma": "siglip",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_vl": "qwen3_vl",
}


def text_of(case):
    """A language model of the kind that a family takes, as it is published."""
    from transformers import AutoModelForCausalLM

    kind = case.text["kind"] if case.text else "llama"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"head_dim": 16} if kind in {"gemma", "gemma3", "qwen3"} else {}
    return AutoModelForCausalLM.from_config(CONFIGS[kind](vocab_size=280, num_key_value_heads=2, **sizes, **more))


def as_wide(config):
    """A tower that holds its projector has that of the tests' language model."""
    if hasattr(config, "out_hidden_size"):
        config.out_hidden_size = 32
    return config


@pytest.mark.parametrize("family", FORMS)
def test_pretrained_towers_are_read_whole_and_the_tokenizers_new_tokens_are_added(tmp_path, tokenizers, family):
    from transformers import AutoModel

    case = CASES[family]
    tower = parse_block(
        ModelSettings,
        {"family": "llava", "vision": {**(case.vision or VISION), "kind": FORMS[family]}, "text": TEXT},
        "model",
    )
    AutoModel.from_config(as_wide(vision.configure_vision(tower))).save_pretrained(tmp_path / "vision")
    text = text_of(case)
    text.save_pretrained(tmp_path / "text")
    paths = {name: {"kind": "pretrained", "path": str(tmp_path / name)} for name in ("vision", "text")}
    _, model = made(replace(case, **paths), tokenizers)
    found, known = model.state_dict(), AutoModel.from_pretrained(tmp_path / "vision").state_dict()
    ends = {re.split(r"vision_tower\.|vision_model\.|visual\.", name)[-1]: name for name in found}
    for name, weights in known.items():
        if name in ends and "position" not in name:
            torch.testing.assert_close(found[ends[name]], weights)
    assert sum(name in ends for name in known) > 20
    embedded = model.get_input_embeddings().weight
    torch.testing.assert_close(embedded[:280], text.get_input_embeddings().weight)
    assert len(embedded) == 1 + max(tokenizers[case.chat].get_vocab().values())
    torch.testing.assert_close(model.get_output_embeddings().weight[:280], text.lm_head.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [*FORMS, "fused"])
def test_towers_published_in_half_precision_have_float32_masters_and_are_exported_as_they_were(
    tmp_path, tokenizers, name, dtype
):
    from safetensors.torch import load_file
    from transformers import AutoModel

    case = CASES["llava, fused" if name == "fused" else name]
    alone = (
        {"first": case.vision["first"], "second": VISION}
        if name == "fused"
        else {"vision": {**(case.vision or VISION), "kind": FORMS[name]}}
    )
    towers = {}
    for place, tower in alone.items():
        whole = parse_block(ModelSettings, {"family": "llava", "vision": tower, "text": TEXT}, "model")
        AutoModel.from_config(as_wide(vision.configure_vision(whole))).to(dtype).save_pretrained(tmp_path / place)
        towers[place] = {"kind": "pretrained", "path": str(tmp_path / place)}
    text = text_of(case).to(dtype)
    text.save_pretrained(tmp_path / "text")
    towers = {"kind": "fused", **towers} if name == "fused" else towers["vision"]
    case = replace(case, vision=towers, text={"kind": "pretrained", "path": str(tmp_path / "text")})
    family, model = made(case, tokenizers)
    assert {weights.dtype for weights in model.state_dict().values()} == {torch.float32}
    before = {key: weights.clone() for key, weights in model.state_dict().items()}
    folder = export_model(
        tmp_path / "export",
        model,
        family,
        tokenizers[case.chat],
        FORMATS[case.chat],
        choose_export_dtype(case.settings),
    )
    assert all(torch.equal(before[key], weights) for key, weights in model.state_dict().items())
    assert_all_in(folder, dtype)
    saved = load_file(folder / "model.safetensors")
    heads = ("lm_head.weight", "embed_tokens.weight")  # one matrix, where they are tied
    head = next(weights for end in heads for key, weights in saved.items() if key.endswith(end))
    assert torch.equal(head[:280], text.lm_head.weight)
    again = load_export(folder, model, tokenizers[case.chat])
    assert {weights.dtype for weights in again.state_dict().values()} == {torch.float32}
    one = document(case, tokenizers, 1)
    rounded = {key: weights.to(dtype).float() for key, weights in before.items()}
    model.load_state_dict(rounded)
    assert torch.equal(logits(family, again.eval(), [[one]]), logits(family, model, [[one]]))


def assert_all_in(folder, dtype):
    """Weights and all configurations of an export."""
    from safetensors.torch import load_file

    assert {weights.dtype for weights in load_file(folder / "model.safetensors").values()} == {dtype}
    said, found = [json.loads((folder / "config.json").read_bytes())], []
    while said:
        config = said.pop()
        found += [config["dtype"]] if "dtype" in config else []
        said += [component for component in config.values() if isinstance(component, dict)]
    assert {f"torch.{name}" for name in found} == {str(dtype)}
    assert len(found) > 1


@pytest.mark.parametrize("name", PLAIN)
def test_an_export_in_half_precision_is_read_and_run_as_it_is(tmp_path, tokenizers, dynamic_modules, name):
    from transformers import AutoModelForImageTextToText

    case = CASES[name]
    family, model = made(case, tokenizers)
    folder = export_model(tmp_path / "export", model, family, tokenizers[case.chat], FORMATS[case.chat], torch.bfloat16)
    assert_all_in(folder, torch.bfloat16)
    theirs = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=case.code).eval()
    assert theirs.dtype == torch.bfloat16
    batch = pad_sequences([[document(case, tokenizers, 1)]], 0)
    inputs = {**prompt(family, theirs, batch), "attention_mask": torch.ones_like(batch.ids)}
    with torch.no_grad():
        found = theirs(input_ids=batch.ids, **inputs).logits.float()
    assert (found - of_batch(family, model, batch)).abs().max() < 0.1


@pytest.mark.parametrize(
    ("vision", "text", "asked", "dtype"),
    [
        ("float32", "bfloat16", None, torch.bfloat16),  # nearly all weights are the language model's
        ("bfloat16", "float16", None, torch.float16),
        ("bfloat16", "float32", None, torch.float32),
        ("float16", "new", None, torch.float16),
        ("new", "bfloat16", None, torch.bfloat16),
        ("new", "new", None, torch.float32),
        ("new", "nothing", None, torch.float32),
        ("bfloat16", "bfloat16", "float32", torch.float32),
        ("new", "new", "bfloat16", torch.bfloat16),
    ],
)
def test_the_recipe_or_the_language_model_says_what_is_exported(tmp_path, vision, text, asked, dtype):
    from transformers import LlamaConfig, SiglipVisionConfig

    parts = {}
    for component, published, kind in (("vision", vision, SiglipVisionConfig), ("text", text, LlamaConfig)):
        if published == "new":
            parts[component] = VISION if component == "vision" else TEXT
            continue
        kind(dtype=None if published == "nothing" else published).save_pretrained(tmp_path / component)
        parts[component] = {"kind": "pretrained", "path": str(tmp_path / component)}
    settings = parse_block(ModelSettings, {"family": "llava", **parts, "export_dtype": asked}, "model")
    assert choose_export_dtype(settings) == dtype


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "llava", "llava_next, CLIP"])
def test_a_tower_is_taken_out_of_the_checkpoint_of_a_whole_model(tmp_path, tokenizers, name):
    case = CASES[name]
    _, whole = made(case, tokenizers, seed=7)
    whole.save_pretrained(tmp_path)
    vision = {"kind": "pretrained", "path": str(tmp_path)}
    _, model = made(replace(case, vision=vision), tokenizers)
    names = [key for key, _ in model.named_parameters() if case.found.component(key) == "vision"]
    before, after = whole.state_dict(), model.state_dict()
    assert names
    assert all(torch.equal(before[key], after[key]) for key in names)
    if name.startswith("qwen"):  # its projector fits no other width
        _, wide = made(replace(case, vision=vision, text={**case.text, "hidden_size": 64}), tokenizers)
        after = wide.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in names)
        merger = [key for key in after if ".merger." in key and key.endswith("weight") and "norm" not in key]
        assert not any(torch.equal(before[key], after[key]) for key in merger if "ln_q" not in key)


def test_a_checkpoint_that_lacks_weights_of_its_tower_is_refused(tmp_path, tokenizers):
    from safetensors.torch import load_file, save_file

    case = CASES["llava"]
    made(case, tokenizers)[1].model.vision_tower.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in weights if "patch_embedding.weight" in key)
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RecipeError, match="lacks weights of its vision tower .*patch_embedding.weight"):
        made(replace(case, vision={"kind": "pretrained", "path": str(tmp_path)}), tokenizers)


def test_each_of_two_fused_towers_has_its_own_weights(tmp_path, tokenizers):
    from transformers import AutoModel

    case, saved = CASES["llava, fused"], {}
    for place in ("first", "second"):
        alone = parse_block(ModelSettings, {"family": "llava", "vision": case.vision[place], "text": TEXT}, "model")
        saved[place] = AutoModel.from_config(vision.configure_vision(alone))
        saved[place].save_pretrained(tmp_path / place)
    paths = {place: {"kind": "pretrained", "path": str(tmp_path / place)} for place in saved}
    _, model = made(replace(case, vision={"kind": "fused", **paths}), tokenizers)
    for place, tower in saved.items():
        found = getattr(model.model.vision_tower, place).state_dict()
        assert all(torch.equal(found[name], weights) for name, weights in tower.state_dict().items())


def test_positions_of_a_smaller_tower_are_interpolated(tmp_path, tokenizers):
    from transformers import AutoModel, SiglipVisionConfig

    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    small = AutoModel.from_config(SiglipVisionConfig(image_size=14, patch_size=7, vision_use_head=False, **sizes))
    with torch.no_grad():
        small.embeddings.position_embedding.weight[:] = torch.tensor([0.0, 1.0, 0.0, 1.0])[
            :, None
        ]  # from left to right
    small.save_pretrained(tmp_path / "vision")
    case = replace(CASES["idefics3"], vision={"kind": "pretrained", "path": str(tmp_path / "vision")})
    _, model = made(case, tokenizers)
    grid = model.model.vision_model.embeddings.position_embedding.weight.view(4, 4, 32)
    assert torch.allclose(grid, grid[:1].expand_as(grid), atol=1e-6)  # every row alike
    assert (grid[0].diff(dim=0) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FAMILIES)  # each has a case of its own name
def test_a_whole_checkpoint_is_trained_on(tmp_path, tokenizers, name, dtype):
    case = CASES[name]
    _, before = made(case, tokenizers, seed=7)
    cast_model(before, dtype).save_pretrained(tmp_path)
    before.load_state_dict({key: weights.to(dtype).float() for key, weights in before.state_dict().items()})
    ours = {"family": case.family, "checkpoint": {"kind": "pretrained", "path": str(tmp_path)}}
    family = find_family(parse_block(ModelSettings, ours, "model"), case.policy, case.chat)
    after = create_model(family, tokenizers[case.chat], FORMATS[case.chat], 0)
    assert {weights.dtype for weights in after.state_dict().values()} == {torch.float32}
    assert choose_export_dtype(family.settings) == dtype
    assert all(torch.equal(weights, after.state_dict()[key]) for key, weights in before.state_dict().items())
    one = document(case, tokenizers, 1)
    assert torch.equal(logits(case.found, before, [[one]]), logits(family, after.eval(), [[one]]))


def saved(case, tokenizers, folder):
    made(case, tokenizers)[1].save_pretrained(folder)
    return parse_block(
        ModelSettings, {"family": case.family, "checkpoint": {"kind": "pretrained", "path": str(folder)}}, "model"
    )


def test_a_checkpoint_lays_images_out_as_the_policy_does(tmp_path, tokenizers):
    case = CASES["llava_onevision"]
    other = replace(case, policy=replace(case.policy, cap=1, pinpoints=((28, 84), (84, 84))))
    family = find_family(saved(case, tokenizers, tmp_path), other.policy, case.chat)
    model = create_model(family, tokenizers[case.chat], FORMATS[case.chat], 0)
    assert logits(family, model, [[document(other, tokenizers, 1, ((100, 40),))]]).isfinite().all()


def test_a_checkpoint_of_another_shuffle_is_refused(tmp_path, tokenizers):
    case = CASES["idefics3"]
    family = find_family(saved(case, tokenizers, tmp_path), replace(case.policy, shuffle=4), case.chat)
    with pytest.raises(RecipeError, match="scale_factor 2, and the image policy's shuffle means 4"):
        create_model(family, tokenizers[case.chat], FORMATS[case.chat], 0)


# -- what has no case, and what does not fit


def test_every_family_is_tried_under_every_policy_that_it_declares():
    assert set(FAMILIES) <= set(PLAIN), "each family has a case of its own name in CASES"
    declared = {(place, kind) for family in FAMILIES.values() for kind, place in family.classes.items()}
    tried = [CASES[name] for name in PLAIN]
    assert {(FAMILIES[case.family].classes[case.policy.kind], case.policy.kind) for case in tried} == declared
    assert {case.family for case in tried} == set(FAMILIES)


def test_every_policy_is_taken_by_a_family_and_compared_with_a_processor_of_transformers():
    assert {kind for family in FAMILIES.values() for kind in family.classes} == set(POLICIES)
    assert {case.policy.kind for case in cases().values()} == set(POLICIES)


def test_the_table_of_image_processors_has_what_families_declare_and_no_more():
    declared = {(place, kind) for family in FAMILIES.values() for kind, place in family.classes.items()}
    types = {(find_type(place).model_type, POLICIES[kind]) for place, kind in declared}
    assert set(IMAGE_PROCESSORS) == types


def find_type(place):
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class Mirrored(Letterbox):
    """A policy of one tile that no processor of transformers is known for."""

    kind = "mirrored"


def test_a_policy_without_an_image_processor_is_refused_before_training(monkeypatch):
    monkeypatch.setitem(FAMILIES, "llava", replace(FAMILIES["llava"], classes={**ONE_TILE, "mirrored": LLAVA}))
    with pytest.raises(
        RecipeError, match="no image processor .* of the image policy mirrored; .* crop, letterbox, resize"
    ):
        _ = Case("llava", Mirrored(side=28, patch=14)).found


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (Case("idefics2", Tiles()), "idefics2 takes images of policies of kind navit, not tiles; .* idefics3"),
        (Case("llava", Resize(side=28, patch=14, whole=True)), "LLaVA reads every patch"),
        (Case("idefics", Resize(side=28, patch=14), {**VISION, "kind": "clip"}), "whole: true"),
        (Case("idefics", Resize(side=28, patch=14, whole=True)), "tower of the form of clip_vision_model, not siglip"),
        (Case("internvl", InternVL(side=28, patch=7), FINE), "of the form of internvl_vision, not siglip"),
        (Case("idefics3", Tiles(side=28, longest=84, patch=14, shuffle=3)), "3 x 3 patches, and a tile has 2 x 2"),
        (Case("idefics3", Tiles(side=28, longest=280, patch=14)), "names for 6 tiles"),
        (Case("llava_next", ONEVISION, FINE), "family llava_onevision takes what it has"),
        (Case("llava_onevision", CASES["llava_next"].policy), "takes a cap .9 in the paper. and many: letterbox"),
        (Case("llava_onevision", replace(ONEVISION, fill=CLIP_GREY), FINE), "fill .122, 116, 104., .* takes .127"),
        (Case("llava_next", CASES["llava_next"].policy, CASES["llava, fused"].vision), "fused towers .* family llava"),
        (Case("idefics2", NaViT(shortest=7, longest=56)), "less than a patch of 14 px"),
        (Case("llava", Letterbox(side=28, patch=14), connector={"kind": "shuffle"}), "connector.factor is missing"),
        (Case("llava", Letterbox(side=28, patch=14), connector={"kind": "fused_mlp"}), "two vision towers, .* siglip"),
    ],
)  # fmt: skip
def test_what_a_family_cannot_take_is_refused_with_what_it_can(case, said):
    with pytest.raises(RecipeError, match=said):
        _ = case.found


@pytest.mark.parametrize(
    ("text", "connector", "said"),
    [
        ({"kv_heads": 1}, {}, "as many key heads as heads, not of llama with 1 of 2"),
        ({"kind": "qwen2"}, {}, "not of qwen2"),
        ({"layers": 3}, {"interval": 2}, "2 does not divide 3 layers"),
    ],
)
def test_idefics_says_which_language_models_it_can_be(tokenizers, text, connector, said):
    with pytest.raises(RecipeError, match=said):
        made(replace(CASES["idefics"], text=TEXT | text, connector=connector), tokenizers)


def test_a_chat_format_that_spells_images_otherwise_is_refused():
    with pytest.raises(
        RecipeError, match="idefics3 spells images as format 'idefics3' does, not 'vlmill'; write chat: idefics3"
    ):
        find_family(CASES["idefics3"].settings, CASES["idefics3"].policy, "vlmill")


@pytest.mark.parametrize("component", ["vision", "text"])
def test_a_pretrained_tower_that_is_not_there_is_named(tmp_path, tokenizers, component):
    missing = {"kind": "pretrained", "path": str(tmp_path / "missing")}
    with pytest.raises(RecipeError, match="missing is no folder with a model that transformers reads"):
        made(replace(CASES["llava"], **{component: missing}), tokenizers)


def test_half_a_model_is_refused():
    for values in (
        {"vision": VISION},
        {"vision": VISION, "text": TEXT, "checkpoint": {"kind": "pretrained", "path": "x"}},
        {},
    ):
        with pytest.raises(RecipeError, match="either vision and text, or a checkpoint of both"):
            parse_block(ModelSettings, {"family": "llava", **values}, "model")
