"""Checkpoints that are written while the loop goes on: the same bytes, one at a time, and never half a one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.killing import KILLED, POINTS
from vlmill.pipeline.core.errors import StoreError
from vlmill.train import checkpoint, checkpoint_writer
from vlmill.train.checkpoint import collect_state, list_complete, restore_checkpoint, write_state
from vlmill.train.checkpoint_writer import CheckpointWriter
from vlmill.train.digests import check_file, read_digests
from vlmill.train.distributed import ProcessGroup

IDENTITY = {"recipe": "one"}
ALONE = ProcessGroup()


@pytest.fixture
def training():
    """A model and its optimizer after a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    take_step(model, optimizer)
    return model, optimizer


def take_step(model, optimizer) -> None:
    model(torch.randn(4, 8)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def open_writer(folder: Path, keep_last: int = 2) -> CheckpointWriter:
    return CheckpointWriter(folder, IDENTITY, ALONE, keep_last)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def held(monkeypatch):
    """Writing waits until this is set."""
    event, write = threading.Event(), checkpoint.write_state

    def wait(*arguments):
        assert event.wait(20)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write_state", wait)
    yield event
    event.set()


def test_a_checkpoint_in_the_background_has_the_bytes_of_one_that_is_waited_for(tmp_path, training):
    write_state(tmp_path / "waited", 3, collect_state(*training), IDENTITY, ALONE)
    with open_writer(tmp_path / "background") as writer:
        writer.save(3, *training)
    files = read_files(tmp_path / "background/00000003")
    assert len(files) == 4
    assert files == read_files(tmp_path / "waited/00000003")


def test_the_loop_goes_on_and_what_it_changes_is_not_in_the_checkpoint(tmp_path, training, held):
    write_state(tmp_path / "waited", 3, collect_state(*training), IDENTITY, ALONE)
    with open_writer(tmp_path / "background") as writer:
        writer.save(3, *training)
        take_step(*training)
        assert list_complete(tmp_path / "background") == []
        held.set()
    assert read_files(tmp_path / "background/00000003") == read_files(tmp_path / "waited/00000003")


def test_one_is_written_at_a_time_in_order_and_old_ones_are_removed(tmp_path, training, held):
    threading.Timer(0.2, held.set).start()
    with open_writer(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.save(step, *training)
            assert [path.name for path in list_complete(tmp_path)] == [
                f"{n:08d}" for n in range(max(1, step - 2), step)
            ]
    assert [path.name for path in list_complete(tmp_path)] == ["00000002", "00000003"]


def test_an_error_of_the_writer_reaches_the_loop_once(tmp_path, training, monkeypatch):
    monkeypatch.setattr(checkpoint, "commit_folder", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with open_writer(tmp_path) as writer:
        writer.save(1, *training)
        writer._thread.join()
        with pytest.raises(StoreError, match="00000001 cannot be written .*no room"):
            writer.check()
        writer.check()
    writer = open_writer(tmp_path)
    writer.save(1, *training)
    with pytest.raises(StoreError, match="no room"):
        writer.save(2, *training)
    with pytest.raises(StoreError, match="no room"), open_writer(tmp_path) as writer:
        writer.save(1, *training)


def test_after_an_error_of_the_loop_the_checkpoint_is_completed(tmp_path, training, held):
    def stop():
        with open_writer(tmp_path) as writer:
            writer.save(1, *training)
            threading.Timer(0.1, held.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert len(list_complete(tmp_path)) == 1


def test_without_memory_for_a_copy_the_loop_waits(tmp_path, training, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "measure_free_memory", lambda: 1000)
    with open_writer(tmp_path) as writer:
        writer.save(1, *training)
        assert len(list_complete(tmp_path)) == 1


def save_and_die(folder: Path, training, point: int) -> bool:
    """Write a checkpoint in a process that dies before its commit point of that number; says whether it came there."""
    process = os.fork()
    if process == 0:
        left = [point]

        def make_deadly(original):
            def call(*arguments, **named):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(KILLED)
                return original(*arguments, **named)

            return call

        for name in POINTS:
            setattr(os, name, make_deadly(getattr(os, name)))
        with open_writer(folder) as writer:
            writer.save(2, *training)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert ended in (0, KILLED)
    return ended == KILLED


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_kill_at_any_moment_leaves_the_checkpoint_before(tmp_path, training):
    model, optimizer = training
    found, point = [], 0
    while not found or found[-1] < 2:
        folder = tmp_path / str(point)
        with open_writer(folder) as writer:
            writer.save(1, *training)
        expected = {name: value.clone() for name, value in model.state_dict().items()}
        killed = save_and_die(folder, training, point)
        newest = list_complete(folder)[-1]
        for name in read_digests(newest):
            check_file(newest, name, read_digests(newest))
        found.append(restore_checkpoint(newest, model, optimizer, IDENTITY, ALONE))
        assert all(torch.equal(expected[name], value) for name, value in model.state_dict().items())
        checkpoint.remove_partial(folder)
        assert not list(folder.glob(".partial*"))
        assert killed or found[-1] == 2
        point += 1
    assert found[:-1] == [1] * (len(found) - 1)
    assert len(found) > 6
