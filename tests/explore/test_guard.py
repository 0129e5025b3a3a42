"""Who `vlmill explore` answers, what its answers may do, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.explore.conftest import ADDRESS, TOKEN
from tests.helpers.small import product, vlmill, write_recipe
from vlmill.explore.app import make_app
from vlmill.explore.state import Explorer

ROOT = Path(__file__).parents[2]
STATIC = sorted((ROOT / "src/vlmill/explore/static").iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that has only begun: who is answered does not depend on what there is to see."""
    folder = tmp_path_factory.mktemp("begun")
    assert vlmill("build", write_recipe(folder), "--out", folder / "run", "--workers", 0, "--until", "survey") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def explorer(run):
    return Explorer(run)


@pytest.fixture(scope="module")
def client(explorer):
    return TestClient(make_app(explorer, TOKEN), base_url=ADDRESS, headers={"x-vlmill-token": TOKEN})


@pytest.fixture
def stranger(explorer):
    """A client that was told nothing."""
    return TestClient(make_app(explorer, TOKEN), base_url=ADDRESS, follow_redirects=False)


PATHS = ["/", "/static/app.js", "/api/overview", "/picture/web/00000-0000/0"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-vlmill-token": "t" * 31},
        {"x-vlmill-token": ""},
        {"cookie": "vlmill-explore-8000=wrong"},
        {"cookie": f"vlmill-explore-8001={TOKEN}"},
        {"authorization": f"Bearer {TOKEN}"},
    ],
)
def test_without_the_token_nothing_is_answered(stranger, path, headers):
    answer = stranger.get(path, headers=headers)
    assert answer.status_code == 403
    assert "open the address" in answer.text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8001"}, 403),
        ({"origin": "https://127.0.0.1:8000"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"host": "evil.example:8000"}, 421),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1:8001"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"host": "127.0.0.1:8000.evil.example"}, 421),
    ],
)
def test_with_the_token_another_origin_or_a_forged_host_is_refused(stranger, path, headers, status):
    answer = stranger.get(path, headers={"x-vlmill-token": TOKEN, **headers})
    assert answer.status_code == status


def test_two_hosts_in_one_request_are_refused(stranger):
    both = [("x-vlmill-token", TOKEN), ("host", "127.0.0.1:8000"), ("host", "evil.example")]
    assert stranger.get("/api/overview", headers=both).status_code == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_but_reading_is_answered(stranger, method):
    answer = stranger.request(method, "/api/overview", headers={"x-vlmill-token": TOKEN})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_the_token_in_the_address_becomes_a_cookie_that_only_this_origin_gets(stranger):
    answer = stranger.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "samesite=strict" in cookie
    assert "httponly" in cookie
    assert stranger.get("/").status_code == 200
    assert stranger.get("/api/overview", headers={"origin": "http://127.0.0.1:8000"}).status_code == 200
    assert stranger.get(f"/?token=wrong&token={TOKEN}").headers.get("location") is None


@pytest.mark.parametrize("path", [*PATHS, "/nowhere", "/static/..%2fapp.py", "/static/app.py"])
def test_every_answer_says_what_a_browser_may_do(client, stranger, path):
    for answer in (client.get(path), stranger.get(path)):
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in str(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["..%2fapp.py", "app.py", ".hidden.js", "%2e%2e/app.py", "nothing.js"])
def test_no_file_but_those_of_the_page_is_served(client, name):
    assert client.get(f"/static/{name}").status_code == 404


def test_every_file_of_the_page_is_served_and_asks_for_nothing_elsewhere(client):
    shared = ["style.css", "card.css", "card.js"]
    for name in [*(path.name for path in STATIC if path.name != "index.html"), *shared]:
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200, name
        text = answer.text.replace("http://www.w3.org/", "")  # the names of SVG, which nobody asks for
        assert not re.search(r"https?://|//cdn|@import|url\(", text), name


def test_no_module_makes_markup_of_a_text():
    """What a run holds is only ever set as text, so nothing of it is run."""
    modules = [path for path in STATIC if path.suffix == ".js"] + [ROOT / "mixtures/page/card.js"]
    assert len(modules) > 8
    for path in modules:
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc"
            r"|setAttribute\(.(?:on|style)",
            path.read_text(encoding="utf-8"),
        )
        assert found == [], path
    page = (ROOT / "src/vlmill/explore/static/index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*src=)|<style|style=| on\w+=", page)


@pytest.mark.parametrize("path", [*STATIC, ROOT / "mixtures/page/card.js"], ids=lambda path: path.name)
def test_a_file_of_the_page_is_one_idea_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_command_serves_until_it_is_interrupted_and_changes_nothing(run, tmp_path):
    before = product(run), sorted(path for path in run.rglob("*"))
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "vlmill.pipeline.cli", "explore", str(run)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+/\?token=\S+", server.stdout.readline())
            with httpx2.Client(follow_redirects=True) as browser:
                assert browser.get(address).status_code == 200
                assert browser.get(address.partition("?")[0] + "api/overview").json()["name"] == "small"
            assert httpx2.get(address.partition("?")[0] + "api/overview").status_code == 403
            server.send_signal(signal.SIGINT)
            _, said = server.communicate(timeout=20)
        finally:
            server.kill()
        assert (server.returncode, said) == (0, "")
    assert before == (product(run), sorted(path for path in run.rglob("*")))
