"""The export: transformers runs it without us, and sees what our shards showed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.stages import ANYRES, LETTERBOX, model_settings, question, write_run
from vlmill.mixtures.reader import PlannedMixture, Segment
from vlmill.pipeline.chat.encode import FORMATS, join_segment, load_tokenizer
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.patches import Patches
from vlmill.train.batch import pad_sequences
from vlmill.train.data import Reader
from vlmill.train.export import export_model
from vlmill.train.families import FAMILIES, find_family
from vlmill.train.model import compute_features, create_model
from vlmill.train.settings import Connector, FusedTower, RawPatches, TextModel

CHAT = FORMATS["vlmill"]


def tower(kind):
    return model_settings("llava", kind).vision


CASES = {
    "letterbox, SigLIP": (model_settings("llava"), LETTERBOX),
    "anyres, SigLIP": (model_settings("llava_next"), ANYRES),
    "letterbox, CLIP": (model_settings("llava", "clip"), Letterbox(side=28, patch=14, fill=(122, 116, 104))),
    "anyres, CLIP": (model_settings("llava_next", "clip"), ANYRES),
    "fused": (
        replace(model_settings("llava"), vision=FusedTower("fused", *map(tower, ("dinov2", "siglip")))),
        LETTERBOX,
    ),
    "fused, three layers": (
        replace(
            model_settings("llava"),
            vision=FusedTower("fused", *map(tower, ("dinov2", "siglip"))),
            connector=Connector("fused_mlp"),
        ),
        LETTERBOX,
    ),
    "fused, upsampled": (
        replace(
            model_settings("llava"),
            vision=FusedTower("fused", *map(tower, ("dinov2", "siglip"))),
            connector=Connector("c_abstractor", depth=1, side=3, upsample=2),
        ),
        LETTERBOX,
    ),
    "connected": (replace(model_settings(), connector=Connector("shuffle", factor=2)), ANYRES),
    "moondream": (
        replace(model_settings("llava"), family="moondream", text=TextModel("phi", 64, 2, 2)),
        LETTERBOX,
    ),
    "fuyu": (
        replace(model_settings(), family="fuyu", vision=RawPatches("patches", 14)),
        Patches(width=70, height=42, patch=14),
    ),
}

WITHOUT_US = """
import json, sys
from pathlib import Path

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"vlmill", "pipeline", "mixtures", "train", "recipes", "tests"}:
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Refusing())
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

torch.set_num_threads(1)
picture = Image.open(sys.argv[1])
for folder in sys.argv[2:]:
    trust = any(Path(folder).glob("*.py"))
    model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=trust)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What colour is it?"}]
    asked = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(asked, add_generation_prompt=True)
    inputs = processor(images=picture, text=text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1].tolist()
    answer = pipeline("image-text-to-text", model=model, processor=processor)
    said = answer(text=asked, max_new_tokens=4, return_full_text=False)[0]["generated_text"]
    ids = inputs["input_ids"][0].tolist()
    found = {"ids": ids, "logits": logits, "class": type(model).__name__, "said": said}
    print("found:", json.dumps(found))
"""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(width, height, seed=0):
    """A picture in which every pixel matters."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def made(root, policy, ours, sizes):
    """A run whose samples ask about random pictures of `sizes`, its reader, and a model."""
    nodes, _ = question(0)
    name = FAMILIES[ours.family].chat
    samples = {"quiz": [(nodes, [picture(*size)]) for size in sizes]}
    write_run(root, samples, policy, chat=name, connector=asdict(ours.connector))
    mixture, chat = PlannedMixture(root, "align"), FORMATS[name]
    tokenizer = load_tokenizer(mixture.tokenizer, chat)
    reader = Reader(mixture, tokenizer, find_family(ours, mixture.policy, name), "answers")
    return reader, create_model(reader.family, tokenizer, chat, 0).eval()


def our_logits(reader, model, row):
    batch = pad_sequences([[reader.document(Segment(0, 0, row))]], 0)
    with torch.no_grad():
        return model.get_output_embeddings()(compute_features(model, reader.family, batch))[0], batch.ids[0]


def test_the_template_of_the_processor_gives_the_tokens_of_encode(tmp_path):
    reader, model = made(tmp_path / "run", ANYRES, model_settings(), [(40, 20), (20, 60)])
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(
        export_model(tmp_path / "export", model, reader.family, reader.tokenizer, CHAT)
    )
    nodes = [
        Node("text", "system", 0, text="Be brief."),
        Node("text", "user", 0, text="Compare "),
        Node("image", "user", 0, image=0),
        Node("text", "user", 0, text=" with "),
        Node("image", "user", 0, image=1),
        Node("text", "assistant", 0, True, "Both are noise."),
        Node("text", "user", 1, text="Sure?"),
        Node("text", "assistant", 1, True, "Yes."),
    ]
    pictures = [picture(40, 20), picture(20, 60)]
    parts = [
        {"type": "image", "image": pictures[node.image]}
        if node.kind == "image"
        else {"type": "text", "text": node.text}
        for node in nodes
    ]
    asked = [
        {"role": "system", "content": parts[:1]},
        {"role": "user", "content": parts[1:5]},
        {"role": "assistant", "content": parts[5:6]},
        {"role": "user", "content": parts[6:7]},
        {"role": "assistant", "content": parts[7:]},
    ]
    theirs = processor.apply_chat_template(asked, tokenize=True, return_dict=True)
    layouts = ANYRES.layout([image.size for image in pictures])
    assert list(theirs["input_ids"][0]) == join_segment(nodes, layouts, reader.tokenizer, CHAT).ids


def test_a_process_without_our_code_runs_it_and_sees_the_same_logits(tmp_path):
    names = ["letterbox, SigLIP", "anyres, CLIP", "fused", "fused, three layers", "fused, upsampled", "connected"]
    names += ["moondream", "fuyu"]
    both = [made(tmp_path / str(place), CASES[name][1], CASES[name][0], [(50, 20)]) for place, name in enumerate(names)]
    folders = [
        export_model(tmp_path / f"export-{name}", model, reader.family, reader.tokenizer, reader.mixture.chat)
        for name, (reader, model) in zip(names, both, strict=True)
    ]
    picture(50, 20).save(tmp_path / "picture.png")
    command = [sys.executable, "-P", "-c", WITHOUT_US, str(tmp_path / "picture.png"), *map(str, folders)]
    env = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [
        json.loads(line.removeprefix("found: ")) for line in done.stdout.splitlines() if line.startswith("found: ")
    ]
    for (reader, model), theirs in zip(both, answers, strict=True):
        expected, ids = our_logits(reader, model, 0)
        asked = len(theirs["ids"])
        assert theirs["class"] == type(model).__name__
        assert theirs["ids"] == ids[:asked].tolist()
        torch.testing.assert_close(torch.tensor(theirs["logits"]), expected[asked - 1], atol=1e-5, rtol=0)
        assert isinstance(theirs["said"], str)


def test_an_export_replaces_an_older_one_whole(tmp_path):
    reader, model = made(tmp_path / "run", ANYRES, model_settings(), [(30, 30)])
    target = tmp_path / "export"
    target.mkdir()
    (target / "left-over.bin").write_bytes(b"of an older version")
    export_model(target, model, reader.family, reader.tokenizer, CHAT)
    assert not (target / "left-over.bin").exists()
    (target / "new").touch()
    assert len({path.stat().st_mode for path in target.iterdir()}) == 1, "whoever may read others may read the weights"
    assert not list(tmp_path.glob(".*"))


def test_generation_ends_with_the_turn(tmp_path):
    reader, model = made(tmp_path / "run", ANYRES, model_settings(), [(30, 30)])
    settings = json.loads(
        (
            export_model(tmp_path / "export", model, reader.family, reader.tokenizer, CHAT) / "generation_config.json"
        ).read_bytes()
    )
    ends = [reader.tokenizer.token_to_id(mark) for mark in (CHAT.end, CHAT.eos)]
    assert settings["eos_token_id"] == ends
