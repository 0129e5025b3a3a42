"""The quickstart's tiny dual encoder: it ships, it tells right captions from shuffled ones, and a recipe uses it."""

from __future__ import annotations

import io

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.helpers.small import vlmill
from tools.quickstart.generate import DATA, FILES
from tools.quickstart.scenes import TELL_QUESTIONS
from tools.quickstart.train_similarity import FOLDER, draw_pairs
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.images.views import read_preprocessing
from vlmill.pipeline.signals import SIGNALS
from vlmill.pipeline.signals.base import SignalBatch
from vlmill.pipeline.signals.weights import resolve_weights


@pytest.fixture(scope="module")
def encoder():
    """The signal of the recipe, and its model."""
    signal = parse_block(SIGNALS["image_text_similarity"], {"model": str(FOLDER)}, "fit")
    signal = resolve_weights(signal, "fit", DATA)
    return signal, signal.load()


def score(encoder, pictures, captions):
    signal, model = encoder
    texts = tuple((caption,) for caption in captions)
    return signal.score(model, SignalBatch(len(texts), len(texts), pictures, texts))[:, 0]


def measure_auc(encoder, pictures, captions):
    right, shuffled = (score(encoder, pictures, texts) for texts in (captions, [*captions[1:], captions[0]]))
    return (right[:, None] > shuffled[None]).mean()


def test_it_is_small_enough_to_ship():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 500_000


def test_it_tells_right_captions_from_shuffled_ones_of_scenes_that_it_was_not_trained_on(encoder):
    assert measure_auc(encoder, *draw_pairs(300, "never trained on")) > 0.98


def test_it_does_so_on_the_pictures_and_captions_of_the_quickstart(encoder):
    view, pictures, captions = read_preprocessing(FOLDER).view, [], []
    for file in FILES["quiz"]:
        for row in pq.read_table(DATA / "quiz" / file).to_pylist():
            told = [turn for turn in row["texts"] or [] if turn and turn["user"] in TELL_QUESTIONS]
            if told and len(row["images"] or []) == 1:
                try:
                    image = Image.open(io.BytesIO(row["images"][0]["bytes"])).convert("RGB")
                except OSError:
                    continue  # planted: it is damaged
                pictures.append(view.draw(image))
                captions.append(told[0]["assistant"])
    assert len(captions) > 100
    assert measure_auc(encoder, np.stack(pictures), captions) > 0.97


def test_the_recipe_scores_images_with_the_texts_beside_them_and_drops_a_tenth_of_the_webs(tmp_path, capsys):
    root = tmp_path / "run"
    only = ["--limit", "30", "--set", "partition.rows=30"]
    assert not vlmill("build", "quickstart_signals", "--out", root, "--workers", 0, "--until", "signals", *only)
    table = pl.concat(pl.read_parquet(path) for path in root.glob("steps/web/fit/*.scores.parquet"))
    cut = np.quantile(table["fit"], 0.1)
    verdicts = pl.concat(pl.read_parquet(path) for path in root.glob("steps/web/threshold/*.verdicts.parquet"))
    assert verdicts.height == (table["fit"] < cut - 1e-4).sum() > 0
    assert set(verdicts["reason"]) == {"signal:fit"}
    capsys.readouterr()
    assert not vlmill("report", root, "--section", "signals")
    assert "fit" in capsys.readouterr().out
