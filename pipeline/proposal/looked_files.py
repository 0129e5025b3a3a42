"""Which files of a place `vlmill new` looks at, and what rows of all of them say together; see proposal.py.

The first file may be small, or unlike the others. So others from all over the list are looked at as well, always the
same ones, and a kind is judged by the rows of all. A file that it makes nothing of is left out, with what is said of
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.shown import describe_more
from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.proposal.attempts import (
    ENOUGH,
    LISTS,
    TRIED,
    Attempt,
    choose_attempt,
    fits_rows,
    merge_attempts,
    name_attempt,
    try_kind,
    try_kinds,
)
from vlmill.pipeline.proposal.columns import Cells, name_columns, recognise_columns, recognise_nested
from vlmill.pipeline.proposal.document_columns import name_lists, recognise_documents, recognise_with_id
from vlmill.pipeline.proposal.image_ids import find_image_ids
from vlmill.pipeline.proposal.image_marks import add_mark, find_mark
from vlmill.pipeline.proposal.place_names import describe_splits, find_split_column, spread_names
from vlmill.pipeline.sources.files import spell_path
from vlmill.pipeline.sources.formats.csv_rows import DELIMITERS, has_header
from vlmill.pipeline.sources.formats.packed import strip_packing
from vlmill.pipeline.sources.formats.records import is_table, read_column, read_first_records
from vlmill.pipeline.sources.image_places import get_absolute

FILES, MOST = 5, 20
"""Files that are looked at, and at most where these have fewer than TRIED rows together."""

READ, COPIED, RANGED = 1 << 29, 1 << 26, 2
"""Of files behind the first: bytes of texts that are gone through here, bytes that are copied from elsewhere, and
files elsewhere that are read by range."""

NO_HEADER = "the first line is a row and names no columns: they are column_1, column_2 and so on"

DIFFERING = 5
"""Columns that are named where files differ in them."""


@dataclass(frozen=True)
class Opened:
    """What the files that were looked at gave."""

    best: Attempt | None  # on all of them that it reads
    others: Sequence[Attempt]
    file: str  # the first that `best` reads, or the last that was looked at
    rows: Sequence[Mapping[str, Any]]  # of this file
    first: Attempt | None  # `best` on this file alone
    cells: Cells  # of all files
    refused: Mapping[str, str]  # files that are to be left out -> why
    notes: Sequence[str] = ()  # what a person should know of headers, splits, and how files differ
    shares: Mapping[str, Attempt] = field(default_factory=dict)  # file -> `best` on it


@dataclass
class _Look:
    """One file that was looked at."""

    file: InputFile
    rows: Sequence[Mapping[str, Any]] = ()
    tried: dict[str, Attempt] = field(default_factory=dict)  # by kind and options
    splits: tuple[str, Sequence[Any]] | None = None  # the column that names splits, and what is in it
    headless: bool = False

    @property
    def fitting(self) -> list[Attempt]:
        """What makes samples of enough rows."""
        return [one for one in self.tried.values() if one.share >= ENOUGH]

    @property
    def why(self) -> str:
        """Why nothing does."""
        return max(self.tried.values(), key=lambda one: one.rank).why if self.tried else "it holds no rows"

    @property
    def count(self) -> int:
        """Rows that were looked at."""
        return max((one.tried for one in self.tried.values()), default=0)


def open_files(root: str, files: Sequence[InputFile], suffix: str, named: Mapping[str, Sequence[str]] | None) -> Opened:
    """Try kinds on rows of several files, and choose the one that reads the most of all.

    Args:
        root: where the files are.
        files: those of one format, in order.
        suffix: how their names end.
        named: what columns hold, if somebody says it.

    Raises:
        SourceError: a column that is named is in none of these files.
    """
    looks, fitting = list[_Look](), dict[str, Attempt]()
    for file in choose_files(files, suffix):
        enough = len(looks) >= FILES and sum(look.count for look in looks) >= TRIED
        if enough or (len(looks) >= FILES and not fitting and named is None):
            break
        looks.append(_look_at(root, file, suffix, list(fitting.values()), named))
        fitting |= {name_attempt(one): one for one in looks[-1].fitting}
    cells = _join_cells(root, looks)
    together = dict[str, Attempt]()
    if named is not None or len(looks) > 1:
        documents = named is None and any(one.kind in LISTS for one in fitting.values())
        options = recognise_documents(cells) if documents else _list_options(cells, named)
        made = (Attempt(kind, one, 0, ()) for kind, one in options)
        together = {name_attempt(one): one for one in made}
    for look in looks:
        if missing := [one for name, one in {**fitting, **together}.items() if name not in look.tried]:
            with open_input(as_read(look.file)) as path:
                look.tried |= _name_all(try_kind(path, one.kind, one.options) for one in missing)
            fitting |= {name_attempt(one): one for one in look.fitting}
    return _judge_looks(looks, _prefer_joined(looks, list(fitting), together), cells, len(files), suffix)


def _prefer_joined(looks: Sequence[_Look], fitting: Sequence[str], together: Mapping[str, Attempt]) -> list[str]:
    """Without what columns seem to be for by one file, where it is known by all, and that fits."""
    if not any(_merge_looks(name, looks, len(looks)).share >= ENOUGH for name in fitting if name in together):
        return list(fitting)
    kinds = {name: looks[0].tried[name].kind for name in fitting}
    return [name for name in fitting if name in together or kinds[name] not in {"table", "web_table"}]


def as_read(file: InputFile) -> InputFile:
    """The file, read by range where it is a Parquet file elsewhere."""
    return replace(file, ranged=file.name.endswith(".parquet"))


def choose_files(files: Sequence[InputFile], suffix: str) -> Iterator[InputFile]:
    """The first file, then others from all over the list, as far as they may be read; of PDFs no more than FILES."""
    few = spread_names(files, FILES)
    more = [one for one in spread_names(files, MOST) if one not in few] if suffix != ".pdf" else []
    gone_through, copied, ranged = READ, COPIED, RANGED
    for place, file in enumerate([*few, *more]):
        if place and file.on_disk:
            gone_through -= 0 if strip_packing(suffix) in {".parquet", ".arrow", ".tar", ".pdf"} else file.size
        elif place and as_read(file).ranged:
            ranged -= 1
        elif place:
            copied -= file.size or COPIED + 1
        if min(gone_through, copied, ranged) >= 0:
            yield file
        else:
            return


def note_lost_images(opened: Opened, images: str | None) -> Iterator[str]:
    """What a person should know where some of the files that rows name are not where most are.

    Args:
        opened: the files that were looked at.
        images: the folder that paths start from; of an archive nothing is said.
    """
    if images is None or "://" in images:
        return
    named = {
        name: [one for one in dict.fromkeys(tried.paths) if "://" not in one] for name, tried in _list_parts(opened)
    }
    lost = {name: [path for path in paths if not _is_there(images, path)] for name, paths in named.items()}
    for name, paths in lost.items():
        if paths and len(paths) == len(named[name]) and len(lost) > 1:
            yield (
                f"no image file that {name} names, such as {paths[0]}, is below {images}, where those of other files "
                "are: where its images lie elsewhere it has to be a source of its own"
            )
    some = [path for name, paths in lost.items() for path in paths if len(paths) < len(named[name])]
    if some:
        total = sum(map(len, named.values()))
        yield f"{len(some)} of {total} image files that were looked for, such as {some[0]}, are not below {images}"


def _list_parts(opened: Opened) -> Iterable[tuple[str, Attempt]]:
    return ((name, tried) for name, tried in opened.shares.items() if name not in opened.refused)


def _is_there(images: str, path: str) -> bool:
    return Path(get_absolute(path) or Path(images, spell_path(path)[-1])).is_file()


def _look_at(
    root: str,
    file: InputFile,
    suffix: str,
    known: Sequence[Attempt],
    named: Mapping[str, Sequence[str]] | None,
) -> _Look:
    """Read the first rows of a file: as one of the kinds that fit other files, or as any; of named columns none yet."""
    look = _Look(file)
    with open_input(as_read(file)) as path:
        try:
            look.rows = read_first_records(path, TRIED) if suffix not in {".tar", ".pdf"} else ()
        except SourceError as error:
            look.tried |= _name_all([Attempt("table", {}, 0, (), why=str(error))])
        cells = Cells(look.rows, find_image_ids(root, look.rows), file.name)
        look.tried |= _name_all(try_kind(path, one.kind, one.options) for one in known)
        if named is None and not look.fitting:
            look.tried |= _name_all(_try_all(path, suffix, cells))
        if column := find_split_column(cells.rows):
            try:
                look.splits = column, read_column(path, column)
            except SourceError:  # a part of the file is damaged, which a build says
                look.splits = column, cells.list_values(column)
        look.headless = strip_packing(suffix) in DELIMITERS and not has_header(path)
    return look


def _try_all(path: Path, suffix: str, cells: Cells) -> list[Attempt]:
    """All kinds on one file; what finds images by ids goes before what does not."""
    tried = [*try_kinds(path, strip_packing(suffix))]
    tried += [try_kind(path, kind, one) for kind, one in recognise_columns(cells)]
    if not fits_rows([one for one in tried if "caption" not in one.options]):
        documents = [try_kind(path, kind, one) for kind, one in recognise_documents(cells)]
        tried = documents if fits_rows(documents) else [*tried, *documents]
    fits = fits_rows(tried)
    # a name beside a conversation is no caption, and what reads all rows goes before what loses some
    if all(one.share < 1 for one in tried if "caption" not in one.options):
        nested = [(kind, one) for kind, one in recognise_nested(cells) if not fits or "turns" in one]
        tried += [try_kind(path, kind, one) for kind, one in nested]
    marked = [pair for one in tried for pair in [*add_mark(one.kind, one.options, find_mark(cells.rows))][:-1]]
    tried += [try_kind(path, kind, options) for kind, options in marked]
    by_ids = [one for one in tried if _is_by_ids(one)]
    return by_ids if fits_rows(by_ids) else tried


def _is_by_ids(one: Attempt) -> bool:
    return one.kind == "table" and "file" in one.options


def _name_all(attempts: Iterable[Attempt]) -> dict[str, Attempt]:
    return {name_attempt(one): one for one in attempts}


def _list_options(cells: Cells, named: Mapping[str, Sequence[str]] | None) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Kinds and options for columns by their names, or as somebody names them."""
    found = recognise_columns(cells) if named is None else name_columns(cells, named)
    if named is not None and not {"texts", "url"}.isdisjoint(named):
        found = iter([name_lists(cells, named)])
    elif named is not None and named.keys() == {"id"}:
        found = iter([*found, *recognise_with_id(cells, named["id"][0])])
    mark = find_mark(cells.rows)
    return [pair for kind, options in found for pair in add_mark(kind, options, mark)]


def _join_cells(root: str, looks: Sequence[_Look]) -> Cells:
    """The rows of all files that were looked at."""
    rows = [row for look in looks for row in look.rows]
    others = len(looks) - 1
    where = looks[0].file.name + (f" and {others} other {'file' if others == 1 else 'files'}" if others else "")
    return Cells(rows, find_image_ids(root, rows), where)


def _judge_looks(looks: Sequence[_Look], fitting: Sequence[str], cells: Cells, there: int, suffix: str) -> Opened:
    """The kind that reads the most rows of all, and the files that it does not read."""
    whole = [_merge_looks(name, looks, there) for name in fitting]
    by_ids = [one for one in whole if _is_by_ids(one)]
    best = choose_attempt(by_ids) or choose_attempt(whole)
    if best is None and whole:  # files are of several kinds: that of the most samples
        best = max(whole, key=lambda one: (len(one.pages), one.rank))
    others = [one for look in looks for one in look.tried.values() if best is None or name_attempt(one) not in fitting]
    if best is None:
        return Opened(None, others, looks[-1].file.name, looks[-1].rows, None, cells, {})
    name = name_attempt(best)
    read = [look for look in looks if look.tried[name].pages]
    one_row = all(look.count == 1 for look in read)
    refused = {
        look.file.name: _explain_refusal(best, look)
        for look in looks
        if look not in read and not _has_bad_rows(best, look, one_row=one_row)
    }
    kept = [look for look in looks if look.file.name not in refused]
    others += [one for one in whole if one is not best]
    shares = {look.file.name: look.tried[name] for look in looks}
    notes = list(_list_notes(kept, suffix))
    if any(look.fitting for look in looks if look.file.name in refused) and there > len(looks):
        notes.append(f"of {there:,} files {len(looks)} were looked at: others may be like those that are left out")
    best, first = _merge_looks(name, kept, there), read[0].tried[name]
    return Opened(best, others, read[0].file.name, read[0].rows, first, cells, refused, notes, shares)


def _merge_looks(name: str, looks: Sequence[_Look], there: int) -> Attempt:
    """A kind on these files; where it cannot read one at all, the rows of that count as lost."""
    tried = [(look, look.tried[name]) for look in looks]
    return merge_attempts([(look.file.name, replace(one, tried=one.tried or look.count)) for look, one in tried], there)


def _has_bad_rows(best: Attempt, look: _Look, *, one_row: bool) -> bool:
    """Whether a file of which no row gives a sample is like the others all the same: its rows are at fault.

    Where each of the others has one row, so it is of any file of one row that nothing else reads.
    """
    if look.fitting:
        alike = {(one.kind, *sorted(one.options)) for one in look.fitting}
        return look.tried[name_attempt(best)].tried > 0 and (best.kind, *sorted(best.options)) in alike
    return one_row and look.tried[name_attempt(best)].tried == 1


def _explain_refusal(best: Attempt, look: _Look) -> str:
    """Why a file is left out."""
    if look.fitting:
        why, other = look.tried[name_attempt(best)].why or "it gives no sample", choose_attempt(look.fitting)
        kind = other.kind if other else look.fitting[0].kind
        return f"its rows are not like those of the others ({why}); kind {kind} reads them, as a source of their own"
    return f"no kind reads it ({look.why})"


def _list_notes(kept: Sequence[_Look], suffix: str) -> Iterator[str]:
    """What a person should know of columns of splits, of headers, and of columns that some files lack."""
    splits = [look.splits for look in kept if look.splits]
    for column in dict.fromkeys(column for column, _ in splits):
        yield from describe_splits(column, [one for name, values in splits if name == column for one in values])
    if any(look.headless for look in kept):
        yield NO_HEADER
    wide = [look for look in kept if is_table(f"rows{suffix}") or look.count >= FILES]
    found = Counter(column for look in wide for column in {name for row in look.rows for name in row})
    lacking = [f"{column} is in {count} of {len(wide)}" for column, count in found.items() if count < len(wide)]
    if lacking:
        more = describe_more(len(lacking) - DIFFERING, "column")
        yield f"files differ in their columns: {', '.join(lacking[:DIFFERING])}{more}"
