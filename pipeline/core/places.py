"""Places that a command or a call names: paths of this machine, told from addresses of other storage.

Every command and every call of the API passes the folders and files that it was given through `take_run_folder` or
`take_local_path`. So an address never becomes a local folder of that name without a word.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable
from itertools import islice
from os import PathLike
from pathlib import Path

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.object_store import SCHEME
from vlmill.pipeline.core.run_path import RunPath

ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):/+(?P<place>.*)", re.DOTALL)
"""An address of fsspec's form. `Path` makes one slash of two, so one is enough."""

BESIDE, LONGEST, NEAR = 10_000, 80, 5
"""Names that are compared with one that is wrong, its letters that are, and those that are looked at."""


def check_encodable(name: str) -> None:
    """Raise for the name of a file that is not UTF-8, which no table and no recipe can hold.

    Python holds the bytes of such a name as lone surrogates (PEP 383).

    Raises:
        StoreError: the name is one.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        shown = os.fsencode(name).decode(errors="backslashreplace")
        if (encoding := sys.getfilesystemencoding()) != "utf-8":
            raise StoreError(
                f"{shown}: this Python reads the names of files as {encoding}; set PYTHONUTF8=1 in the environment, "
                "and it reads them as UTF-8"
            )
        raise StoreError(
            f"{shown}: this name is not UTF-8, and tables and recipes hold text in UTF-8; rename it, or all names of a "
            "folder with: convmv -f latin1 -t utf8 -r --notest FOLDER (or the encoding that they have)"
        )


def _check_path(place: str | PathLike[str]) -> None:
    """The same of a path, and of the working folder if it starts there; of an address as it is."""
    try:
        whole = str(place) if ADDRESS.fullmatch(str(place)) else os.path.abspath(place)  # noqa: PTH100 - the text alone
    except FileNotFoundError:
        raise StoreError(f"{place}: the working folder has been removed; change to one that exists") from None
    check_encodable(whole)


def take_local_path(place: str | PathLike[str], what: str = "this folder") -> Path:
    """The path that `place` names on this machine.

    Args:
        place: As a person gave it.
        what: What lies there, for the error.

    Raises:
        StoreError: it is an address such as `s3://bucket/run`, or not UTF-8.
    """
    _check_path(place)
    if found := ADDRESS.fullmatch(str(place)):
        raise StoreError(
            f"{found['scheme']}://{found['place']}: {what} is a path of a local or shared file system, and no address; "
            "give a path such as build/run. Addresses work for input files (--source NAME=ADDRESS), for the shards of "
            f"a training (--shards ADDRESS), and for the folder of a run ({SCHEME}://BUCKET/RUN) in what builds it and "
            "looks at it"
        )
    return Path(place)


def resolve_place(place: str, base: Path) -> str:
    """A folder, file or address as fsspec takes it: a relative path starts from `base`.

    So does that of an archive behind `::`, as in `zip://images::data.zip`.
    """
    inside, chain, file = place.rpartition("::")
    if "://" not in inside:
        return place if "://" in place else str((base / place).resolve())
    return f"{inside}{chain}{resolve_place(file, base)}"


def suggest_near(place: str | PathLike[str], fits: Callable[[Path], bool] = Path.exists) -> str:
    """`; did you mean 'x'?` where the folder of a place that is not there has one of a like name; else empty.

    Args:
        place: As a person gave it.
        fits: Whether something is of the kind that was meant.
    """
    path = Path(place)
    try:
        beside = {one.name for one in islice(path.absolute().parent.iterdir(), BESIDE)}
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name[:LONGEST], beside, n=NEAR)
    found = next((path.with_name(name) for name in near if fits(path.with_name(name))), None)
    return f"; did you mean {str(found)!r}?" if found else ""


def take_run_folder(place: str | PathLike[str]) -> Path:
    """The folder of a run: a path, or what is like one on object storage.

    Raises:
        StoreError: it is an address of a kind that runs cannot lie at, names no bucket, or is not UTF-8.
    """
    _check_path(place)
    found = ADDRESS.fullmatch(str(place))
    if found is None:
        return Path(place)
    if found["scheme"] != SCHEME or "@" in found["place"].partition("/")[0]:
        raise StoreError(
            f"{found['scheme']}://{found['place'].rpartition('@')[2]}: a run's folder is a path, or "
            f"{SCHEME}://BUCKET/RUN on object storage; keys come from the environment"
        )
    bucket, _, key = found["place"].strip("/").partition("/")
    if not (bucket and key):
        raise StoreError(f"{SCHEME}://{found['place']}: give the bucket and a name for the run: {SCHEME}://BUCKET/RUN")
    return RunPath(f"{SCHEME}://{bucket}/{key}")
