"""Hosts are asked for so many addresses at a time, for fewer where they fail, and their names are looked up once."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.servers import Web, picture, whole
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.engine.fetching import count_downloads, prepare_fetch
from vlmill.pipeline.fetch import Fetch, SharedFetch, politeness
from vlmill.pipeline.fetch.address import FetchFailed
from vlmill.pipeline.fetch.host_limits import HostLimit, HostLimits
from vlmill.pipeline.fetch.politeness import GIVE_UP, NameCache, Politeness, spread_hosts
from vlmill.pipeline.fetch.process import download_images

BUSY = FetchFailed(Reason.HTTP_SERVER_ERROR, "HTTP 503", again=True)
ABSENT = FetchFailed(Reason.HTTP_CLIENT_ERROR, "HTTP 404")
SILENT = FetchFailed(Reason.TIMED_OUT, "silent for 10 s", again=True)


def ask(polite, failed=None, host="a.test"):
    with suppress(FetchFailed), polite.ask_host(host):
        if failed:
            raise failed


def count_open(polite, host="a.test"):
    """How many addresses of a host may be open at once now."""
    return int(polite._hosts[host].limit)


def test_each_failure_that_may_pass_halves_what_is_open_and_each_answer_adds_one():
    polite = Politeness(8)
    seen = []
    for failed in (None, BUSY, SILENT, BUSY, BUSY, ABSENT, None):
        ask(polite, failed)
        seen.append(count_open(polite))
    assert seen == [8, 4, 2, 1, 1, 2, 3]
    ask(polite, host="b.test")
    assert count_open(polite, "b.test") == 8


def test_no_more_addresses_of_a_host_are_open_than_may_be():
    polite, open_now, most, lock = Politeness(3), Counter(), Counter(), threading.Lock()
    full = {f"{number}.test": threading.Barrier(3) for number in range(2)}

    def visit(number):
        host = f"{number % 2}.test"
        with polite.ask_host(host):
            with lock:
                open_now[host] += 1
                most[host] = max(most[host], open_now[host])
            full[host].wait(30)  # passes only where three of the host are open at once
            with lock:
                open_now[host] -= 1

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(visit, range(24)))
    assert most == {"0.test": 3, "1.test": 3}


def test_a_pause_that_a_host_asks_for_holds_for_all_of_its_addresses(monkeypatch):
    now, waited = [100.0], []
    monkeypatch.setattr(politeness, "time", SimpleNamespace(monotonic=lambda: now[0]))
    polite = Politeness(2)

    def pass_time(seconds):
        waited.append(seconds)
        now[0] += seconds

    polite._changed.wait = pass_time
    ask(polite, FetchFailed(Reason.HTTP_CLIENT_ERROR, "HTTP 429", again=True, pause=7))
    ask(polite, host="b.test")
    assert waited == []
    ask(polite)
    ask(polite, FetchFailed(Reason.HTTP_CLIENT_ERROR, "HTTP 429", again=True, pause=3600))
    ask(polite)
    assert waited == [7, politeness.LONGEST_PAUSE_S]


def test_a_host_that_failed_often_is_told_and_begins_elsewhere_as_it_was_left(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(
        politeness, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: clock.now + 500.0)
    )
    polite = Politeness(8)
    for _ in range(politeness.TOLD - 1):
        ask(polite, BUSY)
        ask(polite, host="well.test")
    assert polite.list_limits() == {}
    ask(polite, FetchFailed(Reason.HTTP_CLIENT_ERROR, "HTTP 429", again=True, pause=7))
    told = polite.list_limits()
    assert told == {"a.test": HostLimit(1 / 8, 1507.0)}
    clock.now += 5
    later, waited = Politeness(4, told), []
    assert count_open(later) == 1

    def pass_time(seconds):
        waited.append(seconds)
        clock.now += seconds

    later._changed.wait = pass_time
    ask(later)
    assert waited == [2.0]
    for _ in range(3):
        ask(later)
    assert later.list_limits()["a.test"].share == 1, "it is well again"
    assert Politeness(8, {"a.test": HostLimit(0.5, 1e12)})._hosts["a.test"].rests_until <= clock.now + 30


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_what_is_told_of_hosts_is_read_by_others_and_forgotten_where_they_are_well(where, tmp_path, request):
    folder = f"{tmp_path if where == 'folder' else request.getfixturevalue('s3')}/logs/hosts"
    hosts = ("a.test", "[2001:db8::1]", "b.test", "x" * 253)
    told = {host: HostLimit(0.125, 1234.5) for host in hosts}
    assert HostLimits(folder).read(hosts) == {}
    writer = HostLimits(folder)
    writer.write(told)
    assert HostLimits(folder).read(["a.test", "c.test"]) == {"a.test": told["a.test"]}
    assert HostLimits(folder).read(hosts) == told
    writer.write({"a.test": HostLimit(1.0, 1234.5), "b.test": HostLimit(0.5, 0.0)})
    assert HostLimits(folder).read(hosts[:3]) == {hosts[1]: told[hosts[1]], "b.test": HostLimit(0.5, 0.0)}


def test_a_host_that_failed_in_one_process_is_asked_less_by_the_next(tmp_path):
    open_now, most, patience, changed = [0], [0], [0.0], threading.Condition()

    def refuse(visit):
        with changed:
            open_now[0] += 1
            most[0] = max(most[0], open_now[0])
            changed.notify_all()
            changed.wait_for(lambda: most[0] > 1, patience[0])  # a second one comes where it may
            open_now[0] -= 1
        whole(status=503)(visit)

    seen, paths = [], [f"/{number}.png" for number in range(8)]
    with Web(dict.fromkeys(paths, refuse)) as web:
        for limits_folder, patience[0] in (("", 30), ("", 30), ("told", 30), ("told", 0.3)):
            rules = {"allow_hosts": (web.host,), "threads": 8, "retries": 0, "per_host": 8}
            fetch = SharedFetch(**rules, limits_folder=limits_folder and str(tmp_path / limits_folder))
            most[0] = 0
            (scratch := tmp_path / f"scratch{len(seen)}").mkdir()
            found = download_images([web.url(path) for path in paths], fetch, scratch)
            assert {outcome.detail for outcome in found.values()} == {"HTTP 503"}
            seen.append(most[0])
    assert min(seen[:3]) > 1
    assert seen[3] == 1


def test_a_host_that_never_answers_is_asked_no_more():
    polite = Politeness(4)
    for _ in range(GIVE_UP - 1):
        ask(polite, SILENT)
    ask(polite, ABSENT)  # an answer
    for _ in range(GIVE_UP):
        ask(polite, SILENT)
    with pytest.raises(FetchFailed, match=rf"silent for 10 s; so did {GIVE_UP} addresses") as given_up:
        polite.ask_host("a.test").__enter__()
    assert given_up.value.reason == Reason.TIMED_OUT
    ask(polite, host="b.test")


def test_a_name_is_looked_up_once_unless_the_lookup_may_succeed_later():
    asked = Counter()

    def resolve(host, port, **_):
        asked[host] += 1
        if host != "there.test":
            raise socket.gaierror(socket.EAI_AGAIN if host == "busy.test" else socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    names = NameCache(resolve)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: names.look_up("there.test", 80, type=socket.SOCK_STREAM), range(8)))
    assert found[0][0][4] == ("192.0.2.1", 80)
    for host in ("gone.test", "gone.test", "busy.test", "busy.test"):
        with pytest.raises(socket.gaierror, match="no such name"):
            names.look_up(host, 80)
    assert asked == {"there.test": 1, "gone.test": 1, "busy.test": 2}


def test_addresses_are_asked_for_one_of_each_host_in_turn():
    urls = ["http://a/1", "http://a/2", "http://a/3", "http://b/1", "https://c/1", "http://b/2"]
    assert spread_hosts(urls) == [
        *("http://a/1", "http://b/1", "https://c/1"),
        *("http://a/2", "http://b/2"),
        "http://a/3",
    ]
    assert spread_hosts([]) == []


def test_a_server_sees_no_more_connections_at_once_than_the_recipe_says(tmp_path):
    open_now, most, lock, pair = Counter(), [0], threading.Lock(), threading.Barrier(2)

    def answer(visit):
        with lock:
            open_now["here"] += 1
            most[0] = max(most[0], open_now["here"])
        pair.wait(30)  # passes only where two are there at once
        with lock:
            open_now["here"] -= 1
        whole(picture())(visit)

    paths = [f"/{number}.png" for number in range(8)]
    with Web(dict.fromkeys(paths, answer)) as web:
        fetch = Fetch(allow_hosts=(web.host,), threads=8, retries=0, per_host=2)
        found = download_images([web.url(path) for path in paths], fetch, tmp_path)
    assert {outcome.reason for outcome in found.values()} == {None}
    assert most == [2]


@pytest.mark.parametrize(
    ("cores", "partitions", "rows", "per_host", "expected"),
    [
        (2, 100, 1000, 32, (8, 4)),
        (2, 3, 1000, 32, (3, 10)),
        (64, 900, 1000, 32, (32, 1)),
        (2, 100, 10, 32, (5, 6)),  # too few rows to be worth more
        (2, 8, 10, 32, (2, 16)),
    ],
)
def test_processes_that_download_share_what_a_host_may_be_asked(cores, partitions, rows, per_host, expected):
    recipe = SimpleNamespace(
        source=lambda _: SimpleNamespace(fetches=True), fetch_step=lambda _: Fetch(per_host=per_host)
    )
    run = SimpleNamespace(
        recipe=recipe,
        executor=SimpleNamespace(width=cores),
        partitions={"web": [SimpleNamespace(rows=rows)] * partitions},
        serving={},
        root=Path("/run"),
    )
    downloads, share = count_downloads(run), prepare_fetch(run, "web").per_host
    assert (downloads, share) == expected
    assert downloads * share <= per_host
