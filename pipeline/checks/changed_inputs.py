"""Sources whose input files are not those that a run has surveyed, for the forecast of a build in its folder.

Files on this machine are hashed, up to `MOST` bytes of all sources: a build hashes them as well, and takes no file for
one that it has read before.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.core.keys import make_key
from vlmill.pipeline.core.progress import ProgressBars
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.engine.build import Build
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.executor import Inline
from vlmill.pipeline.engine.survey import HashInputFiles, InputSet, list_input_sets, list_survey_chains
from vlmill.pipeline.inputs.files import InputFile
from vlmill.pipeline.recipe.schema import Recipe

MOST = 1 << 30
"""Bytes of input files that are hashed: a few seconds' work."""


def find_changed_inputs(root: Path, recipe: Recipe, base: Path) -> dict[str, bool]:
    """Whether the input files of a source are others than those that were surveyed, for each source that can be told.

    Left out are sources that were not surveyed, and those whose files lie elsewhere, cannot be listed, or are too much
    to hash. A survey with other settings, or by another version of vlmill, counts as one of other files.

    Args:
        root: the run's folder.
        recipe: as a build would have it.
        base: the folder that its relative paths start from.
    """
    run = Build(root, recipe, base, Inline(), ProgressBars(make_console(quiet=True)), {})
    found, left = dict[str, bool](), MOST
    for inputs in list_input_sets(run):
        if not (root / inputs.folder / "survey" / "manifest.json").exists():
            continue
        with suppress(VlmillError, OSError):
            files = _list_local_files(inputs)
            size = sum(file.size for file in files)
            if files and size <= left:
                left -= size
                found[inputs.name] = _compare_surveys(run, inputs, files)
    return found


def _list_local_files(inputs: InputSet) -> list[InputFile]:
    """The files of a source; none where one is not on this machine."""
    if "://" in inputs.root:
        return []
    files = inputs.list_files()
    return files if all(file.on_disk for file in files) else []


def _compare_surveys(run: Build, inputs: InputSet, files: list[InputFile]) -> bool:
    """Whether a survey of these files is not the one that the run has."""
    hashed = dict(zip(files, HashInputFiles()(files), strict=True))
    made = {receipt.partition: receipt.key for receipt in read_manifest(run.root, f"{inputs.folder}/survey")}
    return made != {
        chain.partition: make_key(chain.steps[0].step, {file.name: file.sha256 for file in chain.files})
        for chain in list_survey_chains(run, inputs, files, hashed)
    }
