"""Stand-ins for conversations in Parquet: LLaVA-NeXT, its re-captions, LLaVA-OneVision and Mantis-Instruct."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from tests.helpers.standins.dataset import SUBSETS, Dataset
from tests.helpers.standins.material import Material
from tests.helpers.standins.tree import IMAGE, STRING, Row, Tree, as_image, number_shard
from tests.helpers.upstream import talk

TURNS = pa.list_(pa.struct({"from": STRING, "value": STRING}))
NEXT = {"id": STRING, "conversations": TURNS, "data_source": STRING, "image": IMAGE}
ONEVISION = {"id": STRING, "image": IMAGE, "conversations": TURNS, "data_source": STRING}

ONEVISION_SUBSETS = SUBSETS["lmms-lab/LLaVA-OneVision-Data"]
WITHOUT_IMAGES = "magpie_pro"
"""How the names of OneVision's sets of text alone begin."""


def make_next_row(material: Material, number: int, source: str) -> dict[str, Any]:
    """A row of one image and its conversation; every fifth is text alone."""
    pictured = number % 5 != 3
    mark = "<image>\n" if pictured else ""
    more = [material.question(number), material.sentences(number, 1)] if number % 2 else []
    turns = talk(f"{mark}{material.question(number)}", material.sentences(number), *more)
    image = as_image(material.picture(number)) if pictured else None
    return {"id": f"{number:06d}", "conversations": turns, "data_source": source, "image": image}


def _list_odd(row: Mapping[str, Any]) -> list[Row]:
    """One mark more than there are images, an empty answer, and no turns."""
    turns = row["conversations"]
    return [
        ({**row, "image": None, "conversations": talk("<image>\nWhat is it?", "A thing.")}, "bad_row"),
        ({**row, "conversations": [*turns[:-1], {"from": "gpt", "value": ""}]}, "bad_row"),
        ({**row, "conversations": []}, "empty_row"),
    ]


def write_next(tree: Tree, rows: Mapping[str, int]) -> None:
    """779 thousand conversations, and the raw form beside them."""
    tree.write_card("", {"default": {"train": "data/train-*"}})
    material = tree.material("default")
    good = [make_next_row(material, number, "llava") for number in range(rows["default"])]
    odd = _list_odd(make_next_row(material, 90, "llava"))
    tree.write_shards(lambda place, parts: f"data/{number_shard(place, parts)}", NEXT, tree.mix(good, odd))
    tree.write("llava_next_raw_format/llava_next_raw_format_processed.json", b"[]")


def write_recaptions(tree: Tree, rows: Mapping[str, int]) -> None:
    """Pictures with long captions, whose question is the mark alone."""
    tree.write_card("", {"default": {"train": "data/train-*"}})
    material = tree.material("default")

    def make(number: int) -> dict[str, Any]:
        turns = talk("<image>", material.sentences(number, 4))
        image = as_image(material.picture(number, form="JPEG"))
        return {"id": f"{number:09d}", "image": image, "conversations": turns, "data_source": "recap"}

    odd = _list_odd(make(90))
    mixed = tree.mix(map(make, range(rows["default"])), odd)
    tree.write_shards(lambda place, parts: f"data/{number_shard(place, parts)}", ONEVISION, mixed)


def write_onevision(tree: Tree, rows: Mapping[str, int]) -> None:
    """A folder per set, with round brackets, commas and a plus in their names; some sets are text alone."""
    configs = {name: {"train": f"{name}/train-*"} for name in ONEVISION_SUBSETS}
    tree.write_card("apache-2.0", configs, ("en", "zh"))
    for subset, count in rows.items():
        make = _onevision_maker(tree.material(subset), subset)
        odd = _list_odd(make(90))
        tree.write_shards(
            lambda place, parts, subset=subset: f"{subset}/{number_shard(place, parts)}",
            ONEVISION,
            tree.mix(map(make, range(count)), odd),
        )


def _onevision_maker(material: Material, subset: str) -> Callable[[int], dict[str, Any]]:
    def make(number: int) -> dict[str, Any]:
        row = make_next_row(material, 5 * number, subset)  # with an image
        if subset.startswith(WITHOUT_IMAGES):
            turns = talk(material.question(number), material.sentences(number, 3))
            return {**row, "image": None, "conversations": turns}
        return row

    return make


MANTIS_SUBSETS = SUBSETS["TIGER-Lab/Mantis-Instruct"]
MANTIS = {
    "id": STRING,
    "images": pa.list_(IMAGE),
    "conversation": pa.list_(pa.struct({"role": STRING, "content": STRING})),
    "source": STRING,
}
ROLES = ("role", "content")


def write_mantis(tree: Tree, rows: Mapping[str, int]) -> None:
    """A folder per set: a table whose images are paths, and the archive that they start from."""
    configs = {name: {"train": f"{name}/train-*"} for name in MANTIS_SUBSETS}
    tree.write_card("apache-2.0", configs, tags=["multi-image"])
    for subset, count in rows.items():
        material, packed = tree.material(subset), dict[str, bytes]()
        good = [_mantis_row(tree, material, subset, number, packed) for number in range(count)]
        tree.write_parquet(f"{subset}/train-00000-of-00001.parquet", MANTIS, tree.mix(good, _odd_mantis_rows(good[0])))
        tree.write_zip(f"{subset}/train_images.zip", packed)


def _mantis_row(tree: Tree, material: Material, subset: str, number: int, packed: dict[str, bytes]) -> dict[str, Any]:
    count = 2 + number % 3
    images = list[dict[str, Any]]()
    for place in range(count):
        drawing = material.picture(number, place)
        path = f"{material.original(number)}-{place}.{drawing.suffix}"
        packed[path] = drawing.data
        tree.write_picture(f"{subset}/{path}", drawing)
        images.append({"bytes": None, "path": path})
    marks = "<image>" * count if number % 2 else " ".join(f"Image {place}: <image>" for place in range(count))
    turns = talk(f"{marks} {material.question(number)}", material.sentences(number), keys=ROLES)
    return {"id": f"{subset}_{number}", "images": images, "conversation": turns, "source": subset}


def _odd_mantis_rows(row: Mapping[str, Any]) -> Sequence[Row]:
    """More images than marks, and an empty answer."""
    return [
        ({**row, "images": [*row["images"], row["images"][0]]}, "bad_row"),
        ({**row, "conversation": [row["conversation"][0], {"role": "assistant", "content": ""}]}, "bad_row"),
    ]


DATASETS = (
    Dataset(
        "lmms-lab/LLaVA-NeXT-Data",
        write_next,
        files="data/train-*.parquet; llava_next_raw_format/ has the same as JSON and 11 archives",
        shape="id, conversations of from and value, data_source, image",
        kind="interleaved",
        options={"images": "image", "turns": "conversations"},
        licence="apache-2.0, in the card's text",
        known="card: features, config, licence; others' instructions: the raw form's files",
        guessed="rows of text alone, empty answers, no turns",
    ),
    *(
        Dataset(
            f"lmms-lab/LLaVA-ReCap-{name}",
            write_recaptions,
            files="data/train-*.parquet",
            shape="id, image, conversations of from and value, data_source",
            kind="interleaved",
            options={"images": "image", "turns": "conversations"},
            licence="",
            known="readers of others: image, conversations, files under data/",
            guessed="that the question is the mark alone (LLaVA-NeXT's README adds a prompt to it); empty answers",
        )
        for name in ("558K", "118K", "CC3M")
    ),
    Dataset(
        "lmms-lab/LLaVA-OneVision-Data",
        write_onevision,
        files="SET/train-*.parquet",
        shape="id, image (null in sets of text alone), conversations of from and value, data_source: the set",
        kind="interleaved",
        options={"images": "image", "turns": "conversations"},
        licence="apache-2.0",
        known="LLaVA-NeXT's playground/upload_data.py: names of the sets and columns; tree pages of the repository. "
        "Not in it: llava_wild_4v_*, MathV360K's TQA, VQA-AS and VQA-RAD, Evol-Instruct (LLaVA-NeXT, scripts/train)",
        guessed="that the sets marked as to be uploaded again (ureader_*, cambrian) are Parquet too; empty answers",
        subsets=ONEVISION_SUBSETS,
    ),
    Dataset(
        "TIGER-Lab/Mantis-Instruct",
        write_mantis,
        files="SET/train-*.parquet, SET/train_images.zip",
        shape="id, images: list of bytes (null) and path, conversation of role and content, source",
        kind="interleaved",
        images="for one set zip://::.../SET/train_images.zip, or the folder it was unpacked to",
        licence="apache-2.0",
        known="tree pages of the repository: folders, files, licence; ms-swift: keys; Mantis' data/README.md",
        guessed="where in the archive a path starts; rows with more images than marks, empty answers",
        subsets=MANTIS_SUBSETS,
    ),
)
