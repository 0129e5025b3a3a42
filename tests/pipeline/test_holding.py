"""Which partitions are looked at for a row: the right ones, and few."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmill.pipeline.core.names import SAMPLES_FILE
from vlmill.pipeline.core.sample import Node, Sample, SampleId, write_samples
from vlmill.pipeline.engine.partition_tables import PartitionTables
from vlmill.pipeline.engine.store import File
from vlmill.pipeline.reports import holding


def name_file(number):
    return f"{number:03d}.parquet"


def place_partitions(root, cuts, kept, monkeypatch):
    """Partitions of `cuts` rows each, three to a file, in which only `kept` rows became samples."""
    monkeypatch.setattr(holding, "check_hash", lambda path, _: path)
    tables, start = [], 0
    for number, size in enumerate(cuts):
        file, chunk = divmod(number, 3)
        start = start if chunk else 0
        name = f"{file:05d}-{chunk:04d}"
        rows = [row for row in range(start, start + size) if (file, row) in kept]
        samples = [Sample(SampleId("web", name_file(file), row), (Node("text", text="x"),)) for row in rows]
        write_samples(root / name, samples)
        tables.append(PartitionTables("web", name, {SAMPLES_FILE: File(SAMPLES_FILE, name, "", 0)}, ()))
        start += size
    return tables


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(1, 4), min_size=1, max_size=9), st.data())
def test_every_row_is_in_one_of_the_partitions_that_are_named(tmp_path_factory, monkeypatch, cuts, data):
    """Whether it became a sample or was refused."""
    rows = [
        (number // 3, sum(cuts[number - number % 3 : number]) + row)
        for number, size in enumerate(cuts)
        for row in range(size)
    ]
    kept = data.draw(st.sets(st.sampled_from(rows)))
    root = tmp_path_factory.mktemp("rows")
    tables = place_partitions(root, cuts, kept, monkeypatch)
    owners = [number for number, size in enumerate(cuts) for _ in range(size)]
    for (file, row), owner in zip(rows, owners, strict=True):
        found = holding.find_holders(root, tables[::-1], SampleId("web", name_file(file), row))
        assert tables[owner] in found


def test_few_partitions_are_read(tmp_path, monkeypatch):
    cuts = [2] * 300
    tables = place_partitions(tmp_path, cuts, {(file, row) for file in range(100) for row in range(6)}, monkeypatch)
    read = []
    monkeypatch.setattr(holding, "check_hash", lambda path, _: read.append(path) or path)
    found = holding.find_holders(tmp_path, tables, SampleId("web", name_file(42), 3))
    assert [at.partition for at in found] == ["00042-0001", "00042-0002"]
    assert len(read) < 12
    assert holding.find_holders(tmp_path, [], SampleId("web", name_file(42), 3)) == []
