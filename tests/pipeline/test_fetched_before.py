"""What was fetched is not asked for again when files are added or partitions are cut otherwise."""

from __future__ import annotations

from collections import Counter

import pytest
import yaml

from tests.helpers.servers import Web, first, picture, whole
from tests.helpers.small import prose, vlmill
from tests.helpers.upstream import obelics
from vlmill.pipeline.core.names import IMAGES_FILE, SUPPLEMENT_FILE
from vlmill.pipeline.core.sample import read_rows
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.recipe.lock import read_locked_recipe

IMAGES = 4  # of a file
GONE, LATE = 1, 2  # the image of each file that is not there, and the one that comes with the second request


@pytest.fixture
def web():
    with Web({}) as server:
        yield server


def add_file(web, folder, number):
    """A file of two documents, and what the server says of its images; one picture is in every file."""
    paths = [f"/{number}-{at}.png" for at in range(IMAGES)]
    web.answers.update({path: whole(picture(7 * number + at)) for at, path in enumerate(paths)})
    web.answers[paths[GONE]] = whole(b"gone", 410)
    web.answers[paths[LATE]] = first(1, whole(b"busy", 503), whole(picture(99)))
    web.answers["/common.png"] = whole(picture(200))
    urls = [web.url(path) for path in (*paths, "/common.png")]
    documents = [[prose(10 * number), *urls[:2]], [prose(10 * number + 1), *urls[2:]]]
    obelics(folder / f"web-{number}.parquet", documents)


def write_recipe(web, folder, **fetch):
    settings = {"allow_hosts": [web.host], "retries": 0, "timeout_s": 5, **fetch}
    recipe = {
        "name": "fetched",
        "sources": {"web": {"kind": "obelics", "files": "web-*.parquet"}},
        "fetch": settings,
        "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
        "stages": [],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def build(recipe, root, *options):
    return vlmill("build", recipe, "--out", root, "--workers", 0, "--until", "curate", *options)


def count_asked(web):
    """How often each picture was asked for."""
    return Counter(visit.path for visit in web.asked() if visit.path.endswith(".png"))


def read_all(root):
    """What a run has of each address, in order."""
    found = []
    for at in list_raw_tables(root, read_locked_recipe(root), "web"):
        paths = at.paths(root)
        gained = {row["image"]: row for row in read_rows(paths[SUPPLEMENT_FILE])} if SUPPLEMENT_FILE in paths else {}
        found += [gained.get(row["image"], row) for row in read_rows(paths[IMAGES_FILE])]
    return [{name: row[name] for name in ("url", "reason", "detail", "media_type", "bytes")} for row in found]


def test_no_address_is_asked_again_where_files_are_added_or_partitions_are_cut_otherwise(web, tmp_path):
    for number in (2, 4, 5):
        add_file(web, tmp_path, number)
    recipe, root = write_recipe(web, tmp_path), tmp_path / "run"
    assert build(recipe, root) == 0
    assert set(count_asked(web).values()) == {1}
    add_file(web, tmp_path, 7)  # behind the others, in their partition
    assert build(recipe, root, "--accept-changes") == 0
    add_file(web, tmp_path, 1)  # before them, and between them
    add_file(web, tmp_path, 3)
    assert build(recipe, root, "--accept-changes") == 0
    assert build(recipe, root, "--accept-changes", "--set", "partition.rows=3") == 0
    asked = count_asked(web)
    assert len(asked) == 6 * IMAGES + 1
    assert set(asked.values()) == {1}
    rows = read_all(root)
    said = {row["url"]: (row["reason"], row["detail"], row["bytes"]) for row in rows}
    assert len(rows) == 6 * (IMAGES + 1)
    for number in (1, 2, 3, 4, 5, 7):
        urls = [web.url(f"/{number}-{at}.png") for at in range(IMAGES)]
        assert said[urls[0]] == (None, None, picture(7 * number))
        assert said[urls[GONE]] == ("http_client_error", "HTTP 410", None)
        assert said[urls[LATE]] == ("http_server_error", "HTTP 503", None)


def test_what_a_retry_brought_is_not_asked_again_either(web, tmp_path):
    add_file(web, tmp_path, 1)
    recipe, root = write_recipe(web, tmp_path), tmp_path / "run"
    assert build(recipe, root) == 0
    assert build(recipe, root, "--retry-failed") == 0
    before = count_asked(web)
    assert before["/1-2.png"] == 2
    add_file(web, tmp_path, 2)
    web.answers["/1-2.png"] = whole(b"busy", 503)
    assert build(recipe, root, "--accept-changes") == 0
    asked = count_asked(web)
    assert {path: asked[path] for path in before} == dict(before)
    assert {row["url"]: row["bytes"] for row in read_all(root)}[web.url("/1-2.png")] == picture(99)


def test_what_was_fetched_under_other_settings_is_asked_again(web, tmp_path):
    add_file(web, tmp_path, 1)
    recipe, root = write_recipe(web, tmp_path), tmp_path / "run"
    assert build(recipe, root) == 0
    assert build(write_recipe(web, tmp_path, max_bytes=10), root, "--accept-changes") == 0
    assert count_asked(web)["/1-0.png"] == 2
    assert {row["reason"] for row in read_all(root)} == {"too_many_bytes", "http_client_error"}


def test_an_interrupted_build_takes_over_what_an_earlier_one_fetched(web, tmp_path, monkeypatch):
    add_file(web, tmp_path, 1)
    recipe, root = write_recipe(web, tmp_path), tmp_path / "run"
    assert build(recipe, root) == 0
    add_file(web, tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr("vlmill.pipeline.engine.build.Build.curate", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert build(recipe, root, "--accept-changes") != 0
    add_file(web, tmp_path, 3)
    assert build(recipe, root, "--accept-changes") == 0
    assert set(count_asked(web).values()) == {1}


def test_what_filters_kept_from_being_asked_is_asked_where_other_rows_show_it_and_what_was_asked_stays(web, tmp_path):
    add_file(web, tmp_path, 1)
    chinese = (
        "\u8fd9\u662f\u4e00\u6bb5\u4e2d\u6587\u7684\u8bf4\u660e\u6587\u5b57\uff0c\u6ca1\u6709\u522b\u7684\u610f\u601d\u3002"
        * 4
    )
    web.answers.update({"/late.png": whole(picture(3)), "/more.png": whole(picture(4)), "/last.png": whole(picture(5))})
    obelics(tmp_path / "web-2.parquet", [[chinese, web.url("/late.png")]])
    recipe, root = write_recipe(web, tmp_path, after="language"), tmp_path / "run"
    text = recipe.read_text() + "filters: [{language: {drop: [zh]}}]\n"
    recipe.write_text(text)
    assert build(recipe, root) == 0
    assert "/late.png" not in count_asked(web)
    obelics(tmp_path / "web-3.parquet", [[prose(5), web.url("/late.png"), web.url("/more.png")]])
    assert build(recipe, root, "--accept-changes") == 0
    assert set(count_asked(web).values()) == {1}
    assert [row["bytes"] for row in read_all(root) if row["url"] == web.url("/late.png")] == [picture(3)]
    obelics(
        tmp_path / "web-3.parquet", [[prose(6), web.url("/last.png")]]
    )  # so that no row shows it which filters keep
    assert build(recipe, root, "--accept-changes") == 0
    assert [row["bytes"] for row in read_all(root) if row["url"] == web.url("/late.png")] == [picture(3)]
    assert set(count_asked(web).values()) == {1}
