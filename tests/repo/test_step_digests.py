"""A step whose code changed says so in its version: else a build takes its earlier output for that of the new code."""

from __future__ import annotations

import pytest

from tests.helpers.step_digests import COMMAND, PACKAGES, Code, read_record
from vlmill.pipeline.filters import FILTERS
from vlmill.pipeline.images import POLICIES
from vlmill.pipeline.signals import SIGNALS
from vlmill.pipeline.sources import SOURCES

RECORDED, FOUND = read_record(), Code().list_entries()


@pytest.mark.parametrize("name", sorted({*RECORDED, *FOUND}))
def test_the_code_of_a_step_is_what_was_recorded_under_its_version(name):
    before, now = RECORDED.get(name), FOUND.get(name)
    assert before is not None, f"{name} is new; record it with: {COMMAND}"
    assert now is not None, f"{name} is gone; record that with: {COMMAND}"
    assert before.version == now.version, (
        f"{name}: version {before.version} -> {now.version}; record it with: {COMMAND}"
    )
    assert before.sha256 == now.sha256, (
        f"the code that decides the bytes of {name} changed under version {now.version}. If the same inputs can "
        "give other bytes, raise the version (of a source: those of Read and Survey). In either case record the "
        f"code with: {COMMAND}"
    )


def test_every_filter_policy_and_source_has_an_entry():
    for table in (FILTERS, POLICIES, SIGNALS, SOURCES):
        for kind in table.values():
            assert f"{kind.__module__}:{kind.__name__}" in FOUND


STEP = '''"""A step."""
from dataclasses import dataclass
from typing import ClassVar
from vlmill.pipeline.core.tools import double

LIMIT = 3


@dataclass(frozen=True)
class Step:
    """Doubles."""

    version: ClassVar[int] = 1

    def run(self, number):
        """Do it."""
        return _bounded(double(number))


def _bounded(number):
    return min(number, LIMIT)


def other():
    return 1
'''
TOOLS = "def double(number):\n    return 2 * number\n\n\ndef halve(number):\n    return number / 2\n"


def entry(root, step=STEP, tools=TOOLS):
    for package in PACKAGES:
        (root / package).mkdir(exist_ok=True)
    (root / "pipeline/core").mkdir(exist_ok=True)
    (root / "pipeline/step.py").write_text(step)
    (root / "pipeline/core/tools.py").write_text(tools)
    return Code(root).list_entries()["vlmill.pipeline.step:Step"]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("step", "LIMIT = 3", "LIMIT = 4"),
        ("step", "min(number", "max(number"),
        ("step", "double(number))", "double(number + 1))"),
        ("tools", "2 * number", "3 * number"),
    ],
)
def test_what_a_step_reaches_counts(tmp_path, file, old, new):
    texts = {"step": STEP, "tools": TOOLS}
    assert old in texts[file]
    after = entry(tmp_path, **texts | {file: texts[file].replace(old, new)})
    assert after.version == "1"
    assert after.sha256 != entry(tmp_path).sha256


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("step", "Do it.", "Do it well."),
        ("step", "LIMIT = 3", "LIMIT = (  # a bound\n    3\n)"),
        ("step", "return 1", "return 2"),
        ("tools", "number / 2", "number // 2"),
    ],
)
def test_comments_docstrings_formatting_and_what_a_step_does_not_reach_do_not(tmp_path, file, old, new):
    texts = {"step": STEP, "tools": TOOLS}
    assert old in texts[file]
    assert entry(tmp_path, **texts | {file: texts[file].replace(old, new)}) == entry(tmp_path)


def test_a_raised_version_is_seen_and_leaves_the_digest(tmp_path):
    before, after = entry(tmp_path), entry(tmp_path, STEP.replace("int] = 1", "int] = 2"))
    assert (before.version, after.version) == ("1", "2")
    assert before.sha256 == after.sha256
