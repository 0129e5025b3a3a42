"""What can be known of a run before any work.

Whether its files exist and are what the recipe says, and about how much there is.

Of each source the first rows of the first file are read. Nothing is written, and no address of an image is asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import fsspec
from rich.table import Table
from tokenizers import Tokenizer

from vlmill.pipeline.chat.encode import load_tokenizer
from vlmill.pipeline.chat.settings import find_format
from vlmill.pipeline.core.errors import RecipeError, SourceError, list_faults
from vlmill.pipeline.decontaminate import Benchmark
from vlmill.pipeline.filters import ReadsLists
from vlmill.pipeline.inputs.files import InputFile, list_input_files, open_input
from vlmill.pipeline.recipe.schema import Recipe, SourceSettings
from vlmill.pipeline.sources import Source, SourceRow

ROWS = 20
"""Rows that are read of a source, at most."""
LARGEST = 1 << 30
"""Bytes of a file that is read in full to count its rows; what a larger one holds is not estimated. A copy is made of
remote ones of this size at most."""


@dataclass(frozen=True)
class SourceEstimate:
    """About how much a source holds; None where its rows could not be counted."""

    source: str
    files: int
    bytes: int  # of all its files
    rows: int | None  # those of the first file, times all bytes over its bytes; with the recipe's limit
    samples: int | None
    images: int | None
    measured: int  # rows that were read
    unreadable: int  # of these
    needed: int  # bytes that its tables will take: they hold what the files hold, as far as the limit leaves it


@dataclass(frozen=True)
class CheckResult:
    """All faults, and an estimate of each source that could be read."""

    faults: list[str]
    estimates: list[SourceEstimate]
    free: int  # bytes on the disk of the run's folder


def check_inputs(recipe: Recipe, base: Path, root: Path) -> CheckResult:
    """Look at all that a build of a recipe would open.

    Args:
        recipe: one that is valid.
        base: the folder that its relative paths start from.
        root: the run's folder; it need not be there.
    """
    estimates = list[SourceEstimate]()
    against = recipe.decontaminate.against if recipe.decontaminate else {}
    checks: list[Callable[[], object]] = [
        partial(_check_tokenizer, recipe, base),
        partial(_check_lists, recipe, base),
        *(partial(_check_folders, name, settings, base) for name, settings in recipe.sources.items()),
        *(partial(_check_benchmark, name, benchmark, base) for name, benchmark in against.items()),
        *(partial(_add_estimate, recipe, name, base, estimates) for name in recipe.sources),
    ]
    faults = list_faults(checks)
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    free, needed = shutil.disk_usage(existing).free, sum(found.needed for found in estimates)
    if free < needed:
        faults.append(f"{existing} has {free} bytes free, and the tables of the inputs alone take about {needed}")
    return CheckResult(faults, estimates, free)


def make_check_table(result: CheckResult) -> Table:
    """The estimates for a terminal."""
    table = Table(title="about so much is there")
    for name in ("source", "files", "GB", "rows", "samples", "images", "from"):
        table.add_column(name, justify="left" if name in ("source", "from") else "right")
    for found in result.estimates:
        counts = ("?" if count is None else f"{count:,}" for count in (found.rows, found.samples, found.images))
        based = f"{found.measured} rows" + (f", {found.unreadable} unreadable" if found.unreadable else "")
        table.add_row(found.source, str(found.files), f"{found.bytes / 1e9:.2f}", *counts, based)
    return table


def _check_tokenizer(recipe: Recipe, base: Path) -> None:
    if recipe.tokenizer is None:
        return
    path = base / recipe.tokenizer
    if not path.is_file():
        raise RecipeError(
            f"tokenizer: there is no file {path}; give the path of a tokenizer.json, relative to the recipe"
        )
    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no other class
        raise RecipeError(f"tokenizer: {path} is no tokenizer.json: {error}") from error
    load_tokenizer(path, find_format(recipe.chat))


def _check_lists(recipe: Recipe, base: Path) -> None:
    wanted = [path for item in recipe.filters if isinstance(item, ReadsLists) for path in item.lists.values()]
    if missing := [str(base / path) for path in wanted if not (base / path).is_file()]:
        raise RecipeError(
            f"filters: there is no file {', '.join(missing)}; the path of a list is relative to the recipe"
        )


def _check_folders(name: str, settings: SourceSettings, base: Path) -> None:
    """Those of images and of what is served in place of addresses, where they are local."""
    places = {f"serve.{prefix}": folder for prefix, folder in settings.serve.items()}
    places |= {"images": settings.images} if settings.images else {}
    for key, place in places.items():
        if "://" not in place and not (base / place).is_dir():
            raise RecipeError(f"sources.{name}.{key}: there is no folder {(base / place).resolve()}")


def _check_benchmark(name: str, benchmark: Benchmark, base: Path) -> None:
    root = _resolve_root(benchmark.root, base)
    for split, files in benchmark.splits(name).items():
        found = list_input_files(
            split, root, files.pattern, subset=files.subset, split=files.split, ranged=benchmark.options.ranged
        )
        _read_first(benchmark.options, found[0], 1)


def _resolve_root(root: str, base: Path) -> str:
    return root if "://" in root else str((base / root).resolve())


def _add_estimate(recipe: Recipe, name: str, base: Path, estimates: list[SourceEstimate]) -> None:
    """Read the first rows of a source, and add what they show.

    Raises:
        SourceError: it has no files, or the first has not its form.
    """
    settings = recipe.sources[name]
    source, root = settings.options, _resolve_root(settings.root, base)
    found = list_input_files(
        name, root, settings.files, subset=settings.subset, split=settings.split, ranged=source.ranged
    )
    sizes = [_get_size(file) for file in found]
    first, number = _read_first(source, found[0], ROWS, sizes[0])
    there = None if number is None else round(number * sum(sizes) / max(sizes[0], 1))
    rows = there if there is None or recipe.limit is None else min(there, recipe.limit)
    pages = [page for row in first for page in row.pages]
    estimate = SourceEstimate(
        source=name,
        files=len(found),
        bytes=sum(sizes),
        rows=rows,
        samples=_extrapolate_count(len(pages), len(first), rows),
        images=_extrapolate_count(sum(len(page.pictures) for page in pages), len(first), rows),
        measured=len(first),
        unreadable=sum(not row.pages for row in first),
        needed=sum(sizes) if not there or rows is None else sum(sizes) * rows // there,
    )
    estimates.append(estimate)


def _extrapolate_count(count: int, measured: int, rows: int | None) -> int | None:
    return None if rows is None or not measured else round(count * rows / measured)


def _read_first(source: Source, file: InputFile, most: int, size: int = 0) -> tuple[Sequence[SourceRow], int | None]:
    """The first rows of a file and how many it has; none of a remote one that would have to be copied and is large."""
    local = "://" not in file.url or file.url.startswith("file://")
    if size > LARGEST and not (local or file.ranged):
        return (), None
    try:
        with open_input(file) as path:
            number = len(source.survey(path)) if size <= LARGEST else None
            wanted = most if number is None else min(most, number)
            return tuple(islice(_read_rows(source, path, wanted), wanted)), number
    except OSError as error:
        raise SourceError(f"source {file.source!r}: {file.name} cannot be read: {error}") from error


def _read_rows(source: Source, path: Path, wanted: int) -> Iterator[SourceRow]:
    yield from source.rows(path, 0, wanted)


def _get_size(file: InputFile) -> int:
    if file.on_hub:
        return file.size
    filesystem, path = fsspec.core.url_to_fs(file.url)
    return int(filesystem.size(path) or 0)
