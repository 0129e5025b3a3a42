"""What tests of the trainer share."""

import importlib
import sys

import pytest
from transformers import dynamic_module_utils

LOADED = "transformers_modules"
"""The package under which transformers imports the code of exports."""


def forget_modules():
    for name in [name for name in sys.modules if name.partition(".")[0] == LOADED]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def dynamic_modules(tmp_path, monkeypatch):
    """A folder of the test alone for the code of exports: transformers keeps the folder that it imported from first."""
    forget_modules()
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    forget_modules()
