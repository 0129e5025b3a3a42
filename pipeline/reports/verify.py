"""Checks everything that a run promises about its files: every sha256, every count, every lock. Reads, never writes.

Files are compared with receipts, receipts with manifests; and the counts of every step with what stands in the
tables, so that what one step kept is what the next one took in, from the rows of the input file to the samples of a
mixture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.progress import ProgressBars, Watcher
from vlmill.pipeline.core.seal import find_seal_fault
from vlmill.pipeline.core.terminal import make_console
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.engine.executor import Executor, Inline, open_executor
from vlmill.pipeline.engine.partition_tables import list_raw_tables
from vlmill.pipeline.engine.store import list_step_files
from vlmill.pipeline.engine.workdir import EDITIONS, PINS
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK
from vlmill.pipeline.recipe.schema import Recipe, Stage
from vlmill.pipeline.reports.verify_counts import CountedSource, are_complete, verify_dedupe
from vlmill.pipeline.reports.verify_files import verify_file, verify_manifest


def verify_run(root: Path, executor: Executor | None = None, watcher: Watcher | None = None) -> Iterator[str]:
    """Yield one line per broken promise; none means that the run is sound.

    Args:
        root: The run's folder.
        executor: Where files are hashed and partitions counted; None: in this process. The lines are the same.
        watcher: Is told how far it is.

    Raises:
        StoreError: the folder holds no run.
    """
    executor, watcher = executor or Inline(), watcher or ProgressBars(make_console(quiet=True))
    recipe, manifests = read_locked_recipe(root), list_manifests(root)
    read = [name for name in recipe.sources if are_complete(root, *_list_raw_folders(recipe, name))]
    tables = (at for name in read for at in list_raw_tables(root, recipe, name))
    purged = frozenset(file.path for at in tables for file in at.purged)
    broken = list(_verify_small_files(root))
    watcher.phase("verify: files", len(manifests))
    for manifest in manifests:
        broken += verify_manifest(root, manifest, purged, executor)
        watcher.done()
    yield from broken
    if broken:  # what is damaged is not counted
        return
    filtered = [name for name in read if are_complete(root, *_list_filtered_folders(recipe, name))]
    counted = {name: CountedSource(root, recipe, name, executor, watcher) for name in filtered}
    for source in counted.values():
        yield from source.list_faults()
    if len(filtered) == len(recipe.sources):
        yield from verify_dedupe(root, recipe, counted.values())
    for stage in recipe.stages:
        lock = root / "mixtures" / stage.name / "mixture.lock.json"
        changed = list(_verify_published(root, stage))
        yield from changed
        if lock.exists() and not changed:
            yield from _verify_mixture(root, recipe, stage, lock)


LARGE = 4 << 20
"""Bytes of manifests from which workers pay: about 2,000 receipts."""


def verify_in_workers(root: Path, workers: int | None, ray: str | None, console: Console | None = None) -> list[str]:
    """The lines of `verify_run`; of a large run by workers, while a console shows how far it is.

    Args:
        root: The run's folder, absolute where there are workers.
        workers: Processes; 0 is this one, None one per core where the run is large.
        ray: The address of a Ray cluster.
        console: Where progress is shown if the run is large; None shows nothing.

    Raises:
        StoreError: the folder holds no run.
    """
    large = sum(path.stat().st_size for path in list_manifests(root)) > LARGE
    shown = console if console and large else make_console(quiet=True)
    chosen = 0 if workers is None and ray is None and not large else workers
    with open_executor(chosen, ray, root=root, console=console) as executor, ProgressBars(shown) as watcher:
        return list(verify_run(root, executor, watcher))


def list_manifests(root: Path) -> list[Path]:
    """Every manifest of a run, in order."""
    return sorted(list_step_files(root, "manifest.json"))


def _list_raw_folders(recipe: Recipe, source: str) -> list[str]:
    steps = ("read", "fetch") if recipe.source(source).fetches else ("read",)
    return [f"steps/{source}/{step}" for step in steps]


def _list_filtered_folders(recipe: Recipe, source: str) -> list[str]:
    steps = ["image_stats", *recipe.verdict_steps(), *(["contamination"] if recipe.decontaminate is not None else [])]
    folders = [f"steps/{source}/{step}" for step in steps]
    return [*folders, *(["steps/dedupe/resolve"] if recipe.dedupe is not None else [])]


def list_unfinished(root: Path) -> Iterator[str]:
    """The phases of a build that the run has not to its end, and of what; none of a run that is built.

    Raises:
        StoreError: the folder holds no run.
    """
    recipe = read_locked_recipe(root)
    resolve = "steps/dedupe/resolve"
    folders = {
        name: [*_list_raw_folders(recipe, name), *_list_filtered_folders(recipe, name)] for name in recipe.sources
    }
    if some := [name for name in folders if not are_complete(root, *(set(folders[name]) - {resolve}))]:
        yield f"curate of {', '.join(some)}"
    if recipe.dedupe is not None and not are_complete(root, resolve):
        yield "dedupe"
    shards = {
        f"{name} ({policy})": f"shards/{name}/{policy}" for name in folders for policy in recipe.list_policies(name)
    }
    if some := [said for said, folder in shards.items() if not are_complete(root, folder)]:
        yield f"shard of {', '.join(some)}"
    if some := [
        one.name for one in recipe.stages if not are_complete(root, *(folder for _, folder in _list_stage_folders(one)))
    ]:
        yield f"mixture of {', '.join(some)}"


# -- files without receipts --------------------------------------------------------------------------------------------


def _verify_small_files(root: Path) -> Iterator[str]:
    """Files with their own digest, and copies of lists, whose names begin with theirs."""
    for name in (LOCK, PINS, EDITIONS):
        if (root / name).exists() and (fault := find_seal_fault(root / name)):
            yield f"{name}: {fault}; the next build with --accept-changes writes it anew"
    for path in sorted((root / "lists").glob("*.*")):
        if str(path.relative_to(root)) != EDITIONS and not hash_file(path).startswith(path.name.partition(".")[0]):
            yield f"{path.relative_to(root)}: its sha256 is not the one in its name; delete it and build again"


# -- mixtures ----------------------------------------------------------------------------------------------------------


def _list_stage_folders(stage: Stage) -> list[tuple[str, str]]:
    """Where in `mixtures/` the files of a stage's steps are published, and the folders of these steps, in order."""
    steps = (("plan/", "plan"), ("", "lock"), ("", "repetition"))  # the last has the statistics anew
    return [(below, f"steps/mixtures/{stage.name}/{step}") for below, step in steps]


def _verify_published(root: Path, stage: Stage) -> Iterator[str]:
    """The lock, plan, held-out list and statistics in `mixtures/` are those that the stage's steps made."""
    made: dict[str, str] = {}
    for below, folder in _list_stage_folders(stage):
        if not are_complete(root, folder):
            return
        made |= {
            f"{below}{file.name}": file.sha256 for receipt in read_manifest(root, folder) for file in receipt.files
        }
    for name, sha256 in sorted(made.items()):
        path = root / "mixtures" / stage.name / name
        if not path.exists():
            yield f"{path.relative_to(root)}: is missing; the next build puts it there"
        elif hash_file(path) != sha256:
            yield f"{path.relative_to(root)}: is not what the build wrote; the next build puts it right"


def _verify_mixture(root: Path, recipe: Recipe, stage: Stage, lock: Path) -> Iterator[str]:
    """The lock's shards, plan blocks and held-out list are unchanged.

    Its shards are all that the policy has of a source.
    """
    data = read_json(lock)
    selected = {
        receipt.partition: receipt.counts for receipt in read_manifest(root, f"steps/mixtures/{stage.name}/select")
    }
    entries = {source["name"] for source in data["sources"]}
    for source in data["sources"]:
        members = recipe.find_members(source["name"], entries)
        yield from _verify_inputs(root, stage, source, members, selected)
        for shard in source["shards"]:
            yield from verify_file(root, shard["path"], shard["sha256"])
    tokenizer = data["tokenizer"]
    if not (root / tokenizer["path"]).exists() or hash_file(root / tokenizer["path"]) != tokenizer["sha256"]:
        yield f"{tokenizer['path']}: is not the tokenizer that counted the tokens of mixtures/{stage.name}; build again"
    listed = (*data["plan"]["blocks"], *([data["held_out"]] if data.get("held_out") else []))
    for file in listed:
        yield from verify_file(root, str(lock.parent.relative_to(root) / file["path"]), file["sha256"])
    if sum(block["sequences"] for block in data["plan"]["blocks"]) != data["plan"]["sequences"]:
        yield f"{lock.relative_to(root)}: its blocks do not add up to {data['plan']['sequences']} sequences"


def _verify_inputs(
    root: Path,
    stage: Stage,
    source: Mapping[str, Any],
    members: Sequence[str],
    selected: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:
    """What render kept of an entry's sources is what the stage locks and selects from."""
    receipts = [receipt for member in members for receipt in read_manifest(root, f"shards/{member}/{stage.policy}")]
    made = {(file.path, file.sha256) for receipt in receipts for file in receipt.files if file.name.endswith(".tar")}
    locked = {(shard["path"], shard["sha256"]) for shard in source["shards"]}
    where = f"mixtures/{stage.name}: {source['label']}"
    for path, _ in sorted(made ^ locked):
        yield f"{where}: {path} stands in {'its lock' if (path, _) in locked else 'the manifest'} alone; build again"
    kept = sum(receipt.counts["samples"]["kept"] for receipt in receipts)
    inside, taken = sum(shard["samples"] for shard in source["shards"]), selected[source["label"]]["samples"]["in"]
    if not kept == inside == taken:
        yield f"{where}: render kept {kept} samples, the lock has {inside}, select took in {taken}"
