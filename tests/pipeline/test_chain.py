"""Chains: steps bring their own behaviour, and the chain knows none of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.engine.chain import Chain, ChainPass, ChainRunner, ChainStep, read_counts, write_manifest
from vlmill.pipeline.engine.store import File, Receipt
from vlmill.pipeline.inputs.files import InputFile


@dataclass(frozen=True)
class Copy:
    """Writes one file from another, with a mark behind it."""

    of: str
    to: str
    mark: str = ""

    name: ClassVar[str] = "copy"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def made_by(self) -> Mapping[str, str]:
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        (folder / self.to).write_text(inputs[self.of].read_text() + self.mark)
        return {"copied": Count(1, 1)}


@dataclass(frozen=True)
class Once(ChainStep):
    """Asks for a new start until it has had one."""

    done: bool = False

    def changes_earlier_files(self, chain_pass: ChainPass) -> bool:
        assert [folder for folder, _ in chain_pass.receipts][-1] == self.folder
        return not self.done

    def started_anew(self) -> Once:
        return replace(self, done=True)


def chain(root: Path, *steps: ChainStep, input_file: InputFile | None = None) -> Chain:
    (root / "text").write_text("hello")
    input_files = (input_file,) if input_file else ()
    return Chain("00000-0000", steps, input_files, (File("text", "text", hash_file(root / "text"), 5),))


def test_each_step_sees_what_those_before_it_left(tmp_path):
    steps = ChainStep("steps/a", Copy("text", "one", "!")), ChainStep("steps/b", Copy("one", "two", "?"))
    receipts = ChainRunner(tmp_path)(chain(tmp_path, *steps))
    assert [folder for folder, _ in receipts] == ["steps/a", "steps/b"]
    assert (tmp_path / receipts[-1][1].files[0].path).read_text() == "hello!?"
    assert ChainRunner(tmp_path)(chain(tmp_path, *steps)) == receipts


def test_a_step_that_changed_earlier_files_has_the_chain_start_anew(tmp_path):
    steps = Once("steps/a", Copy("text", "one")), ChainStep("steps/b", Copy("one", "two"))
    receipts = ChainRunner(tmp_path)(chain(tmp_path, *steps))
    assert [folder for folder, _ in receipts] == ["steps/a", "steps/b"], "receipts of the pass before do not count"


def test_a_missing_file_of_the_first_step_is_made_again_and_of_no_other(tmp_path):
    text = tmp_path / "input.txt"
    text.write_text("hello")
    made = ChainStep("steps/a", Copy("text", "one", "!")), ChainStep("steps/b", Copy("one", "two"))
    whole = chain(tmp_path, *made, input_file=InputFile("web", 0, "input.txt", str(text)))
    first, second = ChainRunner(tmp_path)(whole)
    longer = replace(whole, steps=(*made, ChainStep("steps/c", Copy("one", "three"))))
    (tmp_path / first[1].files[0].path).unlink()
    assert ChainRunner(tmp_path)(longer)[0] == first
    assert (tmp_path / first[1].files[0].path).read_text() == "hello!"
    (tmp_path / second[1].files[0].path).unlink()
    last = replace(whole, steps=(*made, ChainStep("steps/d", Copy("two", "four"))))
    with pytest.raises(StoreError, match="is missing; see what else"):
        ChainRunner(tmp_path)(last)


@pytest.mark.parametrize("indent", [None, 1])
def test_the_counts_of_a_manifest_are_read_however_it_is_laid_out(tmp_path, indent):
    counts = {"rows": Count(came=3, kept=2).to_json()}
    receipts = [Receipt("k", f"{number}", (), counts, {}) for number in range(2)]
    (tmp_path / "steps").mkdir()
    write_manifest(tmp_path, "steps", receipts)
    path = tmp_path / "steps" / "manifest.json"
    if indent:
        path.write_text(json.dumps(json.loads(path.read_bytes()), indent=indent))
    assert read_counts(path) == json.loads(path.read_bytes())["counts"]


def test_the_counts_of_a_damaged_manifest_are_an_error(tmp_path):
    (tmp_path / "manifest.json").write_text('{"counts": ')
    with pytest.raises(StoreError, match="is damaged"):
        read_counts(tmp_path / "manifest.json")
