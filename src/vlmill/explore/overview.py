"""What a run is, in figures that manifests alone give: what came and was kept, why not the rest, sizes, what is odd."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlmill.explore.index import Index
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.filters import CustomFilter
from vlmill.pipeline.page.colours import choose_colours, choose_reason_colours, fill_reasons
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.overview import count_bytes, list_odd, sum_levels


def describe_run(root: Path, recipe: Recipe) -> dict[str, Any]:
    """The figures of a run as it stands."""
    funnel = read_funnel(root)
    totals = sum_levels(funnel)
    lost = (reason for line in totals.values() for how in ("dropped", "failed") for reason in line[how])
    return {
        "name": recipe.name,
        "folder": str(root),
        "sources": [
            {
                "name": source,
                "kind": recipe.sources[source].kind,
                "licence": getattr(recipe.sources[source], "licence", "") or "",
                "funnel": funnel.get(source, {}),
            }
            for source in sorted(recipe.sources)
        ],
        "totals": totals,
        "fills": fill_reasons(lost),
        "bytes": count_bytes(root, recipe),
        "policies": list(recipe.policies),
        "stages": [stage.name for stage in recipe.stages],
        "signals": list(recipe.signals),
        "odd": [asdict(line) for line in list_odd(root, recipe, funnel)],
        "colours": {
            "sources": choose_colours(recipe.list_groups()),
            "reasons": choose_reason_colours(list_reasons(recipe)),
        },
    }


def list_reasons(recipe: Recipe) -> list[str]:
    """Every reason that something of a run can be lost for: the closed list, custom filters, values of signals."""
    custom = [f"filter:{one.name}" for one in recipe.filters if isinstance(one, CustomFilter)]
    return [*map(str, Reason), *custom, *(f"signal:{value}" for value in recipe.list_values())]


def describe_index(index: Index) -> dict[str, Any]:
    """What the index adds: tokens and licences of what is kept, by source."""
    kept = index.column("outcome") == index.outcomes.index("kept")
    sources, tokens, licences = (index.column(name) for name in ("source", "tokens", "licence"))
    found = dict[str, Any]()
    for place, source in enumerate(index.sources):
        mine = kept & (sources == place)
        held = tokens[mine]
        codes = licences[mine]
        found[source] = {
            "kept": int(mine.sum()),
            "tokens": int(held[held > 0].sum(dtype="int64")),
            "licences": {
                name: int((codes == code).sum()) for code, name in enumerate(index.licences) if (codes == code).any()
            },
        }
    return found
