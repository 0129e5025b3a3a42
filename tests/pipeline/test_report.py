"""The report says the outcome of everything that came in, and shows examples that do not change from day to day."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import yaml
from PIL import Image
from rich.console import Console

from tests.helpers.pages import list_allowed_scripts, list_run_scripts
from tests.helpers.small import CHINESE, picture, vlmill, write_recipe
from tests.helpers.upstream import cauldron, pdf, pdfa_json, tar
from vlmill.pipeline.checks.estimate_table import format_size
from vlmill.pipeline.core.names import HOST_COUNTS_FILE
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, read_rows
from vlmill.pipeline.page.report import SIDE
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports import hosts
from vlmill.pipeline.reports.funnel import (
    find_steps_by_reason,
    format_share,
    make_funnel_tables,
    make_lines,
    read_funnel,
    total_funnel,
)
from vlmill.pipeline.reports.losses import choose_losses, list_losses

BOATS = """
from dataclasses import dataclass
from vlmill.pipeline.filters import Drop

@dataclass(frozen=True)
class Boats:
    name = "boats"

    def decide(self, samples, image_stats):
        for row, sample in samples:
            for index, node in enumerate(sample.nodes):
                if "boats" in (node.text or ""):
                    yield Drop(row, index, score=0.75)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    recipe = write_recipe(folder / "input files", dedupe={"buckets": 1}, stages=[])
    (folder / "boats.py").write_text(BOATS)
    own = ("--filter", folder / "boats.py")
    assert vlmill("build", recipe, "--out", folder / "run", "--workers", 0, *own) == 0
    return folder / "run"


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_every_loss_has_a_step(built):
    books = read_funnel(built)
    for source, levels in books.items():
        steps = find_steps_by_reason(built, source)
        reasons = {
            reason for line in levels.values() for partition in ("dropped", "failed") for reason in line[partition]
        }
        assert reasons - {"required_lost", "turn_lost", "nothing_left"} <= steps.keys()
    web = find_steps_by_reason(built, "web")
    assert web["language"] == ["language"]
    assert web["http_client_error"] == web["not_an_image"] == ["fetch"]
    assert "dedupe" in web["exact_text" if "exact_text" in web else "near_text"]


def test_the_lines_of_a_source_add_up(built):
    for source, levels in read_funnel(built).items():
        found = make_lines(levels, find_steps_by_reason(built, source))
        numbers = {line.name: [number for number, _ in line.cells] for line in found.lines}
        below = {name: [0] * len(found.levels) for name in ("dropped", "failed")}
        partition = ""
        for line in found.lines:
            partition = line.name if line.name in below else partition
            if line.name.startswith(" "):
                below[partition] = [a + b for a, (b, _) in zip(below[partition], line.cells, strict=True)]
        assert below == {name: numbers[name] for name in below}
        rows = zip(*(numbers[name] for name in ("in", "kept", "dropped", "failed")), strict=True)
        assert all(came == kept + dropped + failed for came, kept, dropped, failed in rows)


@pytest.mark.parametrize("width", [80, 160])
def test_tables_fit_the_terminal(built, width):
    console = Console(width=width, file=io.StringIO())
    big = {
        source: json.loads(re.sub(r"(?<=: )(\d+)", r"\g<1>00000", json.dumps(books)))
        for source, books in read_funnel(built).items()
    }
    for table in make_funnel_tables(built, big, width):
        console.print(table)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    assert "language" in shown
    assert re.search(r"\d{3},\d{3} +\d+", shown)


def test_the_report_has_all_sections_and_says_which_the_run_has_not_and_why(built, capsys):
    assert vlmill("report", built) == 0
    words = said(capsys)
    assert "Funnel: in = kept + dropped + failed all sources" in words
    for source, levels in read_funnel(built).items():
        assert f"{source} {levels['rows']['kept']:,} " in words.partition("kept of each source")[2]
    assert "Overlap: images and texts of one source" in words
    assert "no contamination:" in words
    assert vlmill("report", built, "--section", "overlap") == 0
    assert "Funnel" not in said(capsys)
    assert vlmill("report", built, "--source", "quiz") == 0
    words = said(capsys)
    assert "all sources" not in words
    assert "texts web" not in words


def test_what_is_damaged_is_no_section_that_is_missing(built, tmp_path, capsys):
    shutil.copytree(built, tmp_path / "run")
    manifest = tmp_path / "run/steps/dedupe/resolve/manifest.json"
    manifest.write_text("{}")
    assert vlmill("report", tmp_path / "run") == 1
    assert f"{manifest} is no manifest" in " ".join(capsys.readouterr().err.split())
    manifest.unlink()
    assert vlmill("report", tmp_path / "run") == 0
    assert "no overlap: " in said(capsys)


def test_shares_of_little_are_not_called_nothing():
    assert format_share(1, 3) == "33.3%"
    assert format_share(1, 10_000) == "<0.1%"
    assert format_share(1, 1000, 0) == "<1%"
    assert format_share(0, 5) == "0.0%"
    assert format_share(0, 0) == ""


def test_single_losses_come_to_what_the_books_say(built):
    recipe, books = read_locked_recipe(built), read_funnel(built)
    for source in books:
        found = Counter(str(loss.reason) for loss in list_losses(built, recipe, source) if loss.node == WHOLE_SAMPLE)
        samples = books[source]["samples"]
        assert found == {**samples["dropped"], **samples["failed"]}


def test_examples_are_the_same_in_any_order_and_fewer_are_the_first_of_more(built):
    found = [loss for source in read_funnel(built) for loss in list_losses(built, read_locked_recipe(built), source)]
    assert len(found) > 3
    assert choose_losses(found, 3) == choose_losses(found[::-1], 3) == choose_losses(found, len(found))[:3]


def test_an_example_says_where_what_and_because_of_whom(built, capsys):
    assert vlmill("report", built, "--reason", "not_an_image") == 0
    assert "web/web.parquet#7 (node 2, image, upstream id doc-07) http://img.small.test/page.png" in said(capsys)
    assert vlmill("report", built, "--reason", "exact_text", "--json") == 0
    (example,) = json.loads(capsys.readouterr().out)["examples"]
    assert (example["id"], example["other"], example["filter"]) == ("web/web.parquet#4", "web/web.parquet#0", "dedupe")
    assert example["text"].startswith("Report 0 describes")
    assert vlmill("report", built, "--source", "web", "--reason", "language", "--examples", 1) == 0
    assert said(capsys).count("web/web.parquet#") == 1


def test_what_a_custom_filter_drops_stands_under_its_name_everywhere(built, capsys):
    assert read_funnel(built)["web"]["nodes"]["dropped"]["filter:boats"] == 1
    assert find_steps_by_reason(built, "web")["filter:boats"] == ["boats"]
    assert vlmill("report", built, "--reason", "filter:boats") == 0
    assert "web/web.parquet#6 (node 0, text, upstream id doc-06, boats 0.75) The gardener" in said(capsys)
    assert vlmill("report", built, "--reason", "boats") == 1
    assert "did you mean 'filter:boats'?" in " ".join(capsys.readouterr().err.split())
    assert vlmill("verify", built) == 0


def test_a_misspelt_reason_or_source_gets_the_nearest_and_the_list(built, capsys):
    assert vlmill("report", built, "--reason", "langage") == 1
    words = " ".join(capsys.readouterr().err.split())
    assert "did you mean 'language'? allowed: " in words
    assert "http_client_error" in words
    assert "near_image" not in words, "only what occurs"
    assert vlmill("report", built, "--source", "wbe") == 1
    assert "did you mean 'web'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("report", "--reason", "boats"), "boats is a filter; did you mean 'filter:boats'? allowed: "),
        (("report", "--reason", "dedupe"), "dedupe is a step; did you mean 'exact_text'? allowed: "),
        (("report", "--reason", "shape"), "shape is a filter; allowed: "),  # it dropped nothing
        (("report", "--reason", "fetch"), "here; did you mean 'http_client_error' or 'not_an_image'? allowed: "),
        (("report", "--reason", "quiz"), "quiz is a source; allowed: "),
        (("report", "--source", "language"), "language is a filter and a reason; allowed: "),
        (("report", "--source", "obelics"), "obelics is the kind of web; allowed: "),
        (("report", "--section", "small"), "small is an image policy; allowed: contamination"),
        (("trace", "small/web.parquet#0"), "small is an image policy; allowed: "),
    ],
)
def test_the_name_of_something_else_is_said_to_be_that(built, capsys, arguments, words):
    command, *options = arguments
    assert vlmill(command, built, *options) == 1
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("report", "--examples", 3), "give --reason R or --section contamination"),
        (("report", "--section", "overlaps"), "did you mean 'overlap'?"),
        (("report", "--section", "overlap", "--reason", "language"), "leave out --section overlap"),
        (("report", "--section", "contamination"), "compared with no benchmark"),
        (("report", "--html", "."), "is a directory"),
        (("stats", "--html", "."), "is a directory"),
        (("trace", "--step", 0), "has no stages, so nothing is trained in steps"),
    ],
)
def test_what_cannot_be_meant_is_refused(built, capsys, arguments, words):
    command, *options = arguments
    assert vlmill(command, built, *options) != 0
    assert words in " ".join(capsys.readouterr().err.split())


def test_rows_without_a_sample_are_shown_by_partition(tmp_path, capsys):
    from tests.helpers.upstream import obelics

    recipe = write_recipe(
        tmp_path, sources={"web": {"kind": "obelics", "files": "web.parquet"}}, stages=[], dedupe=None
    )
    obelics(tmp_path / "web.parquet", [["A text of some words."], [None]])
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 0
    (reason,) = {**read_funnel(tmp_path / "run")["web"]["rows"]["failed"]}
    capsys.readouterr()
    assert vlmill("report", tmp_path / "run", "--reason", reason) == 0
    words = said(capsys)
    assert words.startswith(
        "web/00000-0000: 1 rows of which no sample was made web/web.parquet#1 (the row) place 0 holds nothing {"
    )
    assert "http://web.test/1" in words, "how the row begins"


def test_an_image_file_that_is_not_there_was_missed_by_who_read_the_rows(tmp_path):
    talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A house."}]
    (tmp_path / "rows.json").write_text(json.dumps([{"id": "1", "image": "gone.png", "conversations": talk}]))
    sources = {"talk": {"kind": "llava", "files": "rows.json"}}
    recipe = write_recipe(tmp_path, sources=sources, stages=[], dedupe=None)
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 1, "nothing was kept"
    assert find_steps_by_reason(tmp_path / "run", "talk") == {"missing_file": ["read"]}


def test_what_fell_with_something_says_with_what(tmp_path, capsys):
    turns = [("What is it?", "A house."), ("Which colour?", CHINESE), ("Where?", "On a hill.")]
    rows = [([picture(1, (20, 20))], [("What is it?", "A tree.")]), ([picture(2, (90, 60))], turns)]
    cauldron(tmp_path / "quiz.parquet", rows)
    sources = {"quiz": {"kind": "cauldron", "files": "quiz.parquet"}}
    filters = [{"language": {"drop": ["zh"]}}, {"shape": {"min_side": 32}}]
    recipe = write_recipe(tmp_path, sources=sources, stages=[], dedupe=None, filters=filters)
    cauldron(tmp_path / "quiz.parquet", rows)
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 0
    losses = list(list_losses(tmp_path / "run", read_locked_recipe(tmp_path / "run"), "quiz"))
    found = {(loss.id[-1], loss.node, str(loss.reason)): loss.detail for loss in losses}
    assert found == {
        ("0", WHOLE_SAMPLE, "required_lost"): "fell with node 0, image: image_too_small (shape)",
        ("0", 0, "image_too_small"): "",
        ("1", 3, "turn_lost"): "fell with node 4, text: language (language)",
        ("1", 4, "language"): "",
    }
    capsys.readouterr()
    assert vlmill("report", tmp_path / "run", "--reason", "required_lost") == 0
    assert "quiz/quiz.parquet#0 (the sample) fell with node 0, image: image_too_small (shape)" in said(capsys)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A run with one good row, rows that no sample can be made of, and a document that loses a page."""
    folder = tmp_path_factory.mktemp("odd")
    talk = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cup on a table."}]}
    bad = {"id": "q-7\x1b", "conversations": [talk["conversations"][0], {"from": "nobody", "value": "\x1b[31mred"}]}
    rows = [json.dumps(talk), json.dumps(bad), '{"conversations": [\x07', json.dumps({"conversations": []})]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    pages = [["A first page of text."], [""]]
    tar(folder / "docs.tar", {"a.json": pdfa_json(pages), "a.pdf": pdf(pages)})
    sources = {"talk": {"kind": "llava", "files": "rows.jsonl"}, "papers": {"kind": "pdfa", "files": "docs.tar"}}
    recipe = write_recipe(folder, sources=sources, stages=[], filters=[], dedupe=None)
    assert vlmill("build", recipe, "--out", folder / "run", "--workers", 0) == 0
    return folder / "run"


def test_a_refused_row_is_asked_why_and_begins_as_it_does_without_what_a_terminal_obeys(odd, capsys):
    assert vlmill("report", odd, "--reason", "bad_row") == 0
    out = capsys.readouterr().out
    assert r"talk/rows.jsonl#1 (the row, upstream id q-7\x1b)" in out, "its own id, as its file has it"
    assert "talk/rows.jsonl#2 (the row)" in out, "a row without an id"
    assert "message 1 is spoken by 'nobody'" in out
    assert r"\u001b[31mred" in out
    assert r'{"conversations": [\x07' in out, "a row that is no JSON too"
    assert not {"\x1b", "\x07"} & set(out)
    assert vlmill("trace", odd, "talk/rows.jsonl#3") == 0
    assert "lost: empty_row (read): no turns the row begins: {" in said(capsys)
    assert vlmill("trace", odd, "talk/rows.jsonl#9") == 1
    assert vlmill("report", odd, "--reason", "bad_row", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == found["pages"] == {"talk/00000-0000": 2}
    assert [(loss["id"], loss["kind"]) for loss in found["examples"]] == [
        ("talk/rows.jsonl#1", "row"),
        ("talk/rows.jsonl#2", "row"),
    ]


def test_what_is_wrong_with_rows_is_counted_by_cause_and_lost_pictures_are_named(tmp_path, capsys):
    texts = ["<image>What?", "What?", "<image>What?", "What?", "<image><image>What?"]
    rows = [
        {"image": f"{row}.png", "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "A."}]}
        for row, text in enumerate(texts)
    ]
    (tmp_path / "rows.json").write_text(json.dumps([*rows, {"conversations": [{"from": "gpt", "value": None}]}]))
    (tmp_path / "2.png").write_bytes(picture(2, (64, 64)))
    sources = {"talk": {"kind": "llava", "files": "rows.json"}}
    recipe = write_recipe(tmp_path, sources=sources, stages=[], dedupe=None, filters=[])
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 0
    capsys.readouterr()
    assert vlmill("report", tmp_path / "run", "--reason", "bad_row", "--examples", 1) == 0
    assert said(capsys).startswith(
        "talk/00000-0000: 3 rows of which no sample was made talk/00000-0001: 1 rows of which no sample was made "
        "3 as talk/rows.json#1: 0 times <image> for 1 images 1 as talk/rows.json#5: message 0 of gpt has no text "
    )
    assert vlmill("report", tmp_path / "run", "--reason", "bad_row", "--json") == 0
    assert [one["number"] for one in json.loads(capsys.readouterr().out)["causes"]] == [3, 1]
    assert vlmill("report", tmp_path / "run", "--reason", "missing_file") == 0
    assert said(capsys) == "talk/rows.json#0 (the sample) node 0, image: 0.png What? A."


def test_a_page_that_is_lost_of_a_row_that_is_kept_can_be_asked_for(odd, capsys):
    assert vlmill("report", odd) == 0
    assert "papers: pages without a sample: empty_row 1" in said(capsys)
    assert vlmill("report", odd, "--source", "papers", "--reason", "empty_row") == 0
    assert said(capsys) == (
        "papers/00000-0000: 0 rows of which no sample was made; 1 pages in all "
        "papers/docs.tar#0.1 (the page, upstream id a) page 1 has no text a.json, a.pdf"
    )
    for name in ("papers/docs.tar#0.1", "papers/docs.tar#0"):
        assert vlmill("trace", odd, name) == 0
        assert "lost: empty_row (read): page 1 has no text" in said(capsys)
    assert vlmill("verify", odd) == 0


def test_the_page_shows_refused_rows(odd, tmp_path):
    assert vlmill("report", odd, "--html", tmp_path / "a.html") == 0
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert '<section class="group" data-source="talk" data-reason="bad_row">' in text
    assert "the row: message 1 is spoken by" in text
    assert "2 lost, 2 shown; by read" in text


def test_machines_get_the_funnel_and_the_steps(built, capsys):
    assert vlmill("report", built, "--json", "--source", "web") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["funnel"]["counts"] == {"web": read_funnel(built)["web"]}
    assert found["funnel"]["steps"]["web"]["language"] == ["language"]
    assert vlmill("status", built) == 0
    kept = total_funnel(read_funnel(built))["samples"]
    words = said(capsys)
    assert f"{kept.kept} of {kept.came} samples" in words
    for source, counts in read_funnel(built).items():
        rows, samples = counts["rows"], counts["samples"]
        assert f" {source}: {rows['kept']} of {rows['in']} rows (" in words
        assert f"), {samples['kept']} of {samples['in']} samples (" in words.partition(f" {source}: ")[2]


def test_status_names_the_hosts_that_were_asked_and_why_they_failed(built, tmp_path, capsys, monkeypatch):
    assert vlmill("status", built) == 0
    images = (built / "steps/web/fetch").glob("*.images.parquet")
    size = sum(len(row["bytes"] or b"") for path in images for row in read_rows(path))
    assert f"img.small.test 8 2 25.0% {format_size(size)} http_client_error 1, not_an_image 1" in said(capsys)
    assert vlmill("status", built, "--json") == 0
    of_all = json.loads(capsys.readouterr().out)["hosts"]
    assert of_all == {
        "hosts": [
            {
                "host": "img.small.test",
                "asked": 8,
                "failed": 2,
                "reasons": {"http_client_error": 1, "not_an_image": 1},
                "bytes": size,
            }
        ],
        "read": 2,
        "tasks": 2,
    }
    monkeypatch.setattr(hosts, "TASKS", 1)
    assert vlmill("status", built) == 0
    assert "hosts of images, 1 of 1, in 1 of 2 partitions that were fetched" in said(capsys)


def test_what_was_fetched_without_a_table_of_hosts_is_counted_from_images_but_not_on_object_storage(
    built, tmp_path, s3
):
    fetched = "steps/web/fetch"
    shutil.copytree(built / fetched, tmp_path / fetched)
    there = RunPath(f"{s3}/run")
    for path in (built / fetched).iterdir():
        (there / fetched / path.name).put_file(path)
    whole = hosts.count_hosts(built, ["web"])
    assert hosts.count_hosts(there, ["web"]) == whole
    first, *others = sorted((tmp_path / fetched).glob(f"*.{HOST_COUNTS_FILE}"))
    first.unlink()
    (there / fetched / first.name).unlink()
    (found,) = hosts.count_hosts(tmp_path, ["web"]).hosts
    assert found == replace(whole.hosts[0], bytes=None)
    for path in others:
        (there / fetched / path.name).unlink()
    assert hosts.count_hosts(there, ["web"]) == hosts.HostCounts((), 0, 0)


def test_the_page_is_one_file_of_fixed_bytes_that_asks_nothing_of_a_network(built, tmp_path):
    for name in ("a.html", "b.html"):
        assert vlmill("report", built, "--html", tmp_path / name) == 0
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "default-src 'none'" in text
    assert list_allowed_scripts(text) == list_run_scripts(text)
    assert "url(" not in text
    assert "web/web.parquet#4" in text
    assert '<section class="group" data-source="web" data-reason="filter:boats">' in text
    pictures = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", text)
    assert pictures
    for data in pictures:
        assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) <= SIDE
    assert vlmill("report", built, "--html", tmp_path / "c.html", "--json") == 1


def test_keys_of_rows_that_were_not_read_are_named_once_per_source_with_their_rows(tmp_path, capsys):
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    rows = [{"conversations": turns, "score": 1, **({"topic": "cups"} if row < 3 else {})} for row in range(12)]
    rows += [{"conversations": turns, "score": None, f"x{row:02}": 1} for row in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "clean.jsonl").write_text(json.dumps({"conversations": turns}))
    sources = {name: {"kind": "chat", "files": f"{name}.jsonl"} for name in ("rows", "clean")}
    policy = {"kind": "letterbox", "side": 56, "patch": 14}
    recipe = {"name": "r", "sources": sources, "partition": {"rows": 5}, "dedupe": None, "policies": {"small": policy}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert vlmill("build", tmp_path / "recipe.yaml", "--out", tmp_path / "run", "--workers", 0) == 0
    shown = ", ".join(f"x{row:02} (1)" for row in range(8))
    line = f"rows: keys not read: score (12 rows), topic (3), {shown} and 4 more keys"
    for command in ("status", "report"):
        capsys.readouterr()
        assert vlmill(command, tmp_path / "run") == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert line in printed
        assert "clean: keys" not in printed
    assert vlmill("status", tmp_path / "run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["unread"][0]["rows"]["topic"] == 3
