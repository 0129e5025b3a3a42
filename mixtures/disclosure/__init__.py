"""Disclosure: what laws and catalogues ask about training data, from a complete run alone.

figures          counted from shards and tables, each under a name
facts            figures with what the recipe says of sources and measures
european_union   the public summary of Article 53(1)(d) of the AI Act
california       the documentation of AB 2013
croissant        Croissant 1.1, with licences and lineage
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vlmill.mixtures.disclosure.california import write_documentation
from vlmill.mixtures.disclosure.croissant import describe_dataset
from vlmill.mixtures.disclosure.european_union import write_summary
from vlmill.mixtures.disclosure.facts import read_facts
from vlmill.mixtures.disclosure.figures import read_period
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.keys import hash_file, hash_value
from vlmill.pipeline.core.terminal import format_json
from vlmill.pipeline.engine.workdir import PINS
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK as RECIPE
from vlmill.pipeline.takedown.rules import LIST

FOLDER = "disclosure"
"""Below a run's folder: where the documents go."""
SUMMARY, DOCUMENTATION, FIGURES = "eu_public_summary.md", "california_ab_2013.md", "figures.json"
CROISSANT = "croissant.json"
"""In the run's folder itself, since its paths start beside it."""


def write_disclosure(root: Path, out: Path, shown: str) -> tuple[Path, ...]:
    """Write all documents and their figures.

    Args:
        root: The run's folder, which gets CROISSANT.
        out: The folder for the others; files of the same names are replaced.
        shown: How commands in the documents name the run.

    Returns:
        The files.

    Raises:
        StoreError: the run is not complete.
    """
    facts, recipe = read_facts(root, shown), read_locked_recipe(root)
    policies = {name: recipe.list_policies(name) for name in recipe.sources}
    documents = {
        out / SUMMARY: write_summary(facts),
        out / DOCUMENTATION: write_documentation(facts),
        out / FIGURES: format_json(facts.figures) + "\n",
        root / CROISSANT: format_json(describe_dataset(facts, policies)) + "\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for path, text in documents.items():
        write_atomically(path, text)
    return tuple(documents)


@dataclass(frozen=True)
class HeldDisclosure:
    """Documents of a run's folder, from before a build there."""

    documents: Mapping[Path, str]
    state: str  # of what they say something about


def remove_disclosure(root: Path) -> None:
    """Remove the documents below a run that is no longer what they say; copies elsewhere stay."""
    for path in _list_documents(root):
        path.unlink(missing_ok=True)


def read_disclosure(root: Path) -> HeldDisclosure | None:
    """The documents in a run's folder, before a build changes it and removes them; None where there are none."""
    found = {path: path.read_text(encoding="utf-8") for path in _list_documents(root) if path.exists()}
    return HeldDisclosure(found, _hash_state(root)) if found else None


def restore_disclosure(root: Path, held: HeldDisclosure) -> bool:
    """Put documents back if the run is what they say; returns whether it is."""
    if _hash_state(root) != held.state:
        return False
    for path, text in held.documents.items():
        write_atomically(path, text)
    return True


def _list_documents(root: Path) -> list[Path]:
    return [*(root / FOLDER / name for name in (SUMMARY, DOCUMENTATION, FIGURES)), root / CROISSANT]


def _hash_state(root: Path) -> str:
    """The sha256 of all that figures follow from: manifests, which name the sha256 of every table, locks, and days."""
    names = [RECIPE, PINS, LIST]
    names += sorted(
        str(path.relative_to(root))
        for pattern in ("steps/**/manifest.json", "shards/**/manifest.json", "mixtures/*/stats.json")
        for path in root.glob(pattern)
    )
    told = {name: hash_file(root / name) for name in names if (root / name).exists()}
    return hash_value({"files": told, "period": read_period(root)})
