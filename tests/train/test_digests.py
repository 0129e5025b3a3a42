"""A changed file of a run is named by `verify`, and refused by a training before any step uses it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.helpers.small import RECIPE, vlmill, write_recipe
from tests.helpers.stages import MACHINE, lock_recipe, question, write_run
from vlmill.api.runs import open_run
from vlmill.mixtures.page import render_mixture_page
from vlmill.mixtures.reader import PlannedMixture
from vlmill.mixtures.webdataset import open_webdataset
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.core.seal import find_seal_fault, read_sealed_json, seal_json, seal_yaml
from vlmill.pipeline.engine.store import Store
from vlmill.pipeline.recipe.lock import read_lock
from vlmill.pipeline.recipe.mapping import LOCK
from vlmill.pipeline.reports.trace import find_id, trace_sample
from vlmill.train import loop
from vlmill.train.evaluate import find_majority
from vlmill.train.run import evaluate_stage, train_stages
from vlmill.train.trace import find_steps, list_seen

TRAINING = {"steps": 4, "sequences": 2, "learning_rate": {"text": 3e-3}, "evaluate": 4, "checkpoint_every": 2}
HOLDS_OUT = {**RECIPE["stages"][0]["mixture"], "held_out": {"quiz": 0.3}}
DIGESTS = {"digests.json"}


def flip(path: Path, place: float) -> None:
    """Change one bit, at a fraction of the file."""
    data = bytearray(path.read_bytes())
    data[min(int(place * len(data)), len(data) - 1)] ^= 4
    path.unlink()  # it may be a hard link
    path.write_bytes(data)


# -- verify


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that the commands have built, trained and scored."""
    root = tmp_path_factory.mktemp("finished") / "run"
    stages = [{**RECIPE["stages"][0], "mixture": HOLDS_OUT}]
    recipe = write_recipe(tmp_path_factory.mktemp("inputs"), stages=stages)
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    assert vlmill("train", root, "--device", "cpu", "--threads", 1) == 0
    return root


def list_files(root: Path, *patterns: str) -> list[str]:
    """Paths of files that are not empty."""
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file() and path.stat().st_size}
    return sorted(str(path.relative_to(root)) for path in found)


def test_a_finished_run_is_sound(finished):
    assert open_run(finished).verify() == []


@pytest.mark.parametrize("place", [0, 0.5, 1])
@pytest.mark.parametrize("patterns", [("train/**/*", "steps/**/made_by.json"), ("train/**/*.json", "mixtures/**/*")])
def test_verify_names_every_file_of_which_one_bit_has_changed(finished, tmp_path, patterns, place):
    root = Path(shutil.copytree(finished, tmp_path / "run"))
    chosen = list_files(root, *patterns)
    if patterns[0] == "train/**/*":
        assert len({Path(path).suffix for path in chosen}) >= 6
        chosen = [path for path in chosen if Path(path).name not in DIGESTS]
    else:
        chosen = [path for path in chosen if Path(path).name in DIGESTS or path.startswith("mixtures/")]
        assert {Path(path).name for path in chosen} > DIGESTS
    for path in chosen:
        flip(root / path, place)
    said = open_run(root).verify()
    assert [path for path in chosen if not any(line.startswith(path) for line in said)] == []


@pytest.mark.parametrize("place", [0, 0.3, 0.999, 1])
def test_a_lock_of_which_one_bit_has_changed_is_refused_by_verify_and_train(finished, tmp_path, place, capsys):
    root = tmp_path
    for path in finished.iterdir():
        (root / path.name).symlink_to(path)
    (root / LOCK).unlink()
    shutil.copyfile(finished / LOCK, root / LOCK)
    flip(root / LOCK, place)
    for command in ("verify", "train"):
        assert vlmill(command, root) == 1
        assert LOCK in capsys.readouterr().err


def test_a_lock_without_a_digest_is_read_and_verify_says_so(finished, tmp_path):
    for path in finished.iterdir():
        (tmp_path / path.name).symlink_to(path)
    text = (finished / LOCK).read_text()
    (tmp_path / LOCK).unlink()
    (tmp_path / LOCK).write_text(text[: text.index("# sha256")])
    assert read_lock(tmp_path) == read_lock(finished)
    (line,) = open_run(tmp_path).verify()
    assert line.startswith(f"{LOCK}: has no sha256")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4).filter(lambda name: name != "sha256"), VALUES, max_size=4), st.data())
def test_no_byte_of_a_sealed_file_can_change_unseen(tmp_path_factory, value, data):
    folder = tmp_path_factory.mktemp("sealed")
    sealed, text = seal_json(value).encode(), seal_yaml("a: 1\nb: [2, 3]\n").encode()
    for name, whole in (("sealed.json", sealed), ("sealed.yaml", text)):
        path = folder / name
        path.write_bytes(whole)
        place = data.draw(st.integers(0, len(whole) - 1))
        other = bytes([data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))])  # noqa: B023
        if name.endswith("json"):
            assert read_sealed_json(path, "") == value
            path.write_bytes(whole[:place] + other + whole[place + 1 :])
            with pytest.raises(StoreError, match=r"sealed\.json"):
                read_sealed_json(path, "")
        else:
            assert find_seal_fault(path) is None
            path.write_bytes(whole[:place] + other + whole[place + 1 :])
            assert find_seal_fault(path)


# -- train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one stage, trained to its end."""
    root = tmp_path_factory.mktemp("trained") / "run"
    write_run(root, {"quiz": [question(number) for number in range(40)]}, hold_out=4, length=96)
    lock_recipe(root, TRAINING)
    train_stages(root, None, MACHINE, Console(quiet=True))
    return root


@pytest.fixture
def taken(monkeypatch):
    """The steps that were begun; none is computed."""
    steps = []
    monkeypatch.setattr(loop, "_take_step", lambda *arguments: steps.append(arguments[3]))
    return steps


def interrupt(trained: Path, tmp_path: Path) -> Path:
    """A copy whose training stopped after two of its four steps."""
    root = Path(shutil.copytree(trained, tmp_path / "run"))
    (root / "train/align/result.json").unlink()
    shutil.rmtree(root / "train/align/checkpoints/00000004")
    return root


@pytest.mark.parametrize(
    "file",
    [
        "mixtures/align/mixture.lock.json",
        "mixtures/align/plan/00000.parquet",
        "shards/quiz/anyres/00.index.parquet",
        "tokenizer.json",
        "train/align/checkpoints/00000002/.metadata",
        "train/align/checkpoints/00000002/__0_0.distcp",
        "train/align/checkpoints/00000002/state.json",
        "train/align/checkpoints/00000002/digests.json",
    ],
)
def test_no_step_is_taken_on_a_file_of_which_one_bit_has_changed(trained, tmp_path, taken, file):
    root = interrupt(trained, tmp_path)
    flip(root / file, 0.5)
    with pytest.raises(StoreError, match=Path(file).name):
        train_stages(root, None, MACHINE, Console(quiet=True))
    assert taken == []


@pytest.mark.parametrize("place", [0.05, 0.5, 0.99])
def test_no_step_is_taken_on_a_sample_of_which_one_bit_has_changed(trained, tmp_path, taken, place):
    root = interrupt(trained, tmp_path)
    for index in (root / "shards/quiz/anyres").glob("*.index.parquet"):
        tar = index.with_name(index.name.replace(".index.parquet", ".tar"))
        data = bytearray(tar.read_bytes())
        for row in pq.read_table(index).to_pylist():
            data[row["offset"] + int(place * row["size"])] ^= 1
        tar.write_bytes(data)
    with pytest.raises(StoreError, match="their sha256 is not the one in the shard's index"):
        train_stages(root, None, MACHINE, Console(quiet=True))
    assert taken == []


def test_answers_that_samples_have_exchanged_are_not_learned(tmp_path, taken):
    answers = ("left", "down")
    made = [
        ((Node("text", "user", text="Where to?"), Node("text", "assistant", supervised=True, text=answer)), [])
        for answer in answers * 20
    ]
    write_run(tmp_path, {"quiz": made}, length=96)
    lock_recipe(tmp_path, TRAINING)
    for tar in (tmp_path / "shards/quiz/anyres").glob("*.tar"):
        one, other = (b'"%s"' % answer.encode() for answer in answers)
        tar.write_bytes(other.join(part.replace(other, one) for part in tar.read_bytes().split(one)))
    with pytest.raises(StoreError, match="their sha256 is not the one in the shard's index"):
        train_stages(tmp_path, None, MACHINE, Console(quiet=True))
    assert taken == []


def test_texts_that_have_changed_are_counted_for_no_majority_answer(trained, tmp_path):
    root = Path(shutil.copytree(trained, tmp_path / "run"))
    for tar in (root / "shards/quiz/anyres").glob("*.tar"):
        tar.write_bytes(tar.read_bytes().replace(b'"text":"red"', b'"text":"dye"'))
    with pytest.raises(StoreError, match="the sha256 of its JSON is not the one in the shard's index"):
        find_majority(PlannedMixture(root, "align"), 0)


@pytest.mark.parametrize(
    "file", ["result.json", "checkpoints/00000004/model.safetensors", "checkpoints/00000004/digests.json"]
)
def test_a_trained_stage_is_not_scored_by_files_that_have_changed(trained, tmp_path, file):
    root = Path(shutil.copytree(trained, tmp_path / "run"))
    flip(root / "train/align" / file, 0.5)
    with pytest.raises(StoreError, match=Path(file).name):
        evaluate_stage(root, machine=MACHINE)


def test_an_export_of_which_one_bit_has_changed_is_not_scored(trained, tmp_path):
    root = Path(shutil.copytree(trained, tmp_path / "run"))
    flip(root / "train/align/export/model.safetensors", 0.9)
    with pytest.raises(StoreError, match=r"export/model\.safetensors is not as it was written"):
        evaluate_stage(root, export=root / "train/align/export", machine=MACHINE)


# -- other readers


READERS = {
    "webdataset": lambda root, _: list(open_webdataset(root, "align")),
    "trace": trace_sample,
    "trace of a shard's sample": lambda root, name: find_id(root, trace_sample(root, name).shards[0]),
    "samples of a step": lambda root, _: list(list_seen(root, None, 0)),
    "steps of a sample": lambda root, name: find_steps(root, "align", name),
    "page": lambda root, _: render_mixture_page(root, None, {}),
}
READ = [
    ("webdataset", "shards/*/*/*.tar"),
    ("webdataset", "shards/*/*/*.index.parquet"),
    ("trace", "steps/quiz/*/*.samples.parquet"),
    ("trace", "steps/quiz/*/*.image_stats.parquet"),
    ("trace", "steps/quiz/*/*.verdicts.parquet"),
    ("trace", "steps/dedupe/resolve/*quiz*.verdicts.parquet"),
    ("trace of a shard's sample", "shards/quiz/*/*.index.parquet"),
    ("samples of a step", "shards/*/*/*.lineage.parquet"),
    ("samples of a step", "mixtures/*/plan/*.parquet"),
    ("steps of a sample", "shards/quiz/*/*.index.parquet"),
    ("steps of a sample", "mixtures/*/plan/*.parquet"),
    ("page", "mixtures/*/plan/*.parquet"),
    ("page", "shards/*/*/*.index.parquet"),
    ("page", "shards/*/*/*.tar"),
    ("page", "shards/*/*/lengths/*.parquet"),
    ("page", "steps/*/*/*.samples.parquet"),
    ("page", "steps/dedupe/resolve/*.verdicts.parquet"),
]
"""Who reads what of a run."""


def change_value(path: Path) -> None:
    """Change a file so that what reads it without a look at its digest notices nothing: a table stays a table."""
    if path.suffix == ".tar":
        path.write_bytes(path.read_bytes().replace(b'"kind"', b'"kinD"', 1))
    else:
        table = pq.read_table(path)
        path.unlink()
        pq.write_table(table.replace_schema_metadata({"changed": "yes"}), path)


@pytest.fixture(scope="module")
def sample_id(finished):
    """A sample of the first training step."""
    return next(seen.id for seen in list_seen(finished, None, 0) if seen.id.startswith("quiz/"))


@pytest.mark.parametrize(("reader", "pattern"), READ)
def test_no_reader_uses_a_file_that_has_changed(finished, sample_id, tmp_path, reader, pattern):
    root = Path(shutil.copytree(finished, tmp_path / "run"))
    read, changed = READERS[reader], list_files(root, pattern)
    assert changed
    read(root, sample_id)
    for path in changed:
        change_value(root / path)
    with pytest.raises(StoreError, match=r"sha256.* is not the one|sha256 is another"):
        read(root, sample_id)


# -- builds beside trainings


def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StoreError, match="holds no run"):
            train_stages(folder, None, MACHINE)
    assert not list(tmp_path.iterdir())


def test_a_build_and_a_training_lock_each_other_out_and_two_trainings_do_not(trained, tmp_path, monkeypatch):
    root = interrupt(trained, tmp_path)
    with (
        Store(root).locked(),
        pytest.raises(StoreError, match="a build is at work in this folder; call again when it has ended"),
    ):
        train_stages(root, None, MACHINE, Console(quiet=True))
    update = loop._take_step

    def step(*arguments):
        with pytest.raises(StoreError, match="another build or a training is at work"), Store(root).locked():
            pass
        with Store(root).shared():
            return update(*arguments)

    monkeypatch.setattr(loop, "_take_step", step)
    train_stages(root, None, MACHINE, Console(quiet=True))
    with Store(root).locked():
        pass
