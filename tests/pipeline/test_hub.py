"""Sources on the Hugging Face Hub, against one on loopback: requests, answers, and messages about failures."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from httpx2 import HTTPError
from huggingface_hub import constants
from huggingface_hub.utils import http_backoff

from tests.helpers.hub import (
    Hub,
    cut,
    hang_up,
    other_range,
    page,
    status,
    wrong_bytes,
)
from tests.helpers.small import RECIPE, product, vlmill, write_recipe
from tests.helpers.upstream import (
    image,
    json_lines,
    parquet,
    pdf,
    pdfa_json,
    separated,
    tar,
)
from vlmill.pipeline.checks.check import check_inputs
from vlmill.pipeline.core.errors import RecipeError, SourceError, StoreError
from vlmill.pipeline.engine.workdir import PINS, pin_hub_roots
from vlmill.pipeline.inputs import hub, hub_files
from vlmill.pipeline.inputs.files import hash_input, list_input_files, open_input, open_local
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.sources.evaluation import Evaluation
from vlmill.pipeline.sources.obelics import Obelics
from vlmill.pipeline.sources.pdfa import Pdfa

TOKEN = "hf_secret"
ROOT = "hf://datasets/acme/pages"


def table(groups: int = 4, rows: int = 5, size: int = 1 << 17) -> bytes:
    """Web documents in row groups of `size` bytes, half of them in a column that nobody reads."""
    noise = iter(hashlib.shake_256(b"noise").hexdigest(groups * rows * 2 * size).encode())

    def words(length):
        return bytes(next(noise) for _ in range(length)).decode()

    number = groups * rows
    columns = {
        "images": pa.array([[None]] * number, pa.list_(pa.string())),
        "metadata": [words(size // rows) for _ in range(number)],
        "general_metadata": [None] * number,
        "texts": [[f"{row} " + words(size // rows)] for row in range(number)],
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=rows, compression="none", use_dictionary=False)
    return file.getvalue()


@pytest.fixture(scope="module")
def pages():
    return table(size=1 << 15)


# -- listing


def test_files_are_listed_page_by_page_with_the_hashes_that_the_hub_has(here):
    files = {f"data/train-{number}.parquet": b"%d" % number for number in (3, 1, 2)}
    here.page = 2
    here.repository("acme/pages", {**files, "data/test-1.parquet": b"", "README.md": b"", "train-9.parquet": b""})
    input_files = list_input_files("web", ROOT, "data/train-*.parquet")
    assert [input_file.name for input_file in input_files] == [f"data/train-{number}.parquet" for number in (1, 2, 3)]
    assert [hash_input(input_file) for input_file in input_files] == [
        (hashlib.sha256(files[input_file.name]).hexdigest(), 1) for input_file in input_files
    ]
    assert len(here.asked("/tree/")) > 1
    assert here.asked("/resolve/") == [], "nothing is downloaded to know what is in it"


def test_a_small_file_that_lies_in_git_is_hashed_by_reading(here):
    here.repository("acme/pages", {"a.jsonl": b"in git", "empty.jsonl": b""})
    assert [hash_input(input_file) for input_file in list_input_files("web", ROOT, "*.jsonl")] == [
        (hashlib.sha256(b"in git").hexdigest(), 6),
        (hashlib.sha256(b"").hexdigest(), 0),
    ]


def test_names_are_relative_to_a_folder_in_the_root(here):
    here.repository("acme/pages", {"a/b/1.parquet": b"1", "a/2.parquet": b"2", "3.parquet": b"3"})
    names = [input_file.name for input_file in list_input_files("web", f"{ROOT}/a", "**/*.parquet")]
    assert names == ["2.parquet", "b/1.parquet"]


@pytest.mark.parametrize("name", ["a b.parquet", "50%20.parquet", "#1?.parquet", "a@b+c&d=e.parquet", "日本/ä.parquet"])
def test_a_name_of_any_characters_is_read_back(here, name):
    here.repository("acme/pages", {name: name.encode()})
    (input_file,) = list_input_files("web", ROOT, "**")
    assert input_file.name == name
    with open_local(input_file) as path:
        assert path.read_bytes() == name.encode()


@pytest.mark.parametrize("revision", ["v1", "feature/new", "refs/convert/parquet"])
def test_a_revision_is_asked_for_once_and_addresses_name_its_commit(here, revision):
    commit = here.repository("acme/pages", {}).push({"1.parquet": b"1"}, revision)
    root = f"{ROOT}@{revision.replace('feature/', 'feature%2F')}"
    (input_file,) = list_input_files("web", root, "*")
    with open_local(input_file) as path:
        assert path.read_bytes() == b"1"
    assert input_file.url == f"{ROOT}@{commit}/1.parquet"
    assert len(here.asked("/revision/")) == 1
    list_input_files("web", f"{ROOT}@{commit}", "*")
    assert len(here.asked("/revision/")) == 1, "a commit is what it is"


def test_a_pattern_that_fits_nothing_is_answered_with_the_nearest_names(here):
    here.repository("acme/pages", {"data/train-0.parquet": b"", "data/test-0.parquet": b""})
    with pytest.raises(
        SourceError, match=r"no file matches data/trian-\*\.parquet; of 2 files the nearest are: data/train-0"
    ):
        list_input_files("web", ROOT, "data/trian-*.parquet")
    with pytest.raises(SourceError, match=r"no file matches dat/\*; .* data/train-0\.parquet"):
        list_input_files("web", ROOT, "dat/*")
    here.repository("acme/empty", {})
    with pytest.raises(SourceError, match="no files at all"):
        list_input_files("web", "hf://datasets/acme/empty", "*")


# -- subsets and splits

README = b"""---
configs:
- config_name: vqav2
  data_files:
  - {split: train, path: vqa/train-*.parquet}
  - {split: test, path: vqa/held/*.parquet}
- config_name: charts
  data_files: charts/*.parquet
---
"""
TINY = table(groups=1, rows=1, size=64)


@pytest.fixture
def split(here):
    names = ["vqa/train-0.parquet", "vqa/train-1.parquet", "vqa/held/0.parquet", "charts/0.parquet", "other.parquet"]
    here.repository("acme/pages", {"README.md": README, **dict.fromkeys(names, TINY)})
    return here


@pytest.mark.parametrize(
    ("subset", "name", "files"),
    [
        ("vqav2", "train", ["vqa/train-0.parquet", "vqa/train-1.parquet"]),
        ("vqav2", "test", ["vqa/held/0.parquet"]),
        ("charts", "train", ["charts/0.parquet"]),
    ],
)
def test_a_repository_says_which_files_are_those_of_a_split(split, subset, name, files):
    input_files = list_input_files("web", ROOT, None, subset=subset, split=name)
    assert [input_file.name for input_file in input_files] == files
    assert {input_file.sha256 for input_file in input_files} == {hashlib.sha256(TINY).hexdigest()}


def test_without_a_readme_names_of_files_tell_their_split(here):
    here.repository("acme/pages", {"data/train-00000-of-00001.parquet": TINY, "data/test-00000-of-00001.parquet": TINY})
    (input_file,) = list_input_files("web", ROOT, None, split="test")
    assert input_file.name == "data/test-00000-of-00001.parquet"


@pytest.mark.parametrize(
    ("subset", "name", "message"),
    [
        ("vqav3", "train", r"`subset` 'vqav3': did you mean 'vqav2'\? allowed: charts, vqav2"),
        (None, "train", r"`subset` None: allowed: charts, vqav2"),
        ("vqav2", "trian", r"no split 'trian' in vqav2; did you mean 'train'\? allowed: test, train"),
    ],
)
def test_a_split_that_is_not_there_is_answered_with_those_that_are(split, subset, name, message):
    with pytest.raises(SourceError, match=message):
        list_input_files("web", ROOT, None, subset=subset, split=name)


def test_a_readme_that_makes_no_sense_is_said(here):
    here.repository("acme/pages", {"README.md": b"---\nconfigs: [[]]\n---\n", "a.parquet": TINY})
    with pytest.raises(SourceError, match="cannot be read; give `files` instead"):
        list_input_files("web", ROOT, None, split="train")


# -- reading


def test_a_partition_reads_the_columns_and_row_groups_it_needs_and_no_more(here, pages, tmp_path):
    here.repository("acme/pages", {"1.parquet": pages})
    (tmp_path / "1.parquet").write_bytes(pages)
    (input_file,) = list_input_files("web", ROOT, "*", ranged=Obelics().ranged)
    with open_input(input_file) as path:
        weights = Obelics().survey(path)
        surveyed = here.sent("/storage/")
        rows = list(Obelics().rows(path, range(6, 9)))
    assert weights == Obelics().survey(tmp_path / "1.parquet")
    assert rows == list(Obelics().rows(tmp_path / "1.parquet", range(6, 9)))
    footer = 1 << 16  # what pyarrow reads of the end, to find the footer in it
    group = pq.read_metadata(tmp_path / "1.parquet").row_group(1)
    needed = sum(
        column.total_compressed_size
        for column in map(group.column, range(group.num_columns))
        if column.path_in_schema != "metadata"
    )
    assert surveyed <= footer
    assert here.sent("/storage/") - surveyed <= footer + needed
    assert needed < len(pages) / 6
    assert len(here.asked("/storage/")) <= 5, "neither does it ask for every column on its own"


def test_a_tar_is_copied_for_as_long_as_it_is_read(here, tmp_path):
    lines = [["first line", "second line"]]
    tar(tmp_path / "papers.tar", {"a.json": pdfa_json(lines), "a.pdf": pdf(lines)})
    here.repository("acme/pages", {"papers.tar": (tmp_path / "papers.tar").read_bytes()})
    (input_file,) = list_input_files("papers", ROOT, "*.tar", ranged=Pdfa().ranged)
    with open_input(input_file) as path:
        assert Pdfa().survey(path) == Pdfa().survey(tmp_path / "papers.tar")
    assert not path.exists()


def test_a_small_file_that_comes_whole_whatever_is_asked_for_is_read(here, pages):
    here.repository("acme/pages", {"in-git.pq": pages})
    (input_file,) = list_input_files("web", ROOT, "*.pq", ranged=Obelics().ranged)
    with open_input(input_file) as path:
        assert [row.row for row in Obelics().rows(path, range(6, 9))] == [6, 7, 8]


def test_a_parquet_file_that_is_none_is_named(here):
    here.repository("acme/pages", {"1.parquet": b"these are not the bytes of a table"})
    (input_file,) = list_input_files("web", ROOT, "*", ranged=Obelics().ranged)
    with (
        open_input(input_file) as path,
        pytest.raises(SourceError, match=r"hf://datasets/acme/pages@\w+/1\.parquet: expected a Parquet"),
    ):
        Obelics().survey(path)


def test_the_token_goes_to_the_hub_and_nowhere_else(here, monkeypatch, pages):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    here.repository("acme/pages", {"1.parquet": pages}, tokens=frozenset({TOKEN}))
    (input_file,) = list_input_files("web", ROOT, "*")
    with open_local(input_file) as path:
        assert path.read_bytes() == pages
    assert {request.headers.get("Authorization") for request in here.asked("^/api|/resolve/")} == {f"Bearer {TOKEN}"}
    assert {request.headers.get("Authorization") for request in here.asked("^/storage")} == {None}
    assert TOKEN not in repr(input_file)


# -- trouble


def read(here) -> bytes:
    (input_file,) = list_input_files("web", ROOT, "*.parquet")
    with open_local(input_file) as path:
        return path.read_bytes()


@pytest.mark.parametrize("where", ["/revision/", "/tree/", "/resolve/", "/storage/"])
@pytest.mark.parametrize("fault", [hang_up, status(503), status(429)], ids=["hang up", "503", "429"])
def test_what_passes_is_asked_again(here, pages, where, fault):
    here.repository("acme/pages", {"1.parquet": pages})
    here.fault(where, fault, times=2)
    assert read(here) == pages


def test_the_hub_says_how_long_to_wait(here, pages, waits):
    here.repository("acme/pages", {"1.parquet": pages})
    here.fault("/tree/", status(429, Retry_After=40))
    here.fault("/storage/", status(503, Retry_After=70))
    assert read(here) == pages
    assert [wait // 10 for wait in waits] == [4, 7]


@pytest.mark.parametrize(
    "fault",
    [cut(None), cut(-1), other_range, status(200), page(b"<html>Sign in")],
    ids=["cut", "short", "other", "empty", "page"],
)
def test_a_body_that_is_not_whole_is_asked_for_again_and_never_becomes_data(here, pages, fault):
    here.repository("acme/pages", {"1.parquet": pages})
    here.fault("/storage/", fault)
    assert read(here) == pages
    here.fault("/storage/", fault, times=100)
    with pytest.raises(SourceError, match="asked for bytes|breaks off"):
        read(here)


def test_a_source_that_reads_by_range_gets_the_same_care(here, pages):
    here.repository("acme/pages", {"1.parquet": pages})
    (input_file,) = list_input_files("web", ROOT, "*", ranged=Obelics().ranged)
    here.fault("/storage/", cut(-1))
    with open_input(input_file) as path:
        rows = list(Obelics().rows(path, range(20)))
        assert [row.pages[0].nodes[0].text.partition(" ")[0] for row in rows] == [str(row) for row in range(20)]
        here.fault("/storage/", cut(-1), times=100)
        with pytest.raises(SourceError, match="asked for bytes"):
            Obelics().survey(path)


def test_a_copy_that_is_not_what_the_hub_lists_is_refused(here, pages):
    here.repository("acme/pages", {"1.parquet": pages})
    here.fault("/storage/", wrong_bytes)
    with pytest.raises(SourceError, match="is not what the Hub lists"):
        read(here)


def test_a_hub_that_stays_away_is_said_with_what_to_do(here, pages):
    here.repository("acme/pages", {"1.parquet": pages})
    for fault, message in ((status(429), "too many requests"), (status(502), "answers 502"), (hang_up, "breaks off")):
        here.fault("/tree/", fault, times=100)
        with pytest.raises(SourceError, match=f"{message}.*Run the same command again"):
            read(here)
        here.heal()


def test_retries_of_ours_are_not_logged_and_those_of_others_are(here, pages):
    logger, records = logging.getLogger("huggingface_hub.utils._http"), list[logging.LogRecord]()
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    here.repository("acme/pages", {"1.parquet": pages})
    here.fault("/revision/", status(502), times=100)
    try:
        with pytest.raises(SourceError, match="read a copy with --source NAME=PATH"):
            read(here)
        assert records == []
        with pytest.raises(HTTPError):
            http_backoff("GET", f"{here.url}/api/datasets/acme/pages/revision/main", max_retries=1).raise_for_status()
        assert records
    finally:
        logger.removeHandler(handler)


def test_a_repository_of_many_sources_is_asked_once_for_its_commit(here, pages, tmp_path):
    commit = here.repository("acme/pages", {"1.parquet": pages}).commit("main")
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(
            {"name": "far", "sources": {name: {"kind": "obelics", "root": ROOT, "files": "*"} for name in "abc"}}
        )
    )
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))[0]
    pinned = pin_hub_roots(tmp_path, recipe, accept_changes=False)
    assert set(pinned.roots().values()) == {f"{ROOT}@{commit}"}
    assert len(here.asked("/revision/")) == 1
    assert check_inputs(recipe, tmp_path).errors == ()
    assert len(here.asked("/revision/")) == 2


@pytest.mark.parametrize("where", ["/revision/", "/tree/"])
@pytest.mark.parametrize("body", [b"<html>Sign in", b"[]", b"{}", b"null", b'[{"type": "file"}]', b'{"sha": "../.."}'])
def test_what_is_no_answer_of_a_hub_is_said(here, where, body):
    here.repository("acme/pages", {"1.parquet": b"1"})
    here.fault(where, page(body), times=100)
    with pytest.raises(SourceError, match="HF_ENDPOINT|no files at all"):
        read(here)


GATED, PRIVATE = {"tokens": frozenset({"a"}), "gated": True}, {"tokens": frozenset({"a"})}


@pytest.mark.parametrize(
    ("settings", "token", "message"),
    [
        (
            GATED,
            None,
            r"gated, and no token is set. Ask for access on http://\S+/datasets/acme/pages, then set HF_TOKEN",
        ),
        (GATED, TOKEN, "gated, and the token in use does not open it"),
        (PRIVATE, None, "no such dataset on .* or it is private, and no token is set. Check the name; or set HF_TOKEN"),
        (PRIVATE, TOKEN, "no such dataset on .* or it is private, and the token in use does not open it"),
        ({}, "unknown", "does not know the token in use"),
    ],
)
def test_a_closed_door_is_named_with_the_way_in(here, monkeypatch, settings, token, message):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    here.repository("acme/pages", {"1.parquet": b"1"}, **settings)
    with pytest.raises(SourceError, match=f"^{ROOT}@.*: .*{message}") as caught:
        read(here)
    assert TOKEN not in str(caught.value)
    assert "Signature" not in str(caught.value)


def test_the_address_of_storage_is_in_no_message(here, pages):
    here.repository("acme/pages", {"1.parquet": pages})
    here.fault("/storage/", status(403), times=100)
    with pytest.raises(SourceError) as caught:
        read(here)
    assert "Signature" not in str(caught.value)


def test_what_is_not_there_is_answered_with_what_is(here):
    here.repository("acme/pages", {"1.parquet": b"1"})
    with pytest.raises(SourceError, match="no such dataset on .* Check the name"):
        list_input_files("web", "hf://datasets/acme/pgaes", "*")
    with pytest.raises(SourceError, match=r"@mian: there is no such revision; did you mean 'main'\? allowed: main"):
        list_input_files("web", f"{ROOT}@mian", "*")
    with pytest.raises(SourceError, match="there is no such revision"):
        list_input_files("web", f"{ROOT}@{'0' * 40}", "*")


@pytest.mark.parametrize(
    "root", ["hf://datasets/acme", "hf://acme/pages", "hf://buckets/acme/pages", f"{ROOT}@", "hf://"]
)
def test_a_root_of_another_form_is_refused_with_the_form(root):
    with pytest.raises(SourceError, match=r"expected hf://datasets/OWNER/NAME\[@REVISION\]\[/FOLDER\]"):
        list_input_files("web", root, "*")


def test_offline_means_offline(here, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE forbids to ask the Hub; unset it, or .* --source NAME=PATH"):
        list_input_files("web", ROOT, "*")
    assert here.requests == []


# -- in a recipe


def moved(tmp_path, place, **source):
    write_recipe(tmp_path, sources={"web": {"kind": "obelics", **source}})
    return load_recipe(str(tmp_path / "recipe.yaml"), {"web": place} if place else None)[0].sources["web"]


@pytest.mark.parametrize(
    ("place", "root", "files"),
    [
        (ROOT, ROOT, "kept.parquet"),
        (f"{ROOT}@v1", f"{ROOT}@v1", "kept.parquet"),
        (f"{ROOT}@refs/convert/parquet", f"{ROOT}@refs/convert/parquet", "kept.parquet"),
        (f"{ROOT}@v1/data/", f"{ROOT}@v1/data/", "kept.parquet"),
        (f"{ROOT}@v1/data/*.parquet", f"{ROOT}@v1/data", "*.parquet"),
        (f"{ROOT}/*/train-[0-9].parquet", ROOT, "*/train-[0-9].parquet"),
    ],
)
def test_the_command_line_points_a_source_to_the_hub(tmp_path, place, root, files):
    settings = moved(tmp_path, place, files="kept.parquet")
    assert (settings.root, settings.files) == (root, files)


def test_files_of_ones_own_take_the_place_of_a_split(tmp_path):
    recipe = {"root": ROOT, "subset": "vqav2", "split": "train"}
    assert moved(tmp_path, f"{ROOT}@v1", **recipe).split == "train"
    settings = moved(tmp_path, str(tmp_path / "web.parquet"), **recipe)
    assert (settings.files, settings.subset, settings.split) == ("web.parquet", None, None)
    with pytest.raises(RecipeError, match="`subset` and `split` are those of a dataset on the Hugging Face Hub"):
        moved(tmp_path, str(tmp_path), **recipe)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, r"sources\.web\.files: is missing"),
        ({"root": ROOT, "subset": "a"}, r"sources\.web\.split: is missing beside `subset`"),
        ({"root": ROOT, "split": "train", "files": "*"}, "leave one out"),
        ({"split": "train"}, "root '.' is none; give `files`"),
        ({"root": ROOT, "splits": "train"}, "did you mean 'split'"),
    ],
)
def test_a_source_says_in_one_way_which_files_are_its_own(tmp_path, source, message):
    with pytest.raises(RecipeError, match=message):
        moved(tmp_path, None, **source)


def test_a_folder_keeps_to_the_commit_it_was_begun_with(here, tmp_path):
    repository = here.repository("acme/pages", {"1.parquet": b"1"})
    first = repository.branches["main"]
    write_recipe(tmp_path, sources={"web": {"kind": "obelics", "root": ROOT, "files": "*"}})
    recipe, _, _ = load_recipe(str(tmp_path / "recipe.yaml"))
    run = tmp_path / "run"
    run.mkdir()
    assert pin_hub_roots(run, recipe, accept_changes=False).sources["web"].root == f"{ROOT}@{first}"
    assert first in (run / PINS).read_text()

    second = repository.push({"1.parquet": b"2"})
    with pytest.raises(
        StoreError,
        match=rf"(?s)has moved.*{first} then.*{second} now.*--source web={ROOT}@{first}/\n.*--accept-changes",
    ):
        pin_hub_roots(run, recipe, accept_changes=False)
    there, _, _ = load_recipe(str(tmp_path / "recipe.yaml"), {"web": f"{ROOT}@{first}/"})
    assert hub.pin_revision(pin_hub_roots(run, there, accept_changes=False).sources["web"].root) == f"{ROOT}@{first}"
    assert pin_hub_roots(run, recipe, accept_changes=True).sources["web"].root == f"{ROOT}@{second}"
    assert pin_hub_roots(run, recipe, accept_changes=False).sources["web"].root == f"{ROOT}@{second}"


# -- a whole build


@pytest.fixture(scope="module")
def input_files(tmp_path_factory):
    """Web documents with addresses of images, and questions with images; built from this machine."""
    folder = tmp_path_factory.mktemp("input files")
    sources = {name: RECIPE["sources"][name] for name in ("web", "quiz")}
    recipe = write_recipe(folder, sources=sources, stages=[], dedupe=None)
    assert vlmill("build", recipe, "--out", folder / "run", "--workers", 0) == 0
    return recipe


def test_a_build_from_the_hub_is_that_from_this_machine_whatever_breaks_on_the_way(here, input_files, tmp_path, capsys):
    run = tmp_path / "run"
    here.repository(
        "acme/web", {"web.parquet": (input_files.parent / "web.parquet").read_bytes()}, tokens=frozenset({TOKEN})
    )
    here.repository("acme/quiz", {"quiz.parquet": (input_files.parent / "quiz.parquet").read_bytes()})
    roots = {"web": "hf://datasets/acme/web@main", "quiz": "hf://datasets/acme/quiz"}
    moves = [part for name, root in roots.items() for part in ("--source", f"{name}={root}")]
    command = ["build", input_files, "--out", run, "--workers", 0, *moves]

    assert vlmill(*command) == 1
    assert "hf://datasets/acme/web@main: there is no such dataset" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        assert vlmill(*command, "--until", "survey") == 0
        here.fault("/storage/.*web", hang_up, times=3)
        here.fault("/storage/.*quiz", cut(-1), times=1000)
        assert vlmill(*command) == 1
        said = capsys.readouterr().err
        assert "quiz.parquet: asked for bytes" in said
        assert "Traceback" not in said
        here.heal()
        assert vlmill(*command) == 0
        assert here.asked("/storage/.*web") == [], "what is done is not asked for again"
    assert product(run) == product(input_files.parent / "run")
    written = [path for path in run.rglob("*") if path.is_file()]
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN not in said


def test_a_benchmark_of_the_shipped_list_is_read_from_the_hub_at_one_commit(here, input_files, tmp_path, capsys):
    run = tmp_path / "run"
    readme = b"---\nconfigs:\n- config_name: val\n  data_files: [{split: val, path: mmstar.parquet}]\n---\n"

    def files(*seeds):
        rows = [{"question": f"Which {seed}?", "answer": "A", "image": image(seed)} for seed in seeds]
        path = parquet(tmp_path / "mmstar.parquet", rows)
        return {"README.md": readme, path.name: path.read_bytes(), "more.parquet": TINY}

    repository = here.repository("Lin-Chen/MMStar", files(1, 2, 3))
    first = repository.branches["main"]
    command = ["build", input_files, "--out", run, "--workers", 0, "--until", "curate", "--accept-changes"]
    command += ["--set", "include=[{recipe: fragments/benchmarks, take: [decontaminate.against.mmstar]}]"]
    assert vlmill(*command) == 0
    assert yaml.safe_load((run / PINS).read_text())["mmstar"]["pinned"].endswith(f"MMStar@{first}")
    capsys.readouterr()
    assert vlmill("report", run, "--section", "contamination", "--json") == 0
    assert {
        name: book["items"]
        for name, book in json.loads(capsys.readouterr().out)["contamination"]["found"]["benchmarks"].items()
    } == {"mmstar.val": 3}

    repository.push(files(4))
    command.remove("--accept-changes")
    assert vlmill(*command) == 1
    assert f"--source mmstar=hf://datasets/Lin-Chen/MMStar@{first}/" in capsys.readouterr().err
    here.heal()
    assert vlmill(*command, "--source", f"mmstar=hf://datasets/Lin-Chen/MMStar@{first}/") == 0
    assert here.asked("/storage/") == [], "what is done is not asked for again"


def test_an_evaluation_set_is_read_by_range_or_copied_as_its_format_allows(here, tmp_path):
    asked = [{"question": f"Which {row}?", "answer": "This", "image": ""} for row in range(3)]
    shown = [{**row, "image": image(0)} for row in asked]
    written = [parquet(tmp_path / "a.parquet", shown), separated(tmp_path / "b.tsv", asked)]
    written.append(json_lines(tmp_path / "c.jsonl", asked))
    here.repository("acme/pages", {path.name: path.read_bytes() for path in written})
    source = Evaluation()
    for input_file, path in zip(list_input_files("exam", ROOT, "*", ranged=source.ranged), written, strict=True):
        with open_input(input_file) as there:
            assert isinstance(there, hub_files.RemoteFile) == (path.suffix == ".parquet")
            assert source.survey(there) == source.survey(path)
            assert list(source.rows(there, range(1, 3))) == list(source.rows(path, range(1, 3)))


def test_a_process_of_its_own_is_pointed_to_a_hub_by_its_environment(input_files, tmp_path):
    with Hub() as server:
        server.repository("acme/quiz", {"quiz.parquet": (input_files.parent / "quiz.parquet").read_bytes()})
        server.fault("/storage/", hang_up)
        place = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
        command = ["build", input_files, "--out", tmp_path / "run", "--workers", 0, "--until", "survey"]
        command += ["--source", "quiz=hf://datasets/acme/quiz"]
        done = subprocess.run(
            [sys.executable, "-m", "vlmill.pipeline.cli", *map(str, command)],
            env={**os.environ, **place},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert server.sent("/storage/") > 0
        assert {request.headers["Authorization"] for request in server.asked("/resolve/")} == {f"Bearer {TOKEN}"}
        assert TOKEN not in done.stdout + done.stderr
        assert "Signature" not in done.stdout + done.stderr
