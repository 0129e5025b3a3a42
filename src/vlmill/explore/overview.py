"""What a run is, in figures that manifests alone give: what came and was kept, why not the rest, sizes, what is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlmill.explore.index import Index
from vlmill.pipeline.core.errors import VlmillError
from vlmill.pipeline.core.names import IMAGES_FILE, SUPPLEMENT_FILE
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.filters import CustomFilter
from vlmill.pipeline.page.colours import choose_colours, choose_reason_colours
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import LevelCounts, read_funnel
from vlmill.pipeline.reports.signals import list_silent_signals
from vlmill.pipeline.reports.undecided import count_undecided
from vlmill.pipeline.reports.unread import list_unread_keys

LITTLE = 0.5
"""The kept share of a source below which it is worth a line."""
LARGE = 0.2
"""The share of a source's samples, or images, that one reason loses from which it is worth a line."""
LEVELS = ("rows", "samples", "nodes", "images")


def describe_run(root: Path, recipe: Recipe) -> dict[str, Any]:
    """The figures of a run as it stands."""
    funnel = read_funnel(root)
    return {
        "name": recipe.name,
        "folder": str(root),
        "sources": [
            {
                "name": source,
                "kind": type(recipe.source(source)).__name__,
                "licence": getattr(recipe.sources[source], "licence", "") or "",
                "funnel": funnel.get(source, {}),
            }
            for source in sorted(recipe.sources)
        ],
        "totals": sum_levels(funnel),
        "bytes": count_bytes(root, recipe),
        "policies": list(recipe.policies),
        "stages": [stage.name for stage in recipe.stages],
        "signals": list(recipe.signals),
        "odd": list(list_odd(root, recipe, funnel)),
        "colours": {
            "sources": choose_colours(recipe.list_groups()),
            "reasons": choose_reason_colours(list_reasons(recipe)),
        },
    }


def sum_levels(funnel: Mapping[str, LevelCounts]) -> dict[str, dict[str, Any]]:
    """The funnel over all sources: by level what came, was kept, and was lost by reason."""
    found = dict[str, dict[str, Any]]()
    for level in LEVELS:
        lines = [counts[level] for counts in funnel.values() if level in counts]
        if lines:
            lost = {how: Counter[str]() for how in ("dropped", "failed")}
            for line in lines:
                for how, reasons in lost.items():
                    reasons.update(line[how])
            found[level] = {
                "in": sum(line["in"] for line in lines),
                "kept": sum(line["kept"] for line in lines),
                **{how: dict(reasons.most_common()) for how, reasons in lost.items()},
            }
    return found


def list_reasons(recipe: Recipe) -> list[str]:
    """Every reason that something of a run can be lost for: the closed list, custom filters, values of signals."""
    custom = [f"filter:{one.name}" for one in recipe.filters if isinstance(one, CustomFilter)]
    return [*map(str, Reason), *custom, *(f"signal:{value}" for value in recipe.list_values())]


def count_bytes(root: Path, recipe: Recipe) -> dict[str, int]:
    """Bytes of pictures as they came, and of shards by image policy."""
    found = Counter[str]()
    for source in recipe.sources:
        for step in ("read", "fetch", "retry"):
            for name, size in _list_sizes(root, f"steps/{source}/{step}"):
                if name in {IMAGES_FILE, SUPPLEMENT_FILE}:
                    found["pictures as they came"] += size
        for policy in recipe.policies:
            for name, size in _list_sizes(root, f"shards/{source}/{policy}"):
                if name.endswith(".tar"):
                    found[f"shards, {policy}"] += size
    return dict(found)


def _list_sizes(root: Path, folder: str) -> Iterator[tuple[str, int]]:
    with suppress(VlmillError):
        yield from ((file.name, file.size) for receipt in read_manifest(root, folder) for file in receipt.files)


def list_odd(root: Path, recipe: Recipe, funnel: Mapping[str, LevelCounts]) -> Iterator[dict[str, str]]:
    """What a person should look at first: a sentence each, with the source and reason to look at."""
    for source, levels in funnel.items():
        line = levels.get("samples")
        if line and line["in"] and line["kept"] < LITTLE * line["in"]:
            share = f"{line['kept'] / line['in']:.1%}"
            yield {"said": f"{source}: {share} of {line['in']:,} samples are kept", "source": source, "outcome": "lost"}
        for level in ("samples", "images"):
            line = levels.get(level)
            for reason, number in {**line["dropped"], **line["failed"]}.items() if line else ():
                if line and number > LARGE * line["in"]:
                    said = f"{source}: {reason} loses {number / line['in']:.0%} of {line['in']:,} {level}"
                    yield {"said": said, "source": source, "outcome": reason}
    for undecided in count_undecided(root):
        if undecided.over:
            yield {"said": str(undecided), "source": undecided.source, "outcome": ""}
    for unread in list_unread_keys(root):
        yield {"said": str(unread), "source": unread.source, "outcome": ""}
    for said in list_silent_signals(root, recipe):
        yield {"said": said, "source": "", "outcome": ""}


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
