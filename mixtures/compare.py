"""How much more or less one mixture holds than another.

A side is named by a run, a stage, a lock or a published mixture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from vlmill.mixtures.build import read_stats
from vlmill.mixtures.config import UNITS
from vlmill.mixtures.published import catalogue as published
from vlmill.mixtures.report.stats import make_grid, shorten_number
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.places import take_run_folder

Stats = Mapping[str, Any]
"""Of a stage: as `stats.describe_stage` returns it, or a lock."""


def pair_stages(before: str, after: str) -> list[tuple[Stats, Stats]]:
    """The stages to set beside each other: those named; of two whole runs the ones they have in common.

    Args:
        before: DIR, DIR:STAGE, a file of statistics or a lock, or NAME or NAME:STAGE of a published mixture.
        after: the same.

    Raises:
        RecipeError: one is nothing of these, or there are no two stages to compare.
    """
    sides = [read_stages(name) for name in (before, after)]
    for name, side in zip((before, after), sides, strict=True):
        if not side:
            raise RecipeError(
                f"{name} has no stages, so it holds no mixture to compare; add `stages` to its recipe and build again"
            )
    if all(len(side) == 1 for side in sides):
        return [(_rename_stage(before, *sides[0].values()), _rename_stage(after, *sides[1].values()))]
    common = [stage for stage in sides[0] if stage in sides[1]]
    if not common:
        had = (f"{name} has {', '.join(side)}" for name, side in zip((before, after), sides, strict=True))
        raise RecipeError(
            f"no stage of one name to compare: {'; '.join(had)}. Name one on each side, such as "
            f"{before}:{next(iter(sides[0]))}"
        )
    return [(_rename_stage(before, sides[0][stage]), _rename_stage(after, sides[1][stage])) for stage in common]


def _rename_stage(name: str, stats: Stats) -> Stats:
    """The statistics of a stage, called by what a person typed: `before:tune`."""
    stage = stats["stage"].rpartition(":")[2]
    return {
        **stats,
        "stage": name if name.endswith((f":{stage}", f"/{stage}", ".json")) else f"{name.rstrip('/')}:{stage}",
    }


def read_stages(name: str) -> dict[str, Stats]:
    """The statistics of what a person named, by stage.

    Raises:
        RecipeError: it is no run, file or published mixture, or has no such stage.
        StoreError: it is a run whose stage is not mixed yet.
    """
    if (path := take_run_folder(name)).suffix == ".json" and path.is_file():
        found = _read_stats(path)
        return {found["stage"]: found}
    whole, colon, stage = (name, "", "") if _is_known_name(name) else _part_stage(name)
    if not (whole and _is_known_name(whole)):
        raise RecipeError(
            f"{name!r} is no run's folder, no mixture.lock.json and no published mixture; allowed: DIR, DIR:STAGE, "
            f"a file, or NAME:STAGE of {', '.join(published.list_names())}"
        )
    if (folder := take_run_folder(whole)).is_dir():
        return read_stats(folder, stage or None)
    known = published.load_published(whole).stages
    if colon and stage not in known:
        raise RecipeError(f"{name!r}: {whole} has no stage {stage!r}; it has {', '.join(known)}")
    return {
        label: published.describe_published(known[label], f"{whole}:{label}") for label in ([stage] if colon else known)
    }


def _part_stage(name: str) -> tuple[str, str, str]:
    """NAME:STAGE in its parts, and NAME/STAGE of a published mixture, as recipes have it."""
    parts = name.rpartition("/")
    return parts if parts[0] in published.list_names() else name.rpartition(":")


def find_side_run(name: str) -> Path | None:
    """The folder of the run that a person named, with a stage of it or without; None where it is no folder."""
    whole = name if _is_known_name(name) else name.rpartition(":")[0]
    return folder if whole and (folder := take_run_folder(whole)).is_dir() else None


def _read_stats(path: Path) -> Stats:
    """What a lock or a file of statistics holds."""
    try:
        found = json.loads(path.read_bytes())
        return {
            "stage": str(found["stage"]),
            "sources": [
                {
                    "name": entry.get("label", entry["name"]),
                    "planned": {unit: int(entry["planned"][unit]) for unit in UNITS},
                }
                for entry in found["sources"]
            ],
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(f"{path}: neither a mixture.lock.json nor a stats.json, or damaged") from error


def _is_known_name(name: str) -> bool:
    return name in published.list_names() or take_run_folder(name).exists()


def make_difference(before: Stats, after: Stats) -> dict[str, dict[str, int | None]]:
    """What `after` holds more than `before` (negative: less), by source and in total, in every unit; pure.

    Sources that one of them lacks count as empty there. None: a publication does not say how much of the unit it held.
    """
    sides = [
        {entry.get("label", entry["name"]): entry["planned"] for entry in mixture["sources"]}
        for mixture in (before, after)
    ]
    names = dict.fromkeys((*sides[0], *sides[1]))
    nothing = dict.fromkeys(UNITS, 0)
    rows: dict[str, dict[str, int | None]] = {}
    for name in names:
        one, other = (side.get(name, nothing) for side in sides)
        rows[name] = {
            unit: None if one[unit] is None or other[unit] is None else round(other[unit] - one[unit]) for unit in UNITS
        }
    columns: dict[str, list[int | None]] = {unit: [row[unit] for row in rows.values()] for unit in UNITS}
    total: dict[str, int | None] = {
        unit: None if None in column else sum(filter(None, column)) for unit, column in columns.items()
    }
    return rows | {"total": total}


def make_difference_table(before: Stats, after: Stats) -> Table:
    """`difference` for a person, sources that do not differ left out."""
    rows = make_difference(before, after)
    same = [name for name, row in rows.items() if name != "total" and set(row.values()) == {0}]
    below = [f"the same amounts: {', '.join(same)}"] if same else []
    if any(amount is None for row in rows.values() for amount in row.values()):
        below.append("-: was not published")
    result = make_grid(f"{before['stage']} -> {after['stage']}", "\n".join(below))
    result.add_column("source", overflow="fold")
    for heading in ("of samples\nbefore", "after", *UNITS):
        result.add_column(heading, justify="right", no_wrap=True)
    shares = [_list_shares(side) for side in (before, after)]
    for name, row in rows.items():
        if name not in same:
            parts = ("",) * 2 if name == "total" else (f"{side.get(name, 0):.1%}" if side else "-" for side in shares)
            result.add_row(name, *parts, *(_format_difference(row[unit]) for unit in UNITS))
    return result


def _list_shares(stats: Stats) -> dict[str, float]:
    """The part of a mixture's samples that each source has; empty where they are not known of all."""
    planned = {entry.get("label", entry["name"]): entry["planned"]["samples"] for entry in stats["sources"]}
    if None in planned.values():
        return {}
    total = sum(planned.values())
    return {name: samples / total if total else 0.0 for name, samples in planned.items()}


def _format_difference(amount: int | None) -> str:
    return "-" if amount is None else ("+" if amount > 0 else "") + shorten_number(amount)
