"""Held out by picture: no picture of a held-out sample is trained on, unless a source hangs together, which is said."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tests.helpers.synthetic import Store, quiz
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.report.notes import count_shared_pictures
from vlmill.mixtures.steps.hold_out import Rows, choose_held_out


def mixture(**settings):
    return MixtureSettings(sequence_length=256, **{"shares": {"quiz": 1}, **settings})


def rows_of(pictures, start=0):
    """A shard of documents that show these pictures."""
    named = [(row, f"{number:016x}") for row, shown in enumerate(pictures) for number in shown]
    table = pl.DataFrame(named, schema={"row": pl.Int32, "sha256": pl.String}, orient="row")
    return Rows(pl.Series([f"quiz#{start + row}" for row in range(len(pictures))], dtype=pl.String), table)


def find_sides(pictures, held):
    """The pictures that held-out rows show, and those that others show."""
    return [
        {number for shown, out in zip(pictures, held, strict=True) if out is side for number in shown}
        for side in (True, False)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_no_picture_of_a_held_out_sample_is_trained_on(seed):
    random = np.random.default_rng(seed)
    pictures = [[n // 8] for n in range(400)] + [[100 + n // 2, 101 + n // 2] for n in range(0, 60, 4)]
    pictures = [pictures[place] for place in random.permutation(len(pictures))]
    cut = len(pictures) // 3
    held = choose_held_out([rows_of(pictures[:cut]), rows_of(pictures[cut:], cut)], "quiz", seed, 0.2)
    held = np.concatenate(held).tolist()
    out, trained = find_sides(pictures, held)
    assert out
    assert trained
    assert not out & trained


def test_what_is_held_out_depends_on_no_order_and_on_no_other_source():
    pictures = [[n // 3] for n in range(90)]
    (held,) = choose_held_out([rows_of(pictures)], "quiz", 3, 0.2)
    whole = rows_of(pictures)
    order = np.random.default_rng(0).permutation(90)
    place = {int(row): new for new, row in enumerate(order)}
    turned = Rows(
        pl.Series([whole.documents[int(row)] for row in order]),
        whole.pictures.with_columns(pl.col("row").replace_strict(place, return_dtype=pl.Int32)).reverse(),
    )
    (again,) = choose_held_out([turned], "quiz", 3, 0.2)
    assert again.tolist() == held[order].tolist()
    assert 0 < held.sum() < 90


def test_a_picture_on_every_page_does_not_hold_out_all_or_nothing():
    pictures = [[7, 100 + n] for n in range(300)]
    held = [choose_held_out([rows_of(pictures)], "quiz", seed, 0.1)[0].sum() for seed in range(4)]
    assert all(10 <= number <= 60 for number in held), held


def test_samples_without_pictures_are_held_out_one_by_one_and_a_source_may_be_empty():
    (held,) = choose_held_out([rows_of([[]] * 400)], "quiz", 1, 0.25)
    assert 60 <= held.sum() <= 140
    assert choose_held_out([rows_of([])], "quiz", 1, 0.25)[0].size == 0


def test_the_stage_counts_held_out_samples_whose_picture_is_trained_on_elsewhere(tmp_path):
    store = Store(tmp_path)
    store.add("quiz", quiz(1, 120), per_shard=40, pictures=[[n // 4] for n in range(120)])
    lock, _ = store.lock(mixture(held_out={"quiz": 0.2}))
    assert lock["held_out"]["samples"] > 0
    assert count_shared_pictures(tmp_path, lock, store.inputs["held_out.parquet"]) == 0
    logo = Store(tmp_path / "logo")
    logo.add("quiz", quiz(1, 120), per_shard=40, pictures=[[5] for _ in range(120)])
    lock, _ = logo.lock(mixture(held_out={"quiz": 0.2}))
    assert (
        count_shared_pictures(tmp_path / "logo", lock, logo.inputs["held_out.parquet"])
        == lock["held_out"]["samples"]
        > 0
    )
    lock, _ = logo.lock(mixture())
    assert count_shared_pictures(tmp_path / "logo", lock, logo.inputs["held_out.parquet"]) == 0
