"""A model that the trainer exported, behind a real `transformers serve`, is asked about pictures by `ask`."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch

from tests.helpers.signals import write_partition
from tests.helpers.stages import ANYRES, COLOURS, model_settings, picture, question, write_run
from vlmill.mixtures.reader import PlannedMixture, Segment
from vlmill.pipeline.chat.encode import FORMATS, load_tokenizer
from vlmill.pipeline.core.answers import read_answers
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.scores import read_scores
from vlmill.pipeline.signals.ask import Ask
from vlmill.pipeline.steps.score import ScoreSignal
from vlmill.train.batch import pad_sequences
from vlmill.train.data import Reader
from vlmill.train.export import export_model
from vlmill.train.families import find_family
from vlmill.train.model import compute_token_losses, create_model

NEEDED = ("fastapi", "uvicorn", "openai")
"""Packages of `transformers serve` that nothing else here needs: pip install 'transformers[serving]'."""

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason=f"transformers serve needs {', '.join(NEEDED)}: pip install 'transformers[serving]'",
)

CHAT = FORMATS["vlmill"]


def train_and_export(folder):
    """A tiny model that tells four colours apart, as transformers loads it."""
    write_run(folder / "run", {"quiz": [question(number) for number in range(24)]}, ANYRES)
    mixture, settings = PlannedMixture(folder / "run", "align"), model_settings()
    tokenizer = load_tokenizer(mixture.tokenizer, CHAT)
    reader = Reader(mixture, tokenizer, find_family(settings, mixture.policy), "answers")
    model = create_model(reader.family, tokenizer, CHAT, 0)
    batch = pad_sequences([[reader.document(Segment(0, 0, row))] for row in range(24)], 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        losses, _ = compute_token_losses(model, reader.family, batch, torch.device("cpu"), torch.float32)
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return export_model(folder / "export", model.eval(), reader.family, tokenizer, CHAT)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(endpoint, model) of a running server."""
    folder = tmp_path_factory.mktemp("served")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    export = train_and_export(folder)
    torch.set_num_threads(before)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = "from transformers.cli.transformers import main; main()"
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", str(export), *options],
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        wait_for_server(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}/v1", str(export)
    finally:
        process.terminate()
        process.wait(30)


def wait_for_server(url, process, log):
    for _ in range(1200):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def ask(served, folder, **settings):
    """Captions of a picture of each colour."""
    endpoint, model = served
    inputs = write_partition(folder, [[0], [1], [2], [3]])
    write_colours(inputs)
    signal = parse_block(Ask, {"endpoint": endpoint, "model": model, **settings}, "signals.caption")
    (folder / "out").mkdir()
    counts = ScoreSignal("caption", signal).run(inputs, folder / "out")["scored"]
    answers = list(read_answers(folder / "out/caption.answers.parquet"))
    return counts, answers, read_scores(folder / "out/caption.scores.parquet")


def write_colours(inputs):
    """Put pictures of the four colours in the place of those of a partition."""
    import io

    from vlmill.pipeline.core.sample import IMAGES, ImageStats, read_rows, write_image_stats, write_rows

    rows, stats = list(read_rows(inputs["images.parquet"])), []
    for number, (row, colour) in enumerate(zip(rows, COLOURS, strict=True)):
        file, drawn = io.BytesIO(), picture(colour, number + 2)
        drawn.save(file, "PNG")
        row["bytes"] = file.getvalue()
        stats.append(ImageStats(number, None, width=drawn.width, height=drawn.height))
    write_rows(inputs["images.parquet"], IMAGES, rows)
    write_image_stats(inputs["image_stats.parquet"], stats)


def test_a_served_model_says_what_it_sees(served, tmp_path):
    count, answers, scores = ask(served, tmp_path, prompt="What colour is it?", answer="text", max_tokens=8)
    assert count.kept == 4
    assert [one.answer.text for one in answers] == list(COLOURS)
    assert scores["caption_characters"].to_list() == [len(colour) for colour in COLOURS]
    assert all(one.answer.input_tokens > 10 for one in answers)
    assert all(0 < one.answer.output_tokens <= 8 for one in answers)


def test_answers_of_another_form_are_verdicts(served, tmp_path):
    settings = {"prompt": "What colour is it?", "answer": {"good": "1-5"}, "max_tokens": 8, "again": 1}
    count, answers, _ = ask(served, tmp_path, **settings)
    assert {str(reason): number for reason, number in count.lost.items()} == {"bad_answer": 4}
    assert {one.answer.requests for one in answers} == {2}
