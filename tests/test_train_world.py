"""Several ranks train the model that one does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from tests.stages import MACHINE, article, model_settings, question, write_run
from train.run import train_stage
from train.settings import Training
from train.world import World

TRAINING = Training(
    learning_rate={"text": 3e-3, "vision": 3e-3, "projector": 3e-3}, rows=4, steps=3, loss="text", evaluate=0
)


def train(root: Path):
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


def test_two_ranks_have_the_losses_of_one_even_where_one_sees_no_image(tmp_path):
    only_text = [((node,), []) for nodes, _ in map(article, range(40)) for node in nodes if node.kind == "text"]
    made = {"some": [*only_text[:6], *map(question, range(30))]}
    roots = [write_run(tmp_path / name, made, length=60) for name in ("one", "two")]
    ranks_of_steps = [
        [tiles_of(roots[0], range(first, first + 2)) for first in (step * 4, step * 4 + 2)]
        for step in range(TRAINING.steps)
    ]
    assert any(min(ranks) == 0 < max(ranks) for ranks in ranks_of_steps)
    alone = train(roots[0])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    code = "import sys; from pathlib import Path; from tests.test_train_world import train; train(Path(sys.argv[1]))"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(roots[1])],
            env={**world, "RANK": str(rank)},
            cwd=Path(__file__).parents[1],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            _, trouble = rank.communicate(timeout=200)
            assert rank.returncode == 0, trouble
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    found = [json.loads(line) for line in (roots[1] / "train" / "align" / "log.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in alone.log.read_text().splitlines()]
    for one, other in zip(found, expected, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert (one["tokens"], one["supervised"], one["tiles"]) == (
            other["tokens"],
            other["supervised"],
            other["tiles"],
        )
        assert {name: source["supervised"] for name, source in one["sources"].items()} == {
            name: source["supervised"] for name, source in other["sources"].items()
        }
