"""What dedupe dropped for what: clusters around the sample that is kept, and two of them side by side.

A cluster is a kept sample and all that was dropped because of it, whole samples or single nodes of them. Similarities
are those by which dedupe decided.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import polars as pl

from vlmill.api.runs import Run
from vlmill.explore.index import Index
from vlmill.explore.samples import SampleReader
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE
from vlmill.pipeline.core.sample import Sample, SampleId

MEMBERS = 60
"""Of a cluster, that are shown."""
WORDS = 4000
"""Of a text, that are compared."""
PICTURES = 6
BINS = 20


class Duplicates:
    """The verdicts of dedupe that name another sample."""

    def __init__(self, run: Run, index: Index, reader: SampleReader) -> None:
        self.run, self.index, self.reader = run, index, reader

    @cached_property
    def verdicts(self) -> pl.DataFrame:
        """`source partition sample node reason score other`.

        Raises:
            StoreError: dedupe has not come to its end, or the recipe has none.
        """
        if self.run.recipe.dedupe is None:
            raise StoreError("this run's recipe has no dedupe, so nothing was compared")
        found = self.run.verdicts(step="dedupe").filter(pl.col("other") != "").drop("filter").collect()
        return found.with_columns(pl.col("score").cast(pl.Float64))

    def list_clusters(self, reason: str, order: str, first: int, number: int) -> dict[str, Any]:
        """Clusters, some at a time: the largest, the least similar or the most similar ones first."""
        chosen = self.verdicts if not reason else self.verdicts.filter(pl.col("reason") == reason)
        grouped = chosen.group_by("other").agg(
            dropped=pl.len(),
            least=pl.col("score").min(),
            most=pl.col("score").max(),
            sources=pl.col("source").unique().sort(),
            reasons=pl.col("reason").unique().sort(),
        )
        keys = {"largest": ("dropped", True), "least similar": ("least", False), "most similar": ("most", True)}
        column, falling = keys.get(order, keys["largest"])
        page = grouped.sort(column, "other", descending=[falling, False]).slice(first, number)
        return {
            "clusters": [{"keeper": row.pop("other"), **row} for row in page.to_dicts()],
            "number": len(grouped),
            "dropped": len(chosen),
            "reasons": dict(self.verdicts.group_by("reason").len().sort("len", descending=True).iter_rows()),
            "similarities": self._count_similarities(chosen),
        }

    @staticmethod
    def _count_similarities(chosen: pl.DataFrame) -> dict[str, Any]:
        """How similar what was dropped is to what is kept, where it is not the same."""
        near = chosen.filter(pl.col("score") < 1)["score"]
        if not len(near):
            return {"edges": [], "counts": [], "same": len(chosen)}
        low = min(float(near.min()), 0.99)  # type: ignore[arg-type]
        edges = [low + (1 - low) * place / BINS for place in range(BINS + 1)]
        places = ((near - low) / (1 - low) * BINS).floor().clip(0, BINS - 1).cast(pl.Int64)
        counts = dict(places.value_counts().iter_rows())
        return {
            "edges": edges,
            "counts": [int(counts.get(place, 0)) for place in range(BINS)],
            "same": len(chosen) - len(near),
        }

    def read_cluster(self, keeper: str) -> dict[str, Any]:
        """A cluster: the sample that is kept, and what was dropped because of it, the most similar first."""
        members = self.verdicts.filter(pl.col("other") == keeper).sort(
            "score", "source", "partition", "sample", descending=[True, False, False, False]
        )
        found = []
        for row in members.head(MEMBERS).iter_rows(named=True):
            number = self.index.find_number(row["source"], row["partition"], row["sample"])
            if number is not None:
                (line,) = self.reader.describe_samples([number])
                found.append({**line, "node": row["node"], "reason": row["reason"], "score": round(row["score"], 4)})
        kept = self.find_sample(keeper)
        return {
            "keeper": None if kept is None else self.reader.describe_samples([kept])[0],
            "name": keeper,
            "members": found,
            "number": len(members),
        }

    def find_sample(self, name: str) -> int | None:
        """The number of the sample of an id."""
        try:
            wanted = SampleId.parse(name)
        except ValueError:
            return None
        for source, partition, start in self.index.partitions:
            if source == wanted.source:
                table = self.reader.find_partition(source, partition).tables[SAMPLES_FILE]
                fits = (pl.col("file") == wanted.file) & (pl.col("row") == wanted.row) & (pl.col("page") == wanted.page)
                rows = pl.scan_parquet(table, glob=False).select(fits.arg_true()).collect().to_series()
                if len(rows):
                    return start + int(rows[0])
        return None

    def compare(self, one: int, other: int, node: int) -> dict[str, Any]:
        """Two samples side by side: pictures, and their texts with what differs.

        Args:
            one: the number of the sample that is kept.
            other: of the one of which something was dropped.
            node: which of its nodes was; -1 for all of it.
        """
        samples = [self.reader.read_sample(number) for number in (one, other)]
        dropped = samples[1].nodes if node < 0 else samples[1].nodes[node : node + 1]
        text = "\n".join(item.text for item in dropped if item.text)
        return {
            "sides": [
                {
                    "number": number,
                    "id": str(sample.id),
                    "licence": sample.licence,
                    "outcome": self.index.outcomes[int(self.index.column("outcome")[number])],
                    "pictures": self._list_pictures(number, sample, node if number == other else -1),
                }
                for number, sample in zip((one, other), samples, strict=True)
            ],
            "texts": diff_texts(_choose_text(samples[0], text), text) if text else [],
        }

    def _list_pictures(self, number: int, sample: Sample, node: int) -> list[dict[str, Any]]:
        source, partition, _ = self.index.find_place(number)
        alone = node >= 0 and sample.nodes[node].image is not None  # a text goes with pictures of its sample
        chosen = sample.nodes[node : node + 1] if alone else sample.nodes
        images = [item.image for item in chosen if item.image is not None][:PICTURES]
        stats = self.reader.find_partition(source, partition).tables.get(IMAGE_STATS_FILE)
        facts = (
            {}
            if stats is None
            else {
                row[0]: row[1:]
                for row in pl.scan_parquet(stats, glob=False)
                .filter(pl.col("image").is_in(images))
                .select("image", "width", "height", "format")
                .collect()
                .iter_rows()
            }
        )
        return [
            {"source": source, "partition": partition, "image": image, "facts": list(facts.get(image, ()))}
            for image in images
        ]


def _choose_text(sample: Sample, beside: str) -> str:
    """The text of a sample to set beside another: the node that is most like it, or all of them if that is closer."""
    texts = [node.text for node in sample.nodes if node.text]
    texts.append("\n".join(texts))
    quick = [difflib.SequenceMatcher(None, text[:WORDS], beside[:WORDS], autojunk=True) for text in texts]
    return max(texts, key=lambda text: quick[texts.index(text)].quick_ratio())


def diff_texts(before: str, after: str) -> list[tuple[str, str]]:
    """What two texts share and what either has alone, word by word: (`same`, `kept` or `dropped`, text); pure.

    `kept` stands in the first text alone, `dropped` in the second.
    """
    one, other = (_split_words(text)[:WORDS] for text in (before, after))
    spans = list[tuple[str, str]]()
    for how, start, stop, first, last in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if how == "equal":
            spans.append(("same", "".join(one[start:stop])))
            continue
        spans += [(name, part) for name, part in _name_sides(one[start:stop], other[first:last]) if part]
    return spans


def _name_sides(one: Sequence[str], other: Sequence[str]) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("kept", "".join(one)), ("dropped", "".join(other))


def _split_words(text: str) -> list[str]:
    """Words with the space behind them."""
    return re.findall(r"\S+\s*|\s+", text)
