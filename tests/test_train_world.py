"""Several ranks train the model that one does."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.stages import MACHINE, article, model_settings, question, write_run
from tests.test_train_new_rows import settings as of_pretrained
from tests.test_train_new_rows import write_language_model
from train import loop
from train.run import train_stage
from train.settings import Adapter, Training
from train.world import World

TRAINING = Training(
    learning_rate={"text": 3e-3, "vision": 3e-3, "projector": 3e-3},
    rows=4,
    steps=3,
    loss="text",
    evaluate=0,
    checkpoint_every=1,
)
DEAD = 9
"""Exit status of a rank that was told to drop dead."""

SEEN = ("tokens", "supervised", "tiles")


def train(root: Path):
    """The stage; where a language model lies in the folder, adapters beside it."""
    if (path := root / "lm").exists():
        adapted = replace(TRAINING, adapter=Adapter(rank=4), loss="answers")
        return train_stage(root, "align", adapted, of_pretrained(path, "llava_next"), machine=MACHINE)
    return train_stage(root, "align", TRAINING, model_settings(), machine=MACHINE)


def test_a_world_of_one_changes_nothing():
    world = World()
    assert world.leads
    assert world.total(torch.tensor([2.0])).tolist() == [2.0]


def tiles_of(root: Path, rows: range) -> int:
    """How many tiles plan rows hold."""
    blocks = [
        pq.read_table(path)["tiles"].to_pylist() for path in sorted((root / "mixtures" / "align" / "plan").iterdir())
    ]
    tiles = [tiles for block in blocks for tiles in block]
    return sum(tiles[row] for row in rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run in which some rank's rows of a step show no image while another's do."""
    only_text = [((node,), []) for nodes, _ in map(article, range(40)) for node in nodes if node.kind == "text"]
    root = write_run(tmp_path_factory.mktemp("made"), {"some": [*only_text[:6], *map(question, range(30))]}, length=60)
    ranks_of_steps = [
        [tiles_of(root, range(first, first + 2)) for first in (step * 4, step * 4 + 2)]
        for step in range(TRAINING.steps)
    ]
    assert any(min(ranks) == 0 < max(ranks) for ranks in ranks_of_steps)
    return root


@pytest.fixture(scope="module")
def alone(made, tmp_path_factory):
    """What one rank makes of it."""
    return train(copy(made, tmp_path_factory.mktemp("alone")))


def copy(root: Path, folder: Path) -> Path:
    for path in root.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def train_on(ranks: int, root: Path, *, die_before: int | None = None) -> None:
    """Train with so many processes; with `die_before` all of them drop dead before that step."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    code = "import sys; from tests.test_train_world import child; child(*sys.argv[1:])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(root), str(die_before)],
            env={**world, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[1],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            _, trouble = process.communicate(timeout=200)
            assert process.returncode == (0 if die_before is None else DEAD), trouble
    finally:
        for process in processes:
            process.kill()
            process.wait()


def child(root: str, die_before: str) -> None:
    """One rank."""
    update = loop._step

    def step(*arguments):
        if str(arguments[3]) == die_before:
            os._exit(DEAD)
        return update(*arguments)

    loop._step = step
    train(Path(root))


def assert_same_course(root: Path, expected) -> None:
    """The same samples in the same steps, and their losses, whatever became of the ranks."""
    found = [json.loads(line) for line in (root / "train" / "align" / "log.jsonl").read_text().splitlines()]
    for one, other in zip(found, map(json.loads, expected.log.read_text().splitlines()), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)
        assert {name: one[name] for name in SEEN} == {name: other[name] for name in SEEN}
        assert {name: source["supervised"] for name, source in one["sources"].items()} == {
            name: source["supervised"] for name, source in other["sources"].items()
        }


def test_two_ranks_have_the_losses_of_one_even_where_one_sees_no_image(made, alone, tmp_path):
    root = copy(made, tmp_path)
    train_on(2, root)
    assert_same_course(root, alone)
    exported = AutoModelForImageTextToText.from_pretrained(root / "train" / "align" / "export").state_dict()
    for name, weights in AutoModelForImageTextToText.from_pretrained(alone.export).state_dict().items():
        torch.testing.assert_close(
            exported[name], weights, rtol=1e-3, atol=1e-4
        )  # Adam makes much of small differences


def test_a_training_that_died_goes_on_with_another_number_of_ranks(made, alone, tmp_path):
    root = copy(made, tmp_path)
    train_on(2, root, die_before=1)
    train_on(4, root, die_before=2)
    train_on(1, root)
    assert_same_course(root, alone)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_new_rows_beside_adapters_are_trained_on_two_ranks_as_on_one_and_read_back_by_one(tmp_path, tied):
    pytest.importorskip("peft")
    lm = write_language_model(tmp_path / "lm", tied=tied)
    roots = [tmp_path / name for name in ("alone", "shared")]
    for root in roots:
        root.mkdir()
        shutil.copy(lm / "tokenizer.json", root / "tokenizer.json")
        write_run(root, {"quiz": [question(number) for number in range(30)]}, length=60)
        shutil.copytree(lm, root / "lm")
    alone = train(roots[0])
    train_on(2, roots[1], die_before=2)
    train_on(1, roots[1])
    assert_same_course(roots[1], alone)
    exported = AutoModelForImageTextToText.from_pretrained(roots[1] / "train" / "align" / "export").state_dict()
    for name, weights in AutoModelForImageTextToText.from_pretrained(alone.export).state_dict().items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            torch.testing.assert_close(exported[name], weights, rtol=1e-3, atol=1e-4)
