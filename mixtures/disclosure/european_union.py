"""The public summary of training content that Article 53(1)(d) of the EU's AI Act asks for, as far as a run knows it.

Sections and bounds follow the Commission's template, C(2025) 8311 of 5 December 2025 (first published on 24 July 2025).
What the template asks of the provider, and no run can know, is marked OPEN. It is a draft for people who know the law.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from vlmill.mixtures.disclosure.facts import RunFacts, SourceFacts
from vlmill.mixtures.disclosure.figures import sort_counts
from vlmill.mixtures.disclosure.markdown import OPEN, cite_value, format_counts, format_shares
from vlmill.mixtures.report.card import format_table

LARGE = 0.03
"""A public data set above this share of all public ones of a modality is named one by one (template, section 2.1)."""
TOP_DOMAINS = 0.1
"""Of all domain names, by amount of content, are listed (template, section 2.3)."""
TEXT_BOUNDS = ((1_000_000_000, "less than 1 billion tokens"), (10_000_000_000_000, "1 billion to 10 trillion tokens"))
IMAGE_BOUNDS = ((1_000_000, "less than 1 million images"), (1_000_000_000, "1 million to 1 billion images"))
CHARACTERS_A_TOKEN = 4
"""Where no stage has counted tokens."""


def write_summary(facts: RunFacts) -> str:
    """The summary in Markdown."""
    lines = [
        f"# Public summary of training content: {facts.name}",
        (
            "Draft for Article 53(1)(d) of Regulation (EU) 2024/1689, after the template C(2025) 8311. Made by "
            f"`vlmill disclose`: every figure is followed by its name, and {facts.command('NAME')} computes it again. "
            f"What only the provider knows is marked {OPEN}."
        ),
        *_write_general(facts),
        *_write_sources(facts),
        *_write_processing(facts),
    ]
    return "\n\n".join(lines) + "\n"


def choose_range(number: int, bounds: tuple[tuple[int, str], ...], above: str) -> str:
    """The template's range that a size is in."""
    return next((name for bound, name in bounds if number < bound), above)


def _write_general(facts: RunFacts) -> Iterator[str]:
    total = facts.figures["total"]
    tokens, name = facts.count_text_tokens()
    characters = cite_value(total["characters"], "total.characters")
    yield "## 1. General information"
    yield f"### 1.1 Provider\n\nName and contact: {OPEN}\n\nAuthorised representative: {OPEN}"
    yield (
        f"### 1.2 Model\n\nVersioned model name: {OPEN}\n\nModel that it was trained on from, and its summary: "
        f"{facts.base_models or OPEN}\n\nDate of placement on the Union market: {OPEN}"
    )
    text = choose_range(tokens, TEXT_BOUNDS, "more than 10 trillion tokens")
    images = choose_range(total["pictures"], IMAGE_BOUNDS, "more than 1 billion images")
    yield (
        "### 1.3 Modalities and size\n\n"
        + format_table(
            ("modality", "size", "figure", "types of content"),
            [
                (
                    "text",
                    text,
                    f"{cite_value(tokens, name)} tokens, {characters} characters",
                    _list_kinds(facts, "texts"),
                ),
                (
                    "image",
                    images,
                    f"{cite_value(total['pictures'], 'total.pictures')} different files",
                    _list_kinds(facts, "images"),
                ),
                ("audio", "none", "0", "this tool reads none"),
                ("video", "none", "0", "this tool reads none"),
            ],
        )
    )
    period = facts.figures["period"]
    yield (
        f"Latest date of acquisition: {cite_value(period['last'] or 'unknown', 'period.last')}, the last time that the "
        f"data were worked on; what sources were collected by others: {OPEN}"
    )
    languages = [(one.name, format_shares(one.figures["languages"])) for one in facts.sources]
    yield (
        "Linguistic characteristics: the most likely language of texts chosen by hash, by share of their characters "
        "(fastText lid.176), in `sources.NAME.languages`.\n\n" + format_table(("source", "languages"), languages)
    )


def _list_kinds(facts: RunFacts, figure: str) -> str:
    return "; ".join(sorted({one.content for one in facts.sources if one.figures[figure]})) or "none"


def _write_sources(facts: RunFacts) -> Iterator[str]:
    yield "## 2. Data sources"
    yield "### 2.1 Publicly available datasets"
    public = [one for one in facts.sources if one.public]
    large = [one for one in public if _is_large(one, public)]
    if large:
        rows = [
            (one.name, one.describe_origin(), _describe_size(one), format_counts(one.figures["licences"]), one.homepage)
            for one in large
        ]
        yield f"Above {LARGE:.0%} of the public content of a modality:\n\n" + format_table(
            ("dataset", "identifier", "size", "licences by samples", "homepage"), rows
        )
    if others := [one for one in public if one not in large]:
        yield "Smaller ones: " + "; ".join(
            f"{one.name} ({one.describe_origin()}; {_describe_size(one)})" for one in others
        )
    if not public:
        yield f"None that the recipe names by homepage, citation or repository. {OPEN}"
    yield "### 2.2 Private datasets obtained from third parties"
    yield f"2.2.1 Licensed commercially by rights holders: {OPEN}"
    private = [one for one in facts.sources if not one.public]
    named = "; ".join(f"{one.name} ({_describe_size(one)})" for one in private)
    asked = f" {OPEN}" if private else ""
    yield f"2.2.2 From others, or own. Sources without a public origin in the recipe: {named or 'none'}.{asked}"
    yield from _write_crawled(facts)
    yield f"### 2.4 User data\n\n{OPEN}"
    yield "### 2.5 Synthetic data\n\n" + _describe_synthetic(facts)
    yield f"### 2.6 Other sources\n\n{OPEN}"


def _is_large(one: SourceFacts, public: list[SourceFacts]) -> bool:
    return any(
        one.figures[name] > LARGE * sum(other.figures[name] for other in public) for name in ("characters", "pictures")
    )


def _describe_size(one: SourceFacts) -> str:
    return ", ".join(
        f"{cite_value(one.figures[name], f'sources.{one.name}.{name}')} {name}"
        for name in ("samples", "pictures", "characters")
    )


def _write_crawled(facts: RunFacts) -> Iterator[str]:
    fetched = [one for one in facts.sources if one.fetches]
    if not fetched:
        yield (
            "### 2.3 Data crawled and scraped\n\nThis run fetched nothing from web addresses. What the sources above "
            f"crawled: {OPEN}"
        )
        return
    period = facts.figures["period"]
    first, last = (cite_value(period[name] or "unknown", f"period.{name}") for name in ("first", "last"))
    yield (
        "### 2.3 Data crawled and scraped\n\n"
        f"Images of {', '.join(one.name for one in fetched)} were fetched from the addresses that their rows name, by "
        f"img2dataset as vlmill drives it, with the user agent `{facts.user_agent}`, between "
        f"{first} and {last}. "
        f"No links were followed. Purpose: training data. Modality: images. Operator of the crawler: {OPEN}"
    )
    hosts = Counter[str]()
    for one in fetched:
        hosts.update(one.figures["image_hosts"])
    shown = sort_counts(hosts)
    most = max(1, round(TOP_DOMAINS * len(shown)))
    rows = [(host, f"{number:,}") for host, number in list(shown.items())[:most]]
    yield (
        f"The {most:,} of {len(shown):,} hosts with the most images, which is the top {TOP_DOMAINS:.0%} (figures "
        "`sources.NAME.image_hosts`):\n\n" + format_table(("host", "images kept"), rows)
    )


def _describe_synthetic(facts: RunFacts) -> str:
    rows = [
        (one.name, model, cite_value(number, f"sources.{one.name}.written.{model}"))
        for one in facts.sources
        for model, number in one.figures["written"].items()
    ]
    made = (
        format_table(("source", "model", "texts that it wrote in this run"), rows)
        if rows
        else "No text was written by a model in this run."
    )
    return f"{made}\n\nSynthetic content within the sources themselves: {OPEN}"


def _write_processing(facts: RunFacts) -> Iterator[str]:
    yield "## 3. Data processing"
    yield "### 3.1 Reservations of rights\n\n" + _describe_reservations(facts)
    yield f"Signatory of the Code of Practice: {OPEN}"
    yield (
        "### 3.2 Removal of illegal content\n\nFilters of the run, in their order: "
        f"{', '.join(facts.filters) or 'none'}. Values of models with bounds: {', '.join(facts.signals) or 'none'}. "
        f"Samples and images lost, by reason: `sources.NAME.lost`. Other measures: {OPEN}"
    )
    yield f"### 3.3 Other information\n\n{facts.describe_rebuilding()}"


def _describe_reservations(facts: RunFacts) -> str:
    rows = [
        (one.name, what, cite_value(number, f"sources.{one.name}.lost.{what}"))
        for one in facts.sources
        for what, number in one.opt_outs.items()
    ]
    counted = (
        format_table(("source", "level and reason", "left out"), rows)
        if rows
        else "Nothing was left out for these reasons."
    )
    return f"{facts.reservations}\n\n{counted}"
