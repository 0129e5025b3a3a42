"""The folder of a run as a build finds and leaves it: locked, swept, and without what no manifest names any more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.keys import DIGITS
from pipeline.store import Receipt, Store


@contextmanager
def opened(root: Path) -> Iterator[None]:
    """The folder of a build, locked against a second one and swept of what killed tasks left behind."""
    store = Store(root)
    with store.locked():
        store.sweep()
        yield


def clean(root: Path) -> None:
    """Remove what no manifest names any more: files of earlier recipes. What impure steps left stays.

    Call it after a complete build, while the folder is locked.
    """
    for manifest in sorted(root.glob("s*/**/manifest.json")):
        folder = manifest.parent
        receipts = [Receipt.from_json(item) for item in json.loads(manifest.read_bytes())["receipts"]]
        if _impure(receipts):
            continue
        named = {file.path for receipt in receipts for file in receipt.files} | {"made_by.json", "manifest.json"}
        signed = {f"{receipt.part}.{receipt.key[:DIGITS]}.receipt.json" for receipt in receipts}
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in named | signed and str(path.relative_to(root)) not in named:
                path.unlink()


def remake(root: Path) -> None:
    """Forget under which versions steps were made: pure steps are removed to be made anew, impure ones stay as they are."""
    for path in sorted(root.glob("s*/**/made_by.json")):
        receipts = (json.loads(receipt.read_bytes()) for receipt in sorted(path.parent.glob("*.receipt.json")))
        if _impure(Receipt.from_json(receipt) for receipt in receipts):
            path.unlink()
        else:
            shutil.rmtree(path.parent)


def _impure(receipts: Iterable[Receipt]) -> bool:
    """Whether these are of an impure step: its files carry their own sha256 in their names."""
    return any(f".{file.sha256[:DIGITS]}." in file.path for receipt in receipts for file in receipt.files)
