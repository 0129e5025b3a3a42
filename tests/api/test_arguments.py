"""What calls are given: a wrong kind of value is named with what is taken in its place, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmill
from tests.helpers.small import write_recipe
from vlmill.api.arguments import list_code_files


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arguments")
    return vlmill.build(write_recipe(folder / "input files"), folder / "run", workers=0, until="survey")


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("urls", "http://example.org/1.png"),
        ("ids", "web/web.parquet#0"),
        ("domains", "example.org"),
        ("sha256", "a" * 64),
    ],
)
def test_one_thing_to_take_down_needs_no_list(run, monkeypatch, rule, value):
    asked = []
    monkeypatch.setattr("vlmill.api.takedown.take_down", lambda _, rules, **__: asked.append(rules))
    run.takedown(**{rule: value})
    run.takedown(**{rule: [value]})
    assert asked[0] == asked[1]
    assert getattr(asked[0], rule) == (value,)


@pytest.mark.parametrize("rule", ["urls", "ids", "domains", "sha256", "trust_code", "filters"])
@pytest.mark.parametrize("value", [[None], 7, b"text"])
def test_what_is_no_text_is_not_taken_down(run, rule, value):
    with pytest.raises(TypeError, match=f"{rule}: .* give a text or a list of texts"):
        run.takedown(**{rule: value})


def test_code_is_named_by_one_path_or_several():
    assert list_code_files("a.py") == list_code_files(Path("a.py")) == list_code_files(["a.py"]) == ["a.py"]
    assert list_code_files(["a.py", Path("b.py")]) == ["a.py", "b.py"]


CALLS = [
    (lambda run: vlmill.load_recipe({"name": "x"}), "recipe is a dict: give a recipe file"),
    (lambda run: vlmill.build({"name": "x"}), "recipe is a dict: give a recipe file"),
    (lambda run: vlmill.check_recipe({"name": "x"}), "recipe is a dict: give a recipe file"),
    (lambda run: vlmill.estimate_training({"name": "x"}, 1), "recipe is a dict: give a recipe file"),
    (lambda run: run.what_if(recipe={"name": "x"}), "recipe is a dict: give a recipe file"),
    (lambda run: vlmill.load_recipe("quickstart", settings=["seed=1"]), "settings=.* give a dict, such as"),
    (lambda run: vlmill.load_recipe("quickstart", settings={1: 2}), "settings=.* give a dict, such as"),
    (lambda run: vlmill.load_recipe("quickstart", sources="web=a"), "sources=.* give a dict, such as"),
    (lambda run: vlmill.check_recipe("quickstart", sources=["web=a"]), "sources=.* give a dict, such as"),
    (lambda run: run.what_if("shape.max_ratio=2"), "settings=.* give a dict, such as"),
    (lambda run: vlmill.plan_ablation("quickstart", settings=["seeds=1"]), "settings=.* give a dict, such as"),
    (lambda run: vlmill.build("quickstart", workers="two"), "workers='two': give 0 for this process"),
    (lambda run: vlmill.check_recipe("quickstart", workers=1.5), "workers=1.5: give 0 for this process"),
    (lambda run: vlmill.ablate("quickstart", workers="two"), "workers='two': give 0 for this process"),
    (lambda run: run.verify("two"), "workers='two': give 0 for this process"),
    (lambda run: run.takedown(ids="web/a#0", workers="two"), "workers='two': give 0 for this process"),
    (lambda run: run.train(machine="cpu"), r"machine='cpu': give vlmill.Machine\(device='cpu'\)"),
    (lambda run: run.evaluate(machine="cpu"), r"machine='cpu': give vlmill.Machine\(device='cpu'\)"),
    (lambda run: vlmill.ablate("quickstart", machine="cpu"), r"machine='cpu': give vlmill.Machine\(device='cpu'\)"),
]


@pytest.mark.parametrize(("call", "said"), CALLS)
def test_a_value_of_another_kind_is_named_with_what_is_taken(run, tmp_path, monkeypatch, call, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=said):
        call(run)
    assert list(tmp_path.iterdir()) == []


def test_fewer_workers_than_none_are_refused_before_ray_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="workers=-1: give 0 for this process, a number of processes, or None"):
        vlmill.build("quickstart", workers=-1)
    assert list(tmp_path.iterdir()) == []
