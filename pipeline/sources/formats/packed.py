"""Packed files of text rows, such as `a.jsonl.gz`: they are unpacked into a temporary file before they are read.

Rows are read from any start, and a packed file can only be read from its front. So each process unpacks it once and
keeps what came out until it unpacks another file. What is hashed is the packed file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import pyarrow as pa

from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.inputs.copies import keep_copy

CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""What packed a file, by how its name ends."""
ROWS = frozenset({".json", ".jsonl", ".csv", ".tsv"})
"""How the names end of files that are read packed."""

CHUNK = 4 << 20
"""Bytes that are unpacked at a time."""
USUAL, RATIO = 1 << 30, 200
"""Bytes that any file may unpack to, and how many times its own size a larger one may."""


def find_ending(name: str) -> str:
    """How a name ends, in small letters; of packed rows with both endings, as `.jsonl.gz`."""
    path = PurePosixPath(name)
    last, before = path.suffix.lower(), PurePosixPath(path.stem).suffix.lower()
    return f"{before}{last}" if last in CODECS and before in ROWS else last


def strip_packing(ending: str) -> str:
    """How what comes out is called: `.jsonl` of `.jsonl.gz`, and any other ending as it is."""
    path = PurePosixPath(f"rows{ending}")
    return path.suffixes[0] if len(path.suffixes) > 1 else ending


@contextmanager
def open_unpacked(path: Path) -> Iterator[Path]:
    """The file itself, or a file of what a packed one holds. Raises BadFileError as `unpack_file`."""
    ending = find_ending(path.name)
    if ending == strip_packing(ending):
        yield path
        return
    about = path.stat()
    stamp = f"{about.st_size} {about.st_mtime_ns} {about.st_ino}"
    with keep_copy((f"unpacked {path}", stamp), path.stem, partial(unpack_file, path), "unpacked") as plain:
        yield plain


def unpack_file(path: Path, plain: Path) -> None:
    """Write what a packed file holds to another path.

    Raises:
        BadFileError: it is damaged or cut, or far more comes out than its size can explain.
    """
    codec, size = CODECS[path.suffix.lower()], path.stat().st_size
    most = max(USUAL, RATIO * size)
    with path.open("rb") as file, pa.CompressedInputStream(file, codec) as packed, plain.open("wb") as out:
        while part := _read_part(path, codec, packed):
            if out.tell() + len(part) > most:
                raise BadFileError(
                    f"{path}: more than {most:,} bytes come out of its {size:,}, and more than {RATIO} times as many; "
                    "unpack it, and let `files` name what comes out, if that is right"
                )
            out.write(part)


def _read_part(path: Path, codec: str, packed: pa.CompressedInputStream) -> bytes:
    try:
        return bytes(packed.read(CHUNK))
    except OSError as error:
        if error.errno:  # of the disk, and not of what is unpacked
            raise
        raise BadFileError(f"{path}: cut, damaged or not packed with {codec} ({error})") from error
