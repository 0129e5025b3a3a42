"""Input files on object storage: what is asked of the server for partitions, for a second build, and after a change."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.object_storage import KEY, SECRET, Proxy, refuse
from tests.helpers.small import vlmill
from tests.helpers.upstream import obelics
from vlmill.pipeline.core import object_store
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.engine.input_digests import DIGESTS
from vlmill.pipeline.inputs.files import hash_input, list_input_files, open_input, open_local
from vlmill.pipeline.inputs.ranges import make_stamp
from vlmill.pipeline.recipe.overrides import move_source

PARTITIONS = 10
LINE = json.dumps({"messages": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A {}"}]})


@pytest.fixture
def proxy(s3_server, s3, monkeypatch):
    monkeypatch.setattr(object_store, "RETRIES", {**object_store.RETRIES, "max_retries": 0})
    proxy = Proxy(s3_server)
    with proxy.serve() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        yield proxy


@pytest.fixture
def folder(s3, tmp_path):
    """A Parquet file of ten row groups that do not compress, and JSON Lines, on object storage."""
    there, random = RunPath(f"{s3}/in/put"), np.random.default_rng(0)
    obelics(tmp_path / "web.parquet", [[random.bytes(6000).hex()] for _ in range(10 * PARTITIONS)])
    pq.write_table(pq.read_table(tmp_path / "web.parquet"), tmp_path / "web.parquet", row_group_size=10)
    (there / "web.parquet").put_file(tmp_path / "web.parquet")
    (there / "chat.jsonl").write_text("".join(LINE.replace("{}", f"{number} ") + "\n" for number in range(100)))
    return there


def write_recipe(tmp_path, folder, **source):
    recipe = {
        "name": "there",
        "sources": {"data": {"root": str(folder), "licence": "CC0-1.0", **source}},
        "partition": {"rows": 10},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"kind": "obelics", "files": "*.parquet"}, "web.parquet"),
        ({"kind": "chat", "files": "*.jsonl"}, "chat.jsonl"),
    ],
)
def test_partitions_of_a_file_cost_its_bytes_about_twice_and_a_second_build_none(folder, proxy, tmp_path, source, name):
    recipe, size = write_recipe(tmp_path, folder, **source), (folder / name).find_object().size
    command = ("build", recipe, "--out", tmp_path / "run", "--workers", 0, "--until", "curate")
    assert vlmill(*command) == 0
    receipts = list((tmp_path / "run/steps/data/read").glob("*.receipt.json"))
    assert len(receipts) == PARTITIONS
    first = proxy.count_bytes(name)
    assert size <= first < 3.5 * size, "hashed, and read once; what is looked at before is a part"
    proxy.requests.clear()
    assert vlmill(*command) == 0
    assert proxy.count_bytes(name) < first / 3, "the look at the first rows that each build begins with"
    noted = (tmp_path / "run" / DIGESTS).read_text()
    assert "put" not in noted
    assert KEY not in noted


def test_a_file_that_was_replaced_is_read_again(folder, proxy, tmp_path):
    recipe = write_recipe(tmp_path, folder, kind="chat", files="*.jsonl")
    command = ("build", recipe, "--out", tmp_path / "run", "--workers", 0, "--until", "curate")
    assert vlmill(*command) == 0
    before = json.loads((tmp_path / "run" / DIGESTS).read_text())["files"]
    text = (folder / "chat.jsonl").read_text()
    (folder / "chat.jsonl").write_text(text.replace("A 7 ", "B 7 "))
    assert vlmill(*command) == 0
    after = json.loads((tmp_path / "run" / DIGESTS).read_text())["files"]
    assert [one["sha256"] for one in after.values()] != [one["sha256"] for one in before.values()]


def test_a_file_that_changes_while_it_is_read_is_an_error(folder):
    (listed,) = list_input_files("data", str(folder), "*.parquet", ranged=lambda _: True)
    assert listed.ranged
    (folder / "web.parquet").write_bytes(b"another")
    with open_input(listed) as file, pytest.raises(SourceError, match=r"web\.parquet has changed since it was listed"):
        file.open()


def test_a_copy_is_kept_for_the_next_partition_and_goes_with_the_next_file(folder, proxy):
    (listed,) = list_input_files("data", str(folder), "*.jsonl", ranged=lambda _: False)
    with open_local(listed) as first, open_local(listed) as second:
        assert first == second
    with open_local(listed) as again:
        assert again == first
    assert proxy.count_bytes("chat.jsonl") == listed.size
    (other,) = list_input_files("data", str(folder), "*.parquet", ranged=lambda _: False)
    with open_local(other):
        assert not first.exists()


def test_a_folder_needs_no_slash(folder, s3):
    for place in (f"{folder}", f"{folder}/"):
        data = {"sources": {"web": {"files": "*.parquet", "root": "."}}}
        move_source(data, "web", place)
        assert data["sources"]["web"]["files"] == "*.parquet"
        assert data["sources"]["web"]["root"].rstrip("/") == str(folder)
    data = {"sources": {"web": {"files": "*", "root": "."}}}
    move_source(data, "web", f"{folder}/web.parquet")
    assert data["sources"]["web"] == {"root": str(folder), "files": "web.parquet"}


def test_a_storage_that_fails_is_an_error_without_keys(folder, proxy):
    (listed,) = list_input_files("data", str(folder), "*.parquet", ranged=lambda _: True)
    proxy.make_faults(refuse(403, "SignatureDoesNotMatch"), 100, lambda request: request.method == "GET")
    with pytest.raises(SourceError, match=r"cannot be read \((SignatureDoesNotMatch|status 403)\)") as failed:
        hash_input(listed)
    assert SECRET not in str(failed.value)
    assert KEY not in str(failed.value)


def test_a_stamp_is_a_tag_or_a_time():
    assert make_stamp({"ETag": '"a"', "size": 3, "mtime": 5}) != make_stamp({"ETag": '"b"', "size": 3, "mtime": 5})
    assert make_stamp({"mtime": 5, "size": 3}) not in ("", make_stamp({"mtime": 6, "size": 3}))
    assert make_stamp({"size": 3}) == ""
