"""Resolve in blocks and buckets: the same bytes as in one task, whatever the pieces."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import log2

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pipeline.test_dedupe import document, drafts, page, quiz, run, web
from tests.pipeline.test_dedupe_text import prose
from vlmill.pipeline.dedupe import stars
from vlmill.pipeline.dedupe.components import find_components
from vlmill.pipeline.dedupe.exchange import read_range, write_sorted
from vlmill.pipeline.dedupe.pieces import connect_contents, cut_blocks, perform_here, resolve_blocks


def resolve_too(most):
    """What compares the verdicts, the overlap and the counts of one task with those of blocks of `most` samples."""

    def compare(step, inputs, folder, counts):
        sizes = {at: pl.read_parquet(inputs[f"{at}/samples.parquet"]).height for at in step.partitions}
        blocks = cut_blocks(sizes, step.priority, most)
        assert sorted(at for block in blocks for at in block) == sorted(step.partitions)
        shares = sum(name.endswith("/text.pairs.parquet") for name in inputs)
        totals = []

        def perform(name, steps, files):
            made, found = here(name, steps, files)
            totals.append(found)
            return made, found

        here = perform_here(folder.parent / "pieces")
        found = resolve_blocks(replace(step, partitions=()), blocks, shares, inputs, perform)
        whole = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert {name: path.read_bytes() for name, path in found.items()} == whole
        assert {level: line.to_json() for level, line in totals[-1].items()} == {
            level: line.to_json() for level, line in counts.items()
        }

    return compare


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(drafts, st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_blocks_and_buckets_give_the_bytes_of_one_task(made, cuts, most, seed):
    items = [draft(row) for row, draft in enumerate(made)]
    knobs = {"boilerplate": 2, "across_documents": bool(seed % 2), "near_images": seed % 3 == 0}
    knobs |= {"paragraphs": 2 if seed % 5 else None, "same_addresses": seed % 4 == 0}
    knobs |= {"host_images": 0.3 if seed % 2 else None, "containment": 0.7 if seed % 3 else None}
    captioned = ("scans",) if seed % 2 else ()
    pairs = "image" if captioned else "image_and_text"
    run(items, cuts=cuts, also=resolve_too(most), captioned=captioned, pairs=pairs, priority={"web": seed % 3}, **knobs)


RICH = [
    *(web(row, prose(60, row), "About us", "@p1", "@p2", "@p2", host="a.example") for row in range(4)),
    *(web(row, prose(60, row), "Follow us", "@p1", f"@p{row}") for row in range(4, 8)),
    *(web(row, prose(60, row % 2), "@half2", f"@bright{row}") for row in range(8, 12)),
    *(web(row, prose(60, row), "@p9", host="c.example") for row in range(14, 17)),
    document(12, prose(200, 1)),
    document(13, " ".join(prose(200, 1).split()[:150])),
    *(quiz(row, "p3", ("What?", "This."), ("Who?", "That.")) for row in range(3)),
    quiz(3, "p3", ("What?", "This."), ("Why?", "So.")),
    *(page(row, name, "a text", source="scans") for row, name in enumerate(["p4", "jpeg4", "p4", "p5"])),
]
KNOBS = {"boilerplate": 3, "paragraphs": 3, "host_images": 0.5, "containment": 0.6}


@pytest.mark.parametrize(
    "knobs",
    [
        {**KNOBS, "across_documents": True, "near_images": True},
        {**KNOBS, "same_addresses": True, "captioned": ("scans",), "pairs": "image"},
    ],
)
def test_every_rule_says_the_same_in_pieces(knobs):
    found = run(RICH, cuts=2, also=resolve_too(3), **knobs)
    reasons = {str(verdict.reason) for verdict in found.values()}
    assert {"boilerplate_image", "repeated_paragraph", "near_text", "contained_text"} <= reasons
    assert {"exact_image", "near_image", "host_image"} <= reasons


# -- components --------------------------------------------------------------------------------------------------------

KEYS = pl.Schema({"key": pl.UInt64, "to": pl.UInt64, "compared": pl.Boolean})
PAIRS = pl.Schema({"one": pl.UInt64, "other": pl.UInt64, "similarity": pl.Float64})


def connect(keys, pairs, folder, buckets=1, shares=1):
    """{key: (label, best)} by rounds over buckets, and how many large-star rounds these were."""
    files = {}
    for kind in stars.KINDS:
        table = pl.DataFrame([(key, 0, True) for key in keys], KEYS, orient="row")
        write_sorted(folder / f"{kind}.keys.parquet", table)
        files[f"left/00000/{kind}.keys.parquet"] = folder / f"{kind}.keys.parquet"
        for share in range(shares):
            first, last = stars.split_range(share, shares, stars.BUCKET_BITS)
            mine = [pair for pair in pairs if first <= pair[0] <= last]
            path = folder / f"{share:05d}.{kind}.pairs.parquet"
            write_sorted(path, pl.DataFrame(mine, PAIRS, orient="row"))
            files[f"{share:05d}/{kind}.pairs.parquet"] = path
    perform, rounds = perform_here(folder / "steps"), []

    def noting(name, steps, files):
        rounds.append(name)
        return perform(name, steps, files)

    labels = connect_contents({"text": 0.8, "image": 0.8}, shares, buckets, files, noting)
    table = pl.concat([pl.read_parquet(path) for name, path in labels.items() if name.endswith("text.labels.parquet")])
    found = {key: (label, best) for key, label, best in table.select("key", "label", "best").iter_rows()}
    return found, sum("large" in name for name in rounds)


def spread(number):
    """A key of a small number, anywhere among all keys."""
    return number * 0x9E3779B97F4A7C15 % 2**64


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25), st.sampled_from([0.7, 0.8, 0.95])), max_size=40),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_rounds_find_the_components_of_union_find(tmp_path_factory, drawn, buckets, shares):
    """Of pairs among 26 contents of which every fifth is not left."""
    keys = [spread(number) for number in range(26) if number % 5]
    pairs = {tuple(sorted((spread(one), spread(other)))): near for one, other, near in drawn if one != other}
    pairs = [(*ends, near) for ends, near in pairs.items()]
    found, _ = connect(keys, pairs, tmp_path_factory.mktemp("rounds"), buckets, shares)
    left = np.unique(np.array(keys, np.uint64))
    good = [pair for pair in pairs if pair[2] >= 0.8 and {pair[0], pair[1]} <= set(keys)]
    ends = np.array([pair[:2] for pair in good], np.uint64).reshape(-1, 2)
    labels = find_components(left, ends[:, 0], ends[:, 1])
    best = {key: max((near for *ends, near in good if key in ends), default=None) for key in keys}
    assert found == {key: (label, best[key]) for key, label in zip(left.tolist(), labels.tolist(), strict=True)}


@pytest.mark.parametrize("shape", ["chain", "ring", "star", "two halves of a chain"])
@pytest.mark.parametrize("mixed", [True, False])
def test_rounds_are_bounded_by_the_logarithm(tmp_path, shape, mixed):
    """Chains of contents in order of their keys and in no order."""
    size = 512
    keys = [spread(number) for number in range(1, size + 1)]
    keys = keys if mixed else sorted(keys)
    links = list(pairwise(keys))
    if shape == "ring":
        links.append((keys[-1], keys[0]))
    if shape == "star":
        links = [(keys[size // 2], key) for key in keys if key != keys[size // 2]]
    if shape == "two halves of a chain":
        del links[size // 2]
    found, rounds = connect(keys, [(min(ends), max(ends), 0.9) for ends in links], tmp_path, buckets=2)
    assert len({label for label, _ in found.values()}) == 1 + (shape == "two halves of a chain")
    assert rounds <= log2(size) + 2


def test_a_range_is_read_from_every_file_whatever_their_order(tmp_path):
    for number in range(3):
        table = pl.DataFrame({"key": [number, 2**64 - 1 - number, 7]}, {"key": pl.UInt64})
        write_sorted(tmp_path / f"{number}.parquet", table)
    paths = sorted(tmp_path.iterdir())
    assert read_range(paths, 2, 7)["key"].to_list() == [7, 7, 2, 7]
    assert read_range(paths, 2**63, 2**64 - 1)["key"].to_list() == [2**64 - 1, 2**64 - 2, 2**64 - 3]


def test_blocks_hold_whole_partitions_in_the_order_of_preference():
    sizes = {
        "web/00000-0000": 4,
        "web/00000-0001": 4,
        "web/00001-0000": 20,
        "scans/00010-0000": 1,
        "scans/00009-0000": 1,
    }
    assert cut_blocks(sizes, {"scans": 1}, 8) == (
        ("web/00000-0000", "web/00000-0001"),
        ("web/00001-0000",),
        ("scans/00009-0000", "scans/00010-0000"),
    )
