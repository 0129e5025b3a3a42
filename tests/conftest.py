"""What holds for all tests, and an S3 server for runs on object storage.

Property tests draw the same examples in every run, so that a run that passes passes again. To look for new ones:
`pytest --hypothesis-profile search`.
"""

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.object_storage import make_bucket, name_environment, serve_objects
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.fetch.download_process import close_idle

settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("vlmill", settings.get_profile("search"), derandomize=True)
settings.load_profile("vlmill")  # no deadline: how fast a machine is decides nothing


FIRST = [
    *("pipeline/test_build.py", "train/test_train_distributed.py", "pipeline/test_machines.py"),
    *("repo/test_blocks.py", "pipeline/test_fetch_message.py", "pipeline/test_check.py", "pipeline/test_takedown.py"),
    *("repo/test_recipes_with_signals.py", "pipeline/test_ask_build.py", "train/test_export_readme.py"),
]
"""Files that take over a minute are begun first, so that no worker is left with one while the others are done."""


@pytest.hookimpl(trylast=True)  # after pytest, which brings files of one session fixture together
def pytest_collection_modifyitems(config, items):
    """Slow files first, the others as they were."""
    places = {config.rootpath / "tests" / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(FIRST)))


@pytest.fixture(autouse=True)
def _no_process_left():
    """Downloading processes that wait for their next partition end with the test that started them."""
    yield
    close_idle()


@pytest.fixture(scope="session")
def s3_server():
    """The port of an S3 server."""
    with serve_objects() as port:
        yield port


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The address of an empty bucket on that server, which this process and its children can reach."""
    for name, value in name_environment(s3_server).items():
        monkeypatch.setenv(name, value)
    return f"s3://{make_bucket(s3_server)}"


@pytest.fixture(params=["folder", "s3"])
def root(request, tmp_path):
    """A run's folder, on this machine and on object storage."""
    return RunPath(f"{request.getfixturevalue('s3')}/run") if request.param == "s3" else tmp_path / "run"
