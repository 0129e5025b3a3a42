"""Read: rows become samples with ids for good, images stand once, and the books say what became of every row."""

import datetime as dt
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import upstream
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.excerpt import LONGEST, escape_text, find_addresses, make_excerpt
from vlmill.pipeline.core.keys import canonicalise_value
from vlmill.pipeline.core.names import IMAGE_STATS_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    IMAGES,
    NO_PAGE,
    REFUSED,
    SAMPLES,
    Node,
    SampleId,
    read_refused,
    read_rows,
    read_samples,
    write_image_stats,
)
from vlmill.pipeline.sources import Page, Picture, SourceRow
from vlmill.pipeline.sources.base import UnreadableRow, try_row
from vlmill.pipeline.sources.cauldron import Cauldron
from vlmill.pipeline.sources.idl import Idl
from vlmill.pipeline.sources.known_keys import list_unread, read_upstream_id
from vlmill.pipeline.sources.llava import LlavaSource
from vlmill.pipeline.sources.obelics import Obelics
from vlmill.pipeline.sources.pairs import PairsWdsSource
from vlmill.pipeline.sources.pdfa import Pdfa
from vlmill.pipeline.sources.table import TableSource
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.row_sample import RowRange
from vlmill.pipeline.steps.survey import cut_rows
from vlmill.pipeline.takedown.rules import parse_rules
from vlmill.pipeline.takedown.steps import make_redaction, match_partition
from vlmill.pipeline.verdicts.audit import count_read


@dataclass(frozen=True)
class Told:
    """A source that yields what it is told."""

    kind: ClassVar[str] = "told"
    fetches: ClassVar[bool] = False
    opens: ClassVar[bool] = False
    isolated: ClassVar[bool] = False

    told: tuple[SourceRow, ...]

    def survey(self, path: Path) -> list[int]:
        return [1] * len(self.told)

    def rows(self, path: Path, numbers: Sequence[int]) -> Iterator[SourceRow]:
        yield from self.told


@pytest.fixture
def read(tmp_path):
    """Read with a source; gives the samples, the images and the books."""

    def run(source, path, start=0, stop=None, licence="CC0-1.0"):
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        stop = len(source.survey(path)) if stop is None else stop
        counts = Read(source, "web", (RowRange("a/file", start, stop),), licence).run({"input-0": path}, folder)
        assert all(count.balanced() for count in counts.values())
        books = {level: count.to_json() for level, count in counts.items()}
        return (
            list(read_samples(folder / "samples.parquet")),
            list(read_rows(folder / "images.parquet")),
            books,
        )

    return run


def test_a_sample_is_named_by_source_file_row_and_page(read, tmp_path):
    path = upstream.obelics(tmp_path / "o", [["zero"], ["one"], ["two"]])
    samples, _, _ = read(Obelics(), path, 1, 3)
    assert [str(sample.id) for sample in samples] == ["web/a/file#1", "web/a/file#2"]
    assert {(sample.licence, sample.group) for sample in samples} == {("CC0-1.0", "")}


def test_pages_of_a_document_share_a_group_and_fan_out_in_the_books(read, tmp_path):
    text = upstream.pdfa_json([["one"], [""], ["three"]])
    members = {"0.json": text, "0.pdf": upstream.pdf([["one"], [], ["three"]]), "1.json": text, "1.mp4": b""}
    samples, images, books = read(Pdfa(), upstream.tar(tmp_path / "t", members))
    assert [sample.id for sample in samples] == [
        SampleId("web", "a/file", 0, 0),
        SampleId("web", "a/file", 0, 2),
    ]
    assert {(sample.group, sample.upstream_id) for sample in samples} == {("web/a/file#0", "0")}
    assert [image["bytes"][:4] for image in images] == [b"\x89PNG"] * 2
    assert books == {
        "rows": {"in": 2, "kept": 1, "dropped": {}, "failed": {"unsupported_media": 1}},
        "pages": {"in": 4, "kept": 2, "dropped": {}, "failed": {"empty_row": 1, "unsupported_media": 1}},
    }


def test_an_address_stands_in_the_image_table_once(read, tmp_path):
    one, two = "http://img.test/1", "http://img.test/2"
    samples, images, _ = read(Obelics(), upstream.obelics(tmp_path / "o", [[one, "a", two], [two, one], [one, one]]))
    assert [image["url"] for image in images] == [one, two]
    assert [image["image"] for image in images] == [0, 1]
    assert [[node.image for node in sample.nodes] for sample in samples] == [[0, None, 1], [1, 0], [0, 0]]


def test_bytes_that_several_rows_carry_stand_in_the_image_table_once(read, tmp_path):
    one, two = upstream.picture(1), upstream.picture(2)
    turns = [("Q", "A")]
    path = upstream.cauldron(tmp_path / "c", [([one], turns), ([two, one], turns), ([one], turns)])
    samples, images, _ = read(Cauldron(), path)
    assert [image["bytes"] for image in images] == [one, two]
    assert [[node.image for node in sample.nodes if node.kind == "image"] for sample in samples] == [
        [0],
        [1, 0],
        [0],
    ]


def test_files_that_rows_name_stand_in_the_image_table_once(tmp_path):
    for name, seed in (("a", 1), ("copy", 1), ("b", 2)):
        (tmp_path / name).write_bytes(upstream.picture(seed))
    paths = ["a", "b", "a", "./a", "copy", "gone", "gone"]
    node = (Node("image", image=0),)
    told = tuple(SourceRow(row, (Page(node, (Picture(path=path),)),)) for row, path in enumerate(paths))
    Read(Told(told), "web", (RowRange("f", 0, len(told)),), images=str(tmp_path)).run({"input-0": tmp_path}, tmp_path)
    images = list(read_rows(tmp_path / "images.parquet"))
    assert [image["reason"] for image in images] == [None, None, "missing_file"]
    shown = [sample.nodes[0].image for sample in read_samples(tmp_path / "samples.parquet")]
    assert shown == [0, 1, 0, 0, 0, 2, 2]


def test_pictures_that_could_not_be_had_keep_their_own_reasons(read, tmp_path):
    nodes = (Node("image", image=0), Node("image", image=1))
    lost = Picture(reason=Reason.EMPTY_BODY, detail="nothing there")
    _, images, _ = read(Told((SourceRow(0, (Page(nodes, (lost, lost)),)),)), tmp_path)
    assert [(image["reason"], image["detail"], image["bytes"]) for image in images] == [
        ("empty_body", "nothing there", None)
    ] * 2


def test_what_a_page_says_of_itself_goes_before_what_the_source_says(read, tmp_path):
    page = Page((Node("text", text="a"),), group="g", url="http://u", licence="MIT", signals={"stars": 3.0})
    ((sample,), _, _) = read(Told((SourceRow(0, (page,)),)), tmp_path)
    assert (sample.group, sample.url, sample.licence, sample.signals) == (
        "g",
        "http://u",
        "MIT",
        {"stars": 3.0},
    )


def test_half_a_surrogate_pair_loses_its_page_not_the_run(read, tmp_path):
    text = json.dumps({"pages": [{"text": ["half \ud835"]}, {"text": ["whole \U0001d400"]}]}).encode()
    members = {"0.json": text, "0.pdf": upstream.pdf([["x"], ["y"]])}
    samples, images, books = read(Idl(), upstream.tar(tmp_path / "t", members))
    assert [sample.nodes[1].text for sample in samples] == ["whole \U0001d400"]
    assert len(images) == 1
    assert books["pages"]["failed"] == {"bad_row": 1}


class Breaking(LlavaSource):
    """A source whose code breaks on some rows."""

    broken: ClassVar[Exception | None] = None

    def page(self, row):
        if self.broken:
            raise self.broken
        return super().page({**row, "conversations": row["turns"]["first"]})


TURNS = [{"from": "human", "value": "What grows here?"}, {"from": "gpt", "value": "Reeds."}]


def test_a_row_that_the_code_of_a_source_breaks_on_is_a_bad_row_that_says_where(read, tmp_path):
    path = tmp_path / "rows.json"
    rows = [{"turns": {"first": TURNS}}, {"turns": {}}, {"turns": None}, {"turns": {"first": TURNS}}]
    path.write_text(json.dumps([{**row, "conversations": TURNS} for row in rows]))
    samples, _, books = read(Breaking(), path)
    assert [sample.id.row for sample in samples] == [0, 3]
    assert books["rows"]["failed"] == {"bad_row": 2}
    failed = [row for row in Breaking().rows(path, range(4)) if row.failed]
    line = Breaking.page.__code__.co_firstlineno + 3
    assert [row.failed[0][1] for row in failed] == [
        f"tests.pipeline.test_read:{line}: KeyError: 'first'",
        f"tests.pipeline.test_read:{line}: TypeError: 'NoneType' object is not subscriptable",
    ]
    assert failed[0].excerpt.startswith('{"turns": {}')


def test_the_place_of_an_error_is_in_the_source_and_not_in_the_library_that_it_called():
    made = try_row(lambda text: json.loads(text)["a"], "{")
    assert isinstance(made, UnreadableRow)
    assert re.fullmatch(r"tests\.pipeline\.test_read:\d+: JSONDecodeError: Expecting .*", str(made))


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error"), SourceError("no folder")])
def test_trouble_with_the_machine_is_no_bad_row(tmp_path, monkeypatch, error):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"conversations": TURNS}]))
    monkeypatch.setattr(Breaking, "broken", error)
    with pytest.raises(type(error)):
        list(Breaking().rows(path, range(1)))


def test_a_row_of_which_nothing_came_and_nothing_was_said_is_empty(read, tmp_path):
    _, _, books = read(Told((SourceRow(0),)), tmp_path)
    assert books["rows"]["failed"] == books["pages"]["failed"] == {"empty_row": 1}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ((0, 2), "expected row 1, found row 2"),
        ((0, 0), "expected row 1, found row 0"),
        ((0,), "survey counts 2 rows or more, and rows gives none from row 1 on"),
        ((0, 1, 2), "expected the end, found row 2"),
    ],
)
def test_a_source_that_skips_repeats_or_stops_elsewhere_is_an_error(read, tmp_path, told, said):
    source = Told(tuple(SourceRow(row, (Page((Node("text", text="a"),)),)) for row in told))
    with pytest.raises(SourceError, match=f"web/a/file: .*{said}"):
        read(source, tmp_path, 0, 2)


NAMED = [
    ({"id": 7}, "7"),
    ({"idx": 0, "ID": " a/b "}, "a/b"),
    ({"index": "x", "uuid": "u"}, "u"),
    ({"id": True, "key": 0}, "0"),
    ({"id": 7.0}, "7"),
    ({"id": "  ", "idx": None, "__key__": 1.5, "uid": ["a"], "uuid": float("nan")}, ""),
    ({"number": "5"}, ""),
    ({"conversation_id": "c-1", "question_id": 4, "thread_id": "t"}, "c-1"),
]


@pytest.mark.parametrize(("row", "name"), NAMED)
def test_the_id_of_a_row_is_a_text_or_a_whole_number_under_the_first_key_of_an_id(row, name):
    assert read_upstream_id(row) == name


@pytest.mark.parametrize("form", [upstream.json_lines, upstream.json_array, upstream.parquet, upstream.separated])
def test_a_sample_and_a_lost_row_keep_the_id_of_their_row(tmp_path, form):
    rows = [{"uid": "s1-004", "q": "What is it?", "a": "A heron."}, {"uid": "s1-005", "q": "And this?", "a": ""}]
    path = form(tmp_path / "rows.csv", rows).rename(tmp_path / f"rows{SUFFIXES[form]}")
    Read(TableSource(question="q", answer="a"), "web", (RowRange("f", 0, 2),)).run({"input-0": path}, tmp_path)
    assert [sample.upstream_id for sample in read_samples(tmp_path / "samples.parquet")] == ["s1-004"]
    assert [row["upstream_id"] for row in read_rows(tmp_path / "refused.parquet")] == ["s1-005"]


SUFFIXES = {
    upstream.json_lines: ".jsonl",
    upstream.json_array: ".json",
    upstream.parquet: ".parquet",
    upstream.separated: ".csv",
}


@pytest.mark.parametrize("name", [7, None, b"seven"])
def test_the_id_of_a_row_has_to_be_a_text(read, tmp_path, name):
    samples, _, books = read(Told((SourceRow(0, (Page((Node("text", text="a"),)),), upstream_id=name),)), tmp_path)
    assert not samples
    assert books["rows"]["failed"] == {"bad_row": 1}


def test_an_id_of_another_form_is_noted_as_not_read():
    row = {"id": {"$oid": "65f0"}, "index": 3, "said": "Hello"}
    assert list_unread(row, ["said"], pictured=False) == ("id",)


def test_a_second_id_is_noted_as_not_read():
    row = {"id": "a", "uuid": "b", "question_id": "a", "__index_level_0__": 3, "said": "Hello"}
    assert list_unread(row, ["said"], pictured=False) == ("uuid",)


def test_tables_without_ids_of_rows_that_earlier_versions_left_are_read_and_taken_down_from(tmp_path):
    made = (SourceRow(row, (Page((Node("text", text="a"),)),)) for row in range(2))
    told = (*made, SourceRow(2), SourceRow(3))
    Read(Told(told), "web", (RowRange("f", 0, 4),)).run({"input-0": tmp_path}, tmp_path)
    for path in (tmp_path / "samples.parquet", tmp_path / "refused.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["upstream_id"]), path)
    assert [sample.upstream_id for sample in read_samples(tmp_path / "samples.parquet")] == ["", ""]
    assert [row["upstream_id"] for row in read_refused(tmp_path / "refused.parquet")] == ["", ""]
    write_image_stats(tmp_path / IMAGE_STATS_FILE, [])
    inputs = {path.name: path for path in tmp_path.glob("*.parquet")}
    found = match_partition(parse_rules([], [], ["web/f#0", "web/f#2"], ["a.test"]), inputs)
    assert (found.samples, found.refused) == ({0: "id web/f#0"}, {0: "id web/f#2"})
    for table in ("samples", "refused"):
        (tmp_path / table).mkdir()
        step = make_redaction(table, found)
        step.run({name: path for name, path in inputs.items() if name in step.reads}, tmp_path / table)
        assert pq.read_table(tmp_path / table / f"{table}.parquet")["upstream_id"].to_pylist() == ["", ""]


def test_the_id_of_a_row_of_a_tar_is_its_key(read, tmp_path):
    pair = {"in/0001.jpg": upstream.picture(1), "in/0001.txt": b"A reed."}
    ((sample,), _, _) = read(PairsWdsSource(), upstream.tar(tmp_path / "b.tar", pair))
    assert sample.upstream_id == "in/0001"


def test_files_of_another_form_are_errors_before_anything_is_written(read, tmp_path):
    path = upstream.tar(tmp_path / "t", {})
    with pytest.raises(SourceError, match="expected a Parquet file"):
        read(Obelics(), path, 0, 1)


def test_tables_have_their_schema_also_when_they_are_empty(tmp_path):
    Read(Told(()), "web", (RowRange("f", 0, 0),)).run({"input-0": tmp_path}, tmp_path)
    assert pq.read_schema(tmp_path / "samples.parquet").equals(SAMPLES)
    assert pq.read_schema(tmp_path / "images.parquet").equals(IMAGES)


def test_what_no_sample_was_made_of_stands_in_a_table_of_its_own(tmp_path):
    half = Page((Node("text", text="half \ud835"),), page=1)
    told = (
        SourceRow(0, failed=((Reason.BAD_ROW, "long " * 1000),), excerpt="how it begins", upstream_id="a\ud835" * 900),
        SourceRow(
            1,
            (half, Page((Node("text", text="whole"),), page=2)),
            ((Reason.BAD_PAGE, "why"),),
            (0,),
            "a document",
            "d7",
        ),
        SourceRow(2),
    )
    Read(Told(told), "web", (RowRange("f", 0, 3),)).run({"input-0": tmp_path}, tmp_path)
    assert pq.read_schema(tmp_path / "refused.parquet").equals(REFUSED)
    refused = list(read_rows(tmp_path / "refused.parquet"))
    assert [row.pop("upstream_id") for row in refused] == [r"a\ud835" * 500, "d7", "d7", ""]
    assert [sample.upstream_id for sample in read_samples(tmp_path / "samples.parquet")] == ["d7"]
    rows = [tuple(row.values()) for row in refused]
    assert [row[:5] for row in rows] == [
        ("web", "f", 0, NO_PAGE, "bad_row"),
        ("web", "f", 1, 0, "bad_page"),
        ("web", "f", 1, 1, "bad_row"),
        ("web", "f", 2, NO_PAGE, "empty_row"),
    ]
    assert len(rows[0][5]) < 300
    assert [row[6] for row in rows] == ["how it begins", "a document", r'["half \ud835"]', ""]
    assert {
        level: count.to_json()
        for level, count in count_read(
            {name: tmp_path / name for name in ("samples.parquet", "refused.parquet")}
        ).items()
    } == {
        "rows": {"in": 3, "kept": 1, "dropped": {}, "failed": {"bad_row": 1, "empty_row": 1}},
        "pages": {"in": 5, "kept": 1, "dropped": {}, "failed": {"bad_page": 1, "bad_row": 2, "empty_row": 1}},
    }


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_an_excerpt_is_short_one_line_and_nothing_that_a_terminal_obeys(raw):
    found = make_excerpt(raw)
    assert len(found) <= LONGEST + 3
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", found)
    found.encode()
    assert escape_text(found) == found or found.endswith("...")


def test_an_excerpt_holds_no_place_in_memory_and_no_path_of_this_machine():
    day = dt.date(2026, 12, 2)
    raw = {"object": object(), "path": Path("/here"), "day": day, "number": Decimal("1.5")}
    assert make_excerpt(raw) == '{"object": (object), "path": (PosixPath), "day": 2026-12-02, "number": 1.5}'


def test_an_excerpt_of_much_costs_little_and_cuts_no_address():
    deep = json.loads("[" * 900 + "]" * 900)
    assert make_excerpt(deep) == "[" * 9 + "..." + "]" * 9
    assert make_excerpt({"a": None, "b": [None, {"c": None, "d": 0}], "e": ""}) == '{"b": [null, {"d": 0}], "e": ""}'
    assert make_excerpt({"image": bytes(50 << 20)}) == '{"image": (52,428,800 bytes)}'
    assert make_excerpt({"text": "x" * (50 << 20)}).endswith("xxx...")
    cut = make_excerpt({"text": "x" * (LONGEST - 40), "url": "http://img.example.test/secret/7.png"})
    assert cut.endswith('"url": "...')
    assert find_addresses(r'["http:\/\/a.test\/1.png"]') == ["http://a.test/1.png"] * 2


def test_row_groups_are_bounded_by_bytes_so_that_memory_is_flat(tmp_path):
    pages = tuple(
        SourceRow(row, (Page((Node("image", image=0),), (Picture(data=bytes([row]) * (9 << 20)),)),))
        for row in range(8)
    )
    Read(Told(pages), "web", (RowRange("f", 0, 8),)).run({"input-0": tmp_path}, tmp_path)
    assert pq.ParquetFile(tmp_path / "images.parquet").num_row_groups == 2


def test_keys_that_were_not_read_are_counted_by_row_and_no_more_of_them_than_memory_has_room_for(tmp_path, monkeypatch):
    def noted(rows):
        Read(Told(tuple(rows)), "web", (RowRange("f", 0, len(rows)),)).run({"input-0": tmp_path}, tmp_path)
        return json.loads((tmp_path / "unread.json").read_bytes())

    def row(number, *keys):
        page = Page((Node("text", supervised=True, text="t"),), unread=keys)
        return SourceRow(number, (page, page))  # of one document

    assert noted([row(0, "score", "topic"), row(1, "score"), row(2)]) == {
        "keys": {"score": 2, "topic": 1},
        "beyond": 0,
    }
    assert noted([SourceRow(0, failed=((Reason.BAD_ROW, "no"),))]) == {"keys": {}, "beyond": 0}
    monkeypatch.setattr("vlmill.pipeline.steps.read._Unread.CAP", 2)
    assert noted([row(0, "b", "c"), row(1, "a", "b"), row(2, "a")]) == {"keys": {"b": 2, "c": 1}, "beyond": 2}
    assert noted([row(0, "x" * 5_000)])["keys"] == {"x" * 80: 1}


def test_reading_twice_gives_the_same_bytes(tmp_path):
    path = upstream.tar(tmp_path / "t", {"0.json": upstream.pdfa_json([["one"]]), "0.pdf": upstream.pdf([["one"]])})
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        Read(Pdfa(), "web", (RowRange("f", 0, 1),)).run({"input-0": path}, tmp_path / name)
        written.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert written[0] == written[1]


def test_the_step_is_pure_unless_a_time_limit_or_other_files_have_a_say():
    assert Read(Obelics(), "web", (RowRange("f", 0, 1),)).pure
    assert not Read(Pdfa(), "web", (RowRange("f", 0, 1),)).pure
    assert not Read(LlavaSource(), "web", (RowRange("f", 0, 1),)).pure
    assert set(Read(Obelics(), "web", (RowRange("f", 0, 1),)).made_by()) == {"pyarrow"}
    assert set(Read(Pdfa(), "web", (RowRange("f", 0, 1),)).made_by()) == {"pyarrow", "pillow", "pypdfium2"}


def test_what_decides_the_bytes_is_in_the_key():
    def key(**options):
        return canonicalise_value(Read(Pdfa(**options), "web", (RowRange("f", 0, 1),)))

    assert key() == key(seconds=1.0)
    assert key() != key(long_side=640) != key(max_pages=1)


@given(weights=st.lists(st.integers(0, 40), max_size=60), rows=st.integers(1, 20), size=st.integers(1, 100))
def test_partitions_cover_all_rows_in_order_within_their_bounds(weights, rows, size):
    chunks = cut_rows(weights, rows, size)
    assert [held for _, _, held in chunks] == [sum(weights[start:stop]) for start, stop, _ in chunks]
    bounds = [(start, stop) for start, stop, _ in chunks]
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(len(weights)))
    assert all(1 <= stop - start <= rows for start, stop in bounds)
    assert all(sum(weights[start:stop]) <= size or stop - start == 1 for start, stop in bounds)
    assert all(  # and none could have taken the next row as well
        stop - start == rows or sum(weights[start : stop + 1]) > size for start, stop in bounds[:-1]
    )
