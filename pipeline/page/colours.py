"""The colours of sources and reasons, the same ones in every page: those of files and those of `vlmill explore`.

A reason's colour depends on its name alone, a source's on its place in the recipe, so neither changes with what happens
to be shown, or with reasons that are new. All stand on white and on dark grounds, and always beside their name. Where
two reasons of one colour stand in one chart, stripes tell them apart.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

SOURCES = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
"""Ten that people with any colour vision tell apart (Petroff 2021, arXiv:2107.02270); further sources start again."""

REASONS = ("#cc6677", "#44aa99", "#ddcc77", "#aa4499", "#117733", "#88ccee", "#882255", "#999933", "#6666bb")
"""Of reasons: Paul Tol's scheme `muted` (Colour Schemes, technical note 3.2, 2021), its indigo lighter so that it shows
on dark grounds."""

STRIPES = (45, 135, 90)
"""Degrees of the stripes of the second, third and fourth reason of one colour in a chart."""

KEPT_COLOUR = "#c8cdd6"
"""Of what is kept: quiet, so that losses are seen."""

SALT = 3316
"""Under which the nine reasons that most runs have get nine colours: language, exact and near images and texts,
boilerplate, images too small, of an odd ratio, and undecodable."""


def choose_colours(sources: Sequence[str]) -> dict[str, str]:
    """A colour for each source, by its place."""
    return {source: SOURCES[place % len(SOURCES)] for place, source in enumerate(sources)}


def choose_reason_colours(reasons: Iterable[str]) -> dict[str, str]:
    """A colour for each reason, whatever others there are: by a hash of its name."""
    return {
        reason: REASONS[hashlib.sha256(f"{SALT} {reason}".encode()).digest()[0] % len(REASONS)] for reason in reasons
    }


def fill_reasons(reasons: Iterable[str]) -> dict[str, str]:
    """What reasons of one chart are filled with, in CSS: their colour, in stripes if one before has the same."""
    seen, found = Counter[str](), dict[str, str]()
    for reason, colour in choose_reason_colours(dict.fromkeys(reasons)).items():
        angle = STRIPES[(seen[colour] - 1) % len(STRIPES)]
        striped = f"repeating-linear-gradient({angle}deg, {colour} 0 3px, var(--paper) 3px 5px)"
        found[reason] = striped if seen[colour] else colour
        seen[colour] += 1
    return found
