"""JSON beside files of pictures: LLaVA's conversations, and the messages of LLaMA-Factory and ms-swift.

Pictures lie under `images/`, each once, by the sha256 of their bytes. Paths start at the export's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmill.mixtures.export.base import ExportedShard, ExportPart, PictureFolder
from vlmill.mixtures.export.record import NUMBERS, TEXTS, ExportMessage, Record
from vlmill.pipeline.core.yaml_format import format_yaml

SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


class JsonShard:
    """A file of records: an array, or a record a line."""

    def __init__(self, path: Path, pictures: PictureFolder, *, llava: bool) -> None:
        self._file, self._pictures, self._llava = path.open("w", encoding="utf-8"), pictures, llava
        self._count, self.size, self.members = 0, 0, ()

    def add(self, record: Record) -> Sequence[str]:
        """Append a record, and its pictures that are not there yet."""
        paths = [self._pictures.add_picture(picture) for picture in record.pictures]
        made = _make_conversation(record, paths) if self._llava else _make_messages(record, paths)
        text = json.dumps(made, ensure_ascii=False)
        before = ("[\n" if not self._count else ",\n") if self._llava else ""
        self.size += self._file.write(before + text + ("" if self._llava else "\n"))
        self._count += 1
        remarks = ["marks_in_texts" for message in record.messages if message.has_mark]
        systems = [message for message in record.messages if self._llava and message.role == "system"]
        repeated = record.weight not in {None, 1}
        return [*remarks, *("system_prompts" for _ in systems), *(["weights"] if repeated else [])]

    def close(self) -> None:
        """End the array."""
        if self._llava:
            self._file.write("\n]\n")
        self._file.close()


class LlavaExport:
    """`--to llava`."""

    name: ClassVar[str] = "llava"
    version: ClassVar[int] = 3
    suffix: ClassVar[str] = ".json"
    about: ClassVar[str] = (
        "LLaVA, LLaVA-NeXT and LLaVA-OneVision read it: `--data_path FOLDER/mixture.yaml --image_folder FOLDER`. "
        "`mixture.yaml` lists the files in order. `image` is one path, or a list of several."
    )

    def made_by(self) -> Mapping[str, str]:
        """Nothing but this code."""
        return {}

    def open_shard(self, path: Path, pictures: PictureFolder) -> JsonShard:
        """An array."""
        return JsonShard(path, pictures, llava=True)

    def finish(
        self,
        name: str,  # noqa: ARG002
        parts: Sequence[ExportPart],
        shards: Mapping[str, Sequence[ExportedShard]],
    ) -> Mapping[str, str]:
        """`mixture.yaml`, and `held_out.yaml` where something is held out, as LLaVA-NeXT takes them."""
        found = dict[str, str]()
        for file, split in (("mixture.yaml", "train"), ("held_out.yaml", "validation")):
            listed = [
                {"json_path": shard.files[0]["path"], "sampling_strategy": "all"}
                for part in parts
                if part.split == split
                for shard in shards.get(part.folder, ())
            ]
            if listed:
                found[file] = format_yaml({"datasets": listed}, sort_keys=False)
        return found

    def describe_configs(
        self,
        parts: Sequence[ExportPart],  # noqa: ARG002
        shards: Mapping[str, Sequence[ExportedShard]],  # noqa: ARG002
    ) -> Mapping[str, Any]:
        """None: `image` is of two types."""
        return {}


class MessagesExport:
    """`--to messages`."""

    name: ClassVar[str] = "messages"
    version: ClassVar[int] = 3
    suffix: ClassVar[str] = ".jsonl"
    about: ClassVar[str] = (
        "LLaMA-Factory reads it with `dataset_dir: FOLDER`, `media_dir: FOLDER` and the names in `dataset_info.json`; "
        "ms-swift reads the files of a split. Contents are strings, with `<image>` where one of `images` stands."
    )

    def made_by(self) -> Mapping[str, str]:
        """Nothing but this code."""
        return {}

    def open_shard(self, path: Path, pictures: PictureFolder) -> JsonShard:
        """JSON Lines."""
        return JsonShard(path, pictures, llava=False)

    def finish(
        self, name: str, parts: Sequence[ExportPart], shards: Mapping[str, Sequence[ExportedShard]]
    ) -> Mapping[str, str]:
        """`dataset_info.json`: each part by a name, as LLaMA-Factory takes it."""
        made = [part for part in parts if shards.get(part.folder)]
        info = {_name_part(name, part): {"file_name": part.folder, **SHAREGPT} for part in made}
        return {"dataset_info.json": json.dumps(info, indent=2, ensure_ascii=False) + "\n"}

    def describe_configs(
        self,
        parts: Sequence[ExportPart],  # noqa: ARG002
        shards: Mapping[str, Sequence[ExportedShard]],  # noqa: ARG002
    ) -> Mapping[str, Any]:
        """None: pictures are paths."""
        return {}


SHAREGPT = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}
"""How LLaMA-Factory is told of OpenAI's names."""


def _name_part(name: str, part: ExportPart) -> str:
    words = [name, *([part.source] if part.source else []), *(["held_out"] if part.split == "validation" else [])]
    return "_".join(words).replace("/", "_").replace("@", "_")


def _make_conversation(record: Record, paths: Sequence[str]) -> dict[str, Any]:
    turns = [_mark_turn({"from": SPEAKERS[one.role], "value": one.join()}, one) for one in _list_messages(record)]
    shown = {"image": paths[0] if len(paths) == 1 else list(paths)} if paths else {}
    return {"id": record.id, **shown, "conversations": turns, **_describe_record(record)}


def _make_messages(record: Record, paths: Sequence[str]) -> dict[str, Any]:
    messages = [_mark_turn({"role": one.role, "content": one.join()}, one) for one in _list_messages(record)]
    return {"id": record.id, "messages": messages, "images": list(paths), **_describe_record(record)}


def _list_messages(record: Record) -> Sequence[ExportMessage]:
    """A document is the answer to an empty question: LLaVA's code and LLaMA-Factory leave out what begins otherwise."""
    return (ExportMessage("user", ("",)), *record.messages) if record.document else record.messages


def _mark_turn(turn: dict[str, Any], message: ExportMessage) -> dict[str, Any]:
    """Every answer says whether it is trained on, since readers of JSON infer types from the first lines."""
    return turn | {"loss": message.supervised} if message.role == "assistant" else turn


def _describe_record(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in (*TEXTS, *NUMBERS) if name != "id"}  # which stands first
