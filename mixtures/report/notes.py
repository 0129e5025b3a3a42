"""What a person should look at before training on a stage.

It is shown at the end of a build, below its statistics and on the page.

`warnings.py` looks at the mixture and what was selected for it, and its warnings stand in `stats.json`. Here they are
joined by what only the run's folder can tell: whether the tokenizer is still the one that counted, and what of two
entries is nearly the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from vlmill.mixtures import get_source
from vlmill.mixtures.report.alike_texts import count_alike, list_checked_files
from vlmill.mixtures.report.shared_pictures import find_shared_pictures
from vlmill.mixtures.report.stats import FEW
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.dedupe.near_pairs import IMAGE_PAIRS_FILE
from vlmill.pipeline.dedupe.pairs import FLOORS
from vlmill.pipeline.engine.chain import read_totals
from vlmill.pipeline.recipe.schema import Recipe

ENOUGH = FEW + 2 * math.sqrt(FEW)
"""Held-out samples that a proposed fraction aims at. Their number varies by its root, so it seldom falls below FEW."""
MORE = 0.3
"""The largest fraction that is proposed to be held out."""


def write_notes(
    root: Path, recipe: Recipe, stage: str, stats: Mapping[str, Any], lock: Mapping[str, Any]
) -> Iterator[str]:
    """Sentences about a stage of a run, the mixture's own warnings first.

    Args:
        root: the run's folder.
        recipe: that it is locked to.
        stage: one of the recipe's.
        stats: of the stage, as in `stats.json`.
        lock: of the stage.
    """
    yield from stats["warnings"]
    if stats["binding"]:
        unit = stats["unit"]
        shares = (
            f"{entry['name']} {entry['realised'][unit]:.2%} (declared {entry['declared']:.2%})"
            for entry in stats["sources"]
        )
        yield (
            f"so the nearest mixture that can be had is planned: {', '.join(shares)} of {unit}; strict: true in the "
            "mixture refuses it"
        )
    yield from _warn_of_unsupervised(recipe, stage, stats)
    yield from warn_of_few_held_out(root, stage, lock)
    yield from _warn_of_shared_pictures(root, recipe, stage, lock)
    tokenizer = root / lock["tokenizer"]["path"]
    if not tokenizer.exists() or hash_file(tokenizer) != lock["tokenizer"]["sha256"]:
        yield (
            f"{lock['tokenizer']['path']} is not the tokenizer that counted the tokens of these shards; build again, "
            "so that they are counted anew"
        )
    sources = sorted({get_source(shard["path"]) for source in lock["sources"] for shard in source["shards"]})
    yield from _describe_boxes(root, recipe, stage, sources)
    if recipe.dedupe is None:
        if len(sources) > 1:
            yield "the recipe's dedupe is null, so what entries have in common was not looked for"
        return
    policy = next(item.policy for item in recipe.stages if item.name == stage)
    for (one, other), pairs in count_alike(root, dict.fromkeys(sources, policy)).items():
        if one != other:
            yield (
                f"{one} and {other}: {pairs:,} pairs of samples whose texts are alike by {FLOORS['text']:g} or more "
                "stay in both"
            )


def _warn_of_unsupervised(recipe: Recipe, stage: str, stats: Mapping[str, Any]) -> Iterator[str]:
    """Entries of which nothing is learned, where a stage learns supervised texts alone."""
    train = next(item.train for item in recipe.stages if item.name == stage)
    if train.get("loss", "answers") != "answers":
        return
    for entry in stats["sources"]:
        if entry["planned"]["tokens"] and not entry["planned"]["supervised"]:
            yield (
                f"{entry['name']}: nothing of it is learned, since none of its texts is supervised: it has no answers, "
                "or the code of its source does not say Node(..., supervised=True)"
            )


def _describe_boxes(root: Path, recipe: Recipe, stage: str, sources: Sequence[str]) -> Iterator[str]:
    """What came of the coordinates in texts of each source, under the policy of a stage."""
    policy = next(item.policy for item in recipe.stages if item.name == stage)
    for source in sources:
        if recipe.sources[source].boxes is None:
            continue
        found = read_totals(root, f"steps/{source}/boxes")["boxes"]
        shown = read_totals(root, f"shards/{source}/{policy}")
        boxes, clipped = shown.get("boxes", Count()), shown.get("clipped_boxes", Count())
        bad, cut = found.came - found.kept, boxes.lost.get(Reason.BOX_CUT_AWAY, 0)
        yield (
            f"{source}: {found.came:,} boxes in texts: {boxes.kept:,} kept ({clipped.kept:,} of them in part), {cut:,} "
            f"cut away by policy {policy}, {bad:,} bad"
        )


def warn_of_few_held_out(root: Path, stage: str, lock: Mapping[str, Any]) -> Iterator[str]:
    """Sources that hold so few samples out that a score of them says little, with a fraction that holds out more.

    Args:
        root: the run's folder.
        stage: that was planned.
        lock: of the stage.
    """
    table = pl.read_parquet(root / "mixtures" / stage / lock["held_out"]["path"], columns=["source"], glob=False)
    counts = dict(table.group_by("source").len().iter_rows())
    first: dict[str, int] = {}  # of a source in several entries, the first, where its held-out samples stand
    for number, entry in enumerate(lock["sources"]):
        if entry["held_out"] and first.setdefault(entry["name"], number) == number:
            held, whole = counts.get(number, 0), sum(shard["samples"] for shard in entry["shards"])
            more = min(MORE, math.ceil(100 * ENOUGH / max(whole, 1)) / 100)
            advice = (
                f"; more: held_out: {{{entry['name']}: {more:g}}} in each stage" if more > entry["held_out"] else ""
            )
            if held < FEW:
                yield (
                    f"{entry['name']}: {held:,} of {whole:,} samples {'is' if held == 1 else 'are'} held out "
                    f"(held_out {entry['held_out']:g}), and a score of so few says little{advice}"
                )


def _warn_of_shared_pictures(root: Path, recipe: Recipe, stage: str, lock: Mapping[str, Any]) -> Iterator[str]:
    """Held-out samples that are no fair test, since a picture of theirs is trained on."""
    table = root / "mixtures" / stage / lock["held_out"]["path"]
    threshold = None if recipe.dedupe is None else recipe.dedupe.image
    pairs = [] if threshold is None else list_checked_files(root, "steps/dedupe/pairs", IMAGE_PAIRS_FILE)
    shared = find_shared_pictures(root, lock, table, pairs, threshold or 1)
    if not shared.samples:
        return
    kinds = {"the same": shared.same, f"similar by {threshold or 1:g} or more": shared.near}
    where = "; ".join(
        f"{how} in {', '.join(f'{name} {number:,}' for name, number in sorted(samples.items()))}"
        for how, samples in kinds.items()
        if samples
    )
    yield (
        f"{shared.samples:,} of {lock['held_out']['samples']:,} held-out samples are no fair test: a picture of theirs "
        f"is trained on ({where}). Pictures are kept apart within a source alone, and no longer where more than a "
        "tenth of its samples show each other's pictures, directly or by way of others. Where a score has to be fair, "
        "hold out of a source whose pictures no other shows: stages.*.mixture.held_out"
    )
