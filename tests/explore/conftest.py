"""A run that is explored: two sources, two signals with a threshold, dedupe, a mixed stage."""

from __future__ import annotations

import pytest

from tests.helpers.signals import SIGNALS
from tests.helpers.small import RECIPE, vlmill, write_recipe
from vlmill.explore.app import make_app
from vlmill.explore.state import Explorer

TOKEN = "t" * 32
ADDRESS = "http://127.0.0.1:8000"


def write_blocks(**changes):
    """The recipe's blocks that differ from those of the small one."""
    stage = RECIPE["stages"][0]
    return {
        "sources": {name: RECIPE["sources"][name] for name in ("web", "quiz")},
        "signals": {"red": {"kind": "redness"}, "wow": {"kind": "exclamations", "mark": "e"}},
        "filters": [
            {"language": {"drop": ["zh"]}},
            {"shape": {"max_ratio": 3.2}},
            {"threshold": {"any": {"red": {"min": 0.3, "sources": ["web"]}}}},
        ],
        "stages": [{**stage, "mixture": {"shares": {"web": 0.5, "quiz": 0.5}, "epochs": 1, "sequence_length": 512}}],
        **changes,
    }


def build_run(folder, out, *more, **changes):
    """Build it in this process."""
    write_recipe(folder, **write_blocks(**changes))
    (folder / "signals.py").write_text(SIGNALS)
    named = ("--out", folder / out, "--workers", 0, "--filter", folder / "signals.py")
    assert vlmill("build", folder / "recipe.yaml", *named, *more) == 0
    return folder / out


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a whole run."""
    return build_run(tmp_path_factory.mktemp("explored"), "run")


@pytest.fixture(scope="session", autouse=True)
def _cached(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def explorer(run):
    """The run with its index made."""
    explorer = Explorer(run)
    explorer.make_index()
    return explorer


@pytest.fixture(scope="session")
def client(explorer):
    """What a browser with the token is."""
    from starlette.testclient import TestClient

    return TestClient(make_app(explorer, TOKEN), base_url=ADDRESS, headers={"x-vlmill-token": TOKEN})


@pytest.fixture(scope="session")
def ask(client):
    """JSON of an address."""

    def ask(path, /, status=200, **query):
        answer = client.get(f"/api/{path}", params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    return ask
