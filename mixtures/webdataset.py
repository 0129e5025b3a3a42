"""A stage's shards as a pipeline of the webdataset package, for those who train with another loader.

Beside the plan: the order is that of the shards. `reader.py` reads what the plan says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vlmill.mixtures.reader import PlannedMixture, read_columns
from vlmill.pipeline.core.checked import check_hash
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.run_path import RunPath


def open_webdataset(root: Path, stage: str, **options: Any) -> Any:
    """The samples in a stage's shards, each once, decoded.

    A `webdataset.WebDataset`, to which `.shuffle()`, `.map()` and so on are added.

    Samples come by the paths of their shards, in the order of each shard. Those that the stage holds out do not come.
    All others in the shards of the stage's sources do: shares, repetition, `where` and packing are the plan's.

    A sample is a dict:

    * `__key__`: 15 digits; with `__url__`, the path of its tar, no other sample has them
    * `json`: a dict of `id`, `source`, `group`, `licence`, `url`, and `nodes` in order; a text node has `text`, an
      image node the
      `width` and `height` of the original and `parts`, the keys of its pictures
    * `<node>.<part>.<extension>`, for example `0.canvas.webp`: an RGB picture of Pillow, drawn under the stage's image
      policy

    Args:
        root: The run's folder.
        stage: Whose mixture.
        options: As `webdataset.WebDataset` has them, for example `shardshuffle=100` or
            `nodesplitter=webdataset.split_by_node`. Without any the order is always the same.

    Raises:
        StoreError: the run has no such mixture, or an index is missing or damaged; from the iterator, a shard that is.
    """
    import webdataset  # noqa: PLC0415 - loads torch where that is installed

    if isinstance(root, RunPath):
        raise StoreError(
            f"{root}: webdataset reads whole shards of a folder; copy the run's folder to a file system, or read the "
            "stage's batches, which are fetched by range"
        )
    mixture = PlannedMixture(root, stage)
    shards = {
        str(root.absolute() / shard["path"]): shard["sha256"]
        for source in mixture.lock["sources"]
        for shard in source["shards"]
    }
    samples = webdataset.WebDataset(sorted(shards), **{"shardshuffle": False, **options})
    openers = (webdataset.cache.StreamingOpen, webdataset.cache.FileCache)
    place = next(place for place, step in enumerate(samples.pipeline) if isinstance(step, openers))
    samples.pipeline.insert(place, partial(_check_shards, shards))
    return samples.select(partial(_is_free, _find_held_out(mixture))).decode("pil")


def _check_shards(digests: Mapping[str, str], urls: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The shards as they come; each is hashed in full before it is opened for the first time in this process.

    Raises:
        StoreError: one is not the shard that the mixture was planned over.
    """
    for url in urls:
        check_hash(Path(url["url"]), digests[url["url"]])
        yield url


def _is_free(held_out: Mapping[str, frozenset[str]], sample: Mapping[str, Any]) -> bool:
    return sample["__key__"] not in held_out.get(sample["__url__"], ())


def _find_held_out(mixture: PlannedMixture) -> dict[str, frozenset[str]]:
    """The keys of the samples that a stage holds out, by the paths of their shards."""
    rows: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for segment in mixture.held_out():
        shard = mixture.lock["sources"][segment.source]["shards"][segment.shard]
        rows[shard["path"], shard["index"], shard["index_sha256"]].add(segment.row)
    found = {}
    for (path, index, sha256), held in rows.items():
        keys = read_columns(mixture.root / index, sha256, ["key"])["key"].to_pylist()
        found[str(mixture.root.absolute() / path)] = frozenset(keys[row] for row in held)
    return found
