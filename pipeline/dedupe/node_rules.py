"""The rules by which images and paragraphs of web documents go, and documents for the addresses of their images.

Images that are everywhere go first, so that documents are not called the same for the logo of their site; and a
document that goes counts for no paragraph. Last are things whose vectors are close, of all units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE
from vlmill.pipeline.dedupe.domain import (
    find_common_paragraphs,
    find_host_images,
    find_same_addresses,
    list_albums,
    list_line_places,
)
from vlmill.pipeline.dedupe.left import DROPS, Left
from vlmill.pipeline.dedupe.rule import DropsAnswers, address_drops, find_block, make_group, name_reason
from vlmill.pipeline.dedupe.semantic import SemanticRule
from vlmill.pipeline.dedupe.semantic_drops import drop_copies, find_copies, rank_things, select_things
from vlmill.pipeline.dedupe.signature import DOCUMENT


@dataclass(frozen=True)
class CommonImages:
    """An image that stands in too many web documents leaves them all."""

    same: str  # column that makes images the same
    boilerplate: int

    kind: ClassVar[str] = "common"

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        return _show_documents(left).select(pl.col(self.same).alias("group"), "order").unique()

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del held
        counted = claims.with_columns(documents=pl.len().over("group"))
        common = counted.filter(pl.col("documents") > self.boilerplate)
        return common.select(find_block(), same="group", documents="documents").unique()

    def drop(self, left: Left, answers: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        common = _show_documents(left).join(answers, left_on=self.same, right_on="same")
        return _drop_nodes(common, Reason.BOILERPLATE_IMAGE)


@dataclass(frozen=True)
class HostImages(DropsAnswers):
    """An image that a large share of its host's documents shows leaves them all."""

    same: str
    share: float

    kind: ClassVar[str] = "host_images"

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        shown = _show_documents(left).drop_nulls("host")
        return shown.select(pl.col("host").alias("group"), "order", "node", pl.col(self.same).alias("same"))

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del held
        found = find_host_images(claims.rename({"group": "host"}), "same", self.share)
        return address_drops(_drop_nodes(found, Reason.HOST_IMAGE))


@dataclass(frozen=True)
class SameAddresses(DropsAnswers):
    """Web documents go whose images have the addresses that those of an earlier one have."""

    kind: ClassVar[str] = "addresses"

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        return list_albums(_show_documents(left)).select(make_group("addresses"), "order", "addresses")

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del held
        again = find_same_addresses(claims)
        reason = name_reason(Reason.SAME_ADDRESSES)
        return address_drops(again.with_columns(node=pl.lit(WHOLE_SAMPLE), reason=reason, score=pl.lit(1.0)))


@dataclass(frozen=True)
class RepeatedParagraphs:
    """A paragraph each of whose lines stands in several documents of its host leaves them all."""

    least: int

    kind: ClassVar[str] = "paragraphs"

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        lines = list_line_places(_select_documents(left))
        return lines.select(pl.col("places").alias("group"), "order").unique()

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del held
        counted = claims.with_columns(documents=pl.len().over("group"))
        return counted.filter(pl.col("documents") >= self.least).select(find_block(), "group", "documents").unique()

    def drop(self, left: Left, answers: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        found = find_common_paragraphs(_select_documents(left), answers.select("documents", places="group"))
        return _drop_nodes(found, Reason.REPEATED_PARAGRAPH)


@dataclass(frozen=True)
class CopiedImages(DropsAnswers):
    """An image of a web document goes where an earlier one shows it."""

    same: str

    kind: ClassVar[str] = "images"

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        shown = _show_documents(left)
        return shown.select(pl.col(self.same).alias("group"), "order", "node", "key", "best")

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del held
        return address_drops(_drop_repeated(claims, ["group"]))


@dataclass(frozen=True)
class RepeatedImages:
    """An image that comes twice in a web document goes the second time. Needs no other document."""

    same: str

    kind: ClassVar[str] = "again"

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        return left.images.clear().select(pl.col("key").alias("group"), "order")

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del held
        return claims.select(to="order")

    def drop(self, left: Left, answers: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        del answers
        return _drop_repeated(_show_documents(left), ["order", self.same])


@dataclass(frozen=True)
class CloseVectors:
    """What is similar by its vector to something else that is left goes."""

    rule: SemanticRule

    kind: ClassVar[str] = "vectors"
    pairs: ClassVar[str] = "semantic"

    @property
    def least(self) -> float:
        """See RankedRule."""
        return self.rule.min

    def claim(self, left: Left) -> pl.DataFrame:
        """See Rule."""
        things = select_things(left.nodes, left.samples, self.rule)
        return things.select(pl.col("key").alias("group"), "order", "node")

    def rank(self, claims: pl.DataFrame) -> pl.DataFrame:
        """See RankedRule."""
        return rank_things(claims)

    def decide(self, claims: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        return find_copies(claims, held).rename({"order": "to"})

    def drop(self, left: Left, answers: pl.DataFrame) -> pl.DataFrame:
        """See Rule."""
        things = select_things(left.nodes, left.samples, self.rule)
        return drop_copies(things, answers.rename({"to": "order"}), self.rule)


def _drop_nodes(nodes: pl.DataFrame, reason: Reason) -> pl.DataFrame:
    """DROPS of nodes that stand in so many `documents`."""
    dropped = nodes.select("order", "node", reason=name_reason(reason), score="documents", keeper=None)
    return dropped.cast(DROPS)


def _drop_repeated(shown: pl.DataFrame, same: list[str]) -> pl.DataFrame:
    """DROPS of images that come again among those with the same of these columns."""
    place = pl.struct("order", "node")
    shown = shown.sort("order", "node").with_columns(
        first=pl.col("key").first().over(same),
        keeper=pl.col("order").first().over(same),
        again=place != place.first().over(same),
    )
    exact = pl.col("key") == pl.col("first")
    copies = shown.filter("again").select(
        "order",
        "node",
        reason=pl.when(exact).then(name_reason(Reason.EXACT_IMAGE)).otherwise(name_reason(Reason.NEAR_IMAGE)),
        score=pl.when(exact).then(1.0).otherwise("best"),
        keeper="keeper",
    )
    return copies.cast(DROPS)


def _select_documents(left: Left) -> pl.DataFrame:
    """The nodes of web documents."""
    return left.nodes.filter(pl.col("unit") == DOCUMENT)


def _show_documents(left: Left) -> pl.DataFrame:
    """The images of web documents."""
    return left.images.filter(pl.col("unit") == DOCUMENT)
