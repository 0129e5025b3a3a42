"""The model of a stage: made or continued, its trainable components, its optimizer, and the loss of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_model
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from vlmill.pipeline.chat.encode import IGNORE, ChatFormat
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import follow_umask
from vlmill.pipeline.core.keys import hash_file
from vlmill.train import adapters, new_rows
from vlmill.train.attention import find_borders
from vlmill.train.batch import Batch
from vlmill.train.cross_entropy import compute_cross_entropy
from vlmill.train.digests import check_file, read_digests, write_digests
from vlmill.train.families.base import Family
from vlmill.train.materialise import defer_init, materialise_module, open_weights
from vlmill.train.new_rows import NewRows
from vlmill.train.settings import Adapter, Training

WEIGHTS = "model.safetensors"
"""In the last checkpoint of a stage: the model that it hands on, whole and with its adapters merged."""


def create_model(
    family: Family,
    tokenizer: Tokenizer,
    chat: ChatFormat,
    seed: int,
    start_from: Path | None = None,
    adapter: Adapter | None = None,
    new: NewRows | None = None,
) -> PreTrainedModel:
    """A model with weights drawn from `seed`, or with those that an earlier stage left in the folder `start_from`.

    On the CPU. Published weights are read tensor by tensor, so it takes the memory of the model alone.

    Args:
        family: of the model.
        tokenizer: of the recipe.
        chat: its format.
        seed: of all that is drawn.
        start_from: a folder with weights of an earlier stage.
        adapter: is put in, if given.
        new: tokens that the pretrained language model lacks, whose rows are drawn.

    Raises:
        StoreError: the weights are those of another model.
        RecipeError: an adapter is asked for, and peft is not installed.
    """
    model = defer_model(family, tokenizer, chat, seed, start_from, adapter, new)
    materialise_module(model)
    return model


def defer_model(
    family: Family,
    tokenizer: Tokenizer,
    chat: ChatFormat,
    seed: int,
    start_from: Path | None = None,
    adapter: Adapter | None = None,
    new: NewRows | None = None,
) -> PreTrainedModel:
    """The same model whose large parameters are computed later, by each rank its share; see train/deferred.py.

    Args and errors are those of `create_model`.
    """
    with torch.random.fork_rng(), defer_init():
        torch.manual_seed(seed)
        model = family.build(tokenizer, chat)
        if start_from is not None:
            load_weights(model, start_from, family.new)
        elif new is not None:
            new_rows.draw_rows(model, tokenizer, new)
        if adapter is not None:
            adapters.change_adapters(model, family, adapter)
    return model


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Write all weights to a file in `folder`, whole or not at all."""
    partial = folder / f"{WEIGHTS}.partial"
    save_model(model, str(partial))
    follow_umask(partial)
    sha256 = hash_file(partial)
    partial.rename(folder / WEIGHTS)
    write_digests(folder, {WEIGHTS: sha256})


def load_weights(model: PreTrainedModel, folder: Path, may_lack: tuple[str, ...] = ()) -> None:
    """Read the weights that `save_weights` wrote; parameters of `may_lack` stay as they are if the file lacks them.

    Raises:
        StoreError: names, shapes or their number differ, or it cannot be read.
    """
    path = folder / WEIGHTS
    try:
        check_file(folder, WEIGHTS, read_digests(folder))
        weights = open_weights(path)
        missing, unexpected = model.load_state_dict(weights, strict=False)
        missing = _leave_out_tied(model, missing)
    except RuntimeError as error:
        raise StoreError(f"{path} holds the weights of another model: {error}") from error
    except (OSError, SafetensorError, StoreError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}. If it is damaged, delete {folder.parent.parent / 'result.json'} and "
            "train the stage again: it makes the file from its last checkpoint"
        ) from error
    if unexpected or set(missing) - set(may_lack):
        raise StoreError(
            f"{path} holds the weights of another model: it lacks "
            f"{sorted(set(missing) - set(may_lack)) or 'nothing'}, and has {sorted(unexpected) or 'nothing'} "
            "besides. All stages of a recipe train one model; policies may go from one tile to anyres, not back"
        )


def _leave_out_tied(model: PreTrainedModel, missing: Sequence[str]) -> list[str]:
    """Names without those of parameters that have another name, which is not among them."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    read = {id(parameter) for name, parameter in parameters.items() if name not in missing}
    return [name for name in missing if name not in parameters or id(parameters[name]) not in read]


def make_optimizer(model: PreTrainedModel, family: Family, training: Training) -> torch.optim.AdamW:
    """AdamW over the components that have a learning rate; all else is frozen.

    Of adapted components it trains the adapters; new rows are trained as well.

    Each component has a group that decays and one that does not (norms, biases and single vectors, new rows among
    them). A group's `component` names it, its `peak` is its learning rate before the schedule.
    """
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    adapted = training.adapted
    rates = {
        new_rows.NAME: new_rows.choose_rate(training),
        **{str(component): rate for component, rate in training.learning_rate.items()},
    }
    for name, parameter in model.named_parameters():
        component = new_rows.NAME if new_rows.MARK in name else family.component(name)
        parameter.requires_grad_(component in rates and (component not in adapted or adapters.MARK in name))
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and component != new_rows.NAME
            groups.setdefault((component, decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": found,
                "component": component,
                "peak": rates[component],
                "weight_decay": training.weight_decay * decays,
            }
            for (component, decays), found in sorted(groups.items(), key=lambda item: item[0])
        ],
        betas=training.betas,
        fused=next(model.parameters()).device.type == "cuda" or None,  # one kernel over all parameters
    )


def scale_rate(step: int, steps: int, training: Training) -> float:
    """The factor of learning rates in `step` of `steps` (from 0): linear up to 1, then as the schedule says."""
    if step < training.warm_up:
        return (step + 1) / training.warm_up
    if training.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - training.warm_up) / max(1, steps - training.warm_up)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> Mapping[str, float]:
    """Set every group's learning rate to its peak times `factor`; returns it by component."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return {group["component"]: group["lr"] for group in optimizer.param_groups}


def compute_token_losses(
    model: PreTrainedModel,
    family: Family,
    batch: Batch,
    device: torch.device,
    dtype: torch.dtype,
    neftune: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of every supervised token in float32, and the source of each, in reading order.

    Only supervised tokens reach the language model's head. There is no cache, and no attention mask but a family's own,
    on which the isolation of packed documents rests (see train/data.py).
    """
    batch = batch.to(device)
    supervised = batch.labels[:, 1:] != IGNORE
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32), _add_noise(model, batch, neftune):
        hidden = compute_features(model, family, batch)[:, :-1][supervised]
        losses = compute_cross_entropy(model.get_output_embeddings(), hidden, batch.labels[:, 1:][supervised])
    return losses, batch.sources[:, 1:][supervised]


@contextmanager
def _add_noise(model: PreTrainedModel, batch: Batch, alpha: float | None) -> Iterator[None]:
    """NEFTune: uniform noise on each embedding of a token, of at most alpha / sqrt(document's length x width)."""
    if alpha is None:
        yield
        return
    documents = batch.documents
    counts = documents.new_zeros(len(documents), int(documents.max()) + 1)
    lengths = counts.scatter_add(1, documents, torch.ones_like(documents)).gather(1, documents)

    def add(_: torch.nn.Module, __: Any, embedded: torch.Tensor) -> torch.Tensor:
        bound = alpha / (lengths * embedded.shape[-1]).sqrt()
        return embedded + (torch.rand_like(embedded) * 2 - 1) * bound[..., None].to(embedded.dtype)

    hook = model.get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


def compute_features(model: PreTrainedModel, family: Family, batch: Batch) -> torch.Tensor:
    """The last hidden states (rows, length, width) of packed rows on the model's device.

    Positions are places in documents, unless the family gives others.
    """
    found: Any = model.base_model(
        **{"attention_mask": None, "position_ids": batch.positions, **family.inputs(model, batch)},
        input_ids=batch.ids,
        use_cache=False,
        **find_borders(model, batch.documents),
    )
    states: torch.Tensor = found.last_hidden_state
    return states
