"""A Hub on loopback for the tests of sources on the Hugging Face Hub, and an S3 server for runs on object storage."""

from __future__ import annotations

from types import SimpleNamespace

import datasets
import pytest
from huggingface_hub import constants

from tests.helpers.hub import Hub
from tests.helpers.object_storage import make_bucket, name_environment, serve_objects
from vlmill.pipeline.core.run_path import RunPath


@pytest.fixture
def waits(monkeypatch):
    """How long huggingface_hub waited before it asked again; nobody waits here."""
    slept: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=slept.append))
    return slept


@pytest.fixture
def here(monkeypatch, tmp_path, waits):
    """A Hub in the place of the real one, asked without a token and with an empty cache."""
    with Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.url)
        monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        yield server


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
