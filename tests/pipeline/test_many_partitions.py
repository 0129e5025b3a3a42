"""A build with nothing to do takes work in proportion to its partitions, and no more."""

from __future__ import annotations

import sys
from itertools import pairwise

import yaml

from tests.helpers.small import prose, vlmill
from tests.helpers.upstream import obelics

SIZES = (8, 16, 32)


def write_recipe(folder, documents):
    """Web documents of a paragraph, each a partition of its own."""
    folder.mkdir()
    obelics(folder / "web.parquet", [[prose(number)] for number in range(documents)])
    recipe = {
        "name": "many",
        "sources": {"web": {"kind": "obelics", "files": "web.parquet"}},
        "partition": {"rows": 1},
        "policies": {"small": {"kind": "letterbox", "side": 56, "patch": 14}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def count_calls(*arguments):
    """How many functions a command calls in this thread."""
    calls = [0]

    def note(_frame, event, _argument):
        calls[0] += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        assert vlmill(*arguments) == 0
    finally:
        sys.setprofile(None)
    return calls[0]


def test_a_build_with_nothing_to_do_calls_as_many_functions_more_for_each_partition_more(tmp_path):
    counts = []
    for size in SIZES:
        command = ("build", write_recipe(tmp_path / str(size), size), "--out", tmp_path / f"out-{size}", "--workers", 0)
        assert vlmill(*command) == 0
        assert vlmill(*command) == 0  # what a first build leaves to a second is done
        counts.append(count_calls(*command))
    less, more = (later - earlier for earlier, later in pairwise(counts))
    assert more < 2.05 * less, counts
