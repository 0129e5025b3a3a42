"""YAML from outside: what is refused and in which words, at every place where the project reads it."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.small import RECIPE, vlmill, write_recipe
from vlmill.mixtures.published.catalogue import load_published
from vlmill.mixtures.published.import_llava import read_mixture
from vlmill.pipeline.core import yaml_format
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.yaml_format import KEPT_CHARACTERS, format_yaml, parse_yaml, read_yaml
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.lock import lock_folder, read_lock, read_locked_recipe
from vlmill.train.ablation.spec import read_ablation
from vlmill.train.validate import validate_whole_recipe

ROOT = Path(__file__).parents[2]

BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)

BAD = {
    "latin-1": ("name: caf\xe9\n".encode("latin-1"), "line 1: byte 0xe9 is no UTF-8; save it as UTF-8"),
    "utf-16": ("name: small\n".encode("utf-16"), "is UTF-16 or no text; save it as UTF-8"),
    "utf-16 without a mark": ("name: small\n".encode("utf-16-le"), "is UTF-16 or no text; save it as UTF-8"),
    "byte order mark": (b"\xef\xbb\xbfname: small\n", "byte order mark; save it as UTF-8 without one"),
    "a control character": (b"name: a\x07\n", "is no YAML: unacceptable character"),
    "a key twice": (b"name: a\nseed: 1\nname: b\n", "line 3: key 'name' stands there twice, first in line 1"),
    "a key twice in a line": (b"name: {a: 1, a: 2}\n", "line 1: key 'a' stands there twice, first in line 1"),
    "a bomb of aliases": (BOMB.encode(), "aliases make [0-9]+ values out of"),
    "an alias in itself": (b"name: &a [*a]\n", r"line 1: alias \*a stands inside of what it means"),
    "an alias of nothing": (b"name: *a\n", "is no YAML: found undefined alias"),
    "deep lists": (b"name: " + b"[" * 100_000, "nested deeper than 64 levels"),
    "deep mappings": (b"name: " + b"{a: " * 5_000, "nested deeper than 64 levels"),
    "5,000 digits": (b"seed: " + b"9" * 5_000, "line 1: an integer of 5000 characters; it may have 64 bits"),
    "65 bits": (b"seed: 18446744073709551616\n", "it may have 64 bits"),
    "a float out of range": (b"seed: 1e999\n", "line 1: 1e999 is larger than any number of 64 bits"),
    "a tag": (b"name: !!python/object/apply:os.system [ls]\n", "line 1: tag 'tag:yaml.org,2002:python/"),
    "a wrong tag": (b"name: !!int abc\n", "line 1: tag"),
    "two documents": (b"name: a\n---\nname: b\n", "is no YAML: expected a single document"),
    "no YAML": (b"a: [\n", "is no YAML"),
}


def read_takedowns(path):
    from vlmill.pipeline.takedown.rules import LIST, TakedownList

    path.rename(path.with_name(LIST))
    return TakedownList.read(path.parent)


def read_included(path):
    top = path.with_name("top.yaml")
    top.write_text(f"name: a\ninclude: [{{recipe: {path.name}}}]")
    return load_recipe(str(top))


def read_run(path):
    path.rename(path.with_name("recipe.lock.yaml"))
    return read_lock(path.parent)


READERS = {
    "recipe": lambda path: load_recipe(str(path)),
    "lock": read_run,
    "takedowns": read_takedowns,
    "ablation": read_ablation,
    "published mixture": lambda path: load_published(str(path)),
    "mixture to import": lambda path: read_mixture(path, 1024),
    "included file": read_included,
}


@pytest.mark.parametrize("fault", BAD)
def test_a_build_of_a_bad_file_ends_with_what_is_wrong_and_where(tmp_path, capsys, fault):
    import re

    data, message = BAD[fault]
    (tmp_path / "bad.yaml").write_bytes(data)
    assert vlmill("build", tmp_path / "bad.yaml", "--out", tmp_path / "run", "--workers", 0) == 1
    said = capsys.readouterr().err
    assert "bad.yaml" in said
    assert re.search(message, said), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("reader", READERS)
def test_every_file_of_yaml_is_read_by_the_same_rules(tmp_path, reader, fault):
    data, message = BAD[fault]
    (tmp_path / "bad.yaml").write_bytes(data)
    with pytest.raises((RecipeError, StoreError), match=message):
        READERS[reader](tmp_path / "bad.yaml")


def test_nothing_else_reads_yaml():
    for package in ("pipeline", "mixtures", "train"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            names = {name.name for node in tree if isinstance(node, ast.Import) for name in node.names}
            assert "yaml" not in names or path == ROOT / "pipeline/core/yaml_format.py", path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100_000.0),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("1_000.5", 1000.5),
        ("10_000", 10_000),
        ("-7", -7),
        ("0x1f", 31),
        ("0o17", 15),
        ("-.inf", -math.inf),
        ("1.2.3", "1.2.3"),
        ("e3", "e3"),
        ("1e", "1e"),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("'1e-3'", "1e-3"),
        ("true", True),
        ("~", None),
        ("", None),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(text, value):
    found = parse_yaml(f"a: {text}", "here")["a"]
    assert (found, type(found)) == (value, type(value))


SCALARS = st.none() | st.booleans() | st.integers(-(1 << 63) + 1, (1 << 63) - 1) | st.floats(allow_nan=False)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8) | st.from_regex(
    r"[-+]?[0-9._]{0,3}(e[-+]?[0-9]{1,2})?", fullmatch=True
)


@given(
    st.recursive(SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
)
def test_what_is_written_is_read_back(value):
    assert parse_yaml(format_yaml(value), "here") == value


def test_aliases_and_merged_keys_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nagain: [*b, *b]\n")
    assert read_yaml(tmp_path / "a.yaml") == {
        "base": {"x": 1, "y": 2},
        "more": {"x": 1, "y": 3},
        "again": [{"x": 1, "y": 2}] * 2,
    }


NUMBERS = [
    ("partition.rows", "0", "partition.rows: Input should be greater than or equal to 1, not 0"),
    ("partition.rows", "-5", "partition.rows: Input should be greater than or equal to 1, not -5"),
    ("partition.bytes", "-1", "partition.bytes: .*greater than or equal to 1, not -1"),
    ("shards.samples", "0", "shards.samples: .*greater than or equal to 1, not 0"),
    ("shards.bytes", "0", "shards.bytes: .*greater than or equal to 1, not 0"),
    ("limit", "-1", "limit: .*greater than or equal to 1, not -1"),
    ("limit", "0", "limit: .*greater than or equal to 1, not 0"),
    ("seed", "-1", "seed: .*greater than or equal to 0, not -1"),
    ("seed", "1.5", "seed: .*integer.*, not 1.5"),
    ("seed", ".nan", "seed: .*finite number, not nan"),
    ("fetch.threads", "100000000", "fetch.threads: .*less than or equal to 1024, not 100000000"),
    ("fetch.threads", "0", "fetch.threads: .*greater than or equal to 1, not 0"),
    ("fetch.timeout_s", "0", "fetch.timeout_s: .*greater than 0, not 0"),
    ("fetch.timeout_s", ".inf", "fetch.timeout_s: .*finite number, not inf"),
    ("fetch.deadline_s", ".nan", "fetch.deadline_s: .*finite number, not nan"),
    ("fetch.retries", "-1", "fetch.retries: .*greater than or equal to 0, not -1"),
    ("fetch.retries", "1000000", "fetch.retries: .*less than or equal to 100, not 1000000"),
    ("fetch.max_bytes", "-20", "fetch.max_bytes: .*greater than or equal to 1, not -20"),
    ("sources.web.fetch", "{threads: 0}", r"sources\.web\.fetch\.threads: .*greater than or equal to 1, not 0"),
    ("sources.papers.options", "{long_side: 0}", r"sources\.papers\.options\.long_side: .*greater.*, not 0"),
    ("sources.papers.options", "{seconds: .inf}", r"sources\.papers\.options\.seconds: .*finite number, not inf"),
    ("sources.web.priority", "99999999999", r"sources\.web\.priority: .*less than 2147483648"),
    ("image_stats.max_pixels", "0", r"image_stats\.max_pixels: .*greater than or equal to 1, not 0"),
    ("filters.shape.max_ratio", ".inf", r"filters\.shape\.max_ratio: .*finite number, not inf"),
    ("filters.shape.min_side", "-3", r"filters\.shape\.min_side: .*greater than or equal to 1, not -3"),
    ("dedupe.text", ".nan", r"dedupe\.text: .*finite number, not nan"),
    ("policies.small.side", "0", r"policies\.small\.side: .*greater than or equal to 1, not 0"),
    ("policies.small.side", "1000000000", r"policies\.small\.side: .*less than or equal to 16384"),
    ("policies.small.fill", "[0, 0, 300]", r"policies\.small\.fill\.2: .*less than or equal to 255, not 300"),
    ("expect", "{kept: 1.5}", r"expect\.kept: .*less than or equal to 1, not 1\.5"),
    ("expect", "{kept: .nan}", r"expect\.kept: .*finite number, not nan"),
    ("stages.align.mixture.sequence_length", "0", r"stages\.align\.mixture: sequence_length is 0; .*above 0"),
    ("stages.align.mixture.epochs", ".inf", r"stages\.align\.mixture\.epochs: .*finite number, not inf"),
    ("stages.align.mixture.shares.web", ".nan", r"stages\.align\.mixture\.shares\.web: .*finite number, not nan"),
    ("stages.align.mixture.shares.web", "-1", r"stages\.align\.mixture: share of 'web' is -1"),
    ("stages.align.train.seed", "-1", r"stages\.align\.train\.seed: .*greater than or equal to 0, not -1"),
    ("stages.align.train.steps", "0", r"stages\.align\.train\.steps: .*greater than or equal to 1, not 0"),
    ("stages.align.train.learning_rate.text", ".inf", r"train\.learning_rate\.text: .*finite number, not inf"),
    ("stages.align.train.betas", "[0.9, 1.5]", r"train\.betas\.1: .*less than 1, not 1\.5"),
    ("model.text.layers", "100000000", r"model\.text\.layers: .*less than or equal to 1024"),
    ("model.vision.hidden_size", "0", r"model\.vision\.hidden_size: .*greater than or equal to 1, not 0"),
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("numbers"))


def load_and_check(recipe, sets):
    loaded, _, _ = load_recipe(str(recipe), sets=sets)
    validate_whole_recipe(loaded)


@pytest.mark.parametrize(("key", "text", "message"), NUMBERS)
def test_a_number_out_of_range_is_named_with_its_key_and_what_is_allowed(recipe, key, text, message):
    with pytest.raises(RecipeError, match=message):
        load_and_check(recipe, {key: text})


@pytest.mark.parametrize(
    "change",
    [
        {"sources": [1]},
        {"sources": {"web": 3}},
        {"sources": None},
        {"decontaminate": [1]},
        {"decontaminate": {"against": {"a": 3}}},
        {"filters": 3},
        {"filters": None},
        {"filters": [None]},
        {"stages": {"a": 1}},
        {"stages": [[1]]},
        {"policies": {"small": None}},
        {"policies": {"small": {"kind": ["letterbox"]}}},
        {"dedupe": 3},
        {"fetch": None},
        {"custom_filters": [1]},
        {"name": None},
        {"name": ["a"]},
    ],
    ids=str,
)
def test_a_block_of_another_form_is_an_error_of_its_own(tmp_path, change):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **change}))
    for more in ({}, {"sets": {"filters.language.in_doubt": "drop"}}, {"sets": {"sources.web.licence": "x"}}):
        with pytest.raises(RecipeError, match=r"\w" if more else next(iter(change))):
            load_recipe(str(tmp_path / "recipe.yaml"), **more)


@pytest.mark.parametrize(
    "key", ["stages.foo", "stages.9", "stages.-1", "filters.9", "seed.x", "stages.99999999999999999999.x"]
)
def test_set_names_the_place_that_is_not_there(recipe, key):
    with pytest.raises(RecipeError, match=f"--set {key}"):
        load_recipe(str(recipe), sets={key: "1"})


def test_set_reads_values_by_the_same_rules(recipe):
    for text, message in (
        ("9" * 5000, "it may have 64 bits"),
        ("[" * 3000, "nested deeper"),
        ("{a: 1, a: 2}", "twice"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(str(recipe), sets={"seed": text})


def test_1e_3_is_the_same_recipe_as_0_001(tmp_path, recipe):
    key = "stages.align.train.learning_rate.text"
    one, other = (load_recipe(str(recipe), sets={key: text})[1] for text in ("1e-3", "0.001"))
    assert one == other
    lock_folder(tmp_path, one, accept_changes=False)
    rate = read_locked_recipe(tmp_path).stages[0].train["learning_rate"]["text"]
    assert (rate, type(rate)) == (0.001, float)


# -- a text that is read again


def test_a_text_is_parsed_once_and_what_a_reader_does_to_its_values_reaches_nobody_else(monkeypatch):
    begun, loader = [], yaml_format._Loader

    def begin(text, where):
        begun.append(where)
        return loader(text, where)

    monkeypatch.setattr(yaml_format, "_Loader", begin)
    text = "one: &shared {list: [1, 2]}\nother: *shared\nthis: a text of one test alone\n"
    first = parse_yaml(text, "here")
    assert first["one"] is first["other"]
    first["one"]["list"].append(3)
    del first["this"]
    again = parse_yaml(text, "here")
    assert again == {"one": {"list": [1, 2]}, "other": {"list": [1, 2]}, "this": "a text of one test alone"}
    assert again["one"] is again["other"]
    assert begun == ["here"]


def test_a_text_that_is_wrong_is_named_by_every_reader_and_a_long_one_is_not_kept():
    for where in ("here", "there", "here"):
        with pytest.raises(RecipeError, match=f"{where}, line 2: key 'a' stands there twice"):
            parse_yaml("a: 1\na: 2\n", where)
    before = yaml_format._load_kept.cache_info().currsize
    assert parse_yaml("a: " + "b" * KEPT_CHARACTERS, "long") == {"a": "b" * KEPT_CHARACTERS}
    assert yaml_format._load_kept.cache_info().currsize == before
