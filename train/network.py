"""The model of a phase: built, loaded from where the training stands, and changed to what the phase trains.

Every rank builds it under deferred initialisation, so that it computes its share alone when loop.py shares the model
out. What adapters are merged into on the way is computed whole, on each rank.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.keys import hash_value
from vlmill.train import checkpoint, new_rows
from vlmill.train.adapters import change_adapters
from vlmill.train.data import Reader
from vlmill.train.materialise import materialise_module
from vlmill.train.model import defer_model
from vlmill.train.new_rows import NewRows
from vlmill.train.phases import Phase
from vlmill.train.settings import Adapter, ModelSettings, Training, check_succession

CONTINUED = "adapters_before"
"""In a checkpoint's identity: the adapters of earlier stages that its first ones went on with."""


@dataclass(frozen=True)
class NetworkBuilder:
    """Makes the models of one stage."""

    reader: Reader
    training: Training
    model: ModelSettings
    start_from: Path | None = None  # a checkpoint of the stage before
    before: tuple[Adapter, ...] = ()  # its adapters, if these go on

    def build(self, phase: Phase) -> PreTrainedModel:
        """A model with the parameters that the phase has, whose values are to be read from a checkpoint of it."""
        return self._insert_rows(self._build_structure(phase.adapters), self.training)

    def start(self, phase: Phase) -> PreTrainedModel:
        """The model with which the stage begins.

        Raises:
            RecipeError: its adapters cannot go on with those of the stage before.
            StoreError: the weights of the stage before are those of another model.
        """
        reader, own = self.reader, phase.adapters[len(self.before) :]
        if self.before and self.start_from is not None:
            network, changes = self._continue(self.start_from), own
        else:
            first, changes = (own[0] if own else None), own[1:]
            chat, seed = reader.mixture.chat, self.training.seed
            network = defer_model(
                reader.family, reader.tokenizer, chat, seed, self.start_from, adapter=first, new=self._new
            )
        if changes:
            materialise_module(network)
        for adapter in changes:
            self._change(network, adapter)
        return self._insert_rows(network, self.training)

    def go_on(self, before: Phase, phase: Phase, path: Path) -> PreTrainedModel:
        """The model of a phase, from the checkpoint with which the one before it ended; it computes the same."""
        network = self.build(before)
        materialise_module(network)
        checkpoint.read_weights(path, network)
        for adapter in phase.adapters[len(before.adapters) :]:
            self._change(network, adapter)
        return network

    @cached_property
    def _new(self) -> NewRows:
        reader = self.reader
        own = Tokenizer.from_file(os.fspath(reader.mixture.tokenizer)).get_vocab(with_added_tokens=True)
        return new_rows.find_new_rows(self.model, reader.tokenizer, reader.mixture.chat, own)

    def _insert_rows(self, network: PreTrainedModel, training: Training) -> PreTrainedModel:
        if new_rows.trains_rows_alone(training):
            new_rows.insert_rows(network, self._new)
        return network

    def _build_structure(self, adapters: Sequence[Adapter]) -> PreTrainedModel:
        """A model that has had these adapters, one after the other; of values that mean nothing."""
        reader = self.reader
        network = defer_model(reader.family, reader.tokenizer, reader.mixture.chat, self.training.seed)
        if len(adapters) > 1:
            materialise_module(network)
        with torch.random.fork_rng():
            for adapter in adapters:
                change_adapters(network, reader.family, adapter)
        return network

    def _continue(self, start_from: Path) -> PreTrainedModel:
        """The model with which the stage before ended, its adapters not merged."""
        network = self._insert_rows(self._build_structure(self.before), read_training(start_from))
        materialise_module(network)
        checkpoint.read_weights(start_from, network, self.reader.family.new)
        new_rows.merge_rows(network)
        return network

    def _change(self, network: PreTrainedModel, adapter: Adapter) -> None:
        """Change the adapters; new ones are drawn from the stage's seed and their place in the recipe."""
        with torch.random.fork_rng():
            torch.manual_seed(int(hash_value([self.training.seed, "adapter", adapter])[:15], 16))
            change_adapters(network, self.reader.family, adapter)


def list_adapters_before(training: Training, start_from: Path | None) -> tuple[Adapter, ...]:
    """The adapters of earlier stages that a stage goes on with, in the order in which they were there.

    Raises:
        RecipeError: there are none, or its own cannot go on with them.
    """
    if not training.adapters or not training.adapters[0].continued:
        return ()
    where = "train.adapter.continued"
    identity = checkpoint.read_state(start_from)["identity"] if start_from else {}
    earlier = [parse_block(Adapter, found, where) for found in identity.get(CONTINUED, ())]
    before = (*earlier, *(read_training(start_from).adapters if start_from else ()))
    if not before:
        raise RecipeError(f"{where}: the stage before has no adapters to go on with; leave it out")
    try:
        check_succession(before[-1], training.adapters[0])
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error
    return before


def read_training(path: Path) -> Training:
    """The settings of the stage that a checkpoint is of."""
    identity: dict[str, Any] = checkpoint.read_state(path)["identity"]
    names = {setting.name for setting in fields(Training)}
    return parse_block(Training, {name: value for name, value in identity.items() if name in names}, str(path))
