"""What is known of input files elsewhere: a build with nothing to do reads none of them again.

`logs/input_digests.json` holds the sha256 of each file by a hash of its address. It counts as long as the file's stamp
(tag, or time, and size) stays the same. No key or receipt knows of it: delete it, and the files are read once more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.seal import read_sealed_json, seal_json
from vlmill.pipeline.engine.store import File
from vlmill.pipeline.inputs.files import InputFile

DIGESTS = "logs/input_digests.json"


@dataclass(frozen=True)
class InputDigests:
    """The digests that earlier builds of a folder noted."""

    files: Mapping[str, Any]  # sha256 of an address -> {"stamp", "sha256", "size"}

    @classmethod
    def read(cls, root: Path) -> Self:
        """Those of a run; none where there are none, or where they are damaged."""
        try:
            return cls(read_sealed_json(root / DIGESTS, "")["files"])
        except (FileNotFoundError, StoreError, KeyError):
            return cls({})

    def find(self, input_file: InputFile) -> File | None:
        """The file as an input of tasks; None where it has to be read."""
        noted = self.files.get(_name_address(input_file))
        if noted is None or not input_file.stamp or noted["stamp"] != input_file.stamp:
            return None
        return File("input", input_file.url, str(noted["sha256"]), int(noted["size"]))

    def write(self, root: Path, found: Iterable[tuple[InputFile, File]]) -> None:
        """Note files beside those that are noted; nothing where none of them has a stamp."""
        new = {
            _name_address(one): {"stamp": one.stamp, "sha256": file.sha256, "size": file.size}
            for one, file in found
            if one.stamp
        }
        if new:
            write_atomically(root / DIGESTS, seal_json({"files": {**self.files, **new}}))


def _name_address(input_file: InputFile) -> str:
    return hashlib.sha256(input_file.url.encode()).hexdigest()
