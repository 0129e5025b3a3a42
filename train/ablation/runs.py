"""The folders of an ablation: data that variants share are made once, and every training is an ordinary run over them.

A build for other data starts from the files of one that is there, as hard links: of a store's files nothing is ever
changed in place, and those whose keys the other recipe does not ask for are removed from its folder alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmill.mixtures.build import LOCK as MIXTURE
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.files import TEMPORARY, write_atomically
from vlmill.pipeline.core.keys import DIGITS, hash_value
from vlmill.pipeline.core.seal import seal_yaml
from vlmill.pipeline.core.yaml_format import format_yaml, read_yaml
from vlmill.pipeline.engine.workdir import PINS
from vlmill.pipeline.images.connector import Connector
from vlmill.pipeline.recipe.lock import select_shaping
from vlmill.pipeline.recipe.mapping import LOCK, list_differences
from vlmill.pipeline.recipe.parsed import parse_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.train.ablation.spec import DATA, Trial
from vlmill.train.settings import read_training_settings
from vlmill.train.steps import count_steps

Build = Callable[[Path, Recipe, Mapping[str, Any], Path], None]
"""Carries a recipe to shards and mixtures: the folder, the recipe, the same as a mapping, and where its relative paths
start."""

SHARED = ("steps", "shards", "mixtures", "lists", "tokenizer.json", PINS)


def prepare_runs(
    root: Path, trials: Sequence[Trial], make: Build, source_run: Path | None = None
) -> dict[tuple[str, int], Path]:
    """The run of every variant and seed, ready to be trained. What is there is kept.

    Args:
        root: the ablation's folder.
        trials: the baseline's among them.
        make: builds data that are not there yet.
        source_run: a run whose files are taken where recipes ask for the same.

    Raises:
        StoreError: another recipe was trained in a folder, or `source run` is no run.
        RecipeError: a plan has too few sequences for a variant's steps.
    """
    if source_run is not None and not (source_run / LOCK).exists():
        raise StoreError(f"--from {source_run}: holds no run ({LOCK} is missing); give the folder of a build")
    places = {(trial.variant, trial.seed): root / trial.variant / str(trial.seed) for trial in trials}
    for trial in trials:
        _check_recipe(places[trial.variant, trial.seed], trial)
    for trial in trials:
        data = _prepare_data(root, trial, make, source_run)
        _link_run(places[trial.variant, trial.seed], data, trial)
        source_run = source_run or data
    for trial in trials:
        for stage in trial.recipe.stages:
            planned = PlannedMixture(places[trial.variant, trial.seed], stage.name).sequences
            try:
                count_steps(read_training_settings(stage, trial.recipe.scale), planned)
            except RecipeError as error:
                raise RecipeError(f"variant {trial.variant!r}, stage {stage.name!r}: {error}") from error
    return places


def select_curation(data: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe's mapping shapes shards and plans: all but the model and how it is trained.

    Of the model stays how many visual tokens its connector makes, where it says so: connectors of one number share
    their data.
    """
    stages = [{name: value for name, value in stage.items() if name != "train"} for stage in data["stages"]]
    counting = parse_block(Connector, (data.get("model") or {}).get("connector") or {}, "model.connector").counting
    model = {} if counting is None else {"model": {"connector": counting}}
    return {**{name: value for name, value in data.items() if name != "model"}, **model, "stages": stages}


def _prepare_data(root: Path, trial: Trial, make: Build, source_run: Path | None) -> Path:
    """The build that a trial reads, made if it is not there whole."""
    mapping = select_curation(trial.data)
    folder = root / DATA / hash_value([select_shaping(mapping), mapping["tokenizer"]])[:DIGITS]
    if not all((folder / "mixtures" / stage.name / MIXTURE).exists() for stage in trial.recipe.stages):
        if source_run is not None and not (folder / LOCK).exists():
            _link_files(source_run, folder)
        recipe = replace(parse_recipe(mapping, trial.recipe.name), custom_filters=trial.recipe.custom_filters)
        make(folder, recipe, mapping, trial.base)
    return folder


def _link_files(source_run: Path, folder: Path) -> None:
    """Take over the steps and shards of a build, and the commits that it read from the Hub."""
    for name in ("steps", "shards"):
        if (source_run / name).is_dir():
            ignored = shutil.ignore_patterns(f"{TEMPORARY}*")
            shutil.copytree(
                source_run / name, folder / name, copy_function=_link_or_copy, ignore=ignored, dirs_exist_ok=True
            )
    if (source_run / PINS).exists():
        shutil.copyfile(source_run / PINS, folder / PINS)


def _link_or_copy(source: str, target: str) -> None:
    """The same file under another name; a copy where the disk cannot have that."""
    if Path(target).exists():
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _check_recipe(folder: Path, trial: Trial) -> None:
    """Refuse a folder in which another recipe was trained; of one that holds no training yet, clear the links away."""
    path, now = folder / LOCK, select_shaping(trial.data)
    before = read_yaml(path) if path.exists() else now
    if before == now:
        return
    if (folder / "train").exists():
        raise StoreError(
            f"{folder} was made for another recipe:\n{list_differences(before, now)}\n"
            f"Take another folder with --out, or delete {folder} to train it anew"
        )
    path.unlink()
    for name in SHARED:
        if (folder / name).is_symlink():
            (folder / name).unlink()


def _link_run(folder: Path, data: Path, trial: Trial) -> None:
    """A run's folder over the data of a build: relative links, and the recipe that it is locked to, last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        if (data / name).exists() and not (folder / name).exists():
            (folder / name).symlink_to(os.path.relpath(data / name, folder))
    text = seal_yaml(format_yaml(select_shaping(trial.data)))
    write_atomically(folder / LOCK, text)
