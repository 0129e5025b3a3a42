"""What can be known of a run before any work: whether all that a build would open is there and is what the recipe says.

`vlmill check` and the start of a build ask the same questions here. Nothing is written, and no address of an image is
asked for. How much there is, is estimated elsewhere (estimate.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from vlmill.pipeline.chat.encode import load_tokenizer
from vlmill.pipeline.chat.settings import find_format
from vlmill.pipeline.checks.benchmark_pictures import check_pictures
from vlmill.pipeline.checks.read_again import refuse_other_rows
from vlmill.pipeline.core.errors import BadFileError, RecipeError, SourceError, StoreError, VlmillError
from vlmill.pipeline.core.places import resolve_place
from vlmill.pipeline.decontaminate import Benchmark, Split
from vlmill.pipeline.fetch.opt_outs import OptOuts
from vlmill.pipeline.filters import CustomFilter, Filter, ReadsLists, TextQuality
from vlmill.pipeline.inputs.files import InputFile, list_input_files, open_input
from vlmill.pipeline.inputs.hub_files import HubUnreachableError, RemoteFile, is_hub
from vlmill.pipeline.inputs.ranges import find_filesystem
from vlmill.pipeline.recipe.bad_files import explain_bad_file
from vlmill.pipeline.recipe.custom_sources import CustomSource
from vlmill.pipeline.recipe.lock import is_bound, read_lock, select_shaping
from vlmill.pipeline.recipe.schema import Recipe, SourceSettings
from vlmill.pipeline.recipe.validate import names_files
from vlmill.pipeline.signals.endpoint import read_key
from vlmill.pipeline.signals.weights import check_weights
from vlmill.pipeline.sources import Source

AT_ONCE = 8
"""Sources and benchmarks that are looked at together, since most of the time is spent waiting for the network."""


@dataclass(frozen=True)
class InputCheck:
    """What was found of all that a build would open."""

    errors: tuple[VlmillError, ...]
    files: Mapping[str, Sequence[InputFile]] = field(default_factory=dict)  # of each source that can be read


@dataclass(frozen=True)
class EarlierWork:
    """What a folder that a build of the same recipe has begun already knows of sources and benchmarks."""

    surveyed: frozenset[str] = frozenset()  # all their files were opened; the build lists them again by itself
    read: frozenset[str] = frozenset()  # sources whose images were read or fetched as well


def check_inputs(
    recipe: Recipe, base: Path, passed: Collection[str] = (), earlier: EarlierWork | None = None
) -> InputCheck:
    """Look at all that a build of a recipe would open. Trouble with one thing hides no other.

    Of each source and benchmark the first row is read, or of a file that would have to be copied the first byte.

    Args:
        recipe: One that is valid, or as much of one as can be read.
        base: The folder that its relative paths start from.
        passed: Sources and benchmarks that are not looked at.
        earlier: What the run's folder knows of some of them, so that it need not be asked.
    """
    files, earlier = dict[str, Sequence[InputFile]](), earlier or EarlierWork()
    against = recipe.decontaminate.against if recipe.decontaminate else {}
    sources = {name: settings for name, settings in recipe.sources.items() if name not in passed}
    nameless = {name for name, one in sources.items() if not names_files(one)}
    nameless |= {name for name, one in against.items() if not names_files(one)}
    known = {*passed, *earlier.surveyed, *nameless}  # that these have no files is a fault of the recipe itself
    roots = {name: root for name, root in recipe.roots().items() if name not in known}
    commits, refused, lost = _pin_roots({name: root for name, root in roots.items() if is_hub(root)})
    roots = {name: commits.get(name, resolve_place(root, base)) for name, root in roots.items() if name not in lost}
    places = {
        name: partial(_check_source, name, sources[name], root, files)
        for name, root in roots.items()
        if name in sources
    }
    places |= {
        name: partial(_check_benchmark, name, against[name], root) for name, root in roots.items() if name in against
    }
    checks: list[Callable[[], object]] = [
        partial(check_tokenizer, recipe, base),
        *(partial(check_lists, one, base) for one in recipe.filters if not isinstance(one, CustomFilter)),
        *(filter_.made_by for filter_ in recipe.filters if isinstance(filter_, TextQuality)),
        *(partial(check_weights, signal, f"signals.{name}", base) for name, signal in recipe.signals.items()),
        *(partial(read_key, one.api_key, f"signals.{name}") for name, one in recipe.list_asking_signals().items()),
        *(partial(_check_place, recipe, name, check) for name, check in places.items()),
    ]
    asked = {name: one for name, one in sources.items() if name not in earlier.read}
    checks += [partial(_check_folders, name, _list_served(one), base) for name, one in asked.items()]
    images = {name: partial(_check_folders, name, {"images": one.images}, base) for name, one in asked.items()}
    absent = {name: error for name, check in images.items() if (error := _find_error(check))}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [error for error in pool.map(_find_error, checks) if error is not None]
    found += absent.values()
    readable = {name: files[name] for name in sources if name in files and name not in absent}
    return InputCheck((*found, *refused), readable)


def _pin_roots(roots: Mapping[str, str]) -> tuple[dict[str, str], list[VlmillError], frozenset[str]]:
    """Ask the Hub for the commit of each repository once, however many sources and benchmarks are in it.

    Of many repositories one is asked first. If the Hub does not answer, the others are not asked: a request is repeated
    for some 20 s, and the answer would be the same for each.

    Returns:
        Name -> root at a commit; errors; and the names that have no root because of them.
    """
    users = dict[str, list[str]]()
    for name, root in roots.items():
        users.setdefault(_find_repository(root), []).append(name)
    repositories, answers = list(users), dict[str, str | VlmillError]()
    first = repositories[:1] if len(repositories) > AT_ONCE else []
    answers |= {repository: _pin_repository(repository) for repository in first}
    if not any(isinstance(answer, HubUnreachableError) for answer in answers.values()):
        others = repositories[len(first) :]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers |= zip(others, pool.map(_pin_repository, others), strict=True)
    pinned, errors = dict[str, str](), list[VlmillError]()
    for repository, answer in answers.items():
        if isinstance(answer, VlmillError):
            errors.append(type(answer)(f"{', '.join(users[repository])}: {answer}"))
        else:
            pinned |= {name: _join_root(answer, roots[name]) for name in users[repository]}
    if skipped := [name for repository in repositories if repository not in answers for name in users[repository]]:
        errors.append(
            SourceError(f"{len(skipped)} more sources are on the Hub and were not looked at: {', '.join(skipped)}")
        )
    return pinned, errors, frozenset(roots.keys() - pinned.keys())


def _find_repository(root: str) -> str:
    """The repository of a root at its revision; of a malformed root itself, which is refused when it is asked for."""
    from vlmill.pipeline.inputs import hub  # noqa: PLC0415 - imports huggingface_hub

    try:
        return hub.split_root(root)[0]
    except SourceError:
        return root


def _join_root(repository: str, root: str) -> str:
    """The folder of a root in its repository at a commit."""
    from vlmill.pipeline.inputs import hub  # noqa: PLC0415 - imports huggingface_hub

    return f"{repository}/{hub.split_root(root)[1]}".rstrip("/")


def _pin_repository(repository: str) -> str | VlmillError:
    from vlmill.pipeline.inputs import hub  # noqa: PLC0415 - imports huggingface_hub

    try:
        return hub.pin_revision(repository)
    except VlmillError as error:
        return error


def find_earlier_work(root: Path, recipe: Recipe, data: Mapping[str, object]) -> EarlierWork:
    """What of a recipe's sources and benchmarks a folder holds.

    Nothing where it is locked to another recipe, or its lock is damaged, which the build says unless changes are
    accepted.
    """
    try:
        if not is_bound(root) or read_lock(root) != select_shaping(data):
            return EarlierWork()
    except StoreError:
        return EarlierWork()
    splits = recipe.decontaminate.against if recipe.decontaminate else {}

    def is_done(folder: str) -> bool:
        return (root / "steps" / folder / "manifest.json").exists()

    last = {name: "fetch" if recipe.source(name).fetches else "read" for name in recipe.sources}
    surveyed = {name for name in recipe.sources if is_done(f"{name}/survey")}
    held = {
        name for name, one in splits.items() if all(is_done(f"benchmarks/{split}/survey") for split in one.splits(name))
    }
    return EarlierWork(
        frozenset(surveyed | held), frozenset(name for name, step in last.items() if is_done(f"{name}/{step}"))
    )


def is_copied(file: InputFile) -> bool:
    """Whether a file has to be copied to this machine before a row of it can be read."""
    return not file.on_disk and not file.ranged


def _find_error(check: Callable[[], object]) -> VlmillError | None:
    try:
        check()
    except VlmillError as error:
        return error
    return None


def check_tokenizer(recipe: Recipe, base: Path) -> None:
    """Read the tokenizer of a recipe that names one.

    Raises:
        RecipeError: there is no such file, or it is no tokenizer.
    """
    if recipe.tokenizer is None:
        return
    path = base / recipe.tokenizer
    if not path.is_file():
        raise RecipeError(
            f"tokenizer: there is no file {path}; give the path of a tokenizer.json, relative to the recipe"
        )
    try:
        Tokenizer.from_file(os.fspath(path))
    except Exception as error:  # tokenizers raises no other class
        raise RecipeError(f"tokenizer: {path} is no tokenizer.json: {error}") from error
    load_tokenizer(path, find_format(recipe.chat))


def check_lists(filter_: Filter, base: Path) -> None:
    """Look for the files that a filter reads, and at the entries of opt-out lists.

    Raises:
        RecipeError: a file is not there, or an entry of a list is none.
    """
    wanted = {name: base / path for name, path in filter_.lists.items()} if isinstance(filter_, ReadsLists) else {}
    if missing := [str(path) for path in wanted.values() if not path.is_file()]:
        raise RecipeError(
            f"filters: there is no file {', '.join(missing)}; the path of a list is relative to the recipe"
        )
    OptOuts.given(wanted)


def _list_served(settings: SourceSettings) -> dict[str, str]:
    """The folders of what is served in place of addresses, by their keys."""
    return {f"serve.{prefix}": folder for prefix, folder in settings.serve.items()}


def _check_folders(name: str, places: Mapping[str, str | None], base: Path) -> None:
    """Folders of images, or archives of them, that a source names by these keys, where they are local."""
    resolved = {key: resolve_place(place, base) for key, place in places.items() if place}
    faults = list[str]()
    for key, place in resolved.items():
        outer, _, file = place.rpartition("::")
        if "://" not in place and not Path(place).is_dir():
            faults.append(f"sources.{name}.{key}: there is no folder {place}")
        elif "://" in outer and "://" not in file and not Path(file).is_file():
            faults.append(f"sources.{name}.{key}: there is no file {file}")
    if faults:
        raise RecipeError(*faults)


def _check_place(recipe: Recipe, name: str, check: Callable[[], object]) -> None:
    """Look at a source or benchmark; an error of its files names it, and its kind."""
    with explain_bad_file(recipe, name):
        check()


def _check_source(name: str, settings: SourceSettings, root: str, files: dict[str, Sequence[InputFile]]) -> None:
    """List the files of a source and read from one, from code of a user more than once. `files` gets them."""

    def look() -> None:
        files[name] = list_input_files(
            name, root, settings.files, subset=settings.subset, split=settings.split, ranged=settings.options.ranged
        )
        sound = find_sound_file(settings, files[name])
        if isinstance(settings.options, CustomSource) and not is_copied(sound):
            with open_input(sound) as path:
                refuse_other_rows(settings.options, path)

    _explain_access(name, root, look)


def find_sound_file(settings: SourceSettings, files: Sequence[InputFile]) -> InputFile:
    """The first of a source's files, which has at least one; where bad ones are skipped, the first that is not bad.

    Its first row is read.

    Raises:
        SourceError: it cannot be read, or where bad files are skipped all are bad.
    """
    bad = list[BadFileError]()
    for file in files:
        try:
            _check_file(settings.options, file)
        except BadFileError as error:
            bad.append(error)
            if settings.on_bad_file == "error":
                break
        else:
            return file
    raise bad[0]


def _check_benchmark(name: str, benchmark: Benchmark, root: str) -> None:
    for split, files in benchmark.splits(name).items():
        _explain_access(split, root, partial(_check_split, benchmark.options, name, split, root, files))


def _check_split(source: Source, benchmark: str, name: str, root: str, files: Split) -> None:
    listed = list_input_files(name, root, files.pattern, subset=files.subset, split=files.split, ranged=source.ranged)
    _check_file(source, listed[0])
    if not is_copied(listed[0]) and not source.isolated:
        check_pictures(source, benchmark, name, root, listed[0])


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
    """Read the first row of a file; whether it gives a sample is not asked, since a row that does not is data.

    Raises:
        SourceError: the file has not the form of its source.
    """
    if is_copied(file):
        _read_byte(file)
        return
    with open_input(file) as path:
        if source.isolated:  # a row of it may be a document of many pages
            source.survey(path)
        else:
            next(iter(source.rows(path, range(1))), None)


def _read_byte(file: InputFile) -> None:
    """Read the first byte of a file elsewhere, to see that it can be read."""
    if file.on_hub:
        with RemoteFile(file.url, file.size).open() as remote:
            remote.read(1)
        return
    filesystem, path = find_filesystem(file.url)
    with filesystem.open(path, "rb", block_size=1 << 16) as opened:
        opened.read(1)
