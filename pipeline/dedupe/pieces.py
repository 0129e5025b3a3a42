"""How `resolve` is cut into blocks and buckets, and the order in which its steps run: for the engine and for `what-if`.

What decides is how many samples and images a run holds, so bytes never depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TypeVar

from vlmill.pipeline.core.step import Counts, Step, match_names
from vlmill.pipeline.dedupe.blocks import (
    AddOverlaps,
    ClaimThings,
    DecideClaims,
    DropThings,
    FindLeft,
    LabelBlock,
    MeasureOverlap,
    NameKeepers,
    ResolveBlock,
)
from vlmill.pipeline.dedupe.candidates import BUCKET_BITS
from vlmill.pipeline.dedupe.resolve import Resolve
from vlmill.pipeline.dedupe.rounds import LinkGroups, MatchPairs, RankGroups, SettleGroups
from vlmill.pipeline.dedupe.rule import RankedRule
from vlmill.pipeline.dedupe.stars import LabelContents, LinkPairs, MoveLinks, SelectPairs

BLOCK = 1 << 17
"""Samples and images of a block: `resolve` takes about 0.3 GB for each. A run of one block is resolved by one task."""

BLOCKS_PER_BUCKET = 2
"""What is compared takes less memory than what it is taken from."""

LINKS = 1 << 20
"""Rows of links that a task of a round settles: about 0.2 GB."""

ROUNDS, STAGES = 99, 7
"""At most: of stars, which are about as many as the logarithm of the contents of a component; and of rules. There may
be more rounds of a ranked rule."""

Reference = TypeVar("Reference")
Perform = Callable[[str, Mapping[str, Step], Mapping[str, Reference]], tuple[dict[str, Reference], Counts]]
"""Runs the steps of a folder, by the names of their parts, over files by name. It returns what they left, as
`<folder>/<part>/<file>`, and their counts added up."""


def cut_blocks(sizes: Mapping[str, int], priority: Mapping[str, int], most: int = BLOCK) -> tuple[tuple[str, ...], ...]:
    """Partitions in the order of preference, as many to a block as hold `most` things, one at least. Pure.

    Args:
        sizes: `<source>/<partition>` -> samples and images.
        priority: Source -> number, 0 if it has none.
        most: Things of a block.
    """
    blocks, held = list[list[str]](), 0
    for partition in sorted(sizes, key=lambda name: _rank_partition(name, priority)):
        held += sizes[partition]
        if not blocks or held > most:
            blocks.append([])
            held = sizes[partition]
        blocks[-1].append(partition)
    return tuple(map(tuple, blocks))


def _rank_partition(name: str, priority: Mapping[str, int]) -> tuple[int, str, list[int]]:
    source, _, partition = name.rpartition("/")
    return priority.get(source, 0), source, [int(number) for number in partition.split("-")]


def resolve_blocks(
    settings: Resolve,
    blocks: Sequence[tuple[str, ...]],
    shares: int,
    files: Mapping[str, Reference],
    perform: Perform[Reference],
) -> dict[str, Reference]:
    """Run all steps; returns the files of the last, `resolve`, under the names that `Resolve` gives them.

    Args:
        settings: What `Resolve` would be given.
        blocks: See `cut_blocks`.
        shares: Files of pairs.
        files: What `Resolve` reads, and the places of lines.
        perform: See Perform.
    """
    buckets = range(min(-(-len(blocks) // BLOCKS_PER_BUCKET), 1 << BUCKET_BITS))
    parts = range(len(blocks))
    left, _ = perform(
        "left", _name_parts(_find_left(settings, number, block) for number, block in enumerate(blocks)), files
    )
    thresholds = {"text": settings.text, "image": settings.image}
    labels = connect_contents(thresholds, shares, len(buckets), {**files, **left}, perform)
    labelled, _ = perform("labelled", _name_parts(LabelBlock(block) for block in parts), {**left, **labels})
    overlaps, _ = perform("overlap", _name_parts(MeasureOverlap(at, len(buckets)) for at in buckets), labelled)
    answers, stages = dict[str, Reference](), settings.list_stages()
    for number, rules in enumerate(stages):
        steps = _name_parts(ClaimThings(block, stages[:number], rules) for block in parts)
        claims, _ = perform(f"claims_{number}", steps, {**labelled, **answers})
        told = dict[str, Reference]()
        for rule in rules:
            if isinstance(rule, RankedRule):
                told |= settle_claims(rule, number, len(buckets), {**files, **claims}, perform)
        steps = _name_parts(DecideClaims(at, len(buckets), rules) for at in buckets)
        decided, _ = perform(f"answers_{number}", steps, {**claims, **told})
        answers |= decided
    drops, _ = perform("drops", _name_parts(DropThings(block, stages) for block in parts), {**labelled, **answers})
    names, _ = perform("names", _name_parts(NameKeepers(block) for block in parts), {**drops, **left})
    last = _name_parts(ResolveBlock(number, block) for number, block in enumerate(blocks))
    resolved, _ = perform("resolve", {**last, "overlap": AddOverlaps()}, {**drops, **names, **left, **overlaps})
    return {name.rpartition("/")[2]: file for name, file in resolved.items()}


def _find_left(settings: Resolve, number: int, block: tuple[str, ...]) -> FindLeft:
    return FindLeft(number, block, settings.priority, settings.filters, settings.paragraphs, settings.texts_too)


def list_folders() -> list[str]:
    """The names under which `resolve_blocks` has steps performed, in their order; `resolve` is the last."""
    rounds = [f"{size}_star_{number}" for number in range(ROUNDS) for size in ("large", "small")]
    stages = [name for number in range(STAGES) for name in _list_stage_folders(number)]
    return ["left", "edges", "links", *rounds, "labels", "labelled", "overlap", *stages, "drops", "names", "resolve"]


def _list_stage_folders(number: int) -> list[str]:
    rounds = (f"round_{at}" for at in range(ROUNDS))
    return [f"{step}_{number}" for step in ("claims", "ranks", "matched", "linked", *rounds, "answers")]


def connect_contents(
    thresholds: Mapping[str, float],
    shares: int,
    buckets: int,
    files: Mapping[str, Reference],
    perform: Perform[Reference],
) -> dict[str, Reference]:
    """The components of all contents, `<kind>.labels.parquet`: rounds until a large and a small one move nothing.

    Args:
        thresholds: Similarity from which contents are connected, by kind.
        shares: Files of pairs.
        buckets: Ranges of keys.
        files: The pairs, and the keys of what is left.
        perform: See Perform.
    """
    numbers = range(buckets)
    select = _name_parts(SelectPairs(at, buckets, shares, thresholds) for at in numbers)
    edges, _ = perform("edges", select, files)
    keys = {name: files[name] for name in match_names(files, ["*.keys.parquet"])}
    linked, _ = perform("links", _name_parts(LinkPairs(at, buckets) for at in numbers), {**keys, **edges})
    best = {name: linked[name] for name in match_names(linked, ["*.best.parquet"])}
    links = {name: file for name, file in linked.items() if name not in best}
    for number in count():
        moved = 0
        for size in ("large", "small"):
            steps = _name_parts(MoveLinks(at, buckets, size == "large") for at in numbers)
            links, counts = perform(f"{size}_star_{number}", steps, links)
            moved += counts["links_moved"].kept
        if not moved:
            break
    labels, _ = perform("labels", _name_parts(LabelContents(at, buckets) for at in numbers), {**keys, **best, **links})
    return labels


def settle_claims(
    rule: RankedRule, stage: int, buckets: int, files: Mapping[str, Reference], perform: Perform[Reference]
) -> dict[str, Reference]:
    """What a ranked rule comes to, `<rule>.told.parquet`: rounds until nothing waits.

    Args:
        rule: The rule.
        stage: The number of its stage.
        buckets: Ranges of groups and of contents.
        files: Its claims and pairs.
        perform: See Perform.
    """
    numbers = range(buckets)
    ranks, _ = perform(f"ranks_{stage}", _name_parts(RankGroups(at, buckets, rule) for at in numbers), files)
    steps = _name_parts(MatchPairs(at, buckets, rule) for at in numbers)
    ends, _ = perform(f"matched_{stage}", steps, {**files, **ranks})
    steps = _name_parts(LinkGroups(at, buckets, rule.kind) for at in numbers)
    links, counts = perform(f"linked_{stage}", steps, {**ranks, **ends})
    told = dict[str, Reference]()
    for number in count():
        waiting = counts["links_waiting"].kept
        if number and not waiting:
            break
        parts = min(max(-(-waiting // LINKS), 1), 1 << BUCKET_BITS)
        steps = _name_parts(SettleGroups(at, parts, rule.kind) for at in range(parts))
        links, counts = perform(f"round_{number}_{stage}", steps, links)
        told |= {name: links[name] for name in match_names(links, ["*.told.parquet"])}
    return told


def _name_parts(steps: Iterable[Step]) -> dict[str, Step]:
    return {f"{number:05d}": step for number, step in enumerate(steps)}


def perform_here(folder: Path) -> Perform[Path]:
    """Runs steps in this process, one after the other, and leaves their files below a folder."""

    def perform(name: str, steps: Mapping[str, Step], files: Mapping[str, Path]) -> tuple[dict[str, Path], Counts]:
        made, counts = dict[str, Path](), Counts()
        for part, step in steps.items():
            target = folder / name / part
            target.mkdir(parents=True)
            for level, line in step.run({at: files[at] for at in match_names(files, step.reads)}, target).items():
                counts[level].add(line) if level in counts else counts.update({level: line})
            made |= {f"{name}/{part}/{path.name}": path for path in sorted(target.iterdir())}
        return made, counts

    return perform
