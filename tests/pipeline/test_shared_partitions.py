"""Small input files that share a partition: samples, verdicts and counts are those of files that have one each."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.small import ENGLISH, product, prose, vlmill
from tests.helpers.upstream import obelics, pdf, picture
from vlmill import open_run
from vlmill.pipeline.checks.extrapolate import extrapolate_run
from vlmill.pipeline.core.at_work import AT_WORK
from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.scaling import count_source_partitions, count_source_rows
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.status import read_progress
from vlmill.pipeline.reports.trace import trace_refused, trace_sample
from vlmill.pipeline.sources.llava import LlavaSource
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.row_sample import LEAST_ROWS, RowRange
from vlmill.pipeline.steps.survey import SHARED_BYTES, cut_rows, group_chunks

WEIGHTS = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=12)
"""The bytes of each row of each file."""


@given(WEIGHTS, WEIGHTS, st.integers(1, 8), st.integers(1, 60))
@example([[0], [0], [0, 0]], [[0]], 2, 9)
@example([[5], [4], [1], [3, 7], [0]], [[1]], 9, 9)
def test_every_row_is_in_one_partition_in_order_and_more_files_change_the_last_one_alone(files, more, rows, size):
    chunks = [cut_rows(weights, rows, size) for weights in [*files, *more]]
    groups = group_chunks(chunks[: len(files)], rows, size)
    found = [(file, row) for group in groups for file, chunk in group for row in range(*chunks[file][chunk][:2])]
    assert found == [(file, row) for file, weights in enumerate(files) for row in range(len(weights))]
    for group in groups:
        held = [chunks[file][chunk] for file, chunk in group]
        assert sum(stop - start for start, stop, _ in held) <= rows
        assert sum(weight for _, _, weight in held) <= size or len(held) == 1
        assert len(held) == 1 or all(len(chunks[file]) == 1 for file, _ in group)
    longer = group_chunks(chunks, rows, size)
    assert longer[: len(groups[:-1])] == groups[:-1]
    if groups:
        assert longer[len(groups) - 1][: len(groups[-1])] == groups[-1]
    for before, after in pairwise(groups):  # no two neighbours fit into one
        files_of = [len(chunks[group[0][0]]) == 1 for group in (before, after)]
        if all(files_of):
            held = [chunks[file][chunk] for file, chunk in (*before, after[0])]
            assert sum(s - b for b, s, _ in held) > rows or sum(weight for _, _, weight in held) > size


def test_files_share_less_than_a_partition_may_have():
    half = SHARED_BYTES // 2
    chunks = [cut_rows([size], 10, 1 << 30) for size in (half, half, 1, 3 * half, 1)]
    assert group_chunks(chunks, 10, 1 << 30) == [[(0, 0), (1, 0)], [(2, 0)], [(3, 0)], [(4, 0)]]


# -- builds

FILES = {"web": 5, "talk": 4, "papers": 3}
ROWS = {"web": 10, "talk": 8, "papers": 3}


def write_web(folder, number):
    url = "http://img.small.test/{}.png".format
    shown = [prose(10 * number), url(number % 3), prose(10 * number + 1)]
    again = [prose(0), url("missing"), prose(1)]  # in each file; dropped as duplicates of the first
    return obelics(folder / f"web/{number}.parquet", [shown, again])


def write_talk(folder, number):
    rows = [
        {
            "image": f"{row}.png",
            "conversations": [
                {"from": "human", "value": f"<image>\nIs this right? {prose(400 + 10 * number + row)}"},
                {"from": "gpt", "value": f"Thing {number} beside {row}."},
            ],
        }
        for row in range(2)
    ]
    (folder / f"talk/{number}.json").write_text(json.dumps(rows))


def write_paper(folder, number):
    (folder / f"papers/{number}.pdf").write_bytes(pdf([[prose(900 + number)[:40], "a line"], [ENGLISH[:40], "more"]]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Web documents that name addresses, turns about image files, and PDFs: some small files of each."""
    folder = tmp_path_factory.mktemp("shared")
    for name in ("web", "talk", "papers", "served", "pictures"):
        (folder / name).mkdir()
    for number in range(3):
        (folder / f"served/{number}.png").write_bytes(picture(number, (160, 120)))
        (folder / f"pictures/{number}.png").write_bytes(picture(10 + number, (120, 160)))
    for name, write in (("web", write_web), ("talk", write_talk), ("papers", write_paper)):
        for number in range(FILES[name]):
            write(folder, number)
    write_recipe(folder, "shared")
    return folder


def write_recipe(folder, name, **partition):
    sources = {
        "web": {"kind": "obelics", "files": "web/*.parquet", "serve": {"http://img.small.test/": "served"}},
        "talk": {"kind": "llava", "files": "talk/*.json", "images": "pictures"},
        "papers": {"kind": "pdf", "files": "papers/*.pdf"},
    }
    recipe = {
        "name": "shared",
        "sources": sources,
        "partition": partition,
        "fetch": {"retries": 0, "timeout_s": 5},
        "filters": [{"shape": {"max_ratio": 10}}],
        "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def build(recipe, root, *options):
    return vlmill("build", recipe, "--out", root, "--workers", 0, *options)


@pytest.fixture(scope="module")
def shared(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "run"
    assert build(folder / "shared.yaml", root) == 0
    return root


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """The same rows, of which each has a partition of its own."""
    root = tmp_path_factory.mktemp("alone") / "run"
    assert build(write_recipe(folder, "alone", rows=1), root) == 0
    return root


def list_partitions(root, source, step="read"):
    return [receipt.partition for receipt in read_manifest(root, f"steps/{source}/{step}")]


def read_outcomes(root):
    """Of each sample: its id, its texts, the addresses of its images, and what is said of it."""
    run = open_run(root)
    samples = run.samples().collect()
    verdicts = run.verdicts().collect()
    said = verdicts.join(samples.select("source", "partition", "sample", "id"), on=["source", "partition", "sample"])
    texts = [
        (row["id"], [(node["text"], node["url"], node["image"] is None) for node in row["nodes"]])
        for row in samples.iter_rows(named=True)
    ]
    return texts, sorted(said.select("id", "node", "filter", "reason", "other").iter_rows())


def test_files_that_share_a_partition_give_the_samples_and_verdicts_of_files_that_do_not(shared, alone):
    for source, rows in ROWS.items():
        assert list_partitions(shared, source) == ["00000-0000"]
        assert len(list_partitions(alone, source)) == rows
        assert list_partitions(shared, source, "survey") == ["00000"]
    assert read_outcomes(shared) == read_outcomes(alone)
    one, other = read_funnel(shared), read_funnel(alone)
    for source in FILES:
        for level in ("rows", "pages", "samples", "nodes"):
            assert one[source].get(level) == other[source].get(level), (source, level)
    assert {source: funnel["samples"]["kept"] for source, funnel in one.items()} == {"papers": 4, "talk": 8, "web": 5}
    assert vlmill("verify", shared, "--workers", 0) == 0


def test_the_bytes_do_not_depend_on_the_workers(folder, shared, tmp_path):
    assert vlmill("build", folder / "shared.yaml", "--out", tmp_path / "run", "--workers", 2) == 0
    assert product(tmp_path / "run") == product(shared)


def test_nor_on_where_files_and_run_lie(folder, shared, s3):
    """Web documents are read by range; turns and PDFs are copied, those of a partition at a time."""
    for path in sorted(folder.rglob("*.*")):
        name = path.name if path.parent.name == "pictures" else path.relative_to(folder)  # paths start at the root
        (RunPath(f"{s3}/in") / name).put_file(path)
    moves = [word for name in FILES for word in ("--source", f"{name}={s3}/in")]
    assert build(folder / "shared.yaml", RunPath(f"{s3}/run"), *moves) == 0
    assert product(RunPath(f"{s3}/run")) == product(shared)


def test_a_sample_of_any_file_is_traced(shared):
    for number in range(FILES["web"]):
        traced = trace_sample(shared, f"web/web/{number}.parquet#0")
        assert (traced.partition, len(traced.shards)) == ("00000-0000", 1)
        assert prose(10 * number) in [node.text for node in traced.sample.nodes]


def test_of_a_scaled_and_of_a_limited_run_status_and_forecast_know_the_partitions_and_rows(folder, shared, tmp_path):
    recipe = read_locked_recipe(shared)
    assert [count_source_partitions(shared, recipe, source) for source in FILES] == [1, 1, 1]
    assert [count_source_rows(shared, recipe, source) for source in FILES] == [*ROWS.values()]
    cut = write_recipe(folder, "cut", rows=4)
    assert build(cut, tmp_path / "limited", "--set", "limit=5", "--until", "curate") == 0
    names = ["00000-0000", "00002-0000"]
    assert list_partitions(tmp_path / "limited", "web") == names
    ids = open_run(tmp_path / "limited").samples("web").collect()["id"].to_list()
    assert ids == [f"web/web/{row // 2}.parquet#{row % 2}" for row in range(5)]
    for name in names:
        for receipt in (tmp_path / "limited/steps/web").glob(f"*/{name}.*.receipt.json"):
            assert receipt.exists()
    progress = {(step.step, step.of): (step.done, step.tasks) for step in read_progress(tmp_path / "limited")}
    assert progress["read", "web"] == (2, 2)
    (tmp_path / "limited/steps/web/read/manifest.json").unlink()
    (receipt,) = (tmp_path / "limited/steps/web/read").glob("00002-0000.*.receipt.json")
    receipt.unlink()
    progress = {(step.step, step.of): (step.done, step.tasks) for step in read_progress(tmp_path / "limited")}
    assert progress["read", "web"] == (1, 2)
    assert build(folder / "shared.yaml", tmp_path / "scaled", "--scale", 0.5) == 0
    forecast = {found.source: (found.read, found.rows) for found in extrapolate_run(tmp_path / "scaled").sources}
    assert forecast == {source: (min(rows, LEAST_ROWS), rows) for source, rows in ROWS.items()}


def test_a_file_behind_the_others_touches_the_last_partition_alone(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "input")
    recipe, root = write_recipe(copy, "grown", rows=4), tmp_path / "run"
    until = ("--until", "curate")
    assert build(recipe, root, *until) == 0
    before = {receipt.partition: receipt for receipt in read_manifest(root, "steps/web/fetch")}
    assert [*before] == ["00000-0000", "00002-0000", "00004-0000"]
    write_web(copy, 5)
    assert build(recipe, root, *until) == 0
    after = {receipt.partition: receipt for receipt in read_manifest(root, "steps/web/fetch")}
    assert [name for name in after if after[name] != before.get(name)] == ["00004-0000"]
    write_web(copy, 6)
    assert build(recipe, root, *until) == 0
    again = {receipt.partition: receipt for receipt in read_manifest(root, "steps/web/fetch")}
    assert [name for name in again if again[name] != after.get(name)] == ["00006-0000"]


def test_a_takedown_of_a_sample_of_one_file_leaves_those_of_the_others(folder, shared, tmp_path):
    root = shutil.copytree(shared, tmp_path / "run")
    gone = "web/web/3.parquet#0"
    assert vlmill("takedown", root, "--id", gone, "--workers", 0) == 0
    assert vlmill("verify", root, "--workers", 0) == 0
    assert trace_sample(root, gone).taken_down
    texts, before = read_outcomes(root)[0], dict(read_outcomes(shared)[0])
    assert {name for name, nodes in texts if nodes != before[name]} == {gone}
    assert build(folder / "shared.yaml", root) == 0
    assert trace_sample(root, gone).taken_down


def test_each_bad_file_among_those_that_share_a_partition_is_named_or_skipped_alone(folder, tmp_path, capsys):
    """Whether the survey finds it or the reading; the others keep their rows."""
    copy = shutil.copytree(folder, tmp_path / "input")
    for number in (1, 2):
        text = (copy / f"talk/{number}.json").read_text()
        (copy / f"talk/{number}.json").write_text(text[:-40])
    damaged = copy / "web/3.parquet"
    data = bytearray(damaged.read_bytes())
    data[4:40] = bytes(36)
    damaged.write_bytes(data)
    root = tmp_path / "run"
    assert build(copy / "shared.yaml", root) == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert [f"talk/{number}.json" in said for number in range(4)] == [False, True, True, False]
    skips = [word for source in ("talk", "web") for word in ("--set", f"sources.{source}.on_bad_file=skip")]
    assert build(copy / "shared.yaml", root, *skips[:2], "--accept-changes") == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert [f"web/{number}.parquet" in said for number in range(5)] == [False, False, False, True, False]
    assert build(copy / "shared.yaml", root, *skips, "--accept-changes") == 0
    funnel = read_funnel(root)
    assert funnel["talk"]["files"]["failed"] == {"bad_file": 2}
    assert funnel["talk"]["rows"]["kept"] == 4
    assert funnel["web"]["rows"]["failed"] == {"bad_file": 2}
    assert [one.reason for one in trace_refused(root, "web/web/3.parquet#1")] == ["bad_file"]
    read = open_run(root).samples("web").select("file").unique().collect()["file"].sort().to_list()
    assert read == [f"web/{number}.parquet" for number in (0, 1, 2, 4)]


def test_all_files_of_a_partition_in_which_damage_shows_are_named_at_once(tmp_path):
    for number in range(3):
        text = json.dumps([{"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "This."}]}])
        (tmp_path / f"{number}.json").write_text(text if number == 1 else text[:-9])
    ranges = tuple(RowRange(f"{number}.json", 0, 1) for number in range(3))
    inputs = {f"input-{number}": tmp_path / f"{number}.json" for number in range(3)}
    (tmp_path / "out").mkdir()
    with pytest.raises(BadFileError) as raised:
        Read(LlavaSource(), "talk", ranges).run(inputs, tmp_path / "out")
    assert ["/0.json" in raised.value.faults[0], "/2.json" in raised.value.faults[1]] == [True, True]
    assert len(raised.value.faults) == 2


def test_the_row_that_is_read_next_is_told_with_its_file(folder, tmp_path):
    told, names = [], [f"talk/{number}.json" for number in range(3)]
    inputs = {f"input-{place}": folder / name for place, name in enumerate(names)}
    with AT_WORK.told_to(told.append):
        AT_WORK.begin("read")
        Read(LlavaSource(), "talk", tuple(RowRange(name, 0, 2) for name in names)).run(inputs, tmp_path)
    wanted = [f"read, at talk/{name}#{row}" for name in names for row in range(2)]
    assert [place for place in told if place in wanted] == wanted


def test_benchmarks_of_many_small_files_are_compared_with(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "input")
    shutil.copytree(copy / "pictures", copy, dirs_exist_ok=True)  # a benchmark's paths start from its root
    (copy / "exam").mkdir()
    for number in range(3):
        shutil.copy(copy / f"talk/{number}.json", copy / f"exam/{number}.json")
    data = yaml.safe_load((copy / "shared.yaml").read_text())
    exam = {"kind": "llava", "files": "exam/*.json", "root": ".", "images": "pictures"}
    data["decontaminate"] = {"against": {"exam": {key: exam[key] for key in ("kind", "files")}}}
    (copy / "exam.yaml").write_text(yaml.safe_dump(data))
    assert build(copy / "exam.yaml", tmp_path / "run", "--until", "curate") == 0
    assert list_partitions(tmp_path / "run", "benchmarks/exam") == ["00000-0000"]
    found = open_run(tmp_path / "run").findings().collect()
    assert {name.partition("#")[0] for name in found["item"].to_list()} == {f"exam/exam/{n}.json" for n in range(3)}
