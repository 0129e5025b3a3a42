"""What can be known of a run before any work: whether all that a build would open is there and is what the recipe says.

`vlmill check` and the start of a build ask the same questions here. Nothing is written, and no address of an image is
asked for. How much there is, is estimated elsewhere (estimate.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import fsspec
from tokenizers import Tokenizer

from vlmill.pipeline.core.errors import RecipeError, SourceError, VlmillError
from vlmill.pipeline.core.excerpt import make_excerpt
from vlmill.pipeline.decontaminate import Benchmark, Split
from vlmill.pipeline.fetch.opt_outs import OptOuts
from vlmill.pipeline.filters import ReadsLists
from vlmill.pipeline.inputs import hub
from vlmill.pipeline.inputs.files import InputFile, list_input_files, open_input
from vlmill.pipeline.recipe.lock import is_bound, read_lock, select_shaping
from vlmill.pipeline.recipe.schema import Recipe, SourceSettings
from vlmill.pipeline.sources import Source, SourceRow

FIRST = 20
"""Rows from the start of a file, and from its middle, of which one at least has to give a sample."""
AT_ONCE = 8
"""Sources and benchmarks that are looked at together, since most of the time is spent waiting for the network."""


@dataclass(frozen=True)
class InputCheck:
    """What was found of all that a build would open."""

    errors: tuple[VlmillError, ...]
    files: Mapping[str, Sequence[InputFile]] = field(default_factory=dict)  # of each source that can be listed


def check_inputs(recipe: Recipe, base: Path, passed: Collection[str] = ()) -> InputCheck:
    """Look at all that a build of a recipe would open. Trouble with one thing hides no other.

    Of each source and benchmark the first row is read, or of a file that would have to be copied the first byte.

    Args:
        recipe: One that is valid, or as much of one as can be read.
        base: The folder that its relative paths start from.
        passed: Sources and benchmarks that are not looked at.
    """
    files = dict[str, Sequence[InputFile]]()
    against = recipe.decontaminate.against if recipe.decontaminate else {}
    sources = {name: settings for name, settings in recipe.sources.items() if name not in passed}
    checks: list[Callable[[], object]] = [
        partial(_check_tokenizer, recipe, base),
        partial(_check_lists, recipe, base),
        *(partial(_check_folders, name, settings, base) for name, settings in sources.items()),
        *(partial(_check_source, name, settings, base, files) for name, settings in sources.items()),
        *(partial(_check_benchmark, name, held, base) for name, held in against.items() if name not in passed),
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [error for error in pool.map(_find_error, checks) if error is not None]
    return InputCheck(tuple(found), {name: files[name] for name in sources if name in files})


def list_read_sources(root: Path, recipe: Recipe, data: Mapping[str, object]) -> frozenset[str]:
    """Sources and benchmarks that a build of this recipe has read to their end in a folder, so that it needs no row of them.

    None where the folder is locked to another recipe.
    """
    if not is_bound(root) or read_lock(root) != select_shaping(data):
        return frozenset()
    against = recipe.decontaminate.against if recipe.decontaminate else {}
    indexed = (root / "steps/benchmarks/index/manifest.json").exists()
    steps = {name: "fetch" if recipe.source(name).fetches else "read" for name in recipe.sources}
    read = {name for name, step in steps.items() if (root / f"steps/{name}/{step}/manifest.json").exists()}
    return frozenset(read | (against.keys() if indexed else set()))


def resolve_root(root: str, base: Path) -> str:
    """A root as fsspec takes it; a relative one starts from `base`."""
    return root if "://" in root else str((base / root).resolve())


def is_copied(file: InputFile) -> bool:
    """Whether a file has to be copied to this machine before a row of it can be read."""
    local = "://" not in file.url or file.url.startswith(("file://", "local://"))
    return not local and not (file.on_hub and file.ranged)


def _find_error(check: Callable[[], object]) -> VlmillError | None:
    try:
        check()
    except VlmillError as error:
        return error
    return None


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


def _check_lists(recipe: Recipe, base: Path) -> None:
    """The files that filters read are there, and entries of opt-out lists are such."""
    wanted = {
        name: base / path
        for item in recipe.filters
        if isinstance(item, ReadsLists)
        for name, path in item.lists.items()
    }
    if missing := [str(path) for path in wanted.values() if not path.is_file()]:
        raise RecipeError(
            f"filters: there is no file {', '.join(missing)}; the path of a list is relative to the recipe"
        )
    OptOuts.given(wanted)


def _check_folders(name: str, settings: SourceSettings, base: Path) -> None:
    """Those of images and of what is served in place of addresses, where they are local."""
    places = {f"serve.{prefix}": folder for prefix, folder in settings.serve.items()}
    places |= {"images": settings.images} if settings.images else {}
    missing = {key: place for key, place in places.items() if "://" not in place and not (base / place).is_dir()}
    if missing:
        raise RecipeError(
            *(f"sources.{name}.{key}: there is no folder {(base / place).resolve()}" for key, place in missing.items())
        )


def _check_source(name: str, settings: SourceSettings, base: Path, files: dict[str, Sequence[InputFile]]) -> None:
    """List the files of a source and read from the first. `files` gets them."""
    root = resolve_root(settings.root, base)

    def look() -> None:
        files[name] = list_input_files(
            name, root, settings.files, subset=settings.subset, split=settings.split, ranged=settings.options.ranged
        )
        _check_file(settings.options, files[name][0])

    _explain_access(name, root, look)


def _check_benchmark(name: str, benchmark: Benchmark, base: Path) -> None:
    root, options = resolve_root(benchmark.root, base), benchmark.options
    for split, files in benchmark.splits(name).items():
        _explain_access(split, root, partial(_check_split, options, split, root, files))


def _check_split(source: Source, name: str, root: str, files: Split) -> None:
    listed = list_input_files(name, root, files.pattern, subset=files.subset, split=files.split, ranged=source.ranged)
    _check_file(source, listed[0])


def _explain_access(name: str, root: str, look: Callable[[], None]) -> None:
    """Whatever a file system or a network raises, as a SourceError about one source."""
    try:
        look()
    except VlmillError:
        raise
    except Exception as error:  # fsspec's file systems raise classes of many libraries
        raise SourceError(
            f"source {name!r}: {root} cannot be read ({type(error).__name__}: {error}); say where its files are with "
            f"--source {name.partition('.')[0]}=PATH"
        ) from error


def _check_file(source: Source, file: InputFile) -> None:
    """Read the first row of a file that gives a sample.

    Raises:
        SourceError: the file has not the form of its source, or no row at its start and in its middle gives a sample.
    """
    if is_copied(file):
        _read_byte(file)
        return
    with open_input(file) as path:
        if source.isolated:  # a row of it may be a document of many pages
            source.survey(path)
            return
        lost = list(_read_lost(source, path, 0))
        if lost and lost[-1].pages:
            return
        number = len(source.survey(path))
        lost += _read_lost(source, path, max(number // 2, FIRST)) if number > FIRST else ()
    if lost and not lost[-1].pages:
        raise SourceError(
            f"source {file.source!r}: none of {len(lost)} rows of {file.name} gives a sample; {explain_row(lost[0])}"
        )


def _read_lost(source: Source, path: Path, start: int) -> Iterator[SourceRow]:
    """Rows of a file up to the first that gives a sample, FIRST at most."""
    for row in islice(source.rows(path, start, start + FIRST), FIRST):
        yield row
        if row.pages:
            return


def explain_row(row: SourceRow) -> str:
    """Why a row gives no sample, and how it begins."""
    reason, detail = row.failed[0] if row.failed else ("empty_row", "nothing came of it")
    return f"row {row.row}: {reason}: {detail}" + (f" ({make_excerpt(row.excerpt)})" if row.excerpt else "")


def _read_byte(file: InputFile) -> None:
    """Read the first byte of a file elsewhere, to see that it can be read."""
    if file.on_hub:
        with hub.RemoteFile(file.url, file.size).open() as remote:
            remote.read(1)
        return
    with fsspec.open(file.url, "rb", block_size=1 << 16) as opened:
        opened.read(1)
