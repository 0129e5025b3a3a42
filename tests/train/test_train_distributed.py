"""Several ranks train the model that one does."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import distributed
from torch.distributed.fsdp._fully_shard import _fsdp_param_group
from transformers import AutoModelForImageTextToText

from tests.helpers.ranks import DEAD, die_together, run_ranks
from tests.helpers.stages import (
    MACHINE,
    article,
    lock_recipe,
    model_settings,
    published,
    question,
    saved_weights,
    write_run,
    write_tokenizer,
)
from tests.train.test_families import CASES
from tests.train.test_train_new_rows import settings as of_pretrained
from tests.train.test_train_new_rows import write_language_model
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.chat.encode import FORMATS, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.train import deferred, loop, network
from vlmill.train import run as module
from vlmill.train.balance import deal_sequences
from vlmill.train.data import open_reader, price_sequences
from vlmill.train.distributed import ProcessGroup, find_layers
from vlmill.train.model import create_model
from vlmill.train.run import evaluate_stage, train_stage
from vlmill.train.settings import Adapter, LossWeights, Machine, ModelSettings, Training
from vlmill.train.steps import StepSequences

TRAINING = Training(
    learning_rate={"text": 3e-3, "vision": 3e-3, "projector": 3e-3},
    sequences=4,
    ranks=4,
    steps=3,
    loss="text",
    loss_weights=LossWeights(average="square_root"),
    evaluate=0,
    checkpoint_every=1,
)
SEEN = ("tokens", "supervised", "tiles")


def train(root: Path, model: ModelSettings | None = None, dtype: str = "float32"):
    """The stage; where a language model lies in the folder, adapters beside it."""
    if (path := root / "lm").exists():
        adapted = replace(TRAINING, adapter=Adapter(rank=4), loss="answers")
        return train_stage(root, "align", adapted, of_pretrained(path, "llava_next"), machine=MACHINE)
    return train_stage(root, "align", replace(TRAINING, dtype=dtype), model or model_settings(), machine=MACHINE)


def test_a_world_of_one_changes_nothing():
    group = ProcessGroup()
    assert group.leads
    assert group.total(torch.tensor([2.0])).tolist() == [2.0]


def tiles_of_ranks(root: Path, step: int) -> list[int]:
    """How many tiles each of two ranks has in a step."""
    mixture = PlannedMixture(root, "align")
    numbers = StepSequences(mixture, TRAINING).list_numbers(step)
    price = price_sequences(open_reader(mixture, model_settings(), TRAINING.loss), TRAINING)
    dealt = deal_sequences(price(numbers), 2)
    return [int(mixture.measure([numbers[place] for place in rank.ravel()])[:, 2].sum()) for rank in dealt]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run in which a rank's sequences of a step show no image while another's do, and whose steps are buckets."""
    only_text = [((node,), []) for nodes, _ in map(article, range(40)) for node in nodes if node.kind == "text"]
    root = write_run(tmp_path_factory.mktemp("made"), {"some": [*only_text[:10], *map(question, range(30))]}, length=60)
    assert any(0 in tiles and any(tiles) for tiles in map(partial(tiles_of_ranks, root), range(TRAINING.steps)))
    assert StepSequences(PlannedMixture(root, "align"), TRAINING).bucket > 1
    return root


@pytest.fixture(scope="module")
def alone(made, tmp_path_factory):
    """What one rank makes of it."""
    return train(copy(made, tmp_path_factory.mktemp("alone")))


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def lines(root: Path) -> list[dict]:
    """The log."""
    return [json.loads(line) for line in (root / "train" / "align" / "log.jsonl").read_text().splitlines()]


def copy(root: Path, folder: Path) -> Path:
    for path in root.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def train_on(ranks: int, root: Path, *arguments: str, die_before: int | None = None) -> None:
    """Train with so many processes; with `die_before` all of them drop dead before that step, behind its checkpoint.

    Arguments: a model, and a dtype.
    """
    run_ranks(ranks, child, root, die_before, *arguments, status=0 if die_before is None else DEAD)


def child(root: str, die_before: str, model: str = "null", dtype: str = "float32") -> None:
    """One rank; of these small models it computes its shares of nearly all parameters late."""
    deferred.LEAST = 64
    update = loop._take_step

    def step(*arguments, **named):
        if str(arguments[3]) == die_before:
            while not (Path(root) / f"train/align/checkpoints/{int(die_before):08d}").exists():
                time.sleep(0.05)
            die_together()
        return update(*arguments, **named)

    loop._take_step = step
    found = json.loads(model)
    train(Path(root), found and parse_block(ModelSettings, found, "model"), dtype)


def assert_same_course(root: Path, expected) -> None:
    """The same samples in the same steps, and their losses, whatever became of the ranks."""
    for one, other in zip(lines(root), lines(expected.checkpoint.parents[3]), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)
        assert {name: one[name] for name in SEEN} == {name: other[name] for name in SEEN}
        assert {name: source["supervised"] for name, source in one["sources"].items()} == {
            name: source["supervised"] for name, source in other["sources"].items()
        }


def test_two_ranks_have_the_losses_of_one_even_where_one_sees_no_image(made, alone, tmp_path):
    root = copy(made, tmp_path)
    train_on(2, root)
    assert_same_course(root, alone)
    exported = AutoModelForImageTextToText.from_pretrained(root / "train" / "align" / "export").state_dict()
    for name, weights in AutoModelForImageTextToText.from_pretrained(alone.export).state_dict().items():
        torch.testing.assert_close(
            exported[name], weights, rtol=1e-3, atol=1e-4
        )  # Adam makes much of small differences


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_towers_published_in_half_precision_train_on_two_ranks_as_on_one(made, tmp_path, dtype):
    model = published(tmp_path / "published", torch.bfloat16)
    expected = train(copy(made, make(tmp_path / "alone")), model, dtype)
    root = copy(made, make(tmp_path / "two"))
    train_on(2, root, json.dumps(asdict(model)), dtype)
    for one, other in zip(lines(root), lines(expected.checkpoint.parents[3]), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5 if dtype == "float32" else 0.02)
    for checkpoint in (expected.checkpoint, root / "train" / "align" / "checkpoints" / expected.checkpoint.name):
        for weights in saved_weights(checkpoint).values():
            assert weights.dtype == torch.float32
            assert weights.ndim < 2 or not torch.equal(
                weights, weights.bfloat16().float()
            )  # has learned what bfloat16 cannot hold
    for folder in (expected.export, root / "train" / "align" / "export"):
        exported = AutoModelForImageTextToText.from_pretrained(folder)
        assert {weights.dtype for weights in exported.state_dict().values()} == {torch.bfloat16}
        config = exported.config
        assert {one.dtype for one in (config, config.vision_config, config.text_config)} == {torch.bfloat16}


def test_native_resolution_and_positions_of_fractions_train_on_two_ranks_as_on_one(tmp_path):
    case = CASES["qwen3_vl, RoPE-Tie v2"]
    only_text = [((node,), []) for nodes, _ in map(article, range(40)) for node in nodes if node.kind == "text"]
    samples = {"some": [*only_text[:6], *map(question, range(30))]}
    root = write_run(tmp_path / "made", samples, case.policy, length=60, chat=case.chat)
    expected = train(copy(root, make(tmp_path / "alone")), case.settings)
    two = copy(root, make(tmp_path / "two"))
    train_on(2, two, json.dumps(asdict(case.settings)))
    assert_same_course(two, expected)


def test_layers_do_not_lie_within_each_other():
    case = CASES["idefics2"]
    chat = FORMATS[case.chat]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = load_tokenizer(write_tokenizer(Path(folder) / "tokenizer.json"), chat)
    model = create_model(case.found, tokenizer, chat, 0)
    owners = Counter(id(weights) for layer in find_layers(model) for weights in layer.parameters())
    assert set(owners.values()) == {1}


def test_a_training_that_died_goes_on_with_another_number_of_ranks(made, alone, tmp_path):
    root = copy(made, tmp_path)
    train_on(2, root, die_before=1)
    train_on(4, root, die_before=2)
    train_on(1, root)
    assert_same_course(root, alone)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_new_rows_beside_adapters_are_trained_on_two_ranks_as_on_one_and_read_back_by_one(tmp_path, tied):
    pytest.importorskip("peft")
    lm = write_language_model(tmp_path / "lm", tied=tied)
    roots = [tmp_path / name for name in ("alone", "shared")]
    for root in roots:
        root.mkdir()
        shutil.copy(lm / "tokenizer.json", root / "tokenizer.json")
        write_run(root, {"quiz": [question(number) for number in range(30)]}, length=60)
        shutil.copytree(lm, root / "lm")
    alone = train(roots[0])
    train_on(2, roots[1], die_before=2)
    train_on(1, roots[1])
    assert_same_course(roots[1], alone)
    exported = AutoModelForImageTextToText.from_pretrained(roots[1] / "train" / "align" / "export").state_dict()
    for name, weights in AutoModelForImageTextToText.from_pretrained(alone.export).state_dict().items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            torch.testing.assert_close(exported[name], weights, rtol=1e-3, atol=1e-4)


def reduce_on_ranks(root: str, after: str) -> None:
    """One rank that trains a step of two micro-batches, and counts how often it adds up gradients."""
    calls, reduce = [], _fsdp_param_group.foreach_reduce

    def counted(*arguments, **named):
        calls.append(1)
        return reduce(*arguments, **named)

    _fsdp_param_group.foreach_reduce = counted
    training, machine = replace(TRAINING, accumulation=2, ranks=None, steps=2), replace(MACHINE, reduce_after=after)
    train_stage(Path(root), "align", training, model_settings(), machine=machine)
    if os.environ["RANK"] == "0":
        (Path(root) / "calls").write_text(str(len(calls)))


def test_gradients_that_are_added_up_once_a_step_are_those_of_every_micro_batch(made, tmp_path):
    roots = {after: copy(made, make(tmp_path / after)) for after in ("step", "micro-batch")}
    for after, root in roots.items():
        run_ranks(2, reduce_on_ranks, root, after)
    calls = {after: int((root / "calls").read_text()) for after, root in roots.items()}
    assert calls["micro-batch"] == 2 * calls["step"] > 0
    for one, other in zip(*map(lines, roots.values()), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-5)


# -- GPUs, without one: what is called, and in which order


class BuildingError(Exception):
    """Stands where a model would be built."""


@pytest.fixture
def calls(monkeypatch):
    """What a rank does before it builds its model, on a machine that seems to have two GPUs."""
    found = []

    def begun(backend, *, device_id=None, **_):
        found.append(("group", backend, device_id))

    def built(*_, **__):
        raise BuildingError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: found.append(("current", device)))
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: found.append(("touched",)))
    monkeypatch.setattr(distributed, "init_process_group", begun)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(module, "create_model", built)
    monkeypatch.setattr(network, "defer_model", built)
    return found


@pytest.fixture
def second_of_two(monkeypatch):
    """The environment of torchrun's second process."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))


def begin(root: Path, device: str) -> None:
    """Train until the model would be built."""
    with pytest.raises(BuildingError):
        train_stage(root, "align", TRAINING, model_settings(), machine=Machine(device=device, threads=1))


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_rank_takes_its_own_gpu_before_it_meets_the_others(made, tmp_path, calls, second_of_two, device):
    begin(copy(made, tmp_path), device)
    assert calls == [("current", 1), ("group", "nccl", torch.device("cuda", 1))]


def test_a_rank_that_someone_else_has_put_into_a_group_takes_its_own_gpu_too(
    made, tmp_path, calls, second_of_two, monkeypatch
):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)  # as Ray Train does
    begin(copy(made, tmp_path), "cuda")
    assert calls == [("current", 1)]


def test_a_rank_that_is_not_the_first_prints_nothing(made, tmp_path, calls, second_of_two):
    console = Console(file=io.StringIO())
    with pytest.raises(BuildingError):
        train_stage(copy(made, tmp_path), "align", TRAINING, model_settings(), machine=MACHINE, console=console)
    assert calls == [("group", "gloo", None)]
    assert console.file.getvalue() == ""


def test_ranks_on_cpus_take_no_gpu(made, tmp_path, calls, second_of_two):
    begin(copy(made, tmp_path), "cpu")
    assert calls == [("group", "gloo", None)]


@pytest.mark.parametrize(("device", "gpu"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_a_process_alone_takes_the_gpu_that_is_named_or_the_first(made, tmp_path, calls, device, gpu):
    begin(copy(made, tmp_path), device)
    assert calls == [("current", gpu)]


def test_a_rank_that_sees_one_gpu_alone_may_be_told_its_number(made, tmp_path, calls, second_of_two, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    begin(copy(made, tmp_path), "cuda:0")
    assert calls == [("current", 0), ("group", "nccl", torch.device("cuda", 0))]


@pytest.mark.parametrize(
    ("device", "local", "said"),
    [
        ("auto", 2, r"rank's GPU is cuda:2, and torch \S+ sees 2 GPUs here; start as many ranks as it sees"),
        ("cuda", 3, r"rank's GPU is cuda:3, and torch \S+ sees 2 GPUs here; start as many ranks as it sees"),
        ("cuda:1", 0, "4 ranks of this machine would share one of its 2 GPUs; take --device cuda,"),
    ],
)
def test_ranks_that_have_no_gpu_of_their_own_are_refused(made, tmp_path, calls, monkeypatch, device, local, said):
    for name, value in {"RANK": local, "WORLD_SIZE": 4, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(RecipeError, match=f"--device {device}: .*{said}"):
        train_stage(copy(made, tmp_path), "align", TRAINING, model_settings(), machine=Machine(device=device))
    assert calls == []


def test_a_stage_that_ranks_elsewhere_have_trained_needs_no_gpu_here(alone, monkeypatch):
    root = alone.checkpoint.parents[3]
    machine = Machine(device="cuda:7")
    assert train_stage(root, "align", TRAINING, model_settings(), machine=machine) == alone


def test_scoring_takes_the_gpu_of_its_rank(tmp_path, calls, second_of_two):
    write_run(tmp_path, {"quiz": [question(number) for number in range(8)]}, length=96)
    lock_recipe(tmp_path, {"steps": 1, "sequences": 1, "learning_rate": {"text": 1e-3}})
    with pytest.raises(BuildingError):
        evaluate_stage(tmp_path, export=tmp_path, machine=Machine(device="cuda", threads=1))
    assert calls == [("current", 1), ("group", "nccl", torch.device("cuda", 1))]
