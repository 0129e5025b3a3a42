"""Full disks, and places that take no files: which place is named, and by which option another one is given."""

from __future__ import annotations

import errno
import io
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.small import vlmill
from tests.pipeline.test_store import Fill, shout
from vlmill.pipeline.cli.refused import explain_lack_of_memory, explain_place, note_options
from vlmill.pipeline.core.confined import FileRefused, read_bounded
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import explain_full_disk, explain_refused_write, find_full_disk
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.engine import ray_cluster
from vlmill.pipeline.engine.store import Store
from vlmill.pipeline.inputs import files as inputs
from vlmill.pipeline.inputs.ranges import explain_storage
from vlmill.pipeline.sources.files import Files

WORDS = "write failed: No space left on device (os error 28)"


@pytest.fixture
def fill(monkeypatch, tmp_path):
    """Fills the disk of a folder."""
    full = set[Path]()

    def measure(place):
        return SimpleNamespace(free=100 if full & {Path(place), *Path(place).parents} else 1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", measure)

    def fill_disk(name):
        (tmp_path / name).mkdir(exist_ok=True)
        full.add(tmp_path / name)
        return tmp_path / name

    return fill_disk


def test_the_full_disk_of_several_is_named(fill, tmp_path):
    scratch, error = fill("scratch"), OSError(errno.ENOSPC, "no space")
    assert find_full_disk([tmp_path, RunPath("s3://bucket/run"), scratch / "of" / "task"]) == scratch / "of" / "task"
    assert find_full_disk([tmp_path]) is None
    assert explain_full_disk(error, tmp_path / "run", [scratch]).startswith(f"{scratch} cannot be written: no space")
    assert explain_full_disk(error, tmp_path / "run").startswith(f"{tmp_path / 'run'} cannot be written: no space")
    assert explain_full_disk(error).startswith("a file of this command cannot be written")


def test_a_step_that_has_filled_the_scratch_names_it_and_not_the_run(fill, tmp_path, monkeypatch, run):
    monkeypatch.setattr("tempfile.tempdir", str(fill("scratch")))
    task = replace(shout(run), step=Fill(words=WORDS))
    with pytest.raises(StoreError, match=rf"^{tmp_path}/scratch\S* cannot be written: no space is left") as told:
        Store(run).perform(task)
    assert explain_full_disk(told.value) == str(told.value), "what was said is not said anew without the place"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))  # what filled it is gone
    with pytest.raises(StoreError, match="^/.* cannot be written: no space is left"):
        Store(run).perform(task)


@pytest.fixture(params=["folder", "s3"])
def run(request, tmp_path):
    return RunPath(f"{request.getfixturevalue('s3')}/run") if request.param == "s3" else tmp_path / "run"


def test_a_command_names_what_it_was_to_write_on_a_full_disk(fill, tmp_path, monkeypatch):
    place, full = fill("full") / "there", OSError(errno.ENOSPC, "No space left on device")  # as a write raises it
    note_options({"directory": tmp_path / "run", "to": "parquet", "out": place})
    assert explain_place(full).startswith(f"{place} cannot be written: no space is left")
    note_options({"directory": tmp_path / "run"})
    monkeypatch.setenv("HF_HOME", str(place))
    assert explain_place(full).startswith(f"{place} cannot be written: no space is left")
    monkeypatch.delenv("HF_HOME")
    assert explain_place(full).startswith("a file of this command cannot be written")


def test_a_ray_that_cannot_begin_for_lack_of_room_says_where(fill, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(fill("scratch")))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)

    def refuse(**_):
        raise RuntimeError("Timed out waiting for file gcs_server_port")

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(StoreError, match=rf"{tmp_path}/scratch/ray: Ray, .* no space is left .*--workers 0"):
        ray_cluster._join_ray(None, {})
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(RuntimeError, match="Timed out"):
        ray_cluster._join_ray(None, {})


def test_where_one_may_not_write_the_owner_is_named(tmp_path):
    said = explain_refused_write(PermissionError(errno.EACCES, "no", str(tmp_path / "a" / "b")))
    owner, mode = tmp_path.stat().st_uid, f"{tmp_path.stat().st_mode & 0o7777:o}"
    assert said.endswith(f"you may not ({tmp_path} belongs to user {owner}, mode {mode}; you are {owner})")


@pytest.mark.parametrize(
    ("given", "refused", "advice"),
    [
        ({"recipe": "a.yaml", "out": Path("of/run")}, "of/run/.lock", "--out"),
        ({"recipe": "a.yaml", "out": None}, "build", "--out"),
        ({"directory": Path("of/run"), "out": None}, "of/run/.lock", ""),
        ({"directory": Path("of/run"), "html": Path("page.html")}, "page.html", "--html"),
        ({"directory": Path("of/run"), "html": Path("page.html")}, "of/run/logs", ""),
    ],
)
def test_the_option_that_names_another_place_is_named_where_there_is_one(given, refused, advice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note_options(given)
    said = explain_place(PermissionError(errno.EACCES, "no", str(tmp_path / refused)))
    assert said.endswith(f"; name another place with {advice}" if advice else ")")
    assert explain_place(PermissionError("no file")) == ""


@pytest.mark.parametrize("options", [(), ("--out", "of/run")])
def test_a_build_that_may_not_write_says_who_may_and_how_to_name_another_place(options, tmp_path, monkeypatch, capsys):
    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "no", str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert vlmill("build", "quickstart", *options) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"cannot be made or opened: you may not ({tmp_path} belongs to user" in said
    assert said.endswith("; name another place with --out")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nIf reserved"), "CUDA out of memory. Tried"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 4 bytes"), "DefaultCPUAllocator"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_command_that_lacks_memory_says_so_in_a_line_and_a_training_what_needs_less(error, told, monkeypatch, capsys):
    note_options({"directory": Path("run"), "recompute": False})
    said = explain_lack_of_memory(error)
    assert said.startswith("out of memory (")
    assert told in said
    assert "; --recompute keeps less of a step" in said
    assert "\n" not in said
    assert explain_lack_of_memory(RuntimeError("no idea")) == ""

    def lack(*_, **__):
        raise error

    monkeypatch.setattr("vlmill.pipeline.cli.app", lack)
    note_options({})
    assert vlmill("status", "run") == 1
    assert "this command needs more than its process may have" in " ".join(capsys.readouterr().err.split())


def test_no_file_of_pictures_is_at_fault_where_memory_is_lacking(monkeypatch, tmp_path):
    def lack(*_):
        raise MemoryError

    (tmp_path / "a.png").write_bytes(b"a")
    monkeypatch.setattr("vlmill.pipeline.sources.files.read_bounded", lack)
    with pytest.raises(MemoryError):
        Files(str(tmp_path)).load("a.png")
    with pytest.raises(MemoryError), explain_storage("s3://bucket/a"):
        lack()


def test_a_small_file_takes_no_memory_for_a_large_one(tmp_path):
    asked = []

    def read(size):
        asked.append(size)
        return b"x" if len(asked) == 1 else b""

    assert read_bounded(SimpleNamespace(read=read), 1 << 28) == b"x"
    assert max(asked) < 1 << 24
    assert read_bounded(io.BytesIO(bytes(3)), 3) == bytes(3)
    with pytest.raises(FileRefused, match="more than 2 bytes"):
        read_bounded(io.BytesIO(bytes(3)), 2)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError(WORDS)])
def test_a_copy_of_an_input_file_that_finds_no_room_names_where_it_was_to_lie(error, tmp_path, monkeypatch):
    def get_file(*_):
        raise error

    remote = SimpleNamespace(protocol="s3", get_file=get_file)
    monkeypatch.setattr(inputs, "find_filesystem", lambda url: (remote, url))
    monkeypatch.setattr(inputs, "keep_copy", lambda _, name, copy: copy(tmp_path / name))
    with (
        pytest.raises(StoreError, match=rf"^{tmp_path}/a.json cannot be written: no space is left"),
        inputs.open_local(inputs.InputFile("web", 0, "a.json", "s3://bucket/a.json")),
    ):
        pass
