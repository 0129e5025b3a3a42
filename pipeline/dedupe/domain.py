"""OBELICS' rules for web documents.

They concern what a domain repeats, and documents that show the same addresses.

Section 3.2 and appendix A.1 of Laurencon et al. (2023): paragraphs that stand at least three times in the documents of
one domain were removed, and of documents with the same set of image addresses one was kept. A paragraph is a text node.
As there, a domain is the host of a document's address: a registered domain would take the blogs of one provider for one
site, and needs a list that changes every week.

`signature` files each paragraph under its domain, `candidates` finds those that are filed twice, and `resolve` counts
these alone among what is left: no step holds the paragraphs of everything.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from vlmill.pipeline.dedupe.hashing import mix_bits
from vlmill.pipeline.dedupe.text import make_text_key

PARAGRAPHS = pa.schema([("place", pa.uint64()), ("documents", pa.int64())])
"""Sorted: a paragraph of a domain, and in how many documents it stands."""
LEAST = 2
"""Documents from which a paragraph can be called repeated."""


def hash_host(url: str) -> int | None:
    """The key of the host that a document came from, in lower case and without port; None where the address has none.

    Pure.
    """
    try:
        name = urlsplit(url).hostname
    except ValueError:  # brackets that hold no address
        return None
    return make_text_key(name) if name else None


def hash_paragraphs(hosts: NDArray[np.uint64] | np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 bits that name a paragraph within its domain, from the keys of both; pure."""
    return mix_bits(keys ^ mix_bits(np.atleast_1d(hosts)))


def find_repeated(
    places: NDArray[np.uint64], documents: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The places that stand in at least LEAST documents, sorted, and in how many; pure.

    Args:
        places: Of several partitions, in any order.
        documents: In how many documents of its partition each stands.
    """
    found, owners = np.unique(places, return_inverse=True)
    sums = np.zeros(found.size, np.int64)
    np.add.at(sums, owners, documents)
    return found[sums >= LEAST], sums[sums >= LEAST]


def find_common_paragraphs(nodes: pl.DataFrame, least: int) -> pl.DataFrame:
    """The `nodes` with a `paragraph` that stands in at least `least` documents, and in how many `documents`."""
    counted = nodes.filter(pl.col("paragraph").is_not_null())
    counted = counted.with_columns(documents=pl.col("order").n_unique().over("paragraph"))
    return counted.filter(pl.col("documents") >= least)


def find_same_addresses(shown: pl.DataFrame) -> pl.DataFrame:
    """Documents that show the same addresses as one before them: `order` and `keeper`.

    Args:
        shown: Image nodes of documents with `order` and `url`. A document with an image that has no address is like no
            other.
    """
    addresses = pl.col("url").unique().sort().cast(pl.String).str.join(" ", ignore_nulls=False)
    albums = shown.group_by("order").agg(addresses=addresses).drop_nulls().sort("order")
    albums = albums.with_columns(keeper=pl.col("order").first().over("addresses"))
    return albums.filter(pl.col("order") != pl.col("keeper")).select("order", "keeper")
