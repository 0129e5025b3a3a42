"""Figures of a run for disclosure: what was kept of each source, counted from shards and tables, each under a name.

`european_union.py`, `california.py` and `croissant.py` put them into the forms that laws and catalogues ask for.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import NotBuiltError, StoreError
from vlmill.pipeline.core.event_log import EVENTS
from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.names import INDEX_SUFFIX, LINEAGE_SUFFIX, SAMPLES_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.dedupe.text import make_text_key
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.partition_tables import list_tables_with_stats
from vlmill.pipeline.filters.language.lid import predict_languages
from vlmill.pipeline.recipe.lock import explain_unbuilt
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.shards.lineage import parse_picture_keys

ASKED = 2000
"""Texts of a source whose language is told, chosen by a hash of what they say."""
LEAST_CHARACTERS = 20
"""Of such a text: shorter ones tell no language."""
OPT_OUTS = (
    Reason.OPTED_OUT,
    Reason.OPT_OUT_LIST,
    Reason.ROBOTS_TXT,
    Reason.ROBOTS_UNKNOWN,
    Reason.AI_PREFERENCE,
    Reason.TDM_RESERVED,
)
"""Reasons by which wishes of right holders are followed, beside takedowns."""


@dataclass(slots=True)
class SourceFigures:
    """What was kept of one source, over all of its partitions."""

    rows: int = 0  # of its input files
    samples: int = 0
    images: int = 0  # places where a picture is shown
    pictures: int = 0  # different files among them, by sha256
    texts: int = 0
    characters: int = 0
    written: Counter[str] = field(default_factory=Counter)  # model -> texts that it wrote
    licences: Counter[str] = field(default_factory=Counter)  # as samples or the recipe name them -> samples
    document_hosts: Counter[str] = field(default_factory=Counter)  # host of the address -> samples
    image_hosts: Counter[str] = field(default_factory=Counter)  # host of the address -> places
    languages: dict[str, float] = field(
        default_factory=dict
    )  # fastText's code -> share of the characters of ASKED texts
    lost: dict[str, int] = field(default_factory=dict)  # reason -> rows, samples, nodes and images together

    def to_json(self) -> dict[str, Any]:
        """The figures by name, the largest first in those that are counted by something."""
        counted = ("written", "licences", "document_hosts", "image_hosts")
        numbers = {
            name: getattr(self, name) for name in ("rows", "samples", "images", "pictures", "texts", "characters")
        }
        return {
            **numbers,
            **{name: sort_counts(getattr(self, name)) for name in counted},
            "languages": sort_counts(self.languages),
            "lost": dict(sorted(self.lost.items())),
        }


def sort_counts(counts: Mapping[str, Any]) -> dict[str, Any]:
    """The largest first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def compute_figures(root: Path, recipe: Recipe) -> dict[str, Any]:
    """All figures: `sources` by name, `stages` by name, `total`, and `period`, from the first to the last build.

    Memory grows with hosts and with 8 bytes for each different picture.

    Raises:
        StoreError: the run is not complete.
    """
    if unbuilt := explain_unbuilt(root):
        raise NotBuiltError(unbuilt)
    funnel = read_funnel(root)
    sources = {}
    everything = list[np.ndarray]()
    for source in sorted(recipe.sources):
        found, pictures = _count_source(root, recipe, source)
        levels = funnel.get(source, {})
        found.rows = levels["rows"]["in"] if "rows" in levels else 0
        found.lost = dict(_add_losses(levels))
        everything.append(pictures)
        sources[source] = found.to_json()
    names = ("rows", "samples", "images", "texts", "characters")
    total = {name: sum(one[name] for one in sources.values()) for name in names}
    total["pictures"] = int(np.unique(np.concatenate(everything)).size) if everything else 0
    return {
        "sources": sources,
        "stages": {stage.name: _read_stage(root, stage.name) for stage in recipe.stages},
        "total": total,
        "period": read_period(root),
    }


def read_period(root: Path) -> dict[str, str | None]:
    """The days of the first and the last event of the run's log; None where it has none."""
    days = []
    path = root / EVENTS
    if path.exists():
        with path.open(encoding="utf-8") as file:
            days = [json.loads(line)["time"][:10] for line in file if line.endswith("}\n")]
    return {"first": min(days, default=None), "last": max(days, default=None)}


def _add_losses(levels: Mapping[str, Any]) -> Counter[str]:
    return Counter(
        {
            f"{level}.{reason}": number
            for level, counts in levels.items()
            for reason, number in {**counts["dropped"], **counts["failed"]}.items()
            if number
        }
    )


def _read_stage(root: Path, stage: str) -> dict[str, Any]:
    """What a stage trains on, repetitions counted: samples, images, tokens by kind; and each source's share."""
    stats = read_json(root / "mixtures" / stage / "stats.json")
    return {
        **{name: stats["total"][name] for name in ("samples", "images", "text", "visual", "tokens")},
        "sources": {one["name"]: one["planned"]["tokens"] for one in stats["sources"]},
    }


def _count_source(root: Path, recipe: Recipe, source: str) -> tuple[SourceFigures, np.ndarray]:
    """The figures of a source under its first image policy, and the keys of its different pictures."""
    found, keys = SourceFigures(), [np.empty(0, np.uint64)]
    policies = recipe.list_policies(source)
    chosen: list[tuple[int, str]] = []
    if policies:
        tables = {at.partition: at for at in list_tables_with_stats(root, recipe, source)}
        for receipt in read_manifest(root, f"shards/{source}/{min(policies)}"):
            samples = tables[receipt.partition].paths(root)[SAMPLES_FILE]
            for file in receipt.files:
                if file.name.endswith(LINEAGE_SUFFIX):
                    lineage = root / file.path
                    index = lineage.with_name(lineage.name.removesuffix(LINEAGE_SUFFIX) + INDEX_SUFFIX)
                    keys.append(_count_shard(found, lineage))
                    texts = _read_texts(samples, index, lineage)
                    chosen = heapq.nsmallest(ASKED, (*chosen, *_count_texts(found, texts)))
    found.languages = _tell_languages([text for _, text in chosen])
    pictures = np.unique(np.concatenate(keys))
    found.pictures = int(pictures.size)
    return found, pictures


def _count_shard(found: SourceFigures, lineage: Path) -> np.ndarray:
    """Add the samples and images of a shard; returns the keys of its pictures."""
    rows = pl.read_parquet(lineage, columns=["licence", "url", "nodes"], glob=False)
    found.samples += rows.height
    found.licences.update(licence or "unknown" for licence in rows["licence"])
    found.document_hosts.update(filter(None, map(_find_host, rows["url"])))
    nodes = rows.select("nodes").explode("nodes").unnest("nodes")
    shown = nodes.filter(pl.col("sha256").is_not_null() & (pl.col("sha256") != ""))
    found.images += shown.height
    found.image_hosts.update(filter(None, map(_find_host, shown["url"])))
    for origin in nodes["origin"].drop_nulls():
        if origin:
            found.written[json.loads(origin)["model"]] += 1
    return np.unique(parse_picture_keys(shown["sha256"])) if shown.height else np.empty(0, np.uint64)


def _find_host(url: str | None) -> str | None:
    """The host of an address, in lower case; None where it has none."""
    try:
        return urlsplit(url or "").hostname
    except ValueError:  # brackets that hold no address
        return None


def _read_texts(samples: Path, index: Path, lineage: Path) -> pl.Series:
    """The texts of a shard's samples that were kept."""
    row = ["file", "input_row", "page"]
    kept = pl.scan_parquet(lineage, glob=False).select(
        "row", node=pl.col("nodes").list.eval(pl.element().struct.field("node"))
    )
    kept = kept.join(pl.scan_parquet(index, glob=False).select("row", *row), on="row").explode("node")
    nodes = pl.scan_parquet(samples, glob=False).select("file", "page", "nodes", input_row="row")
    nodes = nodes.with_columns(node=pl.int_ranges(pl.col("nodes").list.len(), dtype=pl.Int32)).explode("nodes", "node")
    nodes = nodes.with_columns(text=pl.col("nodes").struct.field("text")).drop("nodes").drop_nulls("text")
    joined = nodes.join(kept, on=[*row, "node"], how="semi")
    return joined.select("text").collect()["text"]


def _count_texts(found: SourceFigures, texts: pl.Series) -> Iterator[tuple[int, str]]:
    """Add texts; yields those that may tell a language, with the hash that they are chosen by."""
    found.texts += len(texts)
    found.characters += int(texts.str.len_chars().sum())
    for text in texts:
        if len(text) >= LEAST_CHARACTERS:
            yield make_text_key(text), text


def _tell_languages(texts: list[str]) -> dict[str, float]:
    """The most likely language of each text -> its share of the characters, to 4 decimals."""
    counts = Counter[str]()
    for text in texts:
        told = predict_languages(text)
        counts[max(told, key=lambda code: (told[code], code)) if told else "unknown"] += len(text)
    whole = sum(counts.values())
    return {code: round(number / whole, 4) for code, number in counts.items()} if whole else {}


def get_figure(figures: Mapping[str, Any], name: str) -> Any:
    """One figure by its dotted name, such as `sources.web.pictures`; names with dots in them are found as well.

    Raises:
        StoreError: there is none of this name; it offers those that are there.
    """
    if name in figures:
        return figures[name]
    for key, inner in figures.items():
        if name.startswith(f"{key}.") and isinstance(inner, Mapping):
            return get_figure(inner, name.removeprefix(f"{key}."))
    raise StoreError(f"figure {name!r}: there is none; {suggest_names(name, list(figures))}")
