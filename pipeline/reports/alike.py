"""Samples of a partition that are decided alike: one structure of nodes and images, and the same verdicts.

`what_if.py` applies verdicts once for each such class, so that a run of a million samples is answered in seconds. What
applying verdicts looks at beside is not told apart: which sample it is, and what its texts say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from vlmill.pipeline.core.names import IMAGE_STATS_FILE, RAW_SAMPLES_FILE, SAMPLES_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import LEAST_IMAGES, ImageStats, Node, Sample, SampleId, Verdict
from vlmill.pipeline.takedown.steps import read_record

NOBODY = SampleId("", "", 0)
OUTLINE = ("kind", "role", "turn", "required", "image")
"""What applying verdicts needs of a node."""


@dataclass(frozen=True)
class AlikeSamples:
    """Some samples that are decided alike."""

    rows: Sequence[int]  # in samples.parquet, in order
    sample: Sample  # one of them, without its name and texts; its images are numbered from 0
    image_stats: Sequence[ImageStats]  # of these images
    now: Sequence[Verdict]
    then: Sequence[Verdict]


def group_alike(
    tables: Mapping[str, Path], now: Mapping[str, Path], then: Mapping[str, Path]
) -> Iterator[AlikeSamples]:
    """The samples of a partition in classes, in the order of their first rows.

    Args:
        tables: Samples, image stats, and what was taken down.
        now: Filter -> verdicts, in the order of attribution.
        then: The same of another recipe.
    """
    nodes = _read_nodes(tables)
    said = _read_verdicts(now), _read_verdicts(then)
    classes = dict[tuple[bytes, bytes, bytes], list[int]]()
    codes, bounds, nothing = nodes.codes, nodes.bounds.tolist(), (b"", ())
    for row, (start, stop) in enumerate(pairwise(bounds)):
        key = codes[start * 4 : stop * 4], said[0].get(row, nothing)[0], said[1].get(row, nothing)[0]
        classes.setdefault(key, []).append(row)
    for rows in classes.values():
        sample, image_stats = nodes.make_sample(rows[0])
        verdicts = [found.get(rows[0], nothing)[1] for found in said]
        yield AlikeSamples(rows, sample, image_stats, *verdicts)


@dataclass(frozen=True)
class _Nodes:
    """The nodes of all samples, one after the other."""

    table: pl.DataFrame  # OUTLINE, `after`, `lost` (why its image is), `gone` (whether its sample was taken down)
    codes: bytes  # four for each node, equal for nodes that are alike
    bounds: np.ndarray  # of samples: those of sample i are [bounds[i], bounds[i + 1])

    def make_sample(self, row: int) -> tuple[Sample, list[ImageStats]]:
        """A sample with its texts left out, and the stats of its images."""
        nodes, image_stats = list[Node](), list[ImageStats]()
        part = self.table[int(self.bounds[row]) : int(self.bounds[row + 1])]
        for kind, role, turn, required, image, after, lost, gone in part.iter_rows():
            number, text = len(image_stats) if image is not None else None, None if gone else ""
            nodes.append(Node(kind, role, turn, required=required, image=number, text=text, after=after))
            if image is not None:
                image_stats.append(ImageStats(len(image_stats), None if lost is None else Reason(lost)))
        return Sample(NOBODY, tuple(nodes)), image_stats


def _read_nodes(tables: Mapping[str, Path]) -> _Nodes:
    with pq.ParquetFile(tables[SAMPLES_FILE]) as file:
        written = ("after",) if RAW_SAMPLES_FILE in tables else ()
        listed = file.read(columns=[f"nodes.list.element.{name}" for name in (*OUTLINE, *written)])
    column = listed.column("nodes").combine_chunks()
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    bounds = column.offsets.to_numpy() - (column.offsets[0].as_py() if len(column.offsets) else 0)
    flat = pl.from_arrow(pa.Table.from_struct_array(column.flatten()))
    assert isinstance(flat, pl.DataFrame)
    reasons = pl.read_parquet(tables[IMAGE_STATS_FILE], columns=["reason"], glob=False)["reason"]
    gone = np.zeros(len(bounds) - 1, bool)
    gone[list(read_record(tables, "samples"))] = True
    after = pl.col("after") if written else pl.lit(None, pl.Int32).alias("after")
    table = flat.select(*OUTLINE, after).with_columns(
        lost=pl.Series(reasons.gather(flat["image"].fill_null(0))) if reasons.len() else pl.lit(None, pl.String),
        gone=pl.Series(np.repeat(gone, np.diff(bounds)), dtype=pl.Boolean),
    )
    table = table.with_columns(lost=pl.when(pl.col("image").is_not_null()).then("lost"))
    named = [pl.col(name) for name in ("kind", "role", "turn", "required", "gone")]
    parts = (*named, pl.col("image").is_null(), pl.col("lost").fill_null(""), pl.col("after").fill_null(-1))
    alike = table.select(code=pl.concat_str([part.cast(pl.String) for part in parts], separator=" "))
    return _Nodes(table, alike["code"].cast(pl.Categorical).to_physical().cast(pl.UInt32).to_numpy().tobytes(), bounds)


def _read_verdicts(verdicts: Mapping[str, Path]) -> dict[int, tuple[bytes, tuple[Verdict, ...]]]:
    """The verdicts on each sample that has any, in the order of filters; equal bytes for equal ones."""
    numbers, found = dict[tuple[object, ...], bytes](), dict[int, list[tuple[bytes, Verdict]]]()
    reasons = dict[str, Reason]()
    for filter_, path in verdicts.items():
        table = pl.read_parquet(path, columns=["sample", "node", "filter", "reason", "score"], glob=False)
        for sample, node, name, reason, score in table.iter_rows():
            known = (filter_, node, name, reason, score if node == LEAST_IMAGES else 0.0)
            code = numbers.setdefault(known, len(numbers).to_bytes(4, "little"))
            why = reasons.get(reason) or reasons.setdefault(reason, Reason(reason))
            found.setdefault(sample, []).append((code, Verdict(sample, node, name, why, score)))
    return {
        sample: (b"".join(code for code, _ in said), tuple(verdict for _, verdict in said))
        for sample, said in found.items()
    }
