"""Trouble with the machine while a stage trains: what is said, what is kept, and how it goes on."""

from __future__ import annotations

import io
import os
import pickle
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event, SessionLog

from tests.helpers.stages import (
    MACHINE,
    model_settings,
    question,
    same,
    saved_weights,
    write_run,
)
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.keys import hash_file
from vlmill.train import checkpoint
from vlmill.train.digests import write_digests
from vlmill.train.log import Log
from vlmill.train.run import train_stage
from vlmill.train.settings import Machine, Training

RATES = {"text": 3e-3, "vision": 3e-3, "projector": 3e-3}


def train(root, stage="align", machine=MACHINE, **changes):
    settings = {"steps": 6, "sequences": 2, "learning_rate": RATES, "checkpoint_every": 2, "keep_last": 3}
    return train_stage(
        root, stage, parse_block(Training, settings, "train"), model_settings(), machine=machine, **changes
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one stage, trained to its end."""
    root = write_run(tmp_path_factory.mktemp("run"), {"quiz": [question(number) for number in range(40)]}, length=96)
    return root, train(root)


def interrupted(trained, tmp_path):
    """A copy of the run whose training stopped after step 4: where it lies, and its newest checkpoint."""
    root = shutil.copytree(trained[0], tmp_path / "run")
    folder = root / "train/align"
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints/00000006")
    return root, folder / "checkpoints/00000004"


@contextmanager
def small_files():
    """Lets no file grow beyond 64 KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata", "state.json"])
def test_a_damaged_checkpoint_is_named_and_without_it_the_one_before_goes_on(trained, tmp_path, file):
    root, newest = interrupted(trained, tmp_path)
    cut(newest / file)
    said = rf"{newest} cannot be read \(.*delete it: the training then goes on from {newest.parent}/00000002$"
    with pytest.raises(StoreError, match=f"(?s){said}"):
        train(root)
    shutil.rmtree(newest)
    assert same(saved_weights(train(root).checkpoint), saved_weights(trained[1].checkpoint))


class Touches:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def put_in(checkpoint, kind, value):
    """Have a checkpoint hold `value` in the place of its first item of a kind."""
    metadata = pickle.loads((checkpoint / ".metadata").read_bytes())
    name = next(name for name, item in metadata.state_dict_metadata.items() if type(item).__name__ == kind)
    place = next(place for index, place in metadata.storage_data.items() if index.fqn == name)
    held = io.BytesIO()
    torch.save(value, held)
    with (checkpoint / place.relative_path).open("ab") as file:
        place.offset, place.length = file.tell(), len(held.getvalue())
        file.write(held.getvalue())
    (checkpoint / ".metadata").write_bytes(pickle.dumps(metadata))


def test_a_checkpoint_of_somebody_else_runs_nothing_and_the_file_is_named(trained, tmp_path):
    root, newest = interrupted(trained, tmp_path)
    whole = shutil.copytree(newest, tmp_path / "whole")
    for file, kind, said in (
        (".metadata", None, r"\.metadata is not read: it names posix\.system, which no checkpoint of ours does"),
        ("__0_0.distcp", "BytesStorageMetadata", r"__0_0\.distcp is not read: it holds more than weights"),
        ("__0_0.distcp", "TensorStorageMetadata", r"__0_0\.distcp is not read: it holds more than weights"),
    ):
        shutil.rmtree(newest)
        shutil.copytree(whole, newest)
        if kind is None:
            (newest / file).write_bytes(pickle.dumps(Touches(tmp_path / "ran")))
        else:
            put_in(newest, kind, Touches(tmp_path / "ran"))
        write_digests(newest, {name: hash_file(newest / name) for name in (".metadata", "__0_0.distcp")})
        with pytest.raises(StoreError, match=said):
            train(root)
        assert not (tmp_path / "ran").exists(), file


def test_a_full_disk_ends_the_training_and_what_it_had_stays(trained, tmp_path):
    root, newest = interrupted(trained, tmp_path)
    said = rf"(?s)00000006 cannot be written \(.*it goes on from {newest}$"
    with small_files(), pytest.raises(StoreError, match=said):
        train(root)
    assert checkpoint.list_complete(newest.parent)[-1] == newest
    result = train(root)
    assert same(saved_weights(result.checkpoint), saved_weights(trained[1].checkpoint))
    assert len(result.log.read_text().splitlines()) == 6


def test_a_full_disk_under_a_checkpoint_is_said_in_words(trained, tmp_path, monkeypatch):
    root, newest = interrupted(trained, tmp_path)
    monkeypatch.setattr("vlmill.pipeline.core.files.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    said = r"00000006 cannot be written \(no space is left on its disk\)\. Free"
    with small_files(), pytest.raises(StoreError, match=said):
        train(root)
    assert checkpoint.list_complete(newest.parent)[-1] == newest


@pytest.mark.parametrize(("kept", "begins", "again"), [(2, 5, 2), (0, 1, 6)])
def test_steps_that_were_taken_behind_the_last_checkpoint_are_said_to_be_taken_again(
    trained, tmp_path, kept, begins, again
):
    root, newest = interrupted(trained, tmp_path)
    for one in checkpoint.list_complete(newest.parent)[kept:]:
        shutil.rmtree(one)
    console = Console(record=True, force_terminal=False, width=200, file=io.StringIO())
    train(root, console=console)
    line = f"align: taking step {begins} of 6; {again} steps behind the last checkpoint are taken again"
    assert line in console.export_text()


@pytest.mark.timeout(60)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_board_on_a_full_disk_ends_the_steps_and_keeps_none_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr("tensorboardX.record_writer.open_file", lambda _: Path("/dev/full").open("wb"))  # noqa: SIM115 - the board closes it
    line = {"tokens": 1, "tiles": 1, "flops": 1.0, "loss": 1.0}

    def write_steps():
        with Log(tmp_path / "log.jsonl", "align", 0, 100, Console(quiet=True)) as log:
            for step in range(100):
                log.write({**line, "step": step}, 1.0, 0.0)

    with pytest.raises(StoreError, match=r"log\.jsonl cannot be written: no space is left on its disk"):
        write_steps()


def test_a_board_holds_the_numbers_of_each_step_and_voids_what_was_behind_where_it_began(tmp_path):
    with Log(tmp_path / "log.jsonl", "align", 3, 5, Console(quiet=True)) as log:
        for step in (3, 4):
            log.write({"tokens": 8, "tiles": 1, "flops": 1.0, "loss": step / 2, "step": step}, 2.0, 0.5)
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, events = file.read_bytes(), []
    while data:  # a length, its checksum, an event, its checksum
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    found = {(one.step, value.tag): value.simple_value for one in events for value in one.summary.value}
    assert (found[3, "loss"], found[4, "loss"], found[4, "tokens_per_second"], found[4, "waited"]) == (1.5, 2, 4, 0.25)
    assert [one.step for one in events if one.session_log.status == SessionLog.START] == [3]


def test_a_log_that_cannot_be_closed_ends_its_board_all_the_same(tmp_path):
    ended = []
    log = Log(tmp_path / "log.jsonl", "align", 0, 1, Console(quiet=True))

    def full():
        raise OSError("no room")

    def leave():
        with log:
            log.file.close()
            board = log.board
            log.file, log.board = (
                SimpleNamespace(close=full),
                SimpleNamespace(close=lambda: ended.append(board.close())),
            )

    with pytest.raises(OSError, match="no room"):
        leave()
    assert len(ended) == 1


def test_damaged_weights_of_a_stage_are_made_again_from_its_checkpoint(trained, tmp_path):
    root = shutil.copytree(trained[0], tmp_path / "run")
    last = root / "train/align/checkpoints/00000006"
    write_run(root, {"more": [question(number) for number in range(40)]}, stage="tune", length=96)
    sound = (last / "model.safetensors").read_bytes()
    cut(last / "model.safetensors")
    with pytest.raises(StoreError, match=rf"{last}/model.safetensors cannot be read: .*{root}/train/align/result.json"):
        train(root, "tune", start_from=last)
    (root / "train/align/result.json").unlink()
    train(root)
    assert (last / "model.safetensors").read_bytes() == sound


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), cut])
@pytest.mark.parametrize("file", ["mixtures/align/plan/00000.parquet", "shards/quiz/anyres/00.index.parquet"])
def test_a_table_that_is_missing_or_cut_short_is_named(trained, tmp_path, file, damage):
    root = shutil.copytree(trained[0], tmp_path / "run", ignore=shutil.ignore_patterns("train"))
    damage(root / file)
    with pytest.raises(StoreError, match=rf"{root / file} is missing or damaged \(.*vlmill verify"):
        train(root)


@pytest.mark.parametrize(
    ("device", "said"), [("gpu", "allowed: auto, cpu, cuda"), ("cuda:99", r"torch \S+ sees \d+ GPUs here")]
)
def test_a_device_that_is_not_here_is_refused(trained, tmp_path, device, said):
    root = shutil.copytree(trained[0], tmp_path / "run", ignore=shutil.ignore_patterns("train"))
    with pytest.raises(RecipeError, match=f"--device {device}: .*{said}"):
        train(root, machine=Machine(device=device))
