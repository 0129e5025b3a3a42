"""The page of findings: each file, ablation and test that it names is there, and each ablation that ships is on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
NAMED = ("Idefics2", "Idefics2-chatty", "Idefics3", "LLaVA-1.5", "LLaVA-NeXT", "LLaVA-OneVision", "Prismatic", "Mantis")
NAMED += ("Moondream", "MobileVLM", "OBELICS", "The Cauldron", "LRV-Instruction", "FeatUp", "RoPE-Tie", "Fuyu")
NAMED += ("OCR data", "Chinese filtered", "staged training", "learned pooling", "AnyRes", "strong language model")


def list_rows(heading):
    """The cells of the table below a heading, without its head."""
    (table,) = re.findall(rf"^## {heading}\n.*?(^\|.*?)(?=\n\n|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


SYSTEMS = {row[0]: row[1:] for row in list_rows("Systems and findings")}


@pytest.mark.parametrize("name", NAMED)
def test_every_system_and_finding_has_a_row(name):
    assert [row for row in SYSTEMS if name in row]


@pytest.mark.parametrize("row", SYSTEMS)
def test_what_stands_for_it_and_its_test_are_there(row):
    here, tests = SYSTEMS[row]
    for path in re.findall(r"`([\w./-]+/[\w./-]*)`", here):
        assert (ROOT / path).exists(), path
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
    for file, function in named:
        assert f"\ndef {function}(" in (ROOT / file).read_text(encoding="utf-8"), function
    assert named


def test_every_ablation_that_ships_is_listed_and_no_other():
    shipped = {path.stem for path in (ROOT / "recipes/ablations").glob("*.yaml")}
    assert {row[0].strip("`") for row in list_rows("Ablations")} == shipped
