"""Checkpoints: what it takes to go on after any step as if nothing had happened.

A checkpoint is a folder named by the number of steps that are done, written under a temporary name, flushed and renamed. Schedule, data
and random numbers are functions of that number, so weights and the optimizer's state are all there is to keep.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from pipeline.errors import StoreError
from train.model import load_weights, save_weights

PARTIAL = ".partial-"
"""Begins the names of what is not complete. Not the store's: a build beside the training would sweep it away."""


def save(
    folder: Path, step: int, model: PreTrainedModel, optimizer: torch.optim.Optimizer, identity: Mapping[str, Any]
) -> Path:
    """Commit the state after `step` steps; `identity` is what its course depended on."""
    partial = folder / f"{PARTIAL}{uuid.uuid4().hex}"
    partial.mkdir(parents=True)
    save_weights(model, partial)
    torch.save(optimizer.state_dict(), partial / "optimizer.pt")
    (partial / "state.json").write_text(json.dumps({"step": step, "identity": identity}, sort_keys=True, indent=1))
    return commit(partial, folder / f"{step:08d}")


def prune(folder: Path, keep_last: int) -> None:
    """Remove all checkpoints but the last ones."""
    for old in complete(folder)[:-keep_last]:
        shutil.rmtree(old)


def restore(path: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer, identity: Mapping[str, Any]) -> int:
    """Load a checkpoint and return how many steps it has behind it.

    Raises:
        StoreError: it was made under other settings or data; the message names the differences.
    """
    state = json.loads((path / "state.json").read_bytes())
    differing = [
        name for name in sorted({*identity, *state["identity"]}) if identity.get(name) != state["identity"].get(name)
    ]
    if differing:
        said = "; ".join(
            f"{name}: {state['identity'].get(name)!r} there, {identity.get(name)!r} here" for name in differing
        )
        raise StoreError(
            f"{path} was trained otherwise ({said}). Put that back to go on, or delete {path.parent.parent} to begin anew"
        )
    load_weights(model, path)
    optimizer.load_state_dict(torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True))
    return int(state["step"])


def complete(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir()) if folder.exists() else []


def sweep(folder: Path) -> None:
    """Remove what a killed run left half written."""
    for path in sorted(folder.glob(f"**/{PARTIAL}*")):
        shutil.rmtree(path, ignore_errors=True)


def commit(partial: Path, target: Path) -> Path:
    """Flush every file of a folder to disk and give it its name, in place of what had it."""
    for path in [*sorted(partial.rglob("*")), partial]:
        _flush(path)
    if target.exists():
        target.rename(target.with_name(f"{PARTIAL}{uuid.uuid4().hex}"))
    partial.rename(target)
    _flush(target.parent)
    for old in target.parent.glob(f"{PARTIAL}*"):
        shutil.rmtree(old)
    return target


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
