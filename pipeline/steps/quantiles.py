"""Step `quantiles`: the values at the quantiles that a recipe's thresholds ask for, over all that was scored in a run.

A barrier behind the signals: a quantile needs the values of all partitions. Leaves `quantiles.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np

from vlmill.pipeline.core.names import QUANTILES_FILE, SCORES_SUFFIX
from vlmill.pipeline.core.scores import list_value_columns, read_scores
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.filters.threshold import name_cut


@dataclass(frozen=True)
class ComputeQuantiles:
    """Reads `<source>/<partition>/<signal>.scores.parquet`. Counts `values` of each column that is asked for.

    The quantile of n sorted values at a share is the value at place round(share * (n - 1)), so it is one of them.
    """

    quantiles: tuple[tuple[str, float], ...]  # column, share

    name: ClassVar[str] = "quantiles"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The tables of all signals."""
        return (f"*{SCORES_SUFFIX}",)

    def made_by(self) -> Mapping[str, str]:
        """What reads and sorts."""
        return {name: version(name) for name in ("numpy", "pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the values: of the whole run, and of each source by itself."""
        wanted = dict[str, list[float]]()
        for column, share in self.quantiles:
            wanted.setdefault(column, []).append(share)
        cuts, count = dict[str, float](), Count()
        for column, shares in wanted.items():
            by_source = _read_by_source(inputs, column)
            count.keep(sum(map(len, by_source.values())))
            everything = np.concatenate([np.empty(0, np.float32), *by_source.values()])
            for source, values in {"": everything, **by_source}.items():
                ordered = np.sort(values)
                cuts |= {
                    name_cut(column, share, source): float(ordered[round(share * (len(ordered) - 1))])
                    for share in shares
                    if len(ordered)
                }
        (folder / QUANTILES_FILE).write_text(json.dumps(cuts, sort_keys=True, indent=1), encoding="utf-8")
        return {"values": count}


def _read_by_source(inputs: Inputs, column: str) -> dict[str, np.ndarray]:
    """The values of a column by source, those that are there."""
    found = dict[str, list[np.ndarray]]()
    for name, path in sorted(inputs.items()):
        if name.endswith(SCORES_SUFFIX) and column in list_value_columns(path):
            values = read_scores(path, [column])[column].drop_nulls().to_numpy()
            found.setdefault(name.split("/")[0], []).append(values)
    return {source: np.concatenate(parts) for source, parts in found.items()}
