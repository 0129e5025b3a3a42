"""Hosts are asked for so many addresses at a time, for fewer where they fail, and their names are looked up once."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import pytest

from tests.helpers.servers import Web, picture, whole
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.engine.fetching import count_downloads, prepare_fetch
from vlmill.pipeline.fetch import Fetch, politeness
from vlmill.pipeline.fetch.address import FetchFailed
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
    ("cores", "partitions", "per_host", "expected"), [(2, 100, 32, (8, 4)), (2, 3, 32, (3, 10)), (64, 900, 32, (32, 1))]
)
def test_processes_that_download_share_what_a_host_may_be_asked(cores, partitions, per_host, expected):
    recipe = SimpleNamespace(
        source=lambda _: SimpleNamespace(fetches=True), fetch_step=lambda _: Fetch(per_host=per_host)
    )
    run = SimpleNamespace(
        recipe=recipe, executor=SimpleNamespace(width=cores), partitions={"web": range(partitions)}, serving={}
    )
    downloads, share = count_downloads(run), prepare_fetch(run, "web").per_host
    assert (downloads, share) == expected
    assert downloads * share <= per_host
