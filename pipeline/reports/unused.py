"""What lies in a run's folder and is of no use to its recipe: files of earlier recipes, and copies that nobody reads.

`vlmill clean` says it, with sizes, and removes it. A build removes by itself only what pure steps can make again; what
was fetched, scored or answered under an earlier recipe stays until then, since it cost something.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from vlmill.pipeline.core.keys import DIGITS
from vlmill.pipeline.core.yaml_format import read_yaml
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.store import list_step_files
from vlmill.pipeline.engine.workdir import EDITIONS
from vlmill.pipeline.recipe.schema import Recipe

NO_STEP = "the recipe has no such step"
NOT_NAMED = "no manifest names them"
NO_LIST = "no list of the recipe"
SIDE_STEPS = ("survey", "hosts", "retry", "match", "takedown", "outcomes", "written")
"""Steps of a source that are in no chain of every partition."""


@dataclass(frozen=True, slots=True)
class UnusedFiles:
    """Files of one folder that are of no use."""

    folder: str  # relative to the run's
    why: str  # in words
    paths: tuple[str, ...]  # relative to the run's folder, sorted; receipts first
    bytes: int  # of all of them


def list_unused(root: Path, recipe: Recipe, steps: Collection[str]) -> list[UnusedFiles]:
    """What is of no use, by folder, sorted; reads manifests and no table.

    A step without a manifest is not complete: what it left is of use to the next build.

    Args:
        root: The run's folder.
        recipe: The one that it is locked to.
        steps: The folders of the steps that the recipe's chains and mixtures have.
    """
    used = {*steps, *(f"steps/{source}/{name}" for source in recipe.sources for name in SIDE_STEPS)}
    used |= {"steps/hosts/asked", "steps/signals/quantiles"}
    found = [_find_unused(root, folder, used, recipe) for folder in _list_folders(root)]
    return [one for one in (*found, _find_lists(root)) if one is not None]


def remove_files(root: Path, unused: Sequence[UnusedFiles]) -> None:
    """Remove them, receipts before what they name; folders that are empty then go too."""
    for one in unused:
        for path in one.paths:
            (root / path).unlink(missing_ok=True)
        folder = root / one.folder
        while folder != root and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def make_unused_table(unused: Sequence[UnusedFiles]) -> Table:
    """A line for each folder."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("folder", overflow="fold")
    for name in ("files", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for one in unused:
        table.add_row(one.folder, f"{len(one.paths):,}", f"{one.bytes / 1e6:,.1f}", one.why)
    return table


def _list_folders(root: Path) -> Iterator[str]:
    """Folders of steps that were begun."""
    for begun in list_step_files(root, "made_by.json"):
        yield str(begun.parent.relative_to(root))


def _find_unused(root: Path, folder: str, used: Collection[str], recipe: Recipe) -> UnusedFiles | None:
    if folder not in used and not (folder.startswith("steps/benchmarks/") and recipe.decontaminate):
        return _describe_files(root, folder, NO_STEP, sorted(_list_files(root / folder)))
    if not (root / folder / "manifest.json").exists():
        return None
    receipts = read_manifest(root, folder)
    named = {file.path for receipt in receipts for file in receipt.files}
    signed = {f"{receipt.partition}.{receipt.key[:DIGITS]}.receipt.json" for receipt in receipts}
    kept = {*signed, "made_by.json", "manifest.json"}
    left = [path for path in _list_files(root / folder) if path.name not in kept]
    return _describe_files(
        root, folder, NOT_NAMED, sorted(path for path in left if str(path.relative_to(root)) not in named)
    )


def _find_lists(root: Path) -> UnusedFiles | None:
    """Copies of lists that the last build did not read."""
    noted = root / EDITIONS
    if not noted.exists():
        return None
    current = {str(place) for place in read_yaml(noted).values()} | {EDITIONS}
    left = [path for path in _list_files(noted.parent) if str(path.relative_to(root)) not in current]
    return _describe_files(root, "lists", NO_LIST, sorted(left))


def _list_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def _describe_files(root: Path, folder: str, why: str, paths: Sequence[Path]) -> UnusedFiles | None:
    if not paths:
        return None
    ordered = sorted(paths, key=lambda path: (not path.name.endswith(".receipt.json"), path.name))
    size = sum(path.stat().st_size for path in paths)
    return UnusedFiles(folder, why, tuple(str(path.relative_to(root)) for path in ordered), size)
