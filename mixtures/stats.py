"""The statistics of a planned mixture: what was declared, what came of it, and how two of them differ.

`stats.json` is what `describe` returns; `table` shows it to a person, `difference` sets two beside each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from mixtures.mixture import UNITS
from pipeline.reasons import Reason

UNFIT = (Reason.TOO_LONG, Reason.LATER_TURNS, Reason.NO_TEXT)
"""Why a node is in no row although its sample was wanted."""

COMPARED = ("samples", "images", "tokens")
"""What a difference is counted in."""


def describe(mix: Mapping[str, Any], packing: Mapping[str, int]) -> dict[str, Any]:
    """The statistics of a stage; pure.

    Args:
        mix: what the mix step wrote.
        packing: `rows`, `tokens`, `tiles` and `most_tiles` (in one row) of the whole plan.
    """
    settings, parts = mix["mixture"], mix["parts"]
    declared = _declared(mix)
    totals = {unit: sum(part["planned"][unit] for part in parts) for unit in ("segments", "tiles", *UNITS)}
    capacity = packing["rows"] * settings["sequence_length"]
    return {
        "stage": mix["stage"],
        "unit": settings["unit"],
        "sources": [_source(part, share, totals) for part, share in zip(parts, declared, strict=True)],
        "total": {**totals, "mean_length": _ratio(totals["tokens"], totals["samples"])},
        "packing": {
            "rows": packing["rows"],
            "sequence_length": settings["sequence_length"],
            "efficiency": _ratio(packing["tokens"], capacity),
            "segments_per_row": _ratio(totals["segments"], packing["rows"]),
            "tiles_per_row": {
                "mean": _ratio(packing["tiles"], packing["rows"]),
                "most": packing["most_tiles"],
                "budget": settings["tiles_per_row"],
            },
        },
        "binding": mix["binding"],
        "exact_up_to": mix["exact_up_to"],
        "warnings": mix["warnings"],
    }


def _declared(mix: Mapping[str, Any]) -> list[float]:
    """The declared share of every part; with repeats, what they come to in the mixture's unit."""
    unit = mix["mixture"]["unit"]
    amounts = [
        part["part"]["share"]
        if part["part"]["share"] is not None
        else (part["part"]["repeat"] or 1.0) * part["available"][unit]
        for part in mix["parts"]
    ]
    return [_ratio(amount, sum(amounts)) for amount in amounts]


def _source(part: Mapping[str, Any], declared: float, totals: Mapping[str, int]) -> dict[str, Any]:
    planned = part["planned"]
    lost = {level: {**counts["dropped"], **counts["failed"]} for level, counts in part["counts"].items()}
    return {
        "name": part["label"],
        "declared": declared,
        "realised": {unit: _ratio(planned[unit], totals[unit]) for unit in UNITS},
        "planned": planned,
        "available": part["available"],
        "repetition": round(part["repetition"], 6),
        "mean_length": _ratio(planned["tokens"], planned["samples"]),
        "lost": lost,
        "licences": part["licences"],
    }


def _ratio(part: float, whole: float) -> float:
    """Six digits, which no machine rounds otherwise; 0 of nothing."""
    return round(part / whole, 6) if whole else 0.0


def to_json(stats: Mapping[str, Any]) -> str:
    """Canonical JSON."""
    return json.dumps(stats, sort_keys=True, indent=1)


def table(stats: Mapping[str, Any]) -> Table:
    """One table that a person can read at a glance: a line per source, the sum, packing and warnings below."""
    unit, packing = stats["unit"], stats["packing"]
    result = Table(title=f"{stats['stage']}: shares in {unit}", caption=_caption(stats), caption_justify="left")
    result.add_column("source")
    for name in (
        "declared",
        "realised",
        "passes",
        "samples",
        "images",
        "text",
        "visual",
        "supervised",
        "tokens",
        "mean",
        "lost",
    ):
        result.add_column(name, justify="right")
    for source in stats["sources"]:
        planned = source["planned"]
        result.add_row(
            source["name"],
            f"{source['declared']:.2%}",
            f"{source['realised'][unit]:.2%}",
            f"{source['repetition']:.2f}",
            *(short(planned[name]) for name in ("samples", "images", "text", "visual", "supervised", "tokens")),
            f"{source['mean_length']:.0f}",
            _listed(source["lost"]["samples"]) or "-",
        )
    total = stats["total"]
    sums = (short(total[name]) for name in ("samples", "images", "text", "visual", "supervised", "tokens"))
    result.add_section()
    result.add_row("total", "100%", "100%", "", *sums, f"{total['mean_length']:.0f}", f"{short(packing['rows'])} rows")
    return result


def _caption(stats: Mapping[str, Any]) -> str:
    packing = stats["packing"]
    tiles = packing["tiles_per_row"]
    fill = (
        f"{packing['rows']:,} rows of {packing['sequence_length']:,} tokens, {packing['efficiency']:.2%} full, "
        f"{packing['segments_per_row']:.1f} segments and {tiles['mean']:.1f} of {tiles['budget']} tiles a row (most {tiles['most']})"
    )
    lost = (_lost(source) for source in stats["sources"])
    notes = (f"note: {text}" for text in stats["warnings"])
    return "\n".join((fill, *filter(None, lost), *notes))


def _lost(source: Mapping[str, Any]) -> str:
    """The nodes of a source that no row has room for, in a sentence; nothing where there are none."""
    nodes = {str(reason): source["lost"]["nodes"].get(reason, 0) for reason in UNFIT}
    return f"nodes lost of {source['name']}: {_listed(nodes)}" if any(nodes.values()) else ""


def _listed(counts: Mapping[str, int]) -> str:
    """What was lost by reason: `too_long 57, no_text 3`."""
    return ", ".join(f"{reason} {short(number)}" for reason, number in sorted(counts.items()) if number)


def short(number: float) -> str:
    """A number in four characters or so: 812, 12.3k, 4.56M, 1.2B."""
    for size, mark in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{mark}"
    return f"{number:.0f}"


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """What `after` holds more than `before` (negative: less), by source and in total, in samples, images and tokens; pure.

    Both are statistics as `describe` returns them, or locks. Sources that one of them lacks count as empty there.
    """
    sides = [
        {part.get("label", part["name"]): part["planned"] for part in mixture["sources"]} for mixture in (before, after)
    ]
    names = dict.fromkeys((*sides[0], *sides[1]))
    nothing = dict.fromkeys(COMPARED, 0)
    rows = {
        name: {unit: round(sides[1].get(name, nothing)[unit] - sides[0].get(name, nothing)[unit]) for unit in COMPARED}
        for name in names
    }
    return rows | {"total": {unit: sum(row[unit] for row in rows.values()) for unit in COMPARED}}


def difference_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> Table:
    """`difference` for a person, sources that do not differ left out."""
    result = Table(title=f"{before['stage']} -> {after['stage']}")
    result.add_column("source")
    for unit in COMPARED:
        result.add_column(unit, justify="right")
    for name, row in difference(before, after).items():
        if any(row.values()) or name == "total":
            result.add_row(name, *(("+" if row[unit] > 0 else "") + short(row[unit]) for unit in COMPARED))
    return result
