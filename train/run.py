"""Training from a run's folder.

One stage, or all stages of its recipe in order, each from the weights of the one before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tokenizers import Tokenizer
from transformers import PreTrainedModel
from transformers.utils import logging

from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.keys import hash_value, to_json
from vlmill.pipeline.core.progress import Watcher
from vlmill.pipeline.engine.store import Store
from vlmill.pipeline.images import Policy
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.train import adapters, checkpoint, new_rows
from vlmill.train.data import Reader, open_reader
from vlmill.train.distributed import ProcessGroup, join_process_group
from vlmill.train.evaluate import (
    HeldOut,
    Score,
    make_score_table,
    score_held_out,
    summarise_scores,
    write_answers,
)
from vlmill.train.export import export_model, load_export
from vlmill.train.families.pretrained import choose_export_dtype
from vlmill.train.loop import Setup, run_stage
from vlmill.train.model import create_model, save_weights
from vlmill.train.settings import Machine, ModelSettings, Training, read_model_settings, read_training_settings
from vlmill.train.steps import count_steps

RESULT = "result.json"
ANSWERS = "held_out.jsonl"
"""What the trained stage made of each held-out sample."""


@dataclass(frozen=True)
class Result:
    """What a trained stage left behind."""

    stage: str
    steps: int
    checkpoint: Path  # the next stage starts from it
    export: Path  # for transformers
    log: Path
    scores: Mapping[str, Score]  # by source; empty where nothing was held out


def train_stages(
    directory: Path, stage: str | None = None, machine: Machine | None = None, console: Console | None = None
) -> list[Result]:
    """Train the stages of the recipe that `directory` is locked to, or one of them.

    One stage starts from the stage before it.

    Raises:
        RecipeError: the recipe has no such stage.
        StoreError: a mixture, or the weights of the stage before, are missing.
    """
    recipe = read_locked_recipe(directory)
    names = [item.name for item in recipe.stages]
    if stage is not None and stage not in names:
        raise RecipeError(f"--stage {stage}: the recipe has no such stage; {suggest_names(stage, names)}")
    model, results = read_model_settings(recipe), list[Result]()
    for item in recipe.stages:
        if stage not in (None, item.name):
            continue
        before = names.index(item.name) - 1
        result = train_stage(
            directory,
            item.name,
            read_training_settings(item),
            model,
            start_from=find_final_checkpoint(directory, names[before]) if before >= 0 else None,
            policy=recipe.policies[item.policy],
            machine=machine,
            console=console or Console(highlight=False),
        )
        results.append(result)
    return results


def find_final_checkpoint(directory: Path, stage: str) -> Path:
    """The last checkpoint of a stage that is trained to its end.

    Raises:
        StoreError: it is not.
    """
    result = directory / "train" / stage / RESULT
    kept = checkpoint.list_complete(directory / "train" / stage / "checkpoints")
    if not (result.exists() and kept):
        raise StoreError(
            f"{directory}: stage {stage!r} is not trained yet, and the next one starts from its weights; run: "
            f"vlmill train {directory} --stage {stage}"
        )
    return kept[-1]


def train_stage(
    directory: Path,
    stage: str,
    training: Training,
    model: ModelSettings,
    *,
    start_from: Path | None = None,
    policy: Policy | None = None,
    machine: Machine | None = None,
    console: Console | None = None,
) -> Result:
    """Train one stage to its end, from its newest checkpoint if it was interrupted; then export and score it.

    Args:
        directory: of the run. The stage's files go to `train/<stage>/` there.
        stage: whose mixture is trained on.
        training: its settings.
        model: what is trained.
        start_from: a checkpoint of the stage before; None starts from new weights and pretrained towers.
        policy: that the mixture's shards must have been rendered under; None takes any.
        machine: what it runs on.
        console: where progress and scores are shown.

    Raises:
        StoreError: the mixture is missing or was made under another policy, or the folder was begun under other
            settings.
        RecipeError: model, policy and plan do not fit.
    """
    machine, console = machine or Machine(), console or Console(quiet=True)
    mixture = PlannedMixture(directory, stage, machine.shards)
    if policy is not None and policy != mixture.policy:
        raise StoreError(
            f"{mixture.folder} was made under {mixture.policy}, and the recipe's policy is {policy}; "
            f"run the build again: vlmill build RECIPE --out {directory}"
        )
    reader = open_reader(mixture, model, training.loss)
    steps, identity = count_steps(training, mixture.sequences), _describe_identity(mixture, training, model, start_from)
    folder, dtype = directory / "train" / stage, choose_export_dtype(model)
    finished = _is_stage_finished(folder, identity, dtype)  # maybe by ranks elsewhere, whose GPUs need not be here
    device = torch.device("cpu") if finished else _take_device(machine)
    with _prepare_torch(machine, device), join_process_group(device) as group, _lock_folder(folder, group):
        if not finished:
            network = _build_network(reader, training, model, start_from)
            last = run_stage(Setup(reader, network, training, steps, identity, folder, device, machine, group), console)
            weights = checkpoint.gather_weights(network)
            if group.leads:
                if group.size > 1:  # what ranks share between them cannot be used by one alone
                    network = _build_network(reader, training, model)
                    network.load_state_dict(weights)
                adapters.merge_adapters(network)
                new_rows.merge_rows(network)
                save_weights(network, last)
                export_model(folder / "export", network, reader.family, reader.tokenizer, mixture.chat, dtype)
                found = score_held_out(network.to(device), reader, device, training.evaluate)
                _write_results(folder, identity, dtype, found, summarise_scores(found, mixture))
            group.wait()
        result = _read_result(folder, stage)
        if group.leads and result.scores:
            console.print(make_score_table(result.scores, stage))
    return result


def _build_network(
    reader: Reader, training: Training, model: ModelSettings, start_from: Path | None = None
) -> PreTrainedModel:
    """The model of a stage, with what it trains in place of whole components."""
    chat, own = reader.mixture.chat, Tokenizer.from_file(str(reader.mixture.tokenizer))
    new = new_rows.find_new_rows(model, reader.tokenizer, chat, own.get_vocab(with_added_tokens=True))
    network = create_model(
        reader.family, reader.tokenizer, chat, training.seed, start_from, adapter=training.adapter, new=new
    )
    if new_rows.trains_rows_alone(training):
        new_rows.insert_rows(network, new)
    return network


def _write_results(
    folder: Path,
    identity: Mapping[str, Any],
    dtype: torch.dtype,
    found: Sequence[HeldOut],
    scores: Mapping[str, Score],
) -> None:
    """Write the answers and scores of held-out samples; the scores' file, written last, completes a stage."""
    write_answers(folder / ANSWERS, found)
    by_source = {name: asdict(score) for name, score in scores.items()}
    write_atomically(folder / RESULT, {"identity": identity, "export_dtype": str(dtype), "scores": by_source})


def evaluate_stage(
    directory: Path,
    stage: str | None = None,
    samples: int | None = None,
    export: Path | None = None,
    machine: Machine | None = None,
    watcher: Watcher | None = None,
) -> tuple[str, dict[str, Score]]:
    """Score a trained stage, or a model in an export's folder, on the stage's held-out samples. Writes nothing.

    Args:
        directory: of the run.
        stage: of its recipe; None is the last one.
        samples: of each source at most; None is what the stage's `evaluate` says.
        export: a folder with a model of the stage's class and tokenizer, scored in place of the trained stage.
        machine: what it runs on.
        watcher: receives its progress.

    Returns:
        The stage's name, and its scores by source: none where nothing is held out.

    Raises:
        RecipeError: the recipe has no such stage.
        StoreError: the mixture is missing, the stage is not trained yet, or the folder holds another kind of model.
    """
    recipe, machine = read_locked_recipe(directory), machine or Machine()
    names = [item.name for item in recipe.stages]
    if not names or stage not in (None, *names):
        raise RecipeError(f"--stage {stage}: the recipe has no such stage; {suggest_names(stage or '', names)}")
    chosen = recipe.stages[names.index(stage) if stage else -1]
    training, device = read_training_settings(chosen), _take_device(machine)
    mixture = PlannedMixture(directory, chosen.name, machine.shards)
    reader = open_reader(mixture, read_model_settings(recipe), training.loss)
    with _prepare_torch(machine, device):
        before = None if export else find_final_checkpoint(directory, chosen.name)
        network = create_model(reader.family, reader.tokenizer, mixture.chat, training.seed, before)
        if export:
            network = load_export(export, network, reader.tokenizer)
        found = score_held_out(network, reader, device, training.evaluate if samples is None else samples, watcher)
    return chosen.name, summarise_scores(found, mixture)


def _describe_identity(
    mixture: PlannedMixture, training: Training, model: ModelSettings, start_from: Path | None
) -> dict[str, Any]:
    """What the weights of a stage are a function of; what only saves, exports or scores them is left out."""
    settings = {
        name: value
        for name, value in asdict(training).items()
        if name not in {"checkpoint_every", "keep_last", "evaluate"}
    }
    before = hash_value(json.loads((start_from / "state.json").read_bytes())) if start_from else None
    towers = json.loads(to_json(model))
    towers.pop("export_dtype")
    return {
        "mixture": mixture.sha256,
        "start_from": before,
        "model": towers,
        **json.loads(to_json(settings)),
    }


def _is_stage_finished(folder: Path, identity: Mapping[str, Any], dtype: torch.dtype) -> bool:
    """Whether the stage is trained to its end, and exported in this dtype."""
    if not (path := folder / RESULT).exists():
        return False
    found = json.loads(path.read_bytes())
    return bool(found["identity"] == identity and found.get("export_dtype") == str(dtype))


def _read_result(folder: Path, stage: str) -> Result:
    last = checkpoint.list_complete(folder / "checkpoints")[-1]
    scores = json.loads((folder / RESULT).read_bytes())["scores"]
    found = {name: Score(**score) for name, score in scores.items()}
    return Result(stage, int(last.name), last, folder / "export", folder / "log.jsonl", found)


def _take_device(machine: Machine) -> torch.device:
    """The device that the machine names; a GPU becomes the current one, before anything is made on any.

    A GPU without a number is this rank's: the one with its number among the ranks of this machine (`LOCAL_RANK`).

    Raises:
        RecipeError: there is no such kind, this process does not see it, or other ranks of this machine would take it,
            too.
    """
    named = machine.device if machine.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(named)
    except RuntimeError as error:
        raise RecipeError(
            f"--device {machine.device}: there is no such kind; allowed: auto, cpu, cuda, cuda:N"
        ) from error
    if device.type != "cuda":
        return device
    seen, ranks = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    number = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if number >= seen:
        way = "start as many ranks as it sees, one for each" if device.index is None and seen else "take another"
        raise RecipeError(
            f"--device {machine.device}: this rank's GPU is cuda:{number}, and torch {torch.__version__} sees "
            f"{seen} GPUs here; {way}, or --device cpu"
        )
    if device.index is not None and min(ranks, seen) > 1:
        raise RecipeError(
            f"--device {machine.device}: {ranks} ranks of this machine would share one of its {seen} GPUs; "
            "take --device cuda, a GPU for each"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


@contextmanager
def _prepare_torch(machine: Machine, device: torch.device) -> Iterator[None]:
    """Set up torch and transformers for a training, and put back at its end what was there.

    Torch takes as many threads as `machine` says, and on a CPU only operations that always give the same bits.
    """
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    bars = logging.is_progress_bar_enabled()
    torch.set_num_threads(machine.threads or max(1, (os.cpu_count() or 2) - 1))
    torch.use_deterministic_algorithms(device.type == "cpu")
    logging.disable_progress_bar()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _lock_folder(folder: Path, group: ProcessGroup) -> Iterator[None]:
    """Hold a stage's folder against a second training, and clear away what a killed one left half written."""
    if not group.leads:
        yield
        return
    with Store(folder).locked():
        checkpoint.remove_partial(folder)
        yield
