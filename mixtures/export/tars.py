"""WebDataset tars that the Hub's `datasets`, webdataset and Megatron-Energon read.

A sample is `<key>.json` and its pictures `<key>.0.jpg`, `<key>.1.png`; the JSON's parts name them. Energon's metadata
(`.nv-meta`, and an index beside each tar) lie there as `energon prepare` would write them, less the SQLite index, which
looking up samples by key needs and training does not.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from vlmill.mixtures.export.base import ExportedShard, ExportPart, PictureFolder, list_configs
from vlmill.mixtures.export.record import NUMBERS, TEXTS, Record
from vlmill.pipeline.core.yaml_format import format_yaml
from vlmill.pipeline.shards.tar_file import TarFile

INDEX = ".idx"
"""What Energon calls the offsets of samples behind the name of a tar: 8 bytes each, the lowest first."""

SPLITS = {"train": "train", "validation": "val"}
"""As Energon calls them."""

DATASET = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}


class TarShard:
    """A tar, and the offsets of its samples."""

    def __init__(self, path: Path) -> None:
        self._tar = TarFile(path)
        self._index, self._offsets, self.members = path.with_name(path.name + INDEX), list[int](), set[str]()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._tar.offset

    def add(self, record: Record) -> Sequence[str]:
        """Append a sample."""
        key = f"{len(self._offsets):09d}"
        names = [f"{place}.{picture.extension}" for place, picture in enumerate(record.pictures)]
        self._offsets.append(self.size)
        self._tar.add(key, "json", _make_json(record, names))
        for name, picture in zip(names, record.pictures, strict=True):
            self._tar.add(key, name, picture.data)
        self.members.update(names)
        return ()

    def close(self) -> None:
        """End the tar, and write the index: where each sample begins, and where the last one ends."""
        self._index.write_bytes(b"".join(struct.pack("<Q", offset) for offset in (*self._offsets, self.size)))
        self._tar.close()


class TarExport:
    """`--to webdataset`."""

    name: ClassVar[str] = "webdataset"
    version: ClassVar[int] = 2
    suffix: ClassVar[str] = ".tar"
    about: ClassVar[str] = (
        "webdataset reads the tars, Megatron-Energon `metadataset.yaml` or one folder with `.nv-meta` (crude samples, "
        "which a cooker of yours turns into its own), and `datasets.load_dataset(FOLDER)` all of it. `json` has the "
        "messages, whose parts name the pictures."
    )

    def made_by(self) -> Mapping[str, str]:
        """What writes the tars is fixed down to the byte; what reads features is not asked."""
        return {"webdataset": version("webdataset")}

    def open_shard(self, path: Path, pictures: PictureFolder) -> TarShard:  # noqa: ARG002 - pictures lie within
        """A tar of its own."""
        return TarShard(path)

    def finish(
        self,
        name: str,  # noqa: ARG002
        parts: Sequence[ExportPart],
        shards: Mapping[str, Sequence[ExportedShard]],
    ) -> Mapping[str, str]:
        """`.nv-meta` of each config, and `metadataset.yaml`, which blends them by their weights."""
        made = [part for part in parts if shards.get(part.folder)]
        files = dict[str, str]()
        for config in dict.fromkeys(part.config for part in made):
            mine = [part for part in made if part.config == config]
            counts = {
                shard.files[0]["path"].removeprefix(f"{config}/"): shard.records
                for part in mine
                for shard in shards[part.folder]
            }
            splits = {
                SPLITS[part.split]: [shard.files[0]["path"].removeprefix(f"{config}/") for shard in shards[part.folder]]
                for part in mine
            }
            meta = f"{config}/.nv-meta"
            files[f"{meta}/.info.json"] = json.dumps({"shard_counts": counts}, indent=2) + "\n"
            files[f"{meta}/split.yaml"] = format_yaml({"split_parts": splits, "exclude": []}, sort_keys=False)
            files[f"{meta}/dataset.yaml"] = format_yaml(DATASET, sort_keys=False)
        files["metadataset.yaml"] = format_yaml(_make_metadataset(made), sort_keys=False)
        return files

    def describe_configs(
        self, parts: Sequence[ExportPart], shards: Mapping[str, Sequence[ExportedShard]]
    ) -> Mapping[str, Any]:
        """Which files are which split, and the features: not every sample has as many pictures."""
        made = [part for part in parts if shards.get(part.folder)]
        members = {
            config: sorted(
                {name for part in made if part.config == config for one in shards[part.folder] for name in one.members},
                key=lambda name: (int(name.partition(".")[0]), name),
            )
            for config in dict.fromkeys(part.config for part in made)
        }
        infos = [
            {
                "config_name": config,
                "features": [*deepcopy(JSON_FEATURES), *({"name": one, "dtype": "image"} for one in names)],
            }  # copied: YAML would refer from one config to another
            for config, names in members.items()
        ]
        return {"configs": list_configs(made, self.suffix), "dataset_info": infos}


JSON_FEATURES: tuple[dict[str, Any], ...] = (
    {
        "name": "json",
        "struct": [
            *({"name": name, "dtype": "string"} for name in TEXTS),
            *({"name": name, "dtype": "int64"} for name in NUMBERS),
            {
                "name": "messages",
                "list": [
                    {"name": "role", "dtype": "string"},
                    {
                        "name": "content",
                        "list": [{"name": name, "dtype": "string"} for name in ("type", "text", "image")],
                    },
                    {"name": "loss", "dtype": "bool"},
                ],
            },
        ],
    },
    {"name": "__key__", "dtype": "string"},
    {"name": "__url__", "dtype": "string"},
)
"""Of a sample without pictures, as the Hub's cards write features."""


def _make_metadataset(parts: Sequence[ExportPart]) -> dict[str, Any]:
    """Energon's metadataset (v2): each config once in a blend, by the samples that the plan shows of it."""
    splits: dict[str, Any] = {}
    for part in parts:
        weight = part.weight if part.split == "train" and part.weight is not None else 1
        entry = {"weight": weight, "path": part.config, "subflavors": {"source": part.source or part.config}}
        splits.setdefault(SPLITS[part.split], {"blend": []})["blend"].append(entry)
    return {"__module__": "megatron.energon", "__class__": "MetadatasetV2", "splits": splits}


def _make_json(record: Record, names: Sequence[str]) -> bytes:
    coming = iter(names)
    messages = [
        {
            "role": message.role,
            "content": [
                {"type": "image", "text": None, "image": next(coming)}
                if part is None
                else {"type": "text", "text": part, "image": None}
                for part in message.parts
            ],
            "loss": message.supervised,
        }
        for message in record.messages
    ]
    about = {name: getattr(record, name) for name in (*TEXTS, *NUMBERS)}
    return json.dumps({**about, "messages": messages}, ensure_ascii=False, separators=(",", ":")).encode()
