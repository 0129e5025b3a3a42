"""An export's README: read as it says, an export sees in every pixel what training saw, torchvision or not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.stages import write_tokenizer
from tests.helpers.torchvision import install_torchvision
from tests.train.test_connectors import CONNECTED
from tests.train.test_families import CASES as FAMILIES
from tests.train.test_families import made, of_batch, picture
from vlmill.pipeline.chat.encode import FORMATS, IGNORE, encode_prompt, get_mark_id, load_tokenizer
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.images.decode import decode_image
from vlmill.train.batch import Document, pad_sequences
from vlmill.train.export import export_model

CASES = FAMILIES | CONNECTED
NAMES = (
    "llava", "llava, resized", "llava, cropped, CLIP", "llava, fused", "llava_next, CLIP", "llava_onevision, CLIP",
    "moondream", "gemma3", "idefics", "idefics2, split", "idefics3", "internvl", "fuyu", "paligemma",
    "qwen2_5_vl", "qwen3_vl", "qwen3_vl, RoPE-Tie v2",
    "llava, perceiver", "llava, fused and upsampled", "llava_next, upsampled and pooled",
)  # fmt: skip
"""Every image processor that an export may have, and every code."""

READ = """
import os, re, sys
from pathlib import Path
import numpy as np
import torch
from PIL import Image

torch.set_num_threads(1)
picture = Image.open(sys.argv[1])
for folder in sys.argv[2:]:
    code, *ask = re.findall("```python\\n(.*?)```", (Path(folder) / "README.md").read_text(), re.S)
    assert "PATH OF THIS FOLDER" in code
    said = {}
    exec(code.replace("PATH OF THIS FOLDER", folder), said)
    for name, images in (
        ("as it says", said["processor"].image_processor),
        ("by default", said["AutoImageProcessor"].from_pretrained(folder)),
    ):
        found = images(picture, return_tensors="pt")
        if not isinstance(found, torch.Tensor) and "pixel_values" not in found:  # Fuyu's, whose processor cuts patches
            processor = said["processor"]
            processor.image_processor = images
            found = processor(images=picture, text=processor.image_token, return_tensors="pt")
        found = found if isinstance(found, torch.Tensor) else found["pixel_values"]
        np.save(Path(folder) / f"{name}.npy", found.numpy())
        (Path(folder) / f"{name}.txt").write_text(images.backend)
    said["processor"].image_processor = said["AutoImageProcessor"].from_pretrained(folder, backend="pil")
    said["print"] = lambda answer: (Path(folder) / "answer.txt").write_text(f"answer: {answer}")
    exec("".join(ask).replace("picture.png", sys.argv[1]), said)
"""


ASK = """
import json, sys
from pathlib import Path
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

torch.set_num_threads(1)
picture = Image.open(sys.argv[1])
for folder in sys.argv[2:]:
    trust = {"trust_remote_code": any(Path(folder).glob("*.py"))}
    if trust["trust_remote_code"]:
        try:
            AutoModelForImageTextToText.from_pretrained(folder)
        except ValueError:
            pass
        else:
            sys.exit(f"{folder} was read without its code")
    model = AutoModelForImageTextToText.from_pretrained(folder, **trust)
    processor = AutoProcessor.from_pretrained(folder, **trust)
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **trust)
    content = [{"type": "text", "text": "It is."}, {"type": "image"}, {"type": "text", "text": "What colour is it?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=picture, text=text, return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs).logits[0, -1].tolist()
    said = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
    print("found:", json.dumps([inputs["input_ids"][0].tolist(), found, said]))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports of models that were not trained, and the pixels that each was to see of one picture."""
    root = tmp_path_factory.mktemp("exports")
    tokenizer = write_tokenizer(root / "tokenizer.json")
    picture(200, 140).resize((150, 90)).save(root / "picture.png")
    shown = Image.open(root / "picture.png")
    found = {}
    for name in NAMES:
        case = CASES[name]
        chat = FORMATS[case.chat]
        tokenizers = {case.chat: load_tokenizer(tokenizer, chat)}
        family, model = made(case, tokenizers)
        folder = export_model(root / name, model, family, tokenizers[case.chat], chat)
        (layout,) = case.lay_out([shown.size])
        tiles = tuple(case.policy.tiles(case.policy.render(shown, layout), layout))
        image = get_mark_id(tokenizers[case.chat], chat.image)
        ids = [get_mark_id(tokenizers[case.chat], chat.bos), *[image] * layout.tokens]
        batch = pad_sequences([[Document(0, ids, [IGNORE] * len(ids), (tiles,), (layout,))]], 0)
        found[folder] = family.inputs(model, batch)["pixel_values"].numpy()
    return root, found


def read_as_written(root, folders, ahead="", beside=None):
    """Run the code of each README in a process without our packages."""
    run_code(ahead + READ, root, folders, beside)


def run_code(code, root, folders, beside=None):
    """What code prints about a picture and folders, in a process without our packages."""
    environment = {**os.environ, "PYTHONPATH": str(beside or ""), "HF_MODULES_CACHE": str(root / "modules")}
    command = [sys.executable, "-P", "-c", code, str(root / "picture.png"), *map(str, folders)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def same_pixels(folder, name, ours):
    """Whether a processor gave what training showed; it is normalised in another order, so to 1e-5."""
    theirs = np.load(folder / f"{name}.npy")
    return theirs.size == ours.size and np.abs(theirs.reshape(-1) - ours.reshape(-1)).max() < 1e-5


def test_read_as_its_readme_says_an_export_sees_what_training_saw(exported):
    root, found = exported
    folders = [folder for folder in found if not CASES[folder.name].video]
    read_as_written(root, folders)
    assert {folder.name for folder in folders if not (folder / "answer.txt").exists()} == {"idefics"}
    assert {folder.name for folder in folders if not same_pixels(folder, "as it says", found[folder])} == set()


def test_beside_torchvision_it_does_so_too_and_would_not_by_default(exported, tmp_path):
    root, found = exported
    try:
        ahead = install_torchvision(tmp_path)
    except LookupError as reason:
        pytest.skip(str(reason))
    read_as_written(root, found, ahead, tmp_path)
    assert {folder.name for folder in found if not same_pixels(folder, "as it says", found[folder])} == set()
    assert {(folder / "by default.txt").read_text() for folder in found} == {"torchvision"}
    assert {folder.name for folder in found if same_pixels(folder, "by default", found[folder])} == set()


def test_beside_torchvision_videos_processors_and_connectors_give_tokens_and_answers_of_training(exported, tmp_path):
    root, found = exported
    try:
        ahead = install_torchvision(tmp_path)
    except LookupError as reason:
        pytest.skip(str(reason))
    folders = [folder for folder in found if CASES[folder.name].video or folder.name in CONNECTED]
    said = run_code(ahead + ASK, root, folders, tmp_path)
    lines = [json.loads(line) for line in re.findall("found: (.*)", said)]
    nodes = (
        Node("text", "user", text="It is."),
        Node("image", "user", image=0),
        Node("text", "user", text="What colour is it?"),
    )
    for folder, (asked, first, answer) in zip(folders, lines, strict=True):
        case = CASES[folder.name]
        tokenizers = {case.chat: load_tokenizer(root / "tokenizer.json", FORMATS[case.chat])}
        family, model = made(case, tokenizers)
        shown = Image.open(root / "picture.png")
        layouts = case.lay_out([shown.size])
        tiles = case.policy.tiles(case.policy.render(shown, layouts[0]), layouts[0])
        assert encode_prompt(nodes, layouts, tokenizers[case.chat], FORMATS[case.chat]) == asked
        ids = [*asked, *answer[:-1]]
        batch = pad_sequences([[Document(0, ids, [IGNORE] * len(ids), (tiles,), layouts)]], 0)
        logits = of_batch(family, model, batch)[0, len(asked) - 1 :]
        assert (logits[0] - torch.tensor(first)).abs().max() <= 1e-5
        assert logits.argmax(-1).tolist() == answer


def test_its_code_composites_transparency_as_training_did(exported, tmp_path, monkeypatch):
    root, _ = exported
    pixels = np.random.default_rng(3).integers(0, 256, (40, 30, 4), np.uint8)
    said = Image.fromarray(pixels)
    exif = said.getexif()
    exif[0x0112] = 6
    said.save(tmp_path / "picture.png", exif=exif)
    _, code, _ = re.findall(r"```python\n(.*?)```", (root / "llava" / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    run = {}
    exec(code, run)
    ours = decode_image((tmp_path / "picture.png").read_bytes())
    assert run["picture"].size == ours.size == (40, 30)
    assert np.array_equal(np.asarray(run["picture"]), np.asarray(ours))


def test_it_says_what_a_folder_needs_besides(exported):
    root, _ = exported
    texts = {name: (root / name / "README.md").read_text() for name in NAMES}
    code = {name for name, text in texts.items() if "trust_remote_code=True" in text}
    assert code == {name for name in NAMES if CASES[name].code}
    assert {name for name, text in texts.items() if "Install torchvision" in text} == {
        name for name in NAMES if CASES[name].video
    }
    unasked = {name for name, text in texts.items() if "apply_chat_template" not in text}
    assert unasked == {"idefics"}, "whose processor has no chat template in transformers"
    assert "LlavaNextForConditionalGeneration" in texts["llava_next, CLIP"]
