"""Shards outside the run's folder: read by range, several at once, and never less than was requested."""

from __future__ import annotations

import json
import shutil
import threading
import uuid

import fsspec
import pytest

from tests.helpers.servers import (
    Web,
    first,
    hang_up,
    later,
    ranged,
    truncated,
    whole,
)
from tests.helpers.small import vlmill
from tests.helpers.stages import article, lock_recipe, question, write_run
from vlmill.mixtures import reader as locked
from vlmill.mixtures.reader import PlannedMixture, Segment
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.shards.byte_ranges import ByteRange, ShardStorage

TRAIN = {"steps": 4, "sequences": 2, "learning_rate": {"projector": 3e-3, "text": 3e-3}, "checkpoint_every": 2}
BODY = bytes(range(256)) * 8
SPANS = [ByteRange("shards/a.tar", 512, 100), ByteRange("shards/b.tar", 0, 2048), ByteRange("shards/a.tar", 7, 1)]


@pytest.fixture
def memory():
    """The address of an empty folder in memory."""
    root = f"memory://{uuid.uuid4()}"
    yield root
    filesystem, path = fsspec.core.url_to_fs(root)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


@pytest.fixture
def web():
    with Web({}) as server:
        yield server


def put(tmp_path, memory, web, files):
    """Copies of files, by path, in a folder, in memory and on a server."""
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
        with fsspec.open(f"{memory}/{path}", "wb") as file:
            file.write(data)
        web.answers[f"/bucket/{path}"] = ranged(data)
    return [str(tmp_path), f"file://{tmp_path}", memory, web.url("/bucket"), web.url("/bucket/")]


# -- spans


def test_spans_come_in_order_from_any_place(tmp_path, memory, web):
    for root in put(tmp_path, memory, web, {"shards/a.tar": BODY, "shards/b.tar": BODY[::-1]}):
        assert list(ShardStorage(root).read(SPANS)) == [BODY[512:612], BODY[::-1], BODY[7:8]], root
    asked = {visit.headers["Range"] for visit in web.asked("/bucket/shards/a.tar")}
    assert asked == {"bytes=512-611", "bytes=7-7"}


@pytest.mark.parametrize("cache", ["filecache", "simplecache"])
def test_a_cache_in_front_of_a_place_is_no_folder(tmp_path, memory, web, cache):
    put(tmp_path, memory, web, {"shards/a.tar": BODY})
    assert list(ShardStorage(f"{cache}::{memory}").read(SPANS[:1])) == [BODY[512:612]]


def test_the_spans_of_a_call_are_in_flight_together(web):
    together = threading.Barrier(4)

    def when_all_have_asked(visit):
        together.wait(20)  # breaks, and hangs up, if they come one after the other
        ranged(BODY)(visit)

    web.answers["/a.tar"] = when_all_have_asked
    spans = [ByteRange("a.tar", number, 10) for number in range(4)]
    assert list(ShardStorage(web.url("")).read(spans)) == [BODY[number : number + 10] for number in range(4)]


def test_threads_share_a_place(web):
    web.answers["/a.tar"] = later(0.01, ranged(BODY))
    place, found = ShardStorage(web.url("")), {}

    def read(number):
        found[number] = [*place.read([ByteRange("a.tar", number + 8 * turn, 5) for turn in range(5)])]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    starts = {number: [number + 8 * turn for turn in range(5)] for number in range(8)}
    assert found == {number: [BODY[start : start + 5] for start in row] for number, row in starts.items()}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (whole(b"no", 404), "FileNotFoundError.*Copy the run's shards there"),
        (whole(b"no", 500), "500.*Run the same command again"),
        (whole(b"no", 403), "403.*Run the same command again"),
        (hang_up, "Disconnected.*Run the same command again"),
        (truncated, "Run the same command again"),
        (whole(BODY), "2048 came.*no copy of the run's shard"),  # a server that knows no ranges
        (ranged(BODY[:600]), "88 came.*no copy of the run's shard"),
    ],
)
def test_less_or_other_than_was_asked_for_names_shard_and_place(web, answer, said):
    web.answers["/bucket/shards/a.tar"] = answer
    place = ShardStorage(web.url("/bucket"))
    with pytest.raises(StoreError, match=f"(?s){web.url('/bucket')}/shards/a.tar: 100 bytes at 512 .*{said}"):
        list(place.read(SPANS[:1]))


def test_the_first_span_that_fails_is_the_one_that_is_named(web):
    web.answers["/a.tar"], web.answers["/b.tar"] = ranged(BODY), whole(b"", 503)
    coming = ShardStorage(web.url("")).read(
        [ByteRange("a.tar", 0, 3), ByteRange("b.tar", 1, 3), ByteRange("c.tar", 2, 3)]
    )
    assert next(coming) == BODY[:3]
    with pytest.raises(StoreError, match=r"b\.tar: 3 bytes at 1 .*503"):
        next(coming)


def test_a_span_that_fails_once_is_asked_for_again(web):
    web.answers["/a.tar"], web.answers["/b.tar"] = ranged(BODY), first(1, whole(b"", 503), ranged(BODY))
    coming = ShardStorage(web.url("")).read([ByteRange("a.tar", 0, 3), ByteRange("b.tar", 1, 3)])
    assert list(coming) == [BODY[:3], BODY[1:4]]


def test_an_address_that_nothing_reads_is_refused():
    with pytest.raises(RecipeError, match="shards at nowhere://bucket: Protocol not known: nowhere"):
        ShardStorage("nowhere://bucket")


# -- mixtures


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one stage, untrained; four samples are held out."""
    root = tmp_path_factory.mktemp("run")
    write_run(root, {"quiz": [question(number) for number in range(40)]}, hold_out=4, length=96, per_shard=8)
    return lock_recipe(root, TRAIN)


def without_shards(run, folder, web):
    """A copy of a run without its tars, which the server has."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("*.tar"))
    for path in run.glob("shards/**/*.tar"):
        web.answers[f"/bucket/{path.relative_to(run)}"] = ranged(path.read_bytes())
    return folder


def test_training_and_scoring_from_a_server_are_those_from_the_folder(run, tmp_path, web):
    here, there = shutil.copytree(run, tmp_path / "here"), without_shards(run, tmp_path / "there", web)
    machine = ("--device", "cpu", "--threads", 1)
    assert vlmill("train", here, *machine) == 0
    assert vlmill("train", there, *machine, "--shards", web.url("/bucket")) == 0
    logs = [(root / "train/align/log.jsonl").read_text().splitlines() for root in (here, there)]
    told = [[(line["loss"], line["sources"]) for line in map(json.loads, lines)] for lines in logs]
    assert told[0] == told[1]
    assert len(told[0]) == 4
    for name in ("held_out.jsonl", "result.json"):
        assert (here / "train/align" / name).read_bytes() == (there / "train/align" / name).read_bytes()
    assert not [*there.glob("**/*.tar")]
    assert vlmill("evaluate", there, *machine, "--shards", web.url("/bucket")) == 0
    assert vlmill("evaluate", there, *machine) == 1


def test_a_storage_that_goes_away_ends_the_training_and_it_goes_on_when_it_is_back(run, tmp_path, web, capsys):
    here, there = shutil.copytree(run, tmp_path / "here"), without_shards(run, tmp_path / "there", web)
    machine = ("--device", "cpu", "--threads", 1, "--shards")
    answers = dict(web.answers)
    assert vlmill("train", here, *machine, run) == 0  # a folder is a place, too
    (path,) = [path for path in answers if path.endswith("01.tar")]
    web.answers[path] = whole(b"", 503)
    assert vlmill("train", there, *machine, web.url("/bucket")) == 1
    done = (there / "train/align/log.jsonl").read_text().splitlines()
    assert 0 < len(done) < 4
    said = " ".join(capsys.readouterr().err.split())
    assert f"{web.url(path)}: " in said
    assert "Run the same command again" in said
    web.answers.update(answers)
    assert vlmill("train", there, *machine, web.url("/bucket")) == 0
    logs = [(root / "train/align/log.jsonl").read_text().splitlines() for root in (here, there)]
    assert [json.loads(line)["loss"] for line in logs[0]] == [json.loads(line)["loss"] for line in logs[1]]


@pytest.mark.parametrize("head", [512, 600, 1 << 14])
def test_nodes_alone_are_those_of_the_whole_samples(tmp_path, monkeypatch, head):
    monkeypatch.setattr(locked, "HEAD", head)
    monkeypatch.setattr(locked, "TEXTS", 3)
    mixture = PlannedMixture(write_run(tmp_path, {"web": [article(number) for number in range(8)]}), "align")
    segments = [Segment(0, 0, row) for row in (5, 2, 7, 0, 1, 1, 3)]
    whole_samples = [stored.nodes for stored in mixture.read(segments)]
    assert [*mixture.nodes(iter(segments))] == whole_samples
    assert len(whole_samples) == 7


def test_a_list_of_held_out_samples_that_is_cut_short_is_named(tmp_path):
    mixture = PlannedMixture(
        write_run(tmp_path, {"web": [article(number) for number in range(4)]}, hold_out=1), "align"
    )
    assert mixture.held_out() == (Segment(0, 0, 3),)
    path = tmp_path / "mixtures/align/held_out.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=rf"{path} is missing or damaged"):
        mixture.held_out()


def test_a_shard_that_is_not_there_or_another_is_named_by_both_ways_of_reading(tmp_path):
    mixture = PlannedMixture(write_run(tmp_path, {"web": [article(number) for number in range(4)]}), "align")
    shard = tmp_path / mixture.lock["sources"][0]["shards"][0]["path"]
    data = shard.read_bytes()
    shard.write_bytes(bytes(len(data)))
    changed = "sha256 .*is not the one in the shard's index"
    for read, said in ((mixture.read, changed), (mixture.nodes, "no sample begins there")):
        with pytest.raises(StoreError, match=rf"{shard}: .*{said}.*vlmill verify"):
            next(read([Segment(0, 0, 1)]))
    start = data.index(b"%015d.json" % 1)
    for place, said in ((124, "no sample begins there"), (512, changed)):
        shard.write_bytes(data[: start + place] + b"!" + data[start + place + 1 :])
        for read, expected in ((mixture.read, changed), (mixture.nodes, said)):
            with pytest.raises(StoreError, match=rf"{shard}: .*{expected}"):
                next(read([Segment(0, 0, 1)]))
    picture = data.index(b"ustar", data.index(b"ustar", start) + 1)
    shard.write_bytes(data[:picture] + b"!" + data[picture + 1 :])
    with pytest.raises(StoreError, match=rf"{shard}: .*{changed}"):
        next(mixture.read([Segment(0, 0, 1)]))
    shard.unlink()
    for read in (mixture.read, mixture.nodes):
        with pytest.raises(StoreError, match=rf"{shard}: .*No such file.*vlmill verify"):
            next(read([Segment(0, 0, 1)]))
