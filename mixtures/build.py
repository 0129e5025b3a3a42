"""The mixture phase of a build: from a run's shards and lengths to every stage's lock, plan and statistics.

Runs the steps of this package through the run's chains, under `steps/mixtures/<stage>/`, and publishes what they made
under `mixtures/<stage>/`, where the trainer and people look for it: the lock last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow.parquet as pq

from vlmill.mixtures import Shard, get_lineage_path
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.members import list_members, list_unknown
from vlmill.mixtures.report.notes import write_notes
from vlmill.mixtures.steps.conditions import WHERE_COLUMNS, check_where
from vlmill.mixtures.steps.lock import Lock, verify_lock
from vlmill.mixtures.steps.mix import Mix
from vlmill.mixtures.steps.plan import Plan
from vlmill.mixtures.steps.repetition import Repetition
from vlmill.mixtures.steps.select import list_selects
from vlmill.pipeline.chat.settings import describe_chat, find_format
from vlmill.pipeline.core.arrays import read_array
from vlmill.pipeline.core.config import parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.files import copy_file, read_json, remove_folder, write_atomically
from vlmill.pipeline.core.keys import canonicalise_value, hash_file
from vlmill.pipeline.core.names import LINEAGE_SUFFIX, SIGNALS_SUFFIX
from vlmill.pipeline.core.step import Step
from vlmill.pipeline.dedupe.near_pairs import IMAGE_PAIRS_FILE
from vlmill.pipeline.engine.build import Build
from vlmill.pipeline.engine.chain import Chain, ChainStep, read_manifest
from vlmill.pipeline.engine.scaling import compute_read_fraction
from vlmill.pipeline.engine.store import File, Receipt
from vlmill.pipeline.images.connector import TILE_TOKENS, read_tile_tokens
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.other_names import offer_names
from vlmill.pipeline.recipe.schema import Recipe, Stage
from vlmill.pipeline.steps.signal_columns import list_signal_columns

LOCK = "mixture.lock.json"
PAIRS = "steps/dedupe/pairs"


def read_stage_mixture(
    recipe: Recipe, stage: Stage, read: Mapping[str, float] = MappingProxyType({})
) -> MixtureSettings:
    """The mixture of a stage at the recipe's scale, every source of it in the recipe.

    `read` says which fraction of each source's rows a scaled run read, once that is known. Mappings such as `shares`
    are put in the order of their names, as keys and the folder's lock have them.

    Raises:
        RecipeError: a wrong key or value, a source that the recipe does not have, or one that is held out of no entry.
    """
    where = f"stages.{stage.name}.mixture"
    values = {name: _sort_mapping(value) for name, value in stage.mixture.items()}
    try:
        mixture = parse_block(MixtureSettings, values, where)
    except RecipeError as error:
        raise RecipeError(*error.faults, *list_unknown(recipe, stage.list_entry_names(), where)) from None
    entries = list_members(recipe, mixture, where)
    for name in mixture.held_out:
        if name not in entries:
            known = f"this stage does not train on it: leave it out here, or hold it out whole: {{{name}: 1}}"
            advice = known if name in recipe.sources else suggest_names(name, entries)
            raise RecipeError(f"{where}.held_out: {name!r} is no entry of this mixture; {advice}")
    return mixture.scaled(recipe.scale, read)


def _sort_mapping(value: Any) -> Any:
    """A mapping in the order of its names; any other value as it is."""
    return dict(sorted(value.items(), key=lambda item: str(item[0]))) if isinstance(value, Mapping) else value


def validate_mixtures(recipe: Recipe) -> None:
    """Read every stage's mixture once, so that a mistake shows before any work begins.

    Raises:
        RecipeError: a mixture is wrong, or a stage would train on samples that another one holds out.
    """
    mixtures = {stage.name: read_stage_mixture(recipe, stage) for stage in recipe.stages}
    for stage in recipe.stages:
        if stage.policy in recipe.policies:
            bound_visual_tokens(recipe, stage, mixtures[stage.name])
    columns = list_signal_columns(recipe.list_values(), recipe.list_labels())
    if taken := [column for column in columns if column in WHERE_COLUMNS or columns.count(column) > 1]:
        raise RecipeError(f"signals: {taken[0]!r} is a column of shards already; rename the signal that gives it")
    for mixture in mixtures.values():
        for partition in mixture.resolved():
            check_where(partition, columns)
    held_out = {name: _hold_out(recipe, name, mixture) for name, mixture in mixtures.items()}
    for name, fractions in held_out.items():
        for source, fraction in fractions.items():
            for other, trained in held_out.items():
                if fraction and trained.get(source, fraction) != fraction:
                    raise RecipeError(
                        f"stages.{other}.mixture.held_out: stage {name!r} keeps {fraction} of {source!r} for "
                        f"evaluation and {other!r} would train on it; write held_out: {{{source}: {fraction}}} in "
                        "both"
                    )


def bound_visual_tokens(recipe: Recipe, stage: Stage, mixture: MixtureSettings) -> int | None:
    """How many visual tokens its budget of patches leaves a sequence of a stage; None: any number.

    Raises:
        RecipeError: the budget is less than one token, or the stage's images are not at native resolution.
    """
    if mixture.patches_per_sequence is None:
        return None
    policy, key = recipe.policies[stage.policy], f"stages.{stage.name}.mixture.patches_per_sequence"
    each: int | None = getattr(policy, "patches_per_token", None)
    if each is None:
        raise RecipeError(
            f"{key}: images of policy {stage.policy} ({policy.kind}) are inputs of bounded size, whose number "
            "tiles_per_sequence bounds; patches are for kind native"
        )
    if mixture.patches_per_sequence < each:
        raise RecipeError(f"{key} is {mixture.patches_per_sequence}; a visual token of {stage.policy} has {each}")
    return mixture.patches_per_sequence // each


def _hold_out(recipe: Recipe, stage: str, mixture: MixtureSettings) -> dict[str, float]:
    """The fraction that a stage holds out of every source it trains on."""
    members = list_members(recipe, mixture, f"stages.{stage}.mixture")
    return {source: mixture.held_out.get(name, 0.0) for name, found in members.items() for source in found}


def build_stages(run: Build) -> None:
    """Mix, plan and lock every stage of a run whose shards are complete."""
    for stage in run.recipe.stages:
        _Stage(run, stage).build()


class _Stage:
    """One stage on its way to a lock."""

    def __init__(self, run: Build, stage: Stage) -> None:
        self.run, self.stage, self.folder = run, stage, f"steps/mixtures/{stage.name}"
        self.read = self._compute_read_fractions()
        self.mixture = read_stage_mixture(run.recipe, stage, self.read)
        self.chat = find_format(run.recipe.chat)
        self.visual = bound_visual_tokens(run.recipe, stage, self.mixture)

    def build(self) -> None:
        """Every step in turn, then publish."""
        members = list_members(self.run.recipe, self.mixture, f"stages.{self.stage.name}.mixture")
        shards = {
            name: [shard for source in sources for shard in self._shards(source)] for name, sources in members.items()
        }
        selected = self._select({source: [shard for shard, _ in found] for source, found in shards.items()}, shards)
        mixed = self._one("mix", self._make_mix(), selected)
        blocks = self._plan((*mixed, *selected))
        lock = Lock(
            shards={source: tuple(shard for shard, _ in found) for source, found in shards.items()},
            policy=self._describe_policy(),
            tokenizer={"path": "tokenizer.json", "sha256": hash_file(self.run.root / "tokenizer.json")},
            chat=describe_chat(self.run.recipe.chat),
            overhead=self.chat.overhead,
        )
        locked = self._one("lock", lock, (*mixed, *selected, *blocks))
        counted = self._one(
            "repetition",
            Repetition(),
            (*locked, *blocks, *self._lineage(source for sources in members.values() for source in sources)),
        )
        files = {file.name: file for file in (*locked, *counted)}  # with the statistics that know of repetition
        publish_stage(self.run.root, self.stage.name, tuple(files.values()), blocks)

    def _compute_read_fractions(self) -> dict[str, float]:
        """The fraction of the rows that a scaled run read, of each source or group that the mixture names."""
        if self.run.recipe.scale == 1:
            return {}
        mixture = read_stage_mixture(self.run.recipe, self.stage)
        members = list_members(self.run.recipe, mixture, f"stages.{self.stage.name}.mixture")
        return {
            name: compute_read_fraction(self.run.root, self.run.recipe, sources) for name, sources in members.items()
        }

    def _make_mix(self) -> Mix:
        """The mix step, which weighs what a scaled run read of a source as if it were exactly the scale of it."""
        scale = self.run.recipe.scale
        weights = {name: scale / fraction for name, fraction in self.read.items()}
        return Mix(self.stage.name, self.mixture, self.run.recipe.seed, weights, self.visual)

    def _describe_policy(self) -> dict[str, Any]:
        """The image policy as a lock lists it; `tile_tokens` is what a connector makes of a tile, if it says so."""
        policy = self._policy()
        named = {name: value for name, value in canonicalise_value(policy).items() if not name.startswith("class.")}
        tile = read_tile_tokens(self.run.recipe.model, policy)
        return {"kind": policy.kind, **named, **({} if tile is None else {TILE_TOKENS: canonicalise_value(tile)})}

    def _policy(self) -> Any:
        return self.run.recipe.policies[self.stage.policy]

    def _shards(self, source: str) -> list[tuple[Shard, tuple[File, ...]]]:
        """A source's shards under the stage's policy, with index and lengths, in the order of their names."""
        folder, found = f"shards/{source}/{self.stage.policy}", list[tuple[Shard, tuple[File, ...]]]()
        lengths = {
            receipt.partition: {file.name: file for file in receipt.files}
            for receipt in self.run.manifest(f"{folder}/lengths")
        }
        for receipt in self.run.manifest(f"{folder}/signals") if self.run.recipe.list_values() else ():
            lengths[receipt.partition] |= {file.name: file for file in receipt.files}
        for receipt in self.run.manifest(folder):
            files = {file.name: file for file in receipt.files} | lengths[receipt.partition]
            for number in sorted(name.removesuffix(".tar") for name in files if name.endswith(".tar")):
                tar, index, length = (files[f"{number}.{form}"] for form in ("tar", "index.parquet", "lengths.parquet"))
                lineage, signals = files[f"{number}{LINEAGE_SUFFIX}"], files.get(f"{number}{SIGNALS_SUFFIX}")
                shard = Shard(
                    source,
                    self.stage.policy,
                    tar.path,
                    tar.sha256,
                    _count_rows(self.run.root / index.path),
                    index.path,
                    index.sha256,
                    length.path,
                    signals.path if signals else "",
                )
                found.append((shard, (index, length, lineage, *([signals] if signals else []))))
        return found

    def _lineage(self, sources: Iterable[str]) -> tuple[File, ...]:
        """The lineage beside every shard, by its path."""
        return tuple(
            replace(file, name=file.path)
            for source in sources
            for receipt in self.run.manifest(f"shards/{source}/{self.stage.policy}")
            for file in receipt.files
            if file.name.endswith(LINEAGE_SUFFIX)
        )

    def _select(
        self, shards: Mapping[str, list[Shard]], found: Mapping[str, list[tuple[Shard, tuple[File, ...]]]]
    ) -> tuple[File, ...]:
        dedupe = self.run.recipe.dedupe
        near = None if dedupe is None else dedupe.image
        steps = list_selects(self.mixture, shards, self.run.recipe.seed, self.chat.overhead, near, self.visual)
        pairs = () if dedupe is None else list_image_pairs(self.run.root)
        chains = [
            Chain(
                label,
                (ChainStep(f"{self.folder}/select", step),),
                files=(
                    *pairs,
                    *(replace(file, name=file.path) for _, pair in found[step.entry.source] for file in pair),
                ),
            )
            for label, step in steps.items()
        ]
        return tuple(
            replace(file, name=f"{receipt.partition}/{file.name}")
            for receipt in self._run_chains("select", chains)
            for file in receipt.files
        )

    def _plan(self, files: tuple[File, ...]) -> tuple[File, ...]:
        starts = next(file for file in files if file.name == "starts.npy")
        count = len(read_array(self.run.root / starts.path, mapped=False)) - 1
        chains = [
            Chain(f"{block:05d}", (ChainStep(f"{self.folder}/plan", Plan(block)),), files=files)
            for block in range(count)
        ]
        return tuple(
            replace(file, name=f"plan/{file.name}")
            for receipt in self._run_chains("plan", chains)
            for file in receipt.files
        )

    def _one(self, name: str, step: Step, files: tuple[File, ...]) -> tuple[File, ...]:
        (receipt,) = self._run_chains(name, [Chain("all", (ChainStep(f"{self.folder}/{name}", step),), files=files)])
        return receipt.files

    def _run_chains(self, phase: str, chains: list[Chain]) -> list[Receipt]:
        """The receipts of chains of one step, in the order of the chains."""
        done = {
            chain.partition: receipts[-1][1]
            for chain, receipts in self.run.run_chains(f"{self.stage.name}: {phase}", chains)
        }
        return [done[chain.partition] for chain in chains]


def publish_stage(root: Path, stage: str, locked: tuple[File, ...], blocks: tuple[File, ...]) -> None:
    """Copy a stage's lock, statistics and plan to `mixtures/<stage>/`.

    While the old files are exchanged there is no lock.
    """
    folder = root / "mixtures" / stage
    wanted = {folder / file.name: root / file.path for file in (*blocks, *locked)}
    sums = {folder / file.name: file.sha256 for file in (*blocks, *locked)}
    if all(path.exists() and hash_file(path) == sums[path] for path in wanted):
        return
    (folder / LOCK).unlink(missing_ok=True)
    remove_folder(folder / "plan")
    (folder / "plan").mkdir(parents=True)
    for path in sorted(wanted, key=lambda path: path.name == LOCK):
        if path.suffix == ".json":
            write_atomically(path, wanted[path].read_text(encoding="utf-8"))
        else:
            copy_file(wanted[path], path)


def list_image_pairs(root: Path) -> tuple[File, ...]:
    """The similarities of images that dedupe measured in a run, named `<share>/<name>`."""
    return tuple(
        replace(file, name=f"{receipt.partition}/{file.name}")
        for receipt in read_manifest(root, PAIRS)
        for file in receipt.files
        if file.name == IMAGE_PAIRS_FILE
    )


def verify_locks(root: Path) -> Iterator[str]:
    """A line for whatever a stage's lock says that its files do not bear out; nothing where all are sound."""
    recipe = read_locked_recipe(root)
    mixed = [stage.name for stage in recipe.stages if is_mixed(root, stage.name)]
    compared = list_image_pairs(root) if mixed and recipe.dedupe is not None else ()
    pairs = {file.name: root / file.path for file in compared}
    for stage in mixed:
        folder = root / "mixtures" / stage
        lock = read_json(folder / LOCK)
        listed = [shard for source in lock["sources"] for shard in source["shards"]]
        tables = [path for shard in listed for path in (shard["index"], shard["lengths"])]
        tables += [get_lineage_path(shard["path"]) for shard in listed]
        tables += [shard["signals"] for shard in listed if "signals" in shard]
        inputs = pairs | {path: root / path for path in tables}
        inputs |= {
            path: folder / path
            for path in (*(block["path"] for block in lock["plan"]["blocks"]), lock["held_out"]["path"])
        }
        for line in verify_lock(lock, inputs):
            yield f"mixtures/{stage}: {line}"


def is_mixed(root: Path, stage: str) -> bool:
    """Whether a stage's mixture is planned and locked."""
    return (root / "mixtures" / stage / LOCK).exists()


def read_stats(root: Path, stage: str | None) -> dict[str, Any]:
    """Stage -> its statistics, for one stage or all; `notes` are what a person should look at.

    Raises:
        RecipeError: the recipe has no such stage.
        StoreError: a stage has no statistics yet.
    """
    recipe = read_locked_recipe(root)
    names = [item.name for item in recipe.stages]
    if stage is not None and stage not in names:
        raise RecipeError(f"--stage {stage}: the recipe has no such stage; {offer_names(recipe, stage, names)}")
    found = {}
    for name in names if stage is None else [stage]:
        folder = root / "mixtures" / name
        if not is_mixed(root, name):
            raise StoreError(
                f"{root}: stage {name!r} is not mixed yet; run the build to its end: vlmill build RECIPE --out {root}"
            )
        stats, lock = (read_json(folder / file) for file in ("stats.json", LOCK))
        found[name] = {**stats, "notes": list(write_notes(root, recipe, name, stats, lock))}
    return found


def _count_rows(index: Path) -> int:
    return int(pq.read_metadata(index).num_rows)
