"""How much a run will hold and how long it will take, from what a few rows of each source cost.

Amounts are extrapolated by rows: what a partition of no rows costs, times the partitions, and what a row costs beyond
that, times the rows. `extrapolate_costs` does so for any costs that were measured, whoever measured them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from vlmill.pipeline.checks.check import check_lists, check_tokenizer, is_copied
from vlmill.pipeline.checks.looked_rows import LookedFile, open_looked, share_rows
from vlmill.pipeline.checks.lost_files import warn_of_other_folders
from vlmill.pipeline.checks.row_counts import count_partitions, count_rows, count_taken
from vlmill.pipeline.checks.sample_costs import Child, Costs, MeasuredRows, SourceWork, measure_rows
from vlmill.pipeline.checks.signal_costs import ClustersEstimate, SignalEstimate, list_countable
from vlmill.pipeline.core.errors import BadFileError, SourceError, VlmillError, list_errors
from vlmill.pipeline.core.places import resolve_place
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.dedupe.candidates import grow_measured, grow_pairs
from vlmill.pipeline.filters import CustomFilter, Filter, ReadsLists, reads_tables
from vlmill.pipeline.inputs.files import InputFile, open_input
from vlmill.pipeline.recipe.bad_files import explain_bad_file
from vlmill.pipeline.recipe.fetch_order import list_filters_before_fetch
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.signals.ask import Ask
from vlmill.pipeline.steps.token_lengths import make_length_step

LARGEST = 1 << 30
"""Bytes of a file that is read in full to count its rows, where its form needs that, and of one that is copied here."""
LOOKED = 8
"""Files whose first rows are read at most until one gives a sample."""
REQUEST_SECONDS = 1.0
"""An assumption: how long one request for an image takes. `threads` of the fetch block are made at once by a worker."""


@dataclass(frozen=True)
class AskedEstimate:
    """About what a signal asks a server, at most: content that repeats is asked once."""

    requests: int  # to the server
    input_tokens: int  # of all requests, images included
    output_tokens: int  # at most
    cost: float | None = None  # where the recipe says a price


def add_up_asked(found: Sequence[AskedEstimate]) -> AskedEstimate:
    """The sum over sources."""
    costs = [one.cost for one in found if one.cost is not None]
    return AskedEstimate(
        sum(one.requests for one in found),
        sum(one.input_tokens for one in found),
        sum(one.output_tokens for one in found),
        sum(costs) if costs else None,
    )


@dataclass(frozen=True)
class SourceEstimate:
    """About how much a source holds before filters, and what a build makes of it; None where that is not known."""

    source: str  # its name
    files: int  # how many match
    bytes: int  # of all its files
    rows: int | None  # counted, or by the bytes of those files that were counted; with the recipe's limit
    samples: int | None  # before filters
    images: int | None  # that samples show, an image as often as it is shown
    requests: int | None  # for images that are addresses and that no folder serves
    image_bytes: int | None  # of images as they came
    table_bytes: int | None  # of all that a build keeps besides shards, these images among it
    shard_bytes: Mapping[str, int | None]  # by image policy, after filters and before duplicates go
    tokens: Mapping[str, int | None]  # in these shards, by image policy
    units: Mapping[str, int | None]  # that each signal would be asked about
    picture_pairs: int | None  # of pictures that dedupe compares, of this source alone; 0 without dedupe
    seconds: Mapping[str, float]  # of one worker, by step; `fetch` is assumed, `pairs` are those of dedupe
    measured: int  # rows that were run through the steps
    unreadable: int  # of these
    rests_on: str  # what was measured, such as `8 rows of quiz.parquet`
    asked: Mapping[str, AskedEstimate] = field(default_factory=dict)  # of servers, by signal
    warnings: tuple[str, ...] = ()  # of image files, of hosts that are not asked, of coordinates without a name
    faults: tuple[str, ...] = ()  # where none of the image files is there that rows name


@dataclass(frozen=True)
class RunEstimate:
    """The estimates of all sources, and what they come to. A sum is None where a part of it is not known."""

    sources: tuple[SourceEstimate, ...]  # each on its own
    workers: int  # processes that the hours are for
    stage_tokens: Mapping[str, int | None] = field(default_factory=dict)  # of the sequences of a stage, once through
    free: int | None = 0  # bytes on the disk of the run's folder; None: it has no end
    signals: tuple[SignalEstimate, ...] = ()  # what each would be asked
    clusters: tuple[ClustersEstimate, ...] = ()  # what grouping vectors takes

    def add_up(self, name: str) -> int | None:
        """The sum of a field over all sources."""
        return add_known([getattr(one, name) for one in self.sources])

    def add_up_policies(self, name: str) -> dict[str, int | None]:
        """The same of a field by image policy."""
        policies = dict.fromkeys(policy for one in self.sources for policy in getattr(one, name))
        return {policy: add_known([getattr(one, name).get(policy) for one in self.sources]) for policy in policies}

    @property
    def needed(self) -> int:
        """Bytes of disk, as far as they are known: tables and shards."""
        shards = (size for one in self.sources for size in one.shard_bytes.values())
        return sum(size or 0 for size in (*shards, *(one.table_bytes for one in self.sources)))

    @property
    def hours(self) -> float:
        """Of all workers, as far as the work is known."""
        return sum(second for one in self.sources for second in one.seconds.values()) / self.workers / 3600

    @property
    def totals(self) -> dict[str, object]:
        """All sums by name."""
        names = ("files", "bytes", "rows", "samples", "images", "requests", "image_bytes", "table_bytes")
        sums: dict[str, object] = {name: self.add_up(name) for name in names}
        split = {name: self.add_up_policies(name) for name in ("shard_bytes", "tokens")}
        return {
            **sums,
            **split,
            "asked": {name: asdict(one) for name, one in self.asked.items()},
            "needed": self.needed,
            "hours": self.hours,
        }

    @property
    def asked(self) -> dict[str, AskedEstimate]:
        """What signals ask servers, by signal, as far as it is known."""
        found = [(name, asked) for one in self.sources for name, asked in one.asked.items()]
        names = dict.fromkeys(name for name, _ in found)
        return {name: add_up_asked([asked for other, asked in found if other == name]) for name in names}


def add_known(numbers: Sequence[int | None]) -> int | None:
    """The sum; None where one of them is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def extrapolate_costs(measured: Costs, empty: Costs, rows: int, partitions: int) -> Costs:
    """The costs of `rows` rows in so many partitions, from those of a few. Pure.

    Args:
        measured: Of at least one row, in one partition.
        empty: Of a partition of no rows.
        rows: How many there are.
        partitions: How many they are cut into.
    """

    def extrapolate_amounts(few: Mapping[str, float], none: Mapping[str, float]) -> dict[str, float]:
        fixed = {name: min(none.get(name, 0), value) for name, value in few.items()}
        return {name: fixed[name] * partitions + (few[name] - fixed[name]) * rows / measured.rows for name in few}

    return Costs(
        rows, extrapolate_amounts(measured.amounts, empty.amounts), extrapolate_amounts(measured.seconds, empty.seconds)
    )


def extrapolate_pairs(amounts: Mapping[str, float], rows: int, measured: int, dedupe: Dedupe | None) -> float:
    """The pairs of pictures that dedupe compares among `rows` rows, from those among the rows measured. Pure.

    A picture is as often like another wherever it comes from, so each meets more the more there are, up to `cap`
    neighbours of each place where it is filed, and up to half of `cap` that are measured.
    """
    neighbours = amounts.get("neighbours", 0)
    if not (dedupe and neighbours):
        return 0
    times = rows / measured
    grown = grow_pairs(neighbours, dedupe.cap, times)
    candidates = amounts["picture_candidates"] / amounts["pictures"]
    return amounts["picture_pairs"] * times * grow_measured(candidates, dedupe.nearest, grown)


def _time_pair(measured: MeasuredRows) -> float:
    """Seconds that comparing one pair takes, beyond what comparing none takes."""
    found, fixed = measured.costs.seconds.get("pairs", 0.0), measured.empty.seconds.get("pairs", 0.0)
    return max(found - fixed, 0.0) / max(measured.costs.amounts.get("picture_pairs", 0), 1)


def estimate_source(
    recipe: Recipe,
    base: Path,
    name: str,
    files: Sequence[InputFile],
    child: Child,
) -> SourceEstimate:
    """Run a few rows of a source through the steps of a build, and say what follows for all.

    They are those of its first file, and of others from all over the list (looked_rows.py). Where none of them gives a
    sample it begins with the next file, up to LOOKED files. Bad files that the recipe skips are passed over.

    Args:
        recipe: What would be built.
        base: Where its relative paths start.
        name: Of the source.
        files: Its input files.
        child: From `sample_costs.open_child`.

    Raises:
        SourceError: the first rows cannot be read, or a step fails over them.
    """
    skips, left = recipe.sources[name].on_bad_file == "skip", LOOKED
    kept, bad = None, None
    for file in files:
        try:
            found = _measure_file(recipe, base, name, files, file, child)
        except BadFileError as error:
            if not skips:
                raise
            bad = bad or error
            continue
        kept, left = kept or found, left - 1
        if found.measured > found.unreadable:
            return found
        if not left or is_copied(file):
            break
    if kept is None:
        raise bad or SourceError(f"source {name!r}: it has no files")
    return kept


def _measure_file(
    recipe: Recipe, base: Path, name: str, files: Sequence[InputFile], first: InputFile, child: Child
) -> SourceEstimate:
    """What follows from rows of a source's files, one above all, for all of them. Raises as `estimate_source`."""
    source = recipe.source(name)
    if is_copied(first) and first.size > LARGEST:
        return _describe_source(recipe, name, files, first, None, MeasuredRows(Costs()))
    try:
        with explain_bad_file(recipe, name), open_input(first) as path, ExitStack() as opened:
            counted = first.size <= LARGEST or source.ranged(first.name) or first.name.endswith(".tar")
            number = len(source.survey(path)) if counted else None
            work = make_work(recipe, base, name, first)
            looked, there = [LookedFile(first.name, path, 1 << 62, first.size)], None
            if number is not None:
                looked = opened.enter_context(open_looked(recipe, name, files, first, path, number))
                there = count_rows(recipe, name, files, first, looked)
            measured = measure_rows(child, work, looked)
            apart = warn_of_other_folders(name, source, files, work.images)
    except VlmillError:
        raise
    except Exception as error:  # the child process has the trace; file systems raise classes of many libraries
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        kind, _, said = reason.partition(": ")
        if kind.startswith(VlmillError.__module__):  # which says all of it already
            raise SourceError(said) from error
        raise SourceError(f"source {name!r}: the first rows of {first.name} cannot be built: {reason}") from error
    lost = int(measured.costs.amounts.get("unreadable", 0))
    if 2 * lost > measured.costs.rows:
        said = f"source {name}: {lost} of the {measured.costs.rows} rows that were looked at give no sample"
        apart = (*apart, f"{said} ({measured.lost})")
    measured = replace(measured, warnings=(*measured.warnings, *apart))
    used = len(share_rows(looked, measured.costs.rows))
    return _describe_source(recipe, name, files, first, there, measured, used)


def make_work(recipe: Recipe, base: Path, name: str, file: InputFile) -> SourceWork:
    """What a build does with the rows of a source, as far as one partition of it is enough to do it.

    Filters whose code may not run, and what the check of the inputs finds fault with, are left aside.
    """
    settings = recipe.sources[name]
    filters = [item for item in recipe.filters if _can_run(item, base)]
    files = {key: base / path for item in filters if isinstance(item, ReadsLists) for key, path in item.lists.items()}
    if recipe.tokenizer and not list_errors([partial(check_tokenizer, recipe, base)]):
        files["tokenizer.json"] = base / recipe.tokenizer
    policies = {policy: recipe.policies[policy] for policy in recipe.list_policies(name)}
    return SourceWork(
        name=name,
        source=settings.options,
        file=file.name,
        images=resolve_place(settings.images or settings.root, base),
        filters=tuple(filters),
        files=files,
        policies=policies,
        lengths={key: make_length_step(recipe.chat, policy, recipe.model) for key, policy in policies.items()},
        image_stats=recipe.image_stats,
        dedupe=recipe.dedupe,
        boxes=settings.boxes,
        model_boxes=recipe.boxes,
        served={prefix: base / folder for prefix, folder in settings.serve.items()},
        signals=list_countable(recipe),
        asked=recipe.list_asking_signals(),
        max_characters=settings.max_characters,
        unescape=settings.unescape,
        fetch=recipe.fetch_step(name),
        before_fetch=tuple(filter_ for filter_ in list_filters_before_fetch(recipe, name) if filter_ in filters),
    )


def _can_run(filter_: Filter, base: Path) -> bool:
    if isinstance(filter_, CustomFilter):
        return filter_.code is not None
    if reads_tables(filter_):  # no model is asked for an estimate
        return False
    return not list_errors([partial(check_lists, filter_, base)])


def _describe_source(
    recipe: Recipe,
    name: str,
    files: Sequence[InputFile],
    first: InputFile,
    there: int | None,
    measured: MeasuredRows,
    used: int = 1,
) -> SourceEstimate:
    """The estimate of a source whose files have so many rows in all; rows of so many files were measured."""
    rows = there if there is None else count_taken(recipe, there)
    known = measured.costs.rows > 0 and rows is not None
    partitions = count_partitions(recipe, files, rows or 0)
    all_rows = extrapolate_costs(measured.costs, measured.empty, rows or 0, partitions) if known else Costs()
    policies, amounts, pictured = (
        recipe.list_policies(name),
        all_rows.amounts,
        not measured.costs.amounts.get("unknown"),
    )

    def round_amount(key: str, *, there: bool = True) -> int | None:
        return round(amounts[key]) if known and there and key in amounts else None

    requests = (round_amount("addresses") if recipe.source(name).fetches else 0) if known else None
    seconds, pairs = dict(all_rows.seconds), None
    if known and pictured:
        pairs = round(extrapolate_pairs(measured.costs.amounts, rows or 0, measured.costs.rows, recipe.dedupe))
        seconds["pairs"] = pairs * _time_pair(measured)
    if requests:
        seconds["fetch"] = requests * REQUEST_SECONDS / recipe.fetch_step(name).threads
    return SourceEstimate(
        source=name,
        files=len(files),
        bytes=sum(file.size for file in files),
        rows=rows,
        samples=round_amount("samples"),
        images=round_amount("images"),
        requests=requests,
        image_bytes=round_amount("image_bytes", there=pictured),
        table_bytes=round_amount("table_bytes", there=pictured),
        shard_bytes={policy: round_amount(f"shard_bytes.{policy}", there=pictured) for policy in policies},
        tokens={policy: round_amount(f"tokens.{policy}", there=pictured) for policy in policies},
        units={name: round_amount(f"units.{name}") for name in list_countable(recipe)},
        picture_pairs=pairs,
        seconds=seconds,
        measured=measured.costs.rows,
        unreadable=int(measured.costs.amounts.get("unreadable", 0)),
        rests_on=_explain_basis(files, first, measured, rows, used),
        warnings=measured.warnings,
        faults=measured.faults,
        asked={
            called: _estimate_asked(called, signal, amounts)
            for called, signal in recipe.list_asking_signals().items()
            if known and f"asked.{called}" in amounts
        },
    )


def _estimate_asked(name: str, signal: Ask, amounts: Mapping[str, float]) -> AskedEstimate:
    requests, sent, answered = (round(amounts[f"{key}.{name}"]) for key in ("asked", "asked_input", "asked_output"))
    return AskedEstimate(requests, sent, answered, signal.find_cost(sent, answered))


def _explain_basis(
    files: Sequence[InputFile], first: InputFile, measured: MeasuredRows, rows: int | None, used: int
) -> str:
    """What an estimate rests on, and what it leaves out."""
    of = first.name if len(files) == 1 else f"the first of {len(files)} files"
    if first is not files[0]:
        of = f"{first.name}, one of {len(files)} files"
    of = f"{used} of {len(files):,} files" if used > 1 else of
    said = [f"{measured.costs.rows} {'row' if measured.costs.rows == 1 else 'rows'} of {of}"]
    if lost := int(measured.costs.amounts.get("unreadable", 0)):
        said.append(f"{lost} of them give no sample ({measured.lost})")
    if rows is None:
        said.append("how many rows there are is not known: the file is too large to be read for that")
    if measured.costs.amounts.get("unknown"):
        said.append("images are addresses: what they hold is not known")
    if measured.stopped:
        said.append(f"no more rows were measured: {measured.stopped}")
    return "; ".join(said)


def count_workers(workers: int | None) -> int:
    """The processes of a build that work: one per core, where nothing is said; with 0 the build works itself."""
    return max(workers, 1) if workers is not None else os.cpu_count() or 1
