"""Ranked rules, documents in longer ones and close vectors: in blocks, buckets and rounds they say what one task says.

Runs are made of what `signature`, the filters and `pairs` would leave: any contents, linked in any way.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Verdict, read_verdicts, write_verdicts
from vlmill.pipeline.dedupe import Dedupe, pieces
from vlmill.pipeline.dedupe.candidates import BUCKET_BITS, split_range
from vlmill.pipeline.dedupe.contained import find_contained, rank_texts
from vlmill.pipeline.dedupe.pairs import PAIRS
from vlmill.pipeline.dedupe.pieces import cut_blocks, perform_here, resolve_blocks
from vlmill.pipeline.dedupe.ranked import hold_groups
from vlmill.pipeline.dedupe.semantic import Semantic
from vlmill.pipeline.dedupe.semantic_drops import find_copies, rank_things
from vlmill.pipeline.dedupe.signature import OUTLINE

TEXTS, IMAGES = 9, 7
SEMANTIC = Semantic(of="looks", min=0.95)


def spread(number, kind):
    """The key of a content."""
    return (4 * number + ("text", "image").index(kind) + 1) * 0x9E3779B97F4A7C15 % 2**64


@dataclass(frozen=True)
class Row:
    """A sample: a document or a page with a text and images, by their numbers; `filtered` took it as a whole."""

    source: str
    unit: str
    text: int
    images: tuple[int, ...]
    filtered: bool = False


def write_partition(folder, source, file, rows, sizes):
    """Its outline and the verdicts of the filter `taste`; `sizes` are the shingles of texts."""
    folder.mkdir(parents=True)
    node = {"kind": "text", "role": "none", "turn": 0, "required": False, "lines": []}
    table = []
    for number, row in enumerate(rows):
        shown = [
            {**node, "kind": "image", "key": spread(image, "image"), "required": row.unit == "page"}
            for image in row.images
        ]
        table.append({
            "source": source, "file": file, "row": number, "page": -1, "unit": row.unit, "host": None,
            "text": spread(row.text, "text"), "long": True, "shingles": sizes[row.text], "words": 5,
            "nodes": [{**node, "key": spread(row.text, "text")}, *shown],
        })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(table, schema=OUTLINE), folder / "outline.parquet")
    gone = [Verdict(number, WHOLE_SAMPLE, "taste", Reason.LANGUAGE) for number, row in enumerate(rows) if row.filtered]
    write_verdicts(folder / "taste.verdicts.parquet", gone)


def write_pairs(path, pairs, kind):
    """{(number, number): similarity} of contents as the step `pairs` leaves them."""
    found = sorted((*sorted((spread(one, kind), spread(other, kind))), near) for (one, other), near in pairs.items())
    table = pl.DataFrame(found, {"one": pl.UInt64, "other": pl.UInt64, "similarity": pl.Float64}, orient="row")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.to_arrow().cast(PAIRS), path)


def write_run(root, rows, sizes, pairs, *, cuts=2, shares=1, thing="image"):
    """Partitions of `cuts` samples, the files of all by name, and the samples of each partition."""
    partitions = {}
    for source in sorted({row.source for row in rows}):
        mine = [row for row in rows if row.source == source]
        for number, start in enumerate(range(0, len(mine), cuts)):
            name = f"{source}/{number:05d}-0000"
            partitions[name] = mine[start : start + cuts]
            write_partition(root / name, source, f"{number:05d}.parquet", partitions[name], sizes)
    kinds = {"text": "text", "image": "image", "contained": "text", "semantic": thing}
    for kind, of in kinds.items():
        for share in range(shares):
            span = (0, share) if kind == "semantic" else split_range(share, shares, BUCKET_BITS)
            mine = {
                ends: near
                for ends, near in pairs.get(kind, {}).items()
                if (
                    sum(ends) % shares == share
                    if kind == "semantic"
                    else span[0] <= min(spread(end, of) for end in ends) <= span[1]
                )
            }
            write_pairs(root / f"{share:05d}" / f"{kind}.pairs.parquet", mine, of)
    files = {str(path.relative_to(root)): path for path in root.rglob("*.parquet")}
    return partitions, files


@dataclass
class Noted:
    """A step that notes what it counts."""

    step: object
    counts: dict[str, int]

    @property
    def reads(self):
        return self.step.reads

    def run(self, inputs, folder):
        found = self.step.run(inputs, folder)
        self.counts |= {level: line.kept for level, line in found.items()}
        return found


def resolve_both(rows, sizes, pairs, *, cuts=2, most=4, shares=1, thing="image", priority=None, **knobs):
    """The verdicts of one task as {(partition, sample, node): verdict}; in pieces they are the same to the byte.

    Also what each task of the pieces counts, as {(step, part): {level: number}}.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root, tasks = Path(temporary), {}
        partitions, files = write_run(root / "in", rows, sizes, pairs, cuts=cuts, shares=shares, thing=thing)
        settings = {"text": 0.8, "boilerplate": 99, "containment": 0.6, "semantic": SEMANTIC, **knobs}
        step = Dedupe(**settings).resolve(tuple(partitions), priority or {}, ("taste",), (), thing)
        (root / "whole").mkdir()
        step.run(files, root / "whole")
        blocks = cut_blocks({name: len(found) for name, found in partitions.items()}, step.priority, most)
        here = perform_here(root / "pieces")

        def perform(name, steps, given):
            noted = {part: Noted(each, tasks.setdefault((name, part), {})) for part, each in steps.items()}
            return here(name, noted, given)

        found = resolve_blocks(step, blocks, shares, files, perform)
        whole = {path.name: path.read_bytes() for path in (root / "whole").iterdir()}
        assert {name: path.read_bytes() for name, path in found.items()} == whole
        verdicts = {}
        for name in partitions:
            path = root / "whole" / f"{name.replace('/', '.')}.dedupe.verdicts.parquet"
            verdicts |= {(name, verdict.sample, verdict.node): verdict for verdict in read_verdicts(path)}
        return verdicts, tasks


def link(count, likeness):
    """{(one, other): likeness} among so many contents, of any."""
    ends = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] < pair[1])
    return st.dictionaries(ends, st.sampled_from(likeness), max_size=2 * count)


ROWS = st.lists(
    st.builds(
        Row,
        st.sampled_from("abc"),
        st.sampled_from(["document", "document", "page"]),
        st.integers(0, TEXTS - 1),
        st.lists(st.integers(0, IMAGES - 1), max_size=3).map(tuple),
        st.integers(0, 9).map(lambda number: number == 0),
    ),
    min_size=1,
    max_size=24,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    ROWS,
    st.lists(st.integers(8, 11), min_size=TEXTS, max_size=TEXTS),
    st.fixed_dictionaries({
        "text": link(TEXTS, [0.7, 0.85]),
        "image": link(IMAGES, [0.7, 0.99]),
        "contained": link(TEXTS, [0.5, 0.7, 0.9]),
        "semantic": link(IMAGES, [0.93, 0.95, 0.98]),
    }),
    st.sampled_from([(True, True), (True, False), (False, True)]),
    st.sampled_from(["image", "text"]),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(1, 9)),
    st.dictionaries(st.sampled_from("abc"), st.integers(-1, 1)),
)  # fmt: skip
def test_blocks_buckets_and_rounds_give_the_bytes_of_one_task(rows, sizes, pairs, kinds, thing, cut, priority):
    cuts, most, shares, links = cut
    knobs = {} if kinds[0] else {"containment": None}
    knobs |= {} if kinds[1] else {"semantic": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LINKS", links)
        patch.setattr(pieces, "BLOCKS_PER_BUCKET", 1)
        resolve_both(rows, sizes, pairs, cuts=cuts, most=most, shares=shares, thing=thing, priority=priority, **knobs)


def test_no_task_decides_on_what_all_hold():
    """Of a run in which documents stand in others, and pictures are close, all over."""
    rng, number = np.random.default_rng(5), 80
    rows = [Row("web", "document", at, (at,)) for at in range(number)]
    ends = [tuple(sorted(pair)) for pair in rng.integers(0, number, (2 * number, 2)).tolist() if pair[0] != pair[1]]
    pairs = {"contained": dict.fromkeys(ends[:number], 0.9), "semantic": dict.fromkeys(ends[number:], 0.97)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LINKS", 40)
        verdicts, tasks = resolve_both(rows, rng.integers(50, 60, number).tolist(), pairs, cuts=4, shares=2)
    assert {str(verdict.reason) for verdict in verdicts.values()} == {"contained_text", "semantic_image"}
    held = {}
    for (name, _), counts in tasks.items():
        for level in ("claims_decided", "contents_ranked", "pairs_matched", "links_waiting"):
            held.setdefault((name, level), []).append(counts.get(level, 0))
    settled = {(name, level): found for (name, level), found in held.items() if sum(found) > 40}
    assert {"answers_0", "ranks_0", "matched_0", "linked_0", "round_0_0"} <= {name for name, _ in settled}
    assert all(max(found) < 0.5 * sum(found) for found in settled.values())


EDGES = st.dictionaries(
    st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda pair: pair[0] < pair[1]),
    st.sampled_from([0.9, 0.95, 1.0]),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=12, max_size=12), st.permutations(range(12)), EDGES, st.booleans())
def test_each_in_turn_stays_unless_one_that_stays_is_linked_to_it(weights, orders, edges, nearest):
    """And goes for the first of those, or for the most similar."""
    things = pl.DataFrame({"group": range(12), "order": orders}, {"group": pl.UInt64, "order": pl.UInt64})
    table = [(one, other, score) for (one, other), score in edges.items()]
    pairs = pl.DataFrame(table, {"one": pl.UInt64, "other": pl.UInt64, "similarity": pl.Float64}, orient="row")
    if nearest:
        weights, things = [0] * 12, things.with_columns(node=pl.lit(0, pl.Int32))
        found = find_copies(things, hold_groups(rank_things(things), pairs))
    else:
        texts = things.with_columns(text="group", shingles=pl.Series(weights, dtype=pl.Int32))
        found = find_contained(texts, hold_groups(rank_texts(texts), pairs))
    kept, gone = list[int](), {}
    for at in sorted(range(12), key=lambda at: (-weights[at], orders[at])):
        scores = {keeper: edges.get((keeper, at), edges.get((at, keeper), 0)) for keeper in kept}
        holders = [keeper for keeper in kept if scores[keeper]]
        if holders:
            keeper = max(holders, key=scores.__getitem__) if nearest else holders[0]
            gone[orders[at]] = orders[keeper], scores[keeper]
        else:
            kept.append(at)
    assert {row["order"]: (row["keeper"], row["score"]) for row in found.iter_rows(named=True)} == gone


def test_what_all_blocks_go_for_is_named_once_for_each_of_them():
    """Of 48 copies, in 12 blocks."""
    rows = [Row("web", "document", 0, ()) for _ in range(48)]
    verdicts, tasks = resolve_both(rows, [9] * TEXTS, {}, cuts=4)
    assert {verdict.other for verdict in verdicts.values()} == {"web/00000.parquet#0"}
    assert sum(counts["keepers_named"] for (name, _), counts in tasks.items() if name == "names") == 12


@pytest.mark.parametrize(("links", "fewest", "most"), [(5, 3, 30), (1 << 20, 1, 1)])
def test_of_a_chain_every_second_one_goes_however_many_links_a_task_takes(monkeypatch, links, fewest, most):
    """Each picture is close to the next alone, in the order of preference: what is said of one hangs on the last."""
    monkeypatch.setattr(pieces, "LINKS", links)
    rows = [Row("web", "page", at, (at,)) for at in range(30)]
    pairs = {"semantic": {(at, at + 1): 0.96 for at in range(29)}}
    verdicts, tasks = resolve_both(rows, [9] * 30, pairs, cuts=3, containment=None)
    assert sorted(int(name[4:9]) * 3 + sample for name, sample, _ in verdicts) == list(range(1, 30, 2))
    assert fewest <= len({name for name, _ in tasks if name.startswith("round_")}) <= most
