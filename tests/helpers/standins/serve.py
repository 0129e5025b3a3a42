"""The loopback Hub in the place of the real one, and what a recipe needs to be built from stand-ins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import datasets
import pytest
from huggingface_hub import HfFileSystem, constants

from tests.helpers.hub import Hub
from tests.helpers.standins import ADDRESSES, DATASETS, Standin
from vlmill.pipeline.recipe.schema import Recipe


@contextmanager
def use_hub(hub: Hub, cache: Path) -> Iterator[Hub]:
    """Let huggingface_hub and `datasets` ask `hub` while the context lasts, without a token and with an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
        patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        patch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
        patch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache / "datasets"))
        patch.setenv("HF_ENDPOINT", hub.url)  # for processes that a build starts
        patch.delenv("HF_TOKEN", raising=False)
        patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        HfFileSystem.clear_instance_cache()  # they keep the address that they were made with
        try:
            yield hub
        finally:
            HfFileSystem.clear_instance_cache()


def list_settings(recipe: Recipe, written: Mapping[str, Standin]) -> list[str]:
    """What a build of `recipe` needs on its command line to find the pictures that rows of stand-ins name.

    Addresses are served on loopback from the folder of pictures. A source that names a folder of images gets the
    stand-in's; one that names an archive reads it from the Hub.
    """
    settings = ["fetch.retries=0"]
    for name, source in recipe.sources.items():
        standin = written.get(find_repository(source.root))
        if standin is None:
            continue
        if recipe.source(name).fetches:
            settings.append(f"sources.{name}.serve={{'{ADDRESSES}': '{standin.served}'}}")
        elif source.images and "::" not in source.images:
            folder = standin.pictures / (source.files or "").partition("/")[0]  # of a set, where archives are per set
            settings.append(f"sources.{name}.images={folder if folder.is_dir() else standin.pictures}")
    return [part for setting in settings for part in ("--set", setting)]


def find_repository(root: str) -> str:
    """`OWNER/NAME` of a root on the Hub; empty for any other."""
    found = re.match(r"hf://datasets/([^/@]+/[^/@]+)", root)
    return found[1] if found else ""


FEW = 3
"""A dataset of at most so many subsets is written whole, of another what a recipe names, else the first two."""


def list_datasets(recipe: Recipe) -> list[str]:
    """The datasets that the sources of a recipe read, as `write_standins` takes them."""
    names = list[str]()
    for source in recipe.sources.values():
        dataset = DATASETS.get(find_repository(source.root))
        if dataset is None:
            continue
        said = {*source.root.split("/"), *(source.files or "").split("/"), source.subset or ""}
        chosen = [subset for subset in dataset.subsets if subset in said]
        chosen = chosen or [*(dataset.subsets if len(dataset.subsets) <= FEW else dataset.subsets[:2])]
        names += [f"{dataset.repository}/{subset}" for subset in chosen]
    return names
