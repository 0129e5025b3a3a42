"""The keys of a slider beside `apply_verdicts` at every position, over documents of several images."""

from __future__ import annotations

import numpy as np
import pytest

from vlmill.explore.bounds import SliderBound
from vlmill.explore.critical import find_partition_keys
from vlmill.pipeline.core.names import IMAGE_STATS_FILE, SAMPLES_FILE, name_verdicts
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    LEAST_IMAGES,
    WHOLE_SAMPLE,
    ImageStats,
    Node,
    Sample,
    SampleId,
    Verdict,
    write_image_stats,
    write_samples,
    write_verdicts,
)
from vlmill.pipeline.verdicts.apply import apply_verdicts

SAMPLES = 60


def make_partition(folder, random):
    """Documents and conversations of 0 to 5 images, some of them required or failed, with verdicts of other filters."""
    samples, stats, verdicts = [], [], []
    for row in range(SAMPLES):
        nodes, talk = [], row % 3 == 0
        for turn in range(int(random.integers(0, 6))):
            failed = random.random() < 0.15
            stats.append(ImageStats(len(stats), Reason.UNDECODABLE if failed else None, width=8, height=8))
            role = "user" if talk else "none"
            nodes.append(Node("image", role, turn, image=len(stats) - 1, required=bool(random.random() < 0.1)))
            if talk:
                nodes += [Node("text", "user", turn, text="q"), Node("text", "assistant", turn, text="a")]
        nodes += [] if talk else [Node("text", text="words")]
        samples.append(Sample(SampleId("a", "f", row), tuple(nodes)))
        if random.random() < 0.3:
            verdicts.append(
                Verdict(row, int(random.integers(0, len(nodes))) if nodes else WHOLE_SAMPLE, "before", Reason.LANGUAGE)
            )
        if random.random() < 0.3:
            verdicts.append(Verdict(row, LEAST_IMAGES, "before", Reason.TOO_FEW_IMAGES, 2))
    write_samples(folder / SAMPLES_FILE, samples)
    write_image_stats(folder / IMAGE_STATS_FILE, stats)
    write_verdicts(folder / name_verdicts("before"), verdicts)
    return samples, stats, verdicts


def list_scored(samples, stats, random):
    """Row, node and value of every image that could be read."""
    return [
        (row, place, float(random.integers(0, 12)))
        for row, sample in enumerate(samples)
        for place, node in enumerate(sample.nodes)
        if node.image is not None and stats[node.image].reason is None
    ]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("side", ["min", "max"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_thing_is_kept_where_its_key_is_at_least_the_bound(tmp_path, side, whole, seed):
    random = np.random.default_rng(seed)
    samples, stats, verdicts = make_partition(tmp_path, random)
    scored = list_scored(samples, stats, random)
    bound = SliderBound("threshold.any.x.min", "threshold", "x", side, whole, (), (), {})
    keys = find_partition_keys(
        {SAMPLES_FILE: tmp_path / SAMPLES_FILE, IMAGE_STATS_FILE: tmp_path / IMAGE_STATS_FILE},
        {"before": tmp_path / name_verdicts("before")},
        bound,
        (
            np.array([row for row, *_ in scored]),
            np.array([node for _, node, _ in scored]),
            np.array([v for *_, v in scored]),
        ),
        SAMPLES,
    )
    kept_somewhere = set()
    for at in np.arange(-0.5, 12.5, 0.5):
        beyond = [(row, node) for row, node, value in scored if (value < at if side == "min" else value > at)]
        outcomes = []
        for row, sample in enumerate(samples):
            mine = [node for other, node in beyond if other == row]
            more = [Verdict(row, WHOLE_SAMPLE if whole else node, "threshold", Reason("signal:x")) for node in mine]
            said = [verdict for verdict in verdicts if verdict.sample == row]
            outcomes.append(apply_verdicts(sample, [*said, *more], stats))
        limit = bound.sign * at
        kept = [outcome.sample is None for outcome in outcomes]
        assert (keys.samples >= limit).tolist() == kept, at
        whole_nodes = sum(reason is None for outcome in outcomes for reason in outcome.nodes)
        assert sum((one >= limit).sum() for one in keys.nodes) == whole_nodes, at
        images = sum(
            reason is None and node.kind == "image"
            for sample, outcome in zip(samples, outcomes, strict=True)
            for node, reason in zip(sample.nodes, outcome.nodes, strict=True)
        )
        assert sum((one >= limit).sum() for one in keys.images) == images, at
        kept_somewhere.add(sum(kept))
    assert len(kept_somewhere) > 3
