"""Runs on object storage: paths, local copies, leases, and what a service does when it fails."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.object_storage import KEY, SECRET, Proxy, cut, cut_short, refuse, wait
from tests.helpers.small import RECIPE, write_recipe
from tests.pipeline.test_store import Ask, given_text, shout, visible
from vlmill.api import builds
from vlmill.pipeline.core import object_store, scratch
from vlmill.pipeline.core.answers import Answer
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import append_text, copy_file, remove_folder, write_atomically
from vlmill.pipeline.core.places import take_run_folder
from vlmill.pipeline.core.run_path import RunPath, find_local_paths, put_logs
from vlmill.pipeline.engine import lease
from vlmill.pipeline.engine.build import Build
from vlmill.pipeline.engine.store import Store, Task
from vlmill.pipeline.signals import journal


@pytest.fixture
def run(s3):
    return RunPath(f"{s3}/run")


@pytest.fixture
def proxy(s3_server, s3, monkeypatch):
    """A proxy that this process reaches the bucket through; retries do not wait."""
    proxy = Proxy(s3_server)
    quick = {**object_store.RETRIES["backoff"], "init_backoff": object_store.timedelta(milliseconds=1)}
    monkeypatch.setattr(object_store, "RETRIES", {**object_store.RETRIES, "max_retries": 3, "backoff": quick})
    with proxy.serve() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        yield proxy


def read_copy(path):
    """What a library reads that knows the paths of a file system alone."""
    return Path(os.fspath(path)).read_bytes()


def test_a_service_that_refuses_for_ten_seconds_is_waited_for():
    first, most = (object_store.RETRIES["backoff"][name].total_seconds() for name in ("init_backoff", "max_backoff"))
    base, drawn, waited = object_store.RETRIES["backoff"]["base"], random.Random(0), []
    for _ in range(1000):
        pauses = [first]
        while len(pauses) < object_store.RETRIES["max_retries"]:
            pauses.append(min(most, drawn.uniform(first, base * pauses[-1])))  # as obstore draws them
        waited.append(sum(pauses))
    assert sorted(waited)[50] > 10, "19 of 20 times"
    assert max(waited) < object_store.RETRIES["retry_timeout"].total_seconds()


# -- paths


def test_a_path_is_an_address_for_people_and_a_file_for_libraries(run):
    path = run / "steps" / "a.json"
    assert (str(path), f"{path.parent}", path.name) == (f"{run}/steps/a.json", f"{run}/steps", "a.json")
    assert str(path.relative_to(run)) == "steps/a.json"
    assert pickle.loads(pickle.dumps(path)) == path == take_run_folder(str(path))
    assert (run / str(path), run / "/here/a") == (path, Path("/here/a"))
    assert not path.exists()
    assert write_atomically(path, {"n": 1})
    assert not write_atomically(path, {"n": 1})
    assert json.loads(read_copy(path)) == {"n": 1}
    write_atomically(path, {"n": 2})
    assert json.loads(read_copy(path)) == {"n": 2}, "the copy is asked for anew when the object has changed"
    assert os.fspath(path) != str(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="steps/a.json is not there"):
        read_copy(path)


def test_folders_are_what_their_objects_make_them(run):
    for name in ("steps/web/read/1.json", "steps/web/made_by.json", "steps/b.json", "other.json"):
        (run / name).write_text(name)
    assert run.is_dir()
    assert not run.is_file()
    assert [path.name for path in run.iterdir()] == ["other.json", "steps"]
    assert [str(path.relative_to(run)) for path in run.glob("s*/**/made_by.json")] == ["steps/web/made_by.json"]
    assert [path.name for path in (run / "steps").glob("*")] == ["b.json", "web"]
    assert [path.name for path in run.rglob("*.json")] == ["other.json", "b.json", "made_by.json", "1.json"]
    copy_file(run / "other.json", run / "steps/copy.json")
    remove_folder(run / "steps/web")
    assert [path.name for path in (run / "steps").rglob("*")] == ["b.json", "copy.json"]


@pytest.mark.parametrize("write", [lambda p: p.open("w"), lambda p: p.rename("x"), lambda p: p.touch()])
def test_whatever_would_not_be_written_whole_is_refused(run, write):
    (run / "a").write_text("a")
    with pytest.raises(StoreError, match=r"cannot be .* object storage"):
        write(run / "a")


def test_a_log_grows_and_is_put_when_asked(run):
    for number in range(3):
        append_text(run / "logs/a.jsonl", f"{number}\n")
    put_logs()
    assert (run / "logs/a.jsonl").read_text() == "0\n1\n2\n"


@pytest.mark.parametrize("place", ["gs://bucket/run", "s3://bucket", "s3://key:word@bucket/run", "file:///tmp/run"])
def test_other_addresses_are_refused_and_no_password_is_repeated(place):
    with pytest.raises(StoreError, match=r"s3://BUCKET/RUN") as refused:
        take_run_folder(place)
    assert "word" not in str(refused.value)


# -- local copies


def test_copies_have_a_bound_and_those_of_earlier_tasks_go_first(run, monkeypatch):
    monkeypatch.setattr(scratch, "_SCRATCH", {})
    monkeypatch.setenv(scratch.BOUND, "250")
    here = scratch.get_scratch()
    for name in "abc":
        (run / name).write_bytes(bytes(100))
    with here.task():
        first = [find_local_paths({name: run / name})[name] for name in "ab"]
        with pytest.raises(StoreError, match=r"exceed the bound of local copies, 250 bytes.*VLMILL_SCRATCH_BYTES"):
            os.fspath(run / "c")
        assert all(path.exists() for path in first)
    with here.task():
        assert len(read_copy(run / "c")) == 100
    assert [path.exists() for path in first] == [False, True]
    assert here.size <= here.bound
    here.remove()
    assert not here.folder.exists()


def test_what_a_killed_process_left_on_the_disk_goes(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(scratch.tempfile, "tempdir", None)
    (run / "a").write_text("a")
    code = f"import os, signal\nfrom {RunPath.__module__} import RunPath\nopen(RunPath({str(run)!r}) / 'a')\n"
    subprocess.run([sys.executable, "-c", code + "os.kill(os.getpid(), signal.SIGKILL)"], check=False)
    assert len(list(tmp_path.glob("vlmill-scratch-*"))) == 1
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not list(tmp_path.glob("vlmill-scratch-*"))


# -- one build at a time


@pytest.fixture
def patience(monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "PATIENCE", 0.5)


def leave_lease(run, number=1, **changes):
    held = lease.Lease(run / lease.FOLDER / f"{number:08d}")
    held._told |= changes
    held._path.create(held._text())
    return held


def test_a_dead_process_of_this_machine_holds_no_folder(run):
    leave_lease(run, start="long ago")
    began = time.monotonic()
    with Store(run).locked():
        assert time.monotonic() - began < lease.PATIENCE / 2
        with pytest.raises(StoreError, match="a build is at work"), Store(run).shared():
            pass
    with Store(run).shared():
        pass


def test_a_lease_of_another_machine_is_watched(run, patience):
    other = leave_lease(run, machine="another")
    other._thread.start()
    with pytest.raises(StoreError, match="another build is at work"), Store(run).locked():
        pass
    other._stop.set()
    other._thread.join()
    with lease.hold_lease(run) as mine:
        mine.check()
        with pytest.raises(StoreError, match="another one has taken the folder over"):
            other.check()


def test_a_build_whose_folder_was_taken_over_ends_before_its_next_phase_and_removes_nothing(run, tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path, stages=[], filters=[], sources={"quiz": RECIPE["sources"]["quiz"]})

    def lose(build):
        leave_lease(run, machine="another", number=7)
        curate(build)

    curate, removed = Build.curate, []
    monkeypatch.setattr(Build, "curate", lose)
    monkeypatch.setattr(builds, "remove_unused", lambda *_: removed.append(1))
    with pytest.raises(StoreError, match="another one has taken the folder over"):
        builds.build(recipe, str(run), workers=0)
    assert not removed
    assert (run / "steps/quiz/read/manifest.json").exists()
    assert not (run / "steps/outcomes").exists()


def test_a_storage_that_overwrites_is_refused(run, proxy):
    def forget(handler, request):
        del handler.headers["If-None-Match"]

    proxy.make_faults(forget, 100)
    with pytest.raises(StoreError, match="does not heed `If-None-Match"), Store(run).locked():
        pass


# -- faults


def test_a_task_costs_one_put_for_each_file_and_one_for_its_receipt(run, proxy):
    task = shout(run)
    Store(run).perform(task)
    proxy.requests.clear()
    Store(run).perform(replace(task, partition="00000-0001"))
    puts = [request.path for request in proxy.requests if request.method == "PUT"]
    assert [path.rpartition(".")[2] for path in puts] == ["txt", "json", "json"]
    assert puts[-1].endswith(".receipt.json")
    assert len(proxy.requests) < 12


def test_a_large_file_goes_in_parts(run, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(object_store, "PART", 5 << 20)
    (tmp_path / "large").write_bytes(os.urandom(11 << 20))
    wanted = (tmp_path / "large").read_bytes()
    (run / "large").take_file(tmp_path / "large")
    assert sum(request.method == "PUT" for request in proxy.requests) == 3
    scratch.get_scratch().drop(f"{run}/large")
    assert read_copy(run / "large") == wanted
    assert sum(request.method == "GET" for request in proxy.requests) == 3


@pytest.mark.parametrize("fault", [refuse(503, "SlowDown"), refuse(500, "InternalError"), cut, wait(0.2)])
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_a_fault_that_passes_is_not_noticed(run, proxy, fault, method):
    wanted = Store(run / "whole").perform(shout(run / "whole"))
    proxy.make_faults(fault, 2, lambda request: request.method == method)
    assert Store(run / "tried").perform(shout(run / "tried")) == wanted
    assert proxy.left == 0
    assert visible(run / "tried") == visible(run / "whole")


def test_half_a_body_is_no_file(run, proxy):
    (run / "a").write_bytes(bytes(range(256)))
    proxy.make_faults(cut_short, 2, lambda request: request.method == "GET")
    assert read_copy(run / "a") == bytes(range(256))


def test_half_an_answer_of_another_kind_is_asked_for_again(run, proxy):
    """A refusal, a listing, and the list of what was deleted."""
    for name in "abc":
        (run / name).write_text(name)
    store, folder = object_store.open_bucket(str(run).removesuffix("/run"), os.getpid()), "run"

    def ask(question):
        proxy.make_faults(cut_short, 2)
        found = question()
        assert proxy.left == 0
        return found

    with pytest.raises(FileNotFoundError):
        ask(lambda: store.read("run/nothing"))
    assert proxy.left == 0
    assert ask(lambda: store.create("run/a", b"other")) is False
    assert [one.key for one in ask(lambda: store.list_folder(folder))[1]] == ["run/a", "run/b", "run/c"]
    assert [one.key for one in ask(lambda: list(store.list_below(folder)))] == ["run/a", "run/b", "run/c"]
    ask(lambda: store.delete(["run/a", "run/b"]))
    assert [(path.name, path.read_text()) for path in run.iterdir()] == [("c", "c")]


def test_half_an_answer_that_stays_is_an_error_that_says_so(run, proxy):
    proxy.make_faults(cut_short, 1000)
    with pytest.raises(StoreError, match="cannot list .*response body error.*run the same command again"):
        list(run.iterdir())
    proxy.left = 0


def test_a_listing_of_several_answers_goes_on_behind_those_that_came(run, proxy):
    for number in range(1001):
        (run / f"{number:04d}").write_text("")
    store, asked = object_store.open_bucket(str(run).removesuffix("/run"), os.getpid()), len(proxy.requests)
    found, after = store.list_below("run"), []
    after.append(next(found).key)
    proxy.make_faults(cut_short, 1)
    after += [one.key for one in found]
    assert after == [f"run/{number:04d}" for number in range(1001)]
    assert proxy.left == 0
    assert len(proxy.requests) - asked == 3


def test_a_receipt_whose_answer_was_lost_is_the_winner_of_itself(run, proxy, tmp_path):
    (tmp_path / "world").write_text("one")
    task = Task("steps/web/ask", "00000-0000", Ask(str(tmp_path / "world")), given_text(run))
    proxy.make_faults(cut, 1, lambda request: request.method == "PUT" and "receipt" in request.path)
    done = Store(run).perform(task)
    assert Store(run).find(task) == done
    assert (run / done.files[0].path).read_text() == "one"


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (503, "SlowDown", r"SlowDown|status 503.*run the same command again"),
        (403, "RequestTimeTooSkewed", r"RequestTimeTooSkewed.*the clock of this machine is wrong"),
        (403, "AccessDenied", r"AccessDenied.*may not do it"),
        (403, "SignatureDoesNotMatch", r"set AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_fault_that_stays_is_an_error_with_a_cure_and_no_key(run, proxy, status, code, said):
    task = shout(run)
    proxy.make_faults(refuse(status, code), 1000, lambda request: request.method == "PUT")
    with pytest.raises(StoreError, match=said) as failed:
        Store(run).perform(task)
    assert KEY not in str(failed.value)
    assert SECRET not in str(failed.value)
    proxy.left = 0
    assert Store(run).perform(task).counts


def test_an_answer_without_words_that_refuses_the_keys_is_not_to_be_tried_again(run, proxy):
    (run / "a").write_text("one")
    proxy.make_faults(refuse(403, "AccessDenied"), 1000, lambda request: request.method == "HEAD")
    with pytest.raises(StoreError, match=r"status 403.*set AWS_ACCESS_KEY_ID") as failed:
        (run / "a").is_file()
    assert "again" not in str(failed.value)


def test_a_bucket_that_is_not_there_is_named(s3):
    with pytest.raises(StoreError, match="no such bucket"):
        (RunPath("s3://nobody-made-it/run") / "a").read_bytes()


def test_answers_of_servers_are_put_some_at_a_time_and_found_again(run, monkeypatch):
    folder = run / "steps/web/rating"
    answers = [Answer(str(number), "yes") for number in range(journal.FLUSHED + 2)]
    first = journal.Journal(folder, "00000-0000", "rating")
    for answer in answers[:-1]:
        first.add(answer)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(journal, "PUT_EVERY", 0)
    first.add(answers[-1])
    assert len(list(folder.iterdir())) == 2
    first.close()
    other = journal.Journal(folder, "00000-0001", "rating")
    again = journal.Journal(folder, "00000-0000", "rating")
    assert again.known == {answer.request: answer for answer in answers}
    assert not other.known
    journal.remove_journals(folder)
    assert not list(folder.iterdir())
