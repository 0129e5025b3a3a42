"""The JSON Schema of recipes says what the loader says, and the reference is written from it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from tests.helpers.small import RECIPE, vlmill
from vlmill.pipeline.cli.schema import describe_recipe
from vlmill.pipeline.core.yaml_format import read_yaml
from vlmill.pipeline.filters import FILTERS
from vlmill.pipeline.images import POLICIES
from vlmill.pipeline.recipe.reference import write_reference
from vlmill.pipeline.sources import SOURCES

ROOT = Path(__file__).parents[2]
SCHEMA = describe_recipe()


def find_faults(recipe):
    return list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(recipe))


def test_it_is_a_schema_and_the_command_prints_it(capsys):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert vlmill("schema") == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_keeps_to_it(path):
    assert not find_faults(read_yaml(path))


def test_the_small_recipe_keeps_to_it():
    assert not find_faults(RECIPE)
    assert not find_faults({**RECIPE, "filters": [{"language": None}, {"mine": {"least": 3}}], "dedupe": None})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sauces",), {}),
        (("seed",), "many"),
        (("partition", "rows"), 0),
        (("sources", "web", "kind"), "obelix"),
        (("sources", "web", "licens"), "x"),
        (("sources", "web"), {"files": "x"}),  # without a kind, and nothing is included
        (("sources", "papers", "options"), {"long_sides": 5}),
        (("sources", "papers", "options"), {"paragraphs": True}),  # of another kind
        (("filters", 1, "shape", "max_ration"), 2),
        (("filters", 1), {"shape": None, "language": None}),
        (("policies", "small", "kind"), "letterbux"),
        (("policies", "small", "longest"), 980),  # of another kind
        (("stages", 0, "mixture", "sequence_lenght"), 3),
        (("stages", 0, "train", "rowz"), 3),
        (("stages", 0, "train", "learning_rate", "texts"), 0.1),
        (("model", "text", "kind"), "gpt"),
        (("model", "vision", "layers"), 0),
        (("decontaminate",), {"action": "drop"}),  # against nothing, and nothing is included
        (("custom_filters",), {}),  # comes with --filter
    ],
    ids=str,
)
def test_what_the_loader_refuses_the_schema_marks(path, value):
    recipe = copy.deepcopy(RECIPE)
    place = recipe
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert find_faults(recipe)


def test_every_kind_is_in_it_with_what_it_says():
    text = json.dumps(SCHEMA)
    for table in (SOURCES, POLICIES):
        assert all(f'"const": "{kind}"' in text for kind in table)
    assert all(f'"{name}": ' in text for name in FILTERS)
    for block in ("SourceSettings", "Fetch", "MixtureSettings", "Training", "ModelSettings"):
        assert SCHEMA["$defs"][block]["description"]
    assert SCHEMA["$defs"]["Fetch"]["properties"]["max_bytes"]["description"] == "of one body, packed or unpacked"
    shape = SCHEMA["properties"]["filters"]["items"]["properties"]["shape"]["anyOf"][0]["properties"]
    assert shape["max_pixels"]["description"] == "width times height at most."  # from the docstring's attributes


def test_the_reference_is_the_one_that_the_schema_gives(capsys):
    assert vlmill("schema", "--markdown") == 0
    written = capsys.readouterr().out
    assert written == write_reference(SCHEMA)
    same = (ROOT / "docs/recipe.md").read_text(encoding="utf-8") == written
    assert same, "docs/recipe.md is of another schema; write it with: vlmill schema --markdown > docs/recipe.md"


SOURCE = """
class Cards:
    kind: ClassVar[str] = "cards"
    def page(self, row): ...

class Mentions:
    name = "mentions"
    def score(self, model, batch): ...

raise SystemExit("nothing of this file runs")
"""


def test_every_key_of_the_reference_has_a_meaning():
    empty, section = [], ""
    for line in write_reference(SCHEMA).splitlines():
        section = line if line.startswith("#") else section
        if line.startswith("| `") and not line.removesuffix("|").rpartition(" | ")[2].strip():
            empty.append(f"{section}: {line}")
    assert not empty, f"put a comment behind these fields in their classes: {empty}"


def test_kinds_in_files_of_a_user_are_known_where_the_schema_is_written_with_them(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(SOURCE)
    recipe = copy.deepcopy(RECIPE)
    recipe["sources"]["cards"] = {"kind": "cards", "files": "*.jsonl", "options": {"deck": 3}}
    recipe["signals"] = {"mentions": {"pattern": "x"}, "prices": {"kind": "mentions"}}
    assert find_faults(recipe)
    assert vlmill("schema", "--filter", tmp_path / "mine.py") == 0
    mine = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(mine)
    assert [fault.message for fault in jsonschema.Draft202012Validator(mine).iter_errors(recipe)] == []
    recipe["sources"]["cards"]["kind"] = "card"
    assert list(jsonschema.Draft202012Validator(mine).iter_errors(recipe))
    assert vlmill("schema", "--filter", tmp_path / "none.py") == 1
