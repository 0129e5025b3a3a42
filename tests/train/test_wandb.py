"""The log of a training in Weights & Biases: kept on disk, and read back."""

import importlib
import json
import sys

import pytest

from vlmill.pipeline.core.errors import VlmillError
from vlmill.train.wandb_run import WandbRun

wandb = pytest.importorskip("wandb")  # comes with img2dataset; no extra of ours
Record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield tmp_path / "demo" / "train" / "tune"
    wandb.teardown()  # the process that W&B starts


BLOCK = 1 << 15


def read_records(data):
    """The records of a file of W&B: LevelDB's log format behind 7 bytes of its own."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:  # a trailer of zeros
            place += BLOCK - place % BLOCK
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in {1, 4}:  # whole, or the last part
            yield Record.FromString(record)
            record = b""


def read_history(folder):
    """What W&B holds of its runs below a folder: id, name, and the rows of each."""
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        records = list(read_records(path.read_bytes()))
        (run,) = (record.run for record in records if record.HasField("run"))
        rows = (record.history.item for record in records if record.HasField("history"))
        found = [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row} for row in rows]
        yield run.run_id, run.display_name, found


def test_steps_of_a_stage_are_rows_of_one_run_that_goes_on_after_an_interruption(offline):
    offline.mkdir(parents=True)
    for first in (0, 2):
        run = WandbRun.open("mixtures", offline, {"steps": 4})
        for step in (first, first + 1):
            run.write({"loss": 3.0 - step, "step": step})
        run.close(failed=first == 0)
    wandb.teardown()  # which writes out
    (one, name, rows), (other, _, later) = read_history(offline)
    assert (one, name) == (other, "demo-tune")
    found = [(row["step"], row["loss"]) for row in [*rows, *later]]
    assert found == [(0, 3.0), (1, 2.0), (2, 1.0), (3, 0.0)]


def test_without_the_package_the_error_names_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(VlmillError, match="--wandb: the package wandb is not installed; run: pip install wandb"):
        WandbRun.open("mixtures", tmp_path, {})
