"""`vlmill preview`: samples with their verdicts, pictures and tokens before any build, and nothing written."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
import yaml
from PIL import Image

from tests.helpers.small import RECIPE, vlmill, write_recipe
from tests.helpers.upstream import json_lines, parquet, picture
from vlmill.pipeline.checks.preview import preview_source
from vlmill.pipeline.checks.preview_text import COLUMNS, LINES, draw_cells, list_lines
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch.host_files import HostFiles
from vlmill.pipeline.filters.threshold import Bound
from vlmill.pipeline.page.preview import write_preview
from vlmill.pipeline.recipe.load import load_recipe

EVERYTHING = """
from dataclasses import dataclass

from vlmill import Drop


@dataclass(frozen=True)
class Everything:
    name = "everything"

    def decide(self, samples, image_stats):
        for row, _ in samples:
            yield Drop(row)
"""
"""A custom filter."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A recipe with every kind of source, and what is there before."""
    folder = tmp_path_factory.mktemp("preview")
    recipe, _, base = load_recipe(str(write_recipe(folder)))
    return folder, recipe, base


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_samples_have_their_outcome_their_pictures_and_their_tokens(small):
    folder, recipe, base = small
    before = list_files(folder)
    web = preview_source(recipe, base, "web", 8)
    assert [str(one.traced.outcome.sample or "") for one in web.samples] == ["", "", "", "", "", "language", "", ""]
    mixed = web.samples[6].traced.outcome.nodes
    assert [str(reason or "") for reason in mixed] == ["", "language", ""]
    failed = [str(reason) for reason in web.samples[7].traced.outcome.nodes if reason]
    assert failed == ["http_client_error", "undecodable"]
    assert [Image.open(io.BytesIO(data)).size for data in web.samples[0].pictures.values()] == [
        (56, 48)
    ]  # without padding
    assert list(web.samples[0].pictures) == [1]
    total, supervised = web.samples[0].tokens["small"]
    assert total == supervised + 16  # of the picture: 56 px are 4 x 4 patches of 14
    assert not web.samples[5].tokens
    assert list_files(folder) == before


def test_pages_are_no_more_than_were_asked_for_and_rows_without_a_sample_are_named(small, tmp_path):
    _, recipe, base = small
    assert len(preview_source(recipe, base, "papers", 1).samples) == 1
    row = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    json_lines(tmp_path / "a.jsonl", [{"messages": []}, row, row])
    loaded = write_small(tmp_path, {"talk": {"kind": "chat", "files": "a.jsonl"}})
    found = preview_source(loaded, tmp_path, "talk", 2)
    assert (len(found.samples), found.refused) == (1, ("row 0: empty_row: no turns",))
    assert found.notes == ("tokens are not counted: the recipe names no tokenizer",)


def write_small(folder, sources):
    settings = {"name": "mine", "sources": sources, "filters": [], "policies": RECIPE["policies"]}
    (folder / "mine.yaml").write_text(yaml.safe_dump(settings))
    return load_recipe(str(folder / "mine.yaml"))[0]


def test_images_are_requested_by_the_rules_of_fetching(tmp_path):
    rows = [{"url": "http://127.0.0.1:9/a.png", "caption": "A dog"}, {"url": "ftp://a.test/", "caption": "A cat"}]
    parquet(tmp_path / "a.parquet", rows)
    found = preview_source(
        write_small(tmp_path, {"pairs": {"kind": "pairs", "files": "a.parquet"}}), tmp_path, "pairs", 5
    )
    assert [one.traced.outcome.sample for one in found.samples] == [Reason.FORBIDDEN_ADDRESS, Reason.BAD_URL]
    assert found.notes[0] == (
        "pairs: images at 127.0.0.1:9 will not be fetched: no public host. If it is yours, allow it: "
        "--set 'sources.pairs.fetch.allow_hosts=[127.0.0.1:9]'"
    )


def test_image_files_that_are_not_there_are_named_with_the_option_that_says_where(tmp_path):
    rows = [{"image": f"{n}.png", "question": "What?", "answer": "A dog"} for n in range(2)]
    for name in ("data", "pictures"):
        (tmp_path / name).mkdir()
    json_lines(tmp_path / "data/a.jsonl", rows)
    for row in rows:
        (tmp_path / "pictures" / row["image"]).write_bytes(picture(1))
    options = {"image": "image", "question": "question", "answer": "answer"}
    sources = {"quiz": {"kind": "table", "root": "data", "files": "a.jsonl", "images": "data", "options": options}}
    found = preview_source(write_small(tmp_path, sources), tmp_path, "quiz", 2)
    assert [one.traced.outcome.sample for one in found.samples] == [Reason.MISSING_FILE] * 2
    assert "none of 2 image files that rows name, such as 0.png, is under" in found.notes[0]
    assert "--set sources.quiz.images=" in found.notes[0]


def test_bounds_of_numbers_that_rows_bring_are_asked_and_others_named_with_their_cause(tmp_path):
    rows = [{"q": f"What is {n}?", "a": f"Number {n}", "score": n, "other": 1} for n in range(4)]
    json_lines(tmp_path / "a.jsonl", rows)
    options = {"question": "q", "answer": "a", "signals": ["score", "other"]}
    settings = {
        "name": "mine",
        "sources": {"quiz": {"kind": "table", "files": "a.jsonl", "options": options}},
        "signals": {
            "rated": {"kind": "brought", "number": "score"},
            "rest": {"kind": "brought", "number": "other"},
            "ppl": {"kind": "perplexity", "model": "nowhere"},
        },
        "filters": [
            {"threshold": {"any": {"rated": {"min": 2}, "ppl": {"max": 9}, "rest": {"min_quantile": 0.5}},
                           "all": [{"rated": {"max": 2}, "rest": {"max": 0}}, {"ppl": {"min": 1}, "rest": {"max": 0}}],
                           "drops": "samples"}}
        ],
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    recipe, _, base = load_recipe(str(tmp_path / "mine.yaml"))
    found = preview_source(recipe, base, "quiz", 4)
    outcomes = [str(one.traced.outcome.sample or "") for one in found.samples]
    assert outcomes == ["signal:rated", "signal:rated", "", "signal:rated"]
    assert found.notes[:-1] == (
        "threshold: bounds of ppl are not asked: a preview asks no model",
        "threshold: bounds of rest are not asked: a quantile is one of all rows",
    )
    only = replace(recipe.filters[0], any={"ppl": Bound(max=9, sources=("web",))}, all=())
    found = preview_source(replace(recipe, filters=(only,)), base, "quiz", 4)
    assert [one.traced.outcome.sample for one in found.samples] == [None] * 4
    assert found.notes == ("tokens are not counted: the recipe names no tokenizer",), "it is not asked of this source"


def test_rows_from_all_over_are_chosen_by_hash_and_are_the_same_again(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "A"}]} for n in range(50)
    ]
    json_lines(tmp_path / "a.jsonl", rows)
    loaded = write_small(tmp_path, {"talk": {"kind": "chat", "files": "a.jsonl"}})
    first, again = (preview_source(loaded, tmp_path, "talk", 4, spread=True) for _ in range(2))
    numbers = [one.traced.sample.id.row for one in first.samples]
    assert numbers == [one.traced.sample.id.row for one in again.samples]
    assert len(numbers) == 4
    assert max(numbers) > 10


def test_lines_tell_what_the_page_tells_and_a_terminal_gets_cells(small, tmp_path):
    _, recipe, base = small
    quiz = preview_source(recipe, base, "quiz", 1)
    plain = [str(line) for line in list_lines(quiz, pictures=False)]
    assert any(line.startswith("  tokens: small ") for line in plain)
    assert len(list(list_lines(quiz, pictures=True))) == len(plain) + 1
    html = write_preview(tmp_path / "look", "small", [quiz]).read_text()
    assert "What stands in field 0?" in html
    assert html.count('<img src="data:') == 1
    assert "default-src 'none'" in html


def test_a_picture_becomes_half_blocks_within_bounds():
    tall = Image.open(io.BytesIO(picture(1, (30, 400))))
    wide = Image.open(io.BytesIO(picture(1, (400, 30))))
    for one in (tall, wide, Image.new("RGB", (1, 1), (255, 0, 0))):
        lines = draw_cells(one).plain.split("\n")
        assert {len(line) for line in lines} == {len(lines[0])}
        assert 1 <= len(lines) <= LINES
        assert 1 <= len(lines[0]) <= COLUMNS
    assert draw_cells(Image.new("RGB", (1, 1), (255, 0, 0))).spans[0].style == "#ff0000 on #ff0000"


def test_the_command_goes_on_past_a_source_that_is_not_there(small, tmp_path, monkeypatch, capfd):
    folder, _, _ = small
    monkeypatch.chdir(tmp_path)
    gone = ["--source", f"quiz={tmp_path}/"]
    assert vlmill("preview", folder / "recipe.yaml", "-n", 1, "--only", "quiz", "--only", "papers", *gone) == 1
    said = capfd.readouterr()
    assert "papers: 1 sample of papers.tar" in said.out
    assert "source 'quiz': no file matches" in " ".join(said.err.split())
    assert vlmill("preview", folder / "recipe.yaml", "--source", "quiz") == 1
    assert "this source alone: --only quiz" in " ".join(capfd.readouterr().err.split())
    assert vlmill("preview", folder / "recipe.yaml", "--only", "gone") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_asks_filters_that_it_names(small, tmp_path, capfd):
    folder, _, _ = small
    (tmp_path / "all.py").write_text(EVERYTHING)
    quiz = ("preview", folder / "recipe.yaml", "-n", 1, "--only", "quiz")
    assert vlmill(*quiz) == 0
    assert "filter:everything" not in capfd.readouterr().out
    assert vlmill(*quiz, "--filter", tmp_path / "all.py") == 0
    assert "filter:everything" in capfd.readouterr().out


def test_a_source_without_a_file_is_an_error(tmp_path):
    loaded = write_small(tmp_path, {"talk": {"kind": "chat", "files": "a.jsonl"}})
    with pytest.raises(SourceError, match="no file matches"):
        preview_source(loaded, tmp_path, "talk", 1)


def test_a_host_that_keeps_its_files_is_not_asked_for_them(tmp_path, monkeypatch):
    parquet(tmp_path / "a.parquet", [{"url": "https://img.test/a.png", "caption": "A dog"}])
    loaded = write_small(tmp_path, {"pairs": {"kind": "pairs", "files": "a.parquet"}})
    refusing = "User-agent: *\nDisallow: /"
    monkeypatch.setattr(
        "vlmill.pipeline.fetch.hosts.ask_host", lambda _, origin, day: HostFiles(origin, day, refusing, None)
    )
    (one,) = preview_source(loaded, tmp_path, "pairs", 1).samples
    assert one.traced.outcome.sample is Reason.ROBOTS_TXT


def test_the_page_names_a_role_once_for_a_picture_and_the_text_beside_it(tmp_path):
    turns = [("human", "<image>\nWhat?"), ("gpt", "This."), ("human", "And now?"), ("gpt", "That.")]
    said = [{"from": speaker, "value": text} for speaker, text in turns]
    json_lines(tmp_path / "rows.jsonl", [{"image": "0.png", "conversations": said}])
    (tmp_path / "0.png").write_bytes(picture(0, (64, 64)))
    sources = {"talk": {"kind": "llava", "files": "rows.jsonl"}}
    recipe, _, base = load_recipe(str(write_recipe(tmp_path, sources=sources, stages=[], dedupe=None)))
    page = write_preview(tmp_path / "out", "small", [preview_source(recipe, base, "talk", 1)]).read_text()
    roles = re.findall(r"<b>(user|assistant)</b> ((?:<[^>]*>)?\w+)", page)
    assert roles == [
        ("user", '<span class="soft">image'),
        ("assistant", "This"),
        ("user", "And"),
        ("assistant", "That"),
    ]
    assert "<p>What?</p>" in page
