"""Hosts are asked once for what they say of the use of their files, and fetching heeds it."""

from dataclasses import replace

import polars as pl
import pytest

import vlmill
from tests.helpers.servers import Web, hang, moved, picture, whole
from tests.helpers.upstream import obelics
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import IMAGES, read_rows, write_rows
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.fetch.hosts import ORIGINS, AskHosts, ListHosts, choose_bucket

TEXT = {"Content_Type": "text/plain"}
ROBOTS = b"User-agent: *\nDisallow: /private/\n"
ANSWERS = {
    "/robots.txt": whole(ROBOTS, **TEXT),
    "/.well-known/tdmrep.json": whole(
        b'[{"location": "/art/*", "tdm-reservation": 1}]', Content_Type="application/json"
    ),
    "/private/a.png": whole(picture(1)),
    "/art/a.png": whole(picture(2)),
    "/a.png": whole(picture(3)),
    "/usage.png": whole(picture(4), Content_Usage="train-ai=n"),
    "/leads.png": moved("/private/a.png"),
}


@pytest.fixture
def web():
    with Web(ANSWERS) as server:
        yield server


def rules(web, **changes):
    quick = Fetch(allow_hosts=(web.host,), timeout_s=1, deadline_s=3, retries=0, threads=4, max_bytes=1 << 16)
    return replace(quick, **changes)


def ask(web, tmp_path, **changes):
    """The table of the bucket of a server."""
    write_rows(tmp_path / "hosts.parquet", ORIGINS, [{"origin": web.url("")}])
    bucket = choose_bucket(web.url(""))
    AskHosts(bucket, rules(web, **changes)).run({"web/0/hosts.parquet": tmp_path / "hosts.parquet"}, tmp_path)
    return tmp_path / f"{bucket:02d}.host_files.parquet"


def fetch(web, tmp_path, paths, answers, **changes):
    """The reason of each path."""
    empty = dict.fromkeys(IMAGES.names)
    rows = ({**empty, "image": number, "url": web.url(path)} for number, path in enumerate(paths))
    write_rows(tmp_path / "images.parquet", IMAGES, rows)
    (tmp_path / "out").mkdir()
    inputs = {"images.parquet": tmp_path / "images.parquet", answers.name: answers}
    rules(web, **changes).run(inputs, tmp_path / "out")
    return [row["reason"] for row in read_rows(tmp_path / "out" / "images.parquet")]


def list_asked(web):
    return [visit.path for visit in web.asked()]


PATHS = ["/private/a.png", "/art/a.png", "/a.png", "/usage.png", "/leads.png"]


def test_what_a_host_keeps_from_us_is_not_asked_for_and_no_redirect_leads_there(web, tmp_path):
    answers = ask(web, tmp_path)
    (row,) = read_rows(answers)
    assert (row["robots"], row["failure"]) == (ROBOTS.decode(), "")
    assert len(row["asked"]) == len("2026-01-02")
    assert list_asked(web) == ["/robots.txt", "/.well-known/tdmrep.json"]
    found = fetch(web, tmp_path, PATHS, answers)
    reasons = [Reason.ROBOTS_TXT, Reason.TDM_RESERVED, None, Reason.AI_PREFERENCE, Reason.ROBOTS_TXT]
    assert found == reasons
    assert {"/private/a.png", "/art/a.png"}.isdisjoint(list_asked(web))


def test_a_recipe_may_leave_hosts_and_headers_aside(web, tmp_path):
    found = fetch(web, tmp_path, PATHS, ask(web, tmp_path), honour_hosts=False, honour_robots=False)
    assert found == [None] * len(PATHS)


@pytest.mark.parametrize("answer", [whole(b"", 503), hang])
def test_a_host_in_trouble_allows_or_refuses_as_the_recipe_says(tmp_path, answer):
    with Web({**ANSWERS, "/robots.txt": answer}) as web:
        answers = ask(web, tmp_path)
        (row,) = read_rows(answers)
        assert row["failure"].partition(":")[0] in {Reason.HTTP_SERVER_ERROR, Reason.TIMED_OUT}
        (tmp_path / "closed").mkdir()
        assert fetch(web, tmp_path, ["/a.png"], answers) == [None]
        closed = fetch(web, tmp_path / "closed", ["/a.png"], answers, unknown_hosts="refuse")
        assert closed == [Reason.ROBOTS_UNKNOWN]


def test_a_host_without_robots_txt_allows_everything(tmp_path):
    with Web({"/a.png": whole(picture())}) as web:
        answers = ask(web, tmp_path)
        assert [(row["robots"], row["tdmrep"], row["failure"]) for row in read_rows(answers)] == [(None, None, "")]
        assert fetch(web, tmp_path, ["/a.png"], answers, unknown_hosts="refuse") == [None]


def test_a_robots_txt_without_end_is_trouble_and_a_long_one_is_cut(tmp_path):
    long = b"User-agent: *\nDisallow: /a\n" + b"#" * (1 << 20)
    with Web({"/robots.txt": whole(long, **TEXT)}) as web:
        (row,) = read_rows(ask(web, tmp_path))
        assert len(row["robots"]) == 512 << 10
    with Web({"/robots.txt": whole(bytes(8 << 20), **TEXT)}) as web:
        (row,) = read_rows(ask(web, tmp_path))
        assert row["failure"].startswith(Reason.TOO_MANY_BYTES)


def test_hosts_of_a_partition_are_listed_without_those_of_mirrors(tmp_path):
    empty = dict.fromkeys(IMAGES.names)
    urls = ["http://b.test/1", "https://a.test/2", "http://b.test/3", "http://mine.test/4", "ftp://c.test/5", None]
    rows = ({**empty, "image": number, "url": url} for number, url in enumerate(urls))
    write_rows(tmp_path / "images.parquet", IMAGES, rows)
    (tmp_path / "out").mkdir()
    counts = ListHosts(("http://mine.test/",)).run({"images.parquet": tmp_path / "images.parquet"}, tmp_path / "out")
    found = [row["origin"] for row in read_rows(tmp_path / "out" / "hosts.parquet")]
    assert found == ["http://b.test", "https://a.test"]
    assert counts["hosts"].kept == 2


@pytest.fixture
def built(web, tmp_path):
    """A run of two sources in several partitions over one host, and its server."""
    for name in ("one", "two"):
        documents = [[f"Text {number} of {name}.", web.url(path)] for number, path in enumerate(PATHS)]
        obelics(tmp_path / f"{name}.parquet", documents)
    recipe = {
        "name": "hosts",
        "sources": {name: {"kind": "obelics", "files": f"{name}.parquet"} for name in ("one", "two")},
        "fetch": {"allow_hosts": [web.host], "timeout_s": 2, "retries": 0, "threads": 4},
        "partition": {"rows": 2},
        "filters": [],
        "dedupe": None,
        "policies": {"small": {"kind": "letterbox", "side": 28, "patch": 14}},
    }
    (tmp_path / "recipe.yaml").write_text(vlmill_yaml(recipe))
    return vlmill.build(tmp_path / "recipe.yaml", tmp_path / "run", workers=0)


def vlmill_yaml(recipe):
    import yaml

    return yaml.safe_dump(recipe, sort_keys=False)


def test_a_build_asks_each_host_once_and_counts_what_it_keeps_back(built, web):
    asked = list_asked(web)
    assert asked.count("/robots.txt") == asked.count("/.well-known/tdmrep.json") == 1
    assert "/private/a.png" not in asked
    lost = built.funnel().filter(level="images", outcome="failed").group_by("reason").agg(pl.col("count").sum())
    assert dict(lost.rows()) == {"robots_txt": 4, "tdm_reserved": 2, "ai_preference": 2}
    assert built.verify() == []
    vlmill.build(built.folder.parent / "recipe.yaml", built.folder, workers=0)
    assert list_asked(web) == asked


def test_a_takedown_leaves_what_was_asked(built, web):
    asked = list_asked(web)
    built.takedown(ids=["one/one.parquet#2"], workers=0)
    assert list_asked(web) == asked
    assert (built.folder / "steps/hosts/asked/manifest.json").exists()
    assert built.verify() == []
