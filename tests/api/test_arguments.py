"""What calls are given: a wrong kind of value is named with what is taken in its place, before any work."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import vlmill
from tests.helpers.small import write_recipe
from vlmill.api.arguments import list_code_files
from vlmill.api.boundary import ELSEWHERE, KINDS


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


@pytest.mark.parametrize("rule", ["urls", "ids", "row_ids", "domains", "sha256", "trust_code", "filters"])
@pytest.mark.parametrize("value", [[None], 7, b"text"])
def test_what_is_no_text_is_not_taken_down(run, rule, value):
    with pytest.raises(TypeError, match=f"{rule}: .* give a text or a list of texts"):
        run.takedown(**{rule: value})


def test_code_is_named_by_one_path_or_several():
    assert list_code_files("a.py") == list_code_files(Path("a.py")) == list_code_files(["a.py"]) == ["a.py"]
    assert list_code_files(["a.py", Path("b.py")]) == ["a.py", "b.py"]


WRONG = {
    "str": 5,
    "int": 1.5,
    "float": "0.1",
    "bool": 1,
    "str | Path": 5,
    "str | Path | Mapping[str, Any]": ["a.yaml"],
    "str | Path | Mapping[str, Any] | LoadedRecipe": 5,
    "str | Path | Run | StageMixture": 5,
    "Mapping[str, Any]": ["seed=1"],
    "Mapping[str, str | Path]": "web=a",
    "Callable[[str], None]": "print",
    "Console": "stdout",
    "Machine": "cpu",
    "str | Sequence[str]": 7,
    "str | Path | Sequence[str | Path]": [None],
}
"""Annotation -> a value of another kind."""

RIGHT = {"str": "x", "int": 1, "str | Path": "nowhere", "str | Path | Mapping[str, Any]": "quickstart"}
RIGHT |= {"str | Path | Mapping[str, Any] | LoadedRecipe": "quickstart", "str | Path | Run | StageMixture": "x:y"}
RIGHT |= {"PreTrainedModel": None}
LATER = {"PreTrainedModel", "Any"}
"""Looked at where they are used: tests/train/test_torch_dataset.py."""


def list_callables():
    """Every public function, and every method of runs, stages and plans of ablations, by name."""
    for name in vlmill.__all__:
        item = getattr(vlmill, name)
        if inspect.isfunction(item):
            yield name, item
    for owner in (vlmill.Run, vlmill.StageMixture, vlmill.AblationPlan):
        for name, item in inspect.getmembers(owner, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{owner.__name__}.{name}", item


def list_arguments():
    """Every argument of these with a value of another kind; None where it is not taken."""
    for name, function in list_callables():
        for argument, one in inspect.signature(function).parameters.items():
            kind = str(one.annotation)
            if argument != "self" and kind not in LATER:
                yield name, argument, WRONG[kind.removesuffix(" | None")]
                if not kind.endswith(" | None") and kind in KINDS:
                    yield name, argument, None


@pytest.mark.parametrize(("name", "argument", "value"), [*list_arguments()])
def test_a_value_of_another_kind_is_named_with_what_is_taken(run, tmp_path, monkeypatch, name, argument, value):
    monkeypatch.chdir(tmp_path)
    function = dict(list_callables())[name]
    given = {
        other: RIGHT[str(one.annotation)]
        for other, one in inspect.signature(function).parameters.items()
        if one.default is one.empty and other != "self" and one.kind is not one.VAR_KEYWORD
    }
    empty = {one: object.__new__(getattr(vlmill, one)) for one in ("StageMixture", "AblationPlan")}
    owner = {"Run": run, **empty}.get(name.partition(".")[0])
    given |= {argument: value}
    with pytest.raises(TypeError, match=rf"^{argument}\W.*{re.escape(repr(value).strip('[]'))}.*[:;] ?.*give "):
        function(*([owner] if owner else []), **given)
    assert list(tmp_path.iterdir()) == []


def test_every_annotation_of_an_argument_is_known():
    kinds = {
        str(one.annotation).removesuffix(" | None")
        for _, function in list_callables()
        for argument, one in inspect.signature(function).parameters.items()
        if argument != "self"
    }
    assert kinds <= {*KINDS, *ELSEWHERE}


def test_a_call_with_too_few_arguments_is_pythons_own_error():
    with pytest.raises(TypeError, match="open_run.* missing 1 required positional argument: 'folder'"):
        vlmill.open_run()


def test_fewer_workers_than_none_are_refused_before_ray_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="workers=-1: give 0 for this process, a number of processes, or None"):
        vlmill.build("quickstart", workers=-1)
    assert list(tmp_path.iterdir()) == []
