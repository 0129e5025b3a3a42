"""The store contract, line by line."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.killing import killed_at
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import explain_full_disk, write_atomically
from vlmill.pipeline.core.keys import canonicalise_value, hash_file, to_json
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.step import RUNTIME, Count, Counts, Inputs, match_names
from vlmill.pipeline.engine.store import File, Receipt, Store, Task, select_files, total_counts


@dataclass(frozen=True)
class Shout:
    """A pure step: writes its input in capitals, and a second file."""

    name: ClassVar[str] = "shout"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    mark: str = "!"
    threads: int = field(default=1, metadata=RUNTIME)
    library: str = field(default="1.0", metadata=RUNTIME)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def made_by(self) -> Mapping[str, str]:
        return {"library": self.library}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        text = inputs["text"].read_text()
        (folder / "loud.txt").write_text(text.upper() + self.mark)
        (folder / "size.json").write_text(str(len(text)))
        return {"letters": Count(len(text), len(text))}


@dataclass(frozen=True)
class Ask:
    """An impure step: answers with whatever stands in a file outside its inputs."""

    name: ClassVar[str] = "ask"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = False

    world: str = field(default="", metadata=RUNTIME)

    @property
    def reads(self) -> tuple[str, ...]:
        return ("text",)

    def made_by(self) -> Mapping[str, str]:
        return {}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        (folder / "answer.txt").write_text(Path(self.world).read_text())
        return {}


def given_text(root: Path, text: str = "hello") -> dict[str, File]:
    root.mkdir(parents=True, exist_ok=True)
    (root / "text").write_text(text)
    return {"text": File("text", "text", hash_file(root / "text"), len(text))}


def shout(root: Path, **changes: object) -> Task:
    return Task("steps/web/shout", "00000-0000", Shout(**changes), given_text(root))


def visible(root: Path) -> dict[str, str]:
    """Everything a reader can see: path -> sha256, without leftovers of the dead."""
    return {
        str(p.relative_to(root)): hash_file(p)
        for p in sorted(root.glob("steps/**/*"))
        if p.is_file() and ".tmp-" not in str(p)
    }


def test_a_task_is_done_once_and_then_only_read(root):
    first = Store(root).perform(shout(root))
    loud = root / next(file.path for file in first.files if file.name == "loud.txt")
    assert loud.read_text() == "HELLO!"
    loud.chmod(0o444)
    assert Store(root).perform(shout(root)) == first
    assert first.counts == {"letters": {"in": 5, "kept": 5, "dropped": {}, "failed": {}}}
    assert all(file.sha256 == hash_file(root / file.path) for file in first.files)


def test_another_parameter_is_another_partition_and_the_first_one_stays(root):
    store = Store(root)
    first, second = store.perform(shout(root)), store.perform(shout(root, mark="?"))
    assert first.key != second.key
    assert store.find(shout(root)) == first
    assert not {file.path for file in first.files} & {file.path for file in second.files}


def test_what_only_runs_a_step_is_not_in_its_key(root):
    assert shout(root, threads=1).key() == shout(root, threads=8).key()
    assert shout(root).key() != replace(shout(root), inputs=given_text(root, "other")).key()


def test_nobody_sees_a_partition_before_its_receipt(root):
    """Killed at any commit point, the task is either done or to be done; done again, the bytes are the same."""
    whole = root / "whole"
    Store(whole).perform(shout(whole))
    wanted, point = visible(whole), 0
    while True:
        killed = root / f"killed-{point}"
        task = shout(killed)
        died = killed_at(point, Store(killed).perform, task)
        seen = Store(killed).find(task)
        if seen is not None:
            assert all(hash_file(killed / file.path) == file.sha256 for file in seen.files)
        Store(killed).perform(task)
        assert visible(killed) == wanted
        if not died:
            break
        point += 1
    assert point > 5


def test_the_dead_leave_nothing_after_a_sweep(tmp_path):
    for point in range(8):
        killed_at(point, Store(tmp_path).perform, shout(tmp_path))
    with Store(tmp_path).locked():
        Store(tmp_path).sweep()
    Store(tmp_path).perform(shout(tmp_path))
    assert not list(tmp_path.glob("**/.tmp-*"))


def test_an_impure_task_is_never_done_again(root, tmp_path):
    world = tmp_path / "world"
    world.write_text("one")
    task = Task("steps/web/ask", "00000-0000", Ask(str(world)), given_text(root))
    first = Store(root).perform(task)
    world.write_text("two")
    assert Store(root).perform(task) == first
    assert (root / first.files[0].path).read_text() == "one"
    assert first.files[0].sha256[:12] in first.files[0].path


def test_of_two_writers_of_an_impure_task_the_second_adopts_the_first(root, tmp_path):
    world = tmp_path / "world"
    world.write_text("one")
    task = Task("steps/web/ask", "00000-0000", Ask(str(world)), given_text(root))

    class Slow(Store):
        def _check_made_by(self, task: Task) -> None:
            super()._check_made_by(task)
            if not started:  # while this one works, another process comes first
                started.append(True)
                world.write_text("other")
                winners.append(Store(self.root).perform(task))
                world.write_text("late")

    started, winners = [], []
    late = Slow(root).perform(task)
    assert late == winners[0]
    assert [(root / file.path).read_text() for file in late.files] == ["other"]
    assert len(list((root / "steps/web/ask").glob("*.answer.txt"))) == 1


def test_a_partition_of_other_versions_is_not_added_to_a_step(root):
    store = Store(root)
    store.perform(shout(root))
    assert store.perform(shout(root, library="2.0")), "what is done is not compared"
    with pytest.raises(StoreError, match=r"library 1\.0 -> 2\.0.*--rebuild"):
        store.perform(replace(shout(root, library="2.0"), partition="00000-0001"))


def test_damaged_versions_of_a_step_are_named(root):
    Store(root).perform(shout(root))
    (root / "steps/web/shout/made_by.json").write_text("{")
    with pytest.raises(StoreError, match=r"made_by\.json is damaged .*delete it and build again"):
        Store(root).perform(replace(shout(root), partition="00000-0001"))


def test_books_that_do_not_balance_are_refused(root):
    @dataclass(frozen=True)
    class Losing(Shout):
        def run(self, inputs: Inputs, folder: Path) -> Counts:
            return {"letters": Count(5, 4)}

    with pytest.raises(StoreError, match="do not balance.*letters"):
        Store(root).perform(Task("steps/web/shout", "00000-0000", Losing(), given_text(root)))
    assert not list(root.glob("**/*.receipt.json"))


def test_a_second_build_in_the_same_folder_is_refused(root):
    with (
        Store(root).locked(),
        pytest.raises(StoreError, match="another build .*is at work"),
        Store(root).locked(),
    ):
        pass
    with Store(root).locked():
        pass


def test_a_damaged_receipt_is_named(root):
    Store(root).perform(shout(root))
    receipt = next(root.glob("**/*.receipt.json"))
    receipt.write_text("{")
    with pytest.raises(StoreError, match="is no receipt"):
        Store(root).find(shout(root))


@dataclass(frozen=True)
class Fill(Shout):
    """A step whose library finds the disk full, and says so in its own words."""

    words: str = ""

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        if self.words:
            raise RuntimeError(self.words)
        (folder / "large").write_bytes(bytes(2 << 20))
        return {}


def raise_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["flush_path", "hash_file", "write_atomically"])
def test_a_full_disk_at_a_commit_is_an_error_that_names_the_place_and_the_cure(tmp_path, monkeypatch, place):
    task = shout(tmp_path)
    with monkeypatch.context() as patch:
        if place == "write_atomically":
            patch.setattr("vlmill.pipeline.core.files.os.fsync", raise_full)
        else:
            patch.setattr(f"vlmill.pipeline.engine.store.{place}", raise_full)
        with pytest.raises(
            StoreError, match=r"(steps/web/shout|made_by\.json) cannot be written: no space.*make room and run"
        ):
            Store(tmp_path).perform(task)
    assert Store(tmp_path).perform(task).counts == {"letters": {"in": 5, "kept": 5, "dropped": {}, "failed": {}}}
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_full_disk_is_known_by_the_words_of_a_library_too(tmp_path):
    task = replace(shout(tmp_path), step=Fill(words="write failed: No space left on device (os error 28)"))
    with pytest.raises(StoreError, match="no space is left"):
        Store(tmp_path).perform(task)
    with pytest.raises(RuntimeError, match="write failed: no idea"):
        Store(tmp_path).perform(replace(task, step=Fill(words="write failed: no idea")))


@dataclass(frozen=True)
class Choke(Shout):
    """A step that fails whatever it is given."""

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        raise ValueError("a library's words")


def test_a_step_that_fails_over_a_damaged_file_is_an_error_that_names_the_file(tmp_path):
    task = replace(shout(tmp_path), step=Choke())
    with pytest.raises(ValueError, match="a library's words"):  # the file is sound, so the step is at fault
        Store(tmp_path).perform(task)
    (tmp_path / "text").write_text("hellp")
    with pytest.raises(StoreError, match=r"text is damaged.*a library's words.*vlmill verify"):
        Store(tmp_path).perform(task)


def test_written_only_if_absent(tmp_path):
    assert write_atomically(tmp_path / "a", {"n": 1}, only_if_absent=True)
    assert not write_atomically(tmp_path / "a", {"n": 2}, only_if_absent=True)
    assert json.loads((tmp_path / "a").read_text()) == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_step_is_given_what_it_reads_by_name_or_pattern():
    files = {name: File(name, name, "", 0) for name in ("00.tar", "01.tar", "00.index.parquet", "image_stats.parquet")}
    assert list(select_files(files, ("*.tar", "image_stats.parquet", "missing"))) == [
        "00.tar",
        "01.tar",
        "image_stats.parquet",
    ]


FILE_NAMES = st.lists(st.text("ab*.[", max_size=4), max_size=6)


@given(FILE_NAMES.map(set), FILE_NAMES)
def test_names_match_as_each_pattern_does(names, wanted):
    each = sorted(name for name in names if any(name == want or fnmatchcase(name, want) for want in wanted))
    assert match_names(names, wanted) == each


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_canonical_json_does_not_depend_on_the_order_of_names(value):
    def turned(item):
        if isinstance(item, dict):
            return {name: turned(item[name]) for name in reversed(list(item))}
        return [turned(i) for i in item] if isinstance(item, list) else item

    assert to_json(value) == to_json(turned(value))
    assert json.loads(to_json(value)) == canonicalise_value(value)


@pytest.mark.parametrize("value", [{1, 2}, Path("x"), float("nan"), object(), {1: 2}, b"x"])
def test_a_value_without_a_stable_form_is_refused(value):
    with pytest.raises(StoreError, match="cannot be part of a key"):
        to_json({"value": value})


@given(st.lists(st.tuples(st.sampled_from([None, *Reason]), st.integers(0, 9))))
def test_books_survive_json_and_add_up(moves):
    count = Count()
    for reason, number in moves:
        if reason:
            count.lose(reason, number)
        else:
            count.keep(number)
    assert count.balanced()
    line = count.to_json()
    assert line["in"] == line["kept"] + sum(line["dropped"].values()) + sum(line["failed"].values())
    twice = total_counts([Receipt("k", "p", (), {"level": line}, {})] * 2)
    assert twice["level"].came == 2 * count.came
    assert twice["level"].to_json()["kept"] == 2 * line["kept"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_array_that_a_full_disk_takes_no_more_of_says_so():
    with pytest.raises(OSError, match="requested and") as failed, Path("/dev/full").open("wb", buffering=0) as file:
        np.ones(1 << 20).tofile(file)
    assert "no space is left on its disk" in explain_full_disk(failed.value)
    assert not explain_full_disk(OSError("3 were requested and 2 written by others"))
