"""The page of statistics: its counts, its cards, its search, and that it loads nothing from elsewhere."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.pages import list_allowed_scripts, list_run_scripts
from tests.helpers.small import RECIPE, vlmill, write_recipe
from vlmill.api.runs import open_run
from vlmill.api.stages import StageMixture
from vlmill.mixtures.page import counts, plots, search
from vlmill.mixtures.page.gallery import SEAM, SEAM_WIDTH, draw_tiles, make_cards
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.engine.build import PHASES
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.navit import NaViT
from vlmill.pipeline.images.pixels import encode_image
from vlmill.pipeline.images.tiles import Tiles
from vlmill.pipeline.page import embed_json, escape_script, render_page
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.funnel import read_funnel, total_funnel


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "run"
    stage = {**RECIPE["stages"][0], "mixture": {**RECIPE["stages"][0]["mixture"], "sequence_length": 1024, "epochs": 2}}
    weights = {"average": "samples", "sources": {"quiz": 3}}
    stage["train"] = {**stage["train"], "loss_weights": weights}
    recipe = write_recipe(tmp_path_factory.mktemp("input files"), stages=[stage])
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    return root


@pytest.fixture(scope="module")
def html(built):
    return open_run(built).render_stats_page()


@pytest.fixture(scope="module")
def mixture(built):
    return PlannedMixture(built, "align")


def data(html, name="data"):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.DOTALL)[1])


# -- the file


def test_a_weighed_loss_stands_beside_the_shares_of_each_source(built, html):
    found = StageMixture(built, "align").stats["sources"]
    shares = {source["name"]: source["loss_share"] for source in found}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    segments = {source["name"]: source["planned"]["segments"] for source in found}
    assert shares["quiz"] / shares["scans"] == pytest.approx(3 * segments["quiz"] / segments["scans"], rel=1e-3)
    assert f"<td>{shares['quiz']:.2%}</td>" in html


def test_a_page_needs_no_network(html):
    own = re.sub(r"<script[^>]*>.*?</script>", "<script></script>", html, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=\"(?!#)", own)
    assert not re.findall(r"url\(|@import", own)
    assert len(re.findall("<script", html)) >= 4
    assert list_allowed_scripts(html) == list_run_scripts(html)


def test_the_command_writes_the_same_page(built, html, tmp_path, capsys):
    assert vlmill("stats", built, "--html", tmp_path / "page.html") == 0
    assert "page.html" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text() == html


def test_a_stage_that_does_not_exist_is_refused_and_no_file_is_written(built, tmp_path, capsys):
    assert vlmill("stats", built, "--stage", "alien", "--html", tmp_path / "page.html") == 1
    assert "did you mean 'align'" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_no_text_of_a_sample_ends_a_script():
    text = "</script><script>alert(1)</script><!--"
    assert "<" not in embed_json({"text": text})
    assert json.loads(embed_json({"text": text})) == {"text": text}
    assert "</script" not in escape_script('x = "</script>"')


def test_names_are_escaped_where_they_stand_in_html(built):
    values = {
        "stages": [],
        "plots": [],
        "maps": [],
        "data": {"cards": []},
        "missing": [],
        "sources": [],
        "searchable": 0,
        "samples": 0,
        "vega": "",
        "short": str,
    }
    assert "<h1>&lt;b&gt;: mixtures</h1>" in render_page(
        "vlmill.mixtures.page", "page.html.jinja", name="<b>", **values
    )


# -- a run that does not have everything

QUIZ = {"quiz": RECIPE["sources"]["quiz"]}
MIXED = {**RECIPE["stages"][0], "mixture": {"shares": {"quiz": 1}, "epochs": 1, "sequence_length": 512}}
UNTRAINED = {key: value for key, value in MIXED.items() if key != "train"}
PARTIAL = {  # what a recipe has, and a sentence of its page when all of it is made
    "no policies": ({"policies": {}, "stages": [], "model": {}, "tokenizer": None}, "The recipe has no `policies`"),
    "no stages": ({"stages": [], "model": {}}, "The recipe has no `stages`"),
    "no tokenizer": ({"stages": [], "model": {}, "tokenizer": None}, "The recipe has no `stages`"),
    "no dedupe": ({"stages": [], "model": {}, "dedupe": None, "filters": []}, "The recipe has no `stages`"),
    "no train": ({"stages": [UNTRAINED], "model": {}}, "Stage align has no `train` block"),
    "no model": ({"stages": [MIXED], "model": {}}, None),
}
REPORTS = (
    "stats",
    "status",
    "report",
    "report --section overlap",
    "report --section contamination",
    "verify",
    "stats --json",
    "trace quiz/quiz.parquet#0",
)
REPORTS += ("trace --step 0", "what-if --set dedupe.text=0.8")


def notes(html):
    return re.findall(r'<p class="note">(.*?)</p>', html)


@pytest.mark.parametrize("partial", PARTIAL)
def test_a_page_shows_what_there_is_after_every_phase_and_says_what_is_missing(partial, tmp_path, capsys):
    changes, sentence = PARTIAL[partial]
    recipe, root, file = write_recipe(tmp_path, sources=QUIZ, **changes), tmp_path / "run", tmp_path / "page.html"
    for phase in PHASES:
        assert vlmill("build", recipe, "--out", root, "--workers", 0, "--until", phase) == 0, phase
        assert vlmill("stats", root, "--html", file) == 0, phase
        html = file.read_text()
        index, found = data(html)["index"], " ".join(notes(html))
        told = [index["reasons"][reason] for reason in index["rows"]["reason"]]
        unread = phase in ("survey", "benchmarks", "write")
        assert len(told) == (0 if unread else 8)
        is_open = phase in ("curate", "signals") and changes.get("dedupe", {}) is not None
        assert set(told) <= ({"undecided"} if is_open else {""})
        assert ("not read to the end yet" in found) == unread
        assert ("is not decided yet" in found) == is_open
        mixed = phase == "mixture" and bool(changes["stages"])
        assert bool(data(html)["cards"]) == mixed
        assert ("Stage align is not mixed yet" in found) == (bool(changes["stages"]) and not mixed)
        for report in REPORTS:
            command, *arguments = report.split()
            assert vlmill(command, root, *arguments) in (0, 1), (phase, report)
        assert vlmill("diff", root, root) == (0 if mixed else 1), phase
    capsys.readouterr()
    assert [note for note in notes(html) if sentence and note.startswith(sentence)] or sentence is None
    assert "<td>quiz</td>" in html
    policies = ["small"] if changes.get("policies") is None and changes.get("tokenizer", "") is not None else []
    assert index["policies"] == policies


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert vlmill("stats", tmp_path, "--html", tmp_path / "page.html") == 1
    assert "holds no run" in capsys.readouterr().err


# -- what is counted


def test_every_sample_of_the_shards_is_in_the_histogram_of_lengths(built, mixture):
    counted = counts.count_stage(built, mixture)
    kept = total_funnel(read_funnel(built))
    assert sum(row["samples"] for row in counted.lengths) == kept["samples"].kept
    assert (
        sum(row["images"] for row in counted.sizes)
        == sum(row["images"] for row in counted.tiles)
        == kept["images"].kept
    )
    assert all(row["from"] < row["to"] for row in counted.lengths)
    assert counted.shards == "all shards"


def test_every_row_of_the_plan_is_in_the_histogram_of_fill(built, mixture):
    counted = counts.count_stage(built, mixture)
    for of in ("tokens", "tiles"):
        assert sum(row["sequences"] for row in counted.fill if row["of"] == of) == mixture.sequences


def test_copies_are_counted_by_who_lost_and_who_keeps_them(built):
    recipe = read_locked_recipe(built)
    assert counts.count_overlap(built, recipe)["dropped"] == [{"source": "web", "keeper": "web", "copies": 1}]


def test_what_dedupe_found_two_sources_to_have_in_common_becomes_a_matrix():
    assert counts.count_shared({"web": {"web": 0, "quiz": 3}, "quiz": {"web": 2}}) == [
        {"source": "quiz", "other": "web", "number": 2},
        {"source": "web", "other": "quiz", "number": 3},
    ]


def test_plots_show_declared_beside_realised_and_all_reasons(html):
    plots = data(html, "plots")
    rows = next(iter(plots["stages"][0][0]["spec"]["data"].values()))
    assert {(row["source"], row["which"]) for row in rows} >= {("web", "declared"), ("web", "realised")}
    samples = next(plot for plot in plots["run"] if plot["title"] == "Outcomes of samples")
    outcomes = {row["outcome"] for row in samples["spec"]["data"]["values"]}
    assert {"kept", "language", "exact_text"} <= outcomes


def specifications(html):
    plots = data(html, "plots")
    return {plot["title"]: plot["spec"] for plot in (*plots["stages"][0], *plots["run"])}


def test_a_stage_names_the_sources_it_has_and_no_reason_looks_like_a_source(html, built):
    specs, recipe = specifications(html), read_locked_recipe(built)
    scale = specs["Length of a sample"]["encoding"]["color"]["scale"]
    assert scale["domain"] == list(recipe.stages[0].mixture["shares"])
    of_sources = set(data(html)["colours"].values())
    assert of_sources >= set(scale["range"])
    for level in ("rows", "samples", "nodes", "images"):
        assert not of_sources & set(specs[f"Outcomes of {level}"]["encoding"]["color"]["scale"]["range"])
    assert not of_sources & set(specs["Declared and realised share"]["encoding"]["color"]["scale"]["range"])


def test_a_matrix_names_all_sources_so_that_what_has_nothing_in_common_is_seen(html, built):
    cells = specifications(html)["Dropped copies"]["layer"][0]["encoding"]
    assert cells["x"]["scale"]["domain"] == cells["y"]["scale"]["domain"] == list(read_locked_recipe(built).sources)


@pytest.mark.parametrize(("name", "angle"), [("web", 0), ("the_cauldron-easy_vqa", -35)])
def test_plots_of_a_run_have_a_place_for_each_source_none_for_groups_and_names_that_can_be_read(name, angle):
    sources = [name, f"{name}2"]
    line = {"in": 2, "kept": 2, "dropped": {}, "failed": {}}
    overlap = {"images": [{"source": name, "other": sources[1], "number": 3}]}
    languages = [{"source": name, "language": "en", "samples": 2}]
    colours = plots.choose_colours([*sources, "group"])
    made = plots.plot_run({source: {"samples": line} for source in sources}, languages, overlap, colours)
    specs = {plot["title"]: plot["spec"] for plot in made}
    cells = specs["Images in common"]["layer"][0]["encoding"]
    assert cells["x"]["scale"]["domain"] == cells["y"]["scale"]["domain"] == sources
    assert cells["x"]["axis"]["labelAngle"] == angle
    assert specs["Languages"]["layer"][0]["encoding"]["color"]["scale"]["domain"] == sources


def test_a_stage_says_its_epochs_and_how_often_images_are_shown(html):
    text = " ".join(re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL).split())
    assert re.search(r"full; .* tiles a sequence \(most \d+\); [\d.]+ times the tokens there are", text)
    assert re.search(r"\d+ images shown \d+ times, [\d.]+ each and \d+ at most", text)


# -- what can be searched


def test_every_sample_is_found_with_its_language_and_fate(built, html):
    index = data(html)["index"]
    rows = index["rows"]
    assert len(rows["source"]) == total_funnel(read_funnel(built))["samples"].came
    web = {
        rows["row"][n]: (index["languages"][rows["language"][n]], index["reasons"][rows["reason"][n]])
        for n in range(len(rows["source"]))
        if index["sources"][rows["source"][n]] == "web"
    }
    assert web[5] == ("zh", "lost: language")
    assert web[4][1] == "lost: exact_text"
    assert web[6][1] == "language"  # one node of it
    assert web[0][1] == ""


def test_what_was_kept_stands_with_its_tokens(html):
    index = data(html)["index"]
    kept = [not index["reasons"][reason].startswith("lost") for reason in index["rows"]["reason"]]
    assert [tokens is not None for tokens in index["tokens"][0]] == kept


def test_an_index_of_fewer_samples_has_some_of_every_source_and_always_the_same(built):
    recipe = read_locked_recipe(built)
    few, again = (search.index_samples(built, recipe, ["small"], 8) for _ in range(2))
    assert few == again
    assert len(few["rows"]["source"]) == 8
    assert set(few["sources"]) == set(recipe.sources)


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(0, 500), max_size=6), st.integers(0, 1000))
def test_sources_share_an_index_alike_and_leave_what_they_do_not_need(sizes, most):
    quotas = search.divide_quotas(sizes, most)
    assert sum(quotas.values()) == min(most, sum(sizes.values()))
    short = [quotas[name] for name in sizes if quotas[name] < sizes[name]]
    assert all(quota <= min(short, default=0) + 1 for quota in quotas.values()) or not short


@pytest.mark.parametrize(
    ("text", "code"), [("The boats were tied to the old bridge.", "en"), ("3 + 4 = 7", "unsure"), ("", "unsure")]
)
def test_a_language_is_named_only_where_it_is_likely(text, code):
    assert search.guess_language(text) == code


# -- cards


@pytest.fixture(scope="module")
def gallery(mixture):
    return make_cards(mixture, "answers", 5)


def test_every_entry_has_cards(gallery, mixture):
    assert {card["entry"] for card in gallery} == set(mixture.sources)


def test_a_card_shows_its_segment_among_its_neighbours(gallery, mixture):
    for card in gallery:
        assert card["neighbours"][card["place"]]["id"] == card["id"]
        assert card["neighbours"][card["place"]]["tokens"] == card["tokens"]
        assert sum(other["tokens"] for other in card["neighbours"]) <= card["length"]
        assert len(card["neighbours"]) == len(mixture.sequence(card["sequence"]))


def test_of_a_conversation_the_answers_are_supervised_and_of_a_document_all_text(gallery):
    asked = next(card for card in gallery if card["source"] == "quiz")
    supervised = "".join(run["text"] for run in asked["text"] if run.get("supervised"))
    read = "".join(run["text"] for run in asked["text"] if not run.get("supervised", True))
    assert "Thing" in supervised
    assert "What stands in field" in read
    assert read.startswith("<|user|>")
    told = next(card for card in gallery if card["source"] == "web")
    assert all(run.get("supervised", True) for run in told["text"])


def test_if_all_text_is_supervised_so_are_the_questions(mixture):
    asked = next(card for card in make_cards(mixture, "text", 5) if card["source"] == "quiz")
    assert "What stands in field" in "".join(run["text"] for run in asked["text"] if run.get("supervised"))


def test_an_image_stands_in_the_text_with_its_placeholders(gallery):
    asked = next(card for card in gallery if card["source"] == "quiz")
    assert [run["image"] for run in asked["text"] if "image" in run] == [shown["tokens"] for shown in asked["pictures"]]
    assert asked["pictures"][0]["picture"].startswith("data:image/webp;base64,")


class Shown:
    """A mixture of a policy alone."""

    def __init__(self, policy):
        self.policy = policy


@pytest.mark.parametrize(
    ("policy", "size", "shape", "seams"),
    [
        (Letterbox(side=28, patch=14), (60, 40), (28, 28), 0),
        (AnyRes(side=28, patch=14, pinpoints=((56, 56),)), (90, 80), (28 + 2 + 58, 58), 2),
        (Tiles(side=28, longest=56, patch=14), (90, 40), (28 + 2 + 58, 28), 2),
        (NaViT(), (90, 40), None, 0),
    ],
)
def test_tiles_are_drawn_in_their_grid_beside_the_overview(policy, size, shape, seams):
    image = Image.new("RGB", size, (10, 200, 30))
    (layout,) = policy.layout([size])
    stored = {entry: encode_image(drawn, policy.quality)[1] for entry, drawn in policy.render(image, layout).items()}
    drawn = draw_tiles(Shown(policy), stored, layout)
    assert shape is None or drawn.size == shape
    assert (np.asarray(drawn) == SEAM).all(axis=2).all(axis=0).sum() == seams * SEAM_WIDTH  # from top to bottom


def test_every_colour_and_mark_of_the_page_is_defined(html):
    style = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert set(re.findall(r"var\((--[\w-]+)\)", style)) <= set(re.findall(r"(--[\w-]+):", style))
    assert ".supervised {" in style
