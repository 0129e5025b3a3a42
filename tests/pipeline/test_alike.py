"""Samples that are decided alike are decided as each would be by itself."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from vlmill.pipeline.reports.alike import group_alike
from vlmill.pipeline.reports.what_if import EXAMPLES, WhatIfAnswer, compare_partition
from vlmill.pipeline.reports.what_if_verdicts import WhatIfPartition
from vlmill.pipeline.verdicts.apply import apply_verdicts

NODES = st.lists(
    st.tuples(
        st.sampled_from(["text", "image", "lost"]), st.sampled_from(["none", "user", "assistant"]), st.booleans()
    ),
    min_size=1,
    max_size=3,
)
SAID = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from([0, 1, WHOLE_SAMPLE, LEAST_IMAGES]), st.integers(1, 2)), max_size=8
)


def write_part(folder, shapes, said):
    """A partition of samples of these nodes, and verdicts of two filters, now and then."""
    samples, image_stats = [], []
    for row, shape in enumerate(shapes):
        nodes = []
        for turn, (kind, role, required) in enumerate(shape):
            if kind == "text":
                nodes.append(Node("text", role, turn // 2, text="Some words"))
                continue
            nodes.append(Node("image", role, turn // 2, image=len(image_stats), required=required))
            image_stats.append(ImageStats(len(image_stats), Reason.UNDECODABLE if kind == "lost" else None))
        samples.append(Sample(SampleId("web", "a.parquet", row), tuple(nodes)))
    write_samples(folder / "samples.parquet", samples)
    write_image_stats(folder / "image_stats.parquet", image_stats)
    verdicts = {}
    for when, by_filter in said.items():
        for name, found in by_filter.items():
            rows = {(row, node): score for row, node, score in found if row < len(shapes) and node < len(shapes[row])}
            verdicts[when, name] = [
                Verdict(row, node, name, Reason.TOO_FEW_IMAGES if node == LEAST_IMAGES else Reason.LANGUAGE, score)
                for (row, node), score in sorted(rows.items())
            ]
            write_verdicts(folder / f"{when}.{name}.parquet", verdicts[when, name])
    tables = {name: folder / name for name in ("samples.parquet", "image_stats.parquet")}
    paths = {when: {name: folder / f"{when}.{name}.parquet" for name in by} for when, by in said.items()}
    return samples, image_stats, verdicts, WhatIfPartition("web", "0", tables, paths["now"], paths["then"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(NODES, min_size=1, max_size=12), SAID, SAID, SAID)
def test_each_sample_is_decided_as_by_itself(tmp_path, shapes, first, second, other):
    said = {"now": {"one": first, "two": second}, "then": {"one": first, "two": other}}
    samples, image_stats, verdicts, partition = write_part(tmp_path, shapes, said)
    expected = Counter()
    changed = list[str]()
    for row, sample in enumerate(samples):
        before, after = (
            apply_verdicts(
                sample,
                [verdict for name in ("one", "two") for verdict in verdicts[when, name] if verdict.sample == row],
                image_stats,
            )
            for when in ("now", "then")
        )
        expected.update(came=1, now=before.sample is None, then=after.sample is None)
        if (before.sample is None) != (after.sample is None):
            changed.append(str(sample.id))
    answer = WhatIfAnswer()
    compare_partition(partition, answer)
    line = answer.sources["web"]["samples"]
    assert {name: getattr(line, name) for name in ("came", "now", "then")} == {**expected}
    nodes = answer.sources["web"]["nodes"]
    assert nodes.came == sum(map(len, shapes))
    named = [example for change in line.why.values() for example in change.examples]
    assert {*named} <= {*changed}
    assert all(len(change.examples) <= EXAMPLES for change in line.why.values())
    assert len(named) >= min(len(changed), 1)
    rows = [row for alike in group_alike(partition.tables, partition.now, partition.then) for row in alike.rows]
    assert sorted(rows) == list(range(len(samples)))


def test_the_number_of_images_that_a_filter_asks_for_tells_samples_apart(tmp_path):
    shapes = [[("image", "none", False)] * 2] * 2
    said = {"one": [(0, LEAST_IMAGES, 1), (1, LEAST_IMAGES, 3)]}
    *_, partition = write_part(tmp_path, shapes, {"now": {"one": []}, "then": said})
    answer = WhatIfAnswer()
    compare_partition(partition, answer)
    assert (answer.sources["web"]["samples"].now, answer.sources["web"]["samples"].then) == (2, 1)
