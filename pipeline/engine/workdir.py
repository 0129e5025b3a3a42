"""The folder of a run as a build finds and leaves it.

It is locked and pinned, has the recipe's lists, and is swept of what no manifest names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.files import remove_folder, write_atomically
from vlmill.pipeline.core.keys import DIGITS, hash_file
from vlmill.pipeline.core.run_path import RunPath
from vlmill.pipeline.core.seal import seal_yaml
from vlmill.pipeline.core.yaml_format import format_yaml, read_yaml
from vlmill.pipeline.engine.store import File, Receipt, Store, list_step_files
from vlmill.pipeline.filters import Filter, ReadsLists
from vlmill.pipeline.inputs.hub_files import is_hub
from vlmill.pipeline.recipe.mapping import LOCK
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.takedown.rules import LIST, TakedownList

PINS = "hub.lock.yaml"
"""Which commit each root on the Hugging Face Hub stood for when the run was begun: source or benchmark -> root,
pinned."""
EDITIONS = "lists/editions.yaml"
"""Which copy of each list the last build read: its path in the recipe -> the copy."""


def refuse_other_files(root: Path, tokenizer: Path | None) -> None:
    """Refuse a folder without a run that has files which a build would replace.

    Args:
        root: The run's folder.
        tokenizer: The file that the recipe names.

    Raises:
        StoreError: there is one; the message names it.
    """
    if (root / LOCK).exists():
        return
    card, copied = root / "README.md", root / "tokenizer.json"
    others = [card] if card.exists() else []
    if copied.exists() and tokenizer and tokenizer.is_file() and hash_file(copied) != hash_file(tokenizer):
        others.append(copied)
    if others:
        raise StoreError(
            f"{root} holds no run, but {' and '.join(path.name for path in others)}, which a build would replace; "
            "give it a folder of its own with --out, or move what is there"
        )


@contextmanager
def open_run_folder(root: Path) -> Iterator[Callable[[], None]]:
    """The folder of a build, locked against a second one and swept of what killed tasks left behind.

    A build that ends well sweeps again: its own workers may have been killed. Yields what raises StoreError where
    another build has taken the folder over: see Store.locked.
    """
    store = Store(root)
    with store.locked() as check_lock:
        store.sweep()
        yield check_lock
        check_lock()
        store.sweep()


def _pin_places(places: Iterable[str]) -> dict[str, str]:
    """Each place on the Hub with the commit that it stands for now."""
    if not (found := list(places)):
        return {}
    from vlmill.pipeline.inputs import hub  # noqa: PLC0415 - imports huggingface_hub

    return {place: hub.pin_revision(place) for place in found}


def pin_hub_roots(root: Path, recipe: Recipe, *, accept_changes: bool) -> Recipe:
    """The recipe with commits in its roots on the Hugging Face Hub: those that the folder was begun with.

    Raises:
        StoreError: a branch or tag has moved since; the message has the ways out.
        SourceError: the Hub cannot be asked, or has no such dataset or revision.
    """
    path = root / PINS
    before = read_yaml(path) if path.exists() else {}
    roots = recipe.roots()
    commits = _pin_places(place for place in dict.fromkeys(roots.values()) if is_hub(place))
    pins = {}
    for name, place in roots.items():
        if place not in commits:
            continue
        now, then = commits[place], before.get(name, {})
        if not accept_changes and then.get("root") == place and then["pinned"] != now:
            raise StoreError(
                f"source {name!r}: {place} has moved since this folder was begun\n"
                f"  {then['pinned']} then\n  {now} now\n"
                f"Go on with what it was: --source {name}={then['pinned']}/\n"
                "or take what it is now with --accept-changes: of files that are the same nothing is made again"
            )
        pins[name] = {"root": place, "pinned": now}
    if pins:
        kept = {name: noted for name, noted in before.items() if name in roots}
        write_atomically(path, seal_yaml(format_yaml({**kept, **pins})))
    return recipe.rooted({name: pin["pinned"] for name, pin in pins.items()})


def copy_list(root: Path, base: Path | None, path: str, name: str) -> File:
    """A file that the recipe names, copied into `lists/`.

    Every worker sees it there, and an edit does not reach a build that is running.

    Args:
        root: The run's folder.
        base: The folder that `path` starts from; None for the copy that the last build made.
        path: As the recipe has it.
        name: What steps know the file by.

    Raises:
        RecipeError: there is no such file.
        StoreError: no build has copied it.
    """
    noted = root / EDITIONS
    editions = read_yaml(noted) if noted.exists() else {}
    if base is None:
        place = editions.get(path, "")
        if not (root / place).is_file():
            raise StoreError(f"{root} has no copy of the list {path}; make one with: vlmill build RECIPE --out {root}")
        return File(name, place, hash_file(root / place), (root / place).stat().st_size)
    input_file = base / path
    if not input_file.is_file():
        raise RecipeError(f"there is no file {input_file}; the path of a list is relative to the recipe")
    sha256 = hash_file(input_file)
    place = f"lists/{sha256[:DIGITS]}.{input_file.name}"
    if not (root / place).exists():
        try:
            write_atomically(root / place, input_file.read_bytes().decode())
        except UnicodeDecodeError as error:
            raise RecipeError(f"{input_file} is no list: it has to be UTF-8 text ({error})") from None
    if editions.get(path) != place:
        write_atomically(noted, seal_yaml(format_yaml({**editions, path: place})))
    return File(name, place, sha256, input_file.stat().st_size)


def copy_lists(root: Path, base: Path | None, filters: Iterable[Filter], rules: TakedownList) -> tuple[File, ...]:
    """The lists that filters read, copied as `copy_list` does, and that of takedowns where something stands on it."""
    wanted = [filter_.lists for filter_ in filters if isinstance(filter_, ReadsLists)]
    taken = [copy_list(root, base, path, name) for lists in wanted for name, path in lists.items()]
    path = root / LIST
    return (*taken, *([File(LIST, LIST, hash_file(path), path.stat().st_size)] if rules else []))


def copy_tokenizer(root: Path, base: Path | None, path: str | None) -> File | None:
    """The tokenizer that the recipe names, copied into the run's folder, where the trainer finds it.

    Args:
        root: The run's folder.
        base: The folder that `path` starts from; None for the run's.
        path: As the recipe has it; None where it names none.

    Raises:
        RecipeError: there is no such file.
    """
    if path is None:
        return None
    input_file, here = (base or root) / path, root / "tokenizer.json"
    if not input_file.is_file():
        raise RecipeError(
            f"tokenizer: there is no file {input_file}; give the path of a tokenizer.json, relative to the recipe"
        )
    if not here.exists() or hash_file(here) != hash_file(input_file):
        write_atomically(here, input_file.read_text(encoding="utf-8"))
    return File("tokenizer.json", "tokenizer.json", hash_file(here), here.stat().st_size)


def remove_unused(root: Path, used: Collection[str] | None = None) -> None:
    """Remove what no manifest names any more: files of earlier recipes. What impure steps left stays.

    Call it after a complete build, while the folder is locked.

    Args:
        root: The run's folder.
        used: Where something was taken down: the folders of steps that the recipe has today. Then nothing else may
            stay, not even what was fetched under an earlier recipe, since its content is unknown.
    """
    if used is not None:
        for begun in list_step_files(root, "made_by.json"):
            if str(begun.parent.relative_to(root)) not in used:
                _empty_folder(begun.parent)
    for manifest in list_step_files(root, "manifest.json"):
        folder = manifest.parent
        receipts = [Receipt.from_json(item) for item in json.loads(manifest.read_bytes())["receipts"]]
        if used is None and _are_impure(receipts):
            continue
        named = {file.path for receipt in receipts for file in receipt.files} | {"made_by.json", "manifest.json"}
        named |= {f"{receipt.partition}.{receipt.key[:DIGITS]}.receipt.json" for receipt in receipts}
        below = f"{folder.relative_to(root)}/"
        for name in sorted(_list_names(folder)):
            if name not in named and below + name not in named and (folder / name).is_file():
                (folder / name).unlink()


def _list_names(folder: Path) -> list[str]:
    """What is in a folder, by name; many thousand files cost no path each."""
    if isinstance(folder, RunPath):
        return [path.name for path in folder.iterdir()]
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _empty_folder(folder: Path) -> None:
    """Remove the files of a step, its receipts first and its manifest last; folders of other steps below it stay."""
    files = (path for path in folder.iterdir() if path.is_file())
    for path in sorted(files, key=lambda path: (path.name == "made_by.json", not path.name.endswith(".receipt.json"))):
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def forget_versions(root: Path) -> None:
    """Forget under which versions steps were made: pure steps are removed and run again, impure ones stay."""
    for path in list_step_files(root, "made_by.json"):
        receipts = (json.loads(receipt.read_bytes()) for receipt in sorted(path.parent.glob("*.receipt.json")))
        if _are_impure(Receipt.from_json(receipt) for receipt in receipts):
            path.unlink()
        else:
            remove_folder(path.parent)


def _are_impure(receipts: Iterable[Receipt]) -> bool:
    """Whether these are of an impure step: its files carry their own sha256 in their names."""
    return any(f".{file.sha256[:DIGITS]}." in file.path for receipt in receipts for file in receipt.files)
