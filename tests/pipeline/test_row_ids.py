"""The id of a row, in a column that the recipe names: samples and losses keep it, `new` finds it, `check` misses it."""

from __future__ import annotations

import json

import pytest
import yaml

import vlmill as api
from tests.helpers.small import vlmill, write_recipe
from tests.helpers.upstream import arrow, json_lines, parquet, separated
from tests.pipeline.test_check import read_check
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import BadFileError, SourceError
from vlmill.pipeline.proposal.proposal import examine_place
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.sources.formats.keyed import has_id_option

ROWS = [
    {"ticket": f"T-{row}", "asked": f"What is {row}?", "said": "" if row == 1 else f"It is {row}."} for row in range(4)
]
ASKED = {"question": "asked", "answer": "said"}
WRITERS = {"csv": separated, "tsv": separated, "jsonl": json_lines, "parquet": parquet, "arrow": arrow}
LISTS = {"images": [None], "texts": ["A text."]}


def read(path, kind="table", **options):
    source = parse_block(SOURCES[kind], options, "options")
    return list(source.rows(path, range(len(source.survey(path)))))


@pytest.mark.parametrize("form", WRITERS)
def test_rows_have_the_id_of_the_column_that_is_named_also_those_that_are_lost(form, tmp_path):
    rows = read(WRITERS[form](tmp_path / f"a.{form}", ROWS), **ASKED, id="ticket")
    assert [row.upstream_id for row in rows] == ["T-0", "T-1", "T-2", "T-3"]
    assert [len(row.pages) for row in rows] == [1, 0, 1, 1]
    assert {page.unread for row in rows for page in row.pages} == {()}


TALK = {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]}
KINDS = {
    "table": (ROWS[0], ASKED, WRITERS),
    "web_table": (ROWS[0], ASKED, WRITERS),
    "instructions": (ROWS[0], ASKED, WRITERS),
    "chat": (TALK, {}, ("jsonl", "parquet", "arrow")),
    "llava": (TALK, {}, ("jsonl",)),
    "web_llava": (TALK, {}, ("jsonl",)),
    "interleaved": ({**TALK, "images": []}, {"turns": "messages"}, ("parquet", "arrow")),
    "web_documents": (LISTS, {}, WRITERS),
    "file_documents": (LISTS, {}, WRITERS),
}
"""Kinds that have the option, each with a row, how it is read, and the formats."""


def test_these_are_all_kinds_that_have_the_option():
    assert {kind for kind, source in SOURCES.items() if has_id_option(source)} == {*KINDS}


@pytest.mark.parametrize(("kind", "form"), [(kind, form) for kind, (_, _, forms) in KINDS.items() for form in forms])
def test_every_kind_reads_the_id_of_a_column_and_within_an_object(kind, form, tmp_path):
    row, options, _ = KINDS[kind]
    row = {name: value for name, value in row.items() if name != "ticket"}
    row = {
        name: json.dumps(value) if form in {"csv", "tsv"} and isinstance(value, list) else value
        for name, value in row.items()
    }
    metas = [{"ref": 7, "mood": "calm"}, {"ref": None, "mood": "calm"}]
    metas = [json.dumps(meta) if form in {"csv", "tsv"} else meta for meta in metas]
    path = WRITERS[form](
        tmp_path / f"a.{form}", [{**row, "case": f"c{n}", "meta": meta} for n, meta in enumerate(metas)]
    )
    found = read(path, kind, **options, id="meta.ref")
    assert [one.upstream_id for one in found] == ["7", ""]
    assert [one.pages[0].unread for one in found] == [("case", "meta.mood")] * 2
    found = read(path, kind, **options, id="case")
    assert [one.upstream_id for one in found] == ["c0", "c1"]
    assert [one.pages[0].unread for one in found] == [("meta",)] * 2


@pytest.mark.parametrize("kind", ["table", "web_documents"])
def test_what_can_name_no_row_and_what_else_looks_like_an_id_are_noted_as_unread(kind, tmp_path):
    said = LISTS if kind == "web_documents" else {"asked": "What?", "said": "That."}
    options = {} if kind == "web_documents" else ASKED
    rows = [{**said, "id": "other", "ref": "R-1"}, {**said, "id": "R-2", "ref": "R-2"}, {**said, "ref": ["R-3"]}]
    found = read(json_lines(tmp_path / "a.jsonl", rows), kind, **options, id="ref")
    assert [(row.upstream_id, row.pages[0].unread) for row in found] == [("R-1", ("id",)), ("R-2", ()), ("", ("ref",))]


def test_a_misspelt_column_of_ids_is_refused_in_a_table_and_a_warning_of_check_elsewhere(tmp_path, capsys):
    with pytest.raises(BadFileError, match=r"'tickt' is missing; did you mean 'ticket'\?"):
        read(parquet(tmp_path / "a.parquet", ROWS), **ASKED, id="tickt")
    json_lines(tmp_path / "a.jsonl", [{**row, "meta": {"ref": 1}} for row in ROWS])
    found = dict[str, list[str]]()
    for place in ("tickt", "meta.rf", "meta.ref", "ticket"):
        sources = {"help": {"kind": "table", "files": "a.jsonl", "options": {**ASKED, "id": place}}}
        recipe = write_recipe(tmp_path, sources=sources, stages=[], dedupe=None, filters=[])
        status, said, error = read_check(capsys, recipe)
        assert status == 0, error
        found[place] = [line for line in said["warnings"] if "options.id" in line]
    none = "and none of the 4 rows that were looked at has an id there"
    assert found == {
        "tickt": [f"source help: options.id names 'tickt', {none}; did you mean 'ticket'?"],
        "meta.rf": [f"source help: options.id names 'meta.rf', {none}; did you mean 'meta.ref'?"],
        "meta.ref": [],
        "ticket": [],
    }


@pytest.mark.parametrize("kind", ["chat", "llava"])
def test_check_warns_of_a_misspelt_column_of_ids_in_conversations(kind, tmp_path, capsys):
    json_lines(tmp_path / "a.jsonl", [{**TALK, "ticket": f"T-{row}"} for row in range(3)])
    sources = {"help": {"kind": kind, "files": "a.jsonl", "options": {"id": "tickets"}}}
    status, said, error = read_check(
        capsys, write_recipe(tmp_path, sources=sources, stages=[], dedupe=None, filters=[])
    )
    assert status == 0, error
    none = "none of the 3 rows that were looked at has an id there; did you mean 'ticket'?"
    assert f"source help: options.id names 'tickets', and {none}" in said["warnings"]


def test_check_names_other_columns_that_no_row_has(tmp_path, capsys):
    parquet(tmp_path / "a.parquet", [{**row, "about": {"rights": "CC0", "nothing": None}} for row in ROWS])
    options = {**ASKED, "licence": "about.right"}
    sources = {"help": {"kind": "table", "files": "a.parquet", "options": options}}
    recipe = write_recipe(tmp_path, sources=sources, stages=[], dedupe=None, filters=[])
    status, said, error = read_check(capsys, recipe)
    assert status == 0, error
    none = "and none of the 4 rows that were looked at has anything there; did you mean 'about.rights'?"
    assert f"source help: options.licence names 'about.right', {none}" in said["warnings"]


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ({"ticket_no": "T-{}"}, "ticket_no"),
        ({"orderNumber": "{}"}, "orderNumber"),
        ({"case": "c{}", "record_uuid": "u{}"}, "record_uuid"),  # the surer name
        ({"id": "{}", "ticket_no": "T-{}"}, None),  # which is kept without an option
        ({"ticket_no": "T-1"}, None),  # the same in all rows
        ({"image_id": "i{}"}, None),
        ({"customer_no": "{}"}, None),
        ({"notes": "n{}"}, None),
    ],
)
def test_new_finds_the_column_with_an_id_of_its_own_in_each_row(named, found, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    more = [{name: form.format(row) for name, form in named.items()} for row in range(9)]
    rows = [{**one, "question": f"What is {row}?", "answer": f"It is {row}."} for row, one in enumerate(more)]
    proposal = examine_place(str(json_lines(tmp_path / "help.jsonl", rows)))
    assert proposal.chosen.options.get("id") == found
    assert found not in proposal.chosen.unread
    assert vlmill("new", "help.jsonl") == 0
    options = yaml.safe_load((tmp_path / "help.yaml").read_text())["sources"]["help"].get("options", {})
    assert options.get("id") == found


def test_new_finds_the_id_of_documents_and_of_pictures_with_json_beside_them(tmp_path):
    parts = [{"text": "Before the picture."}, {"image": "a.jpg"}, {"text": "And after it."}]
    json_lines(tmp_path / "pages.jsonl", [{"doc_ref": f"P{row}", "parts": parts} for row in range(3)])
    pages = examine_place(str(tmp_path / "pages.jsonl"))
    assert (pages.chosen.kind, pages.chosen.options["id"]) == ("file_documents", "doc_ref")
    assert not any("doc_ref" in note for note in pages.notes)
    folder = tmp_path / "photos"
    folder.mkdir()
    for row in range(3):
        (folder / f"{row}.png").write_bytes(b"")
        (folder / f"{row}.json").write_text(json.dumps({"caption": f"A photo of {row}.", "ticket": f"T{row}"}))
    photos = examine_place(str(folder))
    assert photos.chosen.options["id"] == "ticket"


def test_new_takes_the_column_that_is_named_and_refuses_one_that_names_no_row(tmp_path):
    rows = [{"question": "What?", "answer": "That.", "shop": f"s{row}", "extra": {"a": [1]}} for row in range(3)]
    place = str(json_lines(tmp_path / "a.jsonl", rows))
    found = examine_place(place, {"id": ["shop"]})
    assert (found.chosen.kind, found.chosen.options["id"]) == ("table", "shop")
    with pytest.raises(SourceError, match=r"--column id=extra: it holds object in a.jsonl, expected texts or whole"):
        examine_place(place, {"id": ["extra"]})
    with pytest.raises(SourceError, match=r"--column id=shp: there is no such column"):
        examine_place(place, {"id": ["shp"]})
    with pytest.raises(SourceError, match="2 columns, expected 1"):
        examine_place(place, {"id": ["shop", "answer"]})
    lists = str(json_lines(tmp_path / "b.jsonl", [{**LISTS, "texts": [f"Text {n}."], "name": n} for n in range(3)]))
    found = examine_place(lists, {"texts": ["texts"], "images": ["images"], "id": ["name"]})
    assert (found.chosen.kind, found.chosen.options["id"]) == ("file_documents", "name")


def test_a_run_finds_samples_and_losses_by_the_id(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    json_lines(tmp_path / "a.jsonl", ROWS)
    sources = {"help": {"kind": "table", "files": "a.jsonl", "options": {**ASKED, "id": "ticket"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "sources": sources}))
    assert vlmill("build", "mine.yaml", "--out", "run", "--workers", 0) == 0
    run = api.open_run("run")
    assert [str(run.trace(f"T-{row}").sample.id) for row in (0, 2)] == ["help/a.jsonl#0", "help/a.jsonl#2"]
    capsys.readouterr()
    assert vlmill("trace", "run", "T-1") == 0
    assert "help/a.jsonl#1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "row", "options", "said"),
    [
        ("table", {"lgo": [{"role": "user", "content": "What?"}]}, {"turns": "log"}, "the row has 'lgo' and no 'log'"),
        ("table", {"asked": "What?", "siad": "That."}, ASKED, "no said; the row has 'siad' and no 'said'"),
        ("chat", {"mesages": TALK["messages"]}, {}, "the row has 'mesages' and no 'messages'"),
        ("web_documents", {"txts": ["A text."], "images": [None]}, {}, "the row has 'txts' and no 'texts'"),
        ("table", {"asked": "What?", "other": "That."}, ASKED, "no said"),
    ],
)
def test_a_row_with_a_misspelt_key_is_lost_with_the_key_that_it_has(kind, row, options, said, tmp_path):
    fine = {"table": {**ROWS[0], "log": TALK["messages"]}, "chat": TALK}.get(kind, LISTS)
    lost = read(json_lines(tmp_path / "a.jsonl", [fine, row]), kind, **options)[1]
    assert [detail.endswith(said) for _, detail in lost.failed] == [True]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567.0, "1234567"), (0.1234567, "0.1234567"), (2.5, "2.5"), (1e300, "1e+300"), (-3.0, "-3"), (7, "7")],
)
def test_a_number_as_an_answer_keeps_all_its_digits(value, text, tmp_path):
    (row,) = read(parquet(tmp_path / "a.parquet", [{"asked": "How many?", "said": value}]), **ASKED)
    assert [node.text for node in row.pages[0].nodes] == ["How many?", text]
