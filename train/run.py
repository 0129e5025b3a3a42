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
from transformers import PreTrainedModel

from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.keys import hash_value, to_json
from vlmill.pipeline.core.progress import Watcher
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.engine.store import Store
from vlmill.pipeline.images import Policy
from vlmill.pipeline.images.connector import NUMBERED
from vlmill.pipeline.recipe.lock import explain_unbuilt, read_locked_recipe
from vlmill.pipeline.recipe.other_names import offer_names
from vlmill.train import adapters, checkpoint, new_rows
from vlmill.train.answers import ANSWERS
from vlmill.train.data import Reader, open_reader
from vlmill.train.device import prepare_torch, take_device
from vlmill.train.digests import RESULT, check_export, read_result, write_result
from vlmill.train.distributed import ProcessGroup, join_process_group
from vlmill.train.evaluate import HeldOut, Score, make_score_table, summarise_scores, write_answers
from vlmill.train.export import export_model, load_export
from vlmill.train.families.pretrained import choose_export_dtype
from vlmill.train.log import tell_start
from vlmill.train.loop import Setup, run_stage
from vlmill.train.model import WEIGHTS, create_model, save_weights
from vlmill.train.network import CONTINUED, NetworkBuilder, list_adapters_before
from vlmill.train.phases import Phase, find_phase, list_phases
from vlmill.train.scoring import Scorer, remove_partial_scores
from vlmill.train.settings import Adapter, Machine, ModelSettings, Training, read_model_settings, read_training_settings
from vlmill.train.stage_folder import (
    hold_stage_folder,
    name_stage_folder,
    open_stage_folder,
    put_stage_folder,
    share_stage_folder,
)
from vlmill.train.steps import count_steps


@dataclass(frozen=True)
class TrainedStage:
    """What a trained stage left behind."""

    stage: str  # its name
    steps: int  # of training
    checkpoint: Path  # the next stage starts from it
    export: Path  # for transformers
    log: Path  # JSON Lines, one a step
    scores: Mapping[str, Score]  # by entry and source; empty where nothing was held out


def train_stages(
    directory: Path, stage: str | None = None, machine: Machine | None = None, console: Console | None = None
) -> list[TrainedStage]:
    """Train the stages of the recipe that `directory` is locked to, or one of them.

    One stage starts from the stage before it.

    Builds of the folder are locked out until it ends; other trainings are not.

    Raises:
        RecipeError: the recipe has no such stage.
        StoreError: a mixture, or the weights of the stage before, are missing.
    """
    read_locked_recipe(directory)  # what is no run gets no lock
    with Store(directory).shared():
        return _train_stages(directory, stage, machine, console)


def _train_stages(
    directory: Path, stage: str | None, machine: Machine | None, console: Console | None
) -> list[TrainedStage]:
    """The same, while no build can change the folder."""
    recipe = read_locked_recipe(directory)
    names = [item.name for item in recipe.stages]
    if stage is not None and stage not in names:
        raise RecipeError(f"--stage {stage}: the recipe has no such stage; {offer_names(recipe, stage, names)}")
    model, results = read_model_settings(recipe), list[TrainedStage]()
    for item in recipe.stages:
        if stage not in (None, item.name):
            continue
        before = names.index(item.name) - 1
        result = train_stage(
            directory,
            item.name,
            read_training_settings(item, recipe.scale),
            model,
            start_from=find_final_checkpoint(directory, names[before]) if before >= 0 else None,
            policy=recipe.policies[item.policy],
            machine=machine,
            console=console or make_console(),
        )
        results.append(result)
    return results


def find_final_checkpoint(directory: Path, stage: str) -> Path:
    """The last checkpoint of a stage that is trained to its end.

    Raises:
        StoreError: it is not, or its result has changed.
    """
    folder = open_stage_folder(directory, stage)
    result, kept = folder / RESULT, checkpoint.list_complete(folder / "checkpoints")
    if not (result.exists() and kept):
        raise StoreError(
            f"{directory}: stage {stage!r} is not trained yet, and its weights are wanted here; run: "
            f"vlmill train {directory} --stage {stage}"
        )
    read_result(folder)
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
) -> TrainedStage:
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
    machine, console = machine or Machine(), console or make_console(quiet=True)
    there, leads = directory / "train" / stage, os.environ.get("RANK", "0") == "0"  # as torchrun and Ray set it
    if leads and not (there / RESULT).exists():
        tell_start(console, stage, "reading the plan")
    mixture = PlannedMixture(directory, stage, machine.shards)
    if policy is not None and policy != mixture.policy:
        raise StoreError(
            f"{mixture.folder} was made under {mixture.policy}, and the recipe's policy is {policy}; "
            f"run the build again: vlmill build RECIPE --out {directory}"
        )
    reader = open_reader(mixture, model, training.loss, training.loss_weights)
    before = list_adapters_before(training, start_from)
    builder = NetworkBuilder(reader, training, model, start_from, before)
    phases = list_phases(training, count_steps(training, mixture.sequences), before)
    identity = _describe_identity(mixture, training, model, start_from, before)
    dtype = choose_export_dtype(model)
    finished = _is_stage_finished(there, identity, dtype)  # maybe by ranks elsewhere, whose GPUs need not be here
    device = torch.device("cpu") if finished else take_device(machine)
    with (
        prepare_torch(machine, device),
        join_process_group(device) as group,
        _lock_folder(directory, stage, group) as folder,
    ):
        if not finished:
            for place in _list_phases_left(phases, folder, identity):
                if group.leads:
                    tell_start(console, stage, "loading the model")
                network = _open_network(builder, phases, place, folder, group)
                setup = Setup(
                    reader, network, training, phases[-1].last, phases[place], identity, folder, device, machine, group
                )
                last = run_stage(setup, console)
                if phases[place] == phases[-1]:
                    _export_network(setup, builder, last, dtype)
                del setup, network
            found = _score_checkpoint(last, reader, training, device, group)
            scores = summarise_scores(found, mixture, group)
            if group.leads:
                _write_results(folder, identity, dtype, found, scores)
                put_stage_folder(folder)
            group.wait()
        result = _read_result(folder, stage)
        if group.leads and result.scores:
            console.print(make_score_table(result.scores, stage))
    return result


def _score_checkpoint(
    last: Path, reader: Reader, training: Training, device: torch.device, group: ProcessGroup
) -> list[HeldOut]:
    """The answers of a stage's last checkpoint to its held-out samples; the model is read only if there are any."""
    if not reader.mixture.held_out():
        return []
    whole = create_model(reader.family, reader.tokenizer, reader.mixture.chat, training.seed, last)
    scorer = Scorer(whole, reader, device, getattr(torch, training.dtype), group)
    return scorer.score_held_out(training.evaluate, scorer.keep_scores(last / WEIGHTS, last.parents[1]))


def _list_phases_left(phases: Sequence[Phase], folder: Path, identity: Mapping[str, Any]) -> range:
    """The places of the phases that have steps to do, or the last one, for whoever comes to export it.

    Raises:
        StoreError: the newest checkpoint was made under other settings.
    """
    kept = checkpoint.list_complete(folder / "checkpoints")
    done = checkpoint.check_identity(kept[-1], identity) if kept else 0
    place = find_phase(phases, done)
    return range(min(place + (done == phases[place].last), len(phases) - 1), len(phases))


def _open_network(
    builder: NetworkBuilder, phases: Sequence[Phase], place: int, folder: Path, group: ProcessGroup
) -> PreTrainedModel:
    """The model with which the training of a phase begins, or goes on from the newest checkpoint.

    Where adapters have changed on the way, the first rank has the weights, and sends the others theirs.
    """
    kept, phase = checkpoint.list_complete(folder / "checkpoints"), phases[place]
    if kept and int(kept[-1].name) > phase.first:
        return builder.build(phase)
    if not phase.first:
        return builder.start(phase)
    return builder.go_on(phases[place - 1], phase, kept[-1]) if group.leads else builder.build(phase)


def _export_network(setup: Setup, builder: NetworkBuilder, last: Path, dtype: torch.dtype) -> None:
    """Have the first rank write the whole trained model, beside its checkpoint and as an export.

    Adapters and new rows are merged into it.
    """
    network, reader, group = setup.model, setup.reader, setup.group
    weights = checkpoint.gather_weights(network)
    if group.leads:
        if group.size > 1:  # what ranks share between them cannot be used by one alone
            network = builder.build(setup.phase)
            network.load_state_dict(weights, assign=True)
            network.tie_weights()
        adapters.merge_adapters(network)
        new_rows.merge_rows(network)
        save_weights(network, last)
        unbuilt = explain_unbuilt(reader.mixture.root) is not None
        target, chat = setup.folder / "export", reader.mixture.chat
        export_model(target, network, reader.family, reader.tokenizer, chat, dtype, unbuilt=unbuilt)
    group.wait()


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
    write_result(folder, {"identity": identity, "export_dtype": str(dtype), "scores": by_source})
    remove_partial_scores(folder)


def evaluate_stage(
    directory: Path,
    stage: str | None = None,
    samples: int | None = None,
    export: Path | None = None,
    machine: Machine | None = None,
    watcher: Watcher | None = None,
    answers: Path | None = None,
) -> tuple[str, dict[str, Score]]:
    """Score a trained stage, or a model in an export's folder, on the stage's held-out samples.

    Ranks divide the samples among them. What is found is kept beside the stage until the last sample is scored, so the
    same call goes on where it was interrupted.

    Args:
        directory: of the run.
        stage: of its recipe; None is the last one.
        samples: of each source at most; None is what the stage's `evaluate` says.
        export: a folder with a model of the stage's class and tokenizer, scored in place of the trained stage.
        machine: what it runs on.
        watcher: receives its progress.
        answers: a file to write, with a line for each sample as in `held_out.jsonl`.

    Returns:
        The stage's name, and its scores by source: none where nothing is held out.

    Raises:
        RecipeError: the recipe has no such stage.
        StoreError: the mixture is missing, the stage is not trained yet, or the folder holds another kind of model.
    """
    recipe, machine = read_locked_recipe(directory), machine or Machine()
    names = [item.name for item in recipe.stages]
    if not names or stage not in (None, *names):
        raise RecipeError(f"--stage {stage}: the recipe has no such stage; {offer_names(recipe, stage or '', names)}")
    chosen = recipe.stages[names.index(stage) if stage else -1]
    training, device = read_training_settings(chosen, recipe.scale), take_device(machine)
    mixture = PlannedMixture(directory, chosen.name, machine.shards)
    reader = open_reader(mixture, read_model_settings(recipe), training.loss)
    with prepare_torch(machine, device), join_process_group(device) as group:
        weights = export or find_final_checkpoint(directory, chosen.name) / WEIGHTS
        before = None if export else weights.parent
        network = create_model(reader.family, reader.tokenizer, mixture.chat, training.seed, before)
        if export:
            check_export(export)
            network = load_export(export, network, reader.tokenizer)
        scorer = Scorer(network, reader, device, getattr(torch, training.dtype), group)
        kept = scorer.keep_scores(weights, open_stage_folder(directory, chosen.name))
        found = scorer.score_held_out(training.evaluate if samples is None else samples, kept, watcher)
        scores = summarise_scores(found, mixture, group)
        if group.leads:
            if answers:
                write_answers(answers, found)
            kept.path.unlink(missing_ok=True)
    return chosen.name, scores


def _describe_identity(
    mixture: PlannedMixture,
    training: Training,
    model: ModelSettings,
    start_from: Path | None,
    adapters_before: Sequence[Adapter],
) -> dict[str, Any]:
    """What the weights of a stage are a function of; what only saves, exports or scores them is left out."""
    settings = {
        name: value
        for name, value in asdict(training).items()
        if name not in {"checkpoint_every", "keep_last", "evaluate"}
    }
    before = hash_value(checkpoint.read_state(start_from)) if start_from else None
    towers = json.loads(to_json(model))
    towers.pop("export_dtype")
    if towers["positions"] is None:  # so that stages of before these keys are still known
        towers.pop("positions")
    for name in [name for name in NUMBERED if towers["connector"][name] is None]:
        towers["connector"].pop(name)
    return {
        "mixture": mixture.sha256,
        "start_from": before,
        "model": towers,
        **({CONTINUED: json.loads(to_json(adapters_before))} if adapters_before else {}),
        **json.loads(to_json(settings)),
    }


def _is_stage_finished(folder: Path, identity: Mapping[str, Any], dtype: torch.dtype) -> bool:
    """Whether the stage is trained to its end, and exported in this dtype."""
    if not (folder / RESULT).exists():
        return False
    found = read_result(folder)
    return bool(found["identity"] == identity and found.get("export_dtype") == str(dtype))


def _read_result(folder: Path, stage: str) -> TrainedStage:
    last = checkpoint.list_complete(folder / "checkpoints")[-1]
    found = {name: Score(**score) for name, score in read_result(folder)["scores"].items()}
    there = name_stage_folder(folder)
    last = there / "checkpoints" / last.name
    return TrainedStage(stage, int(last.name), last, there / "export", there / "log.jsonl", found)


@contextmanager
def _lock_folder(directory: Path, stage: str, group: ProcessGroup) -> Iterator[Path]:
    """Hold a stage's folder against a second training, and clear away what a killed one left half written."""
    folder = share_stage_folder(directory, stage, group)
    if not group.leads:
        yield folder
    else:
        with hold_stage_folder(folder), Store(folder).locked():
            checkpoint.remove_partial(folder)
            yield folder
    group.wait()  # the folder may go with the first rank
