"""The shipped recipes of published datasets: each reads what upstream has, and runs on local samples of it."""

import re
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers import upstream
from tests.helpers.complete_recipes import list_complete_recipes
from tests.helpers.shapes import SHAPES
from tests.helpers.upstream import talk
from tests.repo.test_recipes_with_signals import SCORED
from vlmill.pipeline.cli import app
from vlmill.pipeline.recipe.load import load_recipe

OURS = {
    "quickstart",
    "quickstart_ablations",
    "quickstart_pretrained",
    "quickstart_signals",
    "smollm2",
    *SCORED,
    *list_complete_recipes(),
}
"""Recipes of the quickstart's data, those with models (test_recipes_with_signals.py), and those that go on to trained
stages (tests/train/test_complete_recipes.py)."""

RECIPES = sorted(path for path in Path(str(files("vlmill.recipes"))).glob("*.yaml") if path.stem not in OURS)

OFF_HUB = {"lrv_instruction"}
"""Recipes of datasets that lie elsewhere."""

NAMED = {  # rows of datasets whose columns are not those that the shape has without options
    "llava_next_data": {"image": upstream.image(0), "conversations": talk("<image>Q", "A")},
    "llava_onevision_data": {"image": upstream.image(0), "conversations": talk("<image>Q", "A")},
    "lnqa": {"image": upstream.image(0), "qa": [{"question": "Q", "answer": "A"}]},
    "pixelprose": {"url": "http://img.test/0", "vlm_caption": "A dog"},
    "lrv_instruction": {"image_id": "1", "question": "Is there a dog?", "answer": "No.", "task": "existence"},
    "laion_coco": {"URL": "http://img.test/0", "top_caption": "A dog", "LICENSE": "?", "similarity": 0.3},
}


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request):
    loaded, _, _ = load_recipe(str(request.param))
    return request.param.stem, loaded


def test_a_recipe_reads_one_dataset_from_the_hub_and_drops_chinese(recipe):
    name, loaded = recipe
    assert loaded.name == name
    assert list(loaded.sources) == [name]
    assert name in OFF_HUB or re.fullmatch(r"hf://datasets/[\w.-]+/[\w.-]+@\w+", loaded.sources[name].root)
    language = next(filter_ for filter_ in loaded.filters if filter_.name == "language")
    assert (language.drop, language.strict) == (("zh",), True)
    assert loaded.policies


@pytest.mark.parametrize(
    "name", ["obelics", "idefics2", "idefics3", *(f"vlmill_base{end}" for end in ("", "_laptop", "_cluster"))]
)
def test_recipes_of_raw_web_documents_carry_the_published_bounds(name):
    loaded, _, _ = load_recipe(name)
    filters = {filter_.name: filter_ for filter_ in loaded.filters}
    assert (filters["language"].drop, filters["language"].strict) == (("zh",), True)
    shape, text = filters["shape"].by_source["obelics"], filters["text_quality"]
    assert (shape.min_side, shape.max_side, shape.max_ratio, shape.min_images, shape.max_images) == (
        150,
        20000,
        2,
        1,
        30,
    )
    assert (text.sources, text.languages) == (("obelics",), ("en",))
    rules = loaded.dedupe
    assert (rules.boilerplate, rules.same_addresses, rules.paragraphs, rules.host_images) == (10, True, 3, 0.3)


def test_its_options_fit_the_rows_of_its_dataset(recipe, tmp_path):
    name, loaded = recipe
    shape = SHAPES[loaded.sources[name].kind]
    path = tmp_path / "rows"
    if name in NAMED:
        (upstream.json_array if name in OFF_HUB else upstream.parquet)(path, [NAMED[name]])
    else:
        shape.write(path, [shape.row(0)])
    source = loaded.source(name)
    (row,) = source.rows(path, range(len(source.survey(path))))
    assert len(row.pages) == 1
    assert not row.failed


def test_the_readme_lists_them_all():
    text = (RECIPES[0].parent / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\w./-]+) \|", text, re.MULTILINE))
    roots = {
        path.stem: load_recipe(str(path))[0].sources[path.stem].root for path in RECIPES if path.stem not in OFF_HUB
    }
    assert {name: f"hf://datasets/{dataset}" for name, dataset in listed.items()} == {
        name: root.partition("@")[0] for name, root in roots.items()
    }


def test_the_readme_names_those_that_are_not_on_the_hub():
    text = (RECIPES[0].parent / "README.md").read_text(encoding="utf-8")
    assert {name for name in OFF_HUB if f"| `{name}` | " in text} == OFF_HUB


def test_a_recipe_without_stages_is_built_from_local_rows_to_shards_and_says_what_next(tmp_path):
    for seed in range(3):
        (tmp_path / f"{seed}.png").write_bytes(upstream.picture(seed, (64, 64)))
    rows = [SHAPES["llava"].row(row) for row in range(4)]  # the last one's image is not there
    path = upstream.json_array(tmp_path / "rows.json", rows)
    name, out = "llava_instruct_665k", tmp_path / "out"
    run = ["build", name, "--source", f"{name}={path}", "--limit", "100", "--out", str(out)]
    done = CliRunner().invoke(app, [*run, "--workers", "0"])
    assert done.exit_code == 0, done.output
    assert "vlmill status" in done.output
    assert "no stages" in " ".join(done.output.split())
    assert "vlmill train" not in done.output
    assert len(list((tmp_path / "out/shards/llava_instruct_665k/square").glob("*.tar"))) == 1
    funnel = CliRunner().invoke(app, ["status", str(tmp_path / "out"), "--json"])
    assert '"missing_file": 1' in funnel.output
    stats = CliRunner().invoke(app, ["stats", str(tmp_path / "out")])
    assert stats.exit_code == 1
    assert "has no stages, so it has no mixtures" in str(stats.exception)


def test_every_recipe_has_a_page_of_statistics(recipe, tmp_path):
    name, loaded = recipe
    shape = SHAPES[loaded.sources[name].kind]
    path = tmp_path / Path(loaded.sources[name].files or "rows.parquet").name.replace("*", "0")
    if name in NAMED:
        (upstream.json_array if name in OFF_HUB else upstream.parquet)(path, [NAMED[name]])
    else:
        shape.write(path, [shape.row(0)])
    offline = ["--set", "fetch.retries=0", "--set", f"sources.{name}.serve={{http://img.test/: {tmp_path}}}"]
    place = ["--source", f"{name}={path}", "--out", str(tmp_path / "out"), "--workers", "0"]
    run = ["build", name, *place, "--set", "expect.kept=0"]  # of some the one row has no image here
    done = CliRunner().invoke(app, [*run, *(offline if loaded.source(name).fetches else [])])
    assert done.exit_code == 0, done.output
    page = CliRunner().invoke(app, ["stats", str(tmp_path / "out"), "--html", str(tmp_path / "page.html")])
    assert page.exit_code == 0, page.output
    assert "The recipe has no `stages`" in (tmp_path / "page.html").read_text()


def test_source_moves_the_images_along_and_set_goes_before_it(tmp_path):
    name = "llava_instruct_665k"
    here = {name: str(tmp_path / "rows.json")}
    assert load_recipe(name)[0].sources[name].images == "/data/llava"
    assert load_recipe(name, here)[0].sources[name].images is None
    both = load_recipe(name, here, sets={f"sources.{name}.images": "/pictures"})[0].sources[name]
    assert (both.root, both.images) == (str(tmp_path), "/pictures")
