"""Recipes of several files: what is taken, what may be replaced, where every value comes from, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.chats import PUBLISHED
from tests.helpers.small import RECIPE, vlmill, write_recipe
from tests.pipeline.test_custom_filters import FILTER
from vlmill.mixtures.config import MixtureSettings
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.recipe.include import DEEPEST, list_shipped
from vlmill.pipeline.recipe.load import compose_recipe
from vlmill.pipeline.recipe.show import format_effective
from vlmill.train.settings import ModelSettings, Training

BLOCKS = {"model": ModelSettings, "mixture": MixtureSettings, "train": Training}
WEB = "sources:\n  web: {kind: obelics, files: web.parquet}\n"


def write(folder: Path, **files: str) -> str:
    """Files by name, `__` for a slash; the path of the first."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder / f"{next(iter(files)).replace('__', '/')}.yaml")


def refused(path: str, **options: object) -> str:
    with pytest.raises(RecipeError) as told:
        compose_recipe(path, **options)
    return str(told.value)


# -- what is taken


def test_a_recipe_takes_whole_files_blocks_and_single_entries(tmp_path):
    found = compose_recipe(
        write(
            tmp_path,
            top="name: top\ninclude:\n- {recipe: obelics, take: [sources, filters.shape]}\n- {recipe: part}\n".replace(
                "part}", "part.yaml}"
            )
            + "- {recipe: fragments/drop_chinese}\n- {recipe: quickstart, take: [policies.small, stages.align.train]}\n"
            + "stages:\n- {name: align, policy: small, mixture: {shares: {web: 1}, sequence_length: 8}}\n"
            + "tokenizer: t\n",
            part=f"name: part\n{WEB}",
        )
    )
    recipe = found.recipe
    assert recipe.name == "top"
    assert list(recipe.sources) == ["obelics", "web"]
    assert [filter_.name for filter_ in recipe.filters] == ["shape", "language"]
    assert list(recipe.policies) == ["small"]
    assert recipe.stages[0].train["warm_up"] == 20
    assert recipe.fetch.threads == 64, "blocks that are not named stay behind"


def test_paths_in_an_included_file_start_from_its_own_folder(tmp_path):
    lists = "filters:\n- opt_out: {domains: [no.txt]}\n"
    sub = (
        f"{WEB}  quiz: {{kind: cauldron, files: a, root: ../data, images: /x, serve: {{'http://a/': b}}}}\n"
        "  zipped: {kind: llava, files: a, root: 's3://b/c', images: 'zip://in::all.zip'}\n"
    )
    held = "decontaminate: {against: {exam: {files: e}, far: {files: e, root: 's3://b/c'}}}\ntokenizer: t.json\n"
    top = write(tmp_path, top="name: a\ninclude: [{recipe: sub/part.yaml}]\n", sub__part=sub + held + lists)
    recipe = compose_recipe(top).recipe
    quiz = recipe.sources["quiz"]
    assert (recipe.sources["web"].root, quiz.root, quiz.images, quiz.serve) == (
        "sub",
        "data",
        "/x",
        {"http://a/": "sub/b"},
    )
    assert recipe.sources["zipped"].images == "zip://in::sub/all.zip"
    assert {name: place.root for name, place in recipe.decontaminate.against.items()} == {
        "exam": "sub",
        "far": "s3://b/c",
    }
    assert (recipe.tokenizer, recipe.filters[0].domains) == ("sub/t.json", ("sub/no.txt",))
    shipped = compose_recipe(write(tmp_path, b="name: b\ninclude: [{recipe: quickstart, take: [sources.web]}]\n"))
    assert Path(shipped.recipe.sources["web"].root).is_dir()
    assert Path(shipped.recipe.sources["web"].root).is_absolute()


def test_folders_of_models_start_from_the_folder_of_the_file_that_names_them_and_names_on_the_hub_stay(tmp_path):
    for name in ("sub/eye", "sub/word", "word", "other/word", "openai/clip"):
        (tmp_path / name).mkdir(parents=True)
    fused = "{kind: fused, first: {kind: pretrained, path: eye}, second: {kind: pretrained, path: openai/clip}}"
    part = f"model: {{family: llava, vision: {fused}, text: {{kind: pretrained, path: ./missing}}}}\n"
    top = f"name: a\ninclude: [{{recipe: sub/part.yaml}}]\n{WEB}"
    model = compose_recipe(write(tmp_path, top=top, sub__part=part)).recipe.model
    assert (model["vision"]["first"]["path"], model["text"]["path"]) == (
        str(tmp_path / "sub/eye"),
        str(tmp_path / "sub/missing"),
    )
    assert model["vision"]["second"]["path"] == str(tmp_path / "openai/clip"), (
        "of the top, since sub has no such folder"
    )
    (tmp_path / "openai/clip").rmdir()
    model = compose_recipe(write(tmp_path, top=top, sub__part=part)).recipe.model
    assert model["vision"]["second"]["path"] == "openai/clip"
    own = f"name: a\n{WEB}model: {{family: llava, vision: {fused}, text: {{kind: pretrained, path: word}}}}\n"
    found = compose_recipe(write(tmp_path, top=own), sets={"model.text.path": "other/word"})
    assert found.recipe.model["text"]["path"] == str(tmp_path / "other/word")
    assert found.origins["model", "text", "path"] == "--set model.text.path"
    assert compose_recipe(write(tmp_path, top=own)).recipe.model["text"]["path"] == str(tmp_path / "word")


def test_a_published_chat_of_an_included_file_is_found_from_its_folder_and_from_any_working_folder(
    tmp_path, monkeypatch
):
    PUBLISHED["qwen2"].write(tmp_path / "sub" / "model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for path in ("model", "./model", "../sub/model"):
        top = write(
            tmp_path, top=f"name: a\ninclude: [{{recipe: sub/p.yaml}}]\n{WEB}", sub__p=f"chat: {{path: {path}}}\n"
        )
        assert compose_recipe(top).recipe.chat.template


def test_paths_that_an_included_file_puts_in_the_place_of_others_start_from_its_folder_too(tmp_path):
    (tmp_path / "sub/word").mkdir(parents=True)
    part = "name: p\ninclude: [{recipe: base.yaml}]\nreplace:\n  sources.web.root: mine\n  tokenizer: t.json\n"
    part += "  filters.opt_out.domains: [no.txt]\n  model.text: {kind: pretrained, path: word}\n"
    base = (
        "sources: {web: {kind: cauldron, files: a, root: data}}\ntokenizer: x\nfilters: [{opt_out: {domains: [b]}}]\n"
    )
    base += "model: {family: llava, vision: {kind: siglip}, text: {kind: pretrained, path: a/b}}\n"
    recipe = compose_recipe(
        write(tmp_path, top="name: a\ninclude: [{recipe: sub/p.yaml}]\n", sub__p=part, sub__base=base)
    ).recipe
    assert (recipe.sources["web"].root, recipe.tokenizer) == ("sub/mine", "sub/t.json")
    assert recipe.filters[0].domains == ("sub/no.txt",)
    assert recipe.model["text"]["path"] == str(tmp_path / "sub/word")
    preset = "model: {preset: llava-1.5-7b, replace: {text.path: word}}\n"
    top = f"name: a\ninclude: [{{recipe: sub/p.yaml}}]\n{WEB}"
    assert compose_recipe(write(tmp_path, top=top, sub__p=preset)).recipe.model["text"]["path"] == str(
        tmp_path / "sub/word"
    )


def test_what_an_included_file_adds_to_a_source_of_its_own_includes_leaves_its_root_alone(tmp_path):
    add = "name: part\ninclude: [{recipe: base.yaml}]\nsources: {web: {priority: 3}}\n"
    base = "name: base\nsources: {web: {kind: cauldron, files: a, root: data}}\n"
    top = write(tmp_path, top="name: a\ninclude: [{recipe: sub/part.yaml}]\n", sub__part=add, sub__base=base)
    web = compose_recipe(top).recipe.sources["web"]
    assert (web.root, web.priority) == ("sub/data", 3)


def test_a_recipe_of_includes_builds_what_one_file_builds_and_its_lock_holds_all(tmp_path):
    whole = write_recipe(tmp_path)
    data = yaml.safe_load(whole.read_text())
    for block in ("sources", "stages", "model"):
        (tmp_path / f"{block}.yaml").write_text(yaml.safe_dump({block: data.pop(block)}))
    data["include"] = [{"recipe": "stages.yaml"}, {"recipe": "sources.yaml"}, {"recipe": "model.yaml"}]
    (tmp_path / "split.yaml").write_text(yaml.safe_dump(data))
    for name in ("recipe", "split"):
        out = tmp_path / name
        assert vlmill("build", tmp_path / f"{name}.yaml", "--out", out, "--workers", 0, "--until", "survey") == 0
    locks = [(tmp_path / name / "recipe.lock.yaml").read_bytes() for name in ("recipe", "split")]
    assert locks[0] == locks[1]
    assert b"include" not in locks[0]


# -- two definitions


def test_two_definitions_are_an_error_that_names_both_places_and_the_way_out(tmp_path):
    top = write(tmp_path, top=f"name: a\ninclude: [{{recipe: part.yaml}}]\n{WEB}", part=WEB.replace("web.", "other."))
    said = refused(top)
    assert f"sources.web.files: 'other.parquet' ({tmp_path / 'part.yaml'}, line 2)" in said
    assert f"'web.parquet' ({tmp_path / 'top.yaml'}, line 4)" in said
    assert "replace: {sources.web.files: VALUE}" in said


def test_a_replacement_decides_between_two_and_another_key_of_a_block_is_no_second_definition(tmp_path):
    top = "name: a\ninclude: [{recipe: one.yaml}, {recipe: two.yaml}]\nreplace: {sources.web.files: mine}\n"
    top += "sources: {web: {priority: 7}}\n"
    found = compose_recipe(write(tmp_path, top=top, one=WEB, two=WEB.replace("web.", "other.")))
    web = found.recipe.sources["web"]
    assert (web.files, web.priority, web.kind) == ("mine", 7, "obelics")
    assert found.origins["sources", "web", "files"] == f"{tmp_path / 'top.yaml'}, line 3"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("sources.wob.files", r"there is no 'wob'; did you mean 'web'\?"),
        ("sources.web.limit", r"replace sources\.web\.limit \(.*line 3\): there is no 'limit'"),
        ("filters.shape", "there is no 'filters'"),
        ("name", "there is no 'name'"),
        ("", "there is no ''"),
        ("sources.web.kind.x", "there is no 'x'"),
    ],
)
def test_a_replacement_of_nothing_is_an_error(tmp_path, key, message):
    top = f"name: a\ninclude: [{{recipe: part.yaml}}]\nreplace: {{{key!r}: 1}}\n"
    with pytest.raises(RecipeError, match=message) as error:
        compose_recipe(write(tmp_path, top=top, part=WEB))
    assert "a key that none has stands in this file, outside of `replace`" in str(error.value)


@pytest.mark.parametrize("preset", ["llava-1.5-7b", "llava-v1.6-mistral-7b"])
@pytest.mark.parametrize("key", ["policies.{}.side", "policies.{}"])
def test_names_with_dots_are_taken_and_replaced(tmp_path, preset, key):
    ((name, policy),) = yaml.safe_load(list_shipped()[f"presets/{preset}"].read_text())["policies"].items()
    assert "." in name
    value = 56 if key.endswith("side") else {**policy, "side": 56}
    top = {"name": "a", "include": [{"recipe": f"presets/{preset}", "take": [f"policies.{name}"]}]}
    found = compose_recipe(write(tmp_path, top=yaml.safe_dump({**top, "replace": {key.format(name): value}}) + WEB))
    assert found.data["policies"] == {name: {**policy, "side": 56}}


def test_a_value_beside_a_preset_is_decided_by_the_replace_of_the_model(tmp_path):
    top = f"name: a\n{WEB}model: {{preset: llava-1.5-7b, text: {{path: /mine}}}}\n"
    said = refused(write(tmp_path, top=top))
    assert "say which value counts: model.replace: {text.path: VALUE}" in said
    top = top.replace("text: {path: /mine}", "replace: {text.path: /mine}")
    assert compose_recipe(write(tmp_path, top=top)).recipe.model["text"]["path"] == "/mine"


def test_a_replacement_and_a_definition_of_the_same_value_are_two_definitions(tmp_path):
    top = "name: a\ninclude: [{recipe: p.yaml}]\nreplace: {sources.web.files: x}\nsources: {web: {files: y}}\n"
    assert "sources.web.files: 'x'" in refused(write(tmp_path, top=top, p=WEB))


def test_what_two_files_say_alike_is_one_definition(tmp_path):
    found = compose_recipe(write(tmp_path, top=f"name: a\ninclude: [{{recipe: p.yaml}}]\n{WEB}", p=WEB + "seed: 4\n"))
    assert found.recipe.seed == 4


ITEMS = {
    ("sources", "web"): {"kind": "obelics", "files": "a"},
    ("sources", "quiz"): {"kind": "cauldron", "files": "b", "priority": 3},
    ("sources", "quiz", "licence"): "CC0-1.0",
    ("policies", "small"): {"kind": "letterbox", "side": 56},
    ("policies", "large"): {"kind": "crop", "side": 28},
    ("fetch", "retries"): 0,
    ("fetch", "allow_hosts"): ["a", "b"],
    ("dedupe", "image"): 0.95,
    ("seed",): 5,
}


def nest(items):
    whole = {}
    for keys, value in items:
        place = whole
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        existing = place.get(keys[-1])
        place[keys[-1]] = {**existing, **value} if isinstance(existing, dict) else value
    return whole


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(owners=st.lists(st.integers(0, 4), min_size=len(ITEMS), max_size=len(ITEMS)), seed=st.integers(0, 99))
def test_files_in_any_order_and_nesting_make_the_same_recipe_and_every_value_knows_its_line(tmp_path, owners, seed):
    chance, names = random.Random(seed), [f"part{number}" for number in range(5)]
    for number, name in enumerate(names):
        mine = [item for item, owner in zip(ITEMS.items(), owners, strict=True) if owner == number]
        nested = {"include": [{"recipe": f"{name}.yaml"} for name in names[number + 1 :] if chance.random() < 0.5]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**nest(mine), **(nested if nested["include"] else {})}))
    chance.shuffle(names)
    top = {"name": "top", "include": [{"recipe": f"{name}.yaml"} for name in names]}
    found = compose_recipe(write(tmp_path, top=yaml.safe_dump(top)))
    assert found.data == {"name": "top", **nest(ITEMS.items())}
    for keys, origin in found.origins.items():
        if keys:
            file, _, line = origin.rpartition(", line ")
            written = Path(file).read_text().splitlines()[int(line) - 1]
            value = find_value(found.data, keys)
            assert isinstance(keys[-1], int) or f"{keys[-1]}:" in written, (keys, written)
            assert isinstance(value, dict | list) or str(value) in written, (keys, written)


def find_value(data, keys):
    for key in keys:
        data = data[key]
    return data


# -- where values come from


def test_every_value_is_shown_with_its_origin_and_what_is_shown_is_the_same_recipe(tmp_path):
    write_recipe(tmp_path)
    top = write(tmp_path, top="name: top\ninclude: [{recipe: recipe.yaml}]\nreplace: {seed: 6}\n")
    options = {"sets": {"sources.web.priority": "4"}, "sources": {"quiz": "/data/quiz/*.parquet"}, "limit": 9}
    found = compose_recipe(top, **options)
    shown = format_effective(found, BLOCKS)
    for line in (
        "name: top  # top.yaml, line 1",
        "seed: 6  # top.yaml, line 3",
        "limit: 9  # --limit",
        "    priority: 4  # --set sources.web.priority",
        "    root: /data/quiz  # --source quiz",
        "      windows_per_block: 16  # default",
        "chat: vlmill  # default",
    ):
        assert line in shown.splitlines(), line
    again = compose_recipe(write(tmp_path, again=shown))
    strip = [line.partition("  #")[0] for line in shown.splitlines()]
    assert [line.partition("  #")[0] for line in format_effective(again, BLOCKS).splitlines()] == strip


@pytest.mark.parametrize("name", sorted(name for name in list_shipped() if "/" not in name))
def test_shipped_recipes_are_shown_as_recipes(tmp_path, name, capsys):
    found = compose_recipe(name)
    again = compose_recipe(write(tmp_path, again=format_effective(found, BLOCKS)))
    for block in ("sources", "filters", "policies", "fetch", "dedupe", "decontaminate", "tokenizer", "chat"):
        assert getattr(again.recipe, block) == getattr(found.recipe, block)
    assert vlmill("check", name, "--show") == 0
    assert capsys.readouterr().out == format_effective(found, BLOCKS)


def test_a_mistake_is_named_with_file_and_line_wherever_it_was_included_from(tmp_path):
    part = "sources:\n  web:\n    kind: obelics\n    files: a\n    priorty: 3\n"
    top = write(tmp_path, top="name: a\ninclude: [{recipe: part.yaml}]\n", part=part)
    assert refused(top).endswith(f"({tmp_path / 'part.yaml'}, line 5)")
    assert "(--set sources.web.priority)" in refused(
        write(tmp_path, top=f"name: a\n{WEB}"), sets={"sources.web.priority": "high"}
    )


# -- hostile files


def test_a_file_that_includes_itself_is_refused_with_the_way_that_leads_there(tmp_path):
    top = write(
        tmp_path,
        top="name: a\ninclude: [{recipe: b.yaml}]\n",
        b="include: [{recipe: sub/c.yaml}]\n",
        sub__c="include: [{recipe: ../top.yaml}]\n",
    )
    said = refused(top)
    assert " includes ".join(str(tmp_path / name) for name in ("top.yaml", "b.yaml", "sub/c.yaml", "top.yaml")) in said
    assert "cannot include itself" in refused(write(tmp_path, me="name: a\ninclude: [{recipe: me.yaml}]\n"))


def test_files_in_a_long_row_are_refused_and_many_ways_to_one_file_cost_nothing(tmp_path):
    for number in range(100):
        text = f"include: [{{recipe: f{number + 1}.yaml}}, {{recipe: ./f{number + 1}.yaml}}]\n"
        (tmp_path / f"f{number}.yaml").write_text(text)
    (tmp_path / "f100.yaml").write_text(WEB)
    first = 101 - DEEPEST  # so many files in a row are allowed; two ways from each make 2 ** 15
    top = write(tmp_path, top=f"name: a\ninclude: [{{recipe: f{first}.yaml}}]\n")
    assert list(compose_recipe(top).recipe.sources) == ["web"]
    assert f"more than {DEEPEST} files" in refused(write(tmp_path, top="name: a\ninclude: [{recipe: f0.yaml}]\n"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "is neither a YAML file"),
        ("/etc/hosts.yaml", "relative to the file that includes it"),
        ("../outside.yaml", "outside of"),
        ("sub/../../outside.yaml", "outside of"),
        ("link.yaml", "outside of"),
        ("../obelics", "is neither a YAML file"),
        ("fragments/../obelics", "is neither a YAML file"),
        ("file:///etc/hosts.yaml", "there is no file"),
        ("https://a.test/b.yaml", "there is no file"),
        ("", "is neither a YAML file"),
        ("obelisc", "did you mean 'obelics'?"),
        ("missing.yaml", "there is no file"),
        ("a" * 10**5, "is neither a YAML file"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_include_leads_nowhere_but_to_shipped_names_and_files_beside_the_recipe(tmp_path, name, message):
    inside = tmp_path / "inside"
    write(inside, top=yaml.safe_dump({"name": "a", "include": [{"recipe": name}]}), sub__x="")
    (tmp_path / "outside.yaml").write_text("sources: {secret: {}}\n")
    (inside / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    said = refused(str(inside / "top.yaml"))
    assert message in said
    assert f"{inside / 'top.yaml'}, line " in said
    assert "secret" not in said
    assert len(said) < 2000


@pytest.mark.parametrize(
    "text",
    [
        "include: 3",
        "include: [3]",
        "include: obelics",
        "include: [{recipe: 3}]",
        "include: [{take: [sources]}]",
        "include: [{recipe: obelics, take: []}]",
        "include: [{recipe: obelics, take: [sauces]}]",
        "include: [{recipe: obelics, take: [sources.web.x]}]",
        "include: [{recipe: obelics, taken: [x]}]",
        "replace: 3",
        "replace: [a]",
        "replace: {seed: 1}",
        "include: [{recipe: obelics}]\nreplace: {3: 4}",
        "include: [{recipe: obelics}]\nsources: 3",
        "include: [{recipe: obelics}]\nfilters: 3",
        "include: [{recipe: obelics}]\nfilters: [[language]]",
        "include: [{recipe: obelics}]\nfilters: [{language: {drop: [ja]}}]",
        f"include: {'[' * 10**5}",
    ],
    ids=lambda text: text[:60],
)
def test_nonsense_is_refused_without_a_stack_trace(tmp_path, text):
    refused(write(tmp_path, top=f"name: a\n{text}\n"))


@pytest.mark.parametrize("named", [False, True])
def test_code_in_an_included_file_is_taken_only_where_the_command_line_names_it(tmp_path, named):
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{FILTER}"
    held = {"custom_filters": {"mine.py": {"sha256": custom_filters.hash_code(code), "code": code}}}
    part = yaml.safe_dump({**held, "sources": RECIPE["sources"], "filters": [{"short": None}]})
    top = write(tmp_path, top="name: a\ninclude: [{recipe: p.yaml}]\n", p=part)
    if named:
        recipe = compose_recipe(top, filters=[("mine.py", code)]).recipe
        assert [filter_.name for filter_ in recipe.filters] == ["short"]
        assert (tmp_path / "ran").exists()
    else:
        assert "code runs only if it is named" in refused(top)
        other = "include: [{recipe: p.yaml, take: [sources]}]\nname: a\n"
        assert "code runs only if" in refused(write(tmp_path, other=other)), "nor beside what is taken"
        assert not (tmp_path / "ran").exists()
