"""Dedupe: exact and near duplicates of texts and images, within and across sources.

    signature    per partition   hashes that let similar things meet, and what similarity is measured on
    places       per block       of a run of many partitions: their places in one file, for the buckets
    candidates   per bucket      which texts and images of everything are worth comparing
    pairs        per share       how similar they are: no threshold, no filter
    semantic     per partition   vectors by cluster, where the recipe asks for it; then per bucket, how similar they are
    resolve      once            which of them go, among what the filters left; of a large run per block and bucket

A new threshold, another filter or a new priority redoes `resolve` alone, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.dedupe.candidates import BUCKET_BITS, FindCandidates
from vlmill.pipeline.dedupe.domain import LEAST
from vlmill.pipeline.dedupe.gather import GatherPlaces, cut_partitions
from vlmill.pipeline.dedupe.measured import EarlierFile
from vlmill.pipeline.dedupe.pairs import FLOORS, MeasurePairs
from vlmill.pipeline.dedupe.resolve import Resolve
from vlmill.pipeline.dedupe.semantic import CompareVectors, FileVectors, Semantic, SemanticRule, Thing
from vlmill.pipeline.dedupe.signature import ComputeSignatures

__all__ = [
    "CompareVectors",
    "ComputeSignatures",
    "Dedupe",
    "FileVectors",
    "FindCandidates",
    "GatherPlaces",
    "MeasurePairs",
    "Resolve",
]

TEXT_BYTES, IMAGE_BYTES = 2_600, 10_700
"""What looking for candidates takes in memory for a text and for an image of a bucket (docs/measurements.md)."""
BUCKET_BYTES = 128 << 20
"""Of these for a bucket, until there are 8,192 buckets: then they grow, to 0.5 GB at 141 million documents."""


@dataclass(frozen=True, config=STRICT)
class Dedupe:
    """The recipe's dedupe block: makes the four steps."""

    text: Annotated[float, Field(ge=FLOORS["text"], le=1)] = (
        0.8  # Jaccard index of shingles from which texts are the same
    )
    image: Annotated[float, Field(ge=FLOORS["image"], le=1)] = 0.97  # similarity from which images are the same
    mirror: bool = False
    """Whether a mirrored image counts as similar. It costs twice the time, and text, hands and traffic differ in a
    mirror."""
    boilerplate: Annotated[int, Field(ge=1)] = 10  # web documents that an image may stand in; OBELICS' number
    near_images: bool = False
    """Whether similar images count as duplicates in web documents and under questions. Off by default: web documents
    show pictures of before and after, and sets made from templates ask the same about scenes that differ by a block or
    a colour. Pages are compared with their text as well."""
    across_documents: bool = False  # whether an image goes from a web document because an earlier one shows it
    same_addresses: bool = False
    """Whether of web documents with the same set of image addresses one is kept, as OBELICS was cleaned."""
    pairs: Literal["image", "image_and_text"] = "image_and_text"
    """What makes two pairs of an image and a caption (kinds `pairs` and `pairs_wds`, and tables with `caption`) the
    same. `image_and_text`: both, as in COYO-700M. `image`: the picture, or one like it; the pair of the source with the
    lowest priority number is kept, of these the one with the most different words in its caption."""
    containment: Annotated[float, Field(ge=FLOORS["contained"], le=1)] | None = None
    """A document is dropped if a longer one holds this share of its shingles; null: containment is not looked for."""
    paragraphs: Annotated[int, Field(ge=LEAST)] | None = None
    """A paragraph is dropped if each of its lines is in at least so many web documents of one host, whatever the case
    and the numbers in it; OBELICS took 3. A paragraph is a text node: with `options: {paragraphs: false}` of a source
    of kind obelics all text between two images is one."""
    host_images: Annotated[float, Field(gt=0, le=1)] | None = None
    """An image is dropped if at least this share of the web documents with images of one host shows it, and three or
    more do: logos and banners of hosts with few documents, which `boilerplate` does not reach."""
    buckets: Annotated[int, Field(ge=1, le=1 << BUCKET_BITS)] | None = None
    """How many tasks look for candidates, and how many measure them; null: as many as the run's texts and images need
    at 128 MiB each."""
    semantic: Semantic | None = None
    """Which vectors of a signal are compared as well, within the clusters of another; null: none. Pairs and pages go
    with their images, web documents lose the image or paragraph, conversations are not asked."""
    cap: Annotated[int, Field(ge=1)] = 64
    """How many candidates of each signature place a text or image is compared with. A picture is compared with as many
    in all: those that look most like it, half of them with a higher key. So scenes made from one template are not all
    compared with each other."""

    @property
    def nearest(self) -> int:
        """Candidates with a higher key that a picture is compared with; it is one of as many others' on average."""
        return max(self.cap // 2, 1)

    def signature(self) -> ComputeSignatures:
        """The step for each partition."""
        return ComputeSignatures(containment=self.containment is not None, mirror=self.mirror)

    def count_buckets(self, texts: int, images: int) -> int:
        """How many buckets a run has that files so many texts and images. Pure; grows with both."""
        size = texts * TEXT_BYTES + images * IMAGE_BYTES
        return self.buckets or min(max(1, -(-size // BUCKET_BYTES)), 1 << BUCKET_BITS)

    def places(self, partitions: Sequence[str]) -> tuple[GatherPlaces, ...]:
        """The steps that file the places of partitions together; none of a few.

        Args:
            partitions: All of them, as `<source>/<partition>`.
        """
        return cut_partitions(partitions, containment=self.containment is not None)

    def candidates(self, buckets: int | None = None) -> tuple[FindCandidates, ...]:
        """The steps for the buckets; as many as are asked for, or as the recipe says."""
        count = buckets or self.buckets or 1
        return tuple(
            FindCandidates(bucket=bucket, buckets=count, cap=self.cap, containment=self.containment is not None)
            for bucket in range(count)
        )

    def pair_steps(self, buckets: int | None = None, earlier: Sequence[EarlierFile] = ()) -> tuple[MeasurePairs, ...]:
        """The steps for the shares of the candidates.

        Args:
            buckets: Shares; None: as the recipe says.
            earlier: What the shares of the build before measured, in their order.
        """
        count, before = buckets or self.buckets or 1, len(earlier)
        return tuple(
            MeasurePairs(
                share,
                count,
                self.containment is not None,
                self.nearest,
                self.mirror,
                tuple(earlier[max(share * before // count - 1, 0) : (share + 1) * before // count + 1]),
            )
            for share in range(count)
        )

    def semantic_steps(
        self, clusters: int, priority: Mapping[str, int], buckets: int | None = None
    ) -> tuple[CompareVectors, ...]:
        """The steps for the buckets of clusters; none where no vectors are compared."""
        if self.semantic is None:
            return ()
        count = buckets or self.buckets or 1
        return tuple(CompareVectors(bucket, count, clusters, self.semantic.floor, priority) for bucket in range(count))

    def resolve(
        self,
        partitions: tuple[str, ...],
        priority: Mapping[str, int],
        filters: tuple[str, ...],
        captioned: Collection[str],
        thing: Thing = "image",
    ) -> Resolve:
        """The last step.

        Args:
            partitions: All of them, as `<source>/<partition>`.
            priority: Source -> number; the lower one is kept.
            filters: The names of those before.
            captioned: Sources of pairs of an image and a caption.
            thing: What the vectors are of that `semantic` compares.
        """
        return Resolve(
            partitions=partitions,
            priority=priority,
            filters=filters,
            by_picture=tuple(sorted(captioned)) if self.pairs == "image" else (),
            text=self.text,
            containment=self.containment,
            image=self.image,
            boilerplate=self.boilerplate,
            near_images=self.near_images,
            across_documents=self.across_documents,
            same_addresses=self.same_addresses,
            paragraphs=self.paragraphs,
            host_images=self.host_images,
            semantic=SemanticRule(thing, semantic.min, semantic.sources) if (semantic := self.semantic) else None,
        )
