"""Pictures made from one template, of which each has more candidates than are measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.pipeline.test_dedupe_picture import drawing, encoded
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node, Sample, SampleId, read_rows, write_image_stats, write_samples
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.dedupe import Dedupe, picture
from vlmill.pipeline.dedupe.measured import EarlierFile, find_measured, write_measured
from vlmill.pipeline.dedupe.picture_looks import LOOK, choose_nearest, measure_distances
from vlmill.pipeline.dedupe.signature import make_image_key
from vlmill.pipeline.engine.chain import write_manifest
from vlmill.pipeline.engine.store import Receipt
from vlmill.pipeline.reports.overlap import list_uncompared
from vlmill.pipeline.steps.image_stats import compute_image_stats

SCENES, COPIED = 40, 6


def draw_scene(number: int) -> Image.Image:
    """The same picture with a block of some colour in it."""
    scene, random = drawing(1), np.random.default_rng(number)
    left, top = (int(edge) for edge in random.integers(20, 200, 2))
    scene.paste(tuple(int(value) for value in random.integers(0, 256, 3)), (left, top, left + 30, top + 30))
    return scene


@pytest.fixture(scope="module")
def stats():
    """Of scenes, and of copies of some of them."""
    scenes = [draw_scene(number) for number in range(SCENES)]
    files = [*map(encoded, scenes), *(encoded(scene, "JPEG", quality=70) for scene in scenes[:COPIED])]
    return [compute_image_stats(row, data) for row, data in enumerate(files)]


def compare(folder, stats, earlier=(), **knobs):
    """Pairs of keys with their similarity, and what the counts of all shares say was measured and left out."""
    dedupe, inputs = Dedupe(**knobs), {}
    for number, some in enumerate(np.array_split(np.arange(len(stats)), 2)):
        partition = folder / str(number)
        partition.mkdir(parents=True)
        described = [stats[row] for row in some]
        samples = [Sample(SampleId("web", "x", int(row)), (Node("image", image=at),)) for at, row in enumerate(some)]
        write_samples(partition / "samples.parquet", samples)
        write_image_stats(partition / "image_stats.parquet", described)
        signed = {name: partition / name for name in ("samples.parquet", "image_stats.parquet")}
        dedupe.signature().run(signed, partition)
        inputs |= {f"web/{number}/{path.name}": path for path in partition.iterdir()}
    found, kept, lost = [], 0, 0
    candidates = replace(dedupe, cap=10_000).candidates()  # all of a place
    for name, steps in (("candidates", candidates), ("pairs", dedupe.pair_steps(None, earlier))):
        made = {}
        for number, step in enumerate(steps):
            target = folder / f"{name}-{number}"
            target.mkdir()
            counts = step.run(inputs, target)
            made |= {f"{name}{number}/{path.name}": path for path in target.iterdir()}
            if name == "pairs":
                assert counts["image_pairs"].balanced()
                kept, lost = kept + counts["image_pairs"].kept, lost + counts["image_pairs"].lost[Reason.PAIR_CAP]
                found += [tuple(row.values()) for row in read_rows(target / "image.pairs.parquet")]
        inputs |= made
    return sorted(found), kept, lost


def test_copies_are_found_in_a_crowd_and_what_is_not_measured_is_counted(tmp_path, stats):
    every, measured, none_lost = compare(tmp_path / "all", stats, cap=10_000)
    assert (measured > 500, none_lost) == (True, 0)
    found, kept, lost = compare(tmp_path / "few", stats, cap=12)
    assert kept + lost == measured
    assert kept <= len(stats) * 6 < measured
    assert set(found) <= set(every)
    keys = [make_image_key(each) for each in stats]
    copies = {tuple(sorted((keys[row], keys[SCENES + row]))) for row in range(COPIED)}
    assert copies <= {(one, other) for one, other, similarity in found if similarity >= 0.97}


def test_what_is_measured_is_the_same_for_any_number_of_shares_and_batches(tmp_path, stats, monkeypatch):
    whole = compare(tmp_path / "one", stats, cap=12, buckets=1)
    monkeypatch.setattr("vlmill.pipeline.dedupe.pairs.LOOKED_AT", 7)
    assert compare(tmp_path / "many", stats, cap=12, buckets=5) == whole


def test_a_mirrored_copy_is_near_only_where_mirrors_count():
    random = np.random.default_rng(5)
    looks = np.zeros(2, LOOK)
    looks["luminance"], looks["chroma"] = (random.integers(0, 256, looks[name].shape) for name in LOOK.names)
    looks["luminance"][1], looks["chroma"][1] = looks["luminance"][0, ..., ::-1], looks["chroma"][0, :, ::-1]
    first, second = np.array([0]), np.array([1])
    assert not measure_distances(looks, first, first).any()
    assert not measure_distances(looks, first, second, mirror=True).any()
    assert (measure_distances(looks, first, second) > 0.5).all()


def test_each_picture_keeps_its_nearest():
    one, other = np.array([1, 1, 1, 2, 2], np.uint64), np.array([5, 6, 7, 8, 9], np.uint64)
    distances = np.array([[0.3, 0.1, 0.2, 0.5, 0.5], [0.0, 0.1, 0.2, 0.5, 0.5]]).T
    assert choose_nearest(one, other, distances, 10).tolist() == [0, 1, 2, 3, 4]
    assert choose_nearest(one, other, distances, 2).tolist()[:2] == [0, 1]
    assert choose_nearest(one, other, distances, 1).tolist()[:1] == [1]
    assert len(choose_nearest(one, other, distances, 1)) == 2


def test_the_report_says_how_many_pairs_were_not_compared(tmp_path):
    for step, level in (("candidates", "image_candidates"), ("pairs", "image_pairs")):
        (tmp_path / "steps/dedupe" / step).mkdir(parents=True)
        counts = {level: Count(40, 10, Counter({Reason.PAIR_CAP: 30})).to_json(), "text_pairs": Count(2, 2).to_json()}
        write_manifest(tmp_path, f"steps/dedupe/{step}", [Receipt("k", "00000", (), counts, {})])
    (line,) = list_uncompared(tmp_path)
    assert line.startswith("60 pairs of pictures that look alike are beyond the cap (pair_cap)")


def list_measured(folder):
    paths = sorted(folder.glob("pairs-*/image.measured.parquet"))
    return [EarlierFile(path, hash_file(path)) for path in paths]


def read_pairs(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.glob("pairs-*/*"))}


@pytest.mark.parametrize("shares", [3])
def test_pictures_that_are_added_are_compared_and_the_others_are_not_again(tmp_path, stats, monkeypatch, shares):
    compare(tmp_path / "before", stats[:38], cap=12, buckets=shares)
    whole = compare(tmp_path / "whole", stats, cap=12, buckets=2)
    measured, measure = [], picture.measure_similarity
    monkeypatch.setattr(picture, "measure_similarity", lambda *a, **k: measured.append(len(a[0])) or measure(*a, **k))
    assert compare(tmp_path / "after", stats, list_measured(tmp_path / "before"), cap=12, buckets=2) == whole
    assert read_pairs(tmp_path / "after") == read_pairs(tmp_path / "whole")
    assert 0 < sum(measured) < whole[1] / 2
    measured.clear()
    assert compare(tmp_path / "again", stats, list_measured(tmp_path / "after"), cap=12, buckets=shares) == whole
    assert measured == []


def test_what_was_measured_counts_only_as_it_was_written_and_by_the_same_rule(tmp_path):
    ends = [np.array(keys, np.uint64) for keys in ([1, 2, 2], [3, 4, 2**63])]
    path, similarity = tmp_path / "measured", np.array([0.0, 0.95, 1.0])
    write_measured(path, (*ends, similarity), {"version": 1})
    earlier = [EarlierFile(path, hash_file(path))]
    asked = np.array([2, 2, 7], np.uint64), np.array([5, 2**63, 8], np.uint64)
    assert np.isnan(find_measured(earlier, *asked, {"version": 2})).all()
    assert find_measured(earlier, *asked, {"version": 1}).tolist()[1] == 1.0
    assert np.isnan(find_measured(earlier, *asked, {"version": 1})[[0, 2]]).all()
    gone = [EarlierFile(tmp_path / "gone", "0"), EarlierFile(path, "0")]
    assert np.isnan(find_measured(gone, *asked, {"version": 1})).all()
