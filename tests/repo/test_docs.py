"""The documentation against the repository: sizes, links, the tree of packages, commands, files and recipes."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
import yaml

from vlmill.mixtures.build import validate_mixtures
from vlmill.mixtures.config import MixtureSettings
from vlmill.pipeline.cli import app
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.filters import FILTERS
from vlmill.pipeline.filters.custom import find_filter_classes, hash_code
from vlmill.pipeline.images import POLICIES
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.validate import validate_recipe
from vlmill.pipeline.signals import DERIVED, SIGNALS, SignalBatch
from vlmill.pipeline.signals.custom import CustomSignal
from vlmill.pipeline.sources import SOURCES
from vlmill.train.families import FAMILIES
from vlmill.train.validate import validate_training

ROOT = Path(__file__).parents[2]
README, ARCHITECTURE = ROOT / "README.md", ROOT / "ARCHITECTURE.md"
MANUAL = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ARCHITECTURE, ROOT / "recipes/README.md", *MANUAL]
PACKAGES = ("pipeline", "mixtures", "train")


def name_page(path):
    return str(path.relative_to(ROOT))


def read_page(path):
    return path.read_text(encoding="utf-8")


def list_blocks(path, language):
    """The fenced blocks of a language, as they stand."""
    return re.findall(rf"^```{language}\n(.*?)^```", read_page(path), re.DOTALL | re.MULTILINE)


def list_commands():
    """Name of each command -> its options; those of a group by both names."""
    command = typer.main.get_command(app)
    found = {}
    for name, item in command.commands.items():
        found[name] = {option for parameter in item.params for option in parameter.opts}
        for below, inner in getattr(item, "commands", {}).items():
            found[f"{name} {below}"] = {option for parameter in inner.params for option in parameter.opts}
    return found


COMMANDS = list_commands()
BEFORE = {option for parameter in typer.main.get_command(app).params for option in parameter.opts}
"""Options before the name of a command."""


def test_the_readme_is_short():
    assert len(read_page(README).split()) <= 1200


def test_the_site_has_every_page_of_the_manual_once():
    index = read_page(ROOT / "docs/index.md")
    listed = [name for name in re.findall(r"^([a-z-]+)$", index, re.MULTILINE) if name != "python"]
    assert sorted(listed) == sorted(path.stem for path in MANUAL if path.stem != "index")


def test_lines_of_the_manual_fit():
    """Tables and code have lines of their own length, and so has the page that a command writes."""
    long = list[str]()
    for path in [README, *MANUAL]:
        code = False
        for number, line in enumerate(read_page(path).splitlines(), 1):
            code ^= line.lstrip().startswith("```")
            if len(line) > 120 and not code and not line.lstrip().startswith("|") and path.stem != "recipe":
                long.append(f"{path.name}:{number}")
    assert long == []


def test_architecture_is_short_and_its_lines_fit():
    text = read_page(ARCHITECTURE)
    assert len(text.split()) <= 3500
    assert [line for line in text.splitlines() if len(line) > 120] == []


def list_tree():
    """The paths in the tree of ARCHITECTURE.md; folders end with a slash."""
    _, tree = list_blocks(ARCHITECTURE, "text")
    above, paths = [], []
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        above[depth:] = [name]
        paths.append("".join(above))
    return paths


def test_the_tree_names_what_is_there():
    assert [path for path in list_tree() if not (ROOT / path).exists()] == []


def test_the_tree_names_every_package():
    there = {f"{path.parent.relative_to(ROOT)}/" for name in PACKAGES for path in (ROOT / name).rglob("__init__.py")}
    assert there - set(list_tree()) == set()


def test_the_layers_are_those_of_the_test():
    from tests.repo.test_layers import LAYERS

    rows = re.findall(r"^\| (\d+) \| (.*) \|$", read_page(ARCHITECTURE), re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", names)) for _, names in rows] == [set(names) for names in LAYERS]


def make_anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", read_page(path), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_relative_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", read_page(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in make_anchors(target), link


def test_every_page_of_the_manual_is_two_clicks_from_the_readme():
    assert "](docs/index.md)" in read_page(README)
    linked = set(re.findall(r"\]\(([\w-]+\.md)", read_page(ROOT / "docs/index.md")))
    assert linked >= {path.name for path in MANUAL} - {"index.md"}


def list_invocations(page):
    """The command lines of `vlmill` within a page's lines: the words behind the name. Blocks are `test_blocks.py`'s."""
    return re.findall(r"`(?:\.venv/bin/)?vlmill ([^`]+)`", read_page(page))


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_commands_and_their_options_exist(page):
    for line in list_invocations(page):
        words = [word for word in line.split() if word not in BEFORE]
        name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        assert name in COMMANDS, line
        if page == README:
            continue  # its list of commands says more behind them
        for option in re.findall(r"(?<!\S)--[\w-]+", line):
            assert option in COMMANDS[name] | BEFORE | {"--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_options_in_the_text_are_options_of_a_command(page):
    others = {"--nproc-per-node", "--no-deps", "--constraint", "--editable", "--exclude", "--include", "--help"}
    others |= {"--model", "--model_args", "--tasks", "--batch_size", "--logdir"}  # lmms-eval, TensorBoard
    others |= {"--data_path", "--image_folder", "--check"}  # LLaVA, sha256sum
    others |= {"--resolution", "--python-version", "--extra", "--dist", "--no-loadscope-reorder"}  # uv, pytest
    benchmarks = "".join(read_page(path) for path in (ROOT / "benchmarks").glob("*.py"))
    others |= set(re.findall(r"""add_argument\("(--[\w-]+)""", benchmarks))
    known = others.union(BEFORE, *COMMANDS.values())
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", read_page(page))) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_files_and_modules_in_the_text_exist(page):
    text = read_page(page)
    for path in re.findall(r"`((?:pipeline|mixtures|train|recipes|examples|tests|benchmarks|docs)/[\w./-]*)`", text):
        assert path.endswith(("/NAME.py", "/NAME.yaml")) or (ROOT / path).exists(), path
    for path in re.findall(r"pytest (tests/\S+?\.py)", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ((?:benchmarks|vlmill|tools)[\w.]*)", text):
        assert find_spec(module), module


def test_targets_of_make_exist():
    targets = set(re.findall(r"^(\w+):", read_page(ROOT / "Makefile"), re.MULTILINE))
    named = {
        name for page in PAGES for name in re.findall(r"(?:^ {4}|`)make (\w+)(?!\w*=)", read_page(page), re.MULTILINE)
    }
    assert named - targets == set()


RECIPES = [
    (page, number, block)
    for page in PAGES
    for number, block in enumerate(block for block in list_blocks(page, "yaml") if block.startswith("name:"))
]


@pytest.mark.parametrize(
    ("page", "block"),
    [(page, block) for page, _, block in RECIPES],
    ids=[f"{name_page(page)}:{number}" for page, number, _ in RECIPES],
)
def test_recipes_are_recipes(page, block, tmp_path):
    (tmp_path / "recipe.yaml").write_text(block)
    recipe, _, _ = load_recipe(str(tmp_path / "recipe.yaml"))
    validate_recipe(recipe)
    validate_mixtures(recipe)
    validate_training(recipe)


def test_the_mixtures_of_the_manual_are_mixtures():
    whole, entries, moving = (yaml.safe_load(block) for block in list_blocks(ROOT / "docs/mixtures.md", "yaml"))
    assert parse_block(MixtureSettings, whole["mixture"], "mixture").by_share
    assert len(parse_block(MixtureSettings, {"sequence_length": 2048, **entries}, "mixture").resolved()) == 2
    assert parse_block(MixtureSettings, {"sequence_length": 2048, **moving["mixture"]}, "mixture").moves


def test_the_custom_filter_of_the_manual_is_one():
    (code,) = list_blocks(ROOT / "docs/curation.md", "python")
    assert list(find_filter_classes("shouting.py", code)) == ["shouting"]


def test_the_custom_signal_of_the_manual_is_one():
    (code,) = list_blocks(ROOT / "docs/signals.md", "python")
    signal = CustomSignal("prices", {}, hash_code(code), code, "prices.py")
    assert signal.score(signal.load(), SignalBatch(2, 1, None, (("for $5, or € 3", "$"), ()))).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("sources.md", SOURCES),
        ("curation.md", FILTERS),
        ("signals.md", SIGNALS),
        ("images.md", POLICIES),
        ("models.md", FAMILIES),
    ],
    ids=["sources.md", "curation.md", "signals.md", "images.md", "models.md"],
)
def test_the_manual_names_everything_that_a_recipe_may_choose(page, names):
    text = read_page(ROOT / "docs" / page)
    missing = [name for name in names if f"`{name}`" not in text]
    assert not missing, f"docs/{page} does not name {missing}; add a line to its table"


@pytest.mark.parametrize("folder", ["fragments", "presets"])
def test_the_page_of_recipes_in_parts_names_what_ships(folder):
    text = read_page(ROOT / "docs/composition.md")
    names = [path.stem for path in (ROOT / "recipes" / folder).glob("*.yaml")]
    shown = [f"`{name}`" if folder == "presets" else f"`{folder}/{name}`" for name in names]
    assert names
    assert [name for name in shown if name not in text] == []


def test_numbers_of_what_there_is_are_true():
    """Of filters, kinds of signals, and published datasets that have recipes."""
    text = read_page(README)
    assert f"{len(FILTERS)} filters, {len(SIGNALS) + len(DERIVED)} kinds of signals" in text
    table = re.search(r"\| recipe \| dataset \|.*?\n\n", read_page(ROOT / "recipes/README.md"), re.DOTALL)[0]
    datasets = {line.split("|")[2].strip() for line in table.splitlines()[2:] if line}
    for page in (README, ROOT / "docs/sources.md"):
        assert f"{len(datasets)} published datasets" in " ".join(read_page(page).split()), len(datasets)


def test_reasons_in_the_manual_are_reasons():
    table = re.search(r"\| what \| bound \| beyond it \|\n(.*?)\n\n", read_page(ROOT / "docs/fetching.md"), re.DOTALL)[
        1
    ]
    reasons = {cell for line in table.splitlines() for cell in re.findall(r"`(\w+)`", line.split("|")[-2])}
    assert reasons <= {str(reason) for reason in Reason}


def test_nothing_claims_that_vlmill_is_on_a_package_index():
    code = [
        path for name in (*PACKAGES, "recipes") for path in (ROOT / name).rglob("*") if path.suffix in {".py", ".yaml"}
    ]
    for path in [*PAGES, *code]:
        assert not re.search(r"pip install [\"']?vlmill", path.read_text(encoding="utf-8")), path
