"""An export from its settings to its receipt: goes on where it was interrupted, and does nothing that is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from vlmill.mixtures.export.base import ExportedShard, ExportFormat, ExportPart
from vlmill.mixtures.export.card import make_export_card, sum_remarks
from vlmill.mixtures.export.folder import RECEIPT, ExportFolder
from vlmill.mixtures.export.formats import FORMATS
from vlmill.mixtures.export.kept_records import KeptRecords
from vlmill.mixtures.export.record import Record
from vlmill.mixtures.export.stage_records import Images, Order, StageRecords
from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.keys import hash_file, hash_value
from vlmill.pipeline.core.seal import seal_json
from vlmill.pipeline.engine.store import Store
from vlmill.pipeline.recipe.lock import explain_unbuilt, read_locked_recipe
from vlmill.pipeline.recipe.mapping import LOCK
from vlmill.pipeline.recipe.other_names import offer_names
from vlmill.pipeline.takedown.rules import LIST, TakedownList

CARD = "README.md"


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What is asked for."""

    to: str  # of FORMATS
    stage: str | None = None  # None: all that was kept
    order: Order = "plan"
    images: Images = "original"
    shard_samples: int = 10_000  # of a shard, at most
    shard_bytes: int = 512 << 20  # about, before compression; one record may be larger


CHOSEN = ("to", "stage", "order")
"""Settings that make it another export; the others say how it is cut into files, and how pictures are drawn."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export left."""

    folder: Path  # of the export
    outcome: Literal["made", "resumed", "replaced", "unchanged"]  # resumed: an interrupted one was ended
    why: str  # of `replaced`: what was there before
    records: int  # written, of all files
    images: int  # places where one is shown
    files: int  # of records
    remarks: Mapping[str, int]  # see REMARKS of record.py


def export_run(
    root: Path, settings: ExportSettings, out: Path, tell: Callable[[str], None] = lambda _: None
) -> ExportResult:
    """Export a stage, or all that a run kept.

    Args:
        root: The run's folder.
        settings: What is wanted.
        out: The folder of the export.
        tell: Is told of every shard that is done.

    Raises:
        RecipeError: settings that do not go together, or an unknown format.
        StoreError: the run has not come so far, is damaged or at work; or `out` holds something else.
    """
    _check_settings(root, settings)
    made = FORMATS[settings.to]
    with Store(root).shared():
        found = (
            KeptRecords(root)
            if settings.stage is None
            else StageRecords(root, settings.stage, settings.order, settings.images)
        )
        about = {**asdict(settings), "inputs": found.inputs, "format_version": made.version, "made_by": made.made_by()}
        if explain_unbuilt(root):
            about["unbuilt"] = True  # its card says so, and the export of the run that is built replaces it
        folder = ExportFolder(out, hash_value(about))
        with folder.locked():
            return _Export(root, found, settings, made, folder, tell).run()


READ_BY = (
    "parquet is for Hugging Face datasets and TRL, llava for LLaVA's code, messages (as OpenAI's) for LLaMA-Factory "
    "and ms-swift, webdataset for webdataset and Megatron-Energon"
)
"""Who reads which format, for those who name a trainer."""


def _check_settings(root: Path, settings: ExportSettings) -> None:
    recipe = read_locked_recipe(root)
    stages = [stage.name for stage in recipe.stages]
    if settings.to not in FORMATS:
        raise RecipeError(f"--to {settings.to}: {suggest_names(settings.to, list(FORMATS))}. {READ_BY}")
    if settings.stage is not None and settings.stage not in stages:
        raise StoreError(f"{root}: there is no stage {settings.stage!r}; {offer_names(recipe, settings.stage, stages)}")
    if settings.stage is None and settings.images == "policy":
        raise RecipeError("--images policy: an image policy belongs to a stage; name one with --stage")
    if min(settings.shard_samples, settings.shard_bytes) < 1:
        raise RecipeError("--shard-samples and --shard-bytes: a shard holds one sample at least")


@dataclass(frozen=True, slots=True)
class _Export:
    """An export whose folder is locked."""

    root: Path
    found: KeptRecords | StageRecords
    settings: ExportSettings
    made: ExportFormat
    folder: ExportFolder
    tell: Callable[[str], None]

    def run(self) -> ExportResult:
        receipt = self.folder.read_receipt()
        done, why = self.folder.read_progress(), ""
        if receipt is not None:
            self._refuse_other(receipt)
            why = self._compare_receipt(receipt)
            if not why:
                self._renew_receipt(receipt)
                counts = (receipt["records"], receipt["images"], receipt["files"], receipt["remarks"])
                return ExportResult(self.folder.path, "unchanged", "", *counts)
        if receipt is not None or done is None:
            self.folder.clear()
            done = []
        outcome: Literal["made", "resumed", "replaced"] = "replaced" if why else "resumed" if done else "made"
        self.folder.begin(done)
        shards = [*done, *self._write_rest(done)]
        return self._finish(shards, outcome, why)

    def _refuse_other(self, receipt: Mapping[str, object]) -> None:
        """Raises StoreError where a complete export is of another run, stage or form: somebody may be using it."""
        asked = {"run": self.found.recipe.name} | {name: getattr(self.settings, name) for name in CHOSEN}
        if other := [name for name, value in asked.items() if receipt[name] != value]:
            said = ", ".join(f"{name} {receipt[name]}, asked for is {asked[name]}" for name in other)
            raise StoreError(
                f"{self.folder.path} holds another export ({said}); give a new folder with --out, or delete this one"
            )

    def _compare_receipt(self, receipt: Mapping[str, object]) -> str:
        """Why a complete export is not the one that is asked for; empty where it is."""
        if receipt["key"] == self.folder.key:
            return self.folder.find_damage()
        if receipt["takedowns_sha256"] != self._hash_file(LIST):
            return "something was taken down since"
        return "it was cut or drawn otherwise, or the run has changed since"

    def _renew_receipt(self, receipt: Mapping[str, object]) -> None:
        """Of the same data under a recipe that has changed in something else."""
        now = {name: value for name, value in receipt.items() if name != "sha256"} | self._describe_run()
        write_atomically(self.folder.path / RECEIPT, seal_json(now))

    def _describe_run(self) -> dict[str, str]:
        return {"recipe_sha256": self._hash_file(LOCK), "takedowns_sha256": self._hash_file(LIST)}

    def _hash_file(self, name: str) -> str:
        return hash_file(self.root / name) if (self.root / name).exists() else ""

    # -- shards --------------------------------------------------------------------------------------------------------

    def _write_rest(self, done: list[ExportedShard]) -> Iterator[ExportedShard]:
        """All shards behind those that are done, each when it is asked for."""
        for part in self.found.parts:
            mine = [shard for shard in done if shard.folder == part.folder]
            start, number = sum(shard.records for shard in mine), len(mine)
            self.folder.scratch.mkdir(exist_ok=True)
            records = self._check_records(self.found.read(part, start, self.folder.scratch))
            coming = next(records, None)
            while coming is not None:
                shard, coming = self._write_shard(part, number, coming, records)
                self.tell(f"{shard.files[0]['path']}: {shard.records:,} records")
                yield shard
                number += 1

    def _write_shard(
        self, part: ExportPart, number: int, first: Record, records: Iterator[Record]
    ) -> tuple[ExportedShard, Record | None]:
        """A shard of `first` and what comes behind it and fits; and the record that no longer does."""
        written = self.folder.scratch / "shard"
        written.mkdir()
        file = self.made.open_shard(written / f"{number:05d}{self.made.suffix}", self.folder)
        count, pictures, remarks = 0, 0, Counter[str]()
        coming: Record | None = first
        while coming is not None and self._fits(count, file.size, coming):
            remarks.update([*coming.remarks, *file.add(coming)])
            count, pictures = count + 1, pictures + len(coming.pictures)
            coming = next(records, None)
        file.close()
        noted = {
            "records": count,
            "pictures": pictures,
            "remarks": dict(sorted(remarks.items())),
            "members": tuple(sorted(file.members)),
        }
        done = self.folder.commit_shard(part.folder, written, noted)
        written.rmdir()
        return done, coming

    def _fits(self, count: int, size: int, record: Record) -> bool:
        return not count or (count < self.settings.shard_samples and size + record.size <= self.settings.shard_bytes)

    def _check_records(self, records: Iterator[Record]) -> Iterator[Record]:
        """The records, none of which is on the list of takedowns: one that was interrupted may have left some."""
        rules = TakedownList.read(self.root)
        ids, digests, find_rule = set(rules.ids), set(rules.sha256), rules.address()
        for record in records:
            if rules and (
                record.id in ids
                or find_rule(record.url)
                or any(picture.sha256 in digests for picture in record.pictures)
            ):
                raise StoreError(
                    f"{record.id} stands on {self.root / LIST}, and the takedown has not come to its end; finish it: "
                    f"vlmill takedown {self.root}"
                )
            yield record

    def _finish(
        self, shards: list[ExportedShard], outcome: Literal["made", "resumed", "replaced"], why: str
    ) -> ExportResult:
        by_part: dict[str, list[ExportedShard]] = {}
        for shard in shards:
            by_part.setdefault(shard.folder, []).append(shard)
        parts, remarks = self.found.parts, sum_remarks(shards)
        records, images = (sum(getattr(shard, name) for shard in shards) for name in ("records", "pictures"))
        card = make_export_card(self.root, self.found.recipe, self.settings.stage, self.made, parts, by_part)
        texts = {CARD: card, **self.made.finish(self.found.name, parts, by_part)}
        receipt = {
            "run": self.found.recipe.name,
            **asdict(self.settings),
            **self._describe_run(),
            "inputs_sha256": self.found.inputs,
            "made_by": dict(self.made.made_by()),
            "parts": {
                part.folder: sum(shard.records for shard in by_part[part.folder])
                for part in parts
                if part.folder in by_part
            },
            "records": records,
            "images": images,
            "remarks": remarks,
        }
        self.folder.scratch.mkdir(exist_ok=True)
        self.folder.finish(shards, texts, receipt)
        written = self.folder.read_receipt() or {}
        return ExportResult(self.folder.path, outcome, why, records, images, written["files"], remarks)
