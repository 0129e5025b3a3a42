"""Tars: the rows are those that the webdataset package reads, whatever stands between their members."""

from __future__ import annotations

import io
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.upstream import picture
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.sources.formats.tars import index_rows
from vlmill.pipeline.sources.pairs import PairsWdsSource

APPLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100)


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def list_webdataset_rows(path):
    rows = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return [(row["__key__"], sorted(name for name in row if not name.startswith("__"))) for row in rows]


@pytest.mark.parametrize("folder", ["", "./", "train/"])
def test_a_tar_of_macos_has_the_rows_without_the_attributes(tmp_path, folder):
    members = []
    for number in range(3):
        for suffix, data in (("jpg", picture(number)), ("json", b"{}"), ("txt", f"Plate {number}".encode())):
            members += [(f"{folder}._{number:04}.{suffix}", APPLE), (f"{folder}{number:04}.{suffix}", data)]
    path = write_tar(tmp_path / "mac.tar", [(f"{folder}.DS_Store", APPLE), *members])
    rows = list(PairsWdsSource().rows(path, range(3)))
    assert len(PairsWdsSource().survey(path)) == len(rows) == 3
    assert [row.pages[0].nodes[-1].text for row in rows] == ["Plate 0", "Plate 1", "Plate 2"]
    assert [row.pages[0].pictures[0].data for row in rows] == [picture(number) for number in range(3)]


def test_a_member_without_a_suffix_is_a_bad_row_and_cuts_no_other(tmp_path):
    members = [
        ("a.jpg", picture()),
        ("README", b"Read me."),
        ("a.txt", b"Reeds."),
        ("b.jpg", picture(1)),
        ("b.txt", b"B"),
    ]
    rows = list(PairsWdsSource().rows(write_tar(tmp_path / "a.tar", members), range(3)))
    assert [bool(row.pages) for row in rows] == [True, False, True]
    assert rows[1].failed == ((Reason.BAD_ROW, "README has no name of the form key.suffix"),)


NAMES = st.sampled_from(["a", "b", "x/a", "x/b", "x.y/a", "._a", "README"])
SUFFIXES = st.sampled_from(["", ".jpg", ".txt", ".seg.png", ".JPG"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, SUFFIXES), min_size=1, max_size=8))
def test_rows_are_those_that_webdataset_reads(tmp_path_factory, names):
    members = [(name + suffix, b"1") for name, suffix in names]
    path = write_tar(tmp_path_factory.mktemp("tar") / "0.tar", members)
    entries = index_rows(path, ())
    assert sum(entry.size for entry in entries) == sum(not name.split("/")[-1].startswith(".") for name, _ in members)
    if any("twice" in entry.trouble for entry in entries):
        return  # webdataset refuses the tar
    rows = [(entry.key, sorted(entry.members)) for entry in entries if not entry.trouble]
    assert rows == list_webdataset_rows(path)
