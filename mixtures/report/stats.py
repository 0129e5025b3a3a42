"""The statistics of a planned mixture: what was declared, and what was realised.

`stats.json` is what `describe_stage` returns; `make_stats_table` shows it to a person in a terminal, `page/` in a
browser, `compare.py` sets two beside each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from vlmill.mixtures.algorithms.schedule import Schedule
from vlmill.mixtures.config import UNITS
from vlmill.mixtures.report.grouped import group_notes

FEW = 30
"""Held-out samples of a source below which a score says little: of 30 answers, half of them right, one standard error
is 9 points."""


def describe_stage(mix: Mapping[str, Any], packing: Mapping[str, int]) -> dict[str, Any]:
    """The statistics of a stage; pure.

    Args:
        mix: what the mix step wrote.
        packing: `sequences`, `tokens`, `tiles`, `most_tiles` and `most_visual` (in one sequence) of the whole plan.
    """
    settings, entries = mix["mixture"], mix["entries"]
    declared = _compute_declared(mix)
    totals = {unit: sum(entry["planned"][unit] for entry in entries) for unit in ("segments", "tiles", *UNITS)}
    capacity = packing["sequences"] * settings["sequence_length"]
    return {
        "stage": mix["stage"],
        "unit": settings["unit"],
        "sources": [_describe_source(entry, share, totals) for entry, share in zip(entries, declared, strict=True)],
        "total": {**totals, "mean_length": _round_ratio(totals["tokens"], totals["samples"])},
        "packing": {
            "sequences": packing["sequences"],
            "sequence_length": settings["sequence_length"],
            "efficiency": _round_ratio(packing["tokens"], capacity),
            "segments_per_sequence": _round_ratio(totals["segments"], packing["sequences"]),
            "tiles_per_sequence": {
                "mean": _round_ratio(packing["tiles"], packing["sequences"]),
                "most": packing["most_tiles"],
                "budget": settings["tiles_per_sequence"],
            },
            **_describe_visual(mix, totals, packing),
        },
        **({"schedule": _describe_schedule(mix["schedule"])} if "schedule" in mix else {}),
        "binding": mix["binding"],
        "exact_up_to": mix["exact_up_to"],
        "warnings": mix["warnings"],
    }


def _describe_visual(mix: Mapping[str, Any], totals: Mapping[str, float], packing: Mapping[str, int]) -> dict[str, Any]:
    """Visual tokens of a sequence, where a budget of patches bounds them."""
    if "visual_per_sequence" not in mix:
        return {}
    mean = _round_ratio(totals["visual"], packing["sequences"])
    return {"visual_per_sequence": {"mean": mean, "most": packing["most_visual"], "budget": mix["visual_per_sequence"]}}


def _compute_declared(mix: Mapping[str, Any]) -> list[float]:
    """The declared share of every entry; with repeats, what they come to in the mixture's unit."""
    unit = mix["mixture"]["unit"]
    if schedule := Schedule.of(mix):
        return [_round_ratio(mean, 1.0) for mean in schedule.compute_means()]
    amounts = [
        entry["entry"]["share"]
        if entry["entry"]["share"] is not None
        else (entry["entry"]["repeat"] or 1.0) * entry["available"][unit] * entry["weight"]
        for entry in mix["entries"]
    ]
    return [_round_ratio(amount, sum(amounts)) for amount in amounts]


def _describe_schedule(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The share that each entry is due and has in stretches of the plan that end at `ends`, in the mixture's unit."""
    found: dict[str, Any] = {"ends": schedule["ends"]}
    for name in ("due", "has"):
        whole = [sum(amounts) for amounts in zip(*schedule[name], strict=True)]
        found[name] = [list(map(_round_ratio, amounts, whole)) for amounts in schedule[name]]
    return found


def _describe_source(entry: Mapping[str, Any], declared: float, totals: Mapping[str, int]) -> dict[str, Any]:
    planned = entry["planned"]
    lost = {level: {**counts["dropped"], **counts["failed"]} for level, counts in entry["counts"].items()}
    return {
        "name": entry["label"],
        "declared": declared,
        "realised": {unit: _round_ratio(planned[unit], totals[unit]) for unit in UNITS},
        "planned": planned,
        "available": entry["available"],
        "repetition": round(entry["repetition"], 6),
        "mean_length": _round_ratio(planned["tokens"], planned["samples"]),
        "lost": {**lost, **entry["too_long"]},
        "cut": entry["cut"],
        **({"balance": entry["balance"]} if "balance" in entry else {}),
        "licences": entry["licences"],
        "written": entry["written"],
    }


def _round_ratio(entry: float, whole: float) -> float:
    """Six digits, which no machine rounds otherwise; 0 of nothing."""
    return round(entry / whole, 6) if whole else 0.0


def to_json(stats: Mapping[str, Any]) -> str:
    """Canonical JSON."""
    return json.dumps(stats, sort_keys=True, indent=1)


def make_grid(title: str, caption: str = "") -> Table:
    """An empty table that fits a terminal of 80 columns: no rules, and a blank between columns."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=f"{caption}\n",
        caption_justify="left",
        caption_style="none",
        header_style="underline",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


HEADINGS = ("declared", "realised", "epochs", "samples", "images", "text", "visual", "super-\nvised", "tokens", "mean")
SHORT = (
    "de-\nclared",
    "real-\nised",
    "ep-\nochs",
    "sam-\nples",
    "im-\nages",
    "text",
    "vis-\nual",
    "super-\nvised",
    "to-\nkens",
    "mean",
)
"""The same in two lines, which leaves nine more columns to long names."""

OFF = 0.01
"""Fraction of a stretch by which a share has to move, or be off, to be shown."""

COLUMNS = 6
"""Sources whose share moves, that have a column of their own."""

NUMBERS = 72
"""Columns of a terminal that numbers under HEADINGS take, to five digits and a blank each."""


def make_stats_table(stats: Mapping[str, Any], width: int = 80) -> Table:
    """One table that a person can read at a glance: a line per source, the sum; packing, losses and notes below.

    Args:
        stats: of a stage.
        width: of the terminal, in columns.
    """
    unit = stats["unit"]
    result = make_grid(f"{stats['stage']}: shares in {unit}", "\n".join(_write_caption(stats)))
    result.add_column("source", overflow="fold", min_width=6)
    longest = max(len(source["name"]) for source in stats["sources"])
    for name in SHORT if longest + NUMBERS > width else HEADINGS:
        result.add_column(name, justify="right", no_wrap=True)
    for source in stats["sources"]:
        planned = source["planned"]
        result.add_row(
            source["name"],
            f"{source['declared']:.2%}",
            f"{source['realised'][unit]:.2%}",
            f"{source['repetition']:.2f}",
            *(shorten_number(planned[name]) for name in UNITS),
            f"{source['mean_length']:.0f}",
        )
    total = stats["total"]
    result.add_row("total", "", "", "", *(shorten_number(total[name]) for name in UNITS), f"{total['mean_length']:.0f}")
    return result


def make_schedule_table(stats: Mapping[str, Any]) -> Table:
    """The share that each source has along the plan, where shares move: a line for each stretch.

    Of sources whose share moves by more than a point those that move most have a column; the last has all others.
    """
    schedule = stats["schedule"]
    moved = [max(due) - min(due) for due in schedule["due"]]
    largest = sorted(range(len(moved)), key=lambda entry: -moved[entry])[:COLUMNS]
    shown = sorted(entry for entry in largest if moved[entry] > OFF)
    caption = "at: up to this fraction of the budget. In brackets: what was due, where there is a point more or less"
    result = make_grid(f"{stats['stage']}: shares in {stats['unit']} along the plan", caption)
    result.add_column("at", justify="right", no_wrap=True)
    for entry in shown:
        result.add_column(stats["sources"][entry]["name"], justify="right", overflow="fold")
    if len(shown) < len(moved):
        result.add_column("others", justify="right")
    for place, end in enumerate(schedule["ends"]):
        found = [(schedule["has"][entry][place], schedule["due"][entry][place]) for entry in shown]
        if len(shown) < len(moved):
            found.append((1 - sum(has for has, _ in found), 1 - sum(due for _, due in found)))
        said = (f"{has:.1%}" + (f" ({due:.1%})" if abs(has - due) > OFF else "") for has, due in found)
        result.add_row(f"{end:.2f}", *said)
    return result


def format_epochs(stats: Mapping[str, Any]) -> float:
    """Tokens planned over tokens that there are: the sources' passes, on average."""
    return _round_ratio(stats["total"]["tokens"], sum(source["available"]["tokens"] for source in stats["sources"]))


def _write_caption(stats: Mapping[str, Any]) -> Iterator[str]:
    """Epochs and packing, then what was lost of each source and why, then what a person should look at."""
    packing, tiles = stats["packing"], stats["packing"]["tiles_per_sequence"]
    yield (
        f"{packing['sequences']:,} sequences of {packing['sequence_length']:,} tokens, {packing['efficiency']:.2%} "
        f"full; {format_epochs(stats):.3g} times the tokens there are"
    )
    total = stats["total"]
    if added := total["tokens"] - total["text"] - total["visual"]:
        yield f"tokens are text, visual and {shorten_number(added)} that the chat format adds, such as BOS and EOS"
    yield (
        f"a sequence: {packing['segments_per_sequence']:.1f} segments, {tiles['mean']:.1f} of {tiles['budget']} "
        f"tiles (most {tiles['most']})"
    )
    if visual := packing.get("visual_per_sequence"):
        numbers = f"{visual['mean']:,.0f} of {visual['budget']:,} visual tokens (most {visual['most']:,})"
        yield f"a sequence: {numbers}, which its budget of patches comes to"
    if weighed := [source for source in stats["sources"] if "loss_share" in source]:
        said = ", ".join(f"{source['name']} {source['loss_share']:.2%}" for source in weighed)
        yield f"share of the loss, as the recipe weighs it: {said}"
    for source in stats["sources"]:
        if balance := source.get("balance"):
            yield f"balance of {source['name']}: {_format_balance(balance)}"
        if cut := _format_cuts(source["cut"]):
            yield f"cut of {source['name']}: {cut}"
        if written := _format_written(source):
            yield f"written by models in {source['name']}: {written}"
        lost = {level: _format_losses(source["lost"][level]) for level in ("samples", "nodes", "tokens", "supervised")}
        if any(lost.values()):
            yield f"lost of {source['name']}: {'; '.join(f'{level} {why}' for level, why in lost.items() if why)}"
    yield from (f"note: {text}" for text in group_notes(stats.get("notes", stats["warnings"])))


def _format_balance(balance: Mapping[str, Any]) -> str:
    """What balancing came to: `12 of 340 groups of topic over 200; 8,012 of 9,400 samples`."""
    without = f"; {balance['without']:,} samples in none" if balance["without"] else ""
    return (
        f"{balance['capped']:,} of {balance['groups']:,} groups of {balance['by']} over {balance['cap']:,}; "
        f"{balance['kept']:,} of {balance['samples']:,} samples{without}"
    )


def _format_cuts(cut: Mapping[str, int]) -> str:
    """What of an entry was cut to fit: `documents 12 into segments 40, texts split 30; answers truncated 3`."""
    said = []
    if documents := cut.get("documents", 0):
        split = f", texts split {cut['texts']:,}" if cut.get("texts", 0) else ""
        said.append(f"documents {documents:,} into segments {cut['segments']:,}{split}")
    if answers := cut.get("answers", 0):
        said.append(f"answers truncated {answers:,}")
    return "; ".join(said)


def _format_written(source: Mapping[str, Any]) -> str:
    """How many samples of an entry hold texts of a model: `captioner 1,200 samples (30.0 %)`."""
    there = source["available"]["samples"]
    return ", ".join(
        f"{model} {number:,} samples ({number / max(there, 1):.1%})"
        for model, number in sorted(source["written"].items())
    )


def _format_losses(counts: Mapping[str, int]) -> str:
    """What was lost by reason: `too_long 57, no_text 3`."""
    return ", ".join(f"{reason} {shorten_number(number)}" for reason, number in sorted(counts.items()) if number)


def shorten_number(number: float) -> str:
    """A number in four characters or so: 812, 12.3k, 4.56M, 1.2B."""
    for size, mark in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{mark}"
    return f"{number:.0f}"
