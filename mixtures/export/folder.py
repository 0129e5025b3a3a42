"""The folder of an export: shards that are done, what a killed export goes on from, the receipt.

A shard is written under a temporary name, moved into place, and noted in PROGRESS, whose lines are all that an
interrupted export needs. The receipt is written last. SUMS is a list that `sha256sum --check` reads.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlmill.mixtures.export.base import ExportedShard
from vlmill.mixtures.export.record import ExportPicture
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import TEMPORARY, flush_path, write_atomically
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.seal import read_sealed_json, seal_json

RECEIPT = "export.json"
SUMS = "SHA256SUMS"
PROGRESS = ".export-progress.jsonl"
SCRATCH = f"{TEMPORARY}export"
IMAGES = "images"


class ExportFolder:
    """A folder that holds one export.

    Args:
        path: Where it is, or is to be.
        key: What decides its bytes.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.scratch = path / SCRATCH
        self._progress: Any = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second export, and against being made of something that is none.

        Raises:
            StoreError: another export is at work there, or the folder holds something else.
        """
        ours = (self.path / RECEIPT).exists() or (self.path / PROGRESS).exists()
        if self.path.exists() and not ours and any(self.path.iterdir()):
            raise StoreError(f"{self.path} holds something that is no export; name an empty or a new folder with --out")
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / PROGRESS).open("a+", encoding="utf-8") as self._progress:
            try:
                fcntl.flock(self._progress, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(f"{self.path}: another export is at work in this folder; wait for it") from None
            shutil.rmtree(self.scratch, ignore_errors=True)
            try:
                yield
            finally:
                shutil.rmtree(self.scratch, ignore_errors=True)
                if (self.path / RECEIPT).exists():
                    (self.path / PROGRESS).unlink(missing_ok=True)

    # -- what is there -------------------------------------------------------------------------------------------------

    def read_receipt(self) -> dict[str, Any] | None:
        """The receipt of a complete export, of whatever; None without one."""
        if not (self.path / RECEIPT).exists():
            return None
        return read_sealed_json(self.path / RECEIPT, "Delete it, and export again")

    def find_damage(self) -> str:
        """What is wrong with the files of a complete export; empty where each is as it was written."""
        receipt = self.read_receipt()
        sums = self.path / SUMS
        if receipt is None or not sums.exists() or hash_file(sums) != receipt["sums_sha256"]:
            return f"{SUMS} is not as it was written"
        with sums.open(encoding="utf-8") as lines:
            for line in lines:
                sha256, path = line.rstrip("\n").split("  ", 1)
                if not (self.path / path).is_file() or hash_file(self.path / path) != sha256:
                    return f"{path} is missing, or not as it was written"
        return ""

    def read_progress(self) -> list[ExportedShard] | None:
        """The shards that an interrupted export of the same key left, in order, as far as they are sound.

        None where the folder holds another export, or was begun with none.
        """
        self._progress.seek(0)
        lines = self._progress.read().splitlines(keepends=True)
        if not lines or not lines[0].endswith("\n") or json.loads(lines[0]) != {"key": self.key}:
            return None
        found = list[ExportedShard]()
        for line in lines[1:]:
            if not line.endswith("\n"):  # a line that a kill cut
                break
            noted = json.loads(line)
            shard = ExportedShard(**{**noted, "files": tuple(noted["files"]), "members": tuple(noted["members"])})
            if any(not self._is_sound(file) for file in shard.files):
                break
            found.append(shard)
        return found

    def _is_sound(self, file: Mapping[str, Any]) -> bool:
        path = self.path / file["path"]
        return path.is_file() and hash_file(path) == str(file["sha256"])

    # -- what is written -----------------------------------------------------------------------------------------------

    def begin(self, done: list[ExportedShard]) -> None:
        """Note what the export goes on from, and nothing else."""
        self._progress.seek(0)
        self._progress.truncate()
        self._write_line({"key": self.key})
        for shard in done:
            self._write_line(asdict(shard))

    def clear(self) -> None:
        """Remove the export that is there: what its lists name, and its pictures."""
        (self.path / RECEIPT).unlink(missing_ok=True)
        for path in self._list_written():
            (self.path / path).unlink(missing_ok=True)
        shutil.rmtree(self.path / IMAGES, ignore_errors=True)
        (self.path / SUMS).unlink(missing_ok=True)
        self._progress.seek(0)
        self._progress.truncate()
        for folder in sorted((path for path in self.path.rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()

    def _list_written(self) -> Iterator[str]:
        """The files that lists of an export name. A list that was changed by hand leads out of no folder."""
        listed = list[str]()
        if (self.path / SUMS).exists():
            lines = (self.path / SUMS).read_text(encoding="utf-8").splitlines()
            listed += [line.split("  ", 1)[1] for line in lines if "  " in line]
        self._progress.seek(0)
        for line in self._progress.read().splitlines(keepends=True):
            if line.endswith("\n"):
                listed += [file["path"] for file in json.loads(line).get("files", ())]
        for path in listed:
            if not path.startswith("/") and ".." not in path.split("/"):
                yield path

    def add_picture(self, picture: ExportPicture) -> str:
        """Keep a picture under `images/`, once; returns its path in the export."""
        path = f"{IMAGES}/{picture.sha256[:2]}/{picture.name}"
        target = self.path / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.scratch / picture.name
            temporary.write_bytes(picture.data)
            temporary.replace(target)
        return path

    def commit_shard(self, folder: str, written: Path, shard: Mapping[str, Any]) -> ExportedShard:
        """Move what was written in a folder to the folder of a part, and note it.

        Args:
            folder: Of the part, in the export.
            written: The folder that holds the shard, and what belongs to it.
            shard: The other fields of `ExportedShard`.
        """
        (self.path / folder).mkdir(parents=True, exist_ok=True)
        files = []
        for path in sorted(written.iterdir()):  # the shard first: others begin with its name
            flush_path(path)
            target = f"{folder}/{path.name}"
            files.append({"path": target, "sha256": hash_file(path), "size": path.stat().st_size})
            path.replace(self.path / target)
        flush_path(self.path / folder)
        done = ExportedShard(folder=folder, files=tuple(files), **shard)
        self._write_line(asdict(done))
        return done

    def _write_line(self, value: Mapping[str, Any]) -> None:
        self._progress.write(json.dumps(value, sort_keys=True) + "\n")
        self._progress.flush()
        os.fsync(self._progress.fileno())

    def finish(self, shards: list[ExportedShard], texts: Mapping[str, str], receipt: Mapping[str, Any]) -> None:
        """Write the files about all shards, the list of all files with their sha256, and last the receipt."""
        for path, text in texts.items():
            write_atomically(self.path / path, text)
        temporary, count = self.scratch / SUMS, 0
        with temporary.open("w", encoding="utf-8") as sums:
            for sha256, path in self._list_files(shards, texts):
                sums.write(f"{sha256}  {path}\n")
                count += 1
        temporary.replace(self.path / SUMS)
        value = {**receipt, "key": self.key, "files": count, "sums_sha256": hash_file(self.path / SUMS)}
        write_atomically(self.path / RECEIPT, seal_json(value))

    def _list_files(self, shards: list[ExportedShard], texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        for path in sorted(texts):
            yield hash_file(self.path / path), path
        for shard in shards:
            for file in shard.files:
                yield file["sha256"], file["path"]
        if (self.path / IMAGES).exists():
            for folder in sorted((self.path / IMAGES).iterdir()):
                for picture in sorted(folder.iterdir()):
                    yield picture.stem, f"{IMAGES}/{folder.name}/{picture.name}"
