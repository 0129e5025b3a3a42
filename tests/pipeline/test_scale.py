"""A scaled run: which rows are read, however work is cut, and that mixtures keep their shares."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.small import prose, vlmill
from tests.helpers.stages import write_tokenizer
from vlmill.mixtures.build import read_stats
from vlmill.pipeline.core.sample import SampleId
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.scaling import compute_read_fraction, scale_rows
from vlmill.pipeline.engine.store import File
from vlmill.pipeline.engine.survey import InputRows, PlannedPartition
from vlmill.pipeline.inputs.files import InputFile
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.sources.websight import WebSight
from vlmill.pipeline.steps.row_sample import LEAST_ROWS, choose_rows, find_bound
from vlmill.pipeline.steps.survey import cut_rows, group_chunks

UNTIMED = settings(deadline=None)
SCALES = st.floats(1e-6, 1.0, exclude_max=True)
SIZES = {"web": 2000, "quiz": 40}


def chosen(partitions):
    """(file, row) of all rows that partitions of one source read."""
    return [
        (found.file, row)
        for partition in partitions
        for found in partition.ranges
        for row in choose_rows("web", *found, partition.bound)
    ]


def cut(rows_of_files, rows):
    """The partitions of files with so many rows each, of `rows` rows at most."""
    files = [InputFile("web", number, f"{number}.json", "") for number in range(len(rows_of_files))]
    chunks = [cut_rows([1] * size, rows, 1 << 30) for size in rows_of_files]
    return [
        PlannedPartition(
            "web",
            *places[0],
            tuple(
                InputRows(files[number], File("input", "", "", 0), *chunks[number][chunk][:2])
                for number, chunk in places
            ),
        )
        for places in group_chunks(chunks, rows, 1 << 30)
    ]


# -- which rows


@UNTIMED
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=4), SCALES, SCALES)
def test_a_larger_scale_contains_a_smaller_one(files, one, other):
    small, large = sorted((one, other))
    assert {*chosen(scale_rows(cut(files, 100), small))} <= {*chosen(scale_rows(cut(files, 100), large))}


@UNTIMED
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=4), SCALES, st.integers(1, 500), st.integers(1, 500))
def test_the_rows_do_not_depend_on_how_files_are_cut(files, scale, rows, others):
    assert chosen(scale_rows(cut(files, rows), scale)) == chosen(scale_rows(cut(files, others), scale))


@pytest.mark.parametrize("scale", [0.0005, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("source", ["web", "quiz", "scans"])
def test_the_fraction_is_the_scale_within_what_chance_allows(source, scale):
    number = 400_000
    bound = find_bound(source, [("part-0.parquet", 0, number)], scale)
    found = len(choose_rows(source, "part-0.parquet", 0, number, bound))
    assert abs(found - number * scale) < 5 * math.sqrt(number * scale * (1 - scale))


def test_sources_files_and_neighbouring_rows_are_chosen_independently():
    bound = find_bound("web", [("a", 0, 100_000)], 0.1)
    first, second, third = (
        {*choose_rows(source, file, 0, 100_000, bound)} for source, file in (("web", "a"), ("web", "b"), ("quiz", "a"))
    )
    after = {row + 1 for row in first}
    for other in (second, third, after):
        assert 800 < len(first & other) < 1200  # a tenth of a tenth


@UNTIMED
@given(st.integers(1, 200), SCALES)
def test_of_a_small_source_the_rows_of_the_lowest_hashes_stay(number, scale):
    rows = chosen(scale_rows(cut([number], 10), scale))
    assert len(rows) >= min(LEAST_ROWS, number)
    everywhere = chosen(scale_rows(cut([number], 10), 1e-9))
    assert len(everywhere) == min(LEAST_ROWS, number)
    assert {*everywhere} <= {*rows}


def test_partitions_without_a_chosen_row_are_not_planned_and_the_others_are_as_full_as_without_a_scale():
    planned = scale_rows(cut([100_000, 5], 1000), 0.01)
    assert all(choose_rows("web", *found, partition.bound) for partition in planned for found in partition.ranges)
    assert [found.name for found in planned if found.number == 0] == ["00000-0000"]
    assert planned[0].ranges == (("0.json", 0, 100_000),)


def test_a_scale_of_one_changes_nothing():
    assert scale_rows(cut([30], 10), 1.0) == cut([30], 10)


def test_of_a_parquet_file_only_row_groups_with_a_chosen_row_are_read(tmp_path, monkeypatch):
    read, path = [], tmp_path / "rows.parquet"
    images = pa.array([{"bytes": b"x", "path": None}] * 100, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": images, "text": list(map(str, range(100)))}), path, row_group_size=10)
    iterate = pq.ParquetFile.iter_batches

    def watch(file, *arguments, row_groups, **more):
        read.extend(row_groups)
        return iterate(file, *arguments, row_groups=row_groups, **more)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watch)
    assert [row.row for row in WebSight().rows(path, [3, 7, 95])] == [3, 7, 95]
    assert read == [0, 9]


# -- a build


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Two sources of text, one large and one small, and a stage that repeats the small one."""
    folder = tmp_path_factory.mktemp("rows")
    number = 0
    for name, size in SIZES.items():
        with (folder / f"{name}.jsonl").open("w") as file:
            for _ in range(size):
                number += 1
                turns = [{"role": "user", "content": prose(number)}, {"role": "assistant", "content": "Thank you."}]
                file.write(json.dumps({"messages": turns}) + "\n")
    write_tokenizer(folder / "tokenizer.json")
    path = folder / "recipe.yaml"
    stage = {"sequence_length": 1024, "unit": "samples"}
    data = {
        "name": "scaled",
        "sources": {name: {"kind": "chat", "files": f"{name}.jsonl"} for name in SIZES},
        "partition": {"rows": 300},
        "filters": [],
        "dedupe": None,
        "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
        "tokenizer": "tokenizer.json",
        "stages": [
            {"name": "repeated", "policy": "small", "mixture": {"repeat": {"web": 1, "quiz": 3}, **stage}},
            {
                "name": "capped",
                "policy": "small",
                "mixture": {"entries": {"web": 0.6, "quiz": {"share": 0.4, "max_repetition": 2}}, **stage},
            },
            {
                "name": "taken",
                "policy": "small",
                "mixture": {"entries": {"web": {"take": "first:1000"}, "quiz": {"take": "random:20"}}, **stage},
            },
            {
                "name": "bounded",
                "policy": "small",
                "mixture": {"shares": {"web": 9, "quiz": 1}, "tokens": 5e4, **stage},
            },
        ],
    }
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    """Builds at a scale, each made once."""
    folder, made = tmp_path_factory.mktemp("built"), {}

    def build(scale, *more):
        if (scale, *more) not in made:
            root = folder / str(len(made))
            assert vlmill("build", recipe, "--out", root, "--workers", 0, "--scale", scale, *more) == 0
            made[scale, *more] = root
        return made[scale, *more]

    return build


def read_ids(root):
    """The ids of all rows that stand in the tables of a run."""
    return {
        str(SampleId(row["source"], row["file"], row["row"]))
        for source in SIZES
        for receipt in read_manifest(root, f"steps/{source}/read")
        for file in receipt.files
        if file.name == "samples.parquet"
        for row in pq.read_table(root / file.path, columns=["source", "file", "row"]).to_pylist()
    }


def test_a_scaled_run_holds_the_chosen_rows_and_no_others(built):
    ids, bound = read_ids(built(0.1)), int(0.1 * 2.0**64)
    web = {f"web/web.jsonl#{row}" for row in choose_rows("web", "web.jsonl", 0, SIZES["web"], bound)}
    assert {name for name in ids if name.startswith("web/")} == web
    assert sum(name.startswith("quiz/") for name in ids) == LEAST_ROWS
    assert vlmill("verify", built(0.1)) == 0


def test_a_scaled_run_does_not_depend_on_partitions_and_lies_within_a_larger_one(built):
    assert read_ids(built(0.1)) == read_ids(built(0.1, "--set", "partition.rows=7"))
    assert read_ids(built(0.1)) < read_ids(built(0.25)) < read_ids(built(1))


@pytest.mark.parametrize("stage", ["repeated", "capped", "taken", "bounded"])
def test_shares_are_those_of_the_whole_run(built, stage):
    declared = []

    def shares(root):
        entries = read_stats(root, stage)[stage]["sources"]
        planned = {entry["name"]: entry["planned"]["samples"] for entry in entries}
        declared.append([entry["declared"] for entry in entries])
        return {label: number / sum(planned.values()) for label, number in planned.items()}, sum(planned.values())

    (whole, all_samples), (scaled, samples) = shares(built(1)), shares(built(0.1))
    assert scaled == pytest.approx(whole, abs=1 / samples)
    assert samples == pytest.approx(all_samples / 10, rel=0.02, abs=1)
    assert declared[1] == pytest.approx(declared[0], abs=1e-3)


def test_passes_that_a_cap_allows_are_said_to_be_of_the_whole_run_where_that_is_not_what_was_built(built):
    said = {scale: read_stats(built(scale), "capped")["capped"]["notes"][0] for scale in (1, 0.1)}
    assert said[1].startswith("quiz may be passed 2 times, the mixture asks for ")
    assert said[0.1].startswith("in the whole run quiz may be passed 2 times, the mixture asks for ")


def test_the_fraction_that_was_read_follows_from_what_the_run_holds(built):
    root, read = built(0.1), LEAST_ROWS + len(choose_rows("web", "web.jsonl", 0, SIZES["web"], int(0.1 * 2.0**64)))
    recipe = read_locked_recipe(root)
    assert compute_read_fraction(root, recipe, ["quiz"]) == LEAST_ROWS / SIZES["quiz"]
    assert compute_read_fraction(root, recipe, ["quiz", "web"]) == read / sum(SIZES.values())
    assert compute_read_fraction(built(1), read_locked_recipe(built(1)), ["web"]) == 1


def test_another_scale_in_the_same_folder_is_a_changed_recipe_and_the_survey_is_kept(recipe, tmp_path, capsys):
    def build(*more):
        return vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0, "--until", "curate", *more)

    assert build("--scale", 0.1) == 0
    surveyed = read_manifest(tmp_path / "run", "steps/web/survey")
    assert build("--scale", 0.2) == 1
    assert "scale" in capsys.readouterr().err
    assert build("--scale", 0.2, "--accept-changes") == 0
    assert read_manifest(tmp_path / "run", "steps/web/survey") == surveyed
    assert read_ids(tmp_path / "run") > set()


@pytest.mark.parametrize("scale", [0, -1, 1.5])
def test_a_scale_is_a_fraction_above_nothing(recipe, tmp_path, scale, capsys):
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0, "--scale", scale) != 0
    assert "scale" in capsys.readouterr().err
