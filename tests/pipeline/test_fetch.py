"""Fetch and Retry: every row has bytes or a reason, in order, whatever happens to the process that downloads."""

import subprocess
from dataclasses import fields, replace

import pytest

from tests.helpers.fetching import quick, run
from tests.helpers.servers import Web, later, picture, whole
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, VlmillError
from vlmill.pipeline.core.keys import make_key
from vlmill.pipeline.core.names import HOST_COUNTS_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import read_images, read_rows
from vlmill.pipeline.core.step import get_parameters
from vlmill.pipeline.fetch import Fetch, Retry
from vlmill.pipeline.fetch.host_counts import HostOutcome, read_host_counts


@pytest.fixture
def web():
    with Web() as server:
        yield server


def test_every_row_has_its_bytes_or_its_reason_and_keeps_its_place_and_address(web, tmp_path):
    carried = {"bytes": b"came with the row", "media_type": "image/gif"}
    failed = {"url": web.url("/good.png?failed-before"), "reason": Reason.OPTED_OUT, "detail": "upstream"}
    lines = [
        (f"HTTP://{web.host}/good.png#top", None),
        (carried, None),
        (web.url("/absent.png"), Reason.HTTP_CLIENT_ERROR),
        ("no address", Reason.BAD_URL),
        (failed, Reason.OPTED_OUT),
        ("file:///etc/passwd", Reason.BAD_URL),
        (web.url("/html.jpg"), Reason.NOT_AN_IMAGE),
        (web.url("/naïve é.png"), None),
        (web.url("/good.png"), None),
        ("http://127.0.0.1:1/", Reason.FORBIDDEN_ADDRESS),
        (web.url("/empty.png"), Reason.EMPTY_BODY),
        (web.url("/good.png"), None),
    ]
    web.answers["/na%C3%AFve%20%C3%A9.png"] = whole(picture(7), Content_Type="IMAGE/PNG; charset=binary")
    rows, counts, _ = run(quick(web), tmp_path, *(given for given, _ in lines))

    assert [row["image"] for row in rows] == list(range(len(lines)))
    assert [row["url"] for row in rows] == [given if isinstance(given, str) else given.get("url") for given, _ in lines]
    assert [row["reason"] for row in rows] == [reason for _, reason in lines]
    assert [row["bytes"] for row in rows if row["bytes"]] == [
        picture(),
        b"came with the row",
        picture(7),
        picture(),
        picture(),
    ]
    assert rows[7]["media_type"] == "image/png"
    assert (rows[1]["media_type"], rows[4]["detail"]) == ("image/gif", "upstream")
    assert rows[2]["detail"] == "HTTP 404"
    assert counts["fetched"].to_json() == {
        "in": 10,
        "kept": 4,
        "dropped": {},
        "failed": {
            "bad_url": 2,
            "empty_body": 1,
            "forbidden_address": 1,
            "http_client_error": 1,
            "not_an_image": 1,
        },
    }
    assert len(web.asked("/good.png")) == 1, "an address is fetched once, however often and however spelled"
    assert web.asked("/good.png?failed-before") == []


def test_beside_the_images_stands_how_their_hosts_answered(web, tmp_path):
    there = [web.url("/good.png"), web.url("/good.png"), web.url("/absent.png")]
    had = {"url": "http://else.test/c.png", "bytes": b"1"}
    rows, _, left = run(quick(web), tmp_path, *there, "http://[", "http://127.0.0.2/", had, {})
    host, size = web.host.partition(":")[0], len(picture())
    assert list(read_host_counts(left.with_name(HOST_COUNTS_FILE))) == [
        HostOutcome("(no host)", rows[3]["reason"], 1, 0),
        HostOutcome(host, None, 2, 2 * size),
        HostOutcome(host, "http_client_error", 1, 0),
        HostOutcome("127.0.0.2", "forbidden_address", 1, 0),
    ]


def test_the_file_does_not_depend_on_the_order_in_which_answers_come(web, tmp_path):
    for shade in range(20):
        web.answers[f"/{shade}.png"] = later(0.3 if shade % 5 == 0 else 0, whole(picture(shade)))
    urls = [web.url(f"/{shade}.png") for shade in range(20)]
    _, _, together = run(quick(web, threads=20), tmp_path, *urls)
    _, _, apart = run(quick(web, threads=1), tmp_path, *urls)
    assert [visit.path for visit in web.asked()[20:]] == [f"/{shade}.png" for shade in range(20)]
    assert together.read_bytes() == apart.read_bytes()
    assert [row["bytes"] for row in read_rows(together)] == [picture(shade) for shade in range(20)]


def test_nothing_of_the_environment_leads_astray(web, tmp_path, monkeypatch):
    (tmp_path / "work" / "pipeline").mkdir(parents=True)
    for trap in ("pipeline/__init__.py", "json.py", "img2dataset.py", "urllib.py"):
        (tmp_path / "work" / trap).write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path / "work")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    mirrored = quick(web, allow_hosts=(), mirrors={"http://images.example.test/": web.url("/")})
    rows, _, _ = run(mirrored, tmp_path, "http://images.example.test/good.png")
    assert rows[0]["bytes"] == picture()
    assert rows[0]["url"] == "http://images.example.test/good.png"


def test_of_a_mirror_that_has_gone_no_failure_is_kept(tmp_path):
    with Web() as server:
        gone, rules = server.url("/"), quick(server)
    step = replace(rules, mirrors={"http://images.example.test/": gone})
    with pytest.raises(
        VlmillError, match=f"the mirror {gone} of http://images.example.test/ takes no connection any more"
    ):
        run(step, tmp_path, "http://images.example.test/good.png")


def test_no_process_is_started_where_nothing_is_to_be_fetched(web, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert run(quick(web), tmp_path)[0] == []
    rows, counts, _ = run(
        quick(web),
        tmp_path,
        {"bytes": b"there"},
        "no address",
        {"url": "http://x.org/", "reason": Reason.TIMED_OUT},
    )
    assert [row["reason"] for row in rows] == [None, Reason.BAD_URL, Reason.TIMED_OUT]
    assert counts["fetched"].came == 1


# -- retry -------------------------------------------------------------------------------------------------------------


def test_a_retry_asks_only_for_what_may_have_passed_and_writes_only_what_it_gained(web, tmp_path):
    web.answers.update({f"/{shade}.png": whole(picture(shade)) for shade in range(8)})
    web.answers["/3.png"] = whole(b"", 503)
    first = [
        {"url": web.url("/0.png"), "reason": Reason.TIMED_OUT, "detail": "silent for 10 s"},
        {"url": web.url("/1.png"), "bytes": picture(1)},
        {"url": web.url("/2.png"), "reason": Reason.HTTP_CLIENT_ERROR, "detail": "HTTP 429"},
        {"url": web.url("/3.png"), "reason": Reason.HTTP_SERVER_ERROR, "detail": "HTTP 500"},
        {"url": web.url("/4.png"), "reason": Reason.HTTP_CLIENT_ERROR, "detail": "HTTP 404"},
        {"url": web.url("/5.png"), "reason": Reason.OPTED_OUT, "detail": "X-Robots-Tag: noai"},
        {"reason": Reason.CRASHED},
        {"url": web.url("/7.png"), "reason": Reason.TRUNCATED_BODY},
        {"url": web.url("/0.png"), "reason": Reason.HTTP_UNEXPECTED, "detail": "HTTP 304"},
    ]
    retry = Retry(quick(web))
    rows, counts, supplement = run(retry, tmp_path, *first)
    assert supplement.name == "supplement.parquet"
    assert [(row["image"], row["reason"], row["detail"], row["bytes"]) for row in rows] == [
        (n, None, None, picture(n)) for n in (0, 2, 7)
    ]
    assert counts["retried"].to_json() == {
        "in": 4,
        "kept": 3,
        "dropped": {},
        "failed": {"http_server_error": 1},
    }
    assert sorted(visit.path for visit in web.asked()) == ["/0.png", "/2.png", "/3.png", "/7.png"]

    web.answers["/3.png"] = whole(picture(3))
    rows, counts, again = run(replace(retry, round=2), tmp_path, *first, **{"supplement.parquet": supplement})
    assert [(row["image"], row["bytes"]) for row in rows] == [(n, picture(n)) for n in (0, 2, 3, 7)], (
        "with those of the round before"
    )
    assert counts["retried"].to_json() == {"in": 1, "kept": 1, "dropped": {}, "failed": {}}
    overlaid = read_images({"images.parquet": tmp_path / "images.parquet", "supplement.parquet": again})
    assert [row["reason"] for row in overlaid] == [
        None,
        None,
        None,
        None,
        "http_client_error",
        "opted_out",
        "crashed",
        None,
        "http_unexpected",
    ]


def test_a_retry_without_anything_to_try_leaves_an_empty_supplement(web, tmp_path):
    rows, counts, _ = run(Retry(quick(web)), tmp_path, {"url": web.url("/good.png"), "reason": Reason.OPTED_OUT})
    assert (rows, counts["retried"].came, web.asked()) == ([], 0, [])


# -- parameters --------------------------------------------------------------------------------------------------------


def test_only_what_shapes_the_result_is_in_the_key():
    assert sorted(get_parameters(Fetch())) == ["allow_hosts", "honour_robots", "max_bytes"]
    assert [f.name for f in fields(Fetch) if f.metadata] == [
        "mirrors",
        "timeout_s",
        "deadline_s",
        "retries",
        "threads",
        "per_host",
        "user_agent",
        "honour_hosts",
        "unknown_hosts",
        "after",
    ]
    plain = Fetch()
    tuned = Fetch(
        mirrors={"http://a.org/": "http://b.org/"},
        timeout_s=1,
        deadline_s=2,
        retries=9,
        threads=1,
        per_host=1,
        user_agent="me/1",
        honour_hosts=False,
        unknown_hosts="refuse",
    )
    files = {"images.parquet": "0" * 64}
    for make in (lambda fetch: fetch, Retry):
        assert make_key(make(plain), files) == make_key(make(tuned), files)
        assert make_key(make(plain), files) != make_key(make(replace(plain, max_bytes=1)), files)
    assert make_key(Retry(plain), files) != make_key(Retry(plain, round=2), files)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"mirrors": {"http://a.org": "http://b.org/"}}, r"'http://a\.org' must end in '/'"),
        ({"mirrors": {"http://a.org/": "ftp://b.org/"}}, "'ftp://b.org/': scheme 'ftp', not http or https"),
        ({"allow_hosts": ["http://images.lan/"]}, "must be a host or host:port"),
        ({"user_agent": "a\r\nHost: b"}, "printable ASCII"),
        ({"threads": 0}, "greater than"),
        ({"thread": 1}, "did you mean 'threads'"),
    ],
)
def test_a_block_that_no_request_could_be_made_with_is_refused(block, message):
    with pytest.raises(RecipeError, match=message):
        parse_block(Fetch, block, "fetch")
