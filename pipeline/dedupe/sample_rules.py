"""The rules by which whole samples and turns go. They come first: each looks at another unit of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE
from vlmill.pipeline.dedupe.captions import keep_best_captions, rank_captions
from vlmill.pipeline.dedupe.contained import find_contained, rank_texts
from vlmill.pipeline.dedupe.left import DROPS, Left
from vlmill.pipeline.dedupe.rule import DropsAnswers, address_drops, drop_samples, make_group, name_reason
from vlmill.pipeline.dedupe.signature import DOCUMENT, PAGE, TURNS


@dataclass(frozen=True)
class ContainedTexts(DropsAnswers):
    """Documents go that stand in longer ones."""

    containment: float

    kind: ClassVar[str] = "contained_texts"
    pairs: ClassVar[str] = "contained"

    @property
    def least(self) -> float:
        """See RankedRule."""
        return self.containment

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        return _select_long(left).select("label", "order", "text", "shingles").rename({"label": "group"})

    def rank(self, claims: pl.DataFrame) -> pl.DataFrame:
        """See RankedRule."""
        return rank_texts(claims)

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        gone, reason = find_contained(claims, held), name_reason(Reason.CONTAINED_TEXT)
        return address_drops(gone.with_columns(reason=reason, node=pl.lit(WHOLE_SAMPLE)))


@dataclass(frozen=True)
class CopiedTexts(DropsAnswers):
    """Documents go whose text is that of another, or similar."""

    kind: ClassVar[str] = "texts"

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        return _select_long(left).select("label", "order", "text", "best").rename({"label": "group"})

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del held
        texts = claims.sort("order").with_columns(
            keeper=pl.col("order").first().over("group"), kept=pl.col("text").first().over("group")
        )
        exact = pl.col("text") == pl.col("kept")
        return drop_samples(
            texts,
            reason=pl.when(exact).then(name_reason(Reason.EXACT_TEXT)).otherwise(name_reason(Reason.NEAR_TEXT)),
            score=pl.when(exact).then(1.0).otherwise("best"),
        )


@dataclass(frozen=True)
class CopiedPages(DropsAnswers):
    """Pages, pairs and documents of little text go whose images and text are those of another, or similar."""

    by_picture: tuple[str, ...]  # sources of pairs that another rule compares

    kind: ClassVar[str] = "pages"

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        samples = _add_albums(left).filter(~_is_single(self.by_picture))
        compared = samples.filter((pl.col("unit") == PAGE) | ((pl.col("unit") == DOCUMENT) & ~pl.col("long")))
        return compared.select(
            make_group("shows", pl.coalesce("label", "text")),
            "order",
            "shows",
            "files",
            "likeness",
            "text",
            "best",
            says=pl.coalesce("label", "text"),
        )

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del held
        thing = ["shows", "says"]
        compared = claims.sort("order").with_columns(
            keeper=pl.col("order").first().over(thing),
            same_files=pl.col("files") == pl.col("files").first().over(thing),
            same_text=pl.col("text") == pl.col("text").first().over(thing),
        )
        exact = (
            pl.when(pl.col("files") == "")
            .then(name_reason(Reason.EXACT_TEXT))
            .otherwise(name_reason(Reason.EXACT_IMAGE))
        )
        return drop_samples(
            compared,
            reason=pl.when(~pl.col("same_files"))
            .then(name_reason(Reason.NEAR_IMAGE))
            .when(~pl.col("same_text"))
            .then(name_reason(Reason.NEAR_TEXT))
            .otherwise(exact),
            score=pl.when(~pl.col("same_files"))
            .then("likeness")
            .when(~pl.col("same_text"))
            .then("best")
            .otherwise(1.0),
        )


@dataclass(frozen=True)
class CopiedPictures(DropsAnswers):
    """Of the pairs that show a picture one is kept, whatever their captions."""

    by_picture: tuple[str, ...]  # sources

    kind: ClassVar[str] = "captions"

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        single = rank_captions(_add_albums(left).filter(_is_single(self.by_picture)), left.nodes)
        return single.select(make_group("shows"), "order", "priority", "words", "text", "shows", "files", "likeness")

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del held
        exact = pl.when("same_files")
        return drop_samples(
            keep_best_captions(claims),
            reason=exact.then(name_reason(Reason.EXACT_IMAGE)).otherwise(name_reason(Reason.NEAR_IMAGE)),
            score=pl.when("same_files").then(1.0).otherwise("likeness"),
        )


@dataclass(frozen=True)
class CopiedTurns:
    """Turns go whose images, question and answer are those of another turn; samples go all of whose turns do."""

    near_images: bool

    kind: ClassVar[str] = "turns"

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        shown = left.images if self.near_images else left.images.with_columns(label="key")
        turns = _list_turns(left).join(_collect_albums(shown), on="order").sort("order", "turn")
        return turns.select(make_group("shows", "says"), "order", "turn", "shows", "says", "files", "likeness")

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del held
        thing = ["shows", "says"]
        turns = claims.sort("order", "turn").with_columns(
            keeper=pl.col("order").first().over(thing),
            first=pl.col("turn").first().over(thing),
            same_files=pl.col("files") == pl.col("files").first().over(thing),
        )
        again = turns.filter((pl.col("order") != pl.col("keeper")) | (pl.col("turn") != pl.col("first")))
        return again.select(
            "turn",
            "keeper",
            to="order",
            reason=pl.when("same_files")
            .then(name_reason(Reason.EXACT_IMAGE))
            .otherwise(name_reason(Reason.NEAR_IMAGE)),
            score=pl.when("same_files").then(1.0).otherwise("likeness"),
        ).select("to", "turn", "reason", "score", "keeper")

    def drop(self, left: Left, answers: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        turns = _list_turns(left).join(left.images.select("order").unique(), on="order", how="semi")
        turns = turns.join(answers.rename({"to": "order"}), on=["order", "turn"], how="left").sort("order", "turn")
        turns = turns.with_columns(all_again=pl.col("keeper").is_not_null().all().over("order"))
        turns = turns.filter(pl.col("keeper").is_not_null())
        whole = turns.filter("all_again").unique("order", keep="first", maintain_order=True)
        whole = whole.with_columns(node=pl.lit(WHOLE_SAMPLE, pl.Int32))
        parts = turns.filter(~pl.col("all_again")).explode("nodes").rename({"nodes": "node"})
        return pl.concat([frame.select(DROPS.names()).cast(DROPS) for frame in (whole, parts)])


def _select_long(left: Left) -> pl.DataFrame:
    """Documents whose text is long enough to be similar to another."""
    return left.samples.filter((pl.col("unit") == DOCUMENT) & pl.col("long"))


def _list_turns(left: Left) -> pl.DataFrame:
    """The turns that are compared: `order`, `turn`, what is said (`says`), and the numbers of the nodes."""
    spoken = left.nodes.filter((pl.col("kind") == "text") & (pl.col("unit") == TURNS) & (pl.col("role") != "system"))
    said = pl.concat_str("role", pl.col("key").cast(pl.String), separator=" ").str.join("\n")
    return spoken.sort("order", "node").group_by("order", "turn", maintain_order=True).agg(says=said, nodes="node")


def _collect_albums(shown: pl.DataFrame) -> pl.DataFrame:
    """What images a sample shows, in their order: clusters, contents, and the least of their best similarities."""
    labels, keys = (pl.col(name).cast(pl.String).str.join(" ") for name in ("label", "key"))
    return shown.group_by("order", maintain_order=True).agg(shows=labels, files=keys, likeness=pl.col("best").min())


def _add_albums(left: Left) -> pl.DataFrame:
    """The samples with what they show."""
    samples = left.samples.join(_collect_albums(left.images), on="order", how="left")
    return samples.with_columns(pl.col("shows", "files").fill_null(""))


def _is_single(by_picture: tuple[str, ...]) -> pl.Expr:
    """Whether a sample is a pair that is compared by its picture alone."""
    return pl.col("source").is_in(by_picture) & (pl.col("unit") == PAGE) & (pl.col("shows") != "")
