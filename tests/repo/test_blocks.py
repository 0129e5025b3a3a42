"""Every block of code in the README and the manual is run, or checked as far as it goes without what it needs.

`tests/helpers/manual.py` says which is which. The blocks of a page run in their order in one folder, which has the
quickstart's run as `demo`.
"""

from __future__ import annotations

import sys
from collections import Counter
from types import ModuleType

import jsonschema
import pytest

from tests.helpers.manual import (
    LANGUAGES,
    PAGES,
    ROOT,
    WHY_NOT,
    Block,
    check_python_block,
    check_shell,
    find_difference,
    list_bare_blocks,
    list_blocks,
    list_lines,
    read_block,
    run_console,
    run_shell,
)
from tests.helpers.manual_files import build_demo, lay_out
from vlmill.mixtures.build import validate_mixtures
from vlmill.pipeline.cli.schema import describe_recipe
from vlmill.pipeline.core.yaml_format import format_yaml
from vlmill.pipeline.filters import FILTERS
from vlmill.pipeline.images import POLICIES
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.validate import validate_recipe
from vlmill.pipeline.signals import SIGNALS
from vlmill.pipeline.sources import SOURCES
from vlmill.train.ablation.spec import read_ablation
from vlmill.train.families import FAMILIES
from vlmill.train.validate import validate_training

BLOCKS = [block for page in PAGES for block in list_blocks(page)]
RUN = [page for page in PAGES if any(block.is_run for block in list_blocks(page))]
SCHEMA = describe_recipe()


def select_blocks(*languages):
    found = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=str)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manual")
    build_demo(folder)
    return folder


@pytest.fixture
def tables():
    """What blocks enter in the tables of kinds is taken out again."""
    before = [(table, dict(table)) for table in (SOURCES, FILTERS, SIGNALS, POLICIES, FAMILIES)]
    yield
    for table, kinds in before:
        table.clear()
        table.update(kinds)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page):
    assert list_bare_blocks(page) == [], "indented code: fence it, and name its language"
    for block in list_blocks(page):
        assert block.language in LANGUAGES, f"{block}: {block.language!r} is none of {LANGUAGES}"
        assert set(block.marks) <= set(WHY_NOT), f"{block}: {block.marks} are not among {WHY_NOT}"


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page, built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.syspath_prepend(tmp_path)
    lay_out(built, page, tmp_path)
    module = ModuleType("manual")
    monkeypatch.setitem(sys.modules, "manual", module)
    for block in list_blocks(page):
        if not block.is_run:
            continue
        if block.language == "console":
            run_console(block, tmp_path)
        elif block.language == "python":
            exec(compile(block.code, str(block), "exec"), module.__dict__)
        else:
            for line in list_lines(block):
                run_shell(line, tmp_path)


@select_blocks("sh", "console")
def test_commands_and_their_options_are_those_of_the_program(block):
    assert check_shell(block)


@select_blocks("python")
def test_code_is_code_and_names_what_is_there(block):
    check_python_block(block)


@select_blocks("text")
def test_what_is_text_holds_no_command(block):
    assert not [
        line for line in block.code.splitlines() if line.startswith(("vlmill ", "$ ", "python ", "pip ", "make "))
    ]


@select_blocks("yaml")
def test_yaml_is_a_recipe_or_a_part_of_one(block, tmp_path):
    check_yaml(block, tmp_path)


STAGE = {
    "name": "tune",
    "policy": "small",
    "mixture": {"shares": {"web": 1}, "sequence_length": 2048, "epochs": 1},
    "train": {"learning_rate": {"projector": 0.001}, "sequences": 2, "epochs": 1},
}
AROUND = {
    "sources": {"web": {"kind": "obelics", "files": "*.parquet"}},
    "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
    "tokenizer": "tokenizer.json",
}


def complete_part(data):
    """A recipe around a part of one: what a block of mixture, of training or of a source's options stands in."""
    stage = data["stages"][0] if "stages" in data else {}
    if "mixture" in data or "entries" in data:
        mixture = data.pop("mixture", None) or {"entries": data.pop("entries")}
        stage = {"mixture": mixture}
    if "train" in data:
        stage = {"train": {**STAGE["train"], **data.pop("train")}}
    if "options" in data:
        data["sources"] = {"quiz": {"kind": "table", "files": "*.csv", "options": data.pop("options")}}
    data = {"name": "part", **AROUND, **data}
    if stage:
        mixture = stage.get("mixture", STAGE["mixture"])
        if "published" not in mixture:
            mixture = {"sequence_length": 2048, **({} if "tokens" in mixture else {"epochs": 1}), **mixture}
        data["stages"] = [{**STAGE, **stage, "mixture": mixture}]
        names = {**mixture.get("shares", {}), **mixture.get("entries", {})}
        names |= dict.fromkeys((mixture.get("sources") or {}).values())
        data["sources"] = {**{name: AROUND["sources"]["web"] for name in names if "*" not in name}, **data["sources"]}
    return data


def check_yaml(block: Block, folder):
    """Hold a recipe, a part of one, or an ablation, against what reads it, or where that needs files, the schema."""
    data = read_block(block)
    path = folder / "block.yaml"
    if "variants" in data:
        path.write_text(format_yaml({"recipe": "quickstart", "baseline": next(iter(data["variants"])), **data}))
        assert read_ablation(path).variants
        return
    whole = "name" in data
    data = data if whole else complete_part(data)
    if block.marks:
        faults = list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(data))
        assert not faults, f"{block}: {faults[0].message}"
        return
    path.write_text(format_yaml(data))
    recipe = load_recipe(str(path))[0]
    validate_recipe(recipe)
    if whole:
        validate_mixtures(recipe)
        validate_training(recipe)


@pytest.mark.parametrize(
    "line",
    [
        "vlmill stats demo --htlm page.html",
        "vlmill mixtures shwo the_cauldron",
        "vlmill build quickstart --limit many",
        "make dmeo",
        "pip install '.[trian]'",
        "python -m benchmarks.kills --tiems 3",
        "vlmill stats 'demo",
    ],
)
def test_what_is_misspelt_is_found(line):
    with pytest.raises(AssertionError):
        check_shell(Block(ROOT / "README.md", 1, "sh", (), line))


def test_a_line_that_is_not_printed_is_found():
    assert not find_difference(["in 2", "...", "kept 1"], ["in 2", "lost 1", "kept 1"])
    assert find_difference(["in 2", "kept 1"], ["in 2", "lost 1", "kept 1"]) == "kept 1"
    assert find_difference(["...", "kept 2"], ["in 2", "kept 1"]) == "kept 2"


def test_no_block_is_neither_run_nor_checked():
    checked = {"sh", "console", "python", "yaml", "text", "{toctree}"}
    assert [str(block) for block in BLOCKS if not block.is_run and block.language not in checked] == []
    counts = Counter("run" if block.is_run else block.language for block in BLOCKS)
    assert counts["run"] > counts["sh"]  # most commands are run
