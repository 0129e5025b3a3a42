"""Fetch and Retry: every row has bytes or a reason, in order, whatever happens to the process that downloads."""

import gzip
import json
import shutil
import subprocess
import sys
from dataclasses import fields, replace

import psutil
import pytest

from tests.helpers.servers import Web, first, hang, later, picture, whole
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, VlmillError
from vlmill.pipeline.core.keys import make_key
from vlmill.pipeline.core.names import HOST_COUNTS_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import IMAGES, read_images, read_rows, write_rows
from vlmill.pipeline.core.step import get_parameters
from vlmill.pipeline.fetch import Fetch, Retry, process
from vlmill.pipeline.fetch.host_counts import HostOutcome, read_host_counts
from vlmill.pipeline.fetch.process import FetchOutcome


@pytest.fixture
def web():
    with Web() as server:
        yield server


def quick(web, **changes):
    return replace(
        Fetch(allow_hosts=(web.host,), timeout_s=2, deadline_s=5, retries=0, threads=8, max_bytes=1 << 16),
        **changes,
    )


def images(path, *rows):
    """An images.parquet of urls, or of what else a row holds."""
    empty = dict.fromkeys(IMAGES.names)
    given = ({"url": row} if isinstance(row, str) else row for row in rows)
    write_rows(path, IMAGES, ({**empty, **row, "image": image} for image, row in enumerate(given)))
    return path


def run(step, tmp_path, *rows, **more):
    """The rows and books that a step makes of `rows`, and the folder that it leaves."""
    folder = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    counts = step.run({"images.parquet": images(tmp_path / "images.parquet", *rows), **more}, folder)
    left, *others = sorted(folder.iterdir(), key=lambda path: path.name == HOST_COUNTS_FILE)  # and no scratch
    assert [path.name for path in others] == ([HOST_COUNTS_FILE] if isinstance(step, Fetch) else [])
    assert all(count.balanced() for count in counts.values())
    return list(read_rows(left)), counts, left


@pytest.fixture
def endings(monkeypatch):
    """How the downloading processes ended."""
    ended, wait = [], process._wait_for_child

    def noting(*args):
        ended.append(wait(*args))
        return ended[-1]

    monkeypatch.setattr(process, "_wait_for_child", noting)
    return ended


def test_every_row_has_its_bytes_or_its_reason_and_keeps_its_place_and_address(web, tmp_path, endings):
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
    assert endings == ["ended with status 0"]


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
    monkeypatch.setattr(process.subprocess, "Popen", None)
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


# -- the process -------------------------------------------------------------------------------------------------------


def children():
    return [child.pid for child in psutil.Process().children() if "vlmill.pipeline.fetch.child" in child.cmdline()]


def test_a_process_that_dies_is_followed_by_one_that_asks_only_for_what_is_open(web, tmp_path, monkeypatch):
    wait = process._wait_for_child

    def wait_once(child, answers, *more):
        monkeypatch.setattr(process, "_wait_for_child", wait)
        while len(web.asked()) < 6 or not answers.exists() or answers.read_bytes().count(b"\n") < 3:
            assert child.poll() is None
            web._server.closing.wait(0.02)
        child.kill()
        return wait(child, answers, *more)

    monkeypatch.setattr(process, "_wait_for_child", wait_once)
    for shade in range(6):
        answer = whole(picture(shade))
        web.answers[f"/{shade}.png"] = answer if shade < 3 else first(1, later(60, answer), answer)
    rows, _, _ = run(quick(web), tmp_path, *(web.url(f"/{shade}.png") for shade in range(6)))
    assert [row["bytes"] for row in rows] == [picture(shade) for shade in range(6)]
    assert [len(web.asked(f"/{shade}.png")) for shade in range(6)] == [1, 1, 1, 2, 2, 2]


def test_processes_that_keep_dying_are_an_error_that_says_how_and_over_what(web, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(
        VlmillError,
        match=r"2 of 2 addresses have no answer after 3 .* first is http://127.*/good\.png; the last process ended "
        r"with status 1",
    ):
        run(quick(web), tmp_path, web.url("/good.png"), web.url("/absent.png"))


def test_a_process_that_stands_still_is_killed(web, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "ATTEMPTS", 1)
    monkeypatch.setattr(process, "STALL_S", -59)
    with pytest.raises(VlmillError, match=r"1 of 1 addresses .*/hang\.png; the last process answered nothing for 1 s"):
        run(quick(web, deadline_s=60, timeout_s=60), tmp_path, web.url("/hang.png"))
    assert children() == []


def test_the_process_does_not_outlive_the_one_that_started_it(web, tmp_path):
    web.answers["/wait.png"] = hang
    source = images(tmp_path / "images.parquet", web.url("/wait.png"))
    code = (
        "import sys; from pathlib import Path; from vlmill.pipeline.fetch import Fetch; "
        f"Fetch(allow_hosts=({web.host!r},)).run({{'images.parquet': Path(sys.argv[1])}}, Path(sys.argv[2]))"
    )
    parent = psutil.Popen([sys.executable, "-c", code, str(source), str(tmp_path)])
    while not web.asked("/wait.png"):
        assert parent.poll() is None
        web._server.closing.wait(0.05)
    (child,) = parent.children()
    parent.kill()
    parent.wait()
    assert psutil.wait_procs([child], timeout=10)[1] == []


def answered(folder, *lines):
    folder.mkdir()
    (folder / "answers.jsonl").write_text(
        "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines),
        encoding="utf-8",
    )
    return folder


def lost(key, failure="timed_out: silent for 10 s"):
    return {"key": key, "failure": failure, "offset": 0, "size": 0}


def test_the_line_that_a_death_cut_short_is_not_read(tmp_path):
    folder = answered(tmp_path / "a", lost(1), json.dumps(lost(0))[:-1])
    assert dict(process._read_answers(["u0", "u1"], folder)) == {
        "u1": FetchOutcome(Reason.TIMED_OUT, "silent for 10 s")
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([lost(2)], "key 2, asked for 0 to 1"),
        ([lost(-1)], "key -1, asked for 0 to 1"),
        ([lost(1), lost(1)], "key 1, again"),
        ([lost(1, "name 'oops' is not defined")], "trouble in the downloading process at u1: name 'oops'"),
        ([lost(1, "")], "at u1: an exception without a text"),
        ([lost(1, "no_reason: of ours")], "at u1: no_reason: of ours"),
    ],
)
def test_an_answer_that_cannot_be_is_an_error(tmp_path, lines, message):
    with pytest.raises(VlmillError, match=message):
        dict(process._read_answers(["u0", "u1"], answered(tmp_path / "a", *lines)))


def test_an_address_that_the_process_forgets_is_asked_for_again_and_then_an_error(tmp_path, monkeypatch):
    asked = []

    def forgetful(urls, _fetch, folder, *_):
        asked.append(list(urls))
        folder.rmdir()
        answered(folder, *(lost(key) for key, url in enumerate(urls) if url != "u1"))
        return "ended with status 0; its last words: Sample 1 failed to download: No space left on device"

    monkeypatch.setattr(process, "_run_child", forgetful)
    with pytest.raises(VlmillError, match=r"1 of 3 addresses .* first is u1; .* No space left on device"):
        process.download_images(["u0", "u1", "u2"], Fetch(), tmp_path)
    assert asked == [["u0", "u1", "u2"], ["u1"], ["u1"]]


def test_an_address_that_takes_too_much_memory_fails_alone(web, tmp_path, monkeypatch, endings):
    web.answers["/vast.png"] = whole(gzip.compress(picture() + bytes(128 << 20), 1), Content_Encoding="gzip")
    monkeypatch.setattr(process, "compute_memory_limit", lambda *_: 48 << 20)
    urls = [web.url(f"/good.png?{number}") for number in range(20)]
    urls.insert(10, web.url("/vast.png"))
    rows, _, _ = run(quick(web, max_bytes=1 << 30, timeout_s=30, deadline_s=60), tmp_path, *urls)
    assert [row["reason"] for row in rows] == [*[None] * 10, Reason.OUT_OF_MEMORY, *[None] * 10]
    assert rows[10]["detail"] == "the downloading process may hold no more"
    assert endings == ["ended with status 0"]


def test_the_memory_of_the_process_is_bounded_by_what_threads_and_bodies_need():
    default = Fetch()
    assert process.compute_memory_limit(default, []) == (256 << 20) + 64 * ((1 << 20) + 4 * (20 << 20))
    assert process.compute_memory_limit(default, ["http://x.org/"]) > process.compute_memory_limit(default, [])


PROBE = """
import inspect, json, sys
from importlib.metadata import version
from vlmill.pipeline.fetch.child import load_downloader
made = load_downloader()
heavy = sorted({"torch", "ray", "albumentations", "cv2", "pandas", "webdataset", "wandb.sdk"} & set(sys.modules))
print(json.dumps([version("img2dataset"), list(inspect.signature(made).parameters), heavy]))
"""


def test_img2dataset_is_the_one_that_we_know_and_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True)
    version, arguments, heavy = json.loads(done.stdout)
    assert version.startswith("1.47.")
    assert arguments == [
        "sample_writer_class", "resizer", "thread_count", "save_caption", "extract_exif", "output_folder",
        "column_list", "timeout", "number_sample_per_shard", "oom_shard_count", "compute_hash", "verify_hash_type",
        "encode_format", "retries", "user_agent_token", "disallowed_header_directives", "blurring_bbox_col",
    ]  # fmt: skip
    assert heavy == []


DROPPING = """
import sys
from pathlib import Path
from vlmill.pipeline.fetch import child
write = child.DownloadHooks.write
def fails_once(self, data, key, caption, meta):
    if int(key) == 1:
        raise OSError("No space left on device")
    write(self, data, key, caption, meta)
child.DownloadHooks.write = fails_once
child.run_job(Path(sys.argv[1]))
"""


def test_img2dataset_drops_a_sample_whose_writing_fails_with_a_line_of_print(web, tmp_path, monkeypatch):
    popen = subprocess.Popen
    monkeypatch.setattr(
        process.subprocess,
        "Popen",
        lambda command, **options: popen([*command[:2], "-c", DROPPING, command[-1]], **options),
    )
    monkeypatch.setattr(process, "ATTEMPTS", 1)
    with pytest.raises(
        VlmillError,
        match=r"(?s)1 of 3 addresses .* first is .*/1\.png; .*status 0; .*No space left on device",
    ):
        run(quick(web), tmp_path, *(web.url(f"/{number}.png") for number in range(3)))


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
