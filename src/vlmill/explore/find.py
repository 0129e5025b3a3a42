"""Words and vectors to samples: a search of the run's own tables, and the nearest neighbours of a sample.

Texts are searched where they lie, a partition after the other, so the index holds none. Vectors are copied once into
the index, rows of float16 beside each other, and compared block by block.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import polars as pl

from vlmill.explore.columns import ColumnWriter, has_column, open_column
from vlmill.explore.index import Index
from vlmill.explore.tables import list_indexed_partitions
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.names import SAMPLES_FILE, name_embeddings
from vlmill.pipeline.core.sample import SampleId
from vlmill.pipeline.core.scores import read_embeddings
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.schema import Recipe

SEARCHES = 8
"""Whose results are remembered."""
BLOCK = 65_536
"""Vectors that are compared at once."""


@dataclass(frozen=True)
class Neighbour:
    """A sample with the part of it that is near, and how near it is: the cosine of the two vectors."""

    number: int
    node: int
    similarity: float


class Finder:
    """Finds samples of an indexed run."""

    def __init__(self, root: Path, recipe: Recipe, index: Index) -> None:
        self.root, self.recipe, self.index = root, recipe, index
        self._partitions = {(one.source, one.name): one for one in list_indexed_partitions(root, recipe)}
        self._found = OrderedDict[str, np.ndarray]()
        self._lock = Lock()

    def search_texts(self, words: str) -> np.ndarray:
        """A mask of the samples that have all words in their texts, their id or that of their row, whatever their case.

        Words in quotes are one. A whole id finds that sample alone.
        """
        wanted = " ".join(words.lower().split())
        with self._lock:
            if wanted not in self._found:
                self._found[wanted] = self._search_tables(words, split_query(wanted))
                if len(self._found) > SEARCHES:
                    self._found.popitem(last=False)
            self._found.move_to_end(wanted)
            return self._found[wanted]

    def _search_tables(self, words: str, wanted: list[str]) -> np.ndarray:
        if not wanted:
            return np.ones(self.index.size, bool)
        mask = np.zeros(self.index.size, bool)
        named = _parse_id(words.strip())
        for source, name, start in self.index.partitions:
            scanned = pl.scan_parquet(self._partitions[source, name].tables[SAMPLES_FILE], glob=False)
            if named is not None:
                if named.source == source:
                    fits = (
                        (pl.col("file") == named.file) & (pl.col("row") == named.row) & (pl.col("page") == named.page)
                    )
                    found = scanned.select(fits).collect().to_series().to_numpy()
                    mask[start : start + len(found)] = found
                continue
            # one text a sample, so that words may stand in different nodes; line ends keep nodes apart
            texts = pl.col("nodes").list.eval(pl.element().struct.field("text").fill_null("")).list.join("\n")
            ids = [name for name in ("file", "upstream_id") if name in scanned.collect_schema().names()]
            hay = pl.concat_str(pl.lit(f"{source}/"), *(part for name in ids for part in (name, pl.lit("\n"))), texts)
            hay = hay.str.to_lowercase()
            fits = pl.all_horizontal(hay.str.contains(word, literal=True) for word in wanted)
            found = scanned.select(fits).collect().to_series().to_numpy()
            mask[start : start + len(found)] = found
        return mask

    # -- vectors

    def list_vectors(self) -> list[str]:
        """The signals that have vectors."""
        return [name for name in self.recipe.signals if self._list_tables(name)]

    def _list_tables(self, signal: str) -> dict[tuple[str, str], Path]:
        """The tables of a signal's vectors, by partition."""
        found = dict[tuple[str, str], Path]()
        for source in self.index.sources:
            try:
                receipts = read_manifest(self.root, f"steps/{source}/{signal}")
            except StoreError:
                continue
            found |= {
                (source, receipt.partition): self.root / file.path
                for receipt in receipts
                for file in receipt.files
                if file.name == name_embeddings(signal)
            }
        return found

    def find_neighbours(self, signal: str, number: int, most: int) -> list[Neighbour]:
        """The samples nearest to a sample by a signal's vectors, the nearest first, each once.

        Raises:
            StoreError: the signal has no vectors, or none of this sample.
        """
        owners, nodes, vectors = self._open_vectors(signal)
        mine = np.flatnonzero(owners == number)
        if not mine.size:
            raise StoreError(f"signal {signal} has no vector of this sample")
        asked = _normalise_rows(vectors[mine].astype(np.float32))
        near = np.empty(len(owners), np.float32)
        for first in range(0, len(owners), BLOCK):
            block = _normalise_rows(vectors[first : first + BLOCK].astype(np.float32))
            near[first : first + BLOCK] = (block @ asked.T).max(axis=1)
        near[mine] = -2
        found = dict[int, Neighbour]()
        for place in np.argsort(-near, kind="stable")[: 8 * most].tolist():
            owner = int(owners[place])
            found.setdefault(owner, Neighbour(owner, int(nodes[place]), float(near[place])))
        return [one for one in found.values() if one.similarity > -2][:most]

    def _open_vectors(self, signal: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Owners, nodes and (n, length) vectors; copied into the index when they are first asked for."""
        name, folder = f"vectors.{signal}", self.index.folder
        with self._lock:
            if not has_column(folder, f"{name}.owner"):
                self._copy_vectors(signal, name)
        owners = open_column(folder, f"{name}.owner")
        flat = open_column(folder, f"{name}.flat")
        return owners, open_column(folder, f"{name}.node"), flat.reshape(len(owners), -1)

    def _copy_vectors(self, signal: str, name: str) -> None:
        tables, writer = self._list_tables(signal), ColumnWriter(self.index.folder)
        if not tables:
            raise StoreError(f"signal {signal} has no vectors; those of kind image_embedding and text_embedding have")
        for source, partition, start in self.index.partitions:
            if (source, partition) in tables:
                found = read_embeddings(tables[source, partition], signal)
                writer.append(f"{name}.flat", found.vectors.reshape(-1))
                writer.append(f"{name}.node", found.nodes.astype(np.int32))
                writer.append(f"{name}.owner", found.samples.astype(np.uint32) + np.uint32(start))
        writer.close()


def split_query(words: str) -> list[str]:
    """The words of a query; what stands in quotes is one."""
    parts = words.split('"')
    quoted = [part.strip() for part in parts[1::2] if part.strip()]
    return [*quoted, *(word for part in parts[::2] for word in part.split())]


def _parse_id(text: str) -> SampleId | None:
    try:
        return SampleId.parse(text)
    except ValueError:
        return None


def _normalise_rows(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normal: np.ndarray = vectors / np.maximum(lengths, 1e-12)
    return normal
