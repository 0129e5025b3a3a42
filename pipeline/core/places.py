"""Places that a command or a call names: paths of this machine, told from addresses of other storage.

Every command and every call of the API passes the folders and files that it was given through `take_local_path`. So
an address never becomes a local folder of that name without a word.
"""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from vlmill.pipeline.core.errors import StoreError

ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):/+(?P<place>.*)", re.DOTALL)
"""An address of fsspec's form. `Path` makes one slash of two, so one is enough."""


def take_local_path(place: str | PathLike[str], what: str = "this folder") -> Path:
    """The path that `place` names on this machine.

    Args:
        place: As a person gave it.
        what: What lies there, for the error.

    Raises:
        StoreError: it is an address such as `s3://bucket/run`.
    """
    if found := ADDRESS.fullmatch(str(place)):
        raise StoreError(
            f"{found['scheme']}://{found['place']}: {what} is a path of a local or shared file system, and no address; "
            "give a path such as build/run. Addresses work for input files (--source NAME=ADDRESS) and for the shards "
            "of a training (--shards ADDRESS)"
        )
    return Path(place)
