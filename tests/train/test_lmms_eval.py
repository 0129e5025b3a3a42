"""Exports under lmms-eval, against stand-ins for the names it needs: base class, manifest, requests."""

from __future__ import annotations

import importlib
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from PIL import Image

from tests.helpers.stages import COLOURS, model_settings, picture, question, write_run
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.chat.encode import load_tokenizer
from vlmill.train.export import export_model
from vlmill.train.families import find_family
from vlmill.train.model import create_model


@dataclass
class Manifest:
    model_id: str
    simple_class_path: str | None = None


@dataclass
class Cache:
    answers: list = field(default_factory=list)

    def add_partial(self, kind, request, answer):
        self.answers.append((kind, request[0], answer))


class Base:
    def __init__(self):
        self.cache_hook, self.task_dict = Cache(), {}


@pytest.fixture
def lmms(monkeypatch):
    """`vlmill.train.lmms_eval` over the stand-ins."""
    for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "lmms_eval.api.model", SimpleNamespace(lmms=Base))
    monkeypatch.setitem(sys.modules, "lmms_eval.models.registry_v2", SimpleNamespace(ModelManifest=Manifest))
    yield importlib.import_module("vlmill.train.lmms_eval")
    sys.modules.pop("vlmill.train.lmms_eval", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The export of a model that was not trained."""
    root = write_run(tmp_path_factory.mktemp("run"), {"quiz": [question(number) for number in range(8)]}, length=96)
    mixture = PlannedMixture(root, "align")
    family, tokenizer = find_family(model_settings(), mixture.policy), load_tokenizer(mixture.tokenizer, mixture.chat)
    return export_model(
        root / "export", create_model(family, tokenizer, mixture.chat, 3), family, tokenizer, mixture.chat
    )


def request(document, question="What colour is it?", **settings):
    """A question about a document's images, as a task of lmms-eval asks it."""
    return SimpleNamespace(args=(question, settings, lambda found: found["images"], document, "colours", "test"))


def test_the_plugin_names_a_class_that_is_there(lmms):
    told = lmms.make_manifest()
    module, _, name = told.simple_class_path.rpartition(".")
    assert (told.model_id, module, getattr(lmms, name)) == ("vlmill", "vlmill.train.lmms_eval", lmms.ExportedModel)
    assert lmms.ExportedModel.is_simple
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"vlmill": "vlmill.train.lmms_eval:make_manifest"}


def test_images_are_prepared_as_in_training_beside_torchvision_too(lmms, folder, monkeypatch):
    made, asked = lmms.AutoImageProcessor.from_pretrained, []

    def note(*places, **how):
        asked.append(how.get("backend"))
        return made(*places, **how)

    monkeypatch.setattr(lmms.AutoImageProcessor, "from_pretrained", note)
    model = lmms.ExportedModel(str(folder), device="cpu")
    assert asked[-1] == "pil"
    assert model.processor.image_processor.backend == "pil"


def test_questions_are_answered_in_order_and_noted_in_its_cache(lmms, folder):
    model = lmms.ExportedModel(str(folder), device="cpu")
    documents = [{"images": [picture(colour, 1)]} for colour in COLOURS] + [{"images": []}]
    model.task_dict["colours"] = {"test": documents}
    asked = [request(place, max_new_tokens=3) for place in range(len(documents))]
    answers = model.generate_until(asked)
    assert len(answers) == len(asked)
    assert [answer for _, _, answer in model.cache_hook.answers] == answers
    assert model.generate_until(asked[::-1]) == answers[::-1]
    assert "<|" not in "".join(answers)


QUESTIONS = (
    "What colour is it?",
    "Is it?",
    "What colour is it, and what is the colour of the other picture beside it?",
)


def test_answers_are_the_same_however_many_are_asked_for_at_a_time(lmms, folder):
    images = [[], [0], [1, 2], [3], [], [], [2], [1], [0, 3, 1]]
    documents = [{"images": [picture(list(COLOURS)[one], 3 * one) for one in shown]} for shown in images]
    settings = [{"max_new_tokens": 8}] * 7 + [{"max_new_tokens": 3}] * 2
    said = {}
    for size in (1, 2, 4):
        model = lmms.ExportedModel(str(folder), device="cpu", batch_size=size)
        model.task_dict["colours"] = {"test": documents}
        asked = [request(place, question=QUESTIONS[place % 3], **how) for place, how in enumerate(settings)]
        said[size] = model.generate_until(asked)
        assert [answer for _, _, answer in model.cache_hook.answers] == said[size]
    assert said[1] == said[2] == said[4]
    assert len(set(said[1])) > 1


def test_an_answer_ends_where_the_task_says(lmms, folder):
    model = lmms.ExportedModel(str(folder), device="cpu")
    model.task_dict["colours"] = {"test": [{"images": [Image.new("RGB", (30, 20))]}]}
    (whole,) = model.generate_until([request(0, max_new_tokens=12)])
    stop = whole[len(whole) // 2]
    (cut,) = model.generate_until([request(0, max_new_tokens=12, until=[stop])])
    assert cut == whole.partition(stop)[0].strip()


def test_what_is_not_offered_is_refused(lmms, folder):
    for size in (0, "auto"):
        with pytest.raises(ValueError, match=f"batch_size: {size}; .* a number of questions, from 1 on"):
            lmms.ExportedModel(str(folder), device="cpu", batch_size=size)
    model = lmms.ExportedModel(str(folder), device="cpu")
    for method in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="generate_until"):
            method([])
