"""A recipe for what `vlmill new` found, as YAML with a comment on each line; see proposal.py."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.yaml_format import format_yaml_inline
from vlmill.pipeline.inputs.hub_files import is_hub
from vlmill.pipeline.proposal.attempts import Attempt
from vlmill.pipeline.proposal.proposal import LONGEST_NAME, Proposal
from vlmill.pipeline.proposal.seen_boxes import list_box_lines
from vlmill.pipeline.proposal.text_marks import see_entities
from vlmill.pipeline.sources import SOURCES

Chosen = tuple[Proposal, Attempt]
"""What is in a place, and the kind that reads it."""

COMMENTS_FROM = 42
"""The column that comments stand at."""

HELD_OUT = 0.1

BENCHMARK = "include: [..., {recipe: fragments/benchmarks, take: [decontaminate.against.mmmu]}]"
"""An example of what compares the data with a benchmark; a build of it needs the network."""

DOCUMENTS = frozenset({"obelics", "web_documents", "file_documents", "mmc4", "comm"})
"""Kinds of pages, which have menus, footers and logos."""

SEEN = 2000
"""Samples that a model that starts from nothing is shown at least, as far as `EPOCHS` go: some minutes of a core."""

REPETITION = 4
"""Passes from which a build asks whether they are meant: DataComp-VLM lost 1.9 points at 4, 3.1 at 8."""

EPOCHS = (3, 16)
"""Epochs of many samples, and of the fewest: as many as a mixture shows a sample unless it says more."""


def begin_recipe(*places: str) -> str:
    """How the recipe of these places begins."""
    return f"# Written by `vlmill new {' '.join(places)}`. "


def name_recipe(names: Sequence[str]) -> str:
    """The name of a recipe of sources of these names."""
    return "_".join(names)[:LONGEST_NAME].rstrip("_")


def write_recipe(read: Sequence[Chosen], path: Path) -> str:
    """The recipe of proposals, a source of each, for a file at `path`, where its relative paths start."""
    begin = begin_recipe(*(found.place for found, _ in read))
    lines = [
        f"{begin}docs/recipe.md lists every key; vlmill check {path.name} tries it.",
        *_align_comments(_list_lines(read, path)),
    ]
    return "\n".join(lines) + "\n"


def _list_lines(read: Sequence[Chosen], path: Path) -> Iterator[tuple[str, str]]:
    """Lines with their comments."""
    names = [found.name for found, _ in read]
    yield f"name: {name_recipe(names)}", "the run's folder is build/ and this name, unless --out says another"
    yield "include:", ""
    yield "  - {recipe: quickstart, take: [tokenizer, model]}", "small enough to train on two cores; yours stand below"
    yield "sources:", ""
    for found, chosen in read:
        yield from _list_source(found, chosen, path)
    yield from _list_curation(read)
    yield "policies:", ""
    yield (
        "  small: {kind: letterbox, side: 56, patch: 14}",
        "how images are drawn; the side is the tower's",
    )
    yield "chat: vlmill", "the chat format; `model` takes that of a published tokenizer"
    yield "stages:", ""
    yield "  - name: tune", ""
    yield "    policy: small", ""
    yield "    mixture:", ""
    if len(read) == 1:
        yield f"      shares: {{{names[0]}: 1}}", "one source; add others, and their shares"
    else:
        yield f"      repeat: {_give_each(names, 1)}", "each so many times the epochs: in proportion to their samples"
        yield f"      # shares: {_give_each(names, 1)}", "in place of repeat: equal shares, or such as 0.7 and 0.3"
    yield "      unit: samples", "" if len(read) == 1 else "of shares"
    samples = sum(found.samples for found, _ in read)
    epochs = min(max(EPOCHS[0], math.ceil(SEEN / max(1, samples))), EPOCHS[1])
    yield f"      epochs: {epochs}", f"of about {samples:,} samples; pretrained parts need fewer"
    if epochs > REPETITION:
        meant = "" if len(read) == 1 else "; other shares need more"
        yield f"      max_repetition: {epochs}", f"so many passes over the samples are meant{meant}"
    yield "      sequence_length: 1024", "tokens of a packed sequence"
    yield "      tiles_per_sequence: 64", "images, or tiles of images, in a sequence at most"
    yield f"      held_out: {_give_each(names, HELD_OUT)}", "not trained on; vlmill evaluate asks it"
    yield "    train:", ""
    yield (
        "      learning_rate: {projector: 1.0e-3, vision: 1.0e-3, text: 1.0e-3}",
        "of a model that starts from nothing",
    )
    yield f"      sequences: {2 if epochs == EPOCHS[0] else 1}", "in a step; more need fewer steps"
    yield "      epochs: 1", "of the plan, which has the mixture's epochs in it"
    yield "# Compared with benchmarks, and reported; `action: drop` drops what they hold (docs/curation.md):", ""
    yield f"#   {BENCHMARK}", ""
    yield "# With pretrained parts, in place of `include`:", ""
    yield "#   tokenizer: llama/tokenizer.json", ""
    yield (
        "#   model: {family: llava, vision: {kind: pretrained, path: siglip}, text: {kind: pretrained, path: llama}}",
        "",
    )


def _list_source(found: Proposal, chosen: Attempt, path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a source."""
    yield f"  {found.name}:", "a name, used in the mixture below and in reports"
    yield f"    kind: {chosen.kind}", f"the row shape; {len(chosen.pages)} of {chosen.rows} give samples"
    root = str(path.resolve().parent) if found.listed else found.root
    yield f"    root: {_format_place(root, path)}", "where its files are; in no key, so the data can be moved"
    yield f"    files: {format_yaml_inline(found.files)}", "which files below root"
    if chosen.options:
        yield f"    options: {format_yaml_inline(dict(chosen.options))}", "which columns hold what"
    if found.images and SOURCES[chosen.kind].opens and found.images != root:
        yield f"    images: {_format_place(found.images, path)}", "where the paths of its images start"
    if see_entities([page.nodes for page in chosen.pages]).samples:
        yield "    unescape: true", "HTML entities in its texts, such as &amp;, become characters"
    yield from list_box_lines(found.boxes)
    yield '    licence: ""', "say it: it travels with every sample, and into the data card"


def _list_curation(read: Sequence[Chosen]) -> Iterator[tuple[str, str]]:
    """The lines of filters and dedupe; those of pages also take what is no content."""
    documents = [found.name for found, chosen in read if chosen.kind in DOCUMENTS]
    yield "filters:", "what is dropped, with a reason; a changed bound takes seconds"
    yield "  - language: {drop: [zh], strict: true}", "no Chinese, for an English model; take it out to keep Chinese"
    if any(SOURCES[chosen.kind].fetches or any(page.pictures for page in chosen.pages) for _, chosen in read):
        yield "  - shape: {min_side: 32, max_ratio: 10}", "no tiny or extremely long images"
    if documents:
        of = "" if len(documents) == len(read) else f", sources: [{', '.join(documents)}]"
        yield f"  - text_quality: {{node: {{min_words: 4}}{of}}}", "texts of pages that are menus and buttons"
    if len(documents) == len(read):
        yield "dedupe:", ""
        yield "  near_images: true", "of images of a page that are alike one is kept"
        yield "  paragraphs: 3", "what three pages of a host have but for numbers: menus, footers; null keeps it"
        yield "  boilerplate: 10", "an image of more pages leaves them all: logos"
    else:
        yield (
            "dedupe: {near_images: true}",
            "of samples that are alike one is kept; false keeps pictures that look alike",
        )


def _give_each(names: Sequence[str], value: float) -> str:
    return f"{{{', '.join(f'{name}: {value}' for name in names)}}}"


def _align_comments(lines: Iterator[tuple[str, str]]) -> Iterator[str]:
    """The lines, with their comments in one column where they fit."""
    for line, comment in lines:
        yield f"{line:<{COMMENTS_FROM}} # {comment}" if comment else line


def _format_place(place: str, path: Path) -> Any:
    """A folder as the recipe names it: relative where it lies at or below the recipe's folder."""
    archive, chain, file = place.rpartition("::")
    if chain and "://" not in file:
        return format_yaml_inline(f"{archive}{chain}{_name_relative(file, path)}")
    if is_hub(place) or "://" in place:
        return format_yaml_inline(place if "@" in place or not is_hub(place) else f"{place}@main")
    return format_yaml_inline(_name_relative(place, path))


def _name_relative(place: str, path: Path) -> str:
    relative = os.path.relpath(place, path.resolve().parent)
    return place if relative.startswith("..") else relative
