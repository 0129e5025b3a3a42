"""A custom source: from a file on the command line to rows, the lock and the key; a run is read without its code."""

from __future__ import annotations

import json
import pickle
import shlex

import pytest

from tests.helpers.small import vlmill, write_recipe
from tests.helpers.upstream import picture
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.keys import hash_value
from vlmill.pipeline.core.sample import read_samples
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.recipe.custom_sources import CustomSource, find_source_classes, read_source_kinds
from vlmill.pipeline.recipe.load import load_readable, load_recipe
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.refused import read_refused_rows
from vlmill.pipeline.reports.verify import verify_run

SOURCE = """
from typing import ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, Picture
from vlmill.pipeline.sources.formats.json_rows import JsonSource


@dataclass(frozen=True, config=STRICT)
class Delivery(JsonSource):
    kind: ClassVar[str] = "delivery"
    opens: ClassVar[bool] = True
    system: bool = True

    def keys(self):
        return (("talk",),)

    def reads(self):
        return ("talk", "media")

    def shows(self):
        return ("media",)

    def page(self, row):
        nodes = [Node("image", "user", image=0, required=True)]
        for said in row["talk"]["turns"]:
            spoken = "assistant" if said["by"] == "agent" else "user"
            nodes.append(Node("text", spoken, supervised=spoken == "assistant", text=said["said"]))
        return Page(tuple(nodes), (Picture(path=row["media"]["rel"]),))
"""


def make_source(code=SOURCE, **settings):
    return CustomSource("delivery", settings, custom_filters.hash_code(code), code, "delivery.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deliveries")
    recipe = write_recipe(
        folder, stages=[], sources={"shop": {"kind": "delivery", "files": "rows.jsonl", "licence": "CC0-1.0"}}
    )
    rows = [
        {
            "media": {"rel": f"{number}.png"},
            "talk": {
                "turns": [{"by": "client", "said": f"What is {number}?"}, {"by": "agent", "said": f"It is {number}."}]
            },
        }
        for number in range(4)
    ]
    rows[2]["talk"]["turns"][0].pop("by")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture(number, (160, 120)))
    (folder / "delivery.py").write_text(SOURCE)
    assert vlmill("build", recipe, "--out", folder / "run", "--workers", 0, "--filter", folder / "delivery.py") == 0
    return folder


def test_a_build_reads_its_rows_and_says_where_its_code_broke(folder):
    (path,) = (folder / "run").glob("steps/shop/read/*.samples.parquet")
    found = [[node.text for node in sample.nodes] for sample in read_samples(path)]
    assert found == [[None, f"What is {n}?", f"It is {n}."] for n in (0, 1, 3)]
    (lost,) = read_refused_rows(folder / "run", read_locked_recipe(folder / "run"), "shop")
    assert (lost.id.row, str(lost.reason), lost.detail) == (2, "bad_row", "delivery.py:30: KeyError: 'by'")


def test_a_run_is_read_without_its_code_and_built_with_the_file_or_the_sha256(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w').close()\n{SOURCE}"
    for line in ("status run", "report run", "verify run", "trace run shop/rows.jsonl#0"):
        assert vlmill(*shlex.split(line)) == 0, line
    recipe = read_locked_recipe(folder / "run")
    assert recipe.source("shop").opens
    assert recipe.source("shop").code is None
    with pytest.raises(RecipeError, match=r"sources.shop: rows of kind 'delivery' .* if the command line names it"):
        recipe.source("shop").survey(folder / "rows.jsonl")
    assert list(verify_run(folder / "run")) == []
    build = ("build", "recipe.yaml", "--out", "run", "--workers", 0)
    capsys.readouterr()
    assert vlmill(*build) == 1
    digest = custom_filters.hash_code(SOURCE)
    assert f"--trust-code={digest}" in "".join(capsys.readouterr().err.split("\n"))
    assert vlmill(*build, "--trust-code", digest) == 0
    capsys.readouterr()
    assert vlmill("what-if", "recipe.yaml", "--out", "run", "--set", "shape.min_side=500") == 0
    printed = capsys.readouterr().out
    applies = "vlmill build recipe.yaml --out run --accept-changes --filter=delivery.py --set=shape.min_side=500"
    assert f"To apply it: {applies}" in printed
    (folder / "other.py").write_text(code)
    assert vlmill(*build, "--filter", "other.py") == 1  # another file: the run is locked to the first
    assert vlmill("status", "run") == 0


def test_its_fields_are_its_options_and_others_are_refused():
    assert make_source(system=False)._made().system is False
    with pytest.raises(RecipeError, match=r"sources.options: unknown key 'sytem'; did you mean 'system'\?"):
        make_source(sytem=False)


def test_an_edit_of_the_code_or_an_option_is_another_key_and_the_name_of_the_file_is_not():
    same = CustomSource("delivery", {}, custom_filters.hash_code(SOURCE), None, "renamed.py", entry="shop", opens=True)
    assert hash_value(make_source()) == hash_value(same)
    assert len({hash_value(one) for one in (same, make_source(SOURCE + "\n"), make_source(system=True))}) == 3


def test_it_travels_to_a_worker(folder):
    sent = pickle.loads(pickle.dumps(make_source()))
    assert [row.row for row in sent.rows(folder / "rows.jsonl", [1, 3])] == [1, 3]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '= "delivery"',
            '= "deli" + "very"',
            'kind of source Delivery has to stand in its class as it is: kind: .* = "d',
        ),
        (
            "opens: ClassVar[bool] = True",
            "opens: ClassVar[bool] = not 0",
            r"say opens in its class as it is: opens: .* = True",
        ),
        ("opens: ", "isolated: ClassVar[bool] = True\n    opens: ", "source Delivery is isolated, which"),
        ("frozen=True", "frozen=False", "source Delivery is no frozen dataclass"),
        ("def page", "def page(", "mine.py, line 27: "),
    ],
)
def test_a_class_that_does_not_keep_to_the_rules_is_named(old, new, message):
    assert set(find_source_classes("mine.py", SOURCE)) == {"delivery"}
    with pytest.raises(RecipeError, match=message):
        find_source_classes("mine.py", SOURCE.replace(old, new))


def test_kinds_are_read_without_running_the_file():
    assert read_source_kinds("import gone\n" + SOURCE) == {
        "delivery": {"fetches": False, "opens": True, "captions": False}
    }
    assert read_source_kinds("class (") == {}


def test_a_kind_that_is_taken_or_unknown_is_refused(folder):
    path = str(folder / "recipe.yaml")
    with pytest.raises(RecipeError, match="mine.py: the kind 'obelics' is taken: a source of ours has it"):
        load_recipe(path, filters=[("mine.py", SOURCE.replace('"delivery"', '"obelics"'))])
    with pytest.raises(RecipeError, match="the kind 'delivery' is taken: a source of a.py has it"):
        load_recipe(path, filters=[("a.py", SOURCE), ("b.py", SOURCE)])
    unknown = r"sources\.shop\.kind: 'delivery' is unknown; allowed: .*--filter FILE; docs/adding.md"
    with pytest.raises(RecipeError, match=unknown):
        load_recipe(path)
    faults = load_readable(path, sets={"seed": "x"}).faults  # beside what else is wrong
    assert len(faults) == 2


def test_a_takedown_reads_again_by_its_code_and_other_workers_make_the_same_run(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    named = ("--filter", "delivery.py")
    for place, workers in (("alone", 0), ("shared", 2)):
        run = tmp_path / place
        assert vlmill("build", "recipe.yaml", "--out", run, "--workers", workers, *named) == 0
        assert vlmill("takedown", run, "--id", "shop/rows.jsonl#1") == 1  # its code is not named
        assert vlmill("takedown", run, "--id", "shop/rows.jsonl#1", "--workers", workers, *named) == 0
        assert vlmill("build", "recipe.yaml", "--out", run, "--workers", workers, *named) == 0
        assert list(verify_run(run)) == []
    capsys.readouterr()
    assert vlmill("trace", tmp_path / "shared", "shop/rows.jsonl#1") == 0
    assert "taken_down" in capsys.readouterr().out
    made = [
        {path.name: path.read_bytes() for path in sorted((tmp_path / place).glob("shards/**/*.tar"))}
        for place in ("alone", "shared")
    ]
    assert made[0] == made[1]
    assert made[0]
    assert not any(b"What is 1?" in data for data in made[0].values())
