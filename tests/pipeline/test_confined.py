"""Files that data name: none outside their folder, none that waits or has no end, by whichever way they are read."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import pytest

from vlmill.pipeline.core.confined import FileRefused, open_confined
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.engine.serve import serve_folders
from vlmill.pipeline.inputs.files import InputFile, hash_input
from vlmill.pipeline.sources import files
from vlmill.pipeline.sources.files import Files

GOOD = {"good.png", "deep/good.png", "link.png", "linked/good.png", "around.png"}
"""What may be read of `folder`."""

REFUSED = {
    "out.png": Reason.FORBIDDEN_ADDRESS,
    "out/secret": Reason.FORBIDDEN_ADDRESS,
    "twice.png": Reason.FORBIDDEN_ADDRESS,
    "zero": Reason.FORBIDDEN_ADDRESS,
    "pipe": Reason.MISSING_FILE,
    "socket": Reason.MISSING_FILE,
    "deep": Reason.MISSING_FILE,
    "loop": Reason.MISSING_FILE,
    "dangling": Reason.MISSING_FILE,
}


@pytest.fixture
def folder(tmp_path):
    """A folder that a link leads to, with good files and with all that a path can lead to in place of one."""
    real, secret = tmp_path / "real", tmp_path / "secret"
    (real / "deep").mkdir(parents=True)
    secret.write_bytes(b"secret")
    for name in ("good.png", "deep/good.png"):
        (real / name).write_bytes(b"good")
    for name, target in {
        "link.png": "deep/good.png",
        "linked": "deep",
        "around.png": f"{real}/good.png",
        "out.png": str(secret),
        "out": "..",
        "twice.png": "out.png",
        "zero": "/dev/zero",
        "loop": "loop",
        "dangling": "nowhere",
    }.items():
        (real / name).symlink_to(target)
    os.mkfifo(real / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(real)  # a socket's path may have 107 bytes
        listener.bind("socket")
        os.chdir(here)
        (tmp_path / "folder").symlink_to(real)
        yield tmp_path / "folder"


def test_image_files_are_regular_files_of_their_folder(folder):
    found = {path: Files(str(folder)).load(path) for path in (*GOOD, *REFUSED)}
    assert {path for path, picture in found.items() if picture.data == b"good"} == GOOD
    assert {path: picture.reason for path, picture in found.items() if picture.data is None} == REFUSED


def test_paths_of_windows_and_addresses_with_escapes_are_found_and_lead_nowhere_else(folder):
    place, load = folder.resolve(), Files(str(folder)).load
    (place / "two words.png").write_bytes(b"good")
    (place / "deep\\good.png").write_bytes(b"its own")
    assert load("deep\\good.png").data == b"its own"
    (place / "deep\\good.png").unlink()
    assert load("deep\\good.png").data == load(f"file://{place}/two%20words.png").data == b"good"
    lost = (
        "..\\secret",
        "deep\\..\\..\\secret",
        "two%20words.png",
        f"file://{place}/%2e%2e/secret",
        f"file://{place}/%00",
    )
    assert {load(path).reason for path in lost} == {Reason.MISSING_FILE}


def test_an_image_file_is_bounded_in_size(folder, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 3)
    assert Files(str(folder)).load("good.png").reason is Reason.TOO_MANY_BYTES
    monkeypatch.setattr(files, "LARGEST", 4)
    assert Files(str(folder)).load("good.png").data == b"good"


def test_a_link_that_is_put_in_a_files_place_meanwhile_is_not_followed(folder, monkeypatch):
    resolve = os.path.realpath

    def swapping(path, **options):
        found = resolve(path, **options)
        if str(path).endswith("deep/good.png"):
            (folder / "deep/good.png").unlink()
            (folder / "deep/good.png").symlink_to(folder.parent / "secret")
        return found

    monkeypatch.setattr(os.path, "realpath", swapping)
    with pytest.raises(FileRefused, match="no regular file"):
        open_confined(folder, "deep/good.png")


def test_a_folder_that_is_replaced_by_a_link_meanwhile_is_not_entered(folder, monkeypatch):
    resolve = os.path.realpath

    def swapping(path, **options):
        found = resolve(path, **options)
        if str(path).endswith("deep/good.png"):
            (folder / "deep").rename(folder / "away")
            (folder / "deep").symlink_to(folder.parent)
            (folder.parent / "good.png").write_bytes(b"secret")
        return found

    monkeypatch.setattr(os.path, "realpath", swapping)
    with pytest.raises(OSError, match="deep"):
        open_confined(folder, "deep/good.png")


@pytest.fixture
def archives(tmp_path):
    """A zip whose member is larger than it says, and a tar with links and a device."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", b"good")
        archive.writestr("large.png", bytes(5_000_000))
        archive.writestr("bad.png", b"bad" * 100)
    data = (tmp_path / "a.zip").read_bytes()
    at = data.index(b"bad.png") + len("bad.png")
    (tmp_path / "a.zip").write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in {"good.png": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}.items():
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, 4 * (name == "good.png"), "/etc/passwd"
            archive.addfile(info, io.BytesIO(b"good"))
    return tmp_path


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_members_of_archives_are_regular_and_bounded_too(archives, form, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 1000)
    found = Files(f"{form}://::{archives}/a.{form}")
    assert found.load("good.png").data == b"good"
    refused = {"zip": ("large.png", "bad.png", "gone"), "tar": ("link", "device", "gone")}[form]
    reasons = [found.load(path).reason for path in refused]
    assert reasons == [Reason.TOO_MANY_BYTES if path == "large.png" else Reason.MISSING_FILE for path in refused]


def test_a_served_folder_answers_with_its_regular_files_alone(folder):
    recipe = SimpleNamespace(sources={"web": SimpleNamespace(serve={"http://img.test/": str(folder)})})
    with serve_folders(recipe, Path("/")) as mirrors:
        base = mirrors["web"]["http://img.test/"]
        for path in GOOD:
            with urlopen(base + path, timeout=5) as answer:
                assert answer.read() == b"good"
                assert answer.headers["Content-Type"] == "image/png"
        for path in (*REFUSED, "", "deep/", "good.png/", "../secret", "%2e%2e/secret", "%00"):
            with pytest.raises(OSError, match="404"):
                urlopen(base + path, timeout=5)


@pytest.mark.parametrize("name", ["pipe", "zero"])
def test_an_input_file_that_is_no_file_is_an_error_of_its_source(folder, name):
    with pytest.raises(SourceError, match=f"{name} is no regular file"):
        hash_input(InputFile("web", 0, name, f"file://{folder}/{name}"))
