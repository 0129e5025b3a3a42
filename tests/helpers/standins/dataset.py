"""What a stand-in's entry in the registry says: how its files are written, and how far upstream's form is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.helpers.standins.tree import Tree

SUBSETS: dict[str, tuple[str, ...]] = {
    repository: tuple(names)
    for repository, names in yaml.safe_load(
        Path(__file__).with_name("subsets.yaml").read_text(encoding="utf-8")
    ).items()
}
"""The subsets of datasets that have many."""

Write = Callable[[Tree, Mapping[str, int]], None]
"""Writes the files of some subsets: subset -> good rows of it."""


@dataclass(frozen=True)
class Dataset:
    """A dataset that published recipes name."""

    repository: str
    write: Write
    files: str  # which files hold the rows
    shape: str  # of a row
    kind: str  # what reads it in vlmill
    licence: str  # as the card states it; empty where that is not known
    known: str  # what was looked up, and where
    guessed: str = ""  # what was not
    options: Mapping[str, object] = field(default_factory=dict)  # of the kind
    images: str = ""  # what a source's `images` names, where rows name pictures by path
    remark: str = ""  # what has to be done before it can be read, or is not read
    subsets: tuple[str, ...] = ("default",)
    gated: bool = False  # whether the Hub asks for an account that agreed to something
    on_hub: bool = True
