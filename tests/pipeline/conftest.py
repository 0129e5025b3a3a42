"""A Hub on loopback for the tests of sources on the Hugging Face Hub."""

from __future__ import annotations

from types import SimpleNamespace

import datasets
import pytest
from huggingface_hub import constants

from tests.helpers.hub import Hub


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
