"""Step `resolve`: which of the similar things go, among what the earlier filters left.

What counts as one thing is a cluster: a connected component of pairs at or above the threshold, over what is left. So
of a chain A ~ B ~ C one is kept although A and C alone may be less similar; and where a filter dropped B, A and C stay
both. The keeper of a cluster is the sample of the source with the lowest priority number, then with the smallest id:
never the first to arrive.

- Web documents and plain text fall with their text. Where that is too short to tell, their images have to be the same
  too.
- On request a document falls that stands in a longer one (`contained.py`).
- Pages and pairs (an image is required) fall where their images and their text are those of another; on request pairs
  by their picture alone (`captions.py`).
- Turns about required images fall where images, question and answer are those of another turn; a sample falls with its
  last.
- An image that comes twice in a web document goes the second time; one that stands in more than `boilerplate` documents
  leaves
  them all, as OBELICS removed images by address (Laurencon et al., 2023, section 3.2).
- On request images or texts go whose vectors are close to those of one that is kept (`semantic_drops.py`), last of all.
- Where the recipe says so, a web document falls that shows the addresses that another shows, and a paragraph or an
  image leaves all documents of a domain that has it in many (`domain.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from vlmill.pipeline.core.names import OUTLINE_FILE, name_resolved_verdicts, name_verdicts
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, SampleId, Verdict, write_verdicts
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.dedupe.captions import keep_best_captions
from vlmill.pipeline.dedupe.components import find_components
from vlmill.pipeline.dedupe.contained import find_contained
from vlmill.pipeline.dedupe.domain import find_common_paragraphs, find_host_images, find_same_addresses
from vlmill.pipeline.dedupe.overlap import compute_overlap
from vlmill.pipeline.dedupe.semantic import SemanticRule
from vlmill.pipeline.dedupe.semantic_drops import find_semantic_drops
from vlmill.pipeline.dedupe.signature import DOCUMENT, PAGE, TURNS
from vlmill.pipeline.dedupe.survivors import read_survivors

DROPS = pl.Schema({"order": pl.UInt32, "node": pl.Int32, "reason": pl.String, "score": pl.Float64, "keeper": pl.UInt32})
"""Samples (`node` WHOLE_SAMPLE) and nodes that go. `order` and `keeper` are places in the order of preference."""


@dataclass(frozen=True)
class Resolve:
    """Step: the verdicts of dedupe. Pure.

    Leaves one `<source>.<partition>.dedupe.verdicts.parquet` for each of `parts`, and `overlap.json`: what sources have
    in common. Counts `deduped` samples and `deduped_nodes` of what the filters left; nodes that fall as a consequence
    (the picture of a lost turn) are the business of `apply verdicts`.
    """

    name: ClassVar[str] = "resolve"
    version: ClassVar[int] = 4
    pure: ClassVar[bool] = True

    partitions: tuple[str, ...]  # "<source>/<partition>" of every partition
    priority: Mapping[str, int]  # source -> number; the lower one is kept
    filters: tuple[str, ...]  # those before, in recipe order
    by_picture: tuple[str, ...]  # sources of pairs of which one is kept for each picture
    text: float
    containment: float | None
    image: float
    boilerplate: int
    near_images: bool
    across_documents: bool
    same_addresses: bool
    paragraphs: int | None
    host_images: float | None
    semantic: SemanticRule | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """All pairs, repeated lines, outlines, and verdicts of the filters."""
        return (
            "*/text.pairs.parquet",
            "*/image.pairs.parquet",
            *(("*/contained.pairs.parquet",) if self.containment is not None else ()),
            *(("*/semantic.pairs.parquet",) if self.semantic is not None else ()),
            "*/line.repeats.parquet",
            f"*/*/{OUTLINE_FILE}",
            *(f"*/*/{name_verdicts(filter_)}" for filter_ in self.filters),
        )

    def made_by(self) -> Mapping[str, str]:
        """The libraries that calculate and write."""
        return {library: version(library) for library in ("numpy", "polars", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Cluster, keep one of each cluster, and write why the others go."""
        texts_too = self.semantic is not None and self.semantic.thing == "text"
        samples, every = read_survivors(
            inputs, self.partitions, self.filters, self.priority, self._repeats(inputs), all_texts=texts_too
        )
        texts = _find_clusters(samples.filter("long")["text"], _read_pairs(inputs, "text"), self.text)
        samples = samples.join(texts, left_on="text", right_on="key", how="left").sort("order")
        documents, images = self._drop_documents(samples, inputs), every.filter(pl.col("kind") == "image")
        nodes = every.join(documents, on="order", how="anti")
        clusters = _find_clusters(images["key"], _read_pairs(inputs, "image"), self.image)
        images = images.join(clusters, on="key").sort("order", "node")
        shown = images.join(documents, on="order", how="anti")
        pages = self._drop_pages(samples.join(documents, on="order", how="anti"), nodes, shown)
        asked_of = shown if self.near_images else shown.with_columns(label="key")
        turns = _drop_turns(nodes.filter((pl.col("kind") == "text") & (pl.col("unit") == TURNS)), asked_of)
        web = nodes.filter(pl.col("unit") == DOCUMENT).join(pages, on="order", how="anti")
        drops = [documents, pages, turns, *self._drop_of_web(web, shown.join(web, on=["order", "node"], how="semi"))]
        drops.append(self._drop_semantic(every, samples, pl.concat(drops), inputs))
        self._write(folder, samples, pl.concat(drops).sort("order", "node"))
        overlap = compute_overlap(samples, images)
        (folder / "overlap.json").write_text(json.dumps(overlap, sort_keys=True, indent=1), encoding="utf-8")
        return _count_samples(samples, pl.concat(drops))

    def _drop_documents(self, samples: pl.DataFrame, inputs: Inputs) -> pl.DataFrame:
        """Documents whose text is that of another, similar, or on request contained in it."""
        texts = samples.filter((pl.col("unit") == DOCUMENT) & pl.col("long"))
        if self.containment is None:
            return _drop_copied_texts(texts)
        pairs = _read_pairs(inputs, "contained").filter(pl.col("similarity") >= self.containment)
        contained = find_contained(texts, pairs)
        contained = contained.with_columns(reason=pl.lit(Reason.CONTAINED_TEXT.value), node=pl.lit(WHOLE_SAMPLE))
        contained = contained.select(DROPS.names()).cast(DROPS)
        return pl.concat([_drop_copied_texts(texts.join(contained, on="order", how="anti")), contained])

    def _drop_pages(self, samples: pl.DataFrame, nodes: pl.DataFrame, shown: pl.DataFrame) -> pl.DataFrame:
        """Pages and pairs that are those of another."""
        samples = samples.join(_collect_albums(shown), on="order", how="left").with_columns(
            pl.col("shows", "files").fill_null("")
        )
        single = pl.col("source").is_in(self.by_picture) & (pl.col("unit") == PAGE) & (pl.col("shows") != "")
        captioned = keep_best_captions(samples.filter(single), nodes)
        by_picture = _drop_samples(
            captioned,
            reason=pl.when("same_files")
            .then(pl.lit(Reason.EXACT_IMAGE.value))
            .otherwise(pl.lit(Reason.NEAR_IMAGE.value)),
            score=pl.when("same_files").then(1.0).otherwise("likeness"),
        )
        return pl.concat([by_picture, _drop_whole_pages(samples.filter(~single))])

    def _drop_semantic(
        self, nodes: pl.DataFrame, samples: pl.DataFrame, drops: pl.DataFrame, inputs: Inputs
    ) -> pl.DataFrame:
        """What is similar by its vector to something else that the other rules left."""
        if self.semantic is None:
            return DROPS.to_frame()
        left = nodes.join(drops.filter(pl.col("node") == WHOLE_SAMPLE), on="order", how="anti")
        left = left.join(drops, on=["order", "node"], how="anti")
        return find_semantic_drops(left, samples, _read_pairs(inputs, "semantic"), self.semantic).cast(DROPS)

    def _repeats(self, inputs: Inputs) -> NDArray[np.uint64]:
        """Places of the lines that may have to go; the filters may have left less of them."""
        if self.paragraphs is None:
            return np.empty(0, np.uint64)
        paths = [inputs[name] for name in sorted(inputs) if name.endswith("/line.repeats.parquet")]
        repeats = (
            pl.scan_parquet(paths, glob=False).filter(pl.col("documents") >= self.paragraphs).select("place").collect()
        )
        return repeats["place"].sort().to_numpy()

    def _drop_of_web(self, nodes: pl.DataFrame, shown: pl.DataFrame) -> list[pl.DataFrame]:
        """What goes of the web documents that are left: nodes, and their images in clusters.

        Images that are everywhere go first, so that documents are not called the same for the logo of their site; and a
        document that goes counts for no paragraph.
        """
        common = self._drop_common(shown)
        shown = shown.join(common, on=["order", "node"], how="anti")
        again = _drop_same_addresses(shown) if self.same_addresses else DROPS.to_frame()
        shown, nodes, common = (frame.join(again, on="order", how="anti") for frame in (shown, nodes, common))
        said = DROPS.to_frame()
        if self.paragraphs is not None:
            said = find_common_paragraphs(nodes, self.paragraphs).select(
                "order", "node", reason=pl.lit(Reason.REPEATED_PARAGRAPH.value), score="documents", keeper=None
            )
        return [common, again, said.cast(DROPS), self._drop_copies(shown)]

    def _drop_common(self, shown: pl.DataFrame) -> pl.DataFrame:
        """Images of documents that stand in too many of them, or in too many of their host's."""
        same = "label" if self.near_images else "key"
        counted = shown.with_columns(documents=pl.col("order").n_unique().over(same))
        common = counted.filter(pl.col("documents") > self.boilerplate)
        drops = [common.select("order", "node", reason=pl.lit(Reason.BOILERPLATE_IMAGE.value), score="documents")]
        if self.host_images is not None:
            rare = counted.join(common, on=["order", "node"], how="anti")
            own = find_host_images(rare, same, self.host_images)
            drops.append(own.select("order", "node", reason=pl.lit(Reason.HOST_IMAGE.value), score="documents"))
        return pl.concat(drops).with_columns(keeper=None).cast(DROPS)

    def _drop_copies(self, shown: pl.DataFrame) -> pl.DataFrame:
        """Images of documents that come again."""
        same = "label" if self.near_images else "key"
        place = pl.struct("order", "node")
        shown = shown.with_columns(
            first=pl.col("key").first().over(same if self.across_documents else ["order", same]),
            keeper=pl.col("order").first().over(same) if self.across_documents else pl.col("order"),
            again=place != place.first().over(same if self.across_documents else ["order", same]),
        )
        exact = pl.col("key") == pl.col("first")
        copies = shown.filter("again").select(
            "order",
            "node",
            reason=pl.when(exact).then(pl.lit(Reason.EXACT_IMAGE.value)).otherwise(pl.lit(Reason.NEAR_IMAGE.value)),
            score=pl.when(exact).then(1.0).otherwise("best"),
            keeper="keeper",
        )
        return copies.cast(DROPS)

    def _write(self, folder: Path, samples: pl.DataFrame, drops: pl.DataFrame) -> None:
        """One file of verdicts for each partition."""
        names = samples.select(keeper="order", **{f"keeper_{name}": name for name in SampleId._fields})
        rows = drops.join(samples.select("order", "partition", "sample"), on="order").join(
            names, on="keeper", how="left"
        )
        by_partition = {key[0]: frame for key, frame in rows.partition_by("partition", as_dict=True).items()}
        for partition in self.partitions:
            found = by_partition[partition].iter_rows(named=True) if partition in by_partition else ()
            path = folder / name_resolved_verdicts(partition)
            write_verdicts(path, [_make_verdict(row) for row in found])


def _read_pairs(inputs: Inputs, kind: str) -> pl.DataFrame:
    paths = [inputs[name] for name in sorted(inputs) if name.endswith(f"/{kind}.pairs.parquet")]
    return pl.read_parquet(paths, glob=False).unique()


def _find_clusters(keys: pl.Series, pairs: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """`key`, its cluster's `label`, and its `best` similarity to another of the cluster."""
    left = keys.unique().sort()
    pairs = pairs.filter(pl.col("similarity") >= threshold)
    for end in ("one", "other"):
        pairs = pairs.join(left.to_frame(end), on=end, how="semi")
    labels = find_components(left.to_numpy(), pairs["one"].to_numpy(), pairs["other"].to_numpy())
    ends = [pairs.select(key=end, best="similarity") for end in ("one", "other")]
    best = pl.concat(ends).group_by("key").agg(pl.col("best").max())
    return pl.DataFrame({"key": left, "label": labels}).join(best, on="key", how="left")


def _drop_copied_texts(texts: pl.DataFrame) -> pl.DataFrame:
    """Documents whose text is that of another, or similar."""
    texts = texts.with_columns(keeper=pl.col("order").first().over("label"), kept=pl.col("text").first().over("label"))
    exact = pl.col("text") == pl.col("kept")
    return _drop_samples(
        texts,
        reason=pl.when(exact).then(pl.lit(Reason.EXACT_TEXT.value)).otherwise(pl.lit(Reason.NEAR_TEXT.value)),
        score=pl.when(exact).then(1.0).otherwise("best"),
    )


def _drop_whole_pages(samples: pl.DataFrame) -> pl.DataFrame:
    """Pages, pairs and documents of little text whose images and text are those of another, or similar."""
    compared = samples.filter((pl.col("unit") == PAGE) | ((pl.col("unit") == DOCUMENT) & ~pl.col("long")))
    compared = compared.with_columns(says=pl.coalesce("label", "text")).sort("order")
    thing = ["shows", "says"]
    compared = compared.with_columns(
        keeper=pl.col("order").first().over(thing),
        same_files=pl.col("files") == pl.col("files").first().over(thing),
        same_text=pl.col("text") == pl.col("text").first().over(thing),
    )
    exact = (
        pl.when(pl.col("files") == "").then(pl.lit(Reason.EXACT_TEXT.value)).otherwise(pl.lit(Reason.EXACT_IMAGE.value))
    )
    return _drop_samples(
        compared,
        reason=pl.when(~pl.col("same_files"))
        .then(pl.lit(Reason.NEAR_IMAGE.value))
        .when(~pl.col("same_text"))
        .then(pl.lit(Reason.NEAR_TEXT.value))
        .otherwise(exact),
        score=pl.when(~pl.col("same_files")).then("likeness").when(~pl.col("same_text")).then("best").otherwise(1.0),
    )


def _drop_same_addresses(shown: pl.DataFrame) -> pl.DataFrame:
    """Documents whose images have the addresses that those of an earlier one have."""
    reason = pl.lit(Reason.SAME_ADDRESSES.value)
    again = find_same_addresses(shown).with_columns(node=pl.lit(WHOLE_SAMPLE), reason=reason, score=pl.lit(1.0))
    return again.select(DROPS.names()).cast(DROPS)


def _drop_turns(spoken: pl.DataFrame, shown: pl.DataFrame) -> pl.DataFrame:
    """Turns whose images, question and answer are those of another turn; samples all of whose turns are."""
    said = pl.concat_str("role", pl.col("key").cast(pl.String), separator=" ").str.join("\n")
    turns = spoken.filter(pl.col("role") != "system").group_by("order", "turn").agg(says=said, nodes="node")
    turns = turns.join(_collect_albums(shown), on="order").sort("order", "turn")
    thing = ["shows", "says"]
    turns = turns.with_columns(
        keeper=pl.col("order").first().over(thing),
        first=pl.col("turn").first().over(thing),
        same_files=pl.col("files") == pl.col("files").first().over(thing),
    )
    turns = turns.with_columns(again=(pl.col("order") != pl.col("keeper")) | (pl.col("turn") != pl.col("first")))
    turns = turns.with_columns(all_again=pl.col("again").all().over("order"))
    turns = turns.filter("again").select(
        "order",
        "nodes",
        "keeper",
        "all_again",
        reason=pl.when("same_files").then(pl.lit(Reason.EXACT_IMAGE.value)).otherwise(pl.lit(Reason.NEAR_IMAGE.value)),
        score=pl.when("same_files").then(1.0).otherwise("likeness"),
    )
    whole = turns.filter("all_again").unique("order", keep="first", maintain_order=True)
    whole = whole.with_columns(node=pl.lit(WHOLE_SAMPLE, pl.Int32))
    partitions = turns.filter(~pl.col("all_again")).explode("nodes").rename({"nodes": "node"})
    return pl.concat([frame.select(DROPS.names()).cast(DROPS) for frame in (whole, partitions)])


def _collect_albums(shown: pl.DataFrame) -> pl.DataFrame:
    """What images a sample shows, in their order: clusters, contents, and the least of their best similarities."""
    labels, keys = (pl.col(name).cast(pl.String).str.join(" ") for name in ("label", "key"))
    return shown.group_by("order", maintain_order=True).agg(shows=labels, files=keys, likeness=pl.col("best").min())


def _drop_samples(samples: pl.DataFrame, reason: pl.Expr, score: pl.Expr) -> pl.DataFrame:
    """Drops of the whole samples that are not their own keepers."""
    drops = samples.filter(pl.col("order") != pl.col("keeper"))
    drops = drops.select("order", "keeper", node=pl.lit(WHOLE_SAMPLE, pl.Int32), reason=reason, score=score)
    return drops.select(DROPS.names()).cast(DROPS)


def _make_verdict(row: Mapping[str, object]) -> Verdict:
    keeper = SampleId(*(row[f"keeper_{name}"] for name in SampleId._fields))  # type: ignore[arg-type]
    other = "" if row["keeper"] is None else str(keeper)
    return Verdict(row["sample"], row["node"], "dedupe", Reason(row["reason"]), row["score"], other)  # type: ignore[arg-type]


def _count_samples(samples: pl.DataFrame, drops: pl.DataFrame) -> Counts:
    """The counts over samples that the filters left, and over their nodes."""
    whole = drops.filter(pl.col("node") == WHOLE_SAMPLE).join(samples.select("order", "left"), on="order")
    counts = {"deduped": Count(), "deduped_nodes": Count()}
    for reason, left in whole.select("reason", "left").iter_rows():
        counts["deduped"].lose(Reason(reason))
        counts["deduped_nodes"].lose(Reason(reason), left)
    for reason in drops.filter(pl.col("node") != WHOLE_SAMPLE)["reason"]:
        counts["deduped_nodes"].lose(Reason(reason))
    counts["deduped"].keep(samples.height - whole.height)
    counts["deduped_nodes"].keep(int(np.sum(samples["left"].to_numpy())) - counts["deduped_nodes"].came)
    return counts
