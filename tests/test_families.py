"""Every model family: learns from shards, keeps packed documents apart, counts and sees what transformers does, exports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.encode import FORMATS, IGNORE, load_tokenizer, mark_id
from pipeline.images import Policy
from pipeline.images.anyres import AnyRes
from pipeline.images.crop import Crop
from pipeline.images.internvl import InternVL
from pipeline.images.letterbox import Letterbox
from pipeline.images.navit import NaViT
from pipeline.images.resize import Resize
from pipeline.images.tiles import Tiles
from pipeline.settings import build
from tests.stages import question, write_run, write_tokenizer
from train.data import Document, Reader, pack
from train.export import export
from train.families import FAMILIES, find
from train.model import create, features
from train.plan import Mixture, Segment
from train.settings import ModelSettings

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
    video: bool = False  # whether its processor stands beside a video processor, which wants torchvision

    @property
    def chat(self) -> str:
        return FAMILIES[self.family].chat

    @property
    def settings(self) -> ModelSettings:
        values = {"family": self.family, "vision": self.vision or VISION, "text": self.text or TEXT}
        return build(ModelSettings, values | ({"connector": self.connector} if self.connector else {}), "model")

    @property
    def found(self):
        return find(self.settings, self.policy, self.chat)


ONEVISION = AnyRes(side=28, patch=7, pinpoints=(*PINPOINTS, (84, 84)), cap=2, many="letterbox", fill=GREY)
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
    "llava_next": Case("llava_next", AnyRes(side=28, patch=14, pinpoints=PINPOINTS)),
    "llava_next, CLIP": Case(
        "llava_next", AnyRes(side=28, patch=14, pinpoints=PINPOINTS), {**VISION, "kind": "clip"}
    ),
    "llava_onevision": Case("llava_onevision", ONEVISION, FINE, video=True),
    "llava_onevision, CLIP": Case(
        "llava_onevision", replace(ONEVISION, fill=CLIP_GREY), {**FINE, "kind": "clip"}, video=True
    ),
    "idefics": Case("idefics", Resize(side=28, patch=14, whole=True), {**VISION, "kind": "clip"}),
    "idefics, direct": Case(
        "idefics", Resize(side=28, patch=14, whole=True), {**VISION, "kind": "clip"}, connector={"kind": "direct", "interval": 2}
    ),
    "idefics2": Case("idefics2", NaViT(shortest=28, longest=56, latents=4), VISION),
    "idefics2, split": Case("idefics2", NaViT(shortest=28, longest=56, latents=4, split=True), VISION),
    "idefics3": Case("idefics3", Tiles(side=28, longest=84, patch=7), FINE),
    "internvl": Case("internvl", InternVL(side=28, patch=7, most=4), {**FINE, "kind": "internvit"}, video=True),
}  # fmt: skip
LANGUAGES = {
    "mistral": {"kind": "mistral", "kv_heads": 1},
    "phi": {"kind": "phi"},
    "phi3": {"kind": "phi3"},
    "qwen2, tied": {"kind": "qwen2", "kv_heads": 1, "tied": True},
    "qwen3": {"kind": "qwen3"},
    "smollm2": {"kind": "llama", "kv_heads": 1, "tied": True},
    "smollm3": {"kind": "smollm3"},
}
CASES |= {
    f"{family}, {name}": replace(CASES[family], text=TEXT | text)
    for (name, text), family in zip(
        LANGUAGES.items(), ("llava", "llava", "llava", "idefics2", "idefics3", "internvl", "llava"), strict=True
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
    model = create(family, tokenizers[case.chat], FORMATS[case.chat], seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if ".alpha_" in name:
                weights.fill_(1.0)
    return family, model.eval()


def picture(width, height, seed=0):
    """A picture in which every pixel matters."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def document(case, tokenizers, seed, sizes=((30, 20),)):
    """Random words around random images; everything but the first token and what spells images is learnt."""
    rng, tokenizer, chat = np.random.default_rng(seed), tokenizers[case.chat], FORMATS[case.chat]
    layouts = case.policy.layout(list(sizes))
    image = mark_id(tokenizer, chat.image)
    ids = [mark_id(tokenizer, chat.bos), *rng.integers(0, 200, 6).tolist()]
    for layout in layouts:
        ids += [image] * layout.tokens + rng.integers(0, 200, 6).tolist()
    labels = [IGNORE if token == image or not place else token for place, token in enumerate(ids)]
    tiles = tuple(
        case.policy.tiles(case.policy.render(picture(*size, seed + place), layout), layout)
        for place, (size, layout) in enumerate(zip(sizes, layouts, strict=True))
    )
    return Document(seed, ids, labels, tiles, layouts)


def logits(family, model, rows, blank=None):
    return of_batch(family, model, pack(rows, 0, blank))


def of_batch(family, model, batch):
    with torch.no_grad():
        return model.get_output_embeddings()(features(model, family, batch))


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
    write_run(root, {"quiz": [(nodes, [picture(*size)]) for size in sizes]}, case.policy, chat=case.chat, length=4000)
    mixture = Mixture(root, "align")
    family, model = made(case, tokenizers)
    return Reader(mixture, load_tokenizer(mixture.tokenizer, mixture.chat), family, "answers"), model


def processed(case, processor, size):
    """What transformers' processor makes of a question about a picture and its answer."""
    if case.family == "idefics":  # takes images between texts, and begins with BOS itself
        said = ["<|user|>", picture(*size), "\nWhat colour is it?<|end|><|assistant|>red<|end|><|stop|>"]
        return processor(text=[said], return_tensors="pt")
    asked = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What colour is it?"}]},
        {"role": "assistant", "content": "red"},
    ]
    return processor(images=picture(*size), text=processor.apply_chat_template(asked), return_tensors="pt")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.text])
def test_transformers_processor_and_model_see_what_our_shards_show(tmp_path, tokenizers, name):
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

    case = CASES[name]
    reader, ours = of_shards(tmp_path / "run", case, SIZES, tokenizers)
    folder = export(tmp_path / "export", ours, reader.family, reader.tokenizer, reader.mixture.chat)
    theirs = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(theirs) is type(ours)
    processor = (AutoImageProcessor if case.video else AutoProcessor).from_pretrained(folder)
    for row, size in enumerate(SIZES):
        batch = pack([[reader.document(Segment(0, 0, row))]], 0)
        if case.video:
            inputs = {"input_ids": batch.ids, **processor(picture(*size), return_tensors="pt")}
            inputs.pop("num_patches", None)
        else:
            inputs = processed(case, processor, size)
        assert inputs["input_ids"][0].tolist() == batch.ids[0].tolist()
        with torch.no_grad():
            found = theirs(**inputs).logits[0]
        assert (found - of_batch(reader.family, ours, batch)[0]).abs().max() <= 1e-5
