"""Step `decontaminate`: findings as verdicts, where the recipe says `action: drop`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from vlmill.pipeline.core.names import SAMPLES_FILE, name_verdicts
from vlmill.pipeline.core.sample import Verdict, read_rows, write_verdicts
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.decontaminate.contamination import REASONS, ContaminationFinding, read_findings


@dataclass(frozen=True)
class Decontaminate:
    """Step: a verdict on each node with a finding, with the item that it is most like. Pure.

    Leaves `decontaminate.verdicts.parquet`; counts nodes under `decontaminated`.
    """

    name: ClassVar[str] = "decontaminate"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """The findings, and how many nodes there are."""
        return ("contamination.parquet", SAMPLES_FILE)

    def made_by(self) -> Mapping[str, str]:
        """The library that writes."""
        return {"pyarrow": version("pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the verdicts."""
        worst = dict[tuple[int, int], ContaminationFinding]()
        for finding in read_findings(inputs["contamination.parquet"]):
            place = finding.sample, finding.node
            if place not in worst or finding.score > worst[place].score:
                worst[place] = finding
        verdicts = [
            Verdict(found.sample, found.node, self.name, REASONS[found.kind], found.score, found.item)
            for found in worst.values()
        ]
        write_verdicts(folder / name_verdicts(self.name), verdicts)
        count = Count()
        for verdict in verdicts:
            count.lose(verdict.reason)
        nodes = sum(len(row["nodes"]) for row in read_rows(inputs[SAMPLES_FILE], ["nodes"]))
        count.keep(nodes - len(verdicts))
        return {"decontaminated": count}
