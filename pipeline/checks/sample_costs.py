"""What a few rows of a source cost: the steps of a build run over them in a temporary folder, and are measured.

`estimate.py` says what follows for all. The steps run in a child process under a time limit, as rows may hold anything.
No address is asked for; what the recipe serves from a folder is read there.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from vlmill.pipeline.boxes import ModelBoxes, SourceBoxes
from vlmill.pipeline.checks.absent_columns import warn_of_absent_columns
from vlmill.pipeline.checks.looked_rows import LookedFile, share_rows
from vlmill.pipeline.checks.lost_files import LostFiles, find_lost_files, warn_of_lost_images
from vlmill.pipeline.checks.sample_warnings import warn_of_samples
from vlmill.pipeline.core.confined import FileRefused, open_confined, read_bounded
from vlmill.pipeline.core.names import (
    IMAGE_STATS_FILE,
    IMAGES_FILE,
    INDEX_SUFFIX,
    LENGTHS_SUFFIX,
    REFUSED_FILE,
    SAMPLES_FILE,
    SKIPPED_IMAGES_FILE,
    name_input,
)
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import IMAGES, read_image_stats, read_rows, read_samples, write_rows
from vlmill.pipeline.core.sandbox import ChildCrashed, ChildTimedOut, Sandbox
from vlmill.pipeline.core.shown import describe_more
from vlmill.pipeline.core.step import Count, Step
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.dedupe.candidates import IMAGE, count_neighbours
from vlmill.pipeline.engine.store import File, select_files
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.fetch.address import UNFETCHED, find_private_host
from vlmill.pipeline.filters import Filter, FilterStep
from vlmill.pipeline.images import Policy
from vlmill.pipeline.reports.causes import describe_causes
from vlmill.pipeline.signals import Signal
from vlmill.pipeline.signals.ask import Ask, estimate_tokens
from vlmill.pipeline.sources import Source
from vlmill.pipeline.sources.files import LARGEST
from vlmill.pipeline.steps.find_boxes import FindBoxes
from vlmill.pipeline.steps.image_stats import ComputeImageStats
from vlmill.pipeline.steps.read import MAX_CHARACTERS, Read
from vlmill.pipeline.steps.render import Render
from vlmill.pipeline.steps.render_boxes import add_boxes
from vlmill.pipeline.steps.row_sample import RowRange
from vlmill.pipeline.steps.skip_images import SkipImages
from vlmill.pipeline.steps.token_lengths import CountTokens

ROWS = 100
"""Rows that are measured of a source, at most."""
FEW = 8
"""Rows that are measured where one takes less than SECONDS."""
SECONDS = 3.0
"""How long the measured pass may take, as far as the first row tells."""
LIMIT = 60.0
"""Seconds after which a pass is given up."""
MEMORY = 64 << 30
"""Bytes of address space that a pass may take: torch maps 3 GB alone. Decoders have children with own limits."""
UNKNOWN: dict[str, object] = {"reason": str(Reason.FETCH_ERROR)}
"""What an image is that only a request would bring."""


@dataclass(frozen=True)
class SourceWork:
    """What a build does with each partition of a source before it compares partitions, and after."""

    name: str
    source: Source
    file: str  # relative to the source's root
    images: str  # where the paths of image files start
    filters: tuple[Filter, ...]
    files: Mapping[str, Path]  # lists and tokenizer, by the names that steps know them by
    policies: Mapping[str, Policy]
    lengths: Mapping[str, CountTokens]  # the step that counts tokens, by policy
    image_stats: ComputeImageStats
    dedupe: Dedupe | None  # how duplicates are looked for
    boxes: SourceBoxes | None = None  # coordinates in its texts
    model_boxes: ModelBoxes | None = None  # how the model is to see them
    served: Mapping[str, Path] = field(default_factory=dict)  # URL prefix -> folder
    signals: Mapping[str, Signal] = field(default_factory=dict)  # whose units are counted; no model is asked
    asked: Mapping[str, Ask] = field(default_factory=dict)  # signals that ask a server, by name
    max_characters: int = MAX_CHARACTERS  # of a sample
    unescape: bool = False  # whether entities in texts are resolved
    fetch: Fetch = field(default_factory=Fetch)  # how images are had that are addresses; nothing is asked for
    before_fetch: tuple[Filter, ...] = ()  # those of the filters that images wait for

    def make_read(self, *rows: RowRange) -> Read:
        """The step that reads rows of it."""
        read = Read(self.source, self.name, rows, images=self.images, unescape=self.unescape)
        return replace(read, max_characters=self.max_characters)

    def list_verdict_steps(self) -> tuple[str, ...]:
        """The steps whose verdicts count, in order."""
        return (*((FindBoxes.name,) if self.boxes else ()), *(filter_.name for filter_ in self.filters))

    def make_render(self, policy: Policy, verdict_steps: tuple[str, ...]) -> Render:
        """The step that draws under a policy what these steps left."""
        return add_boxes(Render(policy, verdict_steps, 0, 0), self.boxes, self.model_boxes)


@dataclass(frozen=True)
class Costs:
    """What some rows came to: amounts and bytes by name, seconds by step.

    The costs of a whole run, added up, have the same form.
    """

    rows: int = 0
    amounts: Mapping[str, float] = field(default_factory=dict)
    """`samples`, `images` (that samples show), `unreadable` rows, `addresses` (of images, to be asked for), `unknown`
    (images whose bytes are not known), `units.SIGNAL` (what a signal would be asked about), `image_bytes` (as they
    came), `table_bytes` (all that a build keeps of a partition besides shards), and by policy `shard_bytes.POLICY` and
    `tokens.POLICY`. Where duplicates are looked for: `pictures`, `picture_candidates` (pairs of them),
    `picture_pairs` (those compared) and `neighbours` (places that a place is compared with, on average). By signal
    that asks a server `asked.NAME` (requests), `asked_input.NAME` and `asked_output.NAME` (tokens)."""
    seconds: Mapping[str, float] = field(default_factory=dict)  # of one process, by step; rendering as `render.POLICY`,
    # the comparison of pictures as `pairs`

    @property
    def total_seconds(self) -> float:
        """Of all steps."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class MeasuredRows:
    """The costs of a few rows of a source, and those of a partition of no rows, which every partition has."""

    costs: Costs
    empty: Costs = field(default_factory=Costs)
    lost: str = ""  # why rows that gave no sample did not
    faults: tuple[str, ...] = ()  # where none of the files is there that rows name
    stopped: str = ""  # why no more rows were measured
    warnings: tuple[str, ...] = ()  # of hosts that are not asked, and of coordinates that the recipe does not name


Child = Sandbox[[SourceWork, Sequence[LookedFile]], dict[str, Any]]
"""What measures, in a process of its own."""


@contextmanager
def open_child() -> Iterator[Child]:
    """The child process that measures; one serves all sources."""
    with Sandbox(run_passes, LIMIT, MEMORY) as child:
        yield child


def measure_rows(child: Child, work: SourceWork, looked: Sequence[LookedFile]) -> MeasuredRows:
    """Run the steps of a build over the first rows of some files, ROWS at most of all together.

    Args:
        child: From `open_child`.
        work: What is done with each row.
        looked: The files, with the rows that each has.

    Raises:
        RuntimeError: a step failed; the message has the trace of the child process.
    """
    found = MeasuredRows(Costs())
    try:
        for told in child.run(work, looked):  # the last one has seen most rows
            found = TypeAdapter(MeasuredRows).validate_python(told)
    except (ChildCrashed, ChildTimedOut, ValidationError) as error:
        return replace(found, stopped=str(error))
    return found


def run_passes(work: SourceWork, looked: Sequence[LookedFile]) -> Iterator[dict[str, Any]]:
    """Measure one row, then FEW, then as many as SECONDS allow; each yields the fields of a MeasuredRows.

    The first pass of all is not counted: it imports libraries and loads models.
    """
    with tempfile.TemporaryDirectory(prefix="vlmill-check-") as name:
        folder, rows = Path(name), min(sum(one.rows for one in looked), ROWS)
        _run_steps(work, share_rows(looked, 1), folder / "warm")
        empty = _run_steps(work, share_rows(looked, 0), folder / "empty").costs
        first = _run_steps(work, share_rows(looked, 1), folder / "one")
        yield asdict(replace(first, empty=empty))
        found = one = first.costs
        wanted = min(rows, FEW) if one.total_seconds < SECONDS else 1
        while wanted > found.rows:
            many = _run_steps(work, share_rows(looked, wanted), folder / f"{wanted}")
            found = many.costs
            yield asdict(replace(many, empty=replace(empty, seconds=_split_seconds(empty, one, found))))
            wanted = min(rows, int(found.rows * SECONDS / max(found.total_seconds, 1e-4)))
            wanted = wanted if wanted > 2 * found.rows else min(rows, found.rows)


def _split_seconds(empty: Costs, one: Costs, many: Costs) -> dict[str, float]:
    """The time that does not depend on the number of rows, by step: the start of a child process counts, too."""
    fixed = dict[str, float]()
    for step, seconds in many.seconds.items():
        first = one.seconds.get(step, 0.0)
        per_row = max(seconds - first, 0.0) / (many.rows - 1)
        fixed[step] = min(max(first - per_row, empty.seconds.get(step, 0.0)), seconds)
    return fixed


def _run_steps(work: SourceWork, taken: Sequence[LookedFile], folder: Path) -> MeasuredRows:
    """The costs of these rows, why the first lost one of them was lost, and coordinates in their texts."""
    run = StepPass(folder, {**work.files, **{name_input(place): one.path for place, one in enumerate(taken)}})
    run.perform(work.make_read(*(RowRange(one.name, 0, one.rows) for one in taken)))
    amounts, said = _count_samples(run.files, work.signals)
    warnings = warn_of_private_hosts(run, work) if work.source.fetches else ()
    files = find_lost_files(run.files[IMAGES_FILE], work.name, work.images) if work.source.opens else LostFiles()
    if work.source.fetches:
        for filter_ in work.before_fetch:
            run.perform(FilterStep(filter_))
        if work.before_fetch:
            run.perform(SkipImages(tuple(filter_.name for filter_ in work.before_fetch)))
        amounts.update(_fill_images(run, work.served))
    else:
        amounts["image_bytes"] = sum(len(row["bytes"] or b"") for row in read_rows(run.files[IMAGES_FILE], batch=32))
    for step in _list_steps(work):
        run.perform(step)
    unusable = warn_of_lost_images(run.files[IMAGE_STATS_FILE], work.name, opens=work.source.opens)
    for name, signal in work.asked.items():
        amounts.update(_count_asked(run, name, signal))
    for policy, rendered in work.policies.items():
        _render_policy(run, work, policy, rendered, amounts)
    if work.dedupe:
        amounts.update(_compare_pictures(run, work.dedupe))
    amounts["table_bytes"] = run.size
    of_samples = warn_of_samples(run.files, work.name, work.source, unescape=work.unescape, boxes=bool(work.boxes))
    of_samples += warn_of_absent_columns(taken, work.name, work.source)
    return MeasuredRows(
        Costs(sum(one.rows for one in taken), dict(amounts), dict(run.seconds)),
        lost=said,
        faults=files.faults,
        warnings=(*files.warnings, *warnings, *unusable, *of_samples),
    )


def _list_steps(work: SourceWork) -> Iterator[Step]:
    yield work.image_stats
    if work.boxes:
        yield FindBoxes(work.boxes)
    yield from (FilterStep(filter_) for filter_ in work.filters if filter_ not in work.before_fetch)
    if work.dedupe:
        yield work.dedupe.signature()


def _render_policy(run: StepPass, work: SourceWork, name: str, policy: Policy, amounts: Counter[str]) -> None:
    """Make the shards of one policy and count their tokens."""
    before = dict(run.files)
    run.perform(work.make_render(policy, work.list_verdict_steps()), f"render.{name}")
    indices = [path for file, path in run.files.items() if file.endswith(INDEX_SUFFIX)]
    amounts[f"shard_bytes.{name}"] = sum(row["size"] for path in indices for row in read_rows(path, ["size"]))
    if "tokenizer.json" in run.files:
        run.perform(work.lengths[name], f"token_lengths.{name}")
        lengths = [path for file, path in run.files.items() if file.endswith(LENGTHS_SUFFIX)]
        counted = (row["text"] + row["visual"] for path in lengths for row in read_rows(path, ["text", "visual"]))
        amounts[f"tokens.{name}"] = sum(counted)
    run.files = before


def _count_asked(run: StepPass, name: str, signal: Ask) -> dict[str, float]:
    """The requests to a server, and about as many tokens as they hold; nothing is asked."""
    stats = read_image_stats(run.files[IMAGE_STATS_FILE], ("width", "height"))
    found = [
        estimate_tokens(signal, unit, {number: (stats[number].width, stats[number].height) for number in shown})
        for sample in read_samples(run.files[SAMPLES_FILE])
        for unit in signal.list_units(sample)
        for shown in [[*unit.images, *([] if unit.image is None else [unit.image])]]
    ]
    tokens = {"input": sum(sent for sent, _ in found), "output": sum(answered for _, answered in found)}
    return {f"asked.{name}": len(found), **{f"asked_{side}.{name}": number for side, number in tokens.items()}}


def _compare_pictures(run: StepPass, dedupe: Dedupe) -> dict[str, float]:
    """Compare the pictures of the rows with each other, as dedupe would; what it leaves is not kept.

    Returns `pictures`, `picture_candidates`, `picture_pairs` of them that are measured, and `neighbours`: the rows that
    a row is compared with on average.
    """
    alone = replace(dedupe, buckets=1)
    steps: tuple[Step, ...] = (*alone.candidates(), *alone.pair_steps())
    inputs = {f"all/all/{name}": path for name, path in run.files.items() if name.endswith((".npy", ".places.parquet"))}
    started, counts = process_time(), dict[str, Count]()  # of this process, whatever else keeps the machine busy
    for step in steps:
        folder = run.folder / step.name
        folder.mkdir()
        counts |= step.run({name: inputs[name] for name in select_files(_name_files(inputs), step.reads)}, folder)
        inputs |= {f"all/{path.name}": path for path in folder.iterdir()}
    run.seconds["pairs"] = process_time() - started
    filed = pq.read_table(run.files["image.places.parquet"], columns=["place", "key"])
    return {
        "pictures": len(filed["key"].unique()),
        "picture_candidates": counts["image_pairs"].came,
        "picture_pairs": counts["image_pairs"].kept,
        "neighbours": count_neighbours(IMAGE, filed["place"].to_numpy(), dedupe.cap),
    }


def _name_files(paths: Iterable[str]) -> dict[str, File]:
    return {name: File(name, "", "", 0) for name in paths}


@dataclass
class StepPass:
    """Steps that run one after the other, and what they left."""

    folder: Path
    files: dict[str, Path]
    seconds: dict[str, float] = field(default_factory=dict)
    size: int = 0  # bytes of all files that steps left, besides shards

    def perform(self, step: Step, label: str = "", side_inputs: tuple[str, ...] = ()) -> None:
        """Run a step over the files so far."""
        folder = self.folder / (label or step.name)
        folder.mkdir(parents=True)
        wanted = select_files(_name_files(self.files), (*step.reads, *side_inputs))
        started = perf_counter()
        step.run({name: self.files[name] for name in wanted}, folder)
        self.seconds[label or step.name] = perf_counter() - started
        self.files |= {path.name: path for path in folder.iterdir()}
        self.size += sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".tar")


def _count_samples(files: Mapping[str, Path], signals: Mapping[str, Signal]) -> tuple[Counter[str], str]:
    """Amounts, and why rows that gave no sample did not. A row of which pages alone were lost gave some."""
    amounts, rows = Counter[str]({f"units.{name}": 0 for name in signals}), set[tuple[str, int]]()
    for sample in read_samples(files[SAMPLES_FILE]):
        amounts["samples"] += 1
        amounts["images"] += sum(node.image is not None for node in sample.nodes)
        rows.add((sample.id.file, sample.id.row))
        for name, signal in signals.items():
            amounts[f"units.{name}"] += sum(1 for _ in signal.list_units(sample))
    lost = {place: row for row in read_rows(files[REFUSED_FILE]) if (place := (row["file"], row["row"])) not in rows}
    amounts["unreadable"] = len(lost)
    of = {file: f" of {file}" for file, _ in (*rows, *lost)}
    said = {place: f"row {place[1]}{of[place[0]] if len(of) > 1 else ''}: {lost[place]['reason']}" for place in lost}
    return amounts, describe_causes([(said[place], row["detail"]) for place, row in lost.items()])


def _fill_images(run: StepPass, served: Mapping[str, Path]) -> Counter[str]:
    """Give images that are addresses the bytes that a folder has of them, as fetching would; the others stay without.

    Returns `addresses`, `unknown` and `image_bytes`.
    """
    amounts = Counter[str](addresses=0, unknown=0, image_bytes=0)
    left_out = run.files.get(SKIPPED_IMAGES_FILE)
    skipped = {row["image"] for row in read_rows(left_out, ["image"])} if left_out else set[int]()

    def fill_rows() -> Iterator[dict[str, object]]:
        for row in read_rows(run.files[IMAGES_FILE], batch=32):
            found = row
            if row["image"] in skipped:
                found = row | {"reason": str(Reason.NOT_FETCHED)}
            elif row["url"] is not None and row["reason"] is None and row["bytes"] is None:
                prefix = next((prefix for prefix in served if row["url"].startswith(prefix)), None)
                amounts["addresses"] += prefix is None
                amounts["unknown"] += prefix is None
                found = row | (read_served(row["url"].removeprefix(prefix), served[prefix]) if prefix else UNKNOWN)
            amounts["image_bytes"] += len(found["bytes"] or b"")
            yield found

    path = run.folder / "filled.parquet"
    write_rows(path, IMAGES, fill_rows())
    run.files[IMAGES_FILE] = path
    run.size += path.stat().st_size
    return amounts


def warn_of_private_hosts(run: StepPass, work: SourceWork) -> tuple[str, ...]:
    """A line on the hosts of addresses that fetch refuses without asking, where there are any."""
    rows = read_rows(run.files[IMAGES_FILE], ["url", "reason"])
    urls = {row["url"] for row in rows if row["url"] is not None and row["reason"] is None}
    elsewhere = (*work.served, *work.fetch.mirrors)
    allowed = frozenset(host.lower() for host in work.fetch.allow_hosts)
    found = sorted({find_private_host(url, allowed) for url in urls if not url.startswith(elsewhere)} - {""})
    if not found:
        return ()
    named = f"{', '.join(found[:3])}{describe_more(len(found) - 3, 'host')}"
    allow = f"--set 'sources.{work.name}.fetch.allow_hosts=[{', '.join([*work.fetch.allow_hosts, *found])}]'"
    return (f"{work.name}: images at {named} {UNFETCHED}: no public host. If it is yours, allow it: {allow}",)


def read_served(name: str, folder: Path) -> dict[str, object]:
    """The `bytes` of a file that a folder has in the place of an address, or the `reason` why there are none."""
    try:
        with open_confined(folder, unquote(name.partition("?")[0])) as file:
            return {"bytes": read_bounded(file, LARGEST)}
    except (FileRefused, OSError, ValueError):  # ValueError: a name with a null byte
        return {"reason": str(Reason.HTTP_CLIENT_ERROR)}
