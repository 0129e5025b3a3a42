"""What recurs on a host: OBELICS' rules for web documents, and two more.

They concern what a domain repeats, and documents that show the same addresses.

Section 3.2 and appendix A.1 of Laurencon et al. (2023): paragraphs that stand at least three times in the documents of
one domain were removed, and of documents with the same set of image addresses one was kept. A paragraph is a text node.
As there, a domain is the host of a document's address: a registered domain would take the blogs of one provider for one
site, and needs a list that changes every week.

Ours: a paragraph is repeated if all of its lines are, so that a menu goes in which entries change their places, or a
footer that is written in one paragraph here and in two there. What menus put between their entries ends a line, too,
and case and numbers beside words are not compared: counters, dates and numbers of pages change. And images go that much
of a host shows, before they are in as many documents as `boilerplate` asks for.

`signature` files each line under its domain, `candidates` finds those that are filed twice, and `resolve` counts
these alone among what is left: no step holds the lines of everything.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from vlmill.pipeline.dedupe.hashing import mix_bits
from vlmill.pipeline.dedupe.text import make_text_key

LINES = pa.schema([("place", pa.uint64()), ("documents", pa.int64())])
"""Sorted: a line of a domain, and in how many documents it stands."""
LEAST = 2
"""Documents from which a line can be called repeated."""
LEAST_SHOWN = 3
"""Documents of a host from which an image can be called its own."""
_BREAK = re.compile(r"[\n\u2028|\u2022\u00b7\u203a\u00bb\u2192]")
"""Ends of lines, and the marks between the entries of a menu."""
_NUMBER = re.compile(r"\b\d+\b")  # by itself: names of parts and versions stay apart


def hash_host(url: str) -> int | None:
    """The key of the host that a document came from, in lower case and without port; None where the address has none.

    Pure.
    """
    try:
        name = urlsplit(url).hostname
    except ValueError:  # brackets that hold no address
        return None
    return make_text_key(name) if name else None


def hash_lines(text: str) -> list[int]:
    """The keys of the different lines of a text, sorted, without case and, beside words, with one digit for a number.

    Lines without a letter or digit do not count beside others. Pure.
    """
    text = text.casefold()
    lines = [line for line in _BREAK.split(text) if any(map(str.isalnum, line))]
    folded = {_NUMBER.sub("0", line) if any(map(str.isalpha, line)) else line for line in lines or [text]}
    return sorted(map(make_text_key, folded))


def hash_places(hosts: NDArray[np.uint64] | np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 bits that name a line within its domain, from the keys of both; pure."""
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


def list_line_places(nodes: pl.DataFrame) -> pl.DataFrame:
    """The `places` of lines that may be repeated, a row each, with what the nodes have besides.

    Args:
        nodes: Text nodes with lists of `places`; null where a node has none.
    """
    return nodes.explode("places").drop_nulls("places")


def find_common_paragraphs(nodes: pl.DataFrame, repeated: pl.DataFrame) -> pl.DataFrame:
    """The nodes all of whose lines are repeated, and in how many `documents` the rarest stands.

    Args:
        nodes: Text nodes with `order`, `node`, `places`, the places of those of their lines that may be repeated, and
            `whole`, whether these are all of their lines.
        repeated: `places` of lines that stand in enough documents, and in how many.
    """
    lines = list_line_places(nodes.filter("whole")).join(repeated, on="places", how="left")
    rarest = lines.group_by("order", "node").agg(
        pl.col("documents").min(), repeated=pl.col("documents").is_not_null().all()
    )
    return rarest.filter("repeated").drop("repeated")


def find_host_images(shown: pl.DataFrame, same: str, share: float) -> pl.DataFrame:
    """The nodes of images that at least this share of their host's documents shows, LEAST_SHOWN at least.

    Args:
        shown: Image nodes of documents with `order`, `node`, `host` and what makes images the same.
        same: The column that does.
        share: Of the documents of a host that show any image.
    """
    hosted = shown.drop_nulls("host").with_columns(
        documents=pl.col("order").n_unique().over("host", same), of=pl.col("order").n_unique().over("host")
    )
    return hosted.filter((pl.col("documents") >= LEAST_SHOWN) & (pl.col("documents") >= share * pl.col("of")))


def list_albums(shown: pl.DataFrame) -> pl.DataFrame:
    """The `addresses` that documents show, in one text: `order` and this.

    Args:
        shown: Image nodes of documents with `order` and `url`. A document with an image that has no address is like no
            other, and left out.
    """
    addresses = pl.col("url").unique().sort().cast(pl.String).str.join(" ", ignore_nulls=False)
    return shown.group_by("order").agg(addresses=addresses).drop_nulls().sort("order")


def find_same_addresses(albums: pl.DataFrame) -> pl.DataFrame:
    """Documents that show the same addresses as one before them: `order` and `keeper`.

    Args:
        albums: `order` and `addresses` of documents.
    """
    albums = albums.sort("order").with_columns(keeper=pl.col("order").first().over("addresses"))
    return albums.filter(pl.col("order") != pl.col("keeper")).select("order", "keeper")
