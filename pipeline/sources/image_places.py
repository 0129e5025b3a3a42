"""Where the image files lie that rows name: the folder or archive below a root in which most of them are found."""

from __future__ import annotations

import lzma
import os
import shlex
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources.files import spell_path

FOLDERS = 1000
"""Folders that are looked in."""
ABSOLUTE = (
    "its path is absolute and lies outside of the source's `images`: name with `images` a folder of this machine that "
    "it lies in, or cut the paths of the rows so that they start from `images`"
)
SERVED = ("/data/local-files", "/data/upload/")
"""What addresses of Label Studio's server begin with."""
TASKS = (
    "If it is an address of Label Studio, docs/conversations.md, Conversations in other forms, has a script that makes "
    "a path of it"
)
CUT = (
    "{path} is a path of another machine, and its end is there below {folder}: cut {begin} off the paths, such as with "
    "sed 's#{begin}##g' FILE > CUT, and look at that file with vlmill new"
)
OUTSIDE = "its path leads out of the source's `images`, by `..` or a link: name with `images` a folder that it lies in"
ELSEWHERE = (
    "an address of other storage, where rows name files of the source's `images`: cut it, and name its beginning"
)
WEB = ("http://", "https://")
ON_WEB = (
    "an address on the web, where the source's kind opens files and fetches nothing: download it beside the other "
    "files, and name the file in the row"
)
"""What to do about a path that is not looked up."""
ARCHIVES = 20
"""Archives whose lists of files are read."""
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""How tars end."""
MEMBERS, LOOKED = 100, 1 << 28
"""Files of a tar whose names are looked at, and bytes of them, which may have to be unpacked for that."""


def find_image_place(root: str, named: Sequence[str], least: int = 1) -> str | None:
    """Where the paths start that rows name; None where fewer than `least` of them are found anywhere.

    It is `root` or a folder at most two below it; else a zip file in one of these, as fsspec names what lies within.
    Of absolute paths it is the folder that those files lie in that are there, wherever that is.
    """
    start = Path(root)
    if not named or not start.is_dir():
        return None
    named = [spell_path(path)[-1] for path in named]
    absolute = [path for one in named if (path := get_absolute(one))]
    if 2 * len(absolute) > len(named):
        there = [path for path in absolute if Path(path).is_file()]
        inside = os.path.commonpath([Path(path).parent for path in there]) if len(there) >= least else "/"
        if inside != "/":
            return str(start) if Path(inside).is_relative_to(start) else inside
    folders = list_folders(start)
    most, place = max(_count_files(folders, named), key=lambda one: one[0])
    if most < least:
        archives = [file for folder in folders for file in sorted(folder.glob("*.zip"))][:ARCHIVES]
        most, place = max((_search_archive(file, named) for file in archives), key=lambda one: one[0], default=(0, ""))
    return place if most >= least else None


def tell_unpacking(root: str, named: Sequence[str]) -> str:
    """The commands that unpack a tar, at most two folders below a root, with files that rows name; empty without one.

    Of each tar the first members are looked at.
    """
    start = Path(root)
    if "://" in root or not start.is_dir():
        return ""
    ends = {str(PurePosixPath(spell_path(path)[-1])) for path in named}
    tars = [file for folder in list_folders(start) for file in sorted(folder.iterdir()) if file.name.endswith(TARS)]
    for file in tars[:ARCHIVES]:
        if any(member == one or member.endswith(f"/{one}") for member in _list_members(file) for one in ends):
            folder = shlex.quote(str(file)[: -len(next(end for end in TARS if file.name.endswith(end)))])
            return f"mkdir {folder} && tar -xf {shlex.quote(str(file))} -C {folder}"
    return ""


def find_tail(root: str, path: str) -> tuple[str, str] | None:
    """The beginning of an absolute path that is of another machine, and the folder below a root with the rest of it.

    `("/home/ann/data/", "/data/pets")` of `/home/ann/data/img/1.jpg`, where there is `/data/pets/img/1.jpg`; of several
    such rests the longest. None where no file ends so.
    """
    spelt = spell_path(path)[-1]
    start, parts = Path(root), PurePosixPath(get_absolute(spelt) or "").parts[1:]
    if "://" in root or not start.is_dir():
        return None
    folders = list_folders(start)
    for place in range(1, len(parts)):
        rest = "/".join(parts[place:])
        if folder := next((folder for folder in folders if (folder / rest).is_file()), None):
            return spelt.removesuffix(rest), str(folder)
    return None


def get_absolute(path: str) -> str | None:
    """The absolute path that a row names, also in a `file://` address; None where it names another one."""
    path = path.removeprefix("file://") if path.startswith("file:///") else path
    return path if path.startswith("/") else None


def explain_outside(path: str) -> str:
    """Why a path of a row is a forbidden address, and what to do; nothing of an address on the web."""
    if path.lower().startswith(WEB):
        return ""
    if path.startswith(SERVED):
        return f"{ABSOLUTE}. {TASKS}"
    return ABSOLUTE if get_absolute(path) else ELSEWHERE if "://" in path else OUTSIDE


def explain_lost_image(url: str, reason: Reason) -> str:
    """Why an image that a row names by a path or an address is lost, and what to do; empty where the reason says it."""
    if reason is Reason.FORBIDDEN_ADDRESS:
        return explain_outside(url)
    return ON_WEB if reason is Reason.UNSUPPORTED_MEDIA and url.lower().startswith(WEB) else ""


def list_folders(start: Path) -> list[Path]:
    """This folder and those at most two below it, so many as are looked in."""
    return [start, *sorted(path for path in (*start.glob("*"), *start.glob("*/*")) if path.is_dir())][:FOLDERS]


def _count_files(folders: Sequence[Path], named: Sequence[str]) -> Iterator[tuple[int, str]]:
    for folder in folders:
        yield sum((folder / path).is_file() for path in named), str(folder)


def _list_members(file: Path) -> list[str]:
    """The names of the first files in a tar, without `./` in front; none where it is no tar."""
    found, size = list[str](), 0
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                found.append(str(PurePosixPath(member.name)))
                size += member.size
                if len(found) == MEMBERS or size > LOOKED:
                    break
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError):
        return []
    return found


def _search_archive(file: Path, named: Sequence[str]) -> tuple[int, str]:
    """How many of the files a zip file has below one of its folders, and that folder's address."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {*archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError):
        return 0, ""
    ends = {str(PurePosixPath(path)) for path in named}
    first = next(iter(ends))
    starts = {""} | {one.removesuffix(first) for one in members if one.endswith(f"/{first}")}
    most, start = max((sum(f"{start}{path}" in members for path in ends), start) for start in sorted(starts))
    return most, f"zip://{start.rstrip('/')}::{file}"
