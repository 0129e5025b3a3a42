"""The process that downloads: kept for what comes next, replaced where it dies, held to account for its answers."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from tests.helpers.fetching import images, quick, run
from tests.helpers.servers import Web, first, hang, later, picture, whole
from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch import Fetch, process
from vlmill.pipeline.fetch.download_process import CAME_TO_ITS_END, close_idle
from vlmill.pipeline.fetch.process import FetchOutcome


@pytest.fixture
def web():
    with Web() as server:
        yield server


@pytest.fixture
def endings(monkeypatch):
    """How the downloading processes ended."""
    ended, wait = [], process._wait_for_child

    def noting(*args):
        ended.append(wait(*args))
        return ended[-1]

    monkeypatch.setattr(process, "_wait_for_child", noting)
    return ended


def children():
    return [child.pid for child in psutil.Process().children() if "vlmill.pipeline.fetch.child" in child.cmdline()]


def test_a_process_that_dies_is_followed_by_one_that_asks_only_for_what_is_open(web, tmp_path, monkeypatch):
    wait = process._wait_for_child

    def wait_once(downloading, answers, *more):
        monkeypatch.setattr(process, "_wait_for_child", wait)
        while len(web.asked()) < 6 or not answers.exists() or answers.read_bytes().count(b"\n") < 3:
            assert downloading.is_alive()
            web._server.closing.wait(0.02)
        os.kill(*children(), signal.SIGKILL)
        return wait(downloading, answers, *more)

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


def test_the_process_is_kept_for_what_comes_next_until_it_is_closed(web, tmp_path):
    run(quick(web), tmp_path, web.url("/good.png"))
    first = children()
    rows, _, _ = run(quick(web, user_agent="another"), tmp_path, web.url("/good.png?again"))
    assert rows[0]["bytes"] == picture()
    assert len(first) == 1
    assert children() == first
    close_idle()
    assert children() == []


def test_a_process_that_has_died_meanwhile_is_replaced(web, tmp_path, endings):
    run(quick(web), tmp_path, web.url("/good.png"))
    (kept,) = children()
    os.kill(kept, signal.SIGKILL)
    os.waitid(os.P_PID, kept, os.WEXITED | os.WNOWAIT)  # dead, and not reaped
    assert run(quick(web), tmp_path, web.url("/good.png"))[0][0]["bytes"] == picture()
    assert endings == [CAME_TO_ITS_END] * 2


def test_a_process_that_nothing_asks_ends_by_itself():
    code = "from vlmill.pipeline.fetch import child; child.IDLE_S = 0.1; child.serve_jobs()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.read() == b""
    child.stdin.close()
    assert child.wait() == 0


def test_a_process_that_has_kept_memory_of_a_folder_gets_no_other(web, tmp_path, monkeypatch, endings):
    popen, code = subprocess.Popen, "from vlmill.pipeline.fetch import child; child.KEPT = -1; child.serve_jobs()"
    started = []

    def start(command, **options):
        started.append(popen([*command[:2], "-c", code], **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    for _ in range(2):
        assert run(quick(web), tmp_path, web.url("/good.png"))[0][0]["bytes"] == picture()
    assert endings == [CAME_TO_ITS_END] * 2
    assert len(started) == 2


def test_an_address_that_takes_too_much_memory_fails_alone(web, tmp_path, monkeypatch, endings):
    web.answers["/vast.png"] = whole(gzip.compress(picture() + bytes(128 << 20), 1), Content_Encoding="gzip")
    monkeypatch.setattr(process, "compute_memory_limit", lambda *_: 48 << 20)
    urls = [web.url(f"/good.png?{number}") for number in range(20)]
    urls.insert(10, web.url("/vast.png"))
    rows, _, _ = run(quick(web, max_bytes=1 << 30, timeout_s=30, deadline_s=60), tmp_path, *urls)
    assert [row["reason"] for row in rows] == [*[None] * 10, Reason.OUT_OF_MEMORY, *[None] * 10]
    assert rows[10]["detail"] == "the downloading process may hold no more"
    assert endings == [CAME_TO_ITS_END]


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
from vlmill.pipeline.fetch import child
write = child.DownloadHooks.write
def fails_once(self, data, key, caption, meta):
    if int(key) == 1:
        raise OSError("No space left on device")
    write(self, data, key, caption, meta)
child.DownloadHooks.write = fails_once
child.serve_jobs()
"""


def test_img2dataset_drops_a_sample_whose_writing_fails_with_a_line_of_print(web, tmp_path, monkeypatch):
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: popen([*command[:2], "-c", DROPPING], **options)
    )
    monkeypatch.setattr(process, "ATTEMPTS", 1)
    with pytest.raises(
        VlmillError,
        match=r"(?s)1 of 3 addresses .* first is .*/1\.png; .*came to its end; .*No space left on device",
    ):
        run(quick(web), tmp_path, *(web.url(f"/{number}.png") for number in range(3)))
