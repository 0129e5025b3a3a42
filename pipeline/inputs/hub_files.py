"""What the rest of the pipeline knows of input files on the Hugging Face Hub without asking it (hub.py does).

Importing huggingface_hub takes 0.4 s of CPU, more than many a small build, so it is left to those who ask the Hub.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

from vlmill.pipeline.core.errors import SourceError


class HubUnreachableError(SourceError):
    """The Hub does not answer at all, or must not be asked: the same is true of every other repository."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository."""

    name: str  # relative to the source's root, with "/"
    url: str  # hf://datasets/OWNER/NAME@COMMIT/PATH
    size: int
    sha256: str  # empty where the Hub does not know it: for small files, which lie in git itself


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the Hub in the place of a path: it can be opened, and what is read of it is asked for by range."""

    url: str
    size: int

    def __str__(self) -> str:
        return self.url

    def open(self, mode: Literal["rb"] = "rb") -> io.RawIOBase:
        """The file for reading. Every read is one request for just those bytes."""
        from vlmill.pipeline.inputs.hub import HubRanges  # noqa: PLC0415 - imports huggingface_hub

        del mode
        return HubRanges(self)


def is_hub(root: str) -> bool:
    """Whether a root lies on the Hub."""
    return root.startswith("hf://")
