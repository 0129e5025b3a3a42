"""One sample of a size that nobody expects: it is refused with a reason, or named when memory does not suffice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.small import vlmill
from vlmill.pipeline.core.at_work import AtWork
from vlmill.pipeline.core.sample import SampleId, read_refused, read_samples
from vlmill.pipeline.sources.obelics import Obelics
from vlmill.pipeline.steps.read import MAX_CHARACTERS, Read
from vlmill.pipeline.steps.row_sample import RowRange

COLUMNS = pa.schema([
    ("images", pa.list_(pa.string())), ("texts", pa.list_(pa.string())),
    ("metadata", pa.string()), ("general_metadata", pa.string()),
])  # fmt: skip
PARAGRAPH = "Every line of this page says a little about what stands on it, and then there is another one.\n"


def write_documents(path: Path, *texts: str) -> Path:
    """A file in OBELICS' columns; each document is one text."""
    rows = [
        {"images": [None], "texts": [text], "metadata": "[null]", "general_metadata": json.dumps({"url": ""})}
        for text in texts
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=COLUMNS), path)
    return path


def repeat(characters: int) -> str:
    return (PARAGRAPH * (characters // len(PARAGRAPH) + 1))[:characters]


@pytest.mark.parametrize(("characters", "kept"), [(MAX_CHARACTERS, True), (MAX_CHARACTERS + 1, False)])
def test_a_sample_with_more_characters_than_its_source_allows_is_refused_with_a_reason(tmp_path, characters, kept):
    path = write_documents(tmp_path / "web.parquet", "before", "é" * characters, "after")
    counts = Read(Obelics(), "web", (RowRange("web.parquet", 0, 3),)).run({"input-0": path}, tmp_path)
    lost = {} if kept else {"too_many_characters": 1}
    for level in ("rows", "pages"):
        assert counts[level].balanced()
        assert counts[level].to_json() == {"in": 3, "kept": 3 - len(lost), "dropped": {}, "failed": lost}
    assert [sample.id.row for sample in read_samples(tmp_path / "samples.parquet")] == ([0, 1, 2] if kept else [0, 2])
    for refused in read_refused(tmp_path / "refused.parquet"):
        assert (refused["row"], refused["reason"]) == (1, "too_many_characters")
        assert refused["detail"] == "1,000,001 characters, allowed 1,000,000 (sources.web.max_characters)"
        assert len(refused["excerpt"]) < 2000
        assert refused["excerpt"].startswith('["éé')


def test_a_place_is_told_to_who_listens_and_is_a_sample_or_the_row_that_comes_next():
    work, told = AtWork(), []
    work.begin("nobody listens")
    with work.told_to(told.append):
        work.begin("steps/web/read 00000-0000")
        work.note(SampleId("web", "web.parquet", 7))
    work.note("nobody listens any more")
    assert told == ["steps/web/read 00000-0000", "steps/web/read 00000-0000, at web/web.parquet#7"]


LIMITED = """
import re, resource, sys
from pathlib import Path
import polars, pyarrow.parquet, vlmill.api.builds
from vlmill.pipeline.core.errors import VlmillError
loaded = vlmill.load_recipe(sys.argv[1], settings={"sources.web.max_characters": sys.argv[3]})
taken = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (taken + (300 << 20), resource.RLIM_INFINITY))
try:
    vlmill.build(loaded, sys.argv[2], workers=0, until="curate")
except VlmillError as error:
    sys.exit(str(error))
"""


def build_limited(folder: Path, characters: int) -> str:
    """Build up to `curate` in a process of its own with 300 MB to spare; gives its error."""
    command = [sys.executable, "-c", LIMITED, str(folder / "recipe.yaml"), str(folder / "run"), str(characters)]
    one_thread = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}  # each takes address space
    done = subprocess.run(command, env={**os.environ, **one_thread}, capture_output=True, text=True, check=False)
    return done.stderr.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="a bound of address space")
def test_a_sample_for_which_memory_does_not_suffice_is_named_when_the_rest_is_done_and_the_way_out_works(tmp_path):
    write_documents(tmp_path / "a.parquet", "before")
    write_documents(tmp_path / "b.parquet", repeat(9_000_000), "after")
    write_documents(tmp_path / "c.parquet", "another", "and one more")
    (tmp_path / "recipe.yaml").write_text(
        "name: heavy\nfilters: []\npartition: {rows: 3}\nsources:\n  web: {kind: obelics, files: '*.parquet'}\n"
    )
    named, *_, advice = build_limited(tmp_path, 10_000_000).splitlines()
    assert named.startswith("steps/web/signature 00000-0000, at web/b.parquet#0: out of memory")
    assert "sources.NAME.max_characters" in advice
    assert "takedowns.yaml" in advice
    signed = {path.name.partition(".")[0] for path in (tmp_path / "run/steps/web/signature").glob("*.receipt.json")}
    assert signed == {"00002-0000"}
    (tmp_path / "run" / "takedowns.yaml").write_text("ids: ['web/b.parquet#0']\n")
    assert build_limited(tmp_path, 10_000_000) == ""


DEADLY = """
import os
import signal
from dataclasses import dataclass
from pathlib import Path

@dataclass(frozen=True)
class Deadly:
    name = "deadly"
    died: str = ""

    def decide(self, samples, image_stats):
        for _ in samples:
            if not Path(self.died).exists():
                Path(self.died).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return ()
"""


def test_a_build_whose_worker_was_killed_leaves_nothing_of_the_task_that_it_had(tmp_path):
    write_documents(tmp_path / "web.parquet", "before", "after")
    (tmp_path / "deadly.py").write_text(DEADLY)
    recipe = {
        "name": "deadly",
        "sources": {"web": {"kind": "obelics", "files": "web.parquet"}},
        "filters": [{"deadly": {"died": str(tmp_path / "died")}}],
        "stages": [],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    build = ("build", tmp_path / "recipe.yaml", "--out", tmp_path / "run", "--filter", tmp_path / "deadly.py")
    assert vlmill(*build, "--workers", 1) == 0
    assert (tmp_path / "died").exists()
    assert not list((tmp_path / "run").glob("**/.tmp-*"))
