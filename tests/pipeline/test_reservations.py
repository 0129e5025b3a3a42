"""What robots.txt, tdmrep.json and headers keep from us: rules by their texts, and patterns beside protego's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protego import Protego

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch.host_files import HostFiles, HostRules, list_origins
from vlmill.pipeline.fetch.message import AnswerHead
from vlmill.pipeline.fetch.reservations import _fits_pattern, find_header_reservation, find_reservation

ORIGIN, DAY = "https://a.test", "2026-01-02"
CLOSED = (
    "User-agent: *\nDisallow: /private/\n\nUser-agent: vlmill\nUser-agent: other\nDisallow: /*.gif$\nAllow: /free/\n"
)
USAGE = "User-agent: *\nAllow: /\nContent-Usage: train-ai=n\nContent-Usage: /open/ train-ai=y\n"
ONE_PATH = "User-agent: *\nContent-Usage: /art train-ai=n\n\nUser-agent: third\nContent-Usage: search=n\n"


def ask(robots=None, tdmrep=None, path="/a.png", agent="vlmill", failure="", **more):
    found = find_reservation(HostFiles(ORIGIN, DAY, robots, tdmrep, failure), path, agent, **more)
    return None if found is None else found[0]


@pytest.mark.parametrize(
    ("robots", "path", "agent", "reason"),
    [
        (None, "/a.png", "vlmill", None),
        ("", "/a.png", "vlmill", None),
        ("<!doctype html><p>Not found</p>", "/a.png", "vlmill", None),
        (CLOSED, "/private/a.png", "somebody", Reason.ROBOTS_TXT),
        (CLOSED, "/private/a.png", "vlmill", None),  # the group of our name alone counts
        (CLOSED, "/b/a.gif", "vlmill", Reason.ROBOTS_TXT),
        (CLOSED, "/b/a.gif?x=1", "vlmill", None),
        (CLOSED, "/b/a.gif", "other", Reason.ROBOTS_TXT),
        ("User-agent: *\nDisallow: /", "/a.png", "vlmill", Reason.ROBOTS_TXT),
        (USAGE, "/a.png", "vlmill", Reason.AI_PREFERENCE),
        (USAGE, "/open/a.png", "vlmill", None),
        (ONE_PATH, "/art/a.png", "vlmill", Reason.AI_PREFERENCE),
        (ONE_PATH, "/b.png", "vlmill", None),
        (ONE_PATH, "/art/a.png", "third", None),  # its own group says nothing of training
    ],
)
def test_robots_txt_keeps_back_what_its_group_for_us_says(robots, path, agent, reason):
    assert ask(robots, path=path, agent=agent) is reason


@pytest.mark.parametrize(
    ("tdmrep", "path", "reason"),
    [
        ('[{"location": "/", "tdm-reservation": 1}]', "/a.png", Reason.TDM_RESERVED),
        ('[{"location": "/", "tdm-reservation": 0}]', "/a.png", None),
        ('[{"location": "/b/*.png$", "tdm-reservation": 1}]', "/b/c/a.png", Reason.TDM_RESERVED),
        ('[{"location": "/b/*.png$", "tdm-reservation": 1}]', "/b/c/a.png?x", None),
        ('[{"location": "/b", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}]', "/b/a.png", None),
        ("<html>", "/a.png", None),
        ("[" * 100_000, "/a.png", None),
        ('{"location": "/", "tdm-reservation": 1}', "/a.png", None),
        ('[1, {"location": 3}, {"tdm-reservation": 1}]', "/a.png", None),
    ],
)
def test_tdmrep_keeps_back_the_locations_that_it_reserves(tdmrep, path, reason):
    assert ask(None, tdmrep, path) is reason


def test_a_host_that_cannot_be_asked_keeps_back_everything_only_where_the_recipe_says_so():
    assert ask(failure="timed_out: silent") is None
    assert ask(failure="timed_out: silent", fail_closed=True) is Reason.ROBOTS_UNKNOWN


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ((), None),
        ((("x-robots-tag", "otherbot: noai, vlmill: noindex"),), Reason.OPTED_OUT),
        ((("content-usage", "train-ai=n"),), Reason.AI_PREFERENCE),
        ((("content-usage", "search=n, train-ai=y"),), None),
        ((("content-usage", "tdm=n, train-ai=y"),), None),  # the narrower one counts
        ((("tdm-reservation", "1"),), Reason.TDM_RESERVED),
        ((("tdm-reservation", "0"),), None),
    ],
)
def test_headers_of_an_answer_keep_it_back(fields, reason):
    found = find_header_reservation(AnswerHead(200, fields), "vlmill")
    assert (None if found is None else found[0]) is reason


PIECES = st.text("ab/*", max_size=8)


@given(PIECES, st.booleans(), st.text("ab/", max_size=10))
def test_patterns_fit_as_protego_has_them(piece, ends, rest):
    pattern = f"/{piece}{'$' if ends else ''}"
    robots = Protego.parse(f"User-agent: *\nDisallow: {pattern}\n")
    assert _fits_pattern(pattern, f"/{rest}") == (not robots.can_fetch(f"http://a.test/{rest}", "x"))


def test_a_pattern_of_many_stars_takes_no_time():
    assert not _fits_pattern("/" + "*a" * 5_000 + "$", "/" + "a" * 4_000 + "b")


def test_hosts_are_known_by_their_origin_under_either_scheme():
    rules = HostRules({ORIGIN: HostFiles(ORIGIN, DAY, "User-agent: *\nDisallow: /x", None)}, "vlmill")
    assert rules.find("http://A.test/x.png")[0] is Reason.ROBOTS_TXT
    assert rules.find("https://a.test/y.png") is None
    assert rules.find("https://b.test/x.png") is None
    assert rules.find("file:///etc/passwd") is None
    urls = ["https://a.test/1", "HTTP://B.test:8080/2", None, "no address", "http://mine.test/3"]
    assert [*list_origins(urls, ["http://mine.test/"])] == ["https://a.test", "http://b.test:8080"]
