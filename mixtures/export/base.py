"""What a format of an export is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from vlmill.mixtures.export.record import ExportPicture, Record

Split = Literal["train", "validation"]
"""What a stage trains on, and what it holds out."""


@dataclass(frozen=True, slots=True)
class ExportPart:
    """Records that belong together: one split of the whole plan, of an entry of the mixture, or of a source."""

    config: str  # the name of the Hub for it, and the folder: `data` where there is one alone
    split: Split
    source: str = ""  # the entry or source; empty of a whole plan
    weight: int | None = None  # samples that the plan shows of the entry, repetitions counted

    @property
    def folder(self) -> str:
        """Where its shards lie in the export."""
        return f"{self.config}/{self.split}"


@dataclass(frozen=True, slots=True)
class ExportedShard:
    """A shard that is done."""

    folder: str  # of its part
    records: int
    pictures: int
    files: tuple[Mapping[str, Any], ...]  # `path`, `sha256`, `size`; the first is the shard itself
    remarks: Mapping[str, int] = field(default_factory=dict)
    members: tuple[str, ...] = ()  # what a format wants to know of it in the end


class PictureFolder(Protocol):
    """Where formats that name pictures put them."""

    def add_picture(self, picture: ExportPicture) -> str:
        """Keep a picture as a file; returns its path in the export."""


class ShardFile(Protocol):
    """A shard that is being written."""

    @property
    def size(self) -> int:
        """Its bytes so far, about."""

    @property
    def members(self) -> Collection[str]:
        """What `finish` wants to know of it."""

    def add(self, record: Record) -> Sequence[str]:
        """Append a record. Returns what of REMARKS holds of it in this format alone."""

    def close(self) -> None:
        """End the file."""


class ExportFormat(Protocol):
    """A format. It has no state: its bytes are a function of records and of the versions in `made_by`."""

    name: ClassVar[str]
    version: ClassVar[int]
    suffix: ClassVar[str]  # of a shard
    about: ClassVar[str]  # for the card: how it is read

    def made_by(self) -> Mapping[str, str]:
        """The libraries that decide the bytes."""

    def open_shard(self, path: Path, pictures: PictureFolder) -> ShardFile:
        """Begin a shard; what else it leaves lies beside `path` and begins with its name."""

    def finish(
        self, name: str, parts: Sequence[ExportPart], shards: Mapping[str, Sequence[ExportedShard]]
    ) -> Mapping[str, str]:
        """Path -> text of the files about all shards.

        Args:
            name: Of the run and stage.
            parts: In order.
            shards: By the folder of their part, in order; not all parts have some.
        """

    def describe_configs(
        self, parts: Sequence[ExportPart], shards: Mapping[str, Sequence[ExportedShard]]
    ) -> Mapping[str, Any]:
        """The keys of the card's metadata by which the Hub's `datasets` reads the export; none where it cannot."""


def list_configs(parts: Sequence[ExportPart], suffix: str) -> list[dict[str, Any]]:
    """`configs` of a card of the Hub: the files of each split."""
    configs: dict[str, list[dict[str, str]]] = {}
    for part in parts:
        files = {"split": part.split, "path": f"{part.folder}/*{suffix}"}
        configs.setdefault(part.config, []).append(files)
    return [{"config_name": name, "data_files": files} for name, files in configs.items()]
