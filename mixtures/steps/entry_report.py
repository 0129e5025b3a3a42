"""What the select step says of an entry, in `selection.json`: what it holds, what was lost, and what was cut.

`report/stats.py` shows it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from vlmill.mixtures.steps.cut import CutSample, Nodes
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.step import Count

ELIGIBLE, KEPT_OUT, PASSED_OVER, REFUSED, CHANGED, CAPPED = range(6)
LOST = {
    KEPT_OUT: Reason.HELD_OUT,
    PASSED_OVER: Reason.NOT_TAKEN,
    REFUSED: Reason.TEMPLATE_REFUSED,
    CHANGED: Reason.TEMPLATE_CHANGED,
    CAPPED: Reason.OVER_CAP,
}
"""Why a row that is not eligible is not."""


@dataclass(slots=True)
class EntryReport:
    """Counts over the shards of an entry."""

    samples: Count = field(default_factory=Count)
    nodes: Count = field(default_factory=Count)
    cut: Counter[str] = field(default_factory=Counter)  # documents, their segments, texts cut inside; answers
    tokens: Counter[Reason] = field(default_factory=Counter)  # of what does not fit a sequence
    supervised: Counter[Reason] = field(default_factory=Counter)  # of these
    licences: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)  # model -> samples with texts that it wrote
    ids: Any = field(default_factory=hashlib.sha256)
    balance: Mapping[str, Any] = field(default_factory=dict)  # see balance.py

    def add_cut(self, nodes: Nodes, cut: CutSample) -> None:
        """Count what cutting a sample made of it, in segments and in tokens that no segment holds."""
        for node, reason in cut.lost.items():
            self.tokens[reason] += nodes.tokens[node]
            self.supervised[reason] += nodes.supervised[node]
        if len(cut.segments) > 1:
            inside = {part.first for part in cut.segments if part.begin}
            self.cut.update(documents=1, segments=len(cut.segments), texts=len(inside))
        for node, begin, end in nodes.list_spans(cut.segments[-1]) if cut.segments else ():
            length = nodes.tokens[node]
            if end < length:
                self.cut["answers"] += 1
                self.tokens[Reason.TRUNCATED] += length - end
                self.supervised[Reason.TRUNCATED] += nodes.supervised[node] - nodes.count_supervised(node, begin, end)

    def add(
        self, table: pl.DataFrame, states: np.ndarray, selected: np.ndarray, lost: Mapping[int, Counter[Reason]]
    ) -> None:
        """Count the rows of one shard.

        Args:
            table: `id`, `licence`, `nodes` and `written` of each.
            states: of each, ELIGIBLE or one of LOST.
            selected: which may be planned.
            lost: the nodes that cutting lost, of each row that was cut.
        """
        nodes = table["nodes"].to_numpy()
        for state, reason in LOST.items():
            self.samples.lose(reason, int((states == state).sum()))
            self.nodes.lose(reason, int(nodes[states == state].sum()))
        cut_away = sum(sum(reasons.values()) for reasons in lost.values())
        for row, reasons in lost.items():
            for reason, number in reasons.items():
                self.nodes.lose(reason, number)
            if not selected[row]:
                self.samples.lose(next(iter(reasons)))
        blank = (states == ELIGIBLE) & ~selected
        blank[list(lost)] = False
        self.samples.lose(Reason.NO_TEXT, int(blank.sum()))
        self.nodes.lose(Reason.NO_TEXT, int(nodes[blank].sum()))
        self.samples.keep(int(selected.sum()))
        self.nodes.keep(int(nodes[(states == ELIGIBLE) & ~blank].sum()) - cut_away)
        kept = table.filter(pl.Series(selected))
        self.licences.update(dict(kept["licence"].value_counts().rows()))
        origins = kept.select("id", origin=pl.col("written").list.eval(pl.element().struct.field("origin")))
        models = (
            origins.explode("origin").drop_nulls().with_columns(model=pl.col("origin").str.json_path_match("$.model"))
        )
        self.written.update(dict(models.unique(["id", "model"])["model"].value_counts().rows()))
        self.ids.update("".join(f"{name}\n" for name in kept["id"]).encode())

    def to_json(self, about: Mapping[str, Any]) -> str:
        """Canonical JSON: what the entry is and what one pass over it holds, what was lost and cut, a digest of ids."""
        data = {
            **about,
            "counts": {"samples": self.samples.to_json(), "nodes": self.nodes.to_json()},
            "cut": dict(self.cut),
            **({"balance": self.balance} if self.balance else {}),
            "too_long": {"tokens": dict(self.tokens), "supervised": dict(self.supervised)},
            "licences": dict(self.licences),
            "written": dict(self.written),
            "ids_sha256": self.ids.hexdigest(),
        }
        return json.dumps(data, sort_keys=True, indent=1)
