"""Finds what was fetched before for rows that other partitions have now, so that no address is asked again.

A file that is added behind small ones changes the rows of the partition that they share; so do other bounds of
partitions, and files in between. What was fetched stays in the folder (workdir.py sweeps no impure step). `Fetch` gets
it as side inputs, under the settings that it was fetched under alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.keys import DIGITS, make_key
from vlmill.pipeline.core.names import FETCHED_SUFFIX, IMAGES_FILE, SUPPLEMENT_FILE
from vlmill.pipeline.engine.chain import Chain
from vlmill.pipeline.engine.finding import FoundChain
from vlmill.pipeline.engine.partition_tables import choose_retry_step, find_tables, list_image_histories
from vlmill.pipeline.engine.store import File, Receipt, Store

if TYPE_CHECKING:
    from vlmill.pipeline.engine.build import Build

NEAREST = 1000
"""Earlier partitions whose tables a partition looks in: those whose numbers of files are nearest to its own."""

RECEIPT = ".receipt.json"


@dataclass(frozen=True, slots=True)
class EarlierTables:
    """What was fetched for a partition as it was."""

    number: int  # of its first file then
    files: tuple[File, ...]  # named for `Fetch`


def add_fetched_before(run: Build, unfinished: Sequence[Chain], done: Iterable[FoundChain]) -> list[Chain]:
    """Chains that fetch, with what was fetched before for partitions that are there no more.

    Args:
        run: The build.
        unfinished: Chains that fetch and are still to be run, or to be run to their end.
        done: What the other chains of the same phase come to.
    """
    current = {f"{receipt.partition}.{receipt.key[:DIGITS]}" for found in done for _, receipt in found}
    earlier = dict[str, list[EarlierTables]]()
    made = list[Chain]()
    for chain in unfinished:
        source, number = chain.steps[0].folder.split("/")[1], _read_number(chain.partition)
        if source not in earlier:
            earlier[source] = list_earlier_tables(run, source, current)
        near = sorted(earlier[source], key=lambda tables: abs(tables.number - number))[:NEAREST]
        made.append(replace(chain, files=(*chain.files, *(file for tables in near for file in tables.files))))
    return made


def list_earlier_tables(run: Build, source: str, current: Collection[str]) -> list[EarlierTables]:
    """What was fetched of a source under the settings of today, but for `current` partitions with their keys."""
    store, step = Store(run.root), run.fetch_step(source)
    fetched = _read_receipts(run, f"steps/{source}/fetch", current)
    if not fetched:
        return []
    names = {receipt.partition for receipt in fetched}
    read = _read_receipts(run, f"steps/{source}/read", (), names)
    keys = {(receipt.partition, make_key(step, sums)) for receipt in read if (sums := _find_addresses(receipt))}
    histories = list(list_image_histories(source, choose_retry_step(run.recipe, source)))
    found = list[EarlierTables]()
    for receipt in fetched:
        if (receipt.partition, receipt.key) not in keys:  # fetched under other settings
            continue
        tables = find_tables(store, source, receipt.partition, [receipt], histories).files
        named = [tables[name] for name in (IMAGES_FILE, SUPPLEMENT_FILE) if name in tables]
        there = [file for file in named if (run.root / file.path).exists()]
        files = tuple(replace(file, name=f"{file.sha256[:DIGITS]}{FETCHED_SUFFIX}") for file in there)
        found.append(EarlierTables(_read_number(receipt.partition), files))
    return found


def _read_receipts(
    run: Build, folder: str, without: Collection[str], names: Collection[str] | None = None
) -> list[Receipt]:
    """The receipts of a step as they lie in its folder, of some partitions or of all."""
    path = run.root / folder
    listed = sorted(file.name for file in path.iterdir() if file.name.endswith(RECEIPT)) if path.exists() else []
    wanted = (
        name
        for name in listed
        if name.removesuffix(RECEIPT) not in without and (names is None or name.partition(".")[0] in names)
    )
    return [Receipt.from_json(read_json(path / name)) for name in wanted]


def _find_addresses(receipt: Receipt) -> Mapping[str, str]:
    """What `Fetch` reads of what was read of a partition, by name and sha256."""
    return {file.name: file.sha256 for file in receipt.files if file.name == IMAGES_FILE}


def _read_number(partition: str) -> int:
    return int(partition.partition("-")[0])
