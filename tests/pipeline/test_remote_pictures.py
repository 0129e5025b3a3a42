"""Many small files on object storage: what is asked of the server for each, how many at a time, and what fails how."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.helpers import upstream
from tests.helpers.object_storage import Proxy, cut_short, refuse
from tests.pipeline.test_read import Told
from vlmill.pipeline.core import object_store
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.core.sample import Node, read_rows
from vlmill.pipeline.inputs.files import hash_inputs, list_input_files, open_inputs
from vlmill.pipeline.sources import Page, Picture, SourceRow, ahead, files
from vlmill.pipeline.sources.ahead import FilesAhead
from vlmill.pipeline.sources.files import Files
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.row_sample import RowRange

MANY = 12


@pytest.fixture
def proxy(s3_server, s3, monkeypatch):
    quick = {**object_store.RETRIES["backoff"], "init_backoff": object_store.timedelta(milliseconds=1)}
    monkeypatch.setattr(object_store, "RETRIES", {**object_store.RETRIES, "max_retries": 2, "backoff": quick})
    proxy = Proxy(s3_server)
    with proxy.serve() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        yield proxy


@pytest.fixture
def folder(s3):
    """Pictures on object storage."""
    place = RunPath(f"{s3}/pictures/of")
    for number in range(MANY):
        (place / f"{number}.png").write_bytes(upstream.picture(number))
    (place / "empty.png").write_bytes(b"")
    return place


def read_pictures(folder, tmp_path, paths):
    told = tuple(
        SourceRow(row, (Page((Node("image", image=0),), (Picture(path=path),)),)) for row, path in enumerate(paths)
    )
    tmp_path.mkdir(exist_ok=True)
    step = Read(Told(told), "web", (RowRange("f", 0, len(told)),), images=str(folder))
    step.run({"input-0": tmp_path}, tmp_path)
    return list(read_rows(tmp_path / "images.parquet"))


def ask_together(proxy, times, part):
    """Have requests wait until there are `times` of them; which of them gave up waiting."""
    barrier, alone = threading.Barrier(times), list[str]()

    def meet(handler, request):
        try:
            barrier.wait(20)
        except threading.BrokenBarrierError:
            alone.append(request.path)
        return False

    proxy.make_faults(meet, times, lambda request: part in request.path and "list-type" not in request.path)
    return alone


def test_a_picture_costs_one_request_and_several_are_asked_for_at_once(folder, proxy, tmp_path):
    alone = ask_together(proxy, 4, ".png")
    paths = [f"{number}.png" for number in range(MANY)]
    images = read_pictures(folder, tmp_path / "there", [*paths, paths[0], "gone.png"])
    asked = Counter(request.path.rpartition("/")[2] for request in proxy.requests if ".png" in request.path)
    assert asked.pop("gone.png") >= 1
    assert asked == dict.fromkeys(paths, 1)
    assert not alone
    assert [image["bytes"] for image in images] == [*map(upstream.picture, range(MANY)), None]
    assert images[-1]["reason"] == Reason.MISSING_FILE


def test_input_files_that_share_a_task_are_asked_for_at_once(folder, proxy):
    listed = list_input_files("data", str(folder), "?.png")
    alone = ask_together(proxy, 4, ".png")
    hashed = hash_inputs(listed)
    alone += ask_together(proxy, 4, ".png")
    with open_inputs({file.name: file for file in listed}) as opened:
        assert list(opened) == [file.name for file in listed]
        assert [path.stat().st_size for path in opened.values()] == [size for _, size in hashed]
    assert sum(path.exists() for path in opened.values()) <= 1, "one is kept for the next partition"
    assert not alone


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (refuse(403, "AccessDenied"), r"\(AccessDenied\): the keys or the role of this process may not read it"),
        (refuse(503, "SlowDown"), r"\(SlowDown\): run the same command again"),
        (cut_short, r"\(response body error\): run the same command again"),
    ],
)
def test_a_storage_that_fails_is_named_in_a_line_wherever_it_is_asked(folder, proxy, tmp_path, fault, said):
    (listed,) = list_input_files("data", str(folder), "1.png")
    asked = {
        f"{folder}/1.png": lambda: read_pictures(folder, tmp_path / "there", ["0.png", "1.png"]),
        f"source 'data': {folder}": lambda: list_input_files("data", str(folder), "*.png"),
        f"data.*1.png|{folder}/1.png": lambda: hash_inputs([listed]),
    }
    for place, ask in asked.items():
        proxy.make_faults(fault, 100, lambda request: "/1.png" in request.path or "list-type" in request.path)
        if place.startswith(str(folder)):
            proxy.meets = lambda request: "/1.png" in request.path
        with pytest.raises(SourceError, match=f"({place}) cannot be read {said}") as failed:
            ask()
        assert "\n" not in str(failed.value)


def test_a_bucket_that_is_not_there_and_a_file_that_is_gone_are_named(folder, proxy):
    for ask in (
        lambda: list_input_files("data", "s3://not-there/of", "*.png"),
        lambda: Files("s3://not-there/of").load("1.png"),
    ):
        with pytest.raises(SourceError, match=r"s3://not-there/of cannot be read \(NoSuchBucket\): there is no such"):
            ask()
    (listed,) = list_input_files("data", str(folder), "1.png")
    (folder / "1.png").unlink()
    with pytest.raises(SourceError, match=f"{folder}/1.png is not there any more; put it back") as failed:
        hash_inputs([listed])
    assert "\n" not in str(failed.value)


def test_an_empty_picture_is_empty_and_a_large_one_is_not_read_to_its_end(folder, proxy, monkeypatch):
    assert Files(str(folder)).load("empty.png") == Picture(data=b"")
    monkeypatch.setattr(files, "LARGEST", 10)
    assert Files(str(folder)).load("3.png").reason == Reason.TOO_MANY_BYTES
    assert proxy.count_bytes("3.png") <= 11


def test_no_more_is_held_than_there_is_room_for(monkeypatch):
    class Large:
        waits, loaded = True, 0

        def load(self, path):
            self.loaded += 1
            return Picture(data=bytes(100))

    def give_rows():
        for number in range(200):
            assert number <= given + ahead.AHEAD
            yield number, SourceRow(number, (Page((), (Picture(path=f"{number}"),)),))

    given, large = 0, Large()
    follower = FilesAhead(large)
    for number, _ in follower.follow(give_rows()):
        given = number
        assert large.loaded <= number + ahead.AHEAD + 1
        assert follower.load(f"{number}").data == bytes(100)
    assert large.loaded == 200
    monkeypatch.setattr(ahead, "HELD", 150)
    monkeypatch.setattr(ahead, "ThreadPoolExecutor", lambda *_: AtOnce())
    given, large = 0, Large()
    for number, _ in FilesAhead(large).follow(give_rows()):
        given = number
        assert large.loaded <= number + 2


class AtOnce:
    """A pool that has done what it is given."""

    submit = staticmethod(lambda call, path: make_done(call(path)))
    shutdown = staticmethod(lambda **_: None)


def make_done(result):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: result)
