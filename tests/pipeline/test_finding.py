"""What is done already is found by the driver, and only what is left is given to workers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from vlmill.pipeline.core.step import Count
from vlmill.pipeline.engine import executor
from vlmill.pipeline.engine.chain import Chain, ChainRunner, ChainStep, read_manifest
from vlmill.pipeline.engine.executor import Inline
from vlmill.pipeline.engine.finding import ReceiptFinder, run_unfinished


@dataclass(frozen=True)
class Write:
    """Writes its text."""

    text: str
    name: ClassVar[str] = "write"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ()

    def made_by(self):
        return {}

    def run(self, inputs, folder):
        (folder / "text.txt").write_text(self.text)
        return {"things": Count(1, 1)}


def make_chains(*texts):
    return [Chain(f"{place:05d}", (ChainStep("steps/write", Write(text)),)) for place, text in enumerate(texts)]


class Counting(Inline):
    """Says what it was given."""

    def __init__(self):
        self.given = []

    def each(self, function, items, memory=0, waiting=None):
        self.given += [item.partition for item in items]
        return super().each(function, items, memory)


def run(root, chains):
    """The partitions that workers were given, after the manifest was written."""
    executor, finder, found = Counting(), ReceiptFinder(root), {}
    for _, (receipts, _) in run_unfinished(finder, executor, chains):
        found |= {(receipt.partition, receipt.key): receipt for _, receipt in receipts}
    finder.write_manifest("steps/write", found)
    return executor.given


@pytest.fixture
def done(tmp_path):
    assert run(tmp_path, make_chains("a", "b", "c")) == ["00000", "00001", "00002"]
    return tmp_path


def test_what_is_done_is_given_to_nobody_and_its_manifest_stays_as_it_is(done):
    path = done / "steps/write/manifest.json"
    before = path.stat()
    assert run(done, make_chains("a", "b", "c")) == []
    assert path.stat().st_ino == before.st_ino
    assert [receipt.partition for receipt in read_manifest(done, "steps/write")] == ["00000", "00001", "00002"]


def test_what_has_no_receipt_any_more_or_another_key_is_done_whatever_the_manifest_says(done):
    next((done / "steps/write").glob("00001.*.receipt.json")).unlink()
    assert run(done, make_chains("a", "b", "changed", "new")) == ["00001", "00002", "00003"]
    files = [receipt.files[0] for receipt in read_manifest(done, "steps/write")]
    assert [(done / file.path).read_text() for file in files] == ["a", "b", "changed", "new"]


def test_what_was_done_since_the_manifest_is_found_and_a_damaged_manifest_is_written_anew(done):
    (late,) = make_chains("a", "b", "c", "d")[3:]
    ChainRunner(done)(late)
    (done / "steps/write/manifest.json").write_text("{")
    assert run(done, make_chains("a", "b", "c", "d")) == []
    assert len(json.loads((done / "steps/write/manifest.json").read_text())["receipts"]) == 4


def test_a_build_with_nothing_to_do_starts_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(executor, "_open_ray", lambda *_, **__: pytest.fail("Ray was started"))
    with executor.open_executor(2, None) as pool:
        assert list(run_unfinished(ReceiptFinder(tmp_path), pool, [])) == []
        ChainRunner(tmp_path)(make_chains("a")[0])
        assert len(list(run_unfinished(ReceiptFinder(tmp_path), pool, make_chains("a")))) == 1
