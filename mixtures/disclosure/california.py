"""The twelve points of California's AB 2013 (Civil Code, section 3111), as far as a run knows them.

The law asks developers of generative models for a high-level summary of the data that they trained on. What only the
developer knows is marked OPEN.
"""

from __future__ import annotations

from collections import Counter

from vlmill.mixtures.disclosure.facts import RunFacts
from vlmill.mixtures.disclosure.figures import sort_counts
from vlmill.mixtures.disclosure.markdown import OPEN, cite_value, format_counts
from vlmill.mixtures.report.card import format_table


def write_documentation(facts: RunFacts) -> str:
    """The documentation in Markdown: a section for each point, in the law's order."""
    head = (
        f"# Training data documentation: {facts.name}\n\nDraft for California Civil Code section 3111(a) (AB 2013). "
        f"Every figure is followed by its name, and {facts.command('NAME')} computes it again. {OPEN} marks what only "
        "the developer knows."
    )
    points = [f"## ({number}) {title}\n\n{text}" for number, (title, text) in enumerate(_list_points(facts), start=1)]
    return "\n\n".join([head, *points]) + "\n"


def _list_points(facts: RunFacts) -> list[tuple[str, str]]:
    period = facts.figures["period"]
    first, last = (cite_value(period[name] or "unknown", f"period.{name}") for name in ("first", "last"))
    worked = f"{first} to {last}"
    return [
        (
            "Sources or owners",
            format_table(("source", "origin"), [(one.name, one.describe_origin()) for one in facts.sources]),
        ),
        ("How the data further the intended purpose", OPEN),
        ("Number of data points", _write_numbers(facts)),
        ("Types of data points", _write_types(facts)),
        ("Copyright, trademark, patent, or public domain", _write_licences(facts)),
        ("Purchased or licensed", OPEN),
        ("Personal information (section 1798.140(v))", _write_personal(facts)),
        ("Aggregate consumer information (section 1798.140(b))", OPEN),
        ("Cleaning, processing and modification", _write_processing(facts)),
        (
            "Period of collection",
            f"This run worked on the data from {worked}. When sources were collected, and whether it goes on: {OPEN}",
        ),
        ("Dates of first use", OPEN),
        ("Synthetic data", _write_synthetic(facts)),
    ]


def _write_numbers(facts: RunFacts) -> str:
    rows = [
        (
            one.name,
            *(cite_value(one.figures[name], f"sources.{one.name}.{name}") for name in ("rows", "samples", "pictures")),
        )
        for one in facts.sources
    ]
    total = facts.figures["total"]
    rows.append(("all", *(cite_value(total[name], f"total.{name}") for name in ("rows", "samples", "pictures"))))
    return format_table(("source", "rows read", "samples kept", "different images kept"), rows)


def _write_types(facts: RunFacts) -> str:
    rows = [(one.name, one.content, "images and texts" if one.figures["images"] else "texts") for one in facts.sources]
    return format_table(("source", "a data point is one of", "content"), rows) + (
        "\n\nLabels are the answers, captions and texts of these rows."
    )


def _write_licences(facts: RunFacts) -> str:
    rows = [(one.name, one.licence or "not named", format_counts(one.figures["licences"])) for one in facts.sources]
    return (
        format_table(("source", "licence in the recipe", "licences by samples"), rows)
        + f"\n\nRights in the content: {OPEN}"
    )


def _write_personal(facts: RunFacts) -> str:
    custom = Counter[str]()
    for one in facts.sources:
        for name, number in one.figures["lost"].items():
            if ".filter:" in name:
                custom[name.split(".", 1)[1]] += number
    dropped = f" Custom filters dropped {format_counts(sort_counts(custom))}." if custom else ""
    return (
        f"Rules on the list of takedowns that the run obeys: {facts.takedowns:,}.{dropped} Nothing else of the run "
        f"looks for personal information. {OPEN}"
    )


def _write_processing(facts: RunFacts) -> str:
    lost = [
        (one.name, name, cite_value(number, f"sources.{one.name}.lost.{name}"))
        for one in facts.sources
        for name, number in one.figures["lost"].items()
    ]
    table = format_table(("source", "level and reason", "left out"), lost) if lost else "Nothing was left out."
    return (
        f"Filters, in their order: {', '.join(facts.filters) or 'none'}; then dedupe and decontamination where "
        f"the recipe has them. Purpose of the changes: {OPEN}\n\n{table}"
    )


def _write_synthetic(facts: RunFacts) -> str:
    written = [
        (one.name, model, cite_value(number, f"sources.{one.name}.written.{model}"))
        for one in facts.sources
        for model, number in one.figures["written"].items()
    ]
    table = format_table(("source", "model", "texts"), written) if written else "The run let no model write texts."
    return f"{table}\n\nSynthetic data within the sources: {OPEN}"
