"""The page's index: samples of the run as they came in, with language and fate, to be searched without a server.

Of every source the same number, as far as it has them, from partitions and rows chosen by hash. Columns instead of rows, and
names by number, keep 20,000 samples to about 3 MB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mixtures.order import key_of
from mixtures.page.counts import Rows
from pipeline.judges import lid
from pipeline.lanes import read_manifest
from pipeline.recipe import Recipe
from pipeline.reports.ledger import funnel
from pipeline.sample import NO_PAGE, Sample, read_facts, read_samples
from pipeline.settle import Settled, gather, settle
from pipeline.tables import judged_tables

CHARACTERS = 100  # of a sample's text, in the index
READ = 1000  # characters that its language is told from
SURE = 0.5  # least probability of a language that is named
UNSURE = "unsure"

Index = dict[str, Any]
"""`sources`, `files`, `languages`, `reasons`, `policies` (names), and `rows`: a list per column."""


@dataclass(frozen=True, slots=True)
class _Names:
    """Names by number, in the order in which they were met."""

    numbers: dict[str, int]

    def __call__(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))


def index(root: Path, recipe: Recipe, policies: Sequence[str], most: int) -> Index:
    """At most `most` samples of a run whose shards are complete; pure but for reading."""
    names = {column: _Names({}) for column in ("source", "file", "language", "reason")}
    rows: dict[str, list[Any]] = {column: [] for column in (*names, "row", "page", "images", "text")}
    tokens: list[list[int | None]] = [[] for _ in policies]
    sizes = {source: lines["samples"]["in"] for source, lines in funnel(root).items()}
    for source, quota in quotas(sizes, most).items():
        found = sorted(_samples(root, recipe, source, quota), key=lambda item: key_of("page", str(item[0].id)))[:quota]
        lengths = [_tokens(root, source, policy) for policy in policies]
        for sample, settled in sorted(found, key=lambda item: item[0].id):
            text = " ".join(" ".join(node.text for node in sample.nodes if node.text)[:READ].split())
            values = {
                "source": source,
                "file": sample.id.file,
                "language": language(text),
                "reason": ", ".join(sorted({str(reason) for reason in settled.nodes if reason}))
                if not settled.sample
                else f"lost: {settled.sample}",
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


def language(text: str) -> str:
    """The likeliest language of a text, `unsure` where none is likely."""
    if not any(letter.isalpha() for letter in text):
        return UNSURE
    found = lid.probabilities(text)
    code = max(found, key=lambda code: (found[code], code), default=UNSURE)
    return code if found.get(code, 0.0) >= SURE else UNSURE


def languages(found: Index) -> Rows:
    """How many samples of an index are in which language, by source."""
    pairs = Counter(zip(found["rows"]["source"], found["rows"]["language"], strict=True))
    named = [(found["sources"][source], found["languages"][code], number) for (source, code), number in pairs.items()]
    return [{"source": source, "language": code, "samples": number} for source, code, number in sorted(named)]


def quotas(sizes: Mapping[str, int], most: int) -> dict[str, int]:
    """How many samples of each source: the same of all, what small ones leave going to the others; pure."""
    found, left = dict.fromkeys(sizes, 0), most
    for place, source in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        found[source] = min(sizes[source], left // (len(sizes) - place))
        left -= found[source]
    return found


def _samples(root: Path, recipe: Recipe, source: str, quota: int) -> Iterator[tuple[Sample, Settled]]:
    """The samples of as many partitions as hold `quota`, and what became of each."""
    seen = 0
    for tables in sorted(judged_tables(root, recipe, source), key=lambda at: key_of("page", source, at.part)):
        if seen >= quota:
            return
        files = tables.paths(root)
        verdicts, facts = gather(files, recipe.voices()), read_facts(files["facts.parquet"])
        for row, sample in enumerate(read_samples(files["samples.parquet"])):
            seen += 1
            yield sample, settle(sample, verdicts.get(row, []), facts)


def _tokens(root: Path, source: str, policy: str) -> Mapping[str, int]:
    """Sample -> text and visual tokens under a policy."""
    folder = f"shards/{source}/{policy}"
    tables = []
    for step, ending, columns in (
        (folder, ".index.parquet", ["id"]),
        (f"{folder}/lengths", ".lengths.parquet", ["text", "visual"]),
    ):
        paths = sorted(
            root / file.path
            for receipt in read_manifest(root, step)
            for file in receipt.files
            if file.name.endswith(ending)
        )
        if not paths:
            return {}
        tables.append(pl.concat([pl.read_parquet(path, columns=columns) for path in paths]))
    table = tables[0].hstack(tables[1])
    return dict(table.select("id", pl.col("text") + pl.col("visual")).iter_rows())
