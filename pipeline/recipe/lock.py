"""The lock of a run's folder: the effective recipe that it is bound to, and how another differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.places import suggest_near
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.core.seal import CHANGED, find_seal_fault, seal_yaml
from vlmill.pipeline.core.yaml_format import format_yaml
from vlmill.pipeline.fetch import Fetch
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.recipe.mapping import LOCK, list_differences, read_mapping
from vlmill.pipeline.recipe.parsed import parse_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.recipe.validate import check_names
from vlmill.pipeline.signals import SIGNALS
from vlmill.pipeline.takedown.rules import LIST


def select_shaping(data: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a recipe that shapes the output: without places, mirrors, threads, times and expectations."""
    runtime = {f.name for f in dataclasses.fields(Fetch) if not f.metadata.get("shapes_result", True)}

    def fetch(block: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in block.items() if name not in runtime}

    kept = {name: value for name, value in data.items() if name not in {"tokenizer", "expect"}}
    kept["sources"] = {
        name: {
            key: fetch(value) if key == "fetch" else value
            for key, value in block.items()
            if key not in {"root", "images", "serve", "expect"}
        }
        for name, block in data["sources"].items()
    }
    if isinstance(kept.get("chat"), Mapping):
        kept["chat"] = {key: value for key, value in kept["chat"].items() if key not in {"path", "revision"}}
    if kept.get("decontaminate"):
        against = kept["decontaminate"]["against"].items()
        held = {name: {key: value for key, value in block.items() if key != "root"} for name, block in against}
        kept["decontaminate"] = {**kept["decontaminate"], "against": held}
    return {name: fetch(value) if name == "fetch" else value for name, value in kept.items()}


CARRIED_OUT = "takedowns.sha256"
"""The sha256 of the list of takedowns that a build or takedown to its end carried out, or that shards began with."""
UNBUILT = "unbuilt.txt"
"""In a run's folder from an accepted change of its recipe, or a takedown, until a build or takedown has ended."""
UNBUILT_MESSAGE = r".* (has a takedown that has|is locked to a changed recipe .* that is) not "
"""What `explain_unbuilt` says, as a pattern."""
TAKEDOWN = "a takedown"
"""What that file holds where a takedown began; else it says what differed."""

UNKNOWN = (
    "The lock is as it was written, so another installation of vlmill wrote it, which knows what this one does not "
    "(vlmill --version; a row shape or filter that was added to the package there). Read the run with that one, or"
)
"""What is said of a lock that is whole and cannot be read."""


def lock_folder(root: Path, data: Mapping[str, Any], *, accept_changes: bool) -> None:
    """Lock a folder to an effective recipe, or check that it is locked to this one.

    A lock does not apply while nothing was made.

    Raises:
        StoreError: it is locked to another; the message lists the differences and the ways out.
    """
    try:
        differences = list_lock_differences(root, data)
    except StoreError as error:  # an accepted recipe takes the place of a damaged lock as well
        if not accept_changes:
            raise
        differences = str(error)
    if differences and not accept_changes:
        raise StoreError(
            f"{root} is locked to another recipe:\n{differences}\n"
            "Take another folder with --out, or change this one with --accept-changes: what the change does "
            "not touch is kept"
        )
    if differences:  # before the lock: a kill between both leaves a hint too many, and none too few
        write_atomically(root / UNBUILT, f"{differences}\n")
    write_atomically(root / LOCK, seal_yaml(format_yaml(select_shaping(data))))
    if not (root / "shards").exists():  # all that follows is made without what stands on the list
        _note_takedowns(root)


def mark_takedown(root: Path) -> None:
    """Say that a takedown begins, so that what a run holds is that of before."""
    write_atomically(root / UNBUILT, f"{TAKEDOWN}\n")


def clear_unbuilt(root: Path) -> None:
    """Say that a run is built to the end of the recipe that it is locked to, without what was taken down."""
    _note_takedowns(root)
    (root / UNBUILT).unlink(missing_ok=True)


def _note_takedowns(root: Path) -> None:
    """Say that the list of takedowns is carried out."""
    if (root / LIST).exists():
        write_atomically(root / CARRIED_OUT, f"{hash_file(root / LIST)}\n")


def explain_unbuilt(root: Path) -> str | None:
    """A warning where a changed recipe or a takedown has not come to its end, the same for all that read a run.

    None where the run is what its recipe and list of takedowns make.
    """
    if not (root / UNBUILT).exists():
        return _explain_takedowns(root)
    begun = ""
    with suppress(FileNotFoundError):  # a build has just come to its end: the warning is late by a moment
        begun = (root / UNBUILT).read_text(encoding="utf-8")
    if begun.startswith(TAKEDOWN):
        return (
            f"{root} has a takedown that has not come to its end: what is not made again yet may hold what it takes. "
            f"It goes on with: vlmill takedown {root}"
        )
    return (
        f"{root} is locked to a changed recipe (--accept-changes) that is not built to its end: what is not made again "
        "yet is as the earlier recipe left it. The same build goes on"
    )


def _explain_takedowns(root: Path) -> str | None:
    """A warning where no build or takedown has carried out the list of takedowns, as of a folder from a backup."""
    if not (root / LIST).exists() or not (root / "shards").exists():
        return None
    with suppress(FileNotFoundError):
        if (root / CARRIED_OUT).read_text(encoding="utf-8").strip() == hash_file(root / LIST):
            return None
    return (
        f"{root} has a takedown that has not been carried out here: what {LIST} names may still be in it, and be "
        f"trained on. It is taken down by: vlmill takedown {root}"
    )


def list_lock_differences(root: Path, data: Mapping[str, Any]) -> str:
    """Where an effective recipe differs from the one that a folder is locked to, a line each.

    Empty where it does not, and where nothing was made under a lock.
    """
    if not is_bound(root):
        return ""
    before, here = (_leave_out_descriptions(shaping) for shaping in (read_lock(root), select_shaping(data)))
    return list_differences(before, here) if before != here else ""


def _leave_out_descriptions(shaping: Mapping[str, Any]) -> dict[str, Any]:
    """The lock without what only describes sources, and what only runs signals."""
    sources = {
        name: {key: value for key, value in block.items() if key not in {"homepage", "citation"}}
        for name, block in shaping["sources"].items()
    }
    signals = {name: _leave_out_running(block) for name, block in (shaping.get("signals") or {}).items()}
    return {**shaping, "sources": sources, **({"signals": signals} if signals else {})}


def _leave_out_running(block: Mapping[str, Any]) -> dict[str, Any]:
    """A signal without what only says where and how fast its model is asked, such as an endpoint."""
    made = SIGNALS.get(str(block.get("kind")))
    known = dataclasses.fields(made) if made is not None else ()  # type: ignore[arg-type]
    runtime = {item.name for item in known if not item.metadata.get("shapes_result", True)}
    return {key: value for key, value in block.items() if key not in runtime}


def is_bound(root: Path) -> bool:
    """Whether something was made in a folder under its lock."""
    return (root / LOCK).exists() and next(root.glob("steps/*/*/*.receipt.json"), None) is not None


def read_lock(root: Path) -> dict[str, Any]:
    """The effective recipe that a folder is locked to, as a mapping.

    Its names are checked to stay in the folder, and its code to have the sha256 that it states.

    Raises:
        StoreError: no build was begun there, or the file is damaged.
    """
    path = root / LOCK
    if Path(root).is_file():
        raise StoreError(
            f"{root} is a file, and a run is a folder: the one that vlmill build RECIPE --out DIR filled, by default "
            "build/ and the recipe's name"
        )
    if not path.exists():
        near = suggest_near(root, lambda one: (one / LOCK).is_file()) if not isinstance(root, RunPath) else ""
        raise StoreError(
            f"{root} holds no run: {LOCK} is missing{near or '.'} Make one with: vlmill build RECIPE --out {root}"
        )
    try:
        _refuse_changed(path)
        data = read_mapping(path)
        check_names(parse_recipe(data, LOCK))
    except RecipeError as error:
        cause = UNKNOWN if find_seal_fault(path) is None else "The lock of a run is damaged:"
        raise StoreError(
            f"{root}: {error}\n{cause} build the same recipe again with --accept-changes, which writes it anew"
        ) from error
    return data


def _refuse_changed(path: Path) -> None:
    if find_seal_fault(path) == CHANGED:
        raise RecipeError(f"{path.name} {CHANGED}")


def read_kept_sources(root: Path | None) -> dict[str, Any] | None:
    """What of its lock a folder keeps in every later build of the same recipe: its sources, among them all subsets.

    None where nothing was made yet.

    Raises:
        StoreError: the lock is damaged.
    """
    return {"sources": read_lock(root)["sources"]} if root is not None and is_bound(root) else None


def read_locked_recipe(root: Path, filters: Sequence[tuple[str, str]] = ()) -> Recipe:
    """The recipe that a folder is locked to, with the tokenizer that the build copied into it.

    Of the custom filters that it holds, those may run that the command line named: `filters`, as in `load`. All are
    known by name.

    Raises:
        StoreError: no build was begun there, or the lock is damaged.
    """
    data, tokenizer = read_lock(root), (root / "tokenizer.json").absolute()
    counts = tokenizer.exists() or data.get("stages")  # a recipe without stages may do without
    recipe = parse_recipe({**data, "tokenizer": str(tokenizer) if counts else None}, LOCK)
    return recipe.trusting([custom_filters.hash_code(code) for _, code in filters])
