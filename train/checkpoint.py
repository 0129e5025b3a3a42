"""Checkpoints: what it takes to go on after any step as if nothing had happened, on as many ranks as there are then.

A checkpoint is a folder named by the number of steps that are done, written under a temporary name by all ranks,
flushed and renamed. Schedule, data and random numbers are functions of that number, so weights and the optimizer's
state are all there is to keep; torch.distributed.checkpoint writes them by parameter, so another number of ranks reads
them back.

Its files are pickles, and `digests.json` has the sha256 of each. Whoever reads a checkpoint runs nothing that stands in
it: of `.metadata` only torch's own classes that describe tensors are made, and of the other files only what torch calls
weights.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from enum import EnumType
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_states
from torch.distributed.checkpoint.state_dict_saver import save as save_states
from transformers import PreTrainedModel

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import NO_SPACE, find_full_disk
from vlmill.pipeline.core.keys import hash_file
from vlmill.train.digests import check_file, read_digests, write_digests
from vlmill.train.distributed import ProcessGroup

STATE = "state.json"

PARTIAL = ".partial-"
"""Begins the names of what is not complete. Not the store's: a build beside the training would sweep it away."""

METADATA: Mapping[str, frozenset[str]] = {
    "torch.distributed.checkpoint.metadata": frozenset(
        {
            *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata"),
            *("ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING"),
        }
    ),
    "torch.distributed.checkpoint.filesystem": frozenset({"_StorageInfo"}),
    "torch": frozenset({"Size"}),
    "torch.serialization": frozenset({"_get_layout"}),
    "pathlib": frozenset({"PosixPath"}),
}
"""Module -> the classes of it that `.metadata` may name; torch's dtypes besides."""


def collect_state(model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a checkpoint holds of weights and the optimizer, every rank's share; the tensors themselves, not copies."""
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


def write_state(
    folder: Path, step: int, state: dict[str, Any], identity: Mapping[str, Any], group: ProcessGroup
) -> None:
    """Commit what `collect_state` gave after `step` steps; `identity` is what its course depended on.

    Raises:
        StoreError: it cannot be written: a full disk.
    """
    partial = folder / f"{PARTIAL}{step:08d}"  # all ranks have to know it
    kept = list_complete(folder)
    cure = f"Then run the same command again: it goes on {f'from {kept[-1]}' if kept else 'from the beginning'}"
    with _explain_errors(
        f"{folder / f'{step:08d}'} cannot be written", f"Free disk space, or correct what it says. {cure}", folder
    ):
        if group.leads:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        group.wait()
        with _silence_warning():
            save_states(
                state,
                storage_writer=_CheckpointFiles(partial),
                process_group=group.handle,
                no_dist=group.size == 1,
            )
        written = group.gather({path.name: hash_file(path) for path in partial.glob(f"__{group.rank}_*")})
        if group.leads:
            course = json.dumps({"step": step, "identity": identity}, sort_keys=True, indent=1)
            (partial / STATE).write_text(course)
            written += [{name: hash_file(partial / name) for name in (STATE, ".metadata")}]
            write_digests(partial, {name: sha256 for files in written for name, sha256 in files.items()})
            commit_folder(partial, folder / f"{step:08d}")
    group.wait()


def prune_checkpoints(folder: Path, keep_last: int) -> None:
    """Remove all checkpoints but the last ones."""
    for old in list_complete(folder)[:-keep_last]:
        shutil.rmtree(old)


def restore_checkpoint(
    path: Path,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    group: ProcessGroup,
) -> int:
    """Load a checkpoint, every rank its share, and return how many steps it has behind it.

    Raises:
        StoreError: it was made under other settings or data; the message names the differences. Or it is damaged.
    """
    step = check_identity(path, identity)
    weights, moments = get_state_dict(model, optimizer)
    _fill_states(path, {"model": weights, "optimizer": moments}, no_dist=group.size == 1)
    kept: Any = moments["param_groups"]
    for ours, theirs in zip(optimizer.param_groups, kept, strict=True):
        theirs["fused"] = ours["fused"]  # which kernel computes it is a matter of this device
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
    return step


def restore_optimizer(
    path: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, group: ProcessGroup
) -> None:
    """Load what a checkpoint has of the optimizer's state, every rank its share; parameters that it lacks start anew.

    For a model whose weights were read from it, and which has other adapters since.

    Raises:
        StoreError: it is damaged.
    """
    moments = get_optimizer_state_dict(model, optimizer)
    there = _list_names(path)
    state: dict[str, Any] = moments["state"]  # type: ignore[assignment]
    kept = {name: found for name, found in state.items() if f"optimizer.state.{name}.step" in there}
    if kept:
        _fill_states(path, {"optimizer": {"state": kept}}, no_dist=group.size == 1)
    for name in state.keys() - kept.keys():
        state[name]["step"].zero_()
    set_optimizer_state_dict(model, optimizer, moments)


def read_weights(path: Path, model: PreTrainedModel, may_lack: tuple[str, ...] = ()) -> None:
    """Load the weights of a checkpoint into a whole model, each rank for itself.

    Parameters of `may_lack` stay as they are if the checkpoint lacks them.

    Raises:
        StoreError: it has other parameters, or is damaged.
    """
    weights, there = get_model_state_dict(model), _list_names(path)
    lacking = {name for name in weights if f"model.{name}" not in there}
    if lacking - set(may_lack):
        raise StoreError(f"{path} holds the weights of another model: it lacks {sorted(lacking - set(may_lack))[:5]}")
    wanted = {name: value for name, value in weights.items() if name not in lacking}
    _fill_states(path, {"model": wanted}, no_dist=True)
    set_model_state_dict(model, {**weights, **wanted})


def _list_names(path: Path) -> set[str]:
    """What a checkpoint holds, by dotted name."""
    with _explain_errors(f"{path} cannot be read", _describe_cure(path)):
        return set(_CheckpointReader(path).read_metadata().state_dict_metadata)


def _fill_states(path: Path, states: dict[str, Any], *, no_dist: bool) -> None:
    """Fill the tensors of `states` from a checkpoint, in place."""
    with _explain_errors(f"{path} cannot be read", _describe_cure(path)), _silence_warning():
        load_states(states, storage_reader=_CheckpointReader(path), planner=_Planner(), no_dist=no_dist)


def _describe_cure(path: Path) -> str:
    before = [str(kept) for kept in list_complete(path.parent) if kept < path]
    return f"If it is damaged, delete it: the training then goes on from {before[-1] if before else 'its beginning'}"


DIGESTS = {
    "mixture": "the plan of the mixture changed since, by a build or a takedown",
    "start_from": "the stage before, whose weights it started from, was trained anew",
}
"""What differs where a sha256 of an identity does."""


def check_identity(path: Path, identity: Mapping[str, Any]) -> int:
    """Compare what a checkpoint was trained under with what is asked for; returns how many steps it has behind it.

    Raises:
        StoreError: it was made under other settings or data; the message names the differences. Or it is damaged.
    """
    with _explain_errors(f"{path} cannot be read", _describe_cure(path)):
        state = read_state(path)
    differing = [
        name for name in sorted({*identity, *state["identity"]}) if identity.get(name) != state["identity"].get(name)
    ]
    if differing:
        said = "; ".join(
            DIGESTS.get(name) or f"{name}: {state['identity'].get(name)!r} there, {identity.get(name)!r} here"
            for name in differing
        )
        raise StoreError(
            f"{path} was trained otherwise ({said}). Put that back to go on, or delete {path.parent.parent} to "
            "begin anew"
        )
    return int(state["step"])


def read_state(path: Path) -> dict[str, Any]:
    """Step and identity of a checkpoint.

    Raises:
        StoreError: the file is missing or has changed.
    """
    check_file(path, STATE, read_digests(path))
    found: dict[str, Any] = json.loads((path / STATE).read_bytes())
    return found


class _Metadata(pickle.Unpickler):
    """Reads `.metadata` without running what stands in it."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The classes of METADATA, and dtypes."""
        if (module_name, global_name) == ("builtins", "getattr"):
            return _get_member
        dtype = getattr(torch, global_name, None) if module_name == "torch" else None
        if global_name in METADATA.get(module_name, ()) or isinstance(dtype, torch.dtype):
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which no checkpoint of ours does")


def _get_member(owner: Any, name: str) -> Any:
    """The member of an enumeration.

    Python before 3.11.4 pickles members by `getattr`; nothing else is to be had by it.
    """
    if isinstance(owner, EnumType) and name in owner.__members__:
        return owner[name]
    raise pickle.UnpicklingError("it asks for an attribute, which no checkpoint of ours does")


class _CheckpointFiles(FileSystemWriter):
    """Writes the files of a checkpoint, in which neither its temporary path nor a random identifier stands."""

    def storage_meta(self) -> StorageMeta:
        """What `.metadata` says of the place: nothing, so that the same state has the same bytes."""
        return StorageMeta()


class _CheckpointReader(FileSystemReader):
    """Reads the files of a checkpoint, each hashed in full before; names the one that is not what it should be."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._folder, self._digests = path, read_digests(path)

    def read_metadata(self, *_: Any, **kwargs: Any) -> Metadata:
        """What `.metadata` says. As torch's own, but for the unpickler."""
        path = Path(self._get_metadata_path(kwargs.get("rank")))
        check_file(self._folder, path.name, self._digests)
        try:
            with path.open("rb") as file:
                metadata = _Metadata(file).load()
        except pickle.UnpicklingError as error:
            raise StoreError(f"{path} is not read: {error}") from error
        if not isinstance(metadata, Metadata):
            raise StoreError(f"{path} holds no metadata of a checkpoint, but {type(metadata).__name__}")
        return metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> torch.futures.Future[None]:
        """Read what `plan` asks for, file by file."""
        files: dict[str, list[ReadItem]] = {}
        for item in plan.items:
            files.setdefault(self.storage_data[item.storage_index].relative_path, []).append(item)
        for name, items in files.items():
            check_file(self._folder, name, self._digests)
            try:
                super().read_data(replace(plan, items=items), planner).wait()
            except pickle.UnpicklingError as error:
                raise StoreError(f"{Path(self.path) / name} is not read: it holds more than weights") from error
        done = torch.futures.Future[None]()
        done.set_result(None)
        return done


class _Planner(DefaultLoadPlanner):
    """Puts what was read in its place. What is no tensor are numbers and words (of the optimizer's groups)."""

    def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
        """As torch's own, but only what torch calls weights."""
        found = torch.load(value, weights_only=True)
        set_element(self.original_state_dict, self.mappings[read_item.dest_index.fqn], found)


def gather_weights(model: PreTrainedModel) -> dict[str, Any]:
    """All weights on the CPU of the first rank, from all ranks' shares; every rank has to call it.

    Shares have one size, so a tensor whose rows do not divide by the ranks is a view of a longer one. A file of weights
    takes no such views; here each tensor has memory of its own size.
    """
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: _own_memory(value) for name, value in whole.items()}


def _own_memory(value: Any) -> Any:
    return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value


@contextmanager
def _explain_errors(trouble: str, cure: str, written: Path | None = None) -> Iterator[None]:
    """Turn every error into a StoreError.

    torch raises errors of many kinds, and for several ranks one that is no Exception. Of a full disk it says nothing
    that a person would understand, so the disk of the folder that was `written` is asked.
    """
    try:
        yield
    except (Exception, CheckpointException) as error:
        found = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
        full = written is not None and find_full_disk([written])
        why = NO_SPACE if full else f"{type(found).__name__}: {found}"
        raise StoreError(f"{trouble} ({why}). {cure}") from error


@contextmanager
def _silence_warning() -> Iterator[None]:
    """Without the warning that one process writes on its own, which is what was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def list_complete(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir()) if folder.exists() else []


def remove_partial(folder: Path) -> None:
    """Remove what a killed run left half written."""
    for path in sorted(folder.glob(f"**/{PARTIAL}*")):
        shutil.rmtree(path, ignore_errors=True)


def commit_folder(partial: Path, target: Path) -> Path:
    """Flush every file of a folder to disk and give it its name, in place of what had it."""
    for path in [*sorted(partial.rglob("*")), partial]:
        _flush_file(path)
    if target.exists():
        target.rename(target.with_name(f"{PARTIAL}{uuid.uuid4().hex}"))
    partial.rename(target)
    _flush_file(target.parent)
    for old in target.parent.glob(f"{PARTIAL}*"):
        shutil.rmtree(old)
    return target


def _flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
