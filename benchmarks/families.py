"""Every model family trained by one rank, by two, and by one again: `python -m benchmarks.families [NAME ...]`.

For each case of the suite's harness: 20 steps on shards of questions and documents by one rank; the same steps by two
ranks that share the model; and two ranks that die behind step 10, whose training one rank ends. Printed: the first and
the last loss, the largest relative difference of a step's loss from the first training's, for both, and whether the
export of the third can be loaded by transformers. Losses of ranks differ by the order in which numbers are added.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

from transformers import AutoModelForImageTextToText

from tests.helpers.ranks import DEAD, run_ranks
from tests.helpers.stages import MACHINE, article, question, write_run
from tests.train.test_connectors import CONNECTED
from tests.train.test_families import CASES, Case
from vlmill.pipeline.core.config import parse_block
from vlmill.train import deferred
from vlmill.train.run import train_stage
from vlmill.train.settings import ModelSettings, Training

STEPS, DIES = 20, 10
RATES = {"text": 3e-3, "vision": 3e-3, "projector": 3e-3}
ALL = {**CASES, **CONNECTED}


def train_case(root: str, model: str, dies: str = "") -> None:
    """One rank of a training; it drops dead as soon as the checkpoint of step `dies` is there."""
    deferred.LEAST = 64  # so that ranks compute their shares of these small models late
    if dies:
        folder = Path(root) / f"train/align/checkpoints/{int(dies):08d}"
        threading.Thread(target=die_behind, args=(folder,), daemon=True).start()
    settings = {"steps": STEPS, "sequences": 2, "ranks": 2, "learning_rate": RATES, "loss": "text"}
    training = parse_block(Training, settings | {"checkpoint_every": DIES, "evaluate": 0}, "train")
    train_stage(Path(root), "align", training, parse_block(ModelSettings, json.loads(model), "model"), machine=MACHINE)


def die_behind(folder: Path) -> None:
    """End this process once there is such a folder."""
    while not folder.exists():
        time.sleep(0.005)
    os._exit(DEAD)


def read_losses(root: Path) -> list[float]:
    """Of each step."""
    log = root / "train" / "align" / "log.jsonl"
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


def measure_case(case: Case, folder: Path) -> tuple[list[float], list[float], list[float], str]:
    """The losses of the three trainings, and the class that the last one's export loads as."""
    samples = {"quiz": [question(number) for number in range(30)], "web": [article(number) for number in range(12)]}
    roots = [folder / name for name in ("alone", "two", "died")]
    model = json.dumps(asdict(case.settings))
    for root in roots:
        root.mkdir()
        write_run(root, samples, case.policy, chat=case.chat, length=400, epochs=40, connector=case.connector)
    run_ranks(1, train_case, roots[0], model)
    run_ranks(2, train_case, roots[1], model)
    run_ranks(2, train_case, roots[2], model, DIES, status=DEAD)
    run_ranks(1, train_case, roots[2], model)
    export = AutoModelForImageTextToText.from_pretrained(roots[2] / "train/align/export", trust_remote_code=case.code)
    return (*(read_losses(root) for root in roots), type(export).__name__)


def compare_losses(found: list[float], expected: list[float]) -> float:
    """The largest relative difference of a step's loss."""
    return max(abs(one - other) / other for one, other in zip(found, expected, strict=True))


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(map(repr, ALL))}; by default all")
    names = parser.parse_args().names or [*ALL]
    if unknown := [name for name in names if name not in ALL]:
        parser.error(f"no case {unknown[0]!r}: one of {', '.join(map(repr, ALL))}")
    print(f"{'case':38} {'first':>7} {'last':>7} {'two ranks':>10} {'2, then 1':>10}  export", flush=True)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            alone, two, died, loaded = measure_case(ALL[name], Path(folder))
        differences = [compare_losses(one, alone) for one in (two, died)]
        figures = " ".join(f"{value:10.1e}" for value in differences)
        print(f"{name:38} {alone[0]:7.3f} {alone[-1]:7.3f} {figures}  {loaded}", flush=True)


if __name__ == "__main__":
    from benchmarks.families import main as run  # so that ranks find `train_case` by its module

    run()
