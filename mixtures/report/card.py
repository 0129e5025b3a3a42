"""The data card of a run: `README.md` in its folder, with the Hub's dataset-card metadata at its head.

It is made of the folder's locks, manifests and statistics alone, so that anybody can make it again. A build writes it
at its end, a takedown writes it anew, and `verify` compares it. The metadata's keys are those of
https://huggingface.co/docs/hub/datasets-cards; what is not known is left out or said to be unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.files import read_json, write_atomically
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.core.yaml_format import format_yaml, read_yaml
from vlmill.pipeline.engine.chain import read_totals
from vlmill.pipeline.engine.workdir import PINS
from vlmill.pipeline.recipe.lock import read_lock, read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.contamination import read_contamination
from vlmill.pipeline.reports.funnel import LEVELS, LevelCounts, find_steps_by_reason, read_funnel, total_funnel
from vlmill.pipeline.reports.verify import list_manifests

CARD = "README.md"
HUB = "hf://datasets/"

HUB_LICENCES = frozenset(
    (
        *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
        *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "odc-by", "odbl", "pddl", "unlicense"),
    )
)
"""Identifiers that the Hub knows, of those that data sets commonly have
(https://huggingface.co/docs/hub/repositories-licenses)."""

LOADING = """## Loading

The library `datasets` refuses shards whose samples have different members, such as different numbers of images. These
also hold what the stages keep for evaluation. `vlmill export DIR --stage STAGE --to parquet --out FOLDER` writes what
it loads, with training and validation apart, and a card for the Hub."""

SIZES = tuple(1000 * 10**power for power in range(10))
SIZE_NAMES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")


def write_card(root: Path) -> None:
    """Write the card of a complete run. Raises StoreError where it is not complete."""
    write_atomically(root / CARD, make_card(root))


def remove_card(root: Path) -> None:
    """Remove the card of a run that is no longer what it says."""
    (root / CARD).unlink(missing_ok=True)


def verify_card(root: Path) -> Iterator[str]:
    """A line where there is a card and it is not what the folder comes to."""
    path = root / CARD
    if path.exists() and path.read_text(encoding="utf-8") != make_card(root):
        yield f"{CARD}: is not what the run comes to; the next build writes it"


def make_card(root: Path) -> str:
    """The text of the card.

    Raises:
        StoreError: the run is not complete.
    """
    recipe, funnel = read_locked_recipe(root), read_funnel(root)
    header = format_yaml(_describe_metadata(root, recipe, funnel), sort_keys=False)
    sections = (
        f"# {recipe.name}\n\nMade by vlmill from the recipe in `{LOCK}`." + _describe_scale(recipe),
        _describe_sources(root, recipe),
        _describe_counts(funnel),
        _describe_losses(root, funnel),
        *(_describe_stage(root, stage.name) for stage in recipe.stages),
        LOADING if recipe.stages else "",
        _describe_contamination(root, recipe),
        _describe_rebuilding(root, recipe),
    )
    return f"---\n{header}---\n\n" + "\n\n".join(section for section in sections if section) + "\n"


def _describe_metadata(root: Path, recipe: Recipe, funnel: Mapping[str, LevelCounts]) -> dict[str, Any]:
    whole = total_funnel(funnel)
    images = whole["images"].kept if "images" in whole else 0
    samples = whole["samples"].kept if "samples" in whole else 0
    pins = _read_pins(root)
    repositories = {pins[name].removeprefix(HUB).split("@")[0] for name in recipe.sources if name in pins}
    return {
        "pretty_name": recipe.name,
        **choose_licence(source.licence for source in recipe.sources.values()),
        "task_categories": ["image-text-to-text" if images else "text-generation"],
        "size_categories": [name_size(samples)],
        **({"source_datasets": sorted(repositories)} if repositories else {}),
        "viewer": False,  # see LOADING
    }


def choose_licence(licences: Iterable[str]) -> dict[str, str]:
    """The Hub's key: the licence of all sources, `unknown` where one has none, else `other` with its name."""
    found = sorted({*licences})
    if "" in found:
        return {"license": "unknown"}
    if len(found) == 1 and found[0].lower() in HUB_LICENCES:
        return {"license": found[0].lower()}
    return {"license": "other", "license_name": found[0] if len(found) == 1 else "several"}


def name_size(samples: int) -> str:
    """The Hub's name for a number of samples: `1K<n<10K`."""
    place = next((place for place, size in enumerate(SIZES) if samples < size), len(SIZES))
    if place == 0:
        return f"n<{SIZE_NAMES[0]}"
    return f"n>{SIZE_NAMES[-1]}" if place == len(SIZES) else f"{SIZE_NAMES[place - 1]}<n<{SIZE_NAMES[place]}"


def _read_pins(root: Path) -> dict[str, str]:
    """Source or benchmark on the Hub -> its root with the commit."""
    path = root / PINS
    return {name: pin["pinned"] for name, pin in read_yaml(path).items()} if path.exists() else {}


def _describe_scale(recipe: Recipe) -> str:
    if recipe.scale == 1:
        return ""
    return f" It holds {recipe.scale:g} of each source's rows, chosen by hash, and of every budget."


def _describe_sources(root: Path, recipe: Recipe) -> str:
    pins = _read_pins(root)
    rows = [
        (
            name,
            source.kind,
            source.licence or "unknown",
            pins.get(name, "other files"),
            source.homepage or "unknown",
            source.citation or "unknown",
            str(_count_files(root, name)),
        )
        for name, source in sorted(recipe.sources.items())
    ]
    table = format_table(("source", "kind", "licence", "from", "homepage", "citation", "files"), rows)
    return f"## Sources\n\n{table}\n\nA sample may have a licence of its own; its lineage has it."


def _count_files(root: Path, source: str) -> int:
    return read_totals(root, f"steps/{source}/survey")["files"].came


def _describe_counts(funnel: Mapping[str, LevelCounts]) -> str:
    rows = [
        (source, level, *_format_count(Count.from_json(lines[level])))
        for source, lines in funnel.items()
        for level in LEVELS
        if level in lines
    ]
    rows += [("**all**", level, *_format_count(count)) for level, count in total_funnel(funnel).items()]
    table = format_table(("source", "level", "in", "kept", "dropped", "failed"), rows)
    return f"## Counts\n\nin = kept + dropped + failed.\n\n{table}"


def _format_count(count: Count) -> tuple[str, str, str, str]:
    failed = sum(number for reason, number in count.lost.items() if reason.failed)
    return str(count.came), str(count.kept), str(sum(count.lost.values()) - failed), str(failed)


def _describe_losses(root: Path, funnel: Mapping[str, LevelCounts]) -> str:
    """The filters with their settings, and what was lost by whom and for which reason."""
    filters = format_yaml(read_lock(root).get("filters", [{"language": None}]), sort_keys=False)
    rows = []
    for source, lines in funnel.items():
        steps = find_steps_by_reason(root, source)
        for level, line in lines.items():
            for reason, number in sorted({**line["dropped"], **line["failed"]}.items()):
                rows.append(
                    (source, level, reason, ", ".join(steps.get(reason, ["what it needed was lost"])), str(number))
                )
    table = format_table(("source", "level", "reason", "by", "number"), rows) if rows else "Nothing was lost."
    return f"## Filters and losses\n\n```yaml\n{filters}```\n\n{table}"


def _describe_stage(root: Path, stage: str) -> str:
    stats = read_json(root / "mixtures" / stage / "stats.json")
    packing = stats["packing"]
    return (
        f"## Mixture of stage {stage}\n\nShares are of {stats['unit']}. {packing['sequences']} sequences of "
        f"{packing['sequence_length']} tokens, {packing['efficiency']:.1%} full.\n\n{make_mixture_table(stats)}"
    )


def make_mixture_table(stats: Mapping[str, Any]) -> str:
    """The entries of a stage in Markdown: shares as declared and planned, epochs, and amounts; pure."""
    rows = [
        (
            source["name"],
            f"{source['declared']:.2%}",
            f"{source['realised'][stats['unit']]:.2%}",
            f"{source['repetition']:.4g}",
            *(str(source["planned"][name]) for name in ("samples", "images", "tokens")),
        )
        for source in stats["sources"]
    ]
    return format_table(("source", "declared", "realised", "epochs", "samples", "images", "tokens"), rows)


def _describe_contamination(root: Path, recipe: Recipe) -> str:
    if recipe.decontaminate is None:
        return "## Contamination\n\nThe data was held against no benchmark."
    found = read_contamination(root, 0)
    rows = [
        (name, str(of.items), source, str(counts.samples.any))
        for name, of in sorted(found.benchmarks.items())
        for source, counts in sorted(of.sources.items())
    ]
    held = ", ".join(f"{name} ({of.items} items)" for name, of in sorted(found.benchmarks.items()))
    table = format_table(("benchmark", "items", "source", "samples"), rows) if rows else "Nothing was found."
    return f"## Contamination\n\nAction: {found.action}. Held against {held}.\n\n{table}"


def _describe_rebuilding(root: Path, recipe: Recipe) -> str:
    pins = _read_pins(root)
    places = "".join(f" \\\n    --source {name}={pins.get(name, 'FOLDER')}" for name in sorted(recipe.roots()))
    tokenizer = " \\\n    --set tokenizer=tokenizer.json" if recipe.tokenizer else ""
    made_by = sorted(
        {
            f"{library} {version}"
            for path in list_manifests(root)
            for receipt in read_json(path)["receipts"]
            for library, version in receipt["made_by"].items()
        }
    )
    return (
        f"## How to rebuild\n\n```\nvlmill build {LOCK} --out run{places}{tokenizer}\nvlmill verify run\n```\n\n"
        f"The bytes are the same with {', '.join(made_by)}. What was fetched from the web may have changed since."
    )


def format_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(_escape_cell(cell) for cell in line) + " |" for line in lines)


def _escape_cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
