"""What filters could not decide, and when a person is told to look."""

from __future__ import annotations

import json

from vlmill.pipeline.core.step import Count
from vlmill.pipeline.engine.chain import write_manifest
from vlmill.pipeline.engine.store import Receipt
from vlmill.pipeline.reports.undecided import count_undecided


def run_of(root, doubts, settings=None):
    """A run whose language filter looked at 1,000 nodes of web and left so many undecided in each of 2 partitions."""
    recipe = {
        "name": "x",
        "sources": {"web": {"kind": "obelics", "files": "*"}, "later": {"kind": "obelics", "files": "*"}},
    }
    (root / "recipe.lock.yaml").write_text(json.dumps({**recipe, "filters": [{"language": settings}]}))
    (root / "steps/web/language").mkdir(parents=True)
    counts = {"filtered": Count(500, 500).to_json(), "undecided": Count(doubts, doubts).to_json()}
    write_manifest(
        root, "steps/web/language", [Receipt("0" * 64, partition, (), counts, {}) for partition in ("0", "1")]
    )


def test_doubts_over_the_cap_are_pointed_out_with_the_setting_that_settles_them(tmp_path):
    run_of(tmp_path, 6)
    (found,) = count_undecided(tmp_path)
    assert (found.source, found.filter, found.nodes, found.undecided, found.over) == ("web", "language", 1000, 12, True)
    assert "1.20%), more than 1%" in str(found)
    assert "--set filters.language.in_doubt=drop" in str(found)


def test_doubts_that_are_dropped_are_not_told_to_be_dropped(tmp_path):
    run_of(tmp_path, 6, {"in_doubt": "drop"})
    (found,) = count_undecided(tmp_path)
    assert "they are dropped; look at some" in str(found)
    assert "keep them with --set filters.language.in_doubt=keep" in str(found)


def test_fewer_are_told_without_advice_and_none_not_at_all(tmp_path):
    run_of(tmp_path, 5)
    (found,) = count_undecided(tmp_path)
    assert str(found) == "language could not decide 10 of 1,000 nodes of web (1.00%)"
    run_of_none = tmp_path / "none"
    run_of_none.mkdir()
    run_of(run_of_none, 0)
    assert list(count_undecided(run_of_none)) == []
