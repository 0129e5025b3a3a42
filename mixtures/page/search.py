"""The page's index: samples of the run as they came in, with language and outcome, to be searched without a server.

Of every source the same number, as far as it has them, from partitions and rows chosen by hash. Columns instead of
rows, and names by number, keep 20,000 samples to about 3 MB. Samples stand in it from the time they were read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from vlmill.mixtures.algorithms.order import make_order_key
from vlmill.mixtures.page.counts import Rows
from vlmill.pipeline.core.checked import check_hash
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, INDEX_SUFFIX, LENGTHS_SUFFIX, SAMPLES_FILE
from vlmill.pipeline.core.sample import NO_PAGE, Sample, read_image_stats, read_samples
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.partition_tables import list_filtered_tables, list_raw_tables
from vlmill.pipeline.filters.language import lid
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.verdicts.apply import Outcome, apply_verdicts, read_verdicts_by_sample

CHARACTERS = 100  # of a sample's text, in the index
READ = 1000  # characters that its language is detected from
SURE = 0.5  # least probability of a language that is named
UNSURE = "unsure"
UNDECIDED = "undecided"
"""In the place of reasons, where filters or dedupe have not decided yet."""

Index = dict[str, Any]
"""`sources`, `files`, `languages`, `reasons`, `policies` (names), and `rows`: a list per column."""


@dataclass(frozen=True, slots=True)
class _Names:
    """Names by number, in the order in which they were met."""

    numbers: dict[str, int]

    def __call__(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))


def index_samples(
    root: Path, recipe: Recipe, policies: Sequence[str], most: int, seen: Callable[[Sample], None] = lambda _: None
) -> Index:
    """At most `most` samples of what a run has read, each of which `seen` gets too; pure but for reading."""
    names = {column: _Names({}) for column in ("source", "file", "language", "reason")}
    rows: dict[str, list[Any]] = {column: [] for column in (*names, "row", "page", "images", "text")}
    tokens: list[list[int | None]] = [[] for _ in policies]
    for source, quota in divide_quotas(count_source_samples(root, recipe), most).items():
        found = sorted(
            _read_with_outcomes(root, recipe, source, quota), key=lambda item: make_order_key("page", str(item[0].id))
        )[:quota]
        lengths = [_count_tokens(root, source, policy) for policy in policies]
        for sample, outcome in sorted(found, key=lambda item: item[0].id):
            seen(sample)
            text = " ".join(" ".join(node.text for node in sample.nodes if node.text)[:READ].split())
            values = {
                "source": source,
                "file": sample.id.file,
                "language": guess_language(text),
                "reason": _describe_outcome(outcome),
            }
            for column, value in values.items():
                rows[column].append(names[column](value))
            rows["row"].append(sample.id.row)
            rows["page"].append(sample.id.page if sample.id.page != NO_PAGE else "")
            rows["images"].append(sum(node.kind == "image" for node in sample.nodes))
            rows["text"].append(text[:CHARACTERS])
            for counted, known in zip(tokens, lengths, strict=True):
                counted.append(known.get(str(sample.id)))
    listed = {"sources": "source", "files": "file", "languages": "language", "reasons": "reason"}
    return {
        **{plural: list(names[name].numbers) for plural, name in listed.items()},
        "policies": list(policies),
        "rows": rows,
        "tokens": tokens,
    }


def has_all_verdicts(root: Path, recipe: Recipe, source: str) -> bool:
    """Whether all steps that decide on a source's samples are complete."""
    steps = [f"steps/{source}/{name}" for name in ("image_stats", *recipe.all_verdict_steps()) if name != "dedupe"]
    return is_source_read(root, recipe, source) and _are_complete(
        root, *steps, *(["steps/dedupe/resolve"] if recipe.dedupe is not None else [])
    )


def is_source_read(root: Path, recipe: Recipe, source: str) -> bool:
    """Whether a source was read, and its images fetched, to the end."""
    steps = ("read", "fetch") if recipe.source(source).fetches else ("read",)
    return _are_complete(root, *(f"steps/{source}/{step}" for step in steps))


def _are_complete(root: Path, *folders: str) -> bool:
    return all((root / folder / "manifest.json").exists() for folder in folders)


def count_source_samples(root: Path, recipe: Recipe) -> dict[str, int]:
    """Source -> samples that came in, of sources that were read."""
    found = dict[str, int]()
    for source, lines in read_funnel(root).items():
        if "samples" in lines:
            found[source] = lines["samples"]["in"]
        elif is_source_read(root, recipe, source):
            paths = [at.paths(root)[SAMPLES_FILE] for at in list_raw_tables(root, recipe, source)]
            found[source] = sum(int(pq.read_metadata(path).num_rows) for path in paths)
    return found


def _describe_outcome(outcome: Outcome | None) -> str:
    """Why a sample was lost, or which nodes of it were; empty where it is kept whole."""
    if outcome is None:
        return UNDECIDED
    if outcome.sample:
        return f"lost: {outcome.sample}"
    return ", ".join(sorted({str(reason) for reason in outcome.nodes if reason}))


def guess_language(text: str) -> str:
    """The likeliest language of a text, `unsure` where none is likely."""
    if not any(letter.isalpha() for letter in text):
        return UNSURE
    found = lid.predict_languages(text)
    code = max(found, key=lambda code: (found[code], code), default=UNSURE)
    return code if found.get(code, 0.0) >= SURE else UNSURE


def count_languages(found: Index) -> Rows:
    """How many samples of an index are in which language, by source."""
    pairs = Counter(zip(found["rows"]["source"], found["rows"]["language"], strict=True))
    named = [(found["sources"][source], found["languages"][code], number) for (source, code), number in pairs.items()]
    return [{"source": source, "language": code, "samples": number} for source, code, number in sorted(named)]


def divide_quotas(sizes: Mapping[str, int], most: int) -> dict[str, int]:
    """How many samples of each source: the same of all, what small ones leave going to the others; pure."""
    found, left = dict.fromkeys(sizes, 0), most
    for place, source in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        found[source] = min(sizes[source], left // (len(sizes) - place))
        left -= found[source]
    return found


def _read_with_outcomes(root: Path, recipe: Recipe, source: str, quota: int) -> Iterator[tuple[Sample, Outcome | None]]:
    """The samples of as many partitions as hold `quota`, and the outcome of each; None where it is undecided."""
    seen, is_decided = 0, has_all_verdicts(root, recipe, source)
    found = list_filtered_tables(root, recipe, source) if is_decided else list_raw_tables(root, recipe, source)
    for tables in sorted(found, key=lambda at: make_order_key("page", source, at.partition)):
        if seen >= quota:
            return
        files = tables.check(root)
        verdicts = read_verdicts_by_sample(files, recipe.all_verdict_steps()) if is_decided else {}
        image_stats = read_image_stats(files[IMAGE_STATS_FILE]) if is_decided else []
        for row, sample in enumerate(read_samples(files[SAMPLES_FILE])):
            seen += 1
            yield sample, apply_verdicts(sample, verdicts.get(row, []), image_stats) if is_decided else None


def _count_tokens(root: Path, source: str, policy: str) -> Mapping[str, int]:
    """Sample -> text and visual tokens under a policy; nothing where they are not counted yet."""
    folder = f"shards/{source}/{policy}"
    if not _are_complete(root, folder, f"{folder}/lengths"):
        return {}
    tables = []
    for step, ending, columns in (
        (folder, INDEX_SUFFIX, ["id"]),
        (f"{folder}/lengths", LENGTHS_SUFFIX, ["text", "visual"]),
    ):
        paths = sorted(
            check_hash(root / file.path, file.sha256)
            for receipt in read_manifest(root, step)
            for file in receipt.files
            if file.name.endswith(ending)
        )
        if not paths:
            return {}
        tables.append(pl.concat([pl.read_parquet(path, columns=columns, glob=False) for path in paths]))
    table = tables[0].hstack(tables[1])
    return dict(table.select("id", pl.col("text") + pl.col("visual")).iter_rows())
