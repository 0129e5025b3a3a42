"""What a build says of its mixtures, and what it costs to change one."""

import json
import shutil
from dataclasses import replace

import polars as pl
import pytest

from tests.helpers.small import RECIPE, vlmill, write_recipe
from tests.helpers.upstream import obelics
from vlmill.mixtures.build import read_stats
from vlmill.mixtures.report.alike_texts import count_alike
from vlmill.mixtures.report.notes import _warn_of_unsupervised, warn_of_few_held_out
from vlmill.mixtures.report.stats import FEW
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.train.settings import Training
from vlmill.train.steps import count_steps
from vlmill.train.validate import _fit_training

COMMON = [f"word{number}" for number in range(60)]


def article(number, own):
    """A text that shares its words with the articles of the same number, but for `own` of them."""
    return " ".join([*(f"{word}x{number}" for word in COMMON), *(f"only{own}{place}" for place in range(12))])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("input files")
    path = write_recipe(folder)
    obelics(
        folder / "news.parquet", [[article(number, "news")] for number in range(5)] + [["Something else entirely."]]
    )
    obelics(folder / "blog.parquet", [[article(number, "blog")] for number in range(3)])
    more = {name: {"kind": "obelics", "files": f"{name}.parquet", "licence": "CC0-1.0"} for name in ("news", "blog")}
    shares = {"news": 0.5, "blog": 0.25, "quiz": 0.25}
    stage = {**RECIPE["stages"][0], "mixture": {"shares": shares, "sequence_length": 2048, "tiles_per_sequence": 16}}
    sources = {"quiz": RECIPE["sources"]["quiz"], **more}
    return write_recipe(folder, sources=sources, stages=[stage]) and path


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    return root


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "copy")


def test_texts_of_two_parts_that_are_alike_are_counted(built):
    assert count_alike(built, dict.fromkeys(["blog", "news", "quiz"], "small")) == {("blog", "news"): 3}
    assert count_alike(built, dict.fromkeys(["blog", "quiz"], "small")) == {}


def test_a_run_without_a_note_has_none_but_what_its_parts_have_in_common(built):
    assert read_stats(built, "align")["align"]["notes"] == [
        "blog and news: 3 pairs of samples whose texts are alike by 0.5 or more stay in both"
    ]


def test_an_entry_of_which_nothing_is_learned_is_noted(built):
    recipe = read_locked_recipe(built)
    stats = read_stats(built, "align")["align"]
    mute = [{**entry, "planned": {**entry["planned"], "supervised": 0}} for entry in stats["sources"][:1]]
    stats = {**stats, "sources": [*mute, *stats["sources"][1:]]}
    said = list(_warn_of_unsupervised(recipe, "align", stats))
    assert [note.partition(":")[0] for note in said] == [mute[0]["name"]]
    assert "nothing of it is learned" in said[0]
    stages = [replace(stage, train={**stage.train, "loss": "text"}) for stage in recipe.stages]
    assert not list(_warn_of_unsupervised(replace(recipe, stages=tuple(stages)), "align", stats))


@pytest.mark.parametrize(
    ("held", "fraction", "said"),
    [
        (2, 0.1, "quiz: 2 of 150 samples are held out (held_out 0.1), and a score of so few says little; more: "),
        (1, 0.3, "quiz: 1 of 150 samples is held out (held_out 0.3), and a score of so few says little"),
        (0, 0.3, "quiz: 0 of 150 samples are held out (held_out 0.3), and a score of so few says little"),
        (FEW, 0.1, ""),
        (0, 0.0, ""),
    ],
)
def test_a_source_that_holds_out_few_samples_is_noted_with_a_fraction_that_holds_out_more(
    tmp_path, held, fraction, said
):
    (tmp_path / "mixtures/align").mkdir(parents=True)
    pl.DataFrame({"source": [0] * held}, {"source": pl.Int16}).write_parquet(tmp_path / "mixtures/align/h.parquet")
    entry = {"name": "quiz", "held_out": fraction, "shards": [{"samples": 100}, {"samples": 50}]}
    lock = {"held_out": {"path": "h.parquet"}, "sources": [entry, entry]}
    advice = "held_out: {quiz: 0.28} in each stage" if said.endswith("more: ") else ""
    assert list(warn_of_few_held_out(tmp_path, "align", lock)) == ([said + advice] if said else [])


def test_another_tokenizer_than_the_one_that_counted_is_noted(copy):
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + "\n")
    assert "not the tokenizer that counted the tokens" in read_stats(copy, "align")["align"]["notes"][0]


def test_a_build_shows_notes_and_the_nearest_mixture_where_a_cap_binds(recipe, copy, capsys):
    change = [
        "--accept-changes",
        "--set",
        "stages.align.mixture.max_repetition=1",
        "--set",
        "stages.align.mixture.shares.quiz=0.5",
    ]
    assert vlmill("build", recipe, "--out", copy, "--workers", 0, *change) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "align: blog may be passed 1 times" in shown
    assert "so the nearest mixture that can be had is planned: blog " in shown
    assert "align: the shares add up to 1.25; they are read as proportions" in shown
    assert vlmill("stats", copy) == 0
    assert "nearest mixture that can be had" in " ".join(capsys.readouterr().out.split())


def test_a_build_says_that_training_wants_more_than_its_plan_has_and_the_steps_that_it_feeds(recipe, copy, capsys):
    def build(steps, sequences=2):
        sets = (f"stages.align.train.steps={steps}", f"stages.align.train.sequences={sequences}")
        change = ("--accept-changes", *(word for one in sets for word in ("--set", one)))
        assert vlmill("build", recipe, "--out", copy, "--workers", 0, *change) == 0
        return " ".join(capsys.readouterr().out.split())

    planned = json.loads((copy / "mixtures/align/mixture.lock.json").read_bytes())["plan"]["sequences"]
    assert f"align: train.steps reads 1 of the {planned} sequences of its plan" in build(1, 1)
    shown = build(1000)
    assert f"align: train: 1000 steps of 2 sequences want 2000 sequences, and the plan has {planned};" in shown
    assert f"Next: the same build with --accept-changes --set stages.align.train.steps={planned // 2}" in shown
    assert f"vlmill train {copy}" not in shown, "it would fail"
    shown = build(planned // 2)
    assert "sequences want" not in shown
    assert "never trained on" not in shown
    assert f"vlmill train {copy}" in shown


@pytest.mark.parametrize(
    ("settings", "scale", "fitting"),
    [
        ({"sequences": 2, "steps": 9}, 1, {"steps": 5}),
        ({"sequences": 2, "steps": 9}, 0.5, {"steps": 10}),
        ({"sequences": 85, "steps": 2}, 1, {"sequences": 5}),
        ({"sequences": 84, "steps": 2, "accumulation": 4}, 1, {"sequences": 4}),
        ({"sequences": 85, "steps": 12}, 1, {"sequences": 1, "steps": 11}),
        ({"sequences": 84, "steps": 12, "accumulation": 4}, 1, {"sequences": 4, "steps": 2}),
        ({"sequences": 85, "epochs": 1}, 0.1, {"sequences": 11}),
        ({"sequences": 24, "steps": 1, "accumulation": 2, "ranks": 3}, 1, {"sequences": 6}),
        ({"sequences": 24, "steps": 1, "accumulation": 12}, 1, {}),
    ],
)
def test_what_is_proposed_for_a_short_plan_can_be_trained(settings, scale, fitting):
    training = Training(learning_rate={"text": 1e-3}, **settings)
    with pytest.raises(RecipeError):
        count_steps(training, 11)
    assert _fit_training(training, 11, scale) == fitting
    if fitting:
        steps = {"steps": int(fitting["steps"] * scale)} if "steps" in fitting else {}
        assert count_steps(replace(training, **fitting | steps), 11) > 0


def test_a_build_without_a_model_names_the_command_that_gives_its_mixture_to_another_trainer(recipe, copy, capsys):
    bare = ("--accept-changes", "--set", "model={}", "--set", "stages.align.train={}")
    assert vlmill("build", recipe, "--out", copy, "--workers", 0, *bare) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "vlmill train" not in shown
    said = f"vlmill export {copy} --stage align --to webdataset --out align"
    assert said.replace(" ", "") in shown.replace(" ", "")


def test_a_strict_mixture_is_refused_with_what_binds_and_the_ways_out(recipe, copy, capsys):
    change = [
        "--accept-changes",
        "--set",
        "stages.align.mixture.max_repetition=1",
        "--set",
        "stages.align.mixture.strict=true",
    ]
    assert vlmill("build", recipe, "--out", copy, "--workers", 0, *change) == 1
    assert "may be passed 1 times, the mixture asks for" in " ".join(capsys.readouterr().err.split())


def test_without_dedupe_a_note_says_that_copies_were_not_looked_for(recipe, tmp_path, capsys):
    arguments = ["--workers", 0, "--limit", 4, "--set", "dedupe=null"]
    assert vlmill("build", recipe, "--out", tmp_path / "run", *arguments) == 0
    assert "what entries have in common was not looked for" in " ".join(capsys.readouterr().out.split())


def test_another_share_writes_no_shard_and_reads_no_image(recipe, copy):
    def files():
        found = (
            path for entry in ("shards", "steps") for path in (copy / entry).rglob("*") if "mixtures" not in path.parts
        )
        return {
            path: (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in found
            if path.suffix in {".tar", ".parquet", ".npy"}
        }

    before, plan = files(), json.loads((copy / "mixtures/align/stats.json").read_bytes())
    assert (
        vlmill(
            "build",
            recipe,
            "--out",
            copy,
            "--workers",
            0,
            "--accept-changes",
            "--set",
            "stages.align.mixture.shares.quiz=2",
        )
        == 0
    )
    assert files() == before
    after = json.loads((copy / "mixtures/align/stats.json").read_bytes())
    assert after["sources"][2]["declared"] > plan["sources"][2]["declared"]
