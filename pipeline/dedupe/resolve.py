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
from collections.abc import Mapping, Sequence
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
from vlmill.pipeline.dedupe.components import find_components
from vlmill.pipeline.dedupe.left import Left
from vlmill.pipeline.dedupe.node_rules import (
    CloseVectors,
    CommonImages,
    CopiedImages,
    HostImages,
    RepeatedImages,
    RepeatedParagraphs,
    SameAddresses,
)
from vlmill.pipeline.dedupe.overlap import compute_overlap
from vlmill.pipeline.dedupe.ranked import TOLD, hold_groups
from vlmill.pipeline.dedupe.rule import RankedRule, Rule
from vlmill.pipeline.dedupe.sample_rules import ContainedTexts, CopiedPages, CopiedPictures, CopiedTexts, CopiedTurns
from vlmill.pipeline.dedupe.semantic import SemanticRule
from vlmill.pipeline.dedupe.survivors import read_survivors


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

    def list_stages(self) -> tuple[tuple[Rule, ...], ...]:
        """The rules in their order; those of one stage look at what the stages before left."""
        same = "label" if self.near_images else "key"
        copies = CopiedImages(same) if self.across_documents else RepeatedImages(same)
        samples = (
            CopiedTexts(),
            CopiedPages(self.by_picture),
            CopiedPictures(self.by_picture),
            CopiedTurns(self.near_images),
        )
        said = () if self.paragraphs is None else (RepeatedParagraphs(self.paragraphs),)
        stages: tuple[tuple[Rule, ...], ...] = (
            () if self.containment is None else (ContainedTexts(self.containment),),
            samples,
            (CommonImages(same, self.boilerplate),),
            () if self.host_images is None else (HostImages(same, self.host_images),),
            (SameAddresses(),) if self.same_addresses else (),
            (*said, copies),
            () if self.semantic is None else (CloseVectors(self.semantic),),
        )
        return tuple(stage for stage in stages if stage)

    @property
    def texts_too(self) -> bool:
        """Whether texts of documents are compared beside whole documents."""
        return self.semantic is not None and self.semantic.thing == "text"

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Cluster, keep one of each cluster, and write why the others go."""
        samples, nodes = read_survivors(
            inputs, self.partitions, self.filters, self.priority, self._repeats(inputs), all_texts=self.texts_too
        )
        images = nodes.filter(pl.col("kind") == "image")["key"]
        left = Left.begin(
            samples,
            nodes,
            _find_clusters(samples.filter("long")["text"], _read_pairs(inputs, "text"), self.text),
            _find_clusters(images, _read_pairs(inputs, "image"), self.image),
        )
        overlap = compute_overlap(left.samples, left.images)
        for stage in self.list_stages():
            drops = [apply_rule(rule, left, inputs) for rule in stage]
            left = left.without(pl.concat(drops))
        names = samples.select(keeper="order", **{f"keeper_{name}": name for name in SampleId._fields})
        named = left.drops.join(names, on="keeper", how="left")
        write_drops(folder, self.partitions, samples, named)
        write_overlap(folder, overlap)
        return count_drops(samples, left.drops)

    def _repeats(self, inputs: Inputs) -> NDArray[np.uint64]:
        """Places of the lines that may have to go; the filters may have left less of them."""
        if self.paragraphs is None:
            return np.empty(0, np.uint64)
        paths = [inputs[name] for name in sorted(inputs) if name.endswith("/line.repeats.parquet")]
        repeats = (
            pl.scan_parquet(paths, glob=False).filter(pl.col("documents") >= self.paragraphs).select("place").collect()
        )
        return repeats["place"].sort().to_numpy()


def apply_rule(rule: Rule, left: Left, inputs: Inputs) -> pl.DataFrame:
    """DROPS of a rule where everything is one block and one bucket."""
    claims, held = rule.claim(left), TOLD.to_frame()
    if isinstance(rule, RankedRule):
        pairs = _read_pairs(inputs, rule.pairs)
        held = hold_groups(rule.rank(claims), pairs.filter(pl.col("similarity") >= rule.least))
    return rule.drop(left, rule.decide(claims, held))


def _read_pairs(inputs: Inputs, kind: str) -> pl.DataFrame:
    """The pairs of a kind of all shares, each once."""
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


def write_overlap(folder: Path, overlap: Mapping[str, object]) -> None:
    """Write `overlap.json`."""
    (folder / "overlap.json").write_text(json.dumps(overlap, sort_keys=True, indent=1), encoding="utf-8")


def write_drops(folder: Path, partitions: Sequence[str], samples: pl.DataFrame, drops: pl.DataFrame) -> None:
    """One file of verdicts for each partition.

    Args:
        folder: Where.
        partitions: `<source>/<partition>`.
        samples: `order`, `partition` and `sample` of theirs.
        drops: DROPS with the id of the keeper, as `keeper_source` and so on.
    """
    rows = drops.join(samples.select("order", "partition", "sample"), on="order")
    by_partition = {key[0]: frame for key, frame in rows.partition_by("partition", as_dict=True).items()}
    for partition in partitions:
        found = by_partition[partition].iter_rows(named=True) if partition in by_partition else ()
        path = folder / name_resolved_verdicts(partition)
        write_verdicts(path, [_make_verdict(row) for row in found])


def _make_verdict(row: Mapping[str, object]) -> Verdict:
    keeper = SampleId(*(row[f"keeper_{name}"] for name in SampleId._fields))  # type: ignore[arg-type]
    other = "" if row["keeper"] is None else str(keeper)
    return Verdict(row["sample"], row["node"], "dedupe", Reason(row["reason"]), row["score"], other)  # type: ignore[arg-type]


def count_drops(samples: pl.DataFrame, drops: pl.DataFrame) -> Counts:
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
